"""The plan of a training: epochs, their steps, and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from napari_dmri.errors import InputError
from napari_dmri.training.stages import Stage

__all__ = ["EPOCH", "LOOK", "TUNING", "Plan"]

EPOCH = 16
"""Steps of an epoch at least where time is short, for every epoch ends with a look at places that
choose the best one."""

LOOK = 5.0
"""Steps in whose time that look is had (see `fit.TESTS`: batches four times as large, forward)."""

TUNING = 0.2
"""Share of a plan's steps, and of its learning rate, when a fit begins from a trained model."""


@dataclass(frozen=True)
class Plan:
    """Plan a training with Adam.

    Parameters
    ----------
    lr
        Learning rate at the beginning.
    batch
        Patches in a batch.
    epochs, steps
        Epochs, and batches of each at most.
    drops
        Epochs after which the learning rate is multiplied by ``factor``.
    factor
        Of each drop.

    Raises
    ------
    InputError
        If a value is out of range or the drops are not ascending epochs.
    """

    lr: float = 1.7e-3
    batch: int = 16
    epochs: int = 50
    steps: int = 900
    drops: tuple[int, ...] = (30, 40, 45)
    factor: float = 0.1

    def __post_init__(self) -> None:
        edges = [0, *self.drops, self.epochs]
        whole = all(isinstance(n, int) and n >= 1 for n in (self.batch, self.epochs, self.steps))
        ascending = all(a < b for a, b in pairwise(edges))
        if not whole or not ascending or not 0 < self.lr < math.inf or not 0 < self.factor <= 1:
            raise InputError(
                f"A plan of {self.epochs} epochs of {self.steps} steps of {self.batch} patches at "
                f"lr {self.lr:g}, times {self.factor:g} after epochs {self.drops}; expected whole "
                "numbers from 1, ascending drops before the last epoch, lr above 0 and a factor in "
                "(0, 1]."
            )

    @property
    def total_steps(self) -> int:
        """Steps of the whole training at most."""
        return self.epochs * self.steps

    @property
    def cost(self) -> float:
        """Steps that would take as long as the whole training, looks after epochs included."""
        return self.total_steps + LOOK * self.epochs

    def within(self, cost: float) -> Plan:
        """Return the longest plan of such a `cost`, of this one's steps at most."""
        # Long plans have all epochs, short ones as many as `EPOCH` allows.
        steps = max(cost - LOOK * self.epochs, cost / (1 + LOOK / EPOCH))
        return self.shortened(max(1, min(self.total_steps, int(steps))), EPOCH)

    def stages(self) -> list[Stage]:
        """Return a stage for each learning rate, for `training.loop`."""
        edges = [0, *self.drops, self.epochs]
        return [
            Stage("adam", self.lr * self.factor**i, self.batch, end - start)
            for i, (start, end) in enumerate(pairwise(edges))
        ]

    def shortened(self, steps: int, least: int = 1) -> Plan:
        """Return the plan with so many steps in all, its drops at the same parts of it.

        Epochs become fewer where they would have less than ``least`` steps, or so that whole ones
        come closest from below.
        """
        if steps < 1:
            raise InputError(f"A training of {steps} steps; give 1 or more.")
        epochs = min(self.epochs, max(1, steps // least))
        each = -(-steps // epochs)
        epochs = max(1, steps // each)
        share = epochs / self.epochs
        drops = sorted({round(d * share) for d in self.drops} - {0, epochs})
        return replace(
            self,
            epochs=epochs,
            steps=each,
            drops=tuple(d for d in drops if d < epochs),
        )

    def tuned(self) -> Plan:
        """Return the part of the plan that a fit from a trained model takes."""
        return self.shortened(round(TUNING * self.total_steps))

    def as_dict(self) -> dict[str, Any]:
        """Return what was set, as JSON can hold it."""
        return {**asdict(self), "drops": list(self.drops)}
