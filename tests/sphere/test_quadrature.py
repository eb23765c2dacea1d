import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.quadrature import RULES, half_quadrature


@pytest.mark.parametrize("degree", [0, 3, 8, 13, 16, 24, 36])
def test_products_of_harmonics_are_integrated_exactly(degree):
    points, weights = half_quadrature(degree)
    basis = design_matrix(points, degree // 2 // 2 * 2)
    assert np.allclose((basis.T * weights) @ basis, np.eye(basis.shape[1]), atol=1e-12)


def test_all_rules_are_positive_halves():
    for rule in RULES:
        points, weights = half_quadrature(rule)
        assert weights.min() > 0
        assert weights.sum() == pytest.approx(4 * np.pi)
        assert np.allclose(np.linalg.norm(points, axis=1), 1)
        assert np.abs(np.abs(points @ points.T) - 1)[~np.eye(len(points), dtype=bool)].min() > 1e-6


def test_quarter_turns_keep_the_directions():
    points, weights = half_quadrature(29)
    for turned in (points[:, [1, 0, 2]], points[:, [2, 1, 0]]):
        near = np.abs(points @ turned.T)
        assert np.allclose(near.max(0), 1)
        assert np.allclose(weights[near.argmax(0)], weights)


@pytest.mark.parametrize("degree", [-1, 96])
def test_degrees_without_a_rule_are_refused(degree):
    with pytest.raises(InputError, match="quadrature of degree"):
        half_quadrature(degree)
