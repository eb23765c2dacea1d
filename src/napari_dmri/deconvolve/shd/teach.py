"""Teach a network by known fODFs first, then let it explain signals without them.

Learning without truth prefers blurred fODFs: they explain a noisy signal nearly as well as sharp
ones, and what tells them apart is small beside the noise of a step. A network that has seen true
fODFs of simulated subjects begins on the sharp side, and the unsupervised loss then sets amounts
right without blurring it again. What it knows is of simulations, which its card says
(``known_fods``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.shd.amortise import train_model
from napari_dmri.deconvolve.shd.running import choose_preset, read_settings
from napari_dmri.deconvolve.shd.subjects import LazySubject, Subject
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.deconvolve.shd.model import ShdModel

__all__ = ["KEPT", "TUNED", "require_known", "taught_beside", "teach_model"]

TUNED = 0.3
"""Share of the steps that go without known fODFs, after the others."""

KEPT = ("losses", "plan", "outcome", "curves")
"""What a taught model's card keeps of the first part."""

ASKED = ("size", "mode", "others", "bvalues", "rule", "weights", "seed")
"""Settings of `train_model` that must be the same to go on from the first part's model."""


def teach_model(
    subjects: Sequence[Subject | LazySubject],
    method: str = "shd-s-tv",
    *,
    steps: int | None = None,
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
        Of both parts together; the second takes `TUNED` of them, at a lower rate. None follows the
        preset's plan.
    state
        A file to keep the state in; the model of the first part is kept beside it until the second
        is done (`taught_beside`), so that an interrupted training goes on in either.
    progress
        Who is told.
    given
        What else `train_model` takes; not ``start`` and ``supervised``, which are settled here.

    Returns
    -------
    The model. Its card says how the first part went under ``"taught"``.

    Raises
    ------
    InputError
        As `train_model`, if a subject has no known fODFs, or if what is kept beside the state is of
        a training with other settings.
    """
    from napari_dmri.deconvolve.shd.model import ShdModel

    require_known(subjects, given.get("validation"))
    if steps is None:
        steps = _planned(method, given)
    later = max(1, round(TUNED * steps))
    taught = None if state is None else taught_beside(state)
    asked = {"method": method, "steps": steps, "subjects": [s.subject for s in subjects]}
    asked |= {name: given.get(name) for name in ASKED}
    if taught is not None and taught.is_file():
        first = ShdModel.load(taught)
        _require_same(taught, first.card.get("asked"), asked)
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
            first.card["asked"] = asked
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
    made.card["taught"] = {
        "steps": first.card["outcome"]["steps"],
        **{name: first.card[name] for name in KEPT},
    }
    if taught is not None:
        drop_state(taught)
    return made


def taught_beside(state: str | Path) -> Path:
    """Name the file that keeps the first part's model, beside a state."""
    return Path(state).with_suffix(".taught.safetensors")


def require_known(
    subjects: Sequence[Subject | LazySubject],
    validation: Sequence[Subject | LazySubject] | None = None,
) -> None:
    """Refuse subjects without known fODFs, before any work.

    Raises
    ------
    InputError
        If a subject has none, by name.
    """
    every = [*subjects, *(validation or ())]
    bare = [
        one.subject
        for one in every
        if (one.fod if isinstance(one, LazySubject) else one.target) is None
    ]
    if bare:
        named = ", ".join(bare[:6]) + (", ..." if len(bare) > 6 else "")
        raise InputError(
            f"{len(every) - len(bare)} of {len(every)} subjects have known fODFs, and teaching "
            f"begins with them; {named} have none. Name an SH image on the scan's grid for each "
            "(in a list of subjects the column fod), leave these subjects out, or train without "
            "teaching."
        )


def _planned(method: str, given: Mapping[str, Any]) -> int:
    """Return the steps of the preset that `train_model` would choose."""
    from napari_dmri.device import choose_device

    where = choose_device(given.get("device", "auto")).name
    mode, weights = given.get("mode"), given.get("weights")
    _, chosen = choose_preset(method, given.get("size"), None, where, mode, weights)
    return chosen.plan.total_steps


def _require_same(file: Path, then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuse the first part's model of a training with other settings."""
    from napari_dmri.io.atomic import to_json

    if then is None:  # of a version that did not write it
        return
    plain = json.loads(to_json(now))
    other = [name for name, value in plain.items() if then.get(name) != value]
    if other:
        said = "; ".join(f"{name}: {then.get(name)} then, {plain[name]} now" for name in other)
        raise InputError(
            f"{file.name} is of a training with other settings ({said}); go on with the same "
            "settings and subjects, or delete it to begin anew."
        )
