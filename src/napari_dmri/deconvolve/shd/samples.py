"""Batches of patches for networks of the SHD family: one subject a batch, the same for one key.

A sample is a voxel of a subject's mask with a patch around it: in its middle for an odd edge (the
paper's 3^3), at a random place in it for an even one. Within an epoch a subject's voxels come in
random permutations, one after the other, and subjects take turns, so that any step can be the first
and a resumed training sees what an uninterrupted one does. Beyond the image its outermost voxels
repeat, outside the mask.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.shd.tiles import around
from napari_dmri.errors import InputError
from napari_dmri.training.parts import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_dmri.deconvolve.shd.inputs import Prepared

__all__ = ["FodPatches", "PatchStore", "Volume", "patch_rows", "surround"]

Array = NDArray[Any]

FIXED = 20_211
"""Key of the batches of a validation."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Hold one subject as rows of voxels, in memory or mapped from files.

    Parameters
    ----------
    label
        The subject's name.
    grid
        Voxels (X, Y, Z) of its part of the image; R = X Y Z rows in C order.
    shells, signal, b0, mask
        Tensors (R, S, C_in), (R, N), (R,) and bool (R,).
    forward_wm, forward_others, kernel
        Tensors (N, C), (N, T) and (1 + T,), white matter first.
    target
        fODFs to learn from (R, C), or an empty tensor.
    voxels
        Rows of the mask (n,).
    """

    label: str
    grid: tuple[int, int, int]
    shells: torch.Tensor
    signal: torch.Tensor
    b0: torch.Tensor
    mask: torch.Tensor
    forward_wm: torch.Tensor
    forward_others: torch.Tensor
    kernel: torch.Tensor
    target: torch.Tensor
    voxels: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of what belongs to voxels."""
        held = (self.shells, self.signal, self.b0, self.mask, self.target)
        return sum(t.numel() * t.element_size() for t in held)

    def to(self, device: torch.device) -> Volume:
        """Return the volume on a device."""
        names = ("shells", "signal", "b0", "mask", "forward_wm", "forward_others", "kernel")
        moved = {name: getattr(self, name).to(device) for name in (*names, "target")}
        return Volume(self.label, self.grid, **moved, voxels=self.voxels)


class PatchStore:
    """Keep the volumes of many subjects, in mapped files or in memory.

    Parameters
    ----------
    others
        Tissues besides white matter, in the network's order.
    on_disk
        Whether volumes go to files, cut to their mask: for more subjects than memory holds.
    folder
        Where the files go; None makes a temporary folder that goes with the store.
    """

    def __init__(
        self, others: Sequence[str] = (), *, on_disk: bool = False, folder: Path | None = None
    ) -> None:
        self.others, self.on_disk = tuple(others), on_disk
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if on_disk and folder is None:
            # Windows keeps files that are still mapped; they go with the next cleaning of its own.
            self._temporary = tempfile.TemporaryDirectory(
                prefix="napari-dmri-", ignore_cleanup_errors=True
            )
            folder = Path(self._temporary.name)
        self.folder = folder
        self.volumes: list[Volume] = []

    def close(self) -> None:
        """Delete the files, if the store made their folder."""
        self.volumes = []
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        prepared: Prepared,
        *,
        label: str = "scan",
        target: Array | None = None,
        margin: int = 8,
    ) -> Volume:
        """Add a subject.

        Parameters
        ----------
        prepared
            A scan that is ready for a network.
        label
            The subject's name.
        target
            Known fODFs (X, Y, Z, C) of the network's degree, in units of white matter's b0.
        margin
            Voxels around the mask that are kept on disk: as many as a patch has.

        Raises
        ------
        InputError
            If the mask is empty, a tissue has no response, or the target is on another grid.
        """
        import torch

        box = prepared.box
        mask = np.asarray(prepared.mask, bool)
        if not mask.any():
            raise InputError(f"{label}: the mask holds no voxel; make a new brain mask.")
        missing = [t for t in self.others if t not in prepared.forward]
        if missing:
            raise InputError(
                f"{label} has no response for {', '.join(missing)}; estimate one, or train "
                "without this tissue."
            )
        wm = np.asarray(prepared.forward["wm"], np.float32)
        if target is not None and target.shape != (*mask.shape, wm.shape[1]):
            raise InputError(
                f"{label}: the known fODFs have shape {target.shape}; expected "
                f"{(*mask.shape, wm.shape[1])}."
            )
        mask = mask[box]
        parts = {
            "shells": prepared.coefficients,
            "signal": prepared.signal,
            "b0": prepared.b0[box],
            "mask": mask,
        }
        if target is not None:
            parts["target"] = target[box]
        if self.on_disk:
            parts = self._write(parts, mask, margin)
        grid = parts["mask"].shape
        rows = {
            name: torch.from_numpy(
                np.ascontiguousarray(value, bool if name == "mask" else np.float32)
            ).reshape(-1, *value.shape[3:])
            for name, value in parts.items()
        }
        others = [np.asarray(prepared.forward[t], np.float32).reshape(-1, 1) for t in self.others]
        columns = np.concatenate([np.zeros((len(wm), 0), np.float32), *others], axis=1)
        kernel = [float(prepared.kernel[t]) for t in ("wm", *self.others)]
        added = Volume(
            label,
            (int(grid[0]), int(grid[1]), int(grid[2])),
            rows["shells"],
            rows["signal"],
            rows["b0"],
            rows["mask"],
            torch.from_numpy(wm),
            torch.from_numpy(columns),
            torch.tensor(kernel, dtype=torch.float32),
            rows.get("target", torch.zeros(0)),
            np.flatnonzero(rows["mask"].numpy()),
        )
        self.volumes.append(added)
        return added

    def _write(self, parts: dict[str, Array], mask: Array, margin: int) -> dict[str, Array]:
        """Write the arrays' parts around the mask to files, and return them mapped."""
        assert self.folder is not None
        box = around(mask, margin)
        mapped = {}
        for name, value in parts.items():
            path = self.folder / f"{len(self.volumes)}-{name}.npy"
            kind = bool if name == "mask" else np.float32
            np.save(path, np.ascontiguousarray(value[box], kind))
            # Copy on write: torch wants writable memory, and the file stays as it is.
            mapped[name] = np.load(path, mmap_mode="c")
        return mapped


class FodPatches:
    """Draw batches of patches from subjects in turn (see `training.parts.Batches`).

    A batch holds shells (B, P, P, P, S, C_in), signal (B, P, P, P, N), b0 and mask (B, P, P, P),
    forward_wm (N, C), forward_others (N, T), kernel (1 + T,) and target (B, P, P, P, C) or (0,).
    It weighs as many voxels as its masks hold.

    Parameters
    ----------
    volumes
        The subjects.
    patch
        Edge P of a patch.
    steps
        Batches of an epoch; None takes as many as show each voxel about once.
    device
        Where training runs; volumes that fit a GPU's memory twice are kept there.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        patch: int,
        steps: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        import torch

        from napari_dmri.device import free_memory

        where = torch.device(device)
        size = sum(volume.nbytes for volume in volumes)
        fits = where.type == "cuda" and 2 * size < free_memory(str(where))
        self.device = where if fits else torch.device("cpu")
        self.volumes = [volume.to(self.device) for volume in volumes]
        self.patch, self.steps = int(patch), steps
        self._orders: dict[int, tuple[tuple[int, ...], NDArray[np.int64]]] = {}

    def count(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        if not self.volumes:
            return 0
        if self.steps is not None:
            return self.steps
        voxels = sum(len(volume.voxels) for volume in self.volumes)
        each = self.patch**3 if self.patch % 2 == 0 else 1
        return max(1, -(-voxels // (size * each)))

    def batches(
        self, size: int, key: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Yield an epoch's batches from a step on; key None: always the same ones."""
        chosen = [FIXED] if key is None else [int(k) for k in key]
        for step in range(start, self.count(size)):
            yield self.draw(*self.samples(size, chosen, step))

    def samples(self, size: int, key: Sequence[int], step: int) -> tuple[int, NDArray[np.int64]]:
        """Return the subject of a step and the first voxels of its patches (B, 3)."""
        visit, place = divmod(step, len(self.volumes))
        turns = np.random.default_rng([*key, 0, visit]).permutation(len(self.volumes))
        subject = int(turns[place])
        grid = self.volumes[subject].grid
        rows = self._voxels(key, subject, visit * size, size)
        return subject, self.corners(grid, rows, np.random.default_rng([*key, 2, step]))

    def corners(
        self, grid: tuple[int, int, int], rows: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the first voxels (B, 3) of patches that hold some voxels, given by their rows."""
        voxels = np.stack(np.unravel_index(rows, grid), -1)
        if self.patch % 2:
            return voxels - self.patch // 2
        corners = voxels - rng.integers(0, self.patch, voxels.shape)
        # At most half of a patch lies beyond the image.
        low = np.full(3, -(self.patch // 2))
        high = np.maximum(np.array(grid) - self.patch // 2, low)
        near: NDArray[np.int64] = np.clip(corners, low, np.maximum(high, 0))
        return near

    def _voxels(
        self, key: Sequence[int], subject: int, first: int, count: int
    ) -> NDArray[np.int64]:
        """Return rows of the mask from a place in the subject's permutations on."""
        known = self.volumes[subject].voxels
        places = np.arange(first, first + count)
        found = np.empty(count, np.int64)
        for number in np.unique(places // len(known)):
            name = (*key, 1, subject, int(number))
            if self._orders.get(subject, ((), known))[0] != name:
                self._orders[subject] = (name, np.random.default_rng(name).permutation(known))
            here = places // len(known) == number
            found[here] = self._orders[subject][1][places[here] % len(known)]
        return found

    def draw(self, subject: int, corners: Array) -> Batch:
        """Return some patches of a subject as a batch."""
        import torch

        volume = self.volumes[subject]
        edges = (self.patch,) * 3
        rows, inside = patch_rows(volume.grid, corners, edges)
        flat = torch.from_numpy(rows.reshape(-1)).to(self.device)
        shape = (len(corners), *edges)

        def cut(values: torch.Tensor) -> torch.Tensor:
            return values.index_select(0, flat).reshape(*shape, *values.shape[1:])

        mask = cut(volume.mask) & torch.from_numpy(inside).to(self.device)
        weight = float(mask.sum())
        tensors = (
            cut(volume.shells),
            cut(volume.signal),
            cut(volume.b0),
            mask,
            volume.forward_wm,
            volume.forward_others,
            volume.kernel,
            cut(volume.target) if volume.target.numel() else volume.target,
        )
        return Batch(tensors, weight)


def patch_rows(
    grid: Sequence[int], corners: Array, edges: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of the voxels of some patches, and which of them are in the image.

    Parameters
    ----------
    grid
        Voxels of the image (X, Y, Z).
    corners
        First voxels of the patches (B, 3), which may lie beyond the image.
    edges
        Edges of a patch.

    Returns
    -------
    Flat rows in C order of the nearest voxel of the image, and bool, both (B, e, e', e'').

    Examples
    --------
    >>> rows, inside = patch_rows((3, 1, 1), np.array([[-1, 0, 0]]), (3, 1, 1))
    >>> rows.ravel(), inside.ravel()
    (array([0, 0, 1]), array([False,  True,  True]))
    """
    count = len(corners)
    rows = np.zeros((count, 1, 1, 1), np.int64)
    inside = np.ones((count, 1, 1, 1), bool)
    for axis, (length, edge) in enumerate(zip(grid, edges, strict=True)):
        shape = [count, 1, 1, 1]
        shape[axis + 1] = edge
        at = (corners[:, axis, None] + np.arange(edge)).reshape(shape)
        near = at.clip(0, length - 1)
        rows = rows * length + near
        inside = inside & (near == at)
    return rows, inside


def surround(prepared: Prepared) -> Prepared:
    """Return a scan whose voxels outside the mask look like the nearest inside.

    A network must not learn what the edge of a mask looks like, nor what is around a head.
    """
    from dataclasses import replace

    from napari_dmri.harmonize.networks import replicate_outside

    box = prepared.box
    shape = prepared.coefficients.shape
    mask, b0 = prepared.mask[box], np.array(prepared.b0, np.float32)
    flat = prepared.coefficients.reshape(*shape[:3], -1)
    filled = replicate_outside(flat, mask).reshape(shape)
    b0[box] = replicate_outside(b0[box][..., None], mask)[..., 0]
    return replace(prepared, coefficients=filled, b0=b0)
