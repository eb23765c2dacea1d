r"""Real, even spherical harmonics: evaluation, bases and their conversion.

The internal basis is MRtrix3's, which is DIPY's ``tournier07`` with ``legacy=False``: for even l
and m = -l ... l, with the complex, orthonormal :math:`Y_l^m` (Condon-Shortley phase),

.. math::

    Y_{lm} = \sqrt{2}\,\mathrm{Im}\,Y_l^{|m|} \;(m < 0), \quad
    Y_l^0 \;(m = 0), \quad \sqrt{2}\,\mathrm{Re}\,Y_l^m \;(m > 0).

It is orthonormal, so energies per order do not depend on rotations. The other bases differ from
it by a sign, a swap of m and -m, or (``tournier07`` legacy) a factor; conversions are diagonal or
permuting, and exact.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import lpmv

from napari_dmri.errors import InputError

__all__ = [
    "BASES",
    "convert_basis",
    "degrees",
    "design_matrix",
    "n_coefficients",
    "order_of",
    "orders_and_phases",
]

Array = NDArray[Any]

BASES = ("tournier07", "tournier07_legacy", "descoteaux07", "descoteaux07_legacy")
"""Names of the bases that files may hold; ``mrtrix3`` is another word for ``tournier07``."""


def n_coefficients(order: int) -> int:
    r"""Count the even real SH coefficients up to an order, :math:`(L + 1)(L + 2) / 2`.

    Examples
    --------
    >>> [n_coefficients(order) for order in (0, 2, 4, 6, 8)]
    [1, 6, 15, 28, 45]
    """
    if order < 0 or order % 2:
        raise InputError(f"The SH order is {order}; it must be an even number from 0.")
    return (order + 1) * (order + 2) // 2


def order_of(n_coefs: int) -> int:
    """Return the SH order that has this many even coefficients.

    Raises
    ------
    InputError
        If no even order has this count.
    """
    order = 0
    while n_coefficients(order) < n_coefs:
        order += 2
    if n_coefficients(order) != n_coefs:
        raise InputError(
            f"{n_coefs} volumes are not a set of even SH coefficients; "
            "expected 1, 6, 15, 28, 45, 66, 91, 120, 153 or 190 (orders 0 to 18)."
        )
    return order


@lru_cache(maxsize=32)
def _orders_and_phases(order: int) -> tuple[Array, Array]:
    n_coefficients(order)
    pairs = [(el, m) for el in range(0, order + 1, 2) for m in range(-el, el + 1)]
    table = np.array(pairs, dtype=np.int64)
    table.setflags(write=False)
    return table[:, 0], table[:, 1]


def orders_and_phases(order: int) -> tuple[Array, Array]:
    """Return l and m of every coefficient (C,), up to an order."""
    return _orders_and_phases(order)


def degrees(order: int) -> Array:
    """Return l of every coefficient (C,)."""
    return _orders_and_phases(order)[0]


def design_matrix(directions: Array, order: int) -> NDArray[np.float64]:
    r"""Evaluate the basis, :math:`B_{ij} = Y_{l_j m_j}(u_i)`.

    Parameters
    ----------
    directions
        Vectors u (V, 3); only their direction counts, and a zero vector is refused.
    order
        The maximum degree L, even.

    Returns
    -------
    (V, C) float64.

    Examples
    --------
    >>> design_matrix(np.array([[0.0, 0.0, 1.0]]), 2).round(4)
    array([[0.2821, 0.    , 0.    , 0.6308, 0.    , 0.    ]])
    """
    u = np.asarray(directions, dtype=np.float64).reshape(-1, 3)
    norms = np.linalg.norm(u, axis=1)
    if (norms == 0).any():
        raise InputError(
            f"{int((norms == 0).sum())} of {len(u)} directions are the zero vector; "
            "spherical harmonics need directions: leave b0 volumes out."
        )
    z = np.clip(u[:, 2] / norms, -1, 1)
    phi = np.arctan2(u[:, 1], u[:, 0])
    columns = np.empty((len(u), n_coefficients(order)))
    for el in range(0, order + 1, 2):
        centre = el * (el + 1) // 2
        for m in range(el + 1):
            polar = _normalisation(el, m) * lpmv(m, el, z)
            if m == 0:
                columns[:, centre] = polar
            else:
                columns[:, centre + m] = np.sqrt(2) * polar * np.cos(m * phi)
                columns[:, centre - m] = np.sqrt(2) * polar * np.sin(m * phi)
    return columns


@lru_cache(maxsize=1024)
def _normalisation(el: int, m: int) -> float:
    ratio = 1.0
    for k in range(el - m + 1, el + m + 1):
        ratio /= k
    return float(np.sqrt((2 * el + 1) / (4 * np.pi) * ratio))


def convert_basis(coefficients: Array, source: str, target: str = "tournier07") -> Array:
    """Convert even SH coefficients (..., C) from one basis to another, exactly.

    Raises
    ------
    InputError
        If a basis is not one of `BASES` (or ``mrtrix3``).
    """
    index_in, factor_in = _to_internal(source, order_of(coefficients.shape[-1]))
    internal = coefficients[..., index_in] * factor_in.astype(coefficients.dtype)
    index_out, factor_out = _to_internal(target, order_of(coefficients.shape[-1]))
    converted: Array = np.empty_like(internal)
    converted[..., index_out] = internal / factor_out.astype(coefficients.dtype)
    return converted


@lru_cache(maxsize=64)
def _to_internal(basis: str, order: int) -> tuple[Array, Array]:
    """Return index and factor with ``internal[j] = factor[j] * other[index[j]]``.

    DIPY's ``tournier07`` legacy functions lack the root of two at m != 0; ``descoteaux07`` swaps
    m and -m, and its non-legacy form carries a sign.
    """
    _, m = _orders_and_phases(order)
    same = np.arange(len(m))
    if basis in ("tournier07", "mrtrix3"):
        return same, np.ones(len(m))
    if basis == "tournier07_legacy":
        return same, np.where(m != 0, np.sqrt(0.5), 1.0)
    if basis == "descoteaux07":
        return same - 2 * m, np.where(m > 0, (-1.0) ** np.abs(m), 1.0)
    if basis == "descoteaux07_legacy":
        return same - 2 * m, np.ones(len(m))
    raise InputError(f"Unknown SH basis {basis!r}; choose one of {', '.join(BASES)}, mrtrix3.")
