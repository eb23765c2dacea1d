r"""Build a template from several brains: affine first, then SyN, in rounds until it settles.

Round 0 brings every brain to one of them by an affine (`register_affine`), removes the mean of
these affines (log-Euclidean), and averages. Each further round registers every brain to the
current template with SyN and averages again. It has settled when the template changes by less
than a tolerance,

.. math:: \frac{\lVert T_{k} - T_{k-1} \rVert}{\lVert T_{k-1} \rVert} < \tau,

over both channels within its mask. The nonlinear part of the mean shape is not taken out: the scale
maps go back through the map that brought them, so the template's own shape cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize.alignment import (
    Channels,
    Warp,
    agreement,
    mean_affine,
    register_affine,
)
from napari_dmri.harmonize.scale_maps import extend
from napari_dmri.harmonize.syn import ITERATIONS, register_syn
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MIN_CORRELATION", "MIN_OVERLAP", "Template", "build_template", "to_template"]

Array = NDArray[Any]

MARGIN = 3
"""Voxels added around the first brain's grid, for brains that are larger."""

MIN_OVERLAP = 0.6
"""Dice overlap of two masks after an affine below which brains do not belong together."""

MIN_CORRELATION = 0.2
"""Correlation of two images after an affine below which brains do not belong together."""


@dataclass(frozen=True, eq=False)
class Template:
    """Hold a template, the map of each brain to it, and how it was reached."""

    channels: Channels
    warps: tuple[Warp, ...]
    changes: tuple[float, ...]
    settled: bool

    @property
    def rounds(self) -> int:
        """Number of SyN rounds."""
        return len(self.changes)


def build_template(
    brains: Sequence[Channels],
    names: Sequence[str],
    *,
    rounds: int = 4,
    tolerance: float = 0.03,
    iterations: Sequence[int] = ITERATIONS,
    progress: Progress | None = None,
) -> Template:
    """Build a template of brains and the map of each to it.

    Parameters
    ----------
    brains
        Channels of each brain (FA and RISH order 0), each on its own grid.
    names
        What to call each in a message.
    rounds, tolerance
        At most this many SyN rounds; fewer when the relative change falls below the tolerance.
    iterations
        SyN iterations per level, coarse to fine.

    Raises
    ------
    InputError
        If a brain cannot be aligned with the first one, with the figures.
    """
    report = progress or silent
    grid, shape = _space(brains[0])
    if len(brains) == 1:
        return _of_one(brains[0], shape, grid)
    affines = [np.eye(4)]
    share = 0.3
    for i in range(1, len(brains)):
        step = (share * (i - 1) / len(brains), share * i / len(brains))
        label = f"affine {names[i]}: "
        affines.append(register_affine(brains[0], brains[i], progress=part(report, *step, label)))
        _require(brains[0], brains[i], affines[i], names[0], names[i])
    middle = np.linalg.inv(mean_affine(affines))
    affines = [a @ middle for a in affines]
    warps = [Warp(a, shape, grid, b.shape, b.affine) for a, b in zip(affines, brains, strict=True)]
    current = _average(brains, warps, shape, grid)
    changes: list[float] = []
    settled = False
    for round_ in range(rounds):
        warps = []
        for i, (brain, affine) in enumerate(zip(brains, affines, strict=True)):
            done = (round_ + i / len(brains)) / rounds
            step = (
                share + (1 - share) * done,
                share + (1 - share) * (done + 1 / rounds / len(brains)),
            )
            label = f"template round {round_ + 1}, {names[i]}: "
            inner = part(report, *step, label)
            warps.append(
                register_syn(current, brain, affine, iterations=iterations, progress=inner)
            )
        updated = _average(brains, warps, shape, grid)
        changes.append(_change(current, updated))
        settled = changes[-1] < tolerance
        if settled or round_ == rounds - 1:
            break
        current = updated
    report(1.0, f"template settled to {changes[-1]:.1%}" if changes else "template")
    return Template(updated if rounds else current, tuple(warps), tuple(changes), settled)


def to_template(
    template: Channels,
    brain: Channels,
    name: str,
    *,
    iterations: Sequence[int] = ITERATIONS,
    progress: Progress | None = None,
) -> Warp:
    """Register one brain with a template, affine then SyN.

    Raises
    ------
    InputError
        If they cannot be aligned, with the figures.
    """
    report = progress or silent
    affine = register_affine(template, brain, progress=part(report, 0.0, 0.4))
    _require(template, brain, affine, "the template", name)
    return register_syn(
        template, brain, affine, iterations=iterations, progress=part(report, 0.4, 1.0)
    )


def _require(static: Channels, moving: Channels, affine: Array, a: str, b: str) -> None:
    correlation, overlap = agreement(static, moving, affine)
    if overlap < MIN_OVERLAP or correlation < MIN_CORRELATION:
        raise InputError(
            f"{b} cannot be aligned with {a}: after an affine their masks overlap by "
            f"{overlap:.0%} (at least {MIN_OVERLAP:.0%} is needed) and their FA and L0 correlate "
            f"by {correlation:.2f} (at least {MIN_CORRELATION:.2f}); check masks and orientation, "
            "and that both cover the same part of the head."
        )


def _space(brain: Channels) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return the template's grid: the first brain's, wider along axes that hold all of it.

    Along an axis whose faces the mask touches (a slab) there is nothing beyond to make room for.
    """
    margins = [0 if brain.touches(axis) else MARGIN for axis in range(3)]
    grid = brain.affine.copy()
    grid[:3, 3] -= brain.affine[:3, :3] @ np.array(margins, np.float64)
    return grid, tuple(n + 2 * m for n, m in zip(brain.shape, margins, strict=True))


def _of_one(brain: Channels, shape: tuple[int, ...], grid: Array) -> Template:
    warp = Warp(np.eye(4), shape, grid, brain.shape, brain.affine)
    return Template(_average([brain], [warp], shape, grid), (warp,), (), True)


def _average(
    brains: Sequence[Channels], warps: Sequence[Warp], shape: tuple[int, ...], grid: Array
) -> Channels:
    """Average the normalised channels where brains are; keep voxels that half of them cover.

    What fewer than half of the images see (the ends of slabs) repeats its nearest voxel, mask
    and all, so that registration sees no false edge there.
    """
    weight = np.zeros(shape, np.float32)
    seen = np.zeros(shape, np.float32)
    sums = [np.zeros(shape, np.float32) for _ in brains[0].images]
    for brain, warp in zip(brains, warps, strict=True):
        weight += warp.to_static(brain.mask.astype(np.float32))
        seen += warp.to_static(np.ones(brain.shape, np.float32))
        for total, image in zip(sums, brain.normalised(), strict=True):
            total += warp.to_static(image)
    mask = weight >= 0.5 * np.maximum(seen, 0.5 * len(brains))
    means = [np.where(mask, s / np.maximum(weight, 1e-3), 0).astype(np.float32) for s in sums]
    known = seen >= 0.5 * len(brains)
    return Channels(
        tuple(extend(image, known) for image in means),
        extend(mask, known),
        np.asarray(grid, np.float64),
    )


def _change(before: Channels, after: Channels) -> float:
    where = before.mask & after.mask
    difference = sum(
        float(((a - b)[where] ** 2).sum()) for a, b in zip(after.images, before.images, strict=True)
    )
    size = sum(float((b[where] ** 2).sum()) for b in before.images)
    return float(np.sqrt(difference / max(size, 1e-12)))
