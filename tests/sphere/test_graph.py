"""Geodesic axes and neighbours: counts, symmetry, the icosahedron's known graph."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.sphere.graph import covering_radius, geodesic_axes, neighbours


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
