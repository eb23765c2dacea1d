"""Run a solver over a scan's voxels, block by block and tile by tile, and collect what it finds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import Device, require_memory, run_tiles
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.scan import same_grid
from napari_dmri.signal.blocks import Block, blocks, empty_like_scan, fitting_mask
from napari_dmri.signal.sh_matrix import as_tensor
from napari_dmri.sphere.harmonics import n_coefficients, order_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_dmri.images import ShImage
    from napari_dmri.scan import Scan

    Tile = Callable[
        [torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    ]

__all__ = ["Found", "solve_voxels"]

TILE = 1024
"""Voxels of a tile on a CPU: their state stays in the second-level cache."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Found:
    """Hold the solutions of all voxels.

    Parameters
    ----------
    parts
        Arrays (X, Y, Z, width), zero outside ``fitted``, in the layout of the scan's data.
    residual
        Root mean square of measured minus predicted signal over the mean b0 (X, Y, Z).
    fitted
        Which voxels were solved (X, Y, Z).
    voxels, converged
        How many were solved, and how many of them converged.
    counts
        Voxels left out, by reason.
    b0
        Number of b0 volumes behind the mean b0; 0 where the scan has none, and then the residual is
        over the mean of the volumes used.
    """

    parts: tuple[NDArray[np.float32], ...]
    residual: ScalarImage
    fitted: NDArray[np.bool_]
    voxels: int
    converged: int
    counts: dict[str, int]
    b0: int

    @property
    def note(self) -> str:
        """Say how many voxels were solved and how many converged."""
        share = 100 * self.converged / max(self.voxels, 1)
        scale = "" if self.b0 else "; no b0 volume: the residual is over the mean signal"
        return (
            f"{self.voxels} voxels deconvolved; {self.converged} ({share:.1f} %) reached the "
            f"tolerance{scale}"
        )


def solve_voxels(
    scan: Scan,
    volumes: Array,
    tile: Tile,
    widths: tuple[int, ...],
    *,
    mask: Array | None,
    where: Device,
    working: int,
    start: ShImage | None = None,
    progress: Progress | None = None,
    text: str = "deconvolving",
) -> Found:
    """Solve every voxel of the mask.

    Parameters
    ----------
    scan
        The scan; its data are read block by block.
    volumes
        Indices (V,) of the volumes the solver takes.
    tile
        From signal (N, V) and starting coefficients (N, C) or None to solutions (N, sum of
        widths), which converged (N,), and the root mean square residual (N,).
    widths
        How the solutions are split into the parts of the result.
    mask
        Voxels to solve; None takes the scan's mask, else all voxels with a positive mean b0.
    where
        The device.
    working
        Floats of working memory a voxel.
    start
        An fODF to start from, on the scan's grid.
    progress, text
        Who is told, and what it is called.

    Raises
    ------
    InputError
        If the mask is empty or on another grid, or no voxel can be solved.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    inside = fitting_mask(scan, mask)
    require_memory(
        int(np.prod(scan.grid)) * 4 * (sum(widths) + 2),
        f"A deconvolution of {scan.name} into {sum(widths)} coefficients a voxel",
        "crop the scan, or choose a lower order.",
    )
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    extra = np.setdiff1d(b0, volumes)
    columns = np.concatenate([volumes, extra]).astype(np.intp)
    at_b0 = np.flatnonzero(np.isin(columns, b0))
    parts = tuple(empty_like_scan(scan, width) for width in widths)
    residual = empty_like_scan(scan, 1)[..., 0]
    fitted = empty_like_scan(scan, 1, bool)[..., 0]
    runner = _Runner(tile, widths, len(volumes), at_b0, where, working)
    report = progress or silent
    before = 0.0
    for block in blocks(scan, columns, inside, where.name):
        guess = None if start is None else _take(start.coefficients, block)
        piece = part(report, before, block.done)
        values, rms, good = runner(block.signal, guess, piece, text)
        edge = 0
        for out, width in zip(parts, widths, strict=True):
            block.put(out, values[:, edge : edge + width])
            edge += width
        block.put(residual, rms)
        block.put(fitted, good)
        before = block.done
    counts = runner.counts(inside is not None)
    if not runner.used:
        raise InputError(
            f"{scan.name}: no voxel can be deconvolved ({counts['not_finite']} hold NaN or Inf, "
            f"{counts['b0_not_positive'] + counts['empty']} have no positive "
            f"{'b0' if len(b0) else 'signal'}); check the image and the mask."
        )
    _warn(scan.name, counts)
    image = ScalarImage(residual, scan.affine, name=f"{scan.name} residual", units="of b0")
    return Found(parts, image, fitted, runner.used, runner.converged, counts, len(b0))


def check_start(scan: Scan, start: ShImage | None, order: int) -> ShImage | None:
    """Return an fODF to start from with the solver's number of coefficients.

    Raises
    ------
    InputError
        If it is on another grid.
    """
    if start is None:
        return None
    if not same_grid(start, scan):
        raise InputError(
            f"The fODF to start from has shape {start.shape[:3]} and the scan {scan.grid}, or "
            "another affine; start from an fODF of this scan."
        )
    order_of(start.shape[3])
    count = n_coefficients(order)
    have = start.coefficients
    if have.shape[3] == count:
        return start
    changed = np.zeros((*have.shape[:3], count), np.float32)
    changed[..., : have.shape[3]] = have[..., :count]
    return start.with_coefficients(changed)


class _Runner:
    """Solve blocks in tiles, and count."""

    def __init__(
        self,
        tile: Tile,
        widths: tuple[int, ...],
        used: int,
        b0: Array,
        where: Device,
        working: int,
    ) -> None:
        self.tile, self.width, self.n_used, self.b0 = tile, sum(widths), used, b0
        self.device, self.name, self.working = where.torch(), where.name, working
        self.used = self.converged = self.broken = self.no_b0 = self.empty = 0

    def __call__(
        self, signal: Array, start: Array | None, report: Progress, text: str
    ) -> tuple[Array, Array, Array]:
        import torch

        finite = np.isfinite(signal.sum(1))
        scale = signal[:, self.b0].mean(1) if len(self.b0) else signal.mean(1)
        nothing = (signal == 0).all(1)
        good = finite & (np.where(finite, scale, 0) > 0)
        values = np.zeros((len(signal), self.width), np.float32)
        rms = np.zeros(len(signal), np.float32)
        which = np.flatnonzero(good)
        picked = as_tensor(signal)
        rows = torch.from_numpy(which)
        done: dict[int, int] = {}

        def work(piece: slice) -> None:
            mine = rows[piece]
            y = picked[mine][:, : self.n_used].contiguous().to(self.device)
            x0 = None
            if start is not None:
                x0 = torch.from_numpy(start[mine.numpy()]).to(self.device)
            x, converged, error = self.tile(y, x0)
            values[which[piece]] = x.cpu().numpy()
            rms[which[piece]] = error.cpu().numpy() / scale[which[piece]]
            done[piece.start] = int(converged.sum())

        on_cpu = self.device.type == "cpu"
        most = TILE if on_cpu else None
        if len(which):
            run_tiles(work, len(which), 4 * self.working, self.name, report, text, most)
        self.used += len(which)
        self.converged += sum(done.values())
        self.broken += int((~finite).sum())
        self.empty += int((finite & nothing).sum())
        self.no_b0 += int((finite & ~good & ~nothing).sum())
        return values, rms, good

    def counts(self, masked: bool) -> dict[str, int]:
        """Return the voxels left out; without a mask, empty ones are the background."""
        lost = {"not_finite": self.broken, "b0_not_positive": self.no_b0, "empty": self.empty}
        if masked:
            lost["b0_not_positive"] += lost.pop("empty")
            lost["empty"] = 0
        return lost


def _warn(name: str, counts: dict[str, int]) -> None:
    reasons = []
    if counts["not_finite"]:
        reasons.append(f"{counts['not_finite']} voxels hold NaN or Inf")
    if counts["b0_not_positive"]:
        reasons.append(f"{counts['b0_not_positive']} voxels have b0 <= 0")
    if reasons:
        warnings.warn(
            f"{name}: {' and '.join(reasons)}; they were left out and their fODF is 0.",
            DmriWarning,
            stacklevel=4,
        )


def _take(array: Array, block: Block) -> Array:
    """Return the block's voxels of an array (X, Y, Z, K) as (n, K)."""
    if block.by_voxel:
        return np.ascontiguousarray(
            array[block.planes].reshape(-1, array.shape[3])[block.inside], dtype=np.float32
        )
    piece = array[:, :, block.planes].T
    flat = piece.reshape(array.shape[3], -1)[:, block.inside]
    return np.ascontiguousarray(flat.T, dtype=np.float32)
