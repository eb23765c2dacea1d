"""Directions spread over the half sphere."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import (
    antipodes,
    fold_to_half,
    half_sphere,
    half_sphere_edges,
    healpix,
    healpix_half,
    match_directions,
    spiral,
)


def _nearest(directions: np.ndarray) -> np.ndarray:
    cosines = np.abs(directions @ directions.T)
    np.fill_diagonal(cosines, 0)
    return np.rad2deg(np.arccos(np.clip(cosines.max(1), 0, 1)))


@pytest.mark.parametrize("count", [1, 2, 6, 64, 362])
def test_directions_are_unit_and_on_one_half(count: int) -> None:
    u = half_sphere(count)
    assert u.shape == (count, 3)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, atol=1e-12)
    assert (u[:, 2] >= 0).all()


def test_six_axes_are_the_icosahedron() -> None:
    np.testing.assert_allclose(_nearest(half_sphere(6)), np.rad2deg(np.arctan(2)), atol=0.05)


@pytest.mark.parametrize("count", [100, 362, 724])
def test_neighbours_are_nearly_as_far_apart_as_a_hexagonal_lattice(count: int) -> None:
    ideal = np.rad2deg(np.sqrt(2 / np.sqrt(3) * 2 * np.pi / count))
    nearest = _nearest(half_sphere(count))
    assert nearest.min() > 0.82 * ideal
    assert nearest.mean() > 0.9 * ideal
    assert nearest.min() > _nearest(spiral(count)).min()


def test_the_sh_basis_is_nearly_orthogonal_on_them() -> None:
    design = design_matrix(half_sphere(362), 8)
    gram = design.T @ design * (4 * np.pi / 362)
    np.testing.assert_allclose(gram, np.eye(45), atol=0.02)


def test_the_same_count_gives_the_same_read_only_array() -> None:
    assert half_sphere(50) is half_sphere(50)
    with pytest.raises(ValueError, match="read-only"):
        half_sphere(50)[0] = 1


def test_edges_join_six_neighbours_each_on_average() -> None:
    edges = half_sphere_edges(200)
    # Euler: 2n vertices have 6n - 6 edges on the sphere, 3n - 3 as axes.
    assert len(edges) == 3 * 200 - 3
    u = half_sphere(200)
    angles = np.rad2deg(np.arccos(np.abs((u[edges[:, 0]] * u[edges[:, 1]]).sum(1)).clip(0, 1)))
    assert angles.max() < 20


@pytest.mark.parametrize("count", [0, -3, 20001])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(InputError, match="choose 1 to"):
        half_sphere(count)


def test_too_few_directions_have_no_edges() -> None:
    with pytest.raises(InputError, match="6 or more"):
        half_sphere_edges(5)


@pytest.mark.parametrize("n_side", [1, 2, 4, 8])
def test_healpix_has_equal_rings_antipodes_and_nested_parts(n_side: int) -> None:
    u = healpix(n_side)
    assert u.shape == (12 * n_side**2, 3)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(u[antipodes(n_side)], -u, atol=1e-12)
    assert len(np.unique(np.round(u[:, 2], 9))) == 4 * n_side - 1
    if n_side > 1:
        parts = u.reshape(-1, 4, 3).mean(1)
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        cosine = (parts * healpix(n_side // 2)).sum(1)
        assert np.rad2deg(np.arccos(cosine.min())) < 30 / n_side


def test_healpix_integrates_harmonics() -> None:
    design = design_matrix(healpix(8), 8)
    np.testing.assert_allclose(design.T @ design * (4 * np.pi / 768), np.eye(45), atol=0.02)


@pytest.mark.parametrize("n_side", [1, 2, 8])
def test_half_of_healpix_holds_every_axis_once(n_side: int) -> None:
    u, half, fold = healpix(n_side), healpix_half(n_side), fold_to_half(n_side)
    assert half.shape == (6 * n_side**2, 3)
    assert (half[:, 2] > -1e-10).all()
    np.testing.assert_array_equal(np.bincount(fold), 2)
    np.testing.assert_allclose(np.abs((half[fold] * u).sum(1)), 1, atol=1e-12)
    assert np.linalg.cond(design_matrix(healpix_half(8), 18)) ** 2 < 1.4


def test_samplings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="N_side 6"):
        healpix(6)
    with pytest.raises(InputError, match="1 of 1 directions are not among"):
        match_directions(healpix(1), np.array([[0.0, 0.0, 1.0]]))
