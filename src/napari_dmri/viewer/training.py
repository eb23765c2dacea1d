"""What the Train dock runs, without any window: a model of some pairs, its file, its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_dmri.training.parts import Switch

__all__ = ["TrainOptions", "drop_state", "make_model", "train_model"]


@dataclass(frozen=True)
class TrainOptions:
    """What the dock is set to; mode, blocks, epochs and seed are of networks only.

    ``epochs`` are those of the second stage, at most; the validation loss may end it earlier.
    """

    method: str = "shresnet"
    order: int | None = None
    smooth: float = 0.006
    mode: str = "paper"
    blocks: int = 2
    epochs: int = 100
    seed: int = 0
    device: str = "auto"

    @property
    def network(self) -> bool:
        """Whether the method trains a network, with curves and a state to go on from."""
        return self.method != "linear-rish"


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
    own = {"mode": options.mode, "blocks": options.blocks} if options.method == "shresnet" else {}
    return method.make(**shared, seed=options.seed, stages=stages, **own)


def train_model(
    pairs: Sequence[Any],
    options: TrainOptions,
    state: Path,
    target: Path | None,
    switch: Switch,
    progress: Any = None,
    preview: Callable[[Any], None] | None = None,
) -> tuple[Path | None, Any]:
    """Train on pairs, save the model where a file is named, and return both.

    ``preview`` is called with what training tells: events for the curves, and pictures of a slice.
    A state that is at ``state`` is gone on from; it goes once the model is there.
    """
    model = make_model(options)
    if options.network:
        model.fit(
            pairs,
            device=options.device,
            progress=progress,
            on_event=preview,
            on_preview=preview,
            switch=switch,
            state=state,
        )
    else:
        model.fit(pairs, device=options.device, progress=progress)
    if target is not None:
        model.save(target)
    drop_state(state)
    return target, model


def drop_state(state: Path) -> None:
    """Delete a training's state and the card beside it."""
    for path in (state, state.with_suffix(".json")):
        path.unlink(missing_ok=True)
