"""Shells of a model in a scan, and subsets of directions."""

from __future__ import annotations

import numpy as np
import pytest
from tests.deconvolve.sticks import table

from napari_dmri.deconvolve.shd.shell_choice import choose_subset, match_shells
from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable

GRADIENTS = table()


def test_shells_are_found_in_the_models_order_and_the_rest_is_named() -> None:
    found, rest = match_shells(GRADIENTS, (0, 3060))
    assert [s.bvalue for s in found] == [0, 3000]
    assert [s.bvalue for s in rest] == [1000]


def test_a_tolerance_below_one_is_a_share() -> None:
    found, _ = match_shells(GRADIENTS, (0, 1200, 2500), tolerance=0.25)
    assert [s.bvalue for s in found] == [0, 1000, 3000]
    with pytest.raises(InputError, match="nothing within 25% of 2000"):
        match_shells(GRADIENTS, (0, 2000), tolerance=0.25)


@pytest.mark.parametrize("bvalues", [(0, 2000), (0, 1000, 1050), (0, 90)])
def test_a_shell_that_is_missing_or_taken_is_refused_with_both_sets(
    bvalues: tuple[float, ...],
) -> None:
    with pytest.raises(InputError, match=r"the scan has b = 0, 1000, 3000: nothing within 100"):
        match_shells(GRADIENTS, bvalues)


def test_the_subset_begins_at_the_pole_and_repels() -> None:
    for count in (1, 6, 20):
        chosen = choose_subset(GRADIENTS, count, 3000)
        assert len(chosen) == 3 + count
        np.testing.assert_array_equal(chosen[:3], [0, 1, 2])
        assert 35 + int(np.argmax(GRADIENTS.directions[35:, 2])) in chosen
    u = GRADIENTS.directions[choose_subset(GRADIENTS, 6, 3000)[3:]]
    between = np.abs(u @ u.T)[np.triu_indices(6, 1)]
    random = GRADIENTS.directions[35:41]
    assert between.max() < 0.7 < np.abs(random @ random.T)[np.triu_indices(6, 1)].max()


def test_each_step_takes_the_least_potential() -> None:
    u = np.array([[0, 0, 1], [1, 0, 0], [0.8, 0, 0.6], [0, 0.6, 0.8], [0, 1, 0]], float)
    gradients = GradientTable(np.array([0, *[1000] * 5]), np.concatenate([np.zeros((1, 3)), u]))
    assert choose_subset(gradients, 2).tolist() == [0, 1, 2]
    assert choose_subset(gradients, 3).tolist() == [0, 1, 2, 5]


def test_more_directions_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="65 directions are asked for of 64"):
        choose_subset(GRADIENTS, 65)
