r"""Integrate functions on the sphere exactly, up to a degree, with few directions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

__all__ = ["half_quadrature"]

Array = NDArray[Any]

RULES = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 29, 31, 35, 41, 47, 53, 59, 65, 71, 77, 83, 89, 95)
"""Degrees of Lebedev's rules whose weights are all positive."""


@lru_cache(maxsize=32)
def half_quadrature(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return directions and weights that integrate even functions on the sphere.

    .. math:: \int f \, du = \sum_i w_i f(u_i) \quad \text{for even } f \text{ of degree} \le t

    They are one half of the smallest of Lebedev's rules that has this degree, with the weights
    doubled: about :math:`(t + 1)^2 / 6` directions, a third fewer than a product of Gauss's rule
    with equal angles, with the symmetry of the cube.

    Parameters
    ----------
    degree
        The degree t up to which integrals are exact, at most 95.

    Returns
    -------
    Unit vectors (V, 3) and weights (V,), all positive, with the sum :math:`4 \pi`; read-only.

    Raises
    ------
    InputError
        If there is no rule of this degree.

    References
    ----------
    Lebedev, Laikov, Doklady Mathematics 59(3):477-481, 1999.

    Examples
    --------
    >>> points, weights = half_quadrature(17)
    >>> points.shape, round(float(weights.sum() / np.pi), 12)
    ((55, 3), 4.0)
    """
    if not 0 <= degree <= RULES[-1]:
        raise InputError(f"There is no quadrature of degree {degree}; choose 0 to {RULES[-1]}.")
    from scipy.integrate import lebedev_rule

    columns, all_weights = lebedev_rule(min(rule for rule in RULES if rule >= degree))
    points = columns.T
    x, y, z = np.round(points.T, 9)
    upper = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    half, weights = np.ascontiguousarray(points[upper]), 2 * all_weights[upper]
    half.setflags(write=False)
    weights.setflags(write=False)
    return half, weights
