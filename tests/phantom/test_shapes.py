from __future__ import annotations

import numpy as np

from napari_dmri.phantom.shapes import Curve, Hull, coverage, ellipsoid, tube


def test_a_sphere_is_exact() -> None:
    points = np.random.default_rng(0).normal(0, 10, (50, 3)).astype(np.float32)
    expected = np.linalg.norm(points - [1, 2, 3], axis=1) - 7
    assert np.allclose(ellipsoid(points, (1, 2, 3), (7, 7, 7)), expected, atol=1e-3)


def test_a_straight_tube_is_a_cylinder() -> None:
    line = Curve.through([(0, 0, -30), (0, 0, 30)], (4.0, 4.0), step=0.2)
    points = np.array([[0, 0, 0], [3, 0, 5], [4, 0, 0], [7, 0, 1]], np.float32)
    assert np.allclose(tube(points, line, np.ones(3)), [-4, -1, 0, 3], atol=0.01)


def test_coverage_of_a_plane_is_linear() -> None:
    assert coverage(np.array([-1.0, -0.25, 0.0, 0.25, 1.0]), 1.0).tolist() == [
        1,
        0.75,
        0.5,
        0.25,
        0,
    ]


def test_hull_normals_point_outwards_and_points_lie_on_it() -> None:
    hull = Hull()
    on = np.array([hull.at(y, a, 1.0) for y in (-60, -16, 30) for a in (5, 40, 80)], np.float32)
    distance, normal, _ = hull.distance(on)
    assert np.abs(distance).max() < 1.5
    beyond, _, _ = hull.distance(on + normal)
    assert np.allclose(beyond - distance, 1, atol=0.1)


def test_curves_pass_their_knots_with_unit_tangents() -> None:
    knots = [(0, 0, 0), (10, 5, 0), (20, 0, 5)]
    curve = Curve.through(knots, (1, 2, 3), step=0.1)
    for knot in knots:
        assert np.linalg.norm(curve.points - knot, axis=1).min() < 0.1
    assert np.allclose(np.linalg.norm(curve.tangents, axis=1), 1, atol=1e-5)
    assert (curve.mirrored().points[:, 0] <= 0).all()
