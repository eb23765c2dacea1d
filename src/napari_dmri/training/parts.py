"""What a training loop takes and tells: batches, a loss, live events, a switch, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Batches", "Diverged", "Event", "Fit", "Loss", "Switch"]


class Diverged(InputError):
    """Say that a training's loss or weights are not finite any more, and what to do.

    Parameters
    ----------
    words
        What was found, and what to do.
    found
        What was found alone, as a sentence; None where the words are no more than that.
    """

    # One argument is enough, as a process that hands an error to another gives no more.
    def __init__(self, words: str, found: str | None = None) -> None:
        super().__init__(words)
        self.found = words if found is None else found


@dataclass(frozen=True)
class Batch:
    """Hold a batch: its tensors, and how much it weighs in a mean over batches."""

    tensors: tuple[torch.Tensor, ...]
    weight: float

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        moved = tuple(t.to(device, non_blocking=True) for t in self.tensors)
        return Batch(moved, self.weight)


class Batches(Protocol):
    """Give the batches of an epoch, the same ones for the same key."""

    def count(self, size: int) -> int:
        """Return the number of batches of so many samples in an epoch."""
        ...

    def batches(
        self, size: int, key: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Yield an epoch's batches from a step on; key None: in a fixed order (validation)."""
        ...


Loss = Callable[["torch.nn.Module", "tuple[torch.Tensor, ...]"], "torch.Tensor"]
"""Takes the model and a batch's tensors, returns the mean over what the batch's weight counts."""


@dataclass(frozen=True)
class Event:
    """Tell where a training is, for live curves.

    ``kind`` is ``"start"`` (validation before the first step), ``"step"``, ``"pause"`` (now and
    then while it waits between two steps), ``"epoch"``, ``"again"`` (the epoch begins again from
    the best weights; ``words`` say why) or ``"done"``; ``train`` is the mean loss of the epoch so
    far, ``validation`` and ``metrics`` are of an epoch's end; epochs count through all stages, from
    1.
    """

    kind: str
    stage: int
    epoch: int
    step: int
    steps: int
    train: float | None = None
    validation: float | None = None
    lr: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    words: str = ""


@dataclass
class Switch:
    """Steer a running training from another thread.

    While ``paused`` it waits between steps; with ``finish`` it ends at the next step and keeps the
    best weights so far.
    """

    paused: bool = False
    finish: bool = False


@dataclass(frozen=True)
class Fit:
    """Say what a training came to: its curves, best epoch and loss, steps and seconds.

    ``notes`` say what went wrong on the way.
    """

    curves: tuple[dict[str, Any], ...]
    best_epoch: int
    best_loss: float
    steps: int
    seconds: float
    finished_early: bool = False
    notes: tuple[str, ...] = ()
