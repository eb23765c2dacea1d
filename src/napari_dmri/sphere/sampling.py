r"""Sample the sphere: directions spread over one half, and HEALPix.

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

__all__ = [
    "antipodes",
    "fold_to_half",
    "half_sphere",
    "half_sphere_edges",
    "healpix",
    "healpix_half",
    "match_directions",
    "northern",
    "spiral",
]

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


@lru_cache(maxsize=16)
def healpix(n_side: int) -> NDArray[np.float64]:
    r"""Return the centres (12 N^2, 3) of HEALPix pixels in NESTED order.

    With the ring i, counted from the north pole, and the place j on it, of pixel p,

    .. math::

        z = 1 - \frac{i^2}{3 N^2} \;(i < N), \quad
        \frac{2 (2 N - i)}{3 N} \;(N \le i \le 3 N), \quad
        \frac{(4 N - i)^2}{3 N^2} - 1 \;(i > 3 N), \qquad
        \phi = \frac{\pi}{2 n} \Big( j - \frac{s + 1}{2} \Big) .

    Four consecutive pixels are the parts of one pixel of N / 2. The array is read-only and kept.

    Parameters
    ----------
    n_side
        N, a power of two.

    Raises
    ------
    InputError
        If it is not a power of two.

    References
    ----------
    Gorski et al., Astrophysical Journal 622:759-771, 2005.

    Examples
    --------
    >>> healpix(1)[:2].round(3)
    array([[ 0.527,  0.527,  0.667],
           [-0.527,  0.527,  0.667]])
    """
    _check_side(n_side)
    face, within = np.divmod(np.arange(12 * n_side**2), n_side**2)
    u, v = np.zeros_like(within), np.zeros_like(within)
    for bit in range(int(n_side).bit_length() - 1):
        u |= (within >> 2 * bit & 1) << bit
        v |= (within >> 2 * bit + 1 & 1) << bit
    ring = n_side * np.repeat([2, 3, 4], 4)[face] - u - v - 1
    north, south = ring < n_side, ring > 3 * n_side
    n = np.where(north, ring, np.where(south, 4 * n_side - ring, n_side))
    cap = 1 - n**2 / (3 * n_side**2)
    z = np.where(north, cap, np.where(south, -cap, 2 * (2 * n_side - ring) / (3 * n_side)))
    shift = np.where(north | south, 0, (ring - n_side) % 2)
    column = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])[face]
    place = (column * n + u - v + 1 + shift) // 2
    place = (place - 1) % (4 * n) + 1
    phi = (place - (shift + 1) / 2) * np.pi / (2 * n)
    r = np.sqrt(1 - z**2)
    directions: NDArray[np.float64] = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    directions.setflags(write=False)
    return directions


@lru_cache(maxsize=16)
def antipodes(n_side: int) -> NDArray[np.int64]:
    """Return the pixel (12 N^2,) opposite every HEALPix pixel; every pixel has one."""
    found = match_directions(healpix(n_side), -healpix(n_side))
    found.setflags(write=False)
    return found


@lru_cache(maxsize=16)
def northern(n_side: int) -> NDArray[np.int64]:
    """Return the HEALPix pixels (6 N^2,) of one half: z > 0; at z = 0, y > 0; at both, x > 0."""
    x, y, z = np.round(healpix(n_side), 10).T
    kept = np.flatnonzero((z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0)))))
    kept.setflags(write=False)
    return kept


@lru_cache(maxsize=16)
def fold_to_half(n_side: int) -> NDArray[np.int64]:
    """Return which axis of `healpix_half` every HEALPix pixel (12 N^2,) lies on."""
    kept = northern(n_side)
    place = np.empty(12 * n_side**2, dtype=np.int64)
    place[kept] = place[antipodes(n_side)[kept]] = np.arange(len(kept))
    place.setflags(write=False)
    return place


def healpix_half(n_side: int) -> NDArray[np.float64]:
    """Return one (6 N^2, 3) of each antipodal pair of HEALPix centres, see `northern`."""
    return healpix(n_side)[northern(n_side)]


def match_directions(directions: Array, wanted: Array) -> NDArray[np.int64]:
    """Return the direction that each wanted one equals, to 1e-7.

    Raises
    ------
    InputError
        If a wanted direction is not among them.
    """
    from scipy.spatial import KDTree

    distance, index = KDTree(directions).query(wanted)
    if (distance > 1e-7).any():
        raise InputError(
            f"{int((distance > 1e-7).sum())} of {len(wanted)} directions are not among the "
            f"{len(directions)} given."
        )
    return np.asarray(index, dtype=np.int64)


def _check_side(n_side: int) -> None:
    if n_side != int(n_side) or n_side < 1 or int(n_side) & (int(n_side) - 1):
        raise InputError(f"HEALPix has no N_side {n_side}; choose a power of two.")
