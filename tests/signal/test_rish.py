"""RISH and GFA: known values, and no change under rotation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri import GradientTable, InputError, Scan, ShImage, fit_sh, gfa, rish
from napari_dmri.sphere.harmonics import convert_basis

TENSOR = np.diag([1.7e-3, 0.5e-3, 0.2e-3])


def scan_of(tensor: np.ndarray, table: GradientTable) -> Scan:
    g = table.directions
    signal = 100 * np.exp(-table.bvalues * ((g @ tensor) * g).sum(1))
    return Scan(signal.reshape(1, 1, 1, -1).astype(np.float32), np.eye(4), table)


def dense_table(n: int = 90) -> GradientTable:
    z = 1 - (np.arange(n) + 0.5) / n
    phi = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    g = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    return GradientTable(np.r_[0, np.full(n, 2000.0)], np.r_[np.zeros((1, 3)), g])


@pytest.mark.parametrize("seed", range(3))
def test_rotating_function_and_gradients_changes_nothing(seed: int) -> None:
    rotation = Rotation.random(random_state=seed).as_matrix()
    table = dense_table()
    straight = fit_sh(scan_of(TENSOR, table), order=8, smooth=0)
    turned = fit_sh(
        scan_of(rotation @ TENSOR @ rotation.T, table.rotate(rotation)), order=8, smooth=0
    )
    assert np.abs(straight.coefficients - turned.coefficients).max() > 0.01
    np.testing.assert_allclose(rish(turned), rish(straight), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(gfa(turned), gfa(straight), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rotating_the_function_alone_changes_little(seed: int) -> None:
    rotation = Rotation.random(random_state=seed).as_matrix()
    table = dense_table()
    straight = rish(fit_sh(scan_of(TENSOR, table), order=8, smooth=0))
    turned = rish(fit_sh(scan_of(rotation @ TENSOR @ rotation.T, table), order=8, smooth=0))
    np.testing.assert_allclose(turned, straight, rtol=2e-3, atol=5e-6)


def test_energies_of_known_coefficients() -> None:
    coefficients = np.zeros((2, 1, 1, 15), np.float32)
    coefficients[0, 0, 0] = [2, 1, 1, 1, 1, 1, 0, 0, 0, 0, 3, 0, 0, 0, 0]
    image = ShImage(coefficients, np.eye(4))
    np.testing.assert_allclose(rish(image)[:, 0, 0], [[4, 5, 9], [0, 0, 0]])
    assert rish(image).dtype == gfa(image).dtype == np.float32
    np.testing.assert_allclose(gfa(image)[:, 0, 0], [np.sqrt(14 / 18), 0], rtol=1e-6)
    swapped = convert_basis(coefficients, "tournier07", "descoteaux07")
    np.testing.assert_allclose(rish(swapped), rish(image))
    assert rish(coefficients[0, 0, 0]).shape == (3,)
    np.testing.assert_allclose(gfa(np.array([3.0])), 0)


def test_memory_layout_does_not_matter() -> None:
    coefficients = np.random.default_rng(0).normal(size=(3, 4, 5, 45)).astype(np.float32)
    fortran = np.asarray(coefficients, order="F")
    np.testing.assert_allclose(rish(fortran), rish(coefficients), rtol=1e-6)


def test_other_counts_are_refused() -> None:
    with pytest.raises(InputError, match="16 volumes"):
        rish(np.zeros((2, 16)))
