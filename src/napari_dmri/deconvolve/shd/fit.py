"""Fit a network of the SHD family to one scan without supervision, and follow it while it learns.

The loss needs no truth (see `losses`): the fODFs must give the measured signal back. A fit shows a
slice as it is now, can be paused, stopped and gone on from its state on disk, and begins again at a
lower learning rate when it collapses (see `collapse`).
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.deconvolve.shd.forecast import Forecast, forecast_fit
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part, silent
from napari_dmri.training.parts import Diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.live import Preview
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.deconvolve.shd.presets import Plan, Preset
    from napari_dmri.images import Response
    from napari_dmri.scan import Scan
    from napari_dmri.training.parts import Fit, Switch

__all__ = ["Collapsed", "FitResult", "Forecast", "choose_others", "fit_to_scan", "forecast_fit"]

LOWER = 1 / 3
"""What a learning rate is multiplied by after a collapse."""

CLIP = 1.0
"""Largest norm of a gradient."""

TUNING = 0.2
"""Share of a plan's steps, and of its learning rate, when a fit begins from a trained model."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """Hold a fitted model and what it makes of the scan, the curves, and the learning rate."""

    model: ShdModel
    deconvolution: Deconvolution
    notes: tuple[str, ...]
    curves: tuple[dict[str, Any], ...]
    lr: float


def choose_others(bvalues: int, tissues: Sequence[str]) -> tuple[str, ...]:
    """Return the tissues besides white matter that some b-values tell apart.

    Grey matter and CSF from three b-values on, b0 counted; with two CSF, else grey matter.

    Examples
    --------
    >>> choose_others(2, ("wm", "gm", "csf")), choose_others(3, ("wm", "gm", "csf"))
    (('csf',), ('gm', 'csf'))
    """
    have = [t for t in ("csf", "gm") if t in tissues]
    kept = have[: max(0, bvalues - 1)]
    return tuple(t for t in ("gm", "csf") if t in kept)


def fit_to_scan(
    scan: Scan,
    responses: ResponseSet | Response,
    method: str = "shd-s-tv",
    *,
    others: Sequence[str] | None = None,
    size: str | None = None,
    mode: str | None = None,
    start: ShdModel | None = None,
    inputs: Sequence[int] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    state: str | Path | None = None,
    on_event: Callable[[Any], None] | None = None,
    on_preview: Callable[[Preview], None] | None = None,
    preview_slice: Callable[[], tuple[int, int] | None] | None = None,
    preview_every: float = 5.0,
    switch: Switch | None = None,
    progress: Progress | None = None,
    retries: int = 2,
) -> FitResult:
    """Fit a network to a scan and deconvolve it.

    Parameters
    ----------
    scan
        The scan; its mask says which voxels to learn from.
    responses
        White matter's response and those of the other tissues.
    method
        A name of `presets.PRESETS`.
    others
        Tissues besides white matter; None takes those that the shells tell apart.
    size
        ``"small"`` or ``"paper"``; None takes ``"paper"`` on a CUDA device and ``"small"`` else.
    mode
        ``"tiled"`` trains a method of the papers on larger patches (see `presets.preset`).
    start
        A trained model to begin from, whose architecture, tissues and shells are kept.
    inputs
        Volumes that the network sees, to learn from few directions to explain all; None for all.
    minutes, steps
        How long, or how many steps; None follows the preset's plan, a fifth of it with ``start``.
    seed
        Of weights and order of patches: the same seed gives the same weights.
    device
        Where it runs.
    state
        A file to keep the state in. A fit that was stopped goes on from it, and ends with the same
        weights on a CPU as one that was not.
    on_event
        Told of curves (`Event`), and in words (str) of a new beginning after a collapse.
    on_preview, preview_slice, preview_every
        Shown a slice as the network has it, every so many seconds; which one (axis, index).
    switch, progress
        Who may pause, or end it with the best so far; who is told and may raise `Cancelled`, after
        which the state stays.
    retries
        New beginnings after a collapse, each at a third of the learning rate.

    Raises
    ------
    InputError
        If the scan cannot be prepared (see `prepare`), or the state is of another fit.
    Collapsed
        If it collapsed each time.
    """
    from napari_dmri.deconvolve.shd.apply import as_deconvolution
    from napari_dmri.deconvolve.shd.card import make_card, training_entry
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.live import Live
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.predict import predict_network
    from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore, surround
    from napari_dmri.device import choose_device

    report = progress or silent
    where = choose_device(device)
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    size, chosen = choose_preset(method, size, start, where.name, mode)
    if others is None:
        count = len(scan.gradients.shells)
        others = start.others if start else choose_others(count, tuple(responses))
    _check_start(start, others)
    report(0.0, "preparing the scan")
    prepared = surround(
        prepare(
            scan,
            responses,
            others=tuple(others),
            bvalues=None if start is None else start.bvalues,
            input_order=chosen.architecture.input_order,
            degree=chosen.architecture.degree,
            inputs=inputs,
            progress=part(progress, 0.0, 0.02),
        )
    )
    others = prepared.others
    store = PatchStore(others)
    store.add(prepared, label=scan.name)
    held = None if state is None else read_settings(state)
    chosen = replace(
        chosen,
        plan=_plan(chosen, store, where.name, others, start, minutes, steps, held),
    )
    settings = {
        "method": method,
        "size": size,
        "others": list(others),
        "architecture": chosen.architecture.as_dict(),
        "losses": chosen.losses.as_dict(),
        "data": _hash(prepared),
        "start": "" if start is None else start.sha256,
    }
    batches = FodPatches(store.volumes, chosen.architecture.patch, chosen.plan.steps, where.torch())
    live = Live(chosen, prepared, where.name, on_event, on_preview, preview_slice, preview_every)
    outcome = train_with_retries(
        chosen,
        len(prepared.bvalues),
        len(others),
        batches,
        live,
        settings,
        start=None if start is None else start.network,
        seed=seed,
        device=where.name,
        state=state,
        attempt=0 if held is None else int(held.get("attempt", 0)),
        retries=retries,
        switch=switch,
        progress=part(progress, 0.02, 0.85),
    )
    chosen = replace(chosen, plan=replace(chosen.plan, lr=outcome.lr))
    found = predict_network(
        outcome.network,
        chosen.architecture,
        prepared,
        others,
        mode=chosen.mode,
        device=where.name,
        progress=part(progress, 0.85, 0.97),
    )
    notes = (*outcome.notes, *prepared.notes, *found.notes)
    card = make_card(
        chosen,
        others,
        prepared.bvalues,
        [training_entry(scan)],
        outcome.fit,
        seed=seed,
        device=where.name,
        trained_from="scan",
        start=str(settings["start"]),
        notes=notes,
    )
    model = ShdModel(chosen.architecture, others, prepared.bvalues, outcome.network, card)
    made = as_deconvolution(
        scan, responses, model, prepared, found, where.name, part(progress, 0.97, 1.0)
    )
    report(1.0, "fitted")
    return FitResult(model, made, notes, outcome.fit.curves, outcome.lr)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Hold what a training came to, after how many beginnings, and at which learning rate."""

    network: torch.nn.Module
    fit: Fit
    lr: float
    notes: tuple[str, ...]


def train_with_retries(
    preset: Preset,
    shells: int,
    others: int,
    batches: Any,
    live: Any,
    settings: dict[str, Any],
    *,
    start: torch.nn.Module | None,
    seed: int,
    device: str,
    state: str | Path | None,
    attempt: int,
    retries: int,
    switch: Switch | None,
    progress: Progress | None,
    validation: Any = None,
) -> Outcome:
    """Train a preset's network; begin again at a lower learning rate where it collapses.

    Parameters
    ----------
    preset
        The method, with the plan to follow.
    shells, others
        Shells that go in, b0 counted; tissues besides white matter.
    batches, validation
        What it learns from, and what chooses the best epoch.
    live
        Who listens (see `live.Live`).
    settings
        What must be the same to go on from a state.
    start
        A network to begin from; it is left as it is.
    attempt
        Collapses so far, as the state tells.

    Raises
    ------
    Collapsed
        If it collapsed each time.
    """
    import copy

    from napari_dmri.deconvolve.shd.compiled import compiled_loss
    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.training.loop import train

    notes: list[str] = []
    live.progress = progress or silent
    for number in range(attempt, max(attempt, retries) + 1):
        if start is None:
            network = build_network(preset.architecture, shells, others, seed=seed)
        else:
            network = copy.deepcopy(start).train()
        plan = replace(preset.plan, lr=preset.plan.lr * LOWER**number)
        parts = FodLoss(preset.losses, preset.architecture.degree)
        loss = compiled_loss(parts, network, device)
        live.begin(network, plan, batches, parts)
        try:
            fit = train(
                network,
                loss,
                batches,
                validation,
                plan.stages(),
                seed=seed,
                device=device,
                state=state,
                settings={**settings, "attempt": number, "plan": plan.as_dict()},
                clip=CLIP,
                on_event=live,
                switch=switch,
                progress=live.report,
            )
        except (Collapsed, Diverged) as error:
            if state is not None:
                drop_state(Path(state))
            if number >= retries:
                raise _given_up(error, plan, number) from error
            words = f"{error} It begins again at a learning rate of {plan.lr * LOWER:.2g}."
            notes.append(words)
            live.say(words)
            continue
        notes += loss.notes
        return Outcome(network, fit, plan.lr, tuple(notes))
    raise AssertionError("unreachable")


def _given_up(error: InputError, plan: Plan, number: int) -> InputError:
    words = str(error).rstrip(".")
    return Collapsed(
        f"{words}, also after {number + 1} beginnings, the last at a learning rate of "
        f"{plan.lr:.2g}. Check the responses (those of this scan?), the gradient directions and "
        "the mask; or use a trained model instead of fitting one."
    )


def choose_preset(
    method: str, size: str | None, start: ShdModel | None, device: str, mode: str | None = None
) -> tuple[str, Preset]:
    """Return the size and the preset of a fit; with a model to begin from, in its architecture."""
    from napari_dmri.deconvolve.shd.presets import preset

    if size is None:
        size = str(start.card.get("size") or "small") if start is not None else None
    if size is None:
        size = "paper" if device.startswith("cuda") else "small"
    chosen = preset(method, size, mode if start is None else None)
    if start is not None:
        chosen = replace(
            chosen,
            architecture=start.architecture,
            mode=str(start.card["mode"]),
            plan=replace(chosen.plan, lr=chosen.plan.lr * TUNING),
        )
    return size, chosen


def _check_start(start: ShdModel | None, others: Sequence[str]) -> None:
    if start is not None and set(others) != set(start.others):
        raise InputError(
            f"The model to begin from separates {', '.join(('wm', *start.others))} and "
            f"{', '.join(('wm', *others))} are asked for; leave the tissues to the model."
        )


def _plan(
    preset: Preset,
    store: Any,
    device: str,
    others: Sequence[str],
    start: ShdModel | None,
    minutes: float | None,
    steps: int | None,
    held: dict[str, Any] | None,
) -> Plan:
    """Return the plan with as many steps as are asked for; a state's own where time decides."""
    plan = preset.plan
    whole = plan.total_steps
    if minutes is not None and steps is not None:
        raise InputError(f"Both {minutes:g} minutes and {steps} steps are given; give one.")
    if minutes is not None:
        if not (math.isfinite(minutes) and minutes > 0):
            raise InputError(f"The fit is to take {minutes:g} minutes; give a number above 0.")
        if held is not None and "plan" in held:
            kept = {name: held["plan"][name] for name in ("epochs", "steps")}
            return replace(plan, **kept, drops=tuple(held["plan"]["drops"]))
        each = time_steps(preset, store, device, len(others))
        steps = min(whole, int(60 * minutes / each))
    elif steps is None:
        steps = round(whole * TUNING) if start is not None else whole
    if steps < 1:
        raise InputError(f"A fit of {steps} steps; give 1 or more.")
    return plan.shortened(steps)


def time_steps(preset: Preset, store: Any, device: str, others: int, count: int = 3) -> float:
    """Measure the seconds of a step of training, on a network that is thrown away."""
    import torch

    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.samples import FodPatches

    where = torch.device(device)
    shells = int(store.volumes[0].shells.shape[1])
    network = build_network(preset.architecture, shells, others, seed=0).to(where)
    loss = FodLoss(preset.losses, preset.architecture.degree)
    batches = FodPatches(store.volumes, preset.architecture.patch, count + 1, where)
    seconds = []
    for batch in batches.batches(preset.plan.batch, [0]):
        begun = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda"):
            value = loss(network, batch.to(where).tensors)
        value.backward()  # type: ignore[no-untyped-call]
        float(value.detach())
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[1:]))


def read_settings(state: str | Path) -> dict[str, Any] | None:
    """Return the settings that a state on disk was written with, or None."""
    from napari_dmri.training.checkpoint import load_card

    path = Path(state)
    if not path.is_file():
        return None
    settings = load_card(path).get("settings", {})
    return dict(settings)


def drop_state(path: Path) -> None:
    """Delete a training's state and the card beside it."""
    for file in (path, path.with_suffix(".json")):
        file.unlink(missing_ok=True)


def _hash(prepared: Prepared) -> str:
    """Return a hash of what a fit learns from."""
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [prepared.mask, prepared.signal, prepared.coefficients]
    arrays += [prepared.forward[t] for t in prepared.tissues]
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
