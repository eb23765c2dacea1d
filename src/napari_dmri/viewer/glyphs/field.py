"""Read the glyphs of a slice or a slab from an SH volume, touching nothing else of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.viewer.glyphs.basis import PLAIN, Reading, ShSpace
from napari_dmri.viewer.glyphs.sphere import evaluation_matrix

__all__ = ["REFERENCE_PERCENTILE", "GlyphField", "Glyphs", "largest_amplitudes"]

REFERENCE_PERCENTILE = 95.0
"""The glyph that just fits its voxel at size 1."""

AMPLITUDE_FREQUENCY = 6
BLOCK = 4096
CACHE_BYTES = 12 * 2**20

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Hold the voxels of one view that have something to draw.

    Parameters
    ----------
    voxels
        Their indices on the layer's axes (N, 3).
    coefficients
        (N, C) float32, finite.
    key
        What names this view in caches.
    step
        2 where only every second voxel is shown, and so on.
    """

    voxels: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    key: tuple[Any, ...] = ()
    step: int = 1

    def __len__(self) -> int:
        return len(self.voxels)


class GlyphField:
    """Give the glyphs of slices of an SH volume, remembering the last ones.

    Parameters
    ----------
    data
        Coefficients on the layer's axes (Z, Y, X, C): an array, a memory map, or anything with a
        shape that can be sliced.
    mask
        Voxels to show (Z, Y, X); None means all.
    """

    def __init__(self, data: Any, mask: Array | None = None) -> None:
        if len(data.shape) != 4:
            raise InputError(
                f"Glyphs need SH coefficients (z, y, x, C); the data have shape {data.shape}."
            )
        if mask is not None and tuple(mask.shape) != tuple(data.shape[:3]):
            raise InputError(
                f"The mask has {tuple(mask.shape)} voxels and the SH volume "
                f"{tuple(data.shape[:3])}; they must be on one grid."
            )
        self.data, self.mask = data, mask
        self.space = ShSpace.of(data.shape[3])
        self._cache: OrderedDict[tuple[Any, ...], Glyphs] = OrderedDict()

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels along each axis of the layer."""
        return tuple(int(n) for n in self.data.shape[:3])  # type: ignore[return-value]

    def plane(self, axis: int, index: int) -> Glyphs:
        """Return the glyphs of one slice; none outside the volume."""
        if not 0 <= index < self.grid[axis]:
            return self._nothing()
        ranges = [slice(None)] * 3
        ranges[axis] = slice(index, index + 1)
        return self._read(tuple(ranges))

    def planes(self, centre: Sequence[int], thickness: int = 1) -> Glyphs:
        """Return three orthogonal slices (or slabs) through a voxel, each voxel once."""
        parts, seen = [], np.zeros(0, dtype=np.int64)
        for axis in range(3):
            part = self.slab(axis, centre[axis], thickness)
            flat = np.ravel_multi_index(tuple(part.voxels.T), self.grid)
            new = ~np.isin(flat, seen)
            seen = np.concatenate([seen, flat])
            parts.append((part.voxels[new], part.coefficients[new]))
        voxels, coefficients = (np.concatenate(x) for x in zip(*parts, strict=True))
        return Glyphs(voxels, coefficients, ("planes", *centre, thickness))

    def slab(self, axis: int, index: int, thickness: int = 1) -> Glyphs:
        """Return the glyphs of some neighbouring slices."""
        low = max(0, index - (thickness - 1) // 2)
        high = min(self.grid[axis], index + thickness // 2 + 1)
        if high <= low:
            return self._nothing()
        ranges = [slice(None)] * 3
        ranges[axis] = slice(low, high)
        return self._read(tuple(ranges))

    def volume(self, budget: int) -> Glyphs:
        """Return the whole masked volume, thinned evenly so that at most ``budget`` are left."""
        step = 1
        while True:
            every = slice(None, None, step)
            count = -(-self.grid[0] // step) * -(-self.grid[1] // step) * -(-self.grid[2] // step)
            if self.mask is not None:
                count = int(np.count_nonzero(self.mask[every, every, every]))
            if count <= 8 * budget:
                found = self._read((every, every, every), step=step)
                if len(found) <= budget:
                    return found
            step += 1

    def voxel(self, index: Sequence[int]) -> NDArray[np.float32] | None:
        """Return the coefficients (C,) of one voxel; None outside, masked, empty or not finite."""
        at = tuple(int(i) for i in index)
        if not all(0 <= i < n for i, n in zip(at, self.grid, strict=True)):
            return None
        if self.mask is not None and not self.mask[at]:
            return None
        values = np.asarray(self.data[at], dtype=np.float32)
        return values if np.isfinite(values).all() and values.any() else None

    def _nothing(self) -> Glyphs:
        return Glyphs(np.zeros((0, 3), np.int64), np.zeros((0, self.space.count), np.float32))

    def _read(self, ranges: tuple[slice, ...], step: int = 1) -> Glyphs:
        key = tuple((r.start, r.stop, r.step) for r in ranges)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        block = np.asarray(self.data[ranges])
        shape, flat = block.shape[:3], block.reshape(-1, block.shape[3])
        with np.errstate(over="ignore", invalid="ignore"):
            flat = flat.astype(np.float32, copy=False)
            total = flat @ np.ones(flat.shape[1], np.float32)
        shown = np.isfinite(total)
        odd = ~shown
        if odd.any():
            shown[odd] = np.isfinite(flat[odd]).all(1)
        shown[total == 0] = flat[total == 0].any(1)
        if self.mask is not None:
            shown &= np.asarray(self.mask[ranges]).reshape(-1) > 0
        where = np.flatnonzero(shown)
        voxels = np.stack(np.unravel_index(where, shape), -1).astype(np.int64)
        voxels *= [r.step or 1 for r in ranges]
        voxels += [r.start or 0 for r in ranges]
        glyphs = Glyphs(voxels, np.ascontiguousarray(flat[where]), key, step)
        self._cache[key] = glyphs
        while len(self._cache) > 1 and self._bytes() > CACHE_BYTES:
            self._cache.popitem(last=False)
        return glyphs

    def _bytes(self) -> int:
        return sum(g.coefficients.nbytes + g.voxels.nbytes for g in self._cache.values())


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield slices that cover a range."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def largest_amplitudes(
    coefficients: Array, space: ShSpace, reading: Reading = PLAIN, negative: bool = True
) -> NDArray[np.float32]:
    """Return the largest radius of each glyph (N,), on 181 axes.

    Parameters
    ----------
    coefficients
        (N, C) with at least the coefficients of the space.
    space, reading
        What they are read as.
    negative
        Whether negative lobes are drawn, so that their size counts.
    """
    matrix = evaluation_matrix(AMPLITUDE_FREQUENCY, space, reading, gradients=False)
    largest = np.empty(len(coefficients), dtype=np.float32)
    for part in blocks(len(coefficients)):
        radii = coefficients[part, : space.count] @ matrix
        top = radii.max(1)
        largest[part] = np.maximum(top, -radii.min(1)) if negative else np.maximum(top, 0)
    return largest
