"""Orders and matrices of shells."""

from __future__ import annotations

import numpy as np
import pytest
from tests.deconvolve.sticks import units

from napari_dmri.deconvolve.shd.order_rule import paper_order, shell_matrix
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients
from napari_dmri.sphere.sampling import half_sphere


def test_the_papers_order_is_the_largest_with_fewer_coefficients_than_directions() -> None:
    for count in range(1, 100):
        fitting = [el for el in (0, 2, 4, 6, 8) if n_coefficients(el) < max(count, 2)]
        assert paper_order(count) == max(fitting)
    assert paper_order(64, most=4) == 4


@pytest.mark.parametrize("rule", ["safe", "paper"])
def test_a_shell_that_is_a_polynomial_gives_its_coefficients(rule: str) -> None:
    directions = half_sphere(30)
    matrix, order, words = shell_matrix(directions, rule=rule)
    assert (order, matrix.shape, words) == (6, (28, 30), "of order 6")
    truth = np.random.default_rng(0).standard_normal(28)
    np.testing.assert_allclose(matrix @ design_matrix(directions, 6) @ truth, truth, atol=1e-9)


def test_duplicates_lower_the_safe_order_alone() -> None:
    directions = np.concatenate([half_sphere(20), -half_sphere(20)])
    assert shell_matrix(directions, rule="paper")[1] == 6
    _, order, words = shell_matrix(directions)
    assert order == 4
    assert "20 distinct" in words


def test_directions_on_a_part_of_the_sphere_are_smoothed() -> None:
    directions = units(60)
    directions = directions[np.abs(directions[:, 2]) > 0.5]
    matrix, order, words = shell_matrix(directions)
    assert "smoothed (0.006)" in words
    plain, same, _ = shell_matrix(directions, rule="paper")
    assert order == same
    assert np.linalg.norm(matrix) < 0.5 * np.linalg.norm(plain)


def test_unknown_rules_and_empty_shells_are_refused() -> None:
    with pytest.raises(InputError, match="'plain'"):
        shell_matrix(half_sphere(10), rule="plain")
    with pytest.raises(InputError, match="0 directions"):
        paper_order(0)
