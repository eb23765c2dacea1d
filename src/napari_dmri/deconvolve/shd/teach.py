"""Teach a network by known fODFs first, then let it explain signals without them.

Learning without truth prefers blurred fODFs: they explain a noisy signal nearly as well as sharp
ones, and what tells them apart is small beside the noise of a step. A network that has seen true
fODFs of simulated subjects begins on the sharp side, and the unsupervised loss then sets amounts
right without blurring it again. What it knows is of simulations, which its card says
(``known_fods``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.shd.amortise import train_model
from napari_dmri.deconvolve.shd.running import read_settings
from napari_dmri.progress import Progress, part
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.subjects import LazySubject, Subject

__all__ = ["TUNED", "teach_model"]

TUNED = 0.3
"""Share of the steps that go without known fODFs, after the others."""


def teach_model(
    subjects: Sequence[Subject | LazySubject],
    method: str = "shd-s-tv",
    *,
    steps: int,
    state: str | Path | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> ShdModel:
    """Train a network on known fODFs, and then without them.

    Parameters
    ----------
    subjects, method
        As for `train_model`; all subjects have a ``target``.
    steps
        Of both parts together; the second takes `TUNED` of them, at a lower rate.
    state
        A file to keep the state in; the model of the first part is kept beside it until the second
        is done, so that an interrupted training goes on in either.
    progress
        Who is told.
    given
        What else `train_model` takes.

    Raises
    ------
    InputError
        As `train_model`, and if a subject has no known fODFs.
    """
    from napari_dmri.deconvolve.shd.model import ShdModel

    later = max(1, round(TUNED * steps))
    taught = None if state is None else Path(state).with_suffix(".taught.safetensors")
    if taught is not None and taught.is_file():
        first = ShdModel.load(taught)
    else:
        first = train_model(
            subjects,
            method,
            supervised=1.0,
            steps=max(1, steps - later),
            state=state,
            progress=part(progress, 0, 1 - TUNED, "known fODFs: "),
            **given,
        )
        if taught is not None:
            first.save(taught)
    if state is not None and (read_settings(state) or {}).get("start") != first.sha256:
        drop_state(state)
    made = train_model(
        subjects,
        method,
        start=first,
        supervised=0.0,
        steps=later,
        state=state,
        progress=part(progress, 1 - TUNED, 1, "signals alone: "),
        **given,
    )
    if taught is not None:
        drop_state(taught)
    return made
