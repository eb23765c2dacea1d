"""Read a scan's voxels all together, run RUMBA-TV, and lay the result out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.rumba_tv import iterate_together, spatial_tiles
from napari_dmri.deconvolve.voxels import Found
from napari_dmri.device import require_memory
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage
from napari_dmri.progress import part
from napari_dmri.signal.blocks import blocks, empty_like_scan, fitting_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_dmri.deconvolve.rumba_kernel import Dictionary
    from napari_dmri.deconvolve.rumba_output import Output
    from napari_dmri.deconvolve.rumba_steps import Effort, Plan
    from napari_dmri.device import Device
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan
    from napari_dmri.signal.blocks import Block

__all__ = ["solve_volume"]

READING, SOLVED = 0.02, 0.98
"""Fractions of the work at which reading ends and at which the result is laid out."""

CHUNK = 4096
"""Voxels that are converted to coefficients at a time."""

Array = NDArray[Any]


def solve_volume(
    scan: Scan,
    dictionary: Dictionary,
    plan: Plan,
    output: Output,
    effort: Effort,
    *,
    smoothing: float,
    mask: Array | None,
    clip: bool,
    where: Device,
    progress: Progress,
    beat: Callable[[], None],
    tile_shape: Sequence[int] | None = None,
) -> Found:
    """Deconvolve all voxels of the mask together.

    Parameters
    ----------
    scan, mask
        The scan, and the voxels; None takes its mask, else all voxels with a positive mean b0.
    dictionary, plan, output
        What a signal is made of, and what is written.
    effort, smoothing, clip
        As for `rumba`.
    where
        The device.
    progress, beat
        Told what is done; called between tiles. Both may raise.
    tile_shape
        Voxels of a tile along each axis; it changes the result by rounding alone.

    Raises
    ------
    InputError
        If the mask is empty or on another grid, no voxel can be deconvolved, or the volume does
        not fit into memory.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    import torch

    device = where.torch()
    flat, signal, mean, counts = _read(scan, dictionary, mask, clip, progress)
    copies = 3 if effort.accelerate else 2
    require_memory(
        len(flat) * 4 * (copies * plan.columns + 2 * plan.rows + sum(output.widths)),
        f"RUMBA-TV of {len(flat)} voxels of {scan.name}",
        "crop the scan, use fewer axes, or leave total variation out.",
        where.name,
    )
    inside = np.zeros(scan.grid, bool)
    inside.reshape(-1)[flat] = True
    ordered, tiles = spatial_tiles(inside, device, tile_shape)
    ascending = np.argsort(flat)
    chosen = torch.from_numpy(ascending[np.searchsorted(flat[ascending], ordered)])
    normal = torch.from_numpy(signal)[chosen].to(device)
    scale = torch.from_numpy(mean)[chosen].to(device)
    del signal

    f, sigma, converged = iterate_together(
        plan,
        normal,
        tiles,
        effort,
        smoothing=smoothing,
        progress=part(progress, READING, SOLVED),
        beat=beat,
    )
    parts = tuple(empty_like_scan(scan, width) for width in output.widths)
    residual = empty_like_scan(scan, 1)[..., 0]
    at = np.unravel_index(ordered, scan.grid)
    for start in range(0, len(ordered), CHUNK):
        rows = slice(start, start + CHUNK)
        there = tuple(index[rows] for index in at)
        values, _, error = output(f[rows], sigma[rows], normal[rows], scale[rows], converged[rows])
        found, edge = values.cpu().numpy(), 0
        for out, width in zip(parts, output.widths, strict=True):
            out[there] = found[:, edge : edge + width]
            edge += width
        residual[there] = (error / scale[rows, 0]).cpu().numpy()
        progress(SOLVED + (1 - SOLVED) * min(1.0, rows.stop / len(ordered)), "writing fODFs")
    image = ScalarImage(residual, scan.affine, name=f"{scan.name} residual", units="of b0")
    return Found(
        parts,
        image,
        inside,
        len(ordered),
        int(converged.sum()),
        counts,
        len(dictionary.b0),
    )


def _read(
    scan: Scan, dictionary: Dictionary, mask: Array | None, clip: bool, progress: Progress
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32], dict[str, int]]:
    """Return flat indices (n,), S/b0 (n, N) and b0 (n, 1) of the voxels, and who was left out."""
    import torch

    inside = fitting_mask(scan, mask)
    voxels = int(np.prod(scan.grid)) if inside is None else int(inside.sum())
    require_memory(
        voxels * 4 * len(dictionary.matrix),
        f"Reading {voxels} voxels of {scan.name}",
        "crop the scan, or make a smaller mask.",
    )
    flats, signals, means = [], [], []
    counts = {"not_finite": 0, "b0_not_positive": 0, "empty": 0}
    for block in blocks(scan, dictionary.volumes, inside):
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(block.signal.sum(1))
        b0 = block.signal[:, dictionary.b0].mean(1)
        nothing = (block.signal == 0).all(1) & (inside is None)
        good = finite & (np.where(finite, b0, 0) > 0)
        counts["not_finite"] += int((~finite).sum())
        counts["empty"] += int(nothing.sum())
        counts["b0_not_positive"] += int((finite & ~good & ~nothing).sum())
        picked = torch.from_numpy(np.ascontiguousarray(block.signal[good]))
        signal, mean = dictionary.normalise(picked, clip)
        flats.append(_flat_indices(block, scan.grid)[good])
        signals.append(signal.numpy())
        means.append(mean.numpy())
        progress(READING * block.done, "reading")
    flat = np.concatenate(flats)
    if not len(flat):
        raise InputError(
            f"{scan.name}: no voxel can be deconvolved ({counts['not_finite']} hold NaN or Inf, "
            f"{counts['b0_not_positive'] + counts['empty']} have no positive b0); check the image "
            "and the mask."
        )
    left = counts["not_finite"] + counts["b0_not_positive"]
    if left:
        warnings.warn(
            f"{scan.name}: {left} voxels were left out and their fODF is 0 "
            f"({counts['not_finite']} hold NaN or Inf, {counts['b0_not_positive']} have b0 <= 0).",
            DmriWarning,
            stacklevel=4,
        )
    return flat, np.concatenate(signals), np.concatenate(means), counts


def _flat_indices(block: Block, grid: tuple[int, int, int]) -> NDArray[np.intp]:
    """Return the flat indices (C order of the image) of a block's voxels."""
    if block.by_voxel:
        start: int = block.planes.start
        flat: NDArray[np.intp] = block.inside + start * grid[1] * grid[2]
        return flat
    planes = block.planes.stop - block.planes.start
    z, y, x = np.unravel_index(block.inside, (planes, grid[1], grid[0]))
    flat = (x * grid[1] + y) * grid[2] + z + block.planes.start
    return flat
