r"""Where maxima are looked for: axes of a half sphere, each with a chart of its surroundings.

Around each axis d, with tangents :math:`e_1, e_2`, an SH function is a polynomial in the chart

.. math:: u(x, y) = \frac{d + \rho\,(x e_1 + y e_2)}{\lVert \cdot \rVert}, \qquad
          f(u(x, y)) \approx \sum_{i + j \le 6} a_{ij} x^i y^j, \quad x^2 + y^2 \lesssim 1

whose coefficients are linear in those of f: one small matrix an axis, by least squares over the
chart. The axes are as much denser as the order is higher, so that the remainder stays below
1e-5 of the function at every order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from napari_dmri.sphere.graph import covering_radius, geodesic_axes, neighbours
from napari_dmri.sphere.harmonics import design_matrix

__all__ = ["DEGREE", "SearchGrid", "powers", "search_grid"]

DEGREE = 6
"""Degree of the polynomial of a chart: 28 coefficients."""

COARSEST = 5
"""Frequency of the geodesic sphere at least."""

FINENESS = 1.25
"""Frequency over the order, 501 axes at order 8: coarser grids pass over shallow maxima."""

REACH = 1.15
"""Radius of the charts over the largest distance of any direction to its nearest axis."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SearchGrid:
    """Hold the axes of a search and what is precomputed about them.

    Parameters
    ----------
    directions
        Unit vectors (D, 3).
    tangents
        Two unit vectors across each (D, 2, 3).
    neighbours
        Indices of neighbouring axes (D, K).
    values
        Evaluates SH coefficients on the axes (D, C), float32.
    charts
        From SH coefficients to polynomial coefficients (D, C, 28), float32.
    radius
        The charts' rho, as a tangent.
    """

    directions: Array
    tangents: Array
    neighbours: NDArray[np.int64]
    values: NDArray[np.float32]
    charts: NDArray[np.float32]
    radius: float


def powers(degree: int = DEGREE) -> list[tuple[int, int]]:
    """Return the exponents (i, j) of the monomials, in the order of a chart's coefficients.

    Examples
    --------
    >>> powers(2)
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    """
    return [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


@lru_cache(maxsize=4)
def search_grid(order: int) -> SearchGrid:
    """Make the grid for functions up to an order; it is kept."""
    directions = geodesic_axes(max(round(FINENESS * order), COARSEST))
    tangents = _tangents(directions)
    radius = float(np.tan(REACH * covering_radius(directions)))
    x, y = _stencil()
    fit = np.linalg.pinv(np.stack([x**i * y**j for i, j in powers()], axis=1))
    around = directions[:, None] + radius * np.einsum("kp,dkc->dpc", [x, y], tangents)
    samples = design_matrix(around.reshape(-1, 3), order).reshape(*around.shape[:2], -1)
    charts = np.einsum("mp,dpc->dcm", fit, samples, optimize=True)
    return SearchGrid(
        directions,
        tangents,
        neighbours(directions),
        design_matrix(directions, order).astype(np.float32),
        charts.astype(np.float32),
        radius,
    )


def _tangents(directions: Array) -> Array:
    """Return two unit vectors across each direction and each other (D, 2, 3)."""
    least = np.eye(3)[np.abs(directions).argmin(1)]
    one = np.cross(directions, least)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    return np.stack([one, np.cross(directions, one)], axis=1)


def _stencil() -> tuple[Array, Array]:
    """Return points of the unit disc, denser to its rim as for Chebyshev's."""
    rings = [(0.0, 1), (0.38, 8), (0.71, 12), (0.92, 16), (1.0, 16)]
    x, y = [], []
    for k, (radius, count) in enumerate(rings):
        angle = 2 * np.pi * (np.arange(count) + 0.5 * (k % 2)) / count
        x.append(radius * np.cos(angle))
        y.append(radius * np.sin(angle))
    return np.concatenate(x), np.concatenate(y)
