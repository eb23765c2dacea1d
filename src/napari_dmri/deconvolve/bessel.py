r"""Evaluate the ratio of Bessel functions that the likelihood of magnitude images needs.

.. math:: R_n(x) = \frac{I_n(x)}{I_{n-1}(x)}, \quad x \ge 0

With :math:`u = 1 / \sqrt{x^2 + c^2}`, the function :math:`R_n(x) / (x u)` is smooth on the whole
half line: even in x at 0, and a series in u towards infinity. A polynomial in u, found once in
float64 for each n, is therefore accurate everywhere and costs a dozen passes over the data.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["BesselRatio", "polynomial_of_ratio"]

ACCURACY = 4e-7
"""Largest absolute error of the ratio, which is between 0 and 1, in exact arithmetic.

Rounding to float32 adds as much up to 16 coils, and ten times as much at 32."""

MOST = 32
"""The highest order n on offer."""

FAR = 3e4
"""Beyond this the ratio is its asymptotic series."""


@lru_cache(maxsize=16)
def polynomial_of_ratio(order: int) -> tuple[float, tuple[float, ...]]:
    r"""Return c and the coefficients :math:`p_k` of :math:`R_n(x) \approx x u \sum_k p_k u^k`.

    Parameters
    ----------
    order
        n, 1 to 32: the number of coils that are combined as a sum of squares.

    Raises
    ------
    InputError
        If the order is not in this range.
    """
    if order != int(order) or not 1 <= order <= MOST:
        raise InputError(f"{order} coils are asked for; choose a whole number from 1 to {MOST}.")
    nodes = np.arange(400)
    u = (1 + np.cos(np.pi * (nodes + 0.5) / len(nodes))) / 2
    x = np.logspace(-3, 4.3, 3000)
    exact = _ratio(order, x)
    for degree in range(4, 24):
        for shift in order * np.array([0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]):
            at = shift * np.sqrt(1 / u**2 - 1)
            smooth = _ratio(order, at) * shift / (at * u)
            fit = chebyshev.Chebyshev.fit(u, smooth, degree, domain=[0, 1])
            found = fit.convert(kind=polynomial.Polynomial).coef * shift ** np.arange(degree + 1.0)
            inverse = 1 / np.hypot(x, shift)
            error = np.abs(x * inverse * polynomial.polyval(inverse, found) - exact).max()
            if error < ACCURACY:
                return float(shift), tuple(float(p) for p in found)
    raise InputError(f"No polynomial was found for {order} coils.")  # pragma: no cover


def _ratio(order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ive

    near = np.minimum(x, FAR)
    series = 1 - (order - 0.5) / x + (2 * order - 1) * (2 * order - 3) / (8 * x**2)
    ratio: NDArray[np.float64] = np.where(x > FAR, series, ive(order, near) / ive(order - 1, near))
    return ratio


class BesselRatio:
    """Evaluate the ratio in place, for one order, on one device."""

    def __init__(self, order: int, device: torch.device) -> None:
        import torch

        shift, coefficients = polynomial_of_ratio(order)
        self.square = torch.tensor(shift**2, dtype=torch.float32, device=device)
        self.coefficients = [
            torch.tensor(p, dtype=torch.float32, device=device) for p in coefficients
        ]

    def __call__(self, x: torch.Tensor, out: torch.Tensor, work: torch.Tensor) -> torch.Tensor:
        """Put the ratio at x >= 0 into ``out``; ``work`` is overwritten."""
        import torch

        torch.addcmul(self.square, x, x, out=work).rsqrt_()
        highest, *rest = self.coefficients[::-1]
        torch.mul(work, highest, out=out).add_(rest[0])
        for coefficient in rest[1:]:
            torch.addcmul(coefficient, out, work, out=out)
        return out.mul_(work).mul_(x)
