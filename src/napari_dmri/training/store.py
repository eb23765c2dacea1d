"""Volumes and samples of many subjects, in files that are mapped into memory.

Subject after subject: the input coefficients of every voxel and, for the voxels to learn from, what
the target scanner measured. The system keeps in memory what fits and reads the rest when it is
drawn. Each subject is fitted once, when it is added.

Volumes have no gaps: whoever adds one gives voxels outside the mask the values of the nearest voxel
inside it, as applying a network does. Zeros would teach it what the edge of a mask looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.training.scratch import Scratch

if TYPE_CHECKING:
    import torch

__all__ = ["Store", "Subject"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """Where a subject's rows lie in a store, its grid, its samples and its design (V, C)."""

    label: str
    grid: tuple[int, int, int]
    first_row: int
    first_sample: int
    samples: int
    design: NDArray[np.float32]


class Store:
    """Keep the volumes and samples of many subjects in mapped files.

    Parameters
    ----------
    coefficients
        Values of an input voxel, C.
    directions
        Values of a target voxel at most, over all subjects.
    folder
        Where the files go; None makes a temporary folder that goes with the store (see `scratch`).
    """

    def __init__(
        self, coefficients: int, directions: int, folder: str | Path | None = None
    ) -> None:
        self._scratch = None if folder else Scratch()
        self.folder = self._scratch.folder if self._scratch else Path(folder)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.coefficients, self.directions = coefficients, directions
        self.subjects: list[Subject] = []
        self.rows = self.samples = 0
        for name in ("input", "target"):
            (self.folder / f"{name}.f32").write_bytes(b"")
        self._voxels: list[NDArray[np.int64]] = []

    def close(self) -> None:
        """Delete the files, if the store made their folder."""
        if self._scratch is not None:
            self._scratch.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self, label: str, values: Array, where: Array, targets: Array, design: Array
    ) -> Subject:
        """Add a subject.

        Parameters
        ----------
        label
            Its name.
        values
            Input coefficients (X, Y, Z, C), without gaps.
        where
            Voxels to learn from (X, Y, Z), bool.
        targets
            What the target measured there (n, V), in the order of ``np.flatnonzero(where)``.
        design
            Turns coefficients into the target's signal (V, C).

        Raises
        ------
        InputError
            If shapes disagree or a value is not finite.
        """
        grid = where.shape
        voxels = np.flatnonzero(where)
        wanted = {
            "input": (values.shape, (*grid, self.coefficients)),
            "design": (design.shape, (targets.shape[1], self.coefficients)),
            "target": (targets.shape, (len(voxels), min(targets.shape[1], self.directions))),
        }
        for name, (found, expected) in wanted.items():
            if found != expected:
                raise InputError(f"{label}: the {name} has shape {found}; expected {expected}.")
        for name, array in (("input", values), ("target", targets)):
            if not np.isfinite(array).all():
                raise InputError(f"{label}: the {name} holds NaN or Inf; leave these voxels out.")
        wide = np.zeros((len(voxels), self.directions), np.float32)
        wide[:, : targets.shape[1]] = targets
        full = np.zeros((self.directions, self.coefficients), np.float32)
        full[: len(design)] = design
        for name, array in (("input", values), ("target", wide)):
            with (self.folder / f"{name}.f32").open("ab") as stream:
                np.ascontiguousarray(array, np.float32).tofile(stream)
        shape = (int(grid[0]), int(grid[1]), int(grid[2]))
        added = Subject(label, shape, self.rows, self.samples, len(voxels), full)
        self._voxels.append(voxels)
        self.subjects.append(added)
        self.rows += int(np.prod(grid))
        self.samples += len(voxels)
        return added

    def inputs(self) -> torch.Tensor:
        """Return the coefficients of all voxels of all subjects (R, C), mapped."""
        return self._mapped("input", (self.rows, self.coefficients))

    def volume(self, subject: int) -> NDArray[np.float32]:
        """Return a subject's coefficients (X, Y, Z, C), mapped."""
        held = self.subjects[subject]
        count = int(np.prod(held.grid))
        shape = (*held.grid, self.coefficients)
        offset = 4 * held.first_row * self.coefficients
        if not count:
            return np.zeros(shape, np.float32)
        return np.memmap(self.folder / "input.f32", np.float32, "r", offset, shape)

    def targets(self) -> torch.Tensor:
        """Return the measured signals of all samples (N, V), mapped."""
        return self._mapped("target", (self.samples, self.directions))

    def _mapped(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        import torch

        if not shape[0]:
            return torch.zeros(shape)
        # Copy on write: torch wants writable memory, and the file stays as it is.
        held = np.memmap(self.folder / f"{name}.f32", np.float32, "c", shape=shape)
        return torch.from_numpy(held)

    def designs(self) -> torch.Tensor:
        """Return the subjects' designs (S, V, C), zero where a subject has fewer directions."""
        import torch

        return torch.from_numpy(np.stack([s.design for s in self.subjects]))

    def shares(self) -> torch.Tensor:
        """Return one over each subject's number of directions (S,)."""
        import torch

        counts = [int(s.design.any(1).sum()) for s in self.subjects]
        return torch.tensor([1 / max(n, 1) for n in counts], dtype=torch.float32)

    def voxels(self, subject: int) -> NDArray[np.int64]:
        """Return the flat voxel indices of a subject's samples."""
        return self._voxels[subject]

    @property
    def nbytes(self) -> int:
        """Bytes of inputs and targets."""
        return 4 * (self.rows * self.coefficients + self.samples * self.directions)
