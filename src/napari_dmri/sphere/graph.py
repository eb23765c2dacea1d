"""Graphs on the sphere: geodesic axes, and which directions of a sampling are neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from napari_dmri.errors import InputError

__all__ = ["covering_radius", "geodesic_axes", "neighbours"]

Array = NDArray[Any]


def geodesic_axes(frequency: int) -> NDArray[np.float64]:
    r"""Return one of each antipodal pair of vertices of a divided icosahedron.

    Every edge is cut into n parts and the points are pushed out to the sphere: :math:`5 n^2 + 1`
    axes, about :math:`69 / n` degrees apart.

    Parameters
    ----------
    frequency
        The number n of parts, from 1.

    Raises
    ------
    InputError
        If it is below 1.
    """
    if frequency < 1:
        raise InputError(f"A geodesic sphere of frequency {frequency} does not exist; give 1 up.")
    golden = (1 + 5**0.5) / 2
    axes = np.array([[0, 1, golden], [0, -1, golden]])
    corners = np.concatenate([np.roll(axes, k, axis=1) for k in range(3)])
    corners = np.concatenate([corners, -corners]) / np.hypot(1, golden)
    near = corners @ corners.T > 0.4
    i, j, k = np.indices((12, 12, 12)).reshape(3, -1)
    chosen = (i < j) & (j < k) & near[i, j] & near[j, k] & near[i, k]
    a, b, c = (corners[index[chosen]] for index in (i, j, k))
    n = frequency
    parts = np.array([(n - p - q, p, q) for p in range(n + 1) for q in range(n + 1 - p)]) / n
    points = np.einsum("pk,kfc->fpc", parts, np.stack([a, b, c])).reshape(-1, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rounded = np.round(points, 6) + 0.0
    x, y, z = rounded.T
    upper = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    _, first = np.unique(rounded[upper], axis=0, return_index=True)
    vertices: NDArray[np.float64] = points[upper][first]
    return vertices


def neighbours(directions: Array) -> NDArray[np.int64]:
    """Return the neighbours of each axis of a half sphere, across its rim as well.

    Two axes are neighbours if an edge of the convex hull of all u and -u joins them.

    Parameters
    ----------
    directions
        Unit vectors (D, 3), one of each antipodal pair; at least three, not in one plane.

    Returns
    -------
    Indices (D, K), K the largest number of neighbours; rows with fewer repeat their first.

    Raises
    ------
    InputError
        If an axis is not on the hull (given twice) or the axes lie in a plane.
    """
    faces = _faces(directions)
    count = len(directions)
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]) % count
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    counts = np.bincount(pairs[:, 0], minlength=count)
    starts = np.cumsum(counts) - counts
    place = np.arange(counts.max())[None]
    columns = np.where(place < counts[:, None], place, 0)
    table: NDArray[np.int64] = pairs[starts[:, None] + columns, 1]
    return table


def covering_radius(directions: Array) -> float:
    """Return the largest angle (radians) from any axis to the nearest of a half sphere's.

    It is taken at the centres of the hull's triangles, where no axis is closer.
    """
    points = np.concatenate([directions, -directions])
    a, b, c = points[_faces(directions)].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    cosine = np.abs((normal * a).sum(1)).clip(0, 1)
    return float(np.arccos(cosine).max())


def _faces(directions: Array) -> NDArray[np.int64]:
    """Return the triangles of the hull of u and -u."""
    u = np.asarray(directions, dtype=np.float64)
    if u.ndim != 2 or u.shape[1] != 3 or len(u) < 3 or np.linalg.matrix_rank(u) < 3:
        raise InputError(
            f"Axes of shape {u.shape} do not span the sphere; give at least three unit vectors "
            "(D, 3) that are not in one plane."
        )
    hull = ConvexHull(np.concatenate([u, -u]))
    if len(hull.vertices) != 2 * len(u):
        raise InputError(
            f"{2 * len(u) - len(hull.vertices)} of {2 * len(u)} directions are given twice, or are "
            "not unit vectors; give one of each antipodal pair, once."
        )
    faces: NDArray[np.int64] = hull.simplices.astype(np.int64)
    return faces
