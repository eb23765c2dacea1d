"""Geodesic axes and neighbours: counts, symmetry, the icosahedron's known graph."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag

from napari_dmri.errors import InputError
from napari_dmri.sphere.graph import (
    chebyshev,
    covering_radius,
    geodesic_axes,
    healpix_laplacian,
    laplacian_basis,
    neighbours,
    pooling_index,
    scaled_laplacian,
    unpooling_index,
)
from napari_dmri.sphere.sampling import fold_to_half, healpix, healpix_half


@pytest.mark.parametrize("frequency", [1, 2, 4, 7])
def test_geodesic_axes_are_distinct_unit_axes(frequency: int) -> None:
    axes = geodesic_axes(frequency)
    assert axes.shape == (5 * frequency**2 + 1, 3)
    assert np.allclose(np.linalg.norm(axes, axis=1), 1)
    cosine = np.abs(axes @ axes.T) - 2 * np.eye(len(axes))
    assert np.rad2deg(np.arccos(cosine.max())) > 50 / frequency


def test_every_axis_of_the_icosahedron_neighbours_all_others() -> None:
    table = neighbours(geodesic_axes(1))
    assert table.shape == (6, 5)
    for axis, row in enumerate(table):
        assert sorted([axis, *row]) == list(range(6))


def test_neighbours_are_mutual_and_near() -> None:
    axes = geodesic_axes(6)
    table = neighbours(axes)
    pairs = {(a, int(b)) for a, row in enumerate(table) for b in row}
    assert all((b, a) in pairs for a, b in pairs)
    cosine = np.abs(np.einsum("dc,dkc->dk", axes, axes[table]))
    assert np.rad2deg(np.arccos(cosine.min())) < 2.2 * np.rad2deg(covering_radius(axes))


def test_covering_radius_bounds_random_directions() -> None:
    axes = geodesic_axes(5)
    u = np.random.default_rng(0).standard_normal((5000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    nearest = np.arccos(np.abs(u @ axes.T).max(1).clip(0, 1))
    radius = covering_radius(axes)
    assert 0.9 * radius < nearest.max() <= radius + 1e-12


def test_bad_axes_are_refused() -> None:
    with pytest.raises(InputError, match="not in one plane"):
        neighbours(np.array([[1.0, 0, 0], [0, 1, 0], [0.6, 0.8, 0]]))
    with pytest.raises(InputError, match="given twice"):
        neighbours(np.concatenate([geodesic_axes(2), -geodesic_axes(2)[:1]]))
    with pytest.raises(InputError, match="frequency 0"):
        geodesic_axes(0)


LARGEST = {1: 1.34992, 2: 1.44841, 4: 1.49189, 8: 1.50594}


@pytest.mark.parametrize(("n_side", "entries"), [(1, 120), (2, 456), (4, 1576), (8, 6280)])
def test_the_laplacian_of_healpix_is_that_of_the_paper(n_side: int, entries: int) -> None:
    laplacian = healpix_laplacian(n_side)
    assert np.count_nonzero(laplacian) == entries + 12 * n_side**2
    np.testing.assert_allclose(laplacian, laplacian.T, atol=1e-15)
    values = np.linalg.eigvalsh(laplacian)
    np.testing.assert_allclose(values[[0, -1]], [0, LARGEST[n_side]], atol=1e-5)


@pytest.mark.parametrize("n_side", [1, 2, 4])
def test_the_half_does_what_the_whole_does_to_even_functions(n_side: int) -> None:
    fold = fold_to_half(n_side)
    x = np.random.default_rng(0).standard_normal(6 * n_side**2)
    whole, half = scaled_laplacian(n_side, False), scaled_laplacian(n_side)
    np.testing.assert_allclose(whole @ x[fold], (half @ x)[fold], atol=1e-12)
    values = np.linalg.eigvalsh(half)
    assert values[0] > -1 - 1e-9
    assert values[-1] < 1 + 1e-9


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("n_side", [1, 2, 4])
def test_modes_diagonalise_the_laplacian_in_blocks(n_side: int, half: bool) -> None:
    mirror, blocks, values = laplacian_basis(n_side, half)
    modes = mirror.T @ block_diag(*blocks)
    np.testing.assert_allclose(modes.T @ modes, np.eye(len(modes)), atol=1e-12)
    laplacian = scaled_laplacian(n_side, half)
    np.testing.assert_allclose((modes * values) @ modes.T, laplacian, atol=1e-12)
    assert len(blocks) == (4 if half else 8)
    # Filters are polynomials: the dense recursion gives the same.
    dense = np.eye(len(modes)), laplacian, 2 * laplacian @ laplacian - np.eye(len(modes))
    for found, wanted in zip(chebyshev(values, 3), dense, strict=True):
        np.testing.assert_allclose((modes * found) @ modes.T, wanted, atol=1e-12)


@pytest.mark.parametrize("half", [True, False])
def test_pooling_averages_parts_and_unpooling_repeats_them(half: bool) -> None:
    directions = healpix_half if half else healpix
    parts, parents = pooling_index(4, half), unpooling_index(4, half)
    fine, coarse = directions(4), directions(2)
    assert parts.shape == (len(coarse), 4)
    assert np.rad2deg(np.arccos(np.abs((fine * coarse[parents]).sum(1)).min())) < 25
    for pixel, four in enumerate(parts):
        np.testing.assert_array_equal(parents[four], pixel)
    for function in (pooling_index, unpooling_index):
        with pytest.raises(InputError, match="coarser than N_side 1"):
            function(1, half)
