"""The known fibres of voxels, as simulators give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FibreTruth"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class FibreTruth:
    """Hold the known fibres of N voxels.

    Parameters
    ----------
    directions
        Unit vectors (N, T, 3), scanner RAS; rows from a voxel's count on do not matter.
    count
        Number of fibres in each voxel (N,).
    angle
        Smallest angle between a voxel's fibres in degrees (N,); NaN for one.
    """

    directions: NDArray[np.float64]
    count: NDArray[np.int64]
    angle: NDArray[np.float64]

    def __post_init__(self) -> None:
        voxels, most = self.directions.shape[:2]
        if self.directions.shape != (voxels, most, 3) or self.count.shape != (voxels,):
            raise InputError(
                f"True directions have shape {self.directions.shape} and counts "
                f"{self.count.shape}; expected (N, T, 3) and (N,)."
            )
        if voxels and not 0 <= self.count.min() <= self.count.max() <= most:
            raise InputError(
                f"Counts of true fibres run from {self.count.min()} to {self.count.max()}; there "
                f"are directions for {most}."
            )

    @classmethod
    def of(cls, directions: Array, count: Array | None = None) -> FibreTruth:
        """Make a truth from directions (..., T, 3), with zeros where there is no fibre."""
        u = np.asarray(directions, dtype=np.float64)
        u = u.reshape(-1, *u.shape[-2:])
        there = np.linalg.norm(u, axis=-1) > 0
        number = there.sum(1) if count is None else np.asarray(count).reshape(-1)
        cosine = np.abs(u @ u.transpose(0, 2, 1)).clip(0, 1)
        index = np.arange(u.shape[1])
        apart = index[:, None] < index
        known = (index < number[:, None])[:, None] & apart
        angle = np.where(known, np.rad2deg(np.arccos(cosine)), np.inf).min((1, 2), initial=np.inf)
        return cls(u, number.astype(np.int64), np.where(np.isfinite(angle), angle, np.nan))

    @classmethod
    def load(cls, path: str | Path) -> FibreTruth:
        """Read ``dirs`` (N, T, 3), ``n`` (N,) and ``angle`` (N,) from an .npz file.

        Raises
        ------
        InputError
            If one of them is missing.
        """
        with np.load(path) as file:
            missing = [name for name in ("dirs", "n", "angle") if name not in file]
            if missing:
                raise InputError(f"{path} lacks {', '.join(missing)}; expected dirs, n and angle.")
            return cls(file["dirs"].astype(np.float64), file["n"].astype(np.int64), file["angle"])

    def __len__(self) -> int:
        return len(self.count)
