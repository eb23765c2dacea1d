"""What is said of a training whose numbers are not finite any more, and what to do then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.training.parts import Diverged

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CHECK", "begins_again", "diverged", "given_up"]

CHECK = 100
"""Steps between two looks at whether the loss is finite; each look waits for the device."""


def diverged(what: str, lr: float) -> Diverged:
    """Return the error that says what was found at a learning rate."""
    return Diverged(
        f"{what}; lower the learning rate ({lr:g}) or check the scans for extremes.", f"{what}."
    )


def begins_again(error: Diverged, epoch: int, lr: float) -> str:
    """Say that a training begins again from the best epoch's weights at a lower learning rate."""
    return (
        f"{error.found} It begins again from the best weights so far (epoch {epoch}), at a "
        f"learning rate of {lr:.2g}."
    )


def given_up(
    error: Diverged, tried: int, lr: float, epoch: int, loss: float, state: Path | None
) -> Diverged:
    """Return the error that says that beginning again did not help, and what is left.

    Parameters
    ----------
    error
        What was found last.
    tried, lr
        How often it began again, and the learning rate of the last time.
    epoch, loss
        Of the best weights; epoch 0 is before the first step, when there is nothing worth keeping.
    state
        The file that keeps the best weights; None where none does.
    """
    often = "once" if tried == 1 else f"{tried} times"
    found = f"{error.found} It had begun again {often}, the last at a learning rate of {lr:.2g}."
    remedy = "lower the learning rate, and check the scans and masks for extremes."
    if not epoch:
        return Diverged(f"{found} No epoch was better than none: {remedy}", found)
    found = f"{found} The best weights before are those of epoch {epoch} (loss {loss:.4g})."
    if state is None:
        return Diverged(f"{found} No state was asked for that keeps them: {remedy}", found)
    words = (
        f"{found} {state.name} keeps them, and the same training ends with them when it goes on "
        f"from there. To train anew, delete it, {remedy}"
    )
    return Diverged(words, found)
