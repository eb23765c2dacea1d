"""Read a scan block by block as (voxels, volumes) matrices, in the order its memory has.

A NIfTI file keeps each volume together, an array made in memory usually keeps each voxel's volumes
together. Reading either against its grain is several times slower than the mathematics, so a
block follows the data's layout, and so does the array that a result is put into.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import free_memory, require_memory
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_dmri.scan import Scan

__all__ = ["Block", "blocks", "empty_like_scan", "fitting_mask", "voxel_major"]

BLOCK_BYTES = 24 * 2**20
"""Signal (float32) that one block of an array in memory holds: small enough to stay in cache."""

LAZY_BYTES = 384 * 2**20
"""Signal that one block of a file holds: a compressed file is read from its start every time."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Block:
    """Hold the chosen volumes of the masked voxels of some planes.

    Parameters
    ----------
    signal
        (n, V) float32; a transposed view where volumes are kept together.
    planes
        The planes (along x where voxels are kept together, otherwise z).
    inside
        Flat indices (n,) of the voxels within these planes.
    by_voxel
        Whether a voxel's volumes are kept together.
    done
        Fraction of the planes read up to the end of this block.
    """

    signal: NDArray[np.float32]
    planes: slice
    inside: NDArray[np.intp]
    by_voxel: bool
    done: float

    def put(self, out: Array, values: Array) -> None:
        """Write (n, K) or (n,) values into an array (X, Y, Z, K) or (X, Y, Z)."""
        if out.ndim == 3:
            out, values = out[..., None], values[:, None]
        if self.by_voxel:
            self._fill(out[self.planes], values)
            return
        for k in range(out.shape[3]):
            self._fill(out[:, :, self.planes, k].T, values[:, k])

    def _fill(self, part: Array, values: Array) -> None:
        flat = part.reshape(-1, *values.shape[1:])
        if len(self.inside) == len(flat):
            flat[:] = values
        else:
            flat[self.inside] = values
        if not np.may_share_memory(flat, part):
            part[:] = flat.reshape(part.shape)


def voxel_major(data: Any) -> bool:
    """Tell whether an array (X, Y, Z, N) keeps each voxel's N values together."""
    strides = getattr(data, "strides", None)
    if strides is None or data.shape[3] == 1:
        return False
    return bool(abs(strides[3]) <= min(abs(s) for s in strides[:3]))


def empty_like_scan(scan: Scan, count: int, dtype: Any = np.float32) -> Array:
    """Return zeros (X, Y, Z, count) in the layout of the scan's data.

    Raises
    ------
    InputError
        If they do not fit into free memory.
    """
    voxels = math.prod(scan.grid)
    require_memory(
        voxels * count * np.dtype(dtype).itemsize,
        f"A result of {count} values for each of the {voxels} voxels of {scan.name}",
        "crop the scan, or close other programs.",
    )
    if voxel_major(scan.data):
        return np.zeros((*scan.grid, count), dtype)
    return np.zeros((count, *scan.grid[::-1]), dtype).T


def fitting_mask(scan: Scan, mask: Array | None) -> NDArray[np.bool_] | None:
    """Return the mask to fit in: the one given, else the scan's own, else None for all voxels.

    Raises
    ------
    InputError
        If the mask is on another grid or empty.
    """
    chosen = scan.mask if mask is None else np.asarray(mask).astype(bool, copy=False)
    if chosen is None:
        return None
    if chosen.shape != scan.grid:
        raise InputError(
            f"{scan.name}: the mask has shape {chosen.shape} and the scan {scan.grid}; "
            "resample the mask to the scan's grid or make a new one."
        )
    if not chosen.any():
        raise InputError(f"{scan.name}: the mask holds no voxel; make a new brain mask.")
    return chosen


def blocks(
    scan: Scan, volumes: Array, mask: NDArray[np.bool_] | None, device: str = "cpu"
) -> Iterator[Block]:
    """Yield the chosen volumes of the masked voxels, some planes at a time.

    Where memory runs out, a block is read again with half the planes.

    Parameters
    ----------
    scan
        The scan; a file is read a few times at most, an array in memory in cache-sized pieces.
    volumes
        Indices (V,) of the volumes; columns of `Block.signal` come in this order.
    mask
        (X, Y, Z), or None for all voxels.
    device
        Where the blocks will go; a GPU gets larger ones.
    """
    in_memory = isinstance(scan.data, np.ndarray)
    by_voxel = voxel_major(scan.data)
    axis = 0 if by_voxel else 2
    count = scan.grid[axis]
    plane_voxels = int(np.prod(scan.grid)) // max(count, 1)
    budget = BLOCK_BYTES if in_memory and device == "cpu" else LAZY_BYTES
    budget = min(budget, free_memory() // 6)
    read = len(volumes) if in_memory else scan.shape[3]
    step = max(1, min(count, budget // max(1, 4 * plane_voxels * read)))
    start = 0
    while start < count:
        planes = slice(start, min(start + step, count))
        try:
            block = _read(scan, np.asarray(volumes), mask, planes, by_voxel, planes.stop / count)
        except MemoryError:
            if step == 1:
                raise
            step = -(-step // 2)
            continue
        yield block
        start = planes.stop


def _read(
    scan: Scan,
    volumes: Array,
    mask: NDArray[np.bool_] | None,
    planes: slice,
    by_voxel: bool,
    done: float,
) -> Block:
    if by_voxel:
        part = np.asarray(scan.data[planes])
        flat = part.reshape(-1, part.shape[3])
        inside = _inside(None if mask is None else mask[planes].reshape(-1), len(flat))
        if len(inside) < len(flat):
            flat = flat[inside]
        every = np.array_equal(volumes, np.arange(part.shape[3]))
        signal = np.array(flat if every else flat[:, volumes], dtype=np.float32, order="C")
        return Block(signal, planes, inside, True, done)
    part = np.asarray(scan.data[:, :, planes, :]).T
    size = int(np.prod(part.shape[1:]))
    inside = _inside(None if mask is None else mask[:, :, planes].T.reshape(-1), size)
    rows = np.empty((len(volumes), len(inside)), np.float32)
    for row, volume in zip(rows, volumes, strict=True):
        values = part[volume].reshape(-1)
        row[:] = values if len(inside) == size else values[inside]
    return Block(rows.T, planes, inside, False, done)


def _inside(mask: Array | None, size: int) -> NDArray[np.intp]:
    return np.arange(size) if mask is None else np.flatnonzero(mask)
