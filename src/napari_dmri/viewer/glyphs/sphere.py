"""Template spheres: geodesic icosahedra of any frequency, vertices in antipodal pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from napari_dmri.viewer.glyphs.basis import (
    PLAIN,
    Reading,
    ShSpace,
    reading_change,
    values_and_gradients,
)

__all__ = ["FREQUENCIES", "Template", "evaluation_matrix", "template"]

FREQUENCIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Parts of the icosahedron's edges on offer: 12, 42, 92, 162, 362, 642 ... 10242 vertices."""

BLUR = 0.01
"""Smoothing on the coarsest sphere, whose directions are farther apart than a sharp lobe is wide:
without it, a lobe on a vertex would be drawn as a needle without width."""


@dataclass(frozen=True, eq=False)
class Template:
    """Hold a sphere of triangles.

    Parameters
    ----------
    frequency
        Parts into which every edge of the icosahedron is divided, n.
    vertices
        Unit vectors (10 n² + 2, 3); vertex ``half + i`` is the antipode of vertex i.
    faces
        Triangles (20 n², 3), counter-clockwise seen from outside.
    """

    frequency: int
    vertices: NDArray[np.float64]
    faces: NDArray[np.uint32]

    @property
    def half(self) -> int:
        """Number of vertices of the half sphere."""
        return len(self.vertices) // 2


@lru_cache(maxsize=16)
def template(frequency: int) -> Template:
    """Make the geodesic sphere of a frequency."""
    corners, triangles = _icosahedron()
    n = frequency
    points, faces = [], []
    for triangle in triangles:
        a, b, c = corners[triangle]
        start = sum(len(block) for block in points)
        rows = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
        number = {pair: start + k for k, pair in enumerate(rows)}
        i, j = np.array(rows).T[:, :, None]
        points.append((n - i - j) * a + i * b + j * c)
        for i, j in rows:
            if i + j < n:
                faces.append((number[i, j], number[i + 1, j], number[i, j + 1]))
            if i + j < n - 1:
                faces.append((number[i + 1, j], number[i + 1, j + 1], number[i, j + 1]))
    cloud = np.concatenate(points)
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
    _, kept, renumbered = np.unique(
        np.round(cloud, 7) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    vertices, triangles = cloud[kept], renumbered.ravel()[np.array(faces)]
    order = _pairs_first(vertices)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    vertices, half = vertices[order], len(order) // 2
    vertices[half:] = -vertices[:half]
    return Template(frequency, vertices, place[triangles].astype(np.uint32))


def _pairs_first(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order vertices so that those of the upper half come first and their antipodes follow."""
    rounded = np.round(vertices, 6) + 0.0
    x, y, z = rounded.T
    upper = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    names = {tuple(p): i for i, p in enumerate(rounded)}
    first = np.flatnonzero(upper)
    second = [names[tuple(np.round(-vertices[i], 6) + 0.0)] for i in first]
    return np.concatenate([first, second])


def _icosahedron() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array(
        [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
        + [(a, b * golden, 0) for a in (-1, 1) for b in (-1, 1)]
        + [(b * golden, 0, a) for a in (-1, 1) for b in (-1, 1)]
    )
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    near = corners @ corners.T > 0.4
    faces = []
    for i in range(12):
        for j in range(i + 1, 12):
            for k in range(j + 1, 12):
                if near[i, j] and near[j, k] and near[i, k]:
                    outward = np.linalg.det(corners[[i, j, k]]) > 0
                    faces.append((i, j, k) if outward else (i, k, j))
    return corners, np.array(faces)


@lru_cache(maxsize=32)
def evaluation_matrix(
    frequency: int, space: ShSpace, reading: Reading = PLAIN, gradients: bool = True
) -> NDArray[np.float32]:
    """Return the matrix from coefficients to radii (and gradients) on a template.

    Returns
    -------
    (C, K, 4): radius and its gradient in RAS at K directions, or (C, K): radii alone. K is the
    half sphere for even functions and the whole sphere for full ones.
    """
    sphere = template(frequency)
    u = sphere.vertices if space.full else sphere.vertices[: sphere.half]
    values, slopes = values_and_gradients(u, space)
    change = reading_change(reading, space)
    if not gradients:
        return np.ascontiguousarray((values @ change.T).T, dtype=np.float32)
    both = np.concatenate([values[..., None], slopes], -1)
    if frequency <= 2:
        degree = np.repeat(space.degrees, [2 * el + 1 for el in space.degrees])
        both *= np.exp(-BLUR * degree * (degree + 1))[:, None]
    return np.ascontiguousarray(np.einsum("vjk,ij->ivk", both, change), dtype=np.float32)
