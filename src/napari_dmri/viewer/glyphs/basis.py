r"""Values and tangential gradients of the real SH basis, even or full, in any basis of the files.

A glyph is the surface :math:`p(u) = |r(u)|\,u` with :math:`r(u) = \sum_j c_j Y_j(u)`; where r is
positive its outward normal is along :math:`r\,u - \nabla r`, with the gradient on the sphere. Both
are linear in the coefficients, so one matrix gives them for a whole slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import lpmv

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import convert_basis, n_coefficients

__all__ = [
    "HIGHEST_ORDER",
    "PLAIN",
    "Reading",
    "ShSpace",
    "basis_change",
    "reading_change",
    "values_and_gradients",
]

HIGHEST_ORDER = 18

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ShSpace:
    """Say which functions a set of coefficients spans.

    Parameters
    ----------
    order
        The maximum degree, 0 to 18.
    full
        Whether odd degrees are there too, :math:`(L + 1)^2` coefficients instead of
        :math:`(L + 1)(L + 2) / 2`: functions without antipodal symmetry.
    """

    order: int
    full: bool = False

    @classmethod
    def of(cls, count: int) -> ShSpace:
        """Recognise the space by its number of coefficients; no two spaces share a number above 1.

        Raises
        ------
        InputError
            If no even or full set up to order 18 has this many coefficients.
        """
        for order in range(HIGHEST_ORDER + 1):
            if order % 2 == 0 and n_coefficients(order) == count:
                return cls(order)
            if (order + 1) ** 2 == count:
                return cls(order, full=True)
        raise InputError(
            f"{count} coefficients a voxel are neither a set of even SH up to order 18 (1, 6, 15, "
            "28, 45, 66, 91, 120, 153, 190) nor a full one (1, 4, 9, ... 361)."
        )

    @property
    def count(self) -> int:
        """Number of coefficients."""
        return (self.order + 1) ** 2 if self.full else n_coefficients(self.order)

    @property
    def degrees(self) -> tuple[int, ...]:
        """The degrees l that it holds."""
        return tuple(range(0, self.order + 1, 1 if self.full else 2))

    def cut(self, order: int | None) -> ShSpace:
        """Return the space up to an order; its coefficients come first in the larger set."""
        top = self.order if order is None else max(0, min(int(order), self.order))
        return ShSpace(top if self.full else top - top % 2, self.full)


def values_and_gradients(directions: Array, space: ShSpace) -> tuple[Array, Array]:
    r"""Evaluate the basis and its gradient on the sphere, also at the poles.

    .. math:: \nabla Y = e_\theta\,\partial_\theta Y
              + e_\varphi\,\tfrac{1}{\sin\theta}\,\partial_\varphi Y

    Parameters
    ----------
    directions
        Unit vectors (V, 3).
    space
        Which functions.

    Returns
    -------
    Values (V, C) and gradients (V, C, 3), float64.
    """
    u = np.asarray(directions, dtype=np.float64)
    z = np.clip(u[:, 2], -1, 1)
    phi = np.arctan2(u[:, 1], u[:, 0])
    across = np.sqrt(np.maximum(0.0, 1 - z**2))
    theta_axis = np.stack([z * np.cos(phi), z * np.sin(phi), -across], -1)
    phi_axis = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], -1)
    values = np.empty((len(u), space.count))
    gradients = np.empty((len(u), space.count, 3))
    first = 0
    for el in space.degrees:
        legendre = {m: lpmv(m, el, z) for m in range(el + 2)}
        below = {m: lpmv(m, el - 1, z) for m in range(el + 2)} if el else {}
        for m in range(el + 1):
            norm = _normalisation(el, m) * (np.sqrt(2) if m else 1.0)
            polar = norm * legendre[m]
            # derivatives by recurrences that have no division by sin(theta)
            if m == 0:
                slope = norm * legendre[1] if el else np.zeros_like(z)
                rate = np.zeros_like(z)
            else:
                slope = -norm / 2 * ((el + m) * (el - m + 1) * legendre[m - 1] - legendre[m + 1])
                rate = -norm / 2 * (below[m + 1] + (el + m) * (el + m - 1) * below[m - 1])
            cos, sin = np.cos(m * phi), np.sin(m * phi)
            signed = ((m, cos, -sin), (-m, sin, cos)) if m else ((0, cos, -sin),)
            for order, wave, turned in signed:
                column = first + el + order
                values[:, column] = polar * wave
                gradients[:, column] = (
                    theta_axis * (slope * wave)[:, None] + phi_axis * (rate * turned)[:, None]
                )
        first += 2 * el + 1
    return values, gradients


Reading = tuple[str, str]
"""The basis that a file was read as, and the one that its coefficients are in."""

PLAIN: Reading = ("tournier07", "tournier07")


@lru_cache(maxsize=64)
def reading_change(reading: Reading, space: ShSpace) -> Array:
    """Return the matrix (C, C) that corrects coefficients that were read in a wrong basis.

    ``internal = coefficients @ reading_change(reading, space)``.
    """
    assumed, actual = reading
    if assumed == actual:
        return np.eye(space.count)
    return np.linalg.solve(basis_change(assumed, space), np.eye(space.count)) @ (
        basis_change(actual, space)
    )


@lru_cache(maxsize=64)
def basis_change(basis: str, space: ShSpace) -> Array:
    """Return the matrix (C, C) that takes coefficients in a basis to the internal one.

    ``internal = coefficients @ basis_change(basis, space)``. The bases differ only by signs,
    factors and swaps of m and -m, which depend on m alone, so odd degrees follow from even ones.
    """
    top = space.order + space.order % 2
    even = convert_basis(np.eye(n_coefficients(top)), basis)
    last = even[-(2 * top + 1) :, -(2 * top + 1) :]
    change = np.zeros((space.count, space.count))
    first = 0
    for el in space.degrees:
        size = 2 * el + 1
        change[first : first + size, first : first + size] = last[
            top - el : top + el + 1, top - el : top + el + 1
        ]
        first += size
    change.setflags(write=False)
    return change


@lru_cache(maxsize=1024)
def _normalisation(el: int, m: int) -> float:
    ratio = 1.0
    for k in range(el - m + 1, el + m + 1):
        ratio /= k
    return float(np.sqrt((2 * el + 1) / (4 * np.pi) * ratio))
