r"""Find the peaks of fODFs, in all voxels at once, anywhere on the sphere.

A peak is a strict local maximum of :math:`f(u) = \sum_{lm} f_{lm} Y_{lm}(u)` with
:math:`f > 0`. Maxima among the axes of a geodesic half sphere, as dense as the order asks for,
are climbed from by Newton's steps (`napari_dmri.deconvolve.peak_search`) to an accuracy far below
0.01 degrees, so that directions are not those of any grid. Peaks closer to each other than the
separation are one, the higher.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import PeakImage, ShImage
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from napari_dmri.deconvolve.peak_search import Climbed
    from napari_dmri.progress import Progress

__all__ = ["find_peaks"]

TILE = 8192
"""Voxels that are searched at once on a CPU."""

MOST = 200
"""Peaks a voxel on offer: a function of order 18 has no more."""

ISOTROPIC = 1e-5
"""Share of a function that depends on direction, below which it is rounding."""

Array = Any


def find_peaks(
    fod: ShImage,
    *,
    threshold: float = 0.0,
    minimum: float = 0.0,
    separation: float = 5.0,
    most: int = 10,
    lobes: bool = False,
    mask: Array | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> PeakImage:
    r"""Find the strict, positive maxima of each voxel's function, largest first.

    .. math:: \nabla f(u) = 0, \quad \nabla^2 f(u) \prec 0, \quad
              f(u) \ge t \max f, \quad f(u) > f_{\min}

    Parameters
    ----------
    fod
        Functions on the sphere (X, Y, Z, C), of any even order.
    threshold
        Smallest amplitude t as a share of the voxel's largest, in [0, 1]; 0 keeps all.
    minimum
        Absolute amplitude that peaks lie above.
    separation
        Degrees that peaks are apart at least; the higher one of two that are closer stays.
    most
        Peaks kept in a voxel at most, 1 to 200.
    lobes
        Also integrate each peak's lobe: `PeakImage.afd` and `PeakImage.dispersion`.
    mask
        Voxels to look at (X, Y, Z); None takes the image's own.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    Directions (X, Y, Z, most, 3), unit vectors in scanner RAS with z >= 0, and amplitudes.

    Raises
    ------
    InputError
        If a setting is out of range, or the mask is on another grid or empty.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN or Inf.
    """
    _check(threshold, minimum, separation, most)
    import torch

    voxels = _voxels(fod, mask)
    where = choose_device(device)
    target = where.torch()
    flat = fod.coefficients.reshape(-1, fod.shape[3])
    directions = np.zeros((len(flat), most, 3), np.float32)
    amplitudes = np.zeros((len(flat), most), np.float32)
    extent = np.zeros((2, len(flat), most), np.float32) if lobes else None
    if fod.order > 0 and len(voxels):
        from napari_dmri.deconvolve.peak_search import Search

        search = Search(fod.order, target)

        def work(part: slice) -> None:
            rows = voxels[part]
            values = flat if len(rows) == len(flat) else flat[rows]
            coefficients = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(target)
            climbed = search(coefficients, threshold, minimum)
            u, height = gather_peaks(
                climbed, len(rows), threshold, float(np.cos(np.deg2rad(separation))), most
            )
            directions[rows], amplitudes[rows] = u.cpu().numpy(), height.cpu().numpy()
            if extent is not None:
                from napari_dmri.deconvolve.lobes import measure_lobes

                afd, spread = measure_lobes(search, coefficients, u, height)
                extent[0, rows], extent[1, rows] = afd.cpu().numpy(), spread.cpu().numpy()

        size = 4 * (fod.shape[3] + 5 * len(search.values) // 2 + 8 * (fod.shape[3] + 80))
        cpu = TILE if where.name == "cpu" else None
        run_tiles(work, len(voxels), size, where.name, progress, "peaks, tile", most=cpu)
    grid = fod.shape[:3]
    return PeakImage(
        directions.reshape(*grid, most, 3),
        amplitudes.reshape(*grid, most),
        fod.affine,
        mask=fod.mask if mask is None else np.asarray(mask).astype(bool),
        afd=None if extent is None else extent[0].reshape(*grid, most),
        dispersion=None if extent is None else extent[1].reshape(*grid, most),
        name=f"{fod.name} peaks",
        provenance=provenance(
            "peaks",
            {
                "threshold": threshold,
                "minimum": minimum,
                "separation": separation,
                "most": most,
                "lobes": lobes,
                "order": fod.order,
            },
            {"fod": fod.name, "fod_provenance": dict(fod.provenance)},
            voxels=len(voxels),
            device=where.name,
        ),
    )


def _check(threshold: float, minimum: float, separation: float, most: int) -> None:
    if not 0 <= threshold <= 1:
        raise InputError(
            f"The threshold is {threshold:g}; it is a share of the voxel's largest peak: choose "
            "0 to 1."
        )
    if not (np.isfinite(minimum) and minimum >= 0):
        raise InputError(f"The smallest amplitude is {minimum:g}; it must be a number from 0.")
    if not 0 <= separation <= 90:
        raise InputError(f"The separation is {separation:g} degrees; choose 0 to 90.")
    if most != int(most) or not 1 <= most <= MOST:
        raise InputError(f"{most} peaks a voxel are asked for; choose 1 to {MOST}.")


def _voxels(fod: ShImage, mask: Array | None) -> NDArray[np.intp]:
    """Return flat indices of the voxels whose function is there, finite and not constant."""
    grid = fod.shape[:3]
    chosen = fod.mask if mask is None else np.asarray(mask).astype(bool)
    if chosen is not None and chosen.shape != grid:
        raise InputError(
            f"The mask has shape {chosen.shape} and {fod.name} {grid}; resample the mask to it."
        )
    if mask is not None and chosen is not None and not chosen.any():
        raise InputError("The mask holds no voxel; make or draw a new one.")
    flat = fod.coefficients.reshape(-1, fod.shape[3])
    energy = np.einsum("nc,nc->n", flat, flat)
    finite = np.isfinite(energy)
    inside = np.ones(len(flat), bool) if chosen is None else chosen.reshape(-1)
    bad = int((inside & ~finite).sum())
    if bad:
        warnings.warn(
            f"{fod.name}: {bad} of {int(inside.sum())} voxels hold values that are not finite; "
            "they have no peaks.",
            DmriWarning,
            stacklevel=3,
        )
    varying = np.einsum("nc,nc->n", flat[:, 1:], flat[:, 1:])
    return np.flatnonzero(inside & finite & (varying > ISOTROPIC**2 * energy))


def gather_peaks(
    climbed: Climbed, count: int, threshold: float, cosine: float, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put maxima in their voxels by falling amplitude, one of each that are close.

    Parameters
    ----------
    climbed
        Maxima in any order.
    count
        Number of voxels N.
    threshold
        Relative to the voxel's largest.
    cosine
        Of the separation.
    most
        Peaks a voxel.

    Returns
    -------
    Directions (N, most, 3) with z >= 0 and amplitudes (N, most), zero where there is none.
    """
    import torch

    voxel, height = climbed.voxel, climbed.amplitude
    device = height.device
    # One sort by voxel and falling height: positive floats are in the order of their bits.
    order = ((voxel << 32) - height.view(torch.int32)).argsort()
    voxel, height, u = voxel[order], height[order], climbed.direction[order]
    counts = torch.bincount(voxel, minlength=count)
    starts = counts.cumsum(0) - counts
    column = torch.arange(len(voxel), device=device) - starts[voxel]
    width = max(int(counts.max()) if len(voxel) else 0, most)
    heights = torch.zeros(count, width, device=device)
    heights[voxel, column] = height
    axes = torch.zeros(count, width, 3, device=device)
    axes[voxel, column] = u * torch.where(u[:, 2:] < 0, -1.0, 1.0)
    keep = heights > 0
    if threshold > 0:
        keep &= heights >= threshold * heights[:, :1]
    remove_close(axes, keep, cosine)
    place = keep.cumsum(1) - 1
    keep &= place < most
    row, column = keep.nonzero(as_tuple=True)
    place = place[row, column]
    out_u = torch.zeros(count, most, 3, device=device)
    out_height = torch.zeros(count, most, device=device)
    out_u[row, place], out_height[row, place] = axes[row, column], heights[row, column]
    return out_u, out_height


def remove_close(axes: torch.Tensor, keep: torch.Tensor, cosine: float) -> None:
    """Clear ``keep`` (N, K) for axes (N, K, 3) that are too close to a kept one before them."""
    cosines = (axes @ axes.transpose(1, 2)).abs_()
    cosines.diagonal(dim1=1, dim2=2).zero_()
    rows = (cosines.amax((1, 2)) > cosine).nonzero().squeeze(1)
    near, kept = (cosines[rows] > cosine).triu_(1), keep[rows]
    for i in range(keep.shape[1] - 1):
        kept &= ~(near[:, i] & kept[:, i, None])
    keep[rows] = kept
