"""Quality: a scan described for machines and people, and verdicts that are never lost."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.signal.findings import Finding
from napari_dmri.signal.quality import (
    Verdict,
    append_verdict,
    describe_lines,
    describe_scan,
    read_verdicts,
    summarize_findings,
)


def spiral(count):
    i = np.arange(count) + 0.5
    z = i / count
    phi = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)


@pytest.fixture
def scan(tmp_path):
    table = GradientTable(np.r_[0, 0, np.full(30, 1200.0)], np.r_[np.zeros((2, 3)), spiral(30)])
    return Scan(
        np.zeros((8, 9, 10, 32), np.int16),
        np.diag([2.4, 2.4, 2.4, 1]),
        table,
        name="sub-01",
        path=tmp_path / "dwi.nii.gz",
        metadata={"orientation": "LAS", "simulated": True, "warnings": ["2 vectors normalised"]},
    )


def test_a_description_holds_the_numbers_and_survives_json(scan):
    about = json.loads(json.dumps(describe_scan(scan), allow_nan=False))
    assert about["shape"] == [8, 9, 10, 32]
    assert about["voxel_size"] == [2.4, 2.4, 2.4]
    assert about["orientation"] == "LAS"
    assert about["b0"] == 2
    assert about["simulated"] is True
    assert about["warnings"] == ["2 vectors normalised"]
    b0, shell = about["shells"]
    assert b0 == {"bvalue": 0.0, "count": 2, "b0": True}
    assert shell["distinct_directions"] == 30
    assert shell["order"] == 4
    assert shell["condition_numbers"]["8"] is None
    assert shell["condition_numbers"]["2"] < 2


def test_lines_are_the_same_from_a_scan_and_its_description(scan):
    lines = describe_lines(scan)
    assert lines == describe_lines(describe_scan(scan))
    text = "\n".join(lines)
    for words in ("sub-01 (simulated)", "2.40 x 2.40 x 2.40 mm", "LAS", "2 b0 + 30 at b=1200"):
        assert words in text
    assert "8: singular" in text
    assert "2 vectors normalised" in text


def test_a_scan_with_nothing_known_is_described():
    table = GradientTable([1000.0], [[1.0, 0, 0]])
    about = describe_scan(Scan(np.zeros((2, 2, 2, 1), np.float32), np.eye(4), table))
    assert about["path"] is None
    assert about["shells"][0]["order"] is None
    assert any("No b0" in line for line in describe_lines(about))


def test_verdicts_are_added_and_read_back(tmp_path):
    path = tmp_path / "ratings of mañana.tsv"
    first = Verdict("sub-01.nii.gz", "reject", "dropouts\tin 4\nand \\t 7\r", rater="ana")
    second = Verdict("sub-01.nii.gz", "accept", rater="ben", findings="note: Few b0 volumes (1)")
    assert append_verdict(path, first) == path
    append_verdict(path, second)
    assert read_verdicts(path) == [first, second]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == ["scan", "decision", "note", "rater", "when", "findings"]
    assert len(lines) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_edited_elsewhere_still_takes_rows(tmp_path):
    path = tmp_path / "ratings.tsv"
    append_verdict(path, Verdict("a", "unsure", "x"))
    text = path.read_text(encoding="utf-8").rstrip("\n").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    append_verdict(path, Verdict("b", "accept"))
    assert [v.scan for v in read_verdicts(path)] == ["a", "b"]
    empty = tmp_path / "empty.tsv"
    empty.touch()
    append_verdict(empty, Verdict("c", "accept"))
    assert read_verdicts(empty)[0].scan == "c"


@pytest.mark.parametrize("content", [b"subject\tage\n1\t30\n", b"\x1f\x8b\xff\x00"])
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "participants.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="choose another"):
        append_verdict(path, Verdict("a", "accept"))
    assert path.read_bytes() == content


def test_a_broken_row_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "ratings.tsv"
    append_verdict(path, Verdict("a", "accept"))
    with path.open("a", encoding="utf-8") as stream:
        stream.write("b\taccept\n")
    with pytest.raises(InputError, match=r"Line 3 .* 2 cells; expected 6"):
        read_verdicts(path)
    with pytest.raises(InputError, match="no verdict file"):
        read_verdicts(tmp_path / "none.tsv")


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InputError):
        append_verdict(blocked / "ratings.tsv", Verdict("a", "accept"))
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(InputError):
            append_verdict(locked / "ratings.tsv", Verdict("a", "accept"))


def test_a_verdict_is_one_of_three_and_names_a_scan():
    with pytest.raises(InputError, match=r"'maybe'.*accept, reject, unsure"):
        Verdict("a", "maybe")
    with pytest.raises(InputError, match="names no scan"):
        Verdict(" ", "accept")
    now = Verdict("a", "accept")
    assert now.rater
    assert now.when.endswith("+00:00")


def test_findings_are_summed_up_without_the_good_ones():
    findings = [Finding("warning", "Uneven", "x"), Finding("ok", "1 shell", "x")]
    assert summarize_findings(findings) == "warning: Uneven"
