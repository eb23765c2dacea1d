"""Where a training is, and the state on disk from which it goes on (see `state`)."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import DmriWarning
from napari_dmri.training.state import (
    all_finite,
    read_state,
    restore_random,
    weights,
    write_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

__all__ = ["Position"]

NUMBERS = (
    *("stage", "epoch", "step", "total_steps", "best_epoch", "waited"),
    *("sum", "weight", "lr", "seconds", "tried", "notes"),
)
"""What the state's card holds by name."""


class Position:
    """Hold where a training is: its place and running sums, curves, best weights, notes.

    Parameters
    ----------
    model, device
        What is trained, and where.
    path
        The state's file, or None.
    settings
        What must be the same to go on from it.
    lr
        Learning rate at the beginning.
    memory
        What a listener keeps there.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        path: Path | None,
        settings: Mapping[str, Any],
        lr: float,
        memory: dict[str, Any],
    ) -> None:
        self.model, self.device, self.path, self.settings = model, device, path, settings
        self.stage = self.epoch = self.step = self.total_steps = 0
        self.curves: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_loss, self.best_epoch, self.waited = float("inf"), 0, 0
        self.sum = self.weight = self.seconds = 0.0
        self.lr, self.tried, self.memory = lr, 0, memory
        self.notes: list[str] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.done = False
        self.written = time.monotonic()

    @property
    def closed(self) -> int:
        """Epochs that have a place on the curves, through all stages."""
        return sum(1 for entry in self.curves if entry["epoch"])

    def keep(self) -> None:
        """Take the weights as the best so far."""
        self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def rewind(self) -> None:
        """Go back to the best weights and to the beginning of the epoch."""
        self.model.load_state_dict(self.best)
        self.step, self.sum, self.weight, self.waited = 0, 0.0, 0.0, 0
        self.optimizer = None

    def finite(self) -> bool:
        """Tell whether all weights are numbers."""
        return all_finite(self.model.state_dict().values())

    def write(self) -> None:
        """Write the state, where one is kept and there is something to keep."""
        self.written = time.monotonic()
        if self.path is None or not self.best:  # before the first validation nothing is lost
            return
        # Whoever went on from a broken state would get nowhere: the one before it stays.
        if not (math.isfinite(self.sum) and self.finite()):
            return
        card = {name: getattr(self, name) for name in (*NUMBERS, "curves", "memory", "done")}
        write_state(
            self.path,
            self.model,
            self.best,
            self.optimizer,
            {**card, "best_loss": repr(self.best_loss), "settings": self.settings},
        )

    def restore(self) -> dict[str, Any]:
        """Take up a state; return what the optimizer needs."""
        assert self.path is not None
        tensors, card = read_state(self.path, self.settings)
        for name in NUMBERS:  # states of earlier versions know of no notes
            setattr(self, name, card.get(name, getattr(self, name)))
        self.best_loss, self.done = float(card["best_loss"]), bool(card["done"])
        self.curves = list(card["curves"])
        self.memory.update(card.get("memory", {}))
        self.model.load_state_dict(weights(tensors, "model/"))
        self.model.to(self.device)
        self.best = {k: v.to(self.device) for k, v in weights(tensors, "best/").items()}
        restore_random(tensors)
        for words in self.notes:
            warnings.warn(words, DmriWarning, stacklevel=2)
        held = {k: v for k, v in tensors.items() if k.startswith("optimizer/")}
        return {"tensors": held, "scalars": card["scalars"]}
