"""RISH and GFA: known values, and no change under rotation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri import GradientTable, InputError, Scan, ShImage, fit_sh, gfa, rish
from napari_dmri.signal.rish import project_rish
from napari_dmri.sphere.harmonics import convert_basis, design_matrix, n_coefficients

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


def _random(seed: int, order: int, count: int = 200) -> np.ndarray:
    coefficients = np.random.default_rng(seed).normal(size=(count, n_coefficients(order)))
    return coefficients.astype(np.float32)


def _orders(order: int) -> list[slice]:
    return [
        slice(n_coefficients(el) - 2 * el - 1, n_coefficients(el)) for el in range(0, order + 1, 2)
    ]


@pytest.mark.parametrize("order", [0, 2, 4, 8])
def test_projection_keeps_directions_and_takes_energies(order: int) -> None:
    source, network = _random(1, order), _random(2, order)
    projected, counts = project_rish(network, source, cap=1e6)
    assert projected.dtype == np.float32
    assert not any(counts["capped"]) and not any(counts["guarded"])
    for part in _orders(order):
        a, b = projected[:, part].astype(float), source[:, part].astype(float)
        cosine = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
        np.testing.assert_allclose(cosine, 1, atol=1e-6)
    np.testing.assert_allclose(rish(projected), rish(network), rtol=1e-5)
    same, _ = project_rish(source, source)
    np.testing.assert_allclose(same, source, rtol=1e-6)


def test_projection_leaves_the_axis_of_axially_symmetric_voxels() -> None:
    rng = np.random.default_rng(3)
    axes = rng.normal(size=(50, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    zonal = np.repeat([1.0, 0.5, 0.25], [1, 5, 9])
    source = (zonal * design_matrix(axes, 4)).astype(np.float32)
    sphere = np.concatenate([axes, rng.normal(size=(3000, 3))])
    values = design_matrix(sphere, 4)
    projected, _ = project_rish(_random(4, 4, 50), source)
    found = (projected @ values.T).argmax(1)
    np.testing.assert_array_equal(found, np.arange(50))


def test_projection_guards_and_caps_and_counts() -> None:
    source = np.zeros((4, 6), np.float32)
    source[1:, 0] = [2.0, -2.0, 1e-9]
    source[3, 1] = 0.01
    network = np.ones((4, 6), np.float32)
    projected, counts = project_rish(network, source, cap=10)
    assert counts == {"capped": (0, 1), "guarded": (1, 2)}
    np.testing.assert_allclose(projected[:, 0], [0, 1, -1, 1e-9])
    np.testing.assert_allclose(projected[3, 1], 0.1, rtol=1e-6)
    assert not projected[:3, 1:].any()


def test_projection_refuses_what_it_cannot_use() -> None:
    ones = np.ones((2, 6), np.float32)
    with pytest.raises(InputError, match=r"\(2, 15\) and the source's \(2, 6\)"):
        project_rish(np.ones((2, 15)), ones)
    with pytest.raises(InputError, match="cap of the projection is 0"):
        project_rish(ones, ones, cap=0)
    with pytest.raises(InputError, match="1 voxels have predicted coefficients"):
        project_rish(np.array([[np.nan] * 6, [1.0] * 6]), ones)
