r"""The plan of a training: stages of an optimizer, and the rule by which a stage ends.

A stage that watches the validation loss lowers its learning rate and stops by one count, the
epochs since the best loss so far:

.. math:: \eta \leftarrow f\,\eta \;\text{ each } p \text{ epochs}, \qquad
          \text{stop at } s \text{ epochs}.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["LOWER", "Patience", "Stage", "make_optimizer"]

LOWER = 1 / 3
"""What a learning rate is multiplied by where a training has to begin again."""

OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Stage:
    """Plan one stage of a training.

    Parameters
    ----------
    optimizer
        ``"adam"`` or ``"sgd"``.
    lr
        Learning rate at its beginning.
    batch
        Samples in a batch.
    epochs
        Epochs at most.
    momentum
        Of SGD.
    factor, patience
        The learning rate is multiplied by the factor after each so many epochs without a better
        validation loss; a factor of 1 leaves it.
    stop
        The stage ends after so many epochs without a better validation loss; None never.
    decay
        Weight decay.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    batch: int = 256
    epochs: int = 5
    momentum: float = 0.0
    factor: float = 1.0
    patience: int = 5
    stop: int | None = None
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"Unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}."
            )
        wrong = [
            f"{name}={value}"
            for name, value, good in (
                ("lr", self.lr, 0 < self.lr < math.inf),
                ("batch", self.batch, self.batch >= 1),
                ("epochs", self.epochs, self.epochs >= 1),
                ("momentum", self.momentum, 0 <= self.momentum < 1),
                ("factor", self.factor, 0 < self.factor <= 1),
                ("patience", self.patience, self.patience >= 1),
                ("stop", self.stop, self.stop is None or self.stop >= 1),
                ("decay", self.decay, self.decay >= 0),
            )
            if not good
        ]
        if wrong:
            raise InputError(
                f"A training stage has {', '.join(wrong)}; lr is above 0, batch, epochs, patience "
                "and stop at least 1, momentum in [0, 1), factor in (0, 1], decay 0 or more."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return what was set, as JSON can hold it."""
        return asdict(self)


@dataclass
class Patience:
    """Count epochs since the best validation loss.

    Parameters
    ----------
    stage
        Whose rule holds.
    best
        The best loss so far, of earlier stages too.
    waited
        Epochs since then, within the stage.
    """

    stage: Stage
    best: float = math.inf
    waited: int = 0

    def update(self, loss: float) -> tuple[bool, bool, bool]:
        """Take an epoch's validation loss.

        Returns
        -------
        Whether it is the best so far, whether to lower the learning rate, whether to stop. A loss
        that is not finite is never better.
        """
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True, False, False
        self.waited += 1
        stop = self.stage.stop is not None and self.waited >= self.stage.stop
        lower = self.stage.factor < 1 and self.waited % self.stage.patience == 0
        return False, lower and not stop, stop


def make_optimizer(stage: Stage, model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return the stage's optimizer of what a model trains, at a learning rate."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    if stage.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=stage.decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=stage.momentum, weight_decay=stage.decay)
