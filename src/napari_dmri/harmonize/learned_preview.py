r"""One slice of a training: source, the network's prediction, and what the target measured.

What is shown is the mean of S/b0 over the target's directions, in the voxels that are learned from;
with it goes the root mean square error of all directions in the slice,

.. math:: e = \sqrt{\operatorname{mean}_{v, k} (B_k c_v - S_{vk} / \bar S_{0v})^2} .
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.harmonize import networks

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_dmri.training.parts import Event
    from napari_dmri.training.store import Store

__all__ = ["Preview", "Slice", "previewing"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Preview:
    """Hold one axial slice after an epoch: mean S/b0 (X, Y), NaN where nothing is learned from.

    ``errors`` are the root mean square errors of S/b0 of the source and of the prediction.
    """

    source: NDArray[np.float32]
    prediction: NDArray[np.float32]
    target: NDArray[np.float32]
    errors: tuple[float, float]
    subject: str
    index: int
    epoch: int


class Slice:
    """Keep the axial slice of a store's first subject that has most voxels to learn from."""

    def __init__(self, store: Store) -> None:
        held = store.subjects[0]
        where = np.zeros(held.grid, bool)
        where.flat[store.voxels(0)] = True
        self.subject, self.volume = held.label, store.volume(0)
        self.index = int(where.sum((0, 1)).argmax())
        self.inside = where[:, :, self.index]
        # Samples are in the order of the flat indices; these are the rows of the slice.
        rows = np.flatnonzero(store.voxels(0) % held.grid[2] == self.index)
        used = held.design.any(1)
        self.design = held.design[used]
        samples = store.targets()[held.first_sample :]
        self.target = samples[rows].numpy()[:, used]

    def predict(self, network: torch.nn.Module, epoch: int, device: str = "auto") -> Preview:
        """Show what a network makes of the slice now; the network is left as it is."""
        reach = networks.halo(network)
        first = max(0, self.index - reach)
        slab = np.array(self.volume[:, :, first : self.index + reach + 1])
        made = networks.predict(copy.deepcopy(network).eval(), slab, device=device)
        place = self.index - first
        signals = [a[:, :, place][self.inside] @ self.design.T for a in (slab, made)]
        errors = [float(np.sqrt(((s - self.target) ** 2).mean())) for s in signals]
        maps = [self._paint(s.mean(1)) for s in (*signals, self.target)]
        return Preview(
            maps[0], maps[1], maps[2], (errors[0], errors[1]), self.subject, self.index, epoch
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
) -> Callable[[Event], None]:
    """Return a listener that passes events on, and shows the slice at the start and each epoch."""
    shown = Slice(store)

    def listen(event: Event) -> None:
        if tell is not None:
            tell(event)
        if event.kind in ("start", "epoch"):
            show(shown.predict(network, event.epoch, device))

    return listen
