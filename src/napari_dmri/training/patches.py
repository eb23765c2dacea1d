"""Batches of many subjects' samples, shuffled over subjects.

Two samplers draw from a `Store`. `Patches` gives single voxels with their neighbourhood (3^3, or
none for voxel-wise networks), `Tiles` larger blocks with a halo whose core alone enters the loss;
their grid is shifted at random each epoch. Both depend on nothing but the key they are given, an
epoch draws each sample once, and any step can be the first. Beyond the image its outermost voxels
repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.training.parts import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_dmri.training.store import Store

__all__ = ["Patches", "Tiles"]

Array = NDArray[Any]


class _Sampler:
    """What both samplers share: the store's tensors, on the device if they fit there.

    Designs and shares are always there.
    """

    def __init__(self, store: Store, device: str | torch.device = "cpu") -> None:
        import torch

        from napari_dmri.device import free_memory

        self.store = store
        where = torch.device(device)
        on_device = where.type == "cuda" and 2 * store.nbytes < free_memory(str(where))
        self.device = where if on_device else torch.device("cpu")
        self.inputs = store.inputs().to(self.device)
        self.targets = store.targets().to(self.device)
        # Small, and there wherever the rest is: one and the same for all batches of an epoch, of
        # which a loss makes something once and keeps it.
        self.designs = store.designs().to(where)
        self.shares = store.shares().to(where)
        self.grids = np.array([s.grid for s in store.subjects])
        self.first_rows = np.array([s.first_row for s in store.subjects])

    def on_device(self, values: Array) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


class Patches(_Sampler):
    """Draw voxels with their neighbourhood, shuffled over all subjects.

    Batches hold inputs (n, C, e, e, e), or (n, C) for an edge of 1; an empty index; the targets
    (n, V); the subject's number of each sample (n,), the designs (S, V, C) and shares (S,).

    Parameters
    ----------
    store
        Where from.
    edge
        Edge of a neighbourhood in voxels, odd.
    device
        Where training runs; a store that fits a CUDA device's memory twice is kept there, and
        designs and shares always.
    """

    def __init__(self, store: Store, edge: int = 3, device: str | torch.device = "cpu") -> None:
        super().__init__(store, device)
        self.edge = edge
        reach = edge // 2
        steps = np.arange(-reach, reach + 1)
        self.offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        self.subject = np.repeat(
            np.arange(len(store.subjects), dtype=np.int32), [s.samples for s in store.subjects]
        )
        places = [
            np.stack(np.unravel_index(store.voxels(n), s.grid), -1).astype(np.int16)
            for n, s in enumerate(store.subjects)
        ]
        self.places = np.concatenate(places) if places else np.zeros((0, 3), np.int16)

    def count(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.places) // size)

    def batches(
        self, size: int, key: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Yield an epoch's batches from a step on; key None: in the order they lie in."""
        total = len(self.places)
        order = np.arange(total)
        if key is not None:
            order = np.random.default_rng(list(key)).permutation(total)
        for step in range(start, self.count(size)):
            yield self.draw(order[step * size : (step + 1) * size])

    def draw(self, samples: Array) -> Batch:
        """Return some samples as a batch."""
        subject = self.subject[samples]
        grids = self.grids[subject]
        near = self.places[samples][:, None].astype(np.int64) + self.offsets
        np.clip(near, 0, grids[:, None] - 1, out=near)
        strides = np.stack([grids[:, 1] * grids[:, 2], grids[:, 2], np.ones_like(subject)], -1)
        rows = np.einsum("nka,na->nk", near, strides) + self.first_rows[subject][:, None]
        values = self.inputs.index_select(0, self.on_device(rows.reshape(-1)))
        n, c = len(samples), self.store.coefficients
        if self.edge == 1:
            inputs = values.reshape(n, c)
        else:
            inputs = values.reshape(n, -1, c).transpose(1, 2).reshape(n, c, *[self.edge] * 3)
        where = self.on_device(np.zeros(0))
        targets = self.targets.index_select(0, self.on_device(samples))
        kept = (inputs, where, targets, self.on_device(subject), self.designs, self.shares)
        return Batch(kept, float(n))


class Tiles(_Sampler):
    """Draw blocks with a halo; only their core enters the loss.

    Batches hold inputs (B, C, w, w', w'') with w = edge + 2 halo, the flat index of each sample
    among the voxels of the B cores, and then what `Patches` gives.

    Parameters
    ----------
    store
        Where from.
    edge
        Edge of the core in voxels; no longer than the images along each axis.
    halo
        Voxels around it that the network looks at.
    device
        As for `Patches`.
    """

    def __init__(
        self, store: Store, edge: int, halo: int, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(store, device)
        self.halo = halo
        self.edges = np.minimum(edge, self.grids.max(0))
        self.lookup = np.full(store.rows, -1, np.int32)
        for n, s in enumerate(store.subjects):
            numbers = np.arange(s.first_sample, s.first_sample + s.samples)
            self.lookup[s.first_row + store.voxels(n)] = numbers

    def count(self, size: int) -> int:
        """Return the number of batches of an epoch, of about ``size`` samples or one full tile."""
        # No tile holds more than its voxels, so there are at least as many tiles as batches.
        return -(-self.store.samples // max(size, int(self.edges.prod())))

    def batches(
        self, size: int, key: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Yield an epoch's batches from a step on; key None: unshifted, in order."""
        rng = None if key is None else np.random.default_rng(list(key))
        tiles = self._filled(rng)
        if rng is not None:
            rng.shuffle(tiles)
        count = self.count(size)
        for step in range(start, count):
            yield self.draw(tiles[step * len(tiles) // count : (step + 1) * len(tiles) // count])

    def _filled(self, rng: np.random.Generator | None) -> NDArray[np.int64]:
        """Return (subject, corner) of the tiles that hold samples (T, 4)."""
        found = []
        for n, grid in enumerate(self.grids):
            shift = np.zeros(3, np.int64)
            if rng is not None:
                shift = rng.integers(0, self.edges) * (grid > self.edges)
            voxels = np.stack(np.unravel_index(self.store.voxels(n), tuple(grid)), -1)
            corners = np.unique((voxels + shift) // self.edges, axis=0) * self.edges - shift
            found.append(np.insert(corners, 0, n, axis=1))
        return np.concatenate(found) if found else np.zeros((0, 4), np.int64)

    def draw(self, tiles: Array) -> Batch:
        """Return some tiles as a batch."""
        import torch

        wide = self.edges + 2 * self.halo
        inputs, where, samples, subjects = [], [], [], []
        for number, (subject, *corner) in enumerate(tiles):
            grid, first = self.grids[subject], self.first_rows[subject]
            at = [
                np.clip(np.arange(w) + c - self.halo, 0, n - 1)
                for w, c, n in zip(wide, corner, grid, strict=True)
            ]
            values = self.inputs.index_select(0, self.on_device(first + _flat(at, grid)))
            inputs.append(values.T.reshape(-1, *wide.tolist()))
            core = [np.arange(e) + c for e, c in zip(self.edges, corner, strict=True)]
            there = [(c >= 0) & (c < n) for c, n in zip(core, grid, strict=True)]
            inside = np.ix_(*[np.flatnonzero(t) for t in there])
            known = np.full(self.edges, -1, np.int64)
            rows = _flat([c[t] for c, t in zip(core, there, strict=True)], grid)
            known[inside] = self.lookup[first + rows].reshape(known[inside].shape)
            chosen = np.flatnonzero(known.reshape(-1) >= 0)
            where.append(chosen + number * known.size)
            samples.append(known.reshape(-1)[chosen])
            subjects.append(np.full(len(chosen), subject))
        numbers = np.concatenate(samples)
        targets = self.targets.index_select(0, self.on_device(numbers))
        kept = (
            torch.stack(inputs),
            self.on_device(np.concatenate(where)),
            targets,
            self.on_device(np.concatenate(subjects)),
            self.designs,
            self.shares,
        )
        return Batch(kept, float(len(numbers)))


def _flat(at: Sequence[Array], grid: Array) -> NDArray[np.int64]:
    """Return the flat indices of a block of voxels, given by its indices along each axis."""
    x, y, z = at
    return np.asarray(((x[:, None] * grid[1] + y)[..., None] * grid[2] + z).reshape(-1), np.int64)
