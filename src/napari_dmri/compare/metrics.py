r"""Numbers that say how alike two images are.

All take an image and what it is compared with, use the voxels of a mask where both are finite, and
compute in float64. The second image is the baseline: errors are relative to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

__all__ = [
    "Agreement",
    "agreement",
    "angular_error",
    "correlation",
    "mean_sd",
    "nmse",
    "paired_values",
    "psnr",
    "rmse",
]

Array = NDArray[Any]


def paired_values(
    a: Any, reference: Any, mask: Any | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of two images where the mask holds and both are finite.

    Parameters
    ----------
    a, reference
        Images of one shape (X, Y, Z) or (X, Y, Z, K).
    mask
        Voxels that count (X, Y, Z); None means all.

    Returns
    -------
    Two float64 arrays (n,).

    Raises
    ------
    InputError
        If shapes disagree, or no voxel is left.
    """
    first, second = np.asarray(a), np.asarray(reference)
    if first.shape != second.shape:
        raise InputError(
            f"The images have shapes {first.shape} and {second.shape}; they must be on one grid: "
            "resample one to the other."
        )
    if mask is None:
        first, second = first.reshape(-1), second.reshape(-1)
    else:
        chosen = np.asarray(mask).astype(bool, copy=False)
        if chosen.shape != first.shape[: chosen.ndim]:
            raise InputError(
                f"The mask has shape {chosen.shape} and the images {first.shape}; they must be on "
                "one grid: resample the mask or make a new one."
            )
        first, second = first[chosen].reshape(-1), second[chosen].reshape(-1)
    x, y = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        raise InputError(
            f"No voxel to compare: the mask holds {x.size} values and none is finite in both "
            "images; check the mask."
        )
    return (x, y) if finite.all() else (x[finite], y[finite])


def nmse(a: Any, reference: Any, mask: Any | None = None) -> float:
    r"""Compute the normalised mean squared error.

    .. math:: \mathrm{NMSE} = \frac{\sum_i (a_i - r_i)^2}{\sum_i r_i^2}

    The measure of the SHResNet evaluation (Koppers et al., CDMRI 2018). NaN where the reference
    is zero everywhere.
    """
    x, y = paired_values(a, reference, mask)
    energy = float((y**2).sum())
    return float(((x - y) ** 2).sum()) / energy if energy > 0 else float("nan")


def rmse(a: Any, reference: Any, mask: Any | None = None) -> float:
    r"""Compute the root mean squared error, :math:`\sqrt{\overline{(a - r)^2}}`, in their units."""
    x, y = paired_values(a, reference, mask)
    return float(np.sqrt(((x - y) ** 2).mean()))


def psnr(a: Any, reference: Any, mask: Any | None = None, peak: float | None = None) -> float:
    r"""Compute the peak signal-to-noise ratio (dB).

    .. math:: \mathrm{PSNR} = 20 \log_{10}(P / \mathrm{RMSE})

    with P the reference's largest value inside the mask, or the ``peak`` that is given. Infinite
    for equal images.
    """
    x, y = paired_values(a, reference, mask)
    top = float(y.max()) if peak is None else float(peak)
    error = float(np.sqrt(((x - y) ** 2).mean()))
    if error == 0:
        return float("inf")
    return float(20 * np.log10(top / error)) if top > 0 else float("nan")


def correlation(a: Any, reference: Any, mask: Any | None = None) -> float:
    """Compute Pearson's correlation; NaN where one image is constant or one voxel is left."""
    x, y = paired_values(a, reference, mask)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float(np.clip((x * y).sum() / size, -1, 1)) if size > 0 else float("nan")


def mean_sd(a: Any, mask: Any | None = None) -> tuple[float, float]:
    """Compute mean and sample standard deviation (divisor n - 1; NaN for one voxel)."""
    x, _ = paired_values(a, a, mask)
    return float(x.mean()), float(x.std(ddof=1)) if x.size > 1 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """Bland and Altman's summary of a - b: bias, SD and the 95 % limits of agreement."""

    n: int
    bias: float
    sd: float
    lower: float
    upper: float


def agreement(a: Any, b: Any, mask: Any | None = None) -> Agreement:
    r"""Compute bias and limits of agreement of two images.

    .. math:: d_i = a_i - b_i, \qquad \bar d \pm 1.96\, s_d

    Bland and Altman, Lancet 1986.
    """
    x, y = paired_values(a, b, mask)
    difference = x - y
    bias = float(difference.mean())
    sd = float(difference.std(ddof=1)) if difference.size > 1 else float("nan")
    return Agreement(difference.size, bias, sd, bias - 1.96 * sd, bias + 1.96 * sd)


def angular_error(a: Any, reference: Any, mask: Any | None = None) -> NDArray[np.float32]:
    r"""Compute the angle between two fields of axes, in degrees.

    .. math:: \theta = \arccos \frac{|u \cdot v|}{\lVert u \rVert \lVert v \rVert}

    Parameters
    ----------
    a, reference
        Axes (X, Y, Z, 3) in one frame; their sign and length do not count.
    mask
        Voxels that count (X, Y, Z).

    Returns
    -------
    (X, Y, Z) in [0, 90]; NaN outside the mask and where either axis is zero or not finite.
    """
    u, v = np.asarray(a, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if u.shape != v.shape or u.shape[-1] != 3:
        raise InputError(
            f"The direction fields have shapes {u.shape} and {v.shape}; expected two of (x, y, z, "
            "3) on one grid."
        )
    # The arc tangent keeps its accuracy near 0 degrees, where the arc cosine loses half the digits.
    across = np.linalg.norm(np.cross(u, v), axis=-1)
    along = np.abs((u * v).sum(-1))
    angle = np.rad2deg(np.arctan2(across, along))
    known = np.isfinite(angle) & (np.hypot(across, along) > 0)
    if mask is not None:
        chosen = np.asarray(mask).astype(bool, copy=False)
        if chosen.shape != u.shape[:-1]:
            raise InputError(
                f"The mask has shape {chosen.shape} and the directions {u.shape[:-1]}; they must "
                "be on one grid."
            )
        known &= chosen
    return np.where(known, angle, np.nan).astype(np.float32)
