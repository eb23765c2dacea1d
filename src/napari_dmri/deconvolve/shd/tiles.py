"""Where tiles lie: boxes of a grid, cut, trimmed to a mask, and what each needs around it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.deconvolve.shd.architecture import Architecture

__all__ = [
    "HALO",
    "Box",
    "around",
    "check_mode",
    "count",
    "divide",
    "halves",
    "input_span",
    "largest_edge",
    "reach",
    "trim",
    "voxel_bytes",
    "whole",
]

Array = NDArray[Any]
Box = tuple[slice, slice, slice]

HALO = 8
"""Voxels around a larger tile that the network sees and that are not kept."""


def check_mode(mode: str, architecture: Architecture) -> None:
    """Refuse a mode that a network's patches do not allow.

    Raises
    ------
    InputError
        If it is unknown, or needs another edge of patches.
    """
    if mode not in ("paper", "tiled"):
        raise InputError(f"Unknown mode {mode!r}; choose paper or tiled.")
    if mode == "tiled" and not architecture.tiled:
        raise InputError(
            f"The network was made for patches of {architecture.patch} voxels, whose inner levels "
            "hold one voxel; it runs in paper mode only, patch by patch."
        )
    if mode == "paper" and architecture.patch % 2 == 0:
        raise InputError(
            f"The network was made for patches of {architecture.patch} voxels, which have no "
            "middle voxel; it runs in tiled mode only."
        )


def whole(region: Sequence[Any] | None, grid: Sequence[int]) -> Box:
    """Return a region as slices with both ends.

    Raises
    ------
    InputError
        If it is not three slices that hold a voxel of the grid.
    """
    given = (slice(None),) * 3 if region is None else tuple(region)
    spans = [
        range(n)[s] if isinstance(s, slice) else range(int(s), int(s) + 1)
        for s, n in zip(given, grid, strict=False)
    ]
    if len(given) != 3 or any(len(s) < 1 or s.step != 1 for s in spans):
        raise InputError(
            f"The region {region} is not a block of a grid of {'x'.join(map(str, grid))} voxels."
        )
    x, y, z = (slice(s.start, s.stop) for s in spans)
    return x, y, z


def divide(box: Box, edge: int, step: int) -> list[Box]:
    """Divide a box in blocks of about equal size, cut where the network's pooling cells end."""
    cuts = []
    for span in box:
        length = span.stop - span.start
        pieces = -(-length // max(edge, step))
        inner = {round((span.start + length * i / pieces) / step) * step for i in range(1, pieces)}
        at = [span.start, *sorted(i for i in inner if span.start < i < span.stop), span.stop]
        cuts.append([slice(a, b) for a, b in pairwise(at)])
    return [(x, y, z) for x in cuts[0] for y in cuts[1] for z in cuts[2]]


def trim(part: Box, mask: Array) -> list[Box]:
    """Return the smallest block that holds a block's voxels of the mask, if there are any."""
    inside = mask[part]
    if not inside.any():
        return []
    x, y, z = (
        slice(span.start + held.start, span.start + held.stop)
        for span, held in zip(part, around(inside, 0), strict=True)
    )
    return [(x, y, z)]


def halves(part: Box) -> list[Box]:
    """Return both halves of a block, cut across its longest edge."""
    lengths = [s.stop - s.start for s in part]
    axis = int(np.argmax(lengths))
    span = part[axis]
    middle = (span.start + span.stop) // 2
    found = []
    for piece in (slice(span.start, middle), slice(middle, span.stop)):
        edges = list(part)
        edges[axis] = piece
        found.append((edges[0], edges[1], edges[2]))
    return found


def count(part: Box) -> int:
    """Return the voxels of a block."""
    return int(np.prod([s.stop - s.start for s in part]))


def input_span(kept: slice, length: int, halo: int, step: int) -> tuple[int, int]:
    """Return what a tile looks at along an axis: aligned, with its halo, within the padded image.

    Examples
    --------
    >>> input_span(slice(8, 16), 64, 8, 4), input_span(slice(0, 5), 12, 8, 8)
    ((0, 24), (0, 16))
    """
    end = -(-length // step) * step
    first = max(0, (kept.start - halo) // step * step)
    last = min(end, -(-(kept.stop + halo) // step) * step)
    return first, last


def reach(architecture: Architecture) -> int:
    """Return how far from a voxel of the mask anything is that a network is shown for it.

    Patches of training hold the voxel; tiles of prediction have their halo, and begin and end where
    pooling wants them to.
    """
    if not architecture.tiled:
        return architecture.patch
    step = architecture.multiple
    return max(architecture.patch, -(-HALO // step) * step + step)


def around(mask: Array, margin: int) -> Box:
    """Return the part of a grid that holds a mask, with a margin.

    Examples
    --------
    >>> around(np.eye(4, dtype=bool)[1:3, :, None], 1)
    (slice(0, 2, None), slice(0, 4, None), slice(0, 1, None))
    """
    spans = []
    for axis, length in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        spans.append(
            slice(max(0, int(filled[0]) - margin), min(length, int(filled[-1]) + 1 + margin))
        )
    return spans[0], spans[1], spans[2]


def voxel_bytes(architecture: Architecture) -> int:
    """Return about how many bytes a network needs for a voxel, as measured on a CPU."""
    held = 10 * architecture.vertices[0]
    if architecture.layer == "spectral":
        from napari_dmri.deconvolve.shd.spectral_unet import bands_of

        held = 14 * n_coefficients(bands_of(architecture)[0])
    elif architecture.layer == "convolution":
        held = 10
    return 4 * (held * architecture.filters + 2 * architecture.coefficients_out)


def largest_edge(
    architecture: Architecture, grid: Sequence[int], halo: int, budget: float, most: int
) -> int:
    """Return the edge of the largest tile whose working memory fits.

    A thin grid lets tiles be wide: what is seen of it ends, rounded up to whole cells, with it.

    Parameters
    ----------
    architecture
        Of the network.
    grid
        Voxels of the image along each axis.
    halo
        Voxels that are seen around a tile.
    budget
        Bytes.
    most
        Voxels of an edge at most.
    """
    step = architecture.multiple
    edge = max(step, most // step * step)

    def needed(edge: int) -> int:
        seen = math.prod(min(edge + 2 * halo, n + step) for n in grid)
        return seen * voxel_bytes(architecture)

    while edge > step and needed(edge) > budget:
        edge -= step
    return edge
