r"""Run RUMBA-TV: RUMBA-SD on all voxels, each compartment's map smoothed by total variation.

Each step's factor is divided by (Canales-Rodriguez et al. 2015)

.. math:: \Big| 1 - \lambda\, \mathrm{div} \frac{\nabla f}{\sqrt{\lvert \nabla f \rvert^2
          + \epsilon^2}} \Big|, \qquad \lambda = \max(\overline{\sigma^2}, 1/30^2)

with forward differences along the voxel axes, none across the mask's edge, and the divergence
their adjoint; lambda follows the noise (discrepancy principle). A step needs its voxel's neighbours
at the step before and nothing farther away. So every step goes over all tiles, each read with a
halo of one voxel, from one copy of the volume to another: tiles only bound memory, and leave no
seams but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.rumba_steps import (
    FIRST_NOISE,
    FLOOR,
    KEPT,
    Effort,
    Plan,
    Steps,
    momentum,
)
from napari_dmri.deconvolve.workers import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from napari_dmri.progress import Progress

__all__ = ["SpatialTile", "iterate_together", "spatial_tiles"]

EPSILON = 1e-7
"""Differences of compartments below this count as none."""

LEAST_NOISE = 1 / 30
"""Lambda is at least the square of this."""

TILE_EDGE = 8
"""Voxels of a tile along each axis on a CPU, about; a GPU takes four times as many."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SpatialTile:
    """Hold where a tile's voxels and their neighbours are among all voxels.

    Parameters
    ----------
    rows
        The tile's own voxels, consecutive.
    box
        The voxels of the tile's box with a halo of one (X + 2, Y + 2, Z + 2), flat; voxels that
        are not deconvolved are the last row, which is 0.
    shape
        (X + 2, Y + 2, Z + 2).
    inner
        Where the tile's voxels are in the box without its halo; None where they fill it.
    edges
        For each axis, 1 where a voxel and its next neighbour are both deconvolved, else 0
        (X + 1, Y + 1, Z + 1, 1); None where they all are.
    """

    rows: slice
    box: torch.Tensor
    shape: tuple[int, int, int]
    inner: torch.Tensor | None
    edges: tuple[torch.Tensor, ...] | None


def spatial_tiles(
    where: NDArray[np.bool_], device: torch.device, shape: Sequence[int] | None = None
) -> tuple[NDArray[np.intp], list[SpatialTile]]:
    """Cut the voxels to be deconvolved into boxes.

    Parameters
    ----------
    where
        The voxels (X, Y, Z).
    device
        Where their indices go.
    shape
        Voxels of a box along each axis; None chooses by device.

    Returns
    -------
    The voxels' flat indices (C order of the image) in the order of the tiles, and the tiles.
    """
    import torch

    edge = TILE_EDGE if device.type == "cpu" else 4 * TILE_EDGE
    # Equal pieces: the rest that a fixed edge would leave makes slim, slow tiles.
    even = [-(-n // max(1, round(n / edge))) for n in where.shape]
    step = even if shape is None else list(shape)
    padded = np.pad(where, 1)
    numbers = np.full(padded.shape, -1, np.int64)
    flat = np.arange(where.size).reshape(where.shape)
    order: list[Array] = []
    corners: list[tuple[slice, ...]] = []
    count = 0
    for corner in np.ndindex(*(-(-n // s) for n, s in zip(where.shape, step, strict=True))):
        inside = tuple(
            slice(c * s, min((c + 1) * s, n))
            for c, s, n in zip(corner, step, where.shape, strict=True)
        )
        mine = where[inside]
        found = int(mine.sum())
        if not found:
            continue
        order.append(flat[inside][mine])
        numbers[tuple(slice(s.start + 1, s.stop + 1) for s in inside)][mine] = np.arange(
            count, count + found
        )
        corners.append(inside)
        count += found
    tiles, start = [], 0
    for inside in corners:
        mine = where[inside]
        haloed = tuple(slice(s.start, s.stop + 2) for s in inside)
        box, there = numbers[haloed], padded[haloed]
        rows = slice(start, start + int(mine.sum()))
        start = rows.stop
        near = there[:-1, :-1, :-1]
        edges = [
            near & there[1:, :-1, :-1],
            near & there[:-1, 1:, :-1],
            near & there[:-1, :-1, 1:],
        ]
        tiles.append(
            SpatialTile(
                rows,
                torch.from_numpy(np.where(box < 0, count, box).ravel()).to(device),
                (box.shape[0], box.shape[1], box.shape[2]),
                None if mine.all() else torch.from_numpy(np.flatnonzero(mine)).to(device),
                None
                if all(edge.all() for edge in edges)
                else tuple(torch.from_numpy(e[..., None].astype("f4")).to(device) for e in edges),
            )
        )
    return np.concatenate(order), tiles


def divergence(values: torch.Tensor, tile: SpatialTile) -> torch.Tensor:
    """Return the divergence of the normalised gradient at a tile's voxels (n, M).

    Parameters
    ----------
    values
        Compartments of all voxels (all + 1, M), the last row 0.
    tile
        Where the tile's voxels are.
    """
    import torch

    box = values.index_select(0, tile.box).view(*tile.shape, -1)
    here = box[:-1, :-1, :-1]
    slopes = [
        torch.sub(box[1:, :-1, :-1], here),
        torch.sub(box[:-1, 1:, :-1], here),
        torch.sub(box[:-1, :-1, 1:], here),
    ]
    size = torch.full_like(slopes[0], EPSILON**2)
    for axis, slope in enumerate(slopes):
        if tile.edges is not None:
            slope.mul_(tile.edges[axis])
        size.addcmul_(slope, slope)
    size.rsqrt_()
    for slope in slopes:
        slope.mul_(size)
    along_x, along_y, along_z = slopes
    total = torch.sub(along_x[1:, 1:, 1:], along_x[:-1, 1:, 1:])
    total.add_(along_y[1:, 1:, 1:]).sub_(along_y[1:, :-1, 1:])
    total.add_(along_z[1:, 1:, 1:]).sub_(along_z[1:, 1:, :-1])
    total = total.view(-1, total.shape[-1])
    return total if tile.inner is None else total.index_select(0, tile.inner)


def iterate_together(
    plan: Plan,
    signal: torch.Tensor,
    tiles: Sequence[SpatialTile],
    effort: Effort,
    *,
    smoothing: float = 1.0,
    progress: Progress | None = None,
    beat: Callable[[], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Deconvolve all voxels together with total variation.

    Parameters
    ----------
    plan, effort
        As for `rumba_steps.iterate`; the work ends when all voxels have converged.
    signal
        S/b0 (n, N), in the order of the tiles.
    tiles
        Where the voxels are.
    smoothing
        Factor of lambda.
    progress
        Told the fraction of steps done.
    beat
        Called for each tile; may raise.

    Returns
    -------
    Compartments (n, M), noise sigma (n,) in units of b0, which converged (n,).
    """
    import torch

    n, device, columns = len(signal), signal.device, plan.columns
    now = torch.full((n + 1, columns), 1 / columns, device=device)
    now[n] = 0
    then = now.clone()
    before = now[:n].clone() if effort.accelerate else None
    energy = signal.square().sum(1, keepdim=True).mul_(0.5)
    variance = torch.full((n, 1), FIRST_NOISE**2, device=device)
    converged = torch.zeros(n, dtype=torch.bool, device=device)
    count = effort.steps
    most = max(tile.rows.stop - tile.rows.start for tile in tiles)

    with workers(device.type) as threads:
        buffers = [Steps(plan, most, device) for _ in range(threads.count)]
        for step in range(1, count + 1):
            if progress is not None:
                progress((step - 1) / count, f"RUMBA-TV step {step} of {count}")
            strength = smoothing * max(float(variance.mean()), LEAST_NOISE**2)
            look = effort.looks(step)
            source, target = now, then

            def work(
                k: int,
                alive: Callable[[], None],
                step: int = step,
                strength: float = strength,
                look: bool = look,
                source: torch.Tensor = source,
                target: torch.Tensor = target,
            ) -> None:
                for tile in tiles[k :: threads.count]:
                    alive()
                    rows = tile.rows
                    f, new = source[rows], target[rows]
                    factor, denominator = buffers[k].factor(
                        f, signal[rows], energy[rows], variance[rows]
                    )
                    spread = divergence(source, tile).mul_(-strength).add_(1).abs_()
                    factor.div_(denominator.mul_(spread.clamp_(min=1e-6)))
                    if look:
                        change = factor.sub(1).abs_().mul_(f).sum(1)
                        converged[rows] = change <= effort.tolerance * f.sum(1)
                    torch.mul(f, factor, out=new).clamp_(min=FLOOR)
                    if before is not None:
                        last = before[rows]
                        ahead = torch.lerp(last, new, 1 + momentum(step))
                        last.copy_(new)
                        torch.maximum(ahead, new.mul_(KEPT), out=new)

            threads.run(work, beat or _nothing)
            now, then = target, source
            if look and bool(converged.all()):
                break
    return (now[:n] if before is None else before), variance.sqrt().squeeze(1), converged


def _nothing() -> None:
    """Do nothing between tiles."""
