"""Graphs on the sphere: geodesic axes, neighbours, and the Laplacian of HEALPix."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from napari_dmri.errors import InputError
from napari_dmri.sphere.sampling import (
    fold_to_half,
    healpix,
    match_directions,
    northern,
)

__all__ = [
    "chebyshev",
    "covering_radius",
    "geodesic_axes",
    "healpix_laplacian",
    "laplacian_basis",
    "neighbours",
    "pooling_index",
    "scaled_laplacian",
    "unpooling_index",
]

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


@lru_cache(maxsize=8)
def healpix_laplacian(n_side: int) -> NDArray[np.float64]:
    r"""Return the normalised Laplacian (12 N^2, 12 N^2) of the graph of HEALPix pixels.

    .. math::

        L = I - D^{-1/2} W D^{-1/2}, \qquad
        W_{pq} = 2^{-(N |u_p - u_q| / 0.8)^2}

    where q is one of the 8 pixels nearest to p, or p one of the 8 nearest to q. Pixels as near as
    the eighth count as well, so that L has all symmetries of HEALPix.

    References
    ----------
    Defferrard et al., ICLR 2020 (DeepSphere); widths of Elaldi, Gerig, Dey, NeurIPS 2024.
    """
    u = healpix(n_side)
    squared = np.maximum(2 - 2 * u @ u.T, 0)
    np.fill_diagonal(squared, np.inf)
    eighth = np.sort(squared, axis=1)[:, 7:8]
    near = squared <= eighth * (1 + 1e-9)
    near |= near.T
    weights = np.where(near, np.exp2(-np.where(near, squared, 0) * (n_side / 0.8) ** 2), 0)
    root = np.sqrt(weights.sum(1))
    laplacian: NDArray[np.float64] = np.eye(len(u)) - weights / root[:, None] / root
    laplacian.setflags(write=False)
    return laplacian


@lru_cache(maxsize=16)
def scaled_laplacian(n_side: int, half: bool = True) -> NDArray[np.float64]:
    r"""Return the Laplacian scaled to eigenvalues in [-1, 1], or its form on one half.

    .. math::

        L_s = \frac{2}{\lambda_{max}} L - I, \qquad
        L^+_{pq} = (L_s)_{pq} + (L_s)_{p,-q}

    for p and q in the half: :math:`L^+` does to one half what :math:`L_s` does to functions that
    are alike at antipodes. The largest eigenvalue is exact, so that two builds agree.

    Returns
    -------
    (V, V) float64, V = 6 N^2 (half) or 12 N^2; read-only, kept.

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024, section 3.2.
    """
    laplacian = healpix_laplacian(n_side)
    largest = np.linalg.eigvalsh(laplacian)[-1]
    scaled: NDArray[np.float64] = 2 / largest * laplacian - np.eye(len(laplacian))
    if half:
        kept, place = northern(n_side), fold_to_half(n_side)
        rows = scaled[kept]
        scaled = np.zeros((len(kept), len(kept)))
        np.add.at(scaled.T, place, rows.T)
    scaled.setflags(write=False)
    return scaled


def chebyshev(values: Array, terms: int) -> NDArray[np.float64]:
    r"""Return Chebyshev polynomials :math:`T_0 \dots T_{K-1}` (K, ...) of values.

    .. math:: T_k = 2 x T_{k-1} - T_{k-2}, \quad T_0 = 1, \; T_1 = x

    Examples
    --------
    >>> chebyshev(np.array([0.5]), 4).ravel()
    array([ 1. ,  0.5, -0.5, -1. ])
    """
    x = np.asarray(values, dtype=np.float64)
    rows: list[NDArray[np.float64]] = [np.ones_like(x), x]
    while len(rows) < terms:
        rows.append(2 * x * rows[-1] - rows[-2])
    polynomials: NDArray[np.float64] = np.stack(rows[:terms])
    return polynomials


@lru_cache(maxsize=16)
def laplacian_basis(
    n_side: int, half: bool = True
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...], NDArray[np.float64]]:
    r"""Return eigenvectors of the scaled Laplacian as a mirror step and small dense blocks.

    Functions even or odd under the mirrors of HEALPix (x and y; of the full sphere z too) do not
    mix under the Laplacian. With M the orthogonal change to such functions, one or a few entries a
    row, and the eigenvectors :math:`U_c` of each class c,

    .. math:: L = M^T \,\mathrm{diag}(U_c)\, \Lambda \,\mathrm{diag}(U_c^T)\, M ,

    so that going to eigenvectors costs about V / 4 (full sphere V / 8) multiplications a value.

    Returns
    -------
    mirror
        M (V, V), rows sorted by class.
    blocks
        :math:`U_c`, columns are eigenvectors.
    eigenvalues
        (V,), in the order of the blocks.
    """
    directions = healpix(n_side)[northern(n_side)] if half else healpix(n_side)
    place = fold_to_half(n_side) if half else np.arange(12 * n_side**2)
    mirror = np.eye(len(directions))
    classes = np.zeros(len(directions), dtype=np.int64)
    for axis in range(2 if half else 3):
        flipped = directions * np.where(np.arange(3) == axis, -1.0, 1.0)
        image = place[match_directions(healpix(n_side), flipped)]
        parity = mirror @ np.eye(len(image))[image].T
        even, odd = mirror + parity, mirror - parity
        mirror, classes = _independent(
            np.concatenate([even, odd]), np.concatenate([2 * classes, 2 * classes + 1])
        )
    order = np.argsort(classes, kind="stable")
    mirror, classes = mirror[order], classes[order]
    laplacian = mirror @ scaled_laplacian(n_side, half) @ mirror.T
    blocks, eigenvalues = [], []
    for name in np.unique(classes):
        of = classes == name
        values, vectors = np.linalg.eigh(laplacian[np.ix_(of, of)])
        blocks.append(vectors)
        eigenvalues.append(values)
    return mirror, tuple(blocks), np.concatenate(eigenvalues)


def _independent(rows: Array, classes: Array) -> tuple[Array, Array]:
    """Return one of each set of parallel rows of a class, with unit norm, without zero rows."""
    norms = np.linalg.norm(rows, axis=1)
    rows, classes = rows[norms > 1e-9] / norms[norms > 1e-9, None], classes[norms > 1e-9]
    lead = np.argmax(np.abs(rows) > 1e-9, axis=1)
    _, first = np.unique(np.stack([classes, lead]), axis=1, return_index=True)
    return rows[np.sort(first)], classes[np.sort(first)]


def pooling_index(n_side: int, half: bool = True) -> NDArray[np.int64]:
    """Return the 4 pixels of N (V / 4, 4) that make up each pixel of N / 2.

    Raises
    ------
    InputError
        If N is 1, which has no coarser sampling.
    """
    if n_side == 1:
        raise InputError("There is no HEALPix sampling coarser than N_side 1.")
    parts = np.arange(12 * n_side**2).reshape(-1, 4)
    if not half:
        return parts
    parts = parts[northern(n_side // 2)]
    return fold_to_half(n_side)[parts]


def unpooling_index(n_side: int, half: bool = True) -> NDArray[np.int64]:
    """Return the pixel of N / 2 that each pixel (V,) of N is a part of.

    Raises
    ------
    InputError
        If N is 1, which has no coarser sampling.
    """
    if n_side == 1:
        raise InputError("There is no HEALPix sampling coarser than N_side 1.")
    whole = np.arange(12 * n_side**2) // 4
    return fold_to_half(n_side // 2)[whole[northern(n_side)]] if half else whole
