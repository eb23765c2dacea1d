"""Checks of travelling pairs before training, in words and without reading their signal."""

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri import GradientTable, InputError
from napari_dmri.harmonize import Pair
from napari_dmri.harmonize.pair_checks import check_pair
from napari_dmri.sphere.sampling import half_sphere

from .conftest import AFFINE, subject_pair


@pytest.fixture(scope="module")
def pair():
    made = subject_pair(1)
    return Pair(made.source, made.target, "sub-01")


def changed(pair, role, **values):
    return replace(pair, **{role: replace(getattr(pair, role), **values)})


def test_a_good_pair_is_told_with_its_sites_shell_and_order(pair):
    check = check_pair(pair)
    assert check.level == "ok" and check.subject == "sub-01" and check.order == 4
    assert check.sentence == "b=1200 s/mm²: 30 and 30 directions. SH order 4."
    assert check.sites == tuple(s.metadata["site"] for s in (pair.source, pair.target))


def test_the_signal_is_not_read(pair):
    class Closed:
        shape, dtype, ndim = pair.source.shape, np.dtype(np.float32), 4

        def __getitem__(self, key):
            raise AssertionError("the signal was read")

    assert check_pair(changed(pair, "source", data=Closed())).level == "ok"


@pytest.mark.parametrize(
    ("role", "values", "level", "words"),
    [
        ("source", {"mask": None}, "warning", "Source has no mask: one will be made"),
        ("target", {"affine": AFFINE + np.eye(4) * [0.4, 0.4, 0.4, 0]}, "warning", "Two grids"),
        ("target", {"metadata": {"subject": "sub-07", "simulated": True}}, "warning", "sub-07"),
        ("source", {"metadata": {"simulated": False}}, "warning", "is simulated"),
    ],
)
def test_what_can_be_trained_on_is_warned_about(pair, role, values, level, words):
    check = check_pair(changed(pair, role, **values))
    assert check.level == level and words in check.sentence and check.order == 4


def masks(pair, source, target):
    return replace(pair, source=pair.source.with_mask(source), target=pair.target.with_mask(target))


def test_masks_must_hold_voxels_and_overlap(pair):
    grid = pair.source.grid
    left, none = np.zeros(grid, bool), np.zeros(grid, bool)
    left[: grid[0] // 2] = True
    assert "source mask is empty" in check_pair(masks(pair, none, left)).sentence
    apart = check_pair(masks(pair, left, ~left))
    assert apart.level == "error" and "overlap by 0%" in apart.sentence


def gradients(scan, bvalue, count=30):
    directions = np.concatenate([np.zeros((2, 3)), half_sphere(count)])
    return replace(
        scan,
        data=scan.data[..., : 2 + count],
        gradients=GradientTable(np.r_[0, 0, np.full(count, bvalue)], directions),
    )


def test_shells_must_be_in_common(pair):
    mapped = check_pair(replace(pair, source=gradients(pair.source, 1150)))
    assert mapped.level == "warning" and "mapped" in mapped.sentence
    other = check_pair(replace(pair, source=gradients(pair.source, 3000)))
    assert other.level == "error" and "no shell in common" in other.sentence
    assert "b=1200" in other.sentence and "b=3000" in other.sentence


def test_the_poorer_scan_sets_the_order(pair):
    poor = replace(pair, source=gradients(pair.source, 1200, 12))
    assert check_pair(poor).order == 2
    asked = check_pair(poor, order=4)
    assert asked.level == "error" and "above what the source supports (2)" in asked.sentence


def test_a_scan_without_b0_is_refused(pair):
    table = pair.target.gradients
    bare = replace(pair.target, gradients=GradientTable(table.bvalues + 1200, np.tile(
        table.directions[-1], (len(table), 1))))  # fmt: skip
    assert "no b0 volume" in check_pair(replace(pair, target=bare)).sentence


def test_a_scan_is_no_pair_with_itself(pair):
    assert check_pair(replace(pair, target=pair.source)).level == "error"


def test_what_cannot_be_read_is_an_error_of_its_row():
    class Gone:
        subject = "sub-09"

        @property
        def source(self):
            raise InputError("The file is gone.")

    check = check_pair(Gone())
    assert (check.level, check.sentence, check.order) == ("error", "The file is gone.", None)
