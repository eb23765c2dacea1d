r"""Rotation-invariant features of functions on the sphere.

The energy of each even order l does not change when the function is rotated:

.. math:: R_l = \sum_{m=-l}^{l} c_{lm}^2

(Kazhdan et al. 2003; RISH features of the diffusion signal: Mirzaalian et al. 2016, Neuroimage
135:311). Generalised fractional anisotropy is the share of the root mean square that is not the
mean: :math:`\mathrm{GFA} = \sqrt{1 - c_{00}^2 / \sum_{lm} c_{lm}^2}` (Tuch 2004, eq. 15, in SH).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.images import ShImage
from napari_dmri.sphere.harmonics import order_of

__all__ = ["gfa", "rish"]

Array = NDArray[Any]


def rish(image_or_coefficients: ShImage | Array) -> NDArray[np.float32]:
    r"""Return the energy per order, :math:`R_l = \sum_m c_{lm}^2`.

    Parameters
    ----------
    image_or_coefficients
        An `ShImage`, or coefficients (..., C) in an orthonormal basis.

    Returns
    -------
    (..., L/2 + 1) float32: l = 0, 2, ... L.
    """
    coefficients = _coefficients(image_or_coefficients)
    orders = range(0, order_of(coefficients.shape[-1]) + 1, 2)
    out = np.empty((len(orders), *coefficients.shape[:-1]), np.float32)
    for k, el in enumerate(orders):
        part = coefficients[..., el * (el - 1) // 2 : (el + 1) * (el + 2) // 2]
        out[k] = np.einsum("...c,...c->...", part, part)
    return np.moveaxis(out, 0, -1)


def gfa(image_or_coefficients: ShImage | Array) -> NDArray[np.float32]:
    r"""Return the generalised fractional anisotropy in [0, 1]; 0 where there is no function.

    .. math:: \mathrm{GFA} = \sqrt{1 - c_{00}^2 / \textstyle\sum_{lm} c_{lm}^2}

    Parameters
    ----------
    image_or_coefficients
        An `ShImage`, or coefficients (..., C) in an orthonormal basis.

    Returns
    -------
    (...) float32.
    """
    energy = rish(image_or_coefficients)
    total = energy.sum(-1)
    share = energy[..., 1:].sum(-1) / np.where(total > 0, total, 1)
    anisotropy: NDArray[np.float32] = np.sqrt(np.clip(share, 0, 1), dtype=np.float32)
    return anisotropy


def _coefficients(image_or_coefficients: ShImage | Array) -> NDArray[np.float32]:
    if isinstance(image_or_coefficients, ShImage):
        return image_or_coefficients.coefficients
    return np.asarray(image_or_coefficients, dtype=np.float32)
