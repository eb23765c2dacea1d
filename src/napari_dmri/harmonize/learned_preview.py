r"""One slice of a training: source, the network's prediction, and what the target measured.

What is shown is the mean of S/b0 over the target's directions, in the voxels that are learned from;
with it goes the root mean square error of all directions in the slice,

.. math:: e = \sqrt{\operatorname{mean}_{v, k} (B_k c_v - S_{vk} / \bar S_{0v})^2} .
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.harmonize import networks

if TYPE_CHECKING:
    import torch

    from napari_dmri.training.parts import Event
    from napari_dmri.training.store import Store

__all__ = ["Place", "Preview", "Slices", "previewing"]

Array = NDArray[Any]

Place = Callable[[], "tuple[int, float] | None"]
"""Says which slice is wanted: its axis (0 sagittal, 1 coronal, 2 axial) and its place along it in
millimetres, of a volume that is shown unrotated about its true centre; None leaves the choice."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Hold one slice during or after an epoch: mean S/b0, NaN where nothing is learned from.

    Pictures are (X, Y), (X, Z) or (Y, Z) for ``axis`` 2, 1 or 0; ``spacing`` is their voxels' in
    millimetres. ``errors`` are the root mean square errors of S/b0 of the source and of the
    prediction. ``whole`` says whether the epoch had ended.
    """

    source: NDArray[np.float32]
    prediction: NDArray[np.float32]
    target: NDArray[np.float32]
    errors: tuple[float, float]
    subject: str
    index: int
    epoch: int
    axis: int = 2
    spacing: tuple[float, float] = (1.0, 1.0)
    whole: bool = True


class Slices:
    """Keep a slice of a store's first subject: one that is asked for, or the fullest axial one.

    Parameters
    ----------
    store
        The store; its first subject is shown.
    affine
        That subject's affine (4, 4), which places in millimetres are of; None: voxels of 1 mm.
    """

    def __init__(self, store: Store, affine: Array | None = None) -> None:
        held = store.subjects[0]
        self.subject, self.volume = held.label, store.volume(0)
        self.affine = np.eye(4) if affine is None else np.asarray(affine, float)
        self.size = np.linalg.norm(self.affine[:3, :3], axis=0)
        self.grid = np.array(held.grid)
        # Samples are in the order of the flat indices.
        self.places = np.stack(np.unravel_index(store.voxels(0), held.grid))
        used = held.design.any(1)
        self.design = held.design[used]
        self._samples, self._used = store.targets()[held.first_sample :], used
        self.axis, self.index = 2, int(np.bincount(self.places[2]).argmax())
        self._take()

    def move(self, wanted: tuple[int, float] | None) -> bool:
        """Go to the slice nearest to the wanted one that is learned from; tell if it is another."""
        if wanted is None:
            return False
        axis, place = wanted
        centre = (self.grid - 1) / 2
        middle = (self.affine @ np.append(centre, 1))[axis]
        index = (place - middle) / self.size[axis] + centre[axis]
        there = np.unique(self.places[axis])
        nearest = int(there[np.abs(there - index).argmin()])
        if (axis, nearest) == (self.axis, self.index):
            return False
        self.axis, self.index = axis, nearest
        self._take()
        return True

    def _take(self) -> None:
        rows = np.flatnonzero(self.places[self.axis] == self.index)
        self._kept = [k for k in range(3) if k != self.axis]
        self.inside = np.zeros(self.grid[self._kept], bool)
        self.inside[tuple(self.places[self._kept][:, rows])] = True
        self.target = self._samples[rows].numpy()[:, self._used]

    def predict(
        self, network: torch.nn.Module, epoch: int, device: str = "auto", whole: bool = True
    ) -> Preview:
        """Show what a network makes of the slice now; the network is left as it is."""
        reach = networks.halo(network)
        first = max(0, self.index - reach)
        cut: list[slice] = [slice(None)] * 3
        cut[self.axis] = slice(first, self.index + reach + 1)
        slab = np.array(self.volume[tuple(cut)])
        made = networks.predict(copy.deepcopy(network).eval(), slab, device=device)
        place = self.index - first
        signals = [
            np.take(a, place, axis=self.axis)[self.inside] @ self.design.T for a in (slab, made)
        ]
        errors = [float(np.sqrt(((s - self.target) ** 2).mean())) for s in signals]
        maps = [self._paint(s.mean(1)) for s in (*signals, self.target)]
        across, up = (float(n) for n in self.size[self._kept])
        return Preview(
            maps[0],
            maps[1],
            maps[2],
            (errors[0], errors[1]),
            self.subject,
            self.index,
            epoch,
            self.axis,
            (across, up),
            whole,
        )

    def _paint(self, values: Array) -> NDArray[np.float32]:
        picture = np.full(self.inside.shape, np.nan, np.float32)
        picture[self.inside] = values
        return picture


def previewing(
    store: Store,
    network: torch.nn.Module,
    device: str,
    show: Callable[[Preview], None],
    tell: Callable[[Event], None] | None,
    *,
    affine: Array | None = None,
    at: Place | None = None,
) -> Callable[[Event], None]:
    """Return a listener that passes events on, and shows a slice.

    That is at the start, after each epoch, and within one when another slice is asked for.

    Parameters
    ----------
    store, affine
        Whose first subject is shown, and where it lies.
    network, device
        What is trained; where the slice is predicted.
    show, tell
        Who is shown the slice; who is told of events.
    at
        Asked which slice is wanted.
    """
    shown = Slices(store, affine)

    def listen(event: Event) -> None:
        if tell is not None:
            tell(event)
        moved = at is not None and shown.move(at())
        whole = event.kind in ("start", "epoch")
        if whole or (moved and event.kind in ("step", "pause")):
            show(shown.predict(network, event.epoch, device, whole))

    return listen
