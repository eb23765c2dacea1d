r"""Run a network of the SHD family on a prepared scan, in the mode that it was trained for.

``"paper"`` cuts a patch of P^3 voxels around each voxel of the mask and keeps its middle; beyond
the image its outermost voxels repeat, so that every voxel is predicted.

``"tiled"`` predicts tiles much larger than the patches of training, each with a halo that is not
kept. They lie on the grid that the network's pooling makes (`Architecture.multiple`), so that a
tile has the very pooling cells of one piece.

A network that expects zeros beyond its tiles (`Architecture.border`) has learned them: its inner
levels hold a few voxels with zeros around them in training, and none in a larger tile. Of such a
network the inner half, (P/2)^3, of overlapping tiles of P^3 voxels is kept. On a simulated clinical
scan (SHD-S-TV, small, 700 steps) F1 is 0.720 from these and 0.276 from large tiles; of a network
that repeats voxels 0.708 and 0.726, in half of the time.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.shd.samples import patch_rows
from napari_dmri.deconvolve.shd.tiles import (
    HALO,
    Box,
    check_mode,
    count,
    divide,
    halves,
    input_span,
    largest_edge,
    trim,
    voxel_bytes,
    whole,
)
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_dmri.deconvolve.shd.architecture import Architecture
    from napari_dmri.deconvolve.shd.inputs import Prepared
    from napari_dmri.deconvolve.shd.model import ShdModel

__all__ = ["HALO", "Prediction", "predict", "predict_network"]

Array = NDArray[Any]

TILE = 24
"""Largest edge of what is kept of a larger tile, in voxels."""

BUDGET = 2.75 * 2**30
"""Working memory of a tile on a CPU, in bytes."""

CHECK = 0.1
"""Seconds between two looks at whether to stop."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold what a network says of a region: fODFs, other tissues, and what there is to say.

    ``coefficients`` (X, Y, Z, C) and ``others`` (X, Y, Z, T) are float32, zero outside the mask.
    """

    coefficients: NDArray[np.float32]
    others: NDArray[np.float32]
    notes: tuple[str, ...] = ()


def predict(
    model: ShdModel,
    prepared: Prepared,
    *,
    mode: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    region: Box | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return fODFs and other tissues of a scan.

    Parameters
    ----------
    model
        A trained model.
    prepared
        The scan, prepared for it.
    mode
        ``"paper"`` or ``"tiled"``; None takes the model's own.
    device, progress
        Where it runs; who is told, and may raise `Cancelled`, between tiles and layers.
    region
        The part of the grid that is wanted, e.g. one slice; what it needs around it is looked at.

    Returns
    -------
    White matter's coefficients (X, Y, Z, C) and the other tissues' :math:`f_{00}` (X, Y, Z, T),
    float32, of the region, normalised so that b0 is what was measured; zero outside the mask.

    Raises
    ------
    InputError
        If the mode does not fit the network, or memory runs out for the smallest tile.
    """
    found = predict_network(
        model.network,
        model.architecture,
        prepared,
        model.others,
        mode=str(mode or model.card["mode"]),
        device=device,
        progress=progress,
        region=region,
    )
    return found.coefficients, found.others


def predict_network(
    network: torch.nn.Module,
    architecture: Architecture,
    prepared: Prepared,
    others: Sequence[str],
    *,
    mode: str,
    device: str = "auto",
    progress: Progress | None = None,
    region: Box | None = None,
    core: int | None = None,
    halo: int | None = None,
    tile: int | None = None,
) -> Prediction:
    """Run a network on a prepared scan; see `predict`. The network is left as it is.

    RT-ESD's whole spheres are halved here: the same fODFs to rounding, in less than half the time.

    Parameters
    ----------
    network, architecture, others
        The network, and what it is made for.
    prepared, mode, device, progress, region
        As for `predict`.
    core
        Where it is given, tiles are as large as in training, and so much of their edge is kept:
        half is what networks with a border of zeros need, all of it is quickest.
    halo, tile
        Of large tiles, whatever the border: voxels around, the largest edge of what is kept.

    Raises
    ------
    InputError
        As for `predict`.
    """
    import torch

    from napari_dmri.deconvolve.shd.network import on_half_spheres
    from napari_dmri.device import choose_device, exact_float32

    check_mode(mode, architecture)
    where = choose_device(device)
    runner, architecture = on_half_spheres(network, architecture)
    runner = runner.to(where.torch()).eval()
    run = _Run(runner, architecture, prepared, tuple(others), where.name, progress or silent)
    box = whole(region, prepared.mask.shape)
    with torch.inference_mode(), exact_float32(), run.interruptible():
        if mode == "paper":
            run.patches(box)
        elif core is not None:
            run.windows(box, core)
        elif architecture.border == "zeros" and halo is None and tile is None:
            run.windows(box, max(1, architecture.patch // 2))
        else:
            run.tiles(box, HALO if halo is None else halo, tile)
    run.report(1.0, "predicted")
    return Prediction(run.coefficients, run.others, tuple(run.notes))


@dataclass
class _Run:
    """One prediction: the network on its device, what is known so far, and who is told."""

    network: torch.nn.Module
    architecture: Architecture
    prepared: Prepared
    names: tuple[str, ...]
    device: str
    tell: Progress
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        import torch

        self.fraction, self.text, self.looked = 0.0, "", -np.inf
        prepared = self.prepared
        self.grid = tuple(int(n) for n in prepared.mask.shape)
        # What is held is of a part of the grid; all places are counted on the whole one.
        self.shells, box = prepared.coefficients, prepared.box
        self.first, self.b0 = np.array([s.start for s in box]), prepared.b0[box].copy()
        self.held = tuple(int(n) for n in self.b0.shape)
        self.kernel = torch.tensor(
            [float(prepared.kernel[t]) for t in ("wm", *self.names)],
            dtype=torch.float32,
            device=self.device,
        )
        self.coefficients = np.zeros((0,), np.float32)
        self.others = np.zeros((0,), np.float32)

    def report(self, fraction: float, text: str) -> None:
        """Tell where the prediction is; this may raise `Cancelled`."""
        self.fraction, self.text, self.looked = fraction, text, time.monotonic()
        self.tell(fraction, text)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Look between layers whether to stop."""

        def look(*_: object) -> None:
            if time.monotonic() - self.looked > CHECK:
                self.report(self.fraction, self.text)

        hooks = [m.register_forward_pre_hook(look) for m in self.network.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def allocate(self, box: Box) -> None:
        shape = tuple(s.stop - s.start for s in box)
        self.coefficients = np.zeros((*shape, self.architecture.coefficients_out), np.float32)
        self.others = np.zeros((*shape, len(self.names)), np.float32)

    def forward(self, shells: Array, b0: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalised fODFs and tissues of blocks (B, X, Y, Z, ...)."""
        import torch

        from napari_dmri.deconvolve.shd.reconstruction import normalise

        given = torch.from_numpy(np.ascontiguousarray(shells, np.float32)).to(self.device)
        measured = torch.from_numpy(np.ascontiguousarray(b0, np.float32)).to(self.device)
        fod, others = self.network(given)
        return normalise(fod.float(), others.float(), measured, self.kernel)

    def blocks(self, corners: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the network says of patches as in training, by their first voxels (B, 3)."""
        rows, _ = patch_rows(self.held, corners - self.first, (self.architecture.patch,) * 3)
        shells = self.shells.reshape(-1, *self.shells.shape[3:])
        return self.forward(shells[rows], self.b0.reshape(-1)[rows])

    # Voxel by voxel.

    def patches(self, box: Box) -> None:
        """Predict each voxel of the mask from the patch around it."""
        from napari_dmri.device import run_tiles

        self.allocate(box)
        edge = self.architecture.patch
        wanted = np.stack(np.nonzero(self.prepared.mask[box]), -1)
        first = np.array([s.start for s in box])

        def work(part: slice) -> None:
            at = wanted[part]
            fod, others = self.blocks(at + first - edge // 2)
            middle = (slice(None), *(edge // 2,) * 3)
            place = tuple(at.T)
            self.coefficients[place] = fod[middle].cpu().numpy()
            self.others[place] = others[middle].cpu().numpy()

        each = edge**3 * voxel_bytes(self.architecture)
        most = (110_000 if self.device.startswith("cuda") else 1728) // edge**3
        run_tiles(
            work, len(wanted), each, self.device, self.report, "patches", most=most,
            tile_bytes=int(BUDGET),
        )  # fmt: skip

    # By overlapping tiles as in training.

    def windows(self, box: Box, core: int) -> None:
        """Predict tiles of the edge of training, and keep the core of each."""
        from napari_dmri.device import out_of_memory, run_tiles

        self.allocate(box)
        edge = self.architecture.patch
        core = min(core, edge)
        margin = (edge - core) // 2
        first = np.array([s.start for s in box])
        wanted = np.zeros(self.grid, bool)
        wanted[box] = self.prepared.mask[box]
        # Cells count from the image's first voxel, so that a region is a part of the whole.
        cells = np.unique(np.stack(np.nonzero(wanted), -1) // core, axis=0) * core
        inner = (slice(None), *(slice(margin, margin + core),) * 3)

        def work(part: slice) -> None:
            corners = cells[part]
            try:
                fod, others = self.blocks(corners - margin)
            except (MemoryError, RuntimeError) as error:
                if out_of_memory(error) and len(corners) > 1:
                    self.notes.append(
                        f"Memory ran out on {self.device} for {len(corners)} tiles at once; their "
                        "number was halved."
                    )
                raise
            own, inside = patch_rows(self.grid, corners, (core,) * 3)
            kept = inside & wanted.reshape(-1)[own]
            place = tuple((np.stack(np.unravel_index(own[kept], self.grid), -1) - first).T)
            self.coefficients[place] = fod[inner].cpu().numpy()[kept]
            self.others[place] = others[inner].cpu().numpy()[kept]

        most = (110_000 if self.device.startswith("cuda") else 4096) // edge**3
        each = edge**3 * voxel_bytes(self.architecture)
        run_tiles(
            work, len(cells), each, self.device, self.report, "tiles", most=max(1, most),
            tile_bytes=int(BUDGET),
        )  # fmt: skip

    # By larger tiles.

    def tiles(self, box: Box, halo: int, tile: int | None) -> None:
        """Predict blocks, each with a halo; halve them where memory runs out."""
        from napari_dmri.device import out_of_memory, release_memory

        self.allocate(box)
        step = self.architecture.multiple
        halo = -(-halo // step) * step
        largest = self.largest_tile(halo) if tile is None else tile
        mask = np.asarray(self.prepared.mask, bool)
        waiting = [t for part in divide(box, largest, step) for t in trim(part, mask)]
        total = sum(count(t) for t in waiting)
        done, limit, number = 0, np.inf, 0
        while waiting:
            part = waiting.pop(0)
            if count(part) > limit:
                waiting[:0] = [t for half in halves(part) for t in trim(half, mask)]
                continue
            number += 1
            self.report(done / total, f"tile {number} of {number + len(waiting)}")
            try:
                self.tile(part, box, halo)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if max(s.stop - s.start for s in part) <= 1:
                    raise InputError(self._too_large(part, halo)) from error
                release_memory(self.device)
                limit = max(1, count(part) // 2)
                waiting.insert(0, part)
                words = "x".join(str(s.stop - s.start) for s in part)
                self.notes.append(
                    f"Memory ran out on {self.device} for a tile of {words} voxels; it was halved."
                )
                number -= 1
                continue
            done += count(part)

    def tile(self, part: Box, box: Box, halo: int) -> None:
        """Predict one block, and keep what is in the mask."""
        step = self.architecture.multiple
        spans = [
            input_span(s, length, halo, step) for s, length in zip(part, self.grid, strict=True)
        ]
        held = zip(spans, self.first, self.held, strict=True)
        block = np.ix_(*(np.arange(a - f, b - f).clip(0, n - 1) for (a, b), f, n in held))
        fod, others = self.forward(self.shells[block][None], self.b0[block][None])
        inner, place = (
            tuple(slice(s.start - a, s.stop - a) for s, a in zip(part, first, strict=True))
            for first in ([a for a, _ in spans], [b.start for b in box])
        )
        kept = self.prepared.mask[part][..., None]
        np.copyto(self.coefficients[place], fod[0][inner].cpu().numpy(), where=kept)
        np.copyto(self.others[place], others[0][inner].cpu().numpy(), where=kept)

    def largest_tile(self, halo: int) -> int:
        """Return the edge of the largest tile whose working memory fits."""
        from napari_dmri.device import free_memory

        free = free_memory(self.device)
        gpu = self.device.startswith("cuda")
        budget = free // 2 if gpu else min(BUDGET, free // 4)
        return largest_edge(self.architecture, self.grid, halo, budget, 64 if gpu else TILE)

    def _too_large(self, part: Box, halo: int) -> str:
        from napari_dmri.device import free_memory

        need = (2 * halo + self.architecture.multiple) ** 3 * voxel_bytes(self.architecture) / 2**30
        return (
            f"Out of memory on {self.device}: the smallest tile needs about {need:.1f} GB and "
            f"{free_memory(self.device) / 2**30:.1f} GB are free; close other programs or choose "
            "another device."
        )
