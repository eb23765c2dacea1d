"""Verdicts are added to a record and nothing else is touched."""

from __future__ import annotations

import pytest

from napari_dmri.errors import InputError
from napari_dmri.io.qc_record import COLUMNS, append_verdict, read_verdicts


def test_rows_are_added_in_order(tmp_path):
    record = tmp_path / "reports" / "qc.tsv"
    append_verdict(record, scan="sub-01", verdict="accept", path=tmp_path / "a b.nii.gz")
    append_verdict(record, scan="sub-02", verdict="reject", note="spike\tin\nslice 7", errors=2)
    rows = read_verdicts(record)
    assert [row["scan"] for row in rows] == ["sub-01", "sub-02"]
    assert rows[0]["path"] == str(tmp_path / "a b.nii.gz")
    assert rows[1]["note"] == "spike in slice 7"
    assert (rows[1]["errors"], rows[1]["warnings"]) == ("2", "0")
    assert tuple(rows[0]) == COLUMNS


def test_another_file_of_that_name_is_left_alone(tmp_path):
    record = tmp_path / "qc.tsv"
    record.write_text("subject\tage\n01\t30\n")
    with pytest.raises(InputError, match="is not a QC record"):
        append_verdict(record, scan="sub-01", verdict="accept")
    assert record.read_text() == "subject\tage\n01\t30\n"


def test_an_unknown_verdict_is_refused(tmp_path):
    with pytest.raises(InputError, match="'maybe' is not known; choose accept, unsure, reject"):
        append_verdict(tmp_path / "qc.tsv", scan="sub-01", verdict="maybe")
    assert not (tmp_path / "qc.tsv").exists()
