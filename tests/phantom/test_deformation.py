from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.phantom.deformation import Deformation


def test_there_and_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-80, 80, (200, 3))
    for seed in range(3):
        shape = Deformation.random(np.random.default_rng(seed))
        back = shape.to_template(shape.to_scanner(points).astype(np.float32))
        assert np.abs(back - points).max() < 1e-3


def test_jacobian_is_the_derivative() -> None:
    shape = Deformation.random(np.random.default_rng(4))
    points = np.random.default_rng(1).uniform(-60, 60, (20, 3))
    back = shape.inverse_jacobian(points)
    step = 1e-2
    for axis in range(3):
        moved = shape.to_scanner(shape.to_template(points) + step * np.eye(3)[axis])
        start = shape.to_scanner(shape.to_template(points))
        assert np.allclose((moved - start) / step, back[:, :, axis], atol=2e-3)


def test_gradient_stays_below_its_bound_and_keeps_orientation() -> None:
    shape = Deformation.random(np.random.default_rng(5))
    assert shape.gradient_bound < 0.31
    back = shape.inverse_jacobian(np.random.default_rng(2).uniform(-90, 90, (500, 3)))
    assert (np.linalg.det(back) > 0).all()


def test_folding_waves_are_refused() -> None:
    still = np.zeros((1, 3))
    with pytest.raises(InputError, match="below 1"):
        Deformation(np.eye(3), np.zeros(3), np.ones(3), still + 10, still + 0.1, still)
