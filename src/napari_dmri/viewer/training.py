"""What the Train dock runs, without any window: a model of some pairs, its file, its state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.training.parts import Switch
from napari_dmri.training.state import drop_state

__all__ = ["TrainOptions", "forecast", "in_words", "make_model", "train_model"]


@dataclass(frozen=True)
class TrainOptions:
    """What the dock is set to; mode, blocks and what follows are of networks only.

    ``epochs`` are those of the second stage, at most; the validation loss may end it earlier.
    ``energy`` is the weight of order 2's energy in the loss; None takes the method's own.
    """

    method: str = "shresnet"
    order: int | None = None
    smooth: float = 0.006
    mode: str = "paper"
    blocks: int = 2
    epochs: int = 100
    seed: int = 0
    energy: float | None = None
    registration: str = "rigid"
    device: str = "auto"

    @property
    def network(self) -> bool:
        """Whether the method trains a network, with curves and a state to go on from."""
        return self.method != "linear-rish"


SOONEST = 11
"""Epochs of the second stage at the least, where none of the last 10 was better."""

FILLED = 0.6
"""Share of the voxels of tiles that are learned from."""


def forecast(
    options: TrainOptions, voxels: Sequence[int], order: int = 4, threads: int = 1
) -> tuple[float, float]:
    """Forecast the seconds that a training takes on a CPU: at the least, and at the most.

    Parameters
    ----------
    options
        What is trained.
    voxels
        Voxels of each pair's mask.
    order
        The SH order that ``options`` leave open.
    threads
        Threads that compute.
    """
    pairs, total = len(voxels), sum(voxels)
    if not options.network:
        seconds = 2e-4 * total
        return seconds, 2 * seconds
    learned = total - voxels[-1] if pairs > 2 else 0.85 * total
    level = order if options.order is None else options.order
    wide = (level + 1) * (level + 2) / 2 / 15
    # Measured microseconds a voxel of a training step, on one core.
    n = options.blocks
    if options.method == "golkov":
        cost = 12.0
    elif options.mode == "paper":
        cost = (14 + 55 * n) * wide
    else:
        cost = ((19 + 3 * n) / 16) ** 3 * (2.4 + 2.6 * n) * wide / FILLED
    epoch = 0.85 * learned * cost * 1e-6 / max(1, threads) ** 0.8
    before = 2 + 3e-5 * total
    soonest = 5 + min(options.epochs, SOONEST)
    return before + soonest * epoch, before + (5 + options.epochs) * epoch


def in_words(seconds: float) -> str:
    """Return a time in words, as exact as a forecast can be."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5) if seconds >= 5 else max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def make_model(options: TrainOptions) -> Any:
    """Make an untrained model; networks are imported now."""
    from napari_dmri.harmonize import METHODS

    shared = {"order": options.order, "smooth": options.smooth}
    method = METHODS[options.method]
    if not options.network:
        return method.make(**shared)
    from napari_dmri.harmonize.learned import PAPER_STAGES

    first, second = PAPER_STAGES
    stages = (first, replace(second, epochs=options.epochs))
    own: dict[str, Any] = {"energy": options.energy, "registration": options.registration}
    if options.method == "shresnet":
        own |= {"mode": options.mode, "blocks": options.blocks}
    return method.make(**shared, seed=options.seed, stages=stages, **own)


def train_model(
    pairs: Sequence[Any],
    options: TrainOptions,
    state: Path,
    target: Path | None,
    switch: Switch,
    progress: Any = None,
    preview: Callable[[Any], None] | None = None,
    preview_at: Callable[[], tuple[int, float] | None] | None = None,
) -> tuple[Path | None, Any]:
    """Train on pairs, save the model where a file is named, and return both.

    ``preview`` is called with what training tells: events for the curves, and pictures of a slice,
    the one that ``preview_at`` names.
    A state that is at ``state`` is gone on from; it goes once the model is there. A model that
    cannot be saved is returned without a file, with a warning.
    """
    model = make_model(options)
    if options.network:
        model.fit(
            pairs,
            device=options.device,
            progress=progress,
            on_event=preview,
            on_preview=preview,
            preview_at=preview_at,
            switch=switch,
            state=state,
        )
    else:
        model.fit(pairs, device=options.device, progress=progress)
    if target is not None:
        try:
            model.save(target)
        except (InputError, OSError) as error:
            # The work is not lost: the dock offers the model, and its state goes once it is saved.
            warnings.warn(f"The model is trained and not saved: {error}", DmriWarning, stacklevel=2)
            return None, model
    drop_state(state)
    return target, model
