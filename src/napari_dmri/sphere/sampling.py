r"""Spread directions over the half sphere: well separated, deterministic, as axes.

A half sphere holds one direction of each antipodal pair: enough for even functions. Directions
start on a golden spiral and repel each other as axes, with the energy of inverse squared distance
to each direction and to its antipode,

.. math:: E = \sum_{i < j} \Big( \frac{1}{|u_i - u_j|^2} + \frac{1}{|u_i + u_j|^2} \Big)
            = \sum_{i < j} \frac{1}{1 - (u_i \cdot u_j)^2} .
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

__all__ = ["half_sphere", "half_sphere_edges", "spiral"]

Array = NDArray[Any]

MOST = 20000
"""Directions on offer at most."""

WORK = 4e7
"""Pairs of directions that are looked at in spreading them: bounds the time for many of them."""


def spiral(count: int) -> NDArray[np.float64]:
    r"""Return directions (count, 3) on a golden spiral over the half sphere z > 0.

    .. math:: z_i = (i + 1/2) / n, \quad \phi_i = \pi (3 - \sqrt{5}) i
    """
    _check(count)
    i = np.arange(count)
    z = (i + 0.5) / count
    phi = np.pi * (3 - 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


@lru_cache(maxsize=32)
def half_sphere(count: int) -> NDArray[np.float64]:
    r"""Return well-spread unit vectors (count, 3) on the half sphere z >= 0, one a pair of poles.

    The same count always gives the same directions; the array is read-only and kept.

    Parameters
    ----------
    count
        How many, 1 to 20,000. Neighbours are about :math:`\sqrt{7.26 / n}` radians apart:
        8 degrees for 362, 4.9 degrees for 1,000.

    Raises
    ------
    InputError
        If the count is not in this range.
    """
    directions = spiral(count)
    if count > 1:
        directions = _spread(directions, int(np.clip(WORK / count**2, 4, 120)))
    directions *= np.where(directions[:, 2:] < 0, -1.0, 1.0)
    directions.setflags(write=False)
    return directions


@lru_cache(maxsize=8)
def half_sphere_edges(count: int) -> NDArray[np.int64]:
    """Return pairs (E, 2) of neighbouring directions of `half_sphere`, across the equator too.

    Two are neighbours where the triangulation (convex hull) of all directions and their antipodes
    joins one to the other or to its antipode.

    Raises
    ------
    InputError
        If there are fewer than 6 directions, which make no such triangulation.
    """
    from scipy.spatial import ConvexHull

    if count < 6:
        raise InputError(f"{count} directions have no triangulation; choose 6 or more.")
    directions = half_sphere(count)
    faces = ConvexHull(np.concatenate([directions, -directions])).simplices % count
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [0, 2]]])
    edges: NDArray[np.int64] = np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64)
    edges.setflags(write=False)
    return edges


def _check(count: int) -> None:
    if count != int(count) or not 1 <= count <= MOST:
        raise InputError(f"{count} directions are asked for; choose 1 to {MOST}.")


def _spread(start: Array, iterations: int) -> Array:
    """Lower the energy of axes from a start, by a fixed number of quasi-Newton steps."""
    from scipy.optimize import minimize

    count = len(start)

    def energy(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(count, 3)
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        u = x / norms
        cosine = u @ u.T
        np.fill_diagonal(cosine, 0.0)
        inverse = 1 / np.maximum(1 - cosine**2, 1e-9)
        np.fill_diagonal(inverse, 0.0)
        pull = 2 * (cosine * inverse**2) @ u
        pull -= (pull * u).sum(1, keepdims=True) * u
        return float(inverse.sum() / 2), (pull / norms).ravel()

    found = minimize(
        energy, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": iterations}
    ).x.reshape(count, 3)
    spread: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return spread
