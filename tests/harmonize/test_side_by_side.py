"""Several models on one scan, against a reference."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from napari_dmri import GradientTable, InputError
from napari_dmri.harmonize import GolkovHarmonizer, compare_models, write_side_by_side
from napari_dmri.harmonize.side_by_side import MEASURED, REFIT
from napari_dmri.images import ScalarImage
from napari_dmri.training import Stage

pytestmark = pytest.mark.filterwarnings("ignore::napari_dmri.errors.DmriWarning")


@pytest.fixture(scope="module")
def labels(world):
    found = np.zeros(world.held_out.source.grid, np.int16)
    mask = np.asarray(world.held_out.source.mask)
    found[mask] = 1
    found[: found.shape[0] // 2][mask[: found.shape[0] // 2]] = 2
    return found


@pytest.fixture(scope="module")
def made(world, labels):
    """LinearRISH twice, a model that is missing, and the reference itself as a repeat."""
    pair = world.held_out
    models = {"first": world.model, "gone": "no-such-model", "second": world.model}
    return compare_models(pair.source, pair.target, models, labels=labels, repeat=pair.target)


def test_each_row_is_scored_and_a_missing_model_stops_no_other(made):
    labels = [one.label for one in made.candidates]
    assert labels == [MEASURED, REFIT, "first", "second", "target again"]
    assert list(made.failed) == ["gone"] and "no-such-model" in made.failed["gone"]
    table = made.scores()
    # The models recover the known scale of each order; the reference repeats itself.
    assert table["first"]["signal WM"] < 0.2 * table[REFIT]["signal WM"]
    assert table["first"]["signal GM"] == table["second"]["signal GM"]
    assert table["target again"]["signal WM"] < 1e-3
    assert table["gone"]["FA WM"] is None
    assert any("gone was left out" in note for note in table.notes)


def test_differences_are_tested_in_blocks_and_that_is_said(made):
    table = made.tests()
    assert len(table.rows) == 3 * 6
    rows = {(r.name, r["measure"], r["tissue"]): r for r in table.rows}
    clear = rows["first against refit only", "signal", "WM"]
    assert clear["change %"] < -80 and clear["low %"] <= clear["change %"] <= clear["high %"] < 0
    assert clear["p (Holm)"] < 0.01
    equal = rows["second against first", "FA", "GM"]
    assert equal["change %"] == 0 and equal["p (Holm)"] == 1
    assert any("nothing about other people" in note for note in table.notes)


def test_it_is_written_with_figures_and_never_over_earlier_results(made, tmp_path):
    files = write_side_by_side(made, tmp_path / "out", ("FA",), scans=True)
    names = {path.name for path in files}
    assert {"scores.tsv", "tests.tsv", "comparison.md", "FA.png", "methods.txt"} <= names
    assert "first_dwi.nii.gz" in names
    assert "LinearRISH" in (tmp_path / "out" / "methods.txt").read_text()
    with pytest.raises(InputError, match="not overwritten"):
        write_side_by_side(made, tmp_path / "out", ("FA",))


def test_networks_may_be_shown_with_and_without_projection(world, labels):
    pair = world.held_out
    trained = [replace(p, tissue=np.asarray(p.source.mask).astype(np.int16)) for p in world.pairs]
    network = GolkovHarmonizer(stages=[Stage("adam", 3e-3, 256, 2)]).fit(trained)
    models = {"linear": world.model, "net": network}
    made = compare_models(pair.source, pair.target, models, labels=labels, both_projections=True)
    assert [one.label for one in made.models] == ["linear", "net", "net, projected"], made.failed
    used = [c.scan.metadata["provenance"]["parameters"].get("projection") for c in made.models]
    assert used == [None, False, True] and network.projection is False


def test_a_model_of_another_shell_is_left_out(world, labels):
    pair = world.held_out
    table = pair.source.gradients
    weighted = ~table.b0_mask

    def two_shells(scan):
        """Measure the shell again at b=3000."""
        more = GradientTable(
            np.append(table.bvalues, np.full(weighted.sum(), 3000.0)),
            np.append(table.directions, table.directions[weighted], 0),
        )
        data = np.concatenate([scan.data, np.asarray(scan.data)[..., weighted] / 2], -1)
        return replace(scan, data=data, gradients=more)

    high = copy(world.model)
    high._card = {**high.card, "shell": 3000.0, "shells": [{"bvalue": 3000.0, "order": 4}]}
    found = compare_models(
        two_shells(pair.source), two_shells(pair.target), {"low": world.model, "high": high},
        labels=labels,
    )  # fmt: skip
    assert [one.label for one in found.candidates if one.model] == ["low"]
    assert "of b=3000 s/mm² and the comparison of b=1200" in found.failed["high"]


def test_a_scan_is_no_reference_of_itself_nor_of_another_person_or_grid(world, labels):
    source, target = world.held_out.source, world.held_out.target
    with pytest.raises(InputError, match="the scan and the reference"):
        compare_models(source, source, [world.model])
    other = replace(target, metadata={**target.metadata, "subject": "sub-77"})
    with pytest.raises(InputError, match="of sub-9 and the reference of sub-77"):
        compare_models(source, other, [world.model])
    moved = replace(target, affine=target.affine + np.eye(4)[:, [3, 0, 1, 2]] * 3)
    with pytest.raises(InputError, match="on one grid"):
        compare_models(source, moved, [world.model])
    with pytest.raises(InputError, match="No model can be compared"):
        compare_models(source, target, [])


def test_labels_of_another_grid_are_refused(world, labels):
    source, target = world.held_out.source, world.held_out.target
    affine = target.affine.copy()
    affine[2, 3] += 2.5
    misplaced = ScalarImage(labels, affine, "l9")
    for given, words in (
        (misplaced, r"\(l9\) and .* which lie up to 2\.5 mm apart"),
        (labels[1:], "labels have shape"),
    ):
        with pytest.raises(InputError, match=words):
            compare_models(source, target, [world.model], labels=given)


def test_a_model_is_not_compared_on_a_person_it_was_trained_on(world):
    pair = world.pairs[0]
    with pytest.raises(InputError, match="subjects that this model was trained on"):
        compare_models(pair.source, pair.target, [world.model])
    renamed = [
        replace(s, metadata={**s.metadata, "subject": ""}) for s in (pair.source, pair.target)
    ]
    with pytest.raises(InputError, match="subjects that this model was trained on"):
        compare_models(*renamed, [world.model])
