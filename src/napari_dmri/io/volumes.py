"""4D data that stay on disk until they are asked for.

Axis order, flips and scaling are applied on request, so they cost no memory of their own; what is
kept is a memory map or the unpacked stream (`napari_dmri.io.raw_files`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_dmri.device import require_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.io.raw_files import RawFile

__all__ = ["LazyVolumes"]

Array = NDArray[Any]


class LazyVolumes:
    """Offer a file's numbers as an array (X, Y, Z, N) in any axis order, scaled on request.

    Parameters
    ----------
    raw
        The file.
    axes
        For each axis of the result, the axis of the file it is.
    flips
        For each axis of the result, whether it runs backwards in the file.
    slope, intercept
        The stored numbers s mean ``slope * s + intercept``.
    """

    ndim = 4

    def __init__(
        self,
        raw: RawFile,
        axes: Sequence[int] = (0, 1, 2, 3),
        flips: Sequence[bool] = (False, False, False, False),
        slope: float = 1.0,
        intercept: float = 0.0,
    ) -> None:
        self._raw = raw
        self._axes, self._flips = tuple(int(a) for a in axes), tuple(bool(f) for f in flips)
        self._slope, self._intercept = float(slope), float(intercept)

    def __repr__(self) -> str:
        return f"LazyVolumes({self._raw.path.name!r}, {self.shape}, {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z, N)."""
        return tuple(self._raw.shape[a] for a in self._axes)

    @property
    def scaled(self) -> bool:
        """Whether the stored numbers are scaled on request."""
        return (self._slope, self._intercept) != (1.0, 0.0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is returned: float32 when scaled, otherwise as on disk (native byte order)."""
        return np.dtype(np.float32) if self.scaled else self._raw.dtype.newbyteorder("=")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of everything, as it would be returned."""
        return self.size * self.dtype.itemsize

    def reordered(self, axes: Sequence[int], flips: Sequence[bool]) -> LazyVolumes:
        """Return the same data with axes permuted, then flipped; nothing is read."""
        return LazyVolumes(
            self._raw,
            [self._axes[a] for a in axes],
            [self._flips[a] ^ bool(f) for a, f in zip(axes, flips, strict=True)],
            self._slope,
            self._intercept,
        )

    def __getitem__(self, key: Any) -> Array:
        """Read a part, with NumPy's indexing; only the volumes needed are unpacked.

        What needs no conversion is a read-only view of the file or of the unpacked stream.
        """
        view = self._view(self._slabs_for(key))
        part = view[key]
        if not self.scaled:
            part = np.asarray(part)
            return part if part.dtype.isnative else part.astype(self.dtype)
        count = np.size(part)
        if count > 2**24:
            require_memory(
                4 * count,
                f"Reading {count} voxels of {self._raw.path.name} as float32",
                "read fewer volumes at once, or crop the image.",
            )
        out = np.asarray(part).astype(np.float32)
        out *= np.float32(self._slope)
        out += np.float32(self._intercept)
        return out

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Read everything."""
        everything = self[...]
        if dtype is not None and np.dtype(dtype) != everything.dtype:
            if copy is False:
                raise ValueError("A conversion of the data type needs a copy.")
            return everything.astype(dtype)
        return everything.copy() if copy else everything

    def _view(self, slabs: int) -> Array:
        raw = self._raw.array(slabs).transpose(self._axes)
        view = raw[tuple(slice(None, None, -1 if f else 1) for f in self._flips)]
        view.flags.writeable = False
        return view

    def _slabs_for(self, key: Any) -> int:
        """Return how much of the file's slowest axis a key needs."""
        slowest = len(self._axes) - 1
        count = self.shape[3]
        if self._axes[3] != slowest:
            return self._raw.shape[slowest]
        keys = key if isinstance(key, tuple) else (key,)
        whole = any(k is None or (hasattr(k, "ndim") and k.ndim > 1) for k in keys)
        if any(k is Ellipsis for k in keys):
            last = keys[-1] if keys[-1] is not Ellipsis else slice(None)
        else:
            last = keys[3] if len(keys) == 4 else slice(None)
        if whole:
            return count
        chosen = np.atleast_1d(np.arange(count)[last])
        if not chosen.size:
            return 0
        return int(count - chosen.min() if self._flips[3] else chosen.max() + 1)
