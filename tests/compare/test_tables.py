"""Tables by region: known numbers, text forms, painted labels, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare.maps import TISSUES
from napari_dmri.compare.tables import Row, Table, combine, comparison_table, label_names
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage


def image(values, name) -> ScalarImage:
    return ScalarImage(np.asarray(values, np.float32).reshape(-1, 1, 1), np.eye(4), name, "mm²/s")


A = image([1, 2, 3, 10, 20, 30], "A")
B = image([1, 2, 3, 20, 40, 60], "B")
LABELS = np.array([1, 1, 1, 2, 2, 0]).reshape(-1, 1, 1)


def test_each_region_has_its_numbers():
    table = comparison_table(A, B, LABELS, names=TISSUES)
    assert [r.name for r in table.rows] == ["white matter", "grey matter"]
    white, grey = table.rows
    assert (white["n"], white["mean A"], white["SD A"]) == (3, 2.0, 1.0)
    assert (white["NMSE"], white["mean A − B"]) == (0.0, 0.0)
    assert white["correlation"] == pytest.approx(1)
    assert grey["n"] == 2
    assert grey["mean A − B"] == -15
    assert grey["NMSE"] == pytest.approx(0.25)
    assert table["grey matter"] is grey
    with pytest.raises(KeyError):
        table["bone"]


def test_a_reference_gets_the_errors_of_both():
    table = comparison_table(A, B, LABELS, reference=B)
    row = table["label 2"]
    assert row["NMSE A"] == pytest.approx(0.25)
    assert row["NMSE B"] == 0
    assert row["mean reference"] == 30


def test_labels_may_be_an_image_and_one_voxel_has_no_sd():
    painted = ScalarImage(np.array([0, 0, 7, 0, 0, 0]).reshape(-1, 1, 1), np.eye(4))
    table = comparison_table(A, B, painted)
    assert table.rows[0].name == "label 7"
    assert np.isnan(table.rows[0]["SD A"])
    assert "n/a" in table.to_tsv()
    assert label_names(painted) == {7: "label 7"}


def test_without_labels_the_mask_is_one_region():
    mask = np.array([1, 1, 0, 0, 0, 0], bool).reshape(-1, 1, 1)
    table = comparison_table(A, B, mask=mask)
    assert [r.name for r in table.rows] == ["all"]
    assert table.rows[0]["n"] == 2


def test_text_forms_have_one_line_a_row():
    table = comparison_table(A, B, LABELS, names=TISSUES)
    lines = table.to_tsv().splitlines()
    assert lines[0].split("\t")[:3] == ["region", "n", "mean A"]
    assert len(lines) == 3
    assert {len(line.split("\t")) for line in lines} == {9}
    assert table.to_markdown().count("\n|") == 4
    made = table.to_dict()
    assert made["rows"][0]["region"] == "white matter"
    assert Table("t", ("x",), (Row("r", {"x": float("nan")}),)).to_dict()["rows"][0]["x"] is None


def test_combine_names_rows_by_table():
    table = comparison_table(A, B, LABELS)
    both = combine([table, table], "both", ["FA", "MD"])
    assert [r.name for r in both.rows][::2] == ["FA: label 1", "MD: label 1"]


def test_bad_input_is_refused_in_words():
    with pytest.raises(InputError, match="labels have shape"):
        comparison_table(A, B, np.ones((2, 1, 1)))
    with pytest.raises(InputError, match="at least one labelled voxel"):
        comparison_table(A, B, np.zeros_like(LABELS))
    with pytest.raises(InputError, match="one grid"):
        comparison_table(A, image([1, 2], "B"))
    empty = image([np.nan] * 6, "C")
    with pytest.raises(InputError, match="No labelled voxel is finite"):
        comparison_table(A, empty, LABELS)
