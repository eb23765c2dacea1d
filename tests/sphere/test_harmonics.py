from __future__ import annotations

import numpy as np
import pytest
from dipy.core.geometry import cart2sphere
from dipy.reconst.shm import real_sh_descoteaux, real_sh_tournier

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import (
    BASES,
    convert_basis,
    degrees,
    design_matrix,
    n_coefficients,
)


def directions(count: int, seed: int = 0) -> np.ndarray:
    u = np.random.default_rng(seed).normal(size=(count, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def dipy_matrix(u: np.ndarray, order: int, basis: str) -> np.ndarray:
    function = real_sh_tournier if basis.startswith("tournier") else real_sh_descoteaux
    _, theta, phi = cart2sphere(*u.T)
    return function(order, theta, phi, legacy=basis.endswith("legacy"))[0]


@pytest.mark.filterwarnings("ignore:The legacy:PendingDeprecationWarning")
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("order", [0, 2, 8, 12])
def test_every_basis_of_dipy_evaluates_to_the_same_function(basis: str, order: int) -> None:
    u = directions(150)
    other = np.random.default_rng(1).normal(size=(5, n_coefficients(order)))
    ours = design_matrix(u, order) @ convert_basis(other, basis).T
    np.testing.assert_allclose(ours, dipy_matrix(u, order, basis) @ other.T, atol=1e-12)


@pytest.mark.parametrize("source", BASES)
@pytest.mark.parametrize("target", BASES)
def test_conversion_there_and_back_is_exact(source: str, target: str) -> None:
    values = np.random.default_rng(2).normal(size=(3, 2, 45)).astype(np.float32)
    back = convert_basis(convert_basis(values, source, target), target, source)
    np.testing.assert_allclose(back, values, rtol=2e-7)
    assert back.dtype == np.float32


def test_the_internal_basis_is_orthonormal() -> None:
    z, weights = np.polynomial.legendre.leggauss(16)
    phi = np.arange(32) * 2 * np.pi / 32
    zz, pp = np.meshgrid(z, phi, indexing="ij")
    r = np.sqrt(1 - zz**2)
    u = np.stack([r * np.cos(pp), r * np.sin(pp), zz], -1).reshape(-1, 3)
    w = np.repeat(weights, 32) * 2 * np.pi / 32
    B = design_matrix(u, 8)
    np.testing.assert_allclose(B.T @ (w[:, None] * B), np.eye(45), atol=1e-12)


def test_addition_theorem_makes_energy_per_order_constant() -> None:
    B = design_matrix(directions(50), 8)
    for el in range(0, 9, 2):
        energy = (B[:, degrees(8) == el] ** 2).sum(1)
        np.testing.assert_allclose(energy, (2 * el + 1) / (4 * np.pi), rtol=1e-12)


def test_zero_vectors_odd_orders_and_unknown_bases_are_refused() -> None:
    with pytest.raises(InputError, match="1 of 2 directions are the zero vector"):
        design_matrix(np.array([[0, 0, 1.0], [0, 0, 0]]), 2)
    with pytest.raises(InputError, match="order is 3"):
        design_matrix(np.eye(3), 3)
    with pytest.raises(InputError, match="Unknown SH basis 'fsl'"):
        convert_basis(np.zeros(6), "fsl")
    with pytest.raises(InputError, match="7 volumes are not a set"):
        convert_basis(np.zeros(7), "tournier07")
