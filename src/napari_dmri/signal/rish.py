r"""Rotation-invariant features of functions on the sphere.

The energy of each even order l does not change when the function is rotated:

.. math:: R_l = \sum_{m=-l}^{l} c_{lm}^2

(Kazhdan et al. 2003; RISH features of the diffusion signal: Mirzaalian et al. 2016, Neuroimage
135:311). Generalised fractional anisotropy is the share of the root mean square that is not the
mean: :math:`\mathrm{GFA} = \sqrt{1 - c_{00}^2 / \sum_{lm} c_{lm}^2}` (Tuch 2004, eq. 15, in SH).

The projection of Koppers et al. (CDMRI 2018, eq. 1) takes a network's energies and keeps the
source's directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.sphere.harmonics import order_of

__all__ = ["gfa", "project_rish", "rish"]

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


def project_rish(
    network: ShImage | Array, source: ShImage | Array, cap: float = 10.0, *, least: float = 1e-12
) -> tuple[NDArray[np.float32], dict[str, tuple[int, ...]]]:
    r"""Give the source's coefficients the energies that a network predicts, order by order.

    .. math:: c'_{lm} = c_{lm} \sqrt{R_l^{\mathrm{net}} / R_l}

    The factor is positive, so each order keeps its direction in coefficient space, :math:`c_{00}`
    its sign, and an axially symmetric function its axis. Where the source has no energy in an
    order (below ``least``) there is no direction to scale: the order is set to zero, and
    :math:`c_{00}` is left alone.

    Parameters
    ----------
    network
        Predicted coefficients (..., C), in an orthonormal basis.
    source
        The source's coefficients (..., C).
    cap
        Largest factor.
    least
        Energy below which an order counts as empty.

    Returns
    -------
    Coefficients (..., C) float32, and how many voxels were ``"capped"`` and ``"guarded"``, for
    l = 0, 2, ... L. Voxels that are zero at the source in every order are not counted.

    Raises
    ------
    InputError
        If the shapes differ, the cap is not above 0, or a predicted coefficient is not finite.

    References
    ----------
    Koppers et al., CDMRI 2018, eq. 1; the cap is that of the RISH pipeline (Cetin Karayumak 2019).
    """
    wanted, given = _coefficients(network), _coefficients(source)
    if wanted.shape != given.shape:
        raise InputError(
            f"The predicted coefficients have shape {wanted.shape} and the source's {given.shape}; "
            "a projection needs both on one grid and of one order."
        )
    if not cap > 0:
        raise InputError(f"The cap of the projection is {cap:g}; it must be above 0.")
    broken = int((~np.isfinite(wanted)).any(-1).sum())
    if broken:
        raise InputError(
            f"{broken} voxels have predicted coefficients that are not finite; the network "
            "diverged in training: train it anew with a lower learning rate."
        )
    after, before = rish(wanted), rish(given)
    known = (before > 0).any(-1)
    out = np.array(given, np.float32, order="K")
    capped, guarded = [], []
    for k in range(before.shape[-1]):
        empty = before[..., k] < least
        ratio = np.divide(
            after[..., k], before[..., k], out=np.zeros(empty.shape), where=~empty, dtype=np.float64
        )
        factor = np.sqrt(ratio)
        over = factor > cap
        factor = np.where(empty, float(k == 0), np.minimum(factor, cap))
        order = slice(k * (2 * k - 1), (k + 1) * (2 * k + 1))
        out[..., order] *= factor[..., None].astype(np.float32)
        capped.append(int((over & known).sum()))
        guarded.append(int((empty & known).sum()))
    return out, {"capped": tuple(capped), "guarded": tuple(guarded)}


def _coefficients(image_or_coefficients: ShImage | Array) -> NDArray[np.float32]:
    if isinstance(image_or_coefficients, ShImage):
        return image_or_coefficients.coefficients
    return np.asarray(image_or_coefficients, dtype=np.float32)
