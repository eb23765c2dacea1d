"""One dMRI acquisition and its gradient table: frozen values in one frame and one set of units.

Voxels are in closest-canonical (RAS+) order, the affine maps voxel indices to scanner millimetres,
b-values are in s/mm² and b-vectors are unit vectors in the scanner's RAS frame. Readers convert
to this frame and writers from it; nothing else knows about any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["B0_THRESHOLD", "ArrayLike4D", "GradientTable", "Scan", "Shell", "same_grid"]

B0_THRESHOLD = 50.0
"""Volumes with a b-value up to this (s/mm²) are b0 volumes."""

SHELL_GAP = 100.0
"""Sorted b-values further apart than this (s/mm²) belong to different shells."""

Array = NDArray[Any]


@runtime_checkable
class ArrayLike4D(Protocol):
    """What a scan's data must offer: NumPy arrays, memory maps and lazily read files do."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class Shell:
    """One b-value cluster: its mean b-value (s/mm², rounded to 1) and its volumes' indices."""

    bvalue: float
    indices: NDArray[np.intp]

    @property
    def count(self) -> int:
        """Number of volumes."""
        return len(self.indices)

    @property
    def is_b0(self) -> bool:
        """Whether this is the shell of b <= 50 s/mm²."""
        return self.bvalue <= B0_THRESHOLD


@dataclass(frozen=True, eq=False)
class GradientTable:
    """Hold b-values (N,) in s/mm² and unit b-vectors (N, 3) in the scanner's RAS frame.

    b0 volumes (b <= 50) hold the zero vector.

    Raises
    ------
    InputError
        If counts disagree, a value is not finite, a b-value is negative, or the vector of a
        volume with b > 50 is not of unit length (1e-3; readers normalise before they come here).
    """

    bvalues: NDArray[np.float64]
    directions: NDArray[np.float64]

    def __post_init__(self) -> None:
        bvalues = np.array(self.bvalues, dtype=np.float64).reshape(-1)
        directions = np.array(self.directions, dtype=np.float64)
        if directions.shape != (len(bvalues), 3):
            raise InputError(
                f"The gradient table has {len(bvalues)} b-values and b-vectors of shape "
                f"{directions.shape}; expected ({len(bvalues)}, 3): one vector for each b-value."
            )
        if not np.isfinite(bvalues).all() or not np.isfinite(directions).all():
            bad = np.flatnonzero(~(np.isfinite(bvalues) & np.isfinite(directions).all(1)))
            raise InputError(
                f"The gradient table has values that are not finite at volumes {_some(bad)}; "
                "correct them in the bval/bvec files."
            )
        if (bvalues < 0).any():
            bad = np.flatnonzero(bvalues < 0)
            raise InputError(
                f"Negative b-values at volumes {_some(bad)} (lowest {bvalues.min():g} s/mm²); "
                "b-values are 0 or more: correct the bval file."
            )
        directions[bvalues <= B0_THRESHOLD] = 0
        norms = np.linalg.norm(directions, axis=1)
        bad = np.flatnonzero((bvalues > B0_THRESHOLD) & (np.abs(norms - 1) > 1e-3))
        if bad.size:
            raise InputError(
                f"b-vectors of volumes {_some(bad)} have lengths {norms[bad].min():.3f} to "
                f"{norms[bad].max():.3f} at b > {B0_THRESHOLD:g}; expected unit vectors: "
                "normalise them or correct the bvec file."
            )
        for name, value in (("bvalues", bvalues), ("directions", directions)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.bvalues)

    def __repr__(self) -> str:
        return f"GradientTable({self.summary()})"

    @cached_property
    def b0_mask(self) -> NDArray[np.bool_]:
        """True for the volumes with b <= 50 s/mm² (N,)."""
        return self.bvalues <= B0_THRESHOLD

    @cached_property
    def shells(self) -> tuple[Shell, ...]:
        """Clusters of b-values, b0 first, then ascending; a gap of over 100 s/mm² separates."""
        found: list[Shell] = []
        b0 = np.flatnonzero(self.b0_mask)
        if b0.size:
            found.append(Shell(float(round(self.bvalues[b0].mean())), b0))
        weighted = np.flatnonzero(~self.b0_mask)
        order = weighted[np.argsort(self.bvalues[weighted], kind="stable")]
        cuts = np.flatnonzero(np.diff(self.bvalues[order]) > SHELL_GAP) + 1
        for indices in np.split(order, cuts):
            if indices.size:
                found.append(Shell(float(round(self.bvalues[indices].mean())), np.sort(indices)))
        return tuple(found)

    @property
    def weighted_shells(self) -> tuple[Shell, ...]:
        """The shells with b > 50 s/mm²."""
        return tuple(s for s in self.shells if not s.is_b0)

    def shell(self, bvalue: float | None = None) -> Shell:
        """Return the weighted shell nearest to a b-value, or the default one.

        The default is the shell with most directions, the highest b on a tie.

        Raises
        ------
        InputError
            If there is no weighted shell, or none within 100 s/mm² of the b-value asked for.
        """
        shells = self.weighted_shells
        if not shells:
            raise InputError(
                f"All {len(self)} volumes have b <= {B0_THRESHOLD:g}; "
                "at least one diffusion-weighted shell is needed: check the bval file."
            )
        if bvalue is None:
            return max(shells, key=lambda s: (s.count, s.bvalue))
        nearest = min(shells, key=lambda s: abs(s.bvalue - bvalue))
        if abs(nearest.bvalue - bvalue) > SHELL_GAP:
            have = ", ".join(f"{s.bvalue:g}" for s in shells)
            raise InputError(
                f"No shell at b={bvalue:g} s/mm²; the scan has b={have}: choose one of these."
            )
        return nearest

    def select(self, indices: Sequence[int] | Array) -> GradientTable:
        """Return the table of some volumes."""
        return GradientTable(self.bvalues[indices], self.directions[indices])

    def rotate(self, rotation: Array) -> GradientTable:
        """Return the table with each direction g replaced by R g, for a rotation R (3, 3)."""
        rotated = self.directions @ np.asarray(rotation, dtype=np.float64).T
        norms = np.linalg.norm(rotated, axis=1, keepdims=True)
        return GradientTable(self.bvalues, rotated / np.where(norms > 0, norms, 1))

    def distinct_directions(self, indices: Array | None = None, degrees: float = 1.0) -> int:
        """Count directions that differ, as axes (antipodes are one), by more than some degrees."""
        chosen = self.directions if indices is None else self.directions[indices]
        chosen = chosen[np.linalg.norm(chosen, axis=1) > 0]
        kept: list[Array] = []
        limit = np.cos(np.deg2rad(degrees))
        for direction in chosen:
            if not kept or np.abs(np.array(kept) @ direction).max() < limit:
                kept.append(direction)
        return len(kept)

    def summary(self) -> str:
        """Say the shells in words, e.g. ``"4 b0 + 30 at b=1200"``."""
        words = [
            f"{s.count} b0" if s.is_b0 else f"{s.count} at b={s.bvalue:g}" for s in self.shells
        ]
        return " + ".join(words) if words else "no volumes"


@dataclass(frozen=True, eq=False)
class Scan:
    """Hold one dMRI acquisition.

    Parameters
    ----------
    data
        Signal (X, Y, Z, N), closest-canonical order; any array that can be sliced, read lazily.
    affine
        Voxel indices to scanner RAS millimetres (4, 4).
    gradients
        One row for each of the N volumes.
    mask
        Brain mask (X, Y, Z), bool; None where none is known yet.
    name
        A short readable name, used in layer names.
    path
        The file it came from.
    metadata
        Anything a reader found worth keeping: ``"simulated"`` (bool), ``"orientation"`` (axis
        codes on disk), ``"original_affine"``, ``"sidecar"`` (BIDS JSON), ``"warnings"`` (list).

    Raises
    ------
    InputError
        If shapes disagree, or the affine is singular or not finite.
    """

    data: ArrayLike4D
    affine: NDArray[np.float64]
    gradients: GradientTable
    mask: NDArray[np.bool_] | None = None
    name: str = "scan"
    path: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.data.shape)
        if len(shape) != 4:
            raise InputError(
                f"{self.name}: the data have shape {shape}; a scan is 4D (x, y, z, volume)."
            )
        if shape[3] != len(self.gradients):
            raise InputError(
                f"{self.name}: {shape[3]} volumes but {len(self.gradients)} rows in the gradient "
                "table; they must agree: check that bval/bvec belong to this image."
            )
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(
                f"{self.name}: the affine is not a finite 4 x 4 matrix; repair the image header."
            )
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if (sizes <= 0).any() or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * sizes.prod():
            raise InputError(
                f"{self.name}: the affine is singular (voxel sizes {np.round(sizes, 4).tolist()} "
                "mm); repair the image header."
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.shape != shape[:3]:
                raise InputError(
                    f"{self.name}: the mask has shape {mask.shape} and the scan {shape[:3]}; "
                    "resample the mask to the scan's grid or make a new one."
                )
            object.__setattr__(self, "mask", mask.astype(bool, copy=False))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __repr__(self) -> str:
        return f"Scan({self.name!r}, {self.shape}, {self.gradients.summary()})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (X, Y, Z, N)."""
        x, y, z, n = self.data.shape
        return x, y, z, n

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shape (X, Y, Z)."""
        return self.shape[:3]

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel (3,) in millimetres."""
        sizes: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return sizes

    @property
    def simulated(self) -> bool:
        """Whether the scan carries the simulator's mark."""
        return bool(self.metadata.get("simulated", False))

    def volumes(self, indices: Any = slice(None)) -> NDArray[np.float32]:
        """Read volumes (by an index array or slice) as float32 (X, Y, Z, n), C order free."""
        return np.asarray(self.data[..., indices], dtype=np.float32)

    def mean_b0(self) -> NDArray[np.float32]:
        """Return the mean of the volumes with b <= 50 (X, Y, Z).

        It is of the finite values of each voxel, and 0 where there is none.

        Raises
        ------
        InputError
            If the scan has no b0 volume.
        """
        indices = np.flatnonzero(self.gradients.b0_mask)
        if not indices.size:
            lowest = self.gradients.bvalues.min()
            raise InputError(
                f"{self.name} has no b0 volume (lowest b-value {lowest:g} s/mm², b0 means "
                f"b <= {B0_THRESHOLD:g}); S/b0 needs one: add a b0 volume to the scan."
            )
        total = np.zeros(self.grid, np.float32)
        missing = np.zeros(self.grid, np.float32)
        for index in indices:
            volume = np.asarray(self.data[..., int(index)], dtype=np.float32)
            finite = np.isfinite(volume)
            if finite.all():
                total += volume
            else:
                total += np.where(finite, volume, 0)
                missing += ~finite
        total /= np.maximum(np.float32(indices.size) - missing, 1)
        return total

    def with_mask(self, mask: Array | None) -> Scan:
        """Return the scan with another mask."""
        return replace(self, mask=mask)

    def select(self, indices: Sequence[int] | Array) -> Scan:
        """Return the scan with some of its volumes."""
        chosen = np.asarray(indices)
        return replace(
            self, data=np.asarray(self.data[..., chosen]), gradients=self.gradients.select(chosen)
        )


def same_grid(a: Any, b: Any, tolerance: float = 1e-3) -> bool:
    """Tell whether two things with an affine and a (X, Y, Z, ...) shape share voxels (mm)."""
    return tuple(a.shape[:3]) == tuple(b.shape[:3]) and bool(
        np.allclose(a.affine, b.affine, atol=tolerance)
    )


def _some(indices: Array, limit: int = 8) -> str:
    """Name up to a few indices."""
    shown = ", ".join(str(int(i)) for i in indices[:limit])
    return shown + (f" and {len(indices) - limit} more" if len(indices) > limit else "")
