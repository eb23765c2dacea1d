"""Train a network of the SHD family, and begin again at a lower learning rate when it collapses."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.deconvolve.shd.halving import Pieces, halvings, no_memory, patches_of
from napari_dmri.deconvolve.shd.order_rule import RULES
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent
from napari_dmri.training.parts import Diverged
from napari_dmri.training.stages import LOWER
from napari_dmri.training.state import change_settings, drop_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from napari_dmri.deconvolve.shd.live import Live
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.plan import Plan
    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore
    from napari_dmri.training.parts import Fit, Switch

__all__ = [
    "Outcome",
    "choose_plan",
    "choose_preset",
    "choose_rule",
    "read_settings",
    "time_steps",
    "train_with_retries",
]

CLIP = 1.0
"""Largest norm of a gradient."""

CHECKED = 4
"""Patches of a validation's batch for each of training."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Hold what a training came to, and the plan that it followed in the end."""

    network: torch.nn.Module
    fit: Fit
    plan: Plan
    notes: tuple[str, ...]


def train_with_retries(
    preset: Preset,
    shells: int,
    others: int,
    batches: FodPatches,
    live: Live,
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
    validation: FodPatches | None = None,
) -> Outcome:
    """Train a preset's network; begin again at a lower learning rate where it collapses.

    Where memory runs out it goes on from where it was, with half of the patches a step.

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
    InputError
        If memory runs out for a step of one patch.
    """
    import copy

    from napari_dmri.deconvolve.shd.compiled import compiled_loss
    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.norms import settle_norms
    from napari_dmri.device import out_of_memory, release_memory
    from napari_dmri.training.loop import train

    notes: list[str] = []
    live.progress = progress or silent
    batch, number, edge = preset.plan.batch, attempt, preset.architecture.patch
    tests = None if validation is None else Pieces(validation, CHECKED * batch)
    held = None if state is None else read_settings(state)
    kept = dict((held or {}).get("plan", {})).get("batch")
    if kept in halvings(batch):
        notes.append(
            f"Memory had run out for a step of {patches_of(batch, edge)} before this training was "
            f"stopped; it goes on with {kept}."
        )
        live.say(notes[-1])
        batch = kept
    with TemporaryDirectory(prefix="napari-dmri-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "state.safetensors" if state is None else Path(state)
        # Where nobody wants a state, there is one for what memory ran out for alone.
        more: dict[str, Any] = {"every": math.inf} if state is None else {}
        while True:
            plan = replace(preset.plan, lr=preset.plan.lr * LOWER**number, batch=batch)
            if start is None:
                network = build_network(preset.architecture, shells, others, seed=seed)
            else:
                network = copy.deepcopy(start).train()
            parts = FodLoss(preset.losses, preset.architecture.degree)
            loss = compiled_loss(parts, network, device)
            memory: dict[str, Any] = {}
            live.begin(network, plan, batches, parts, memory)
            try:
                fit = train(
                    network,
                    loss,
                    batches,
                    tests,
                    plan.stages(),
                    seed=seed,
                    device=device,
                    state=path,
                    settings={**settings, "attempt": number, "plan": plan.as_dict()},
                    clip=CLIP,
                    # A model's batch norms are of what it learned from, not of this scan.
                    start_counts=start is None,
                    memory=memory,
                    on_event=live,
                    switch=switch,
                    progress=live.report,
                    **more,
                )
                break
            except (Collapsed, Diverged) as error:
                drop_state(path)
                if number >= retries:
                    assert live.watch is not None
                    raise _given_up(error, plan, number, live.watch.bvalues, 1 + others) from error
                words = f"{error} It begins again at a learning rate of {plan.lr * LOWER:.2g}."
                number += 1
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if batch == 1:
                    raise no_memory(device, batch, edge) from error
                words = (
                    f"Memory ran out on {device} for a step of {patches_of(batch, edge)}; it goes "
                    f"on with {batch // 2}, at the same learning rate."
                )
                batch //= 2
            notes.append(words)
            live.say(words)
            if batch < plan.batch:
                # Not before the error is gone, which holds on to what there was no room for.
                release_memory(device)
                plan = replace(plan, batch=batch)
                stages = [stage.as_dict() for stage in plan.stages()]
                change_settings(path, {"plan": plan.as_dict(), "stages": stages})
    notes += loss.notes
    settle_norms(network, batches, plan.batch, device)
    return Outcome(network, fit, plan, tuple(notes))


def _given_up(error: InputError, plan: Plan, number: int, bvalues: int, tissues: int) -> InputError:
    words = str(error).rstrip(".")
    many = (
        f"{tissues} tissues from {bvalues} b-values may be too many: fit {bvalues}. Else check"
        if tissues > bvalues
        else "Check"
    )
    tried = f"also after {number + 1} beginnings, the last at a learning rate of {plan.lr:.2g}"
    return Collapsed(
        f"{words}{f', {tried}' if number else ''}. {many} the responses (those of this scan?), the "
        "gradient directions and the mask; or use a trained model instead of fitting one."
    )


def choose_preset(
    method: str,
    size: str | None,
    start: ShdModel | None,
    device: str,
    mode: str | None = None,
    weights: Mapping[str, float | str] | None = None,
) -> tuple[str, Preset]:
    """Return the size and the preset of a fit; with a model to begin from, in its architecture.

    ``weights`` are parts of the loss that count otherwise than in the preset.
    """
    from napari_dmri.deconvolve.shd.presets import continued, preset

    if size is None:
        size = str(start.card.get("size") or "small") if start is not None else None
    if size is None:
        size = "paper" if device.startswith("cuda") else "small"
    chosen = preset(method, size, mode if start is None else None)
    chosen = replace(chosen, losses=chosen.losses.changed(weights or {}))
    if start is not None:
        both = (start.architecture, chosen.architecture)
        kinds = [(made.layer, made.patch == 1) for made in both]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"The model to begin from is of {start.card['label']} ({start.card['method']}), "
                f"whose network {method} does not have; choose {start.card['method']}, or another "
                "model."
            )
        chosen = continued(chosen, start.architecture, str(start.card["mode"]))
    return size, chosen


def choose_rule(rule: str | None, start: ShdModel | None) -> str:
    """Return how shells are fitted: as is asked, as for the model to begin from, or safely."""
    if rule is not None:
        return rule
    return RULES[0] if start is None else str(start.card["rule"])


def choose_plan(
    preset: Preset,
    store: PatchStore,
    device: str,
    others: Sequence[str],
    start: ShdModel | None,
    minutes: float | None,
    steps: int | None,
    held: dict[str, Any] | None,
) -> Plan:
    """Return the plan with as many steps as are asked for.

    Parameters
    ----------
    preset, start, minutes, steps
        As for `fit_to_scan`.
    store, device, others
        What a step is timed on, where minutes are given.
    held
        The settings of a state that is gone on from: its steps are kept, as time is never the same.

    Raises
    ------
    InputError
        If both minutes and steps are given, or one is not positive.
    """
    plan = preset.plan
    if minutes is not None and steps is not None:
        raise InputError(f"Both {minutes:g} minutes and {steps} steps are given; give one.")
    if minutes is not None:
        if not (math.isfinite(minutes) and minutes > 0):
            raise InputError(f"The fit is to take {minutes:g} minutes; give a number above 0.")
        if held is not None and "plan" in held:
            kept = {name: held["plan"][name] for name in ("epochs", "steps")}
            return replace(plan, **kept, drops=tuple(held["plan"]["drops"]))
        each = time_steps(preset, store, device, len(others))
        return plan.within(60 * minutes / each)
    if steps is None:
        return plan if start is None else plan.tuned()
    if steps < 1:
        raise InputError(f"A fit of {steps} steps; give 1 or more.")
    return plan.shortened(steps)


def time_steps(
    preset: Preset, store: PatchStore, device: str, others: int, count: int = 3
) -> float:
    """Measure the seconds of a step of training, on a network that is thrown away.

    Where memory runs out, of one with fewer patches, as the training will have.
    """
    import torch

    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.samples import FodPatches
    from napari_dmri.device import out_of_memory, release_memory

    where = torch.device(device)
    shells = int(store.volumes[0].shells.shape[1])
    edge, sizes = preset.architecture.patch, [preset.plan.batch, *halvings(preset.plan.batch)]
    network = build_network(preset.architecture, shells, others, seed=0).to(where)
    loss = FodLoss(preset.losses, preset.architecture.degree)
    batches = FodPatches(store.volumes, edge, count + 1, where)
    for size in sizes:
        seconds = []
        try:
            for batch in batches.batches(size, [0]):
                begun = time.perf_counter()
                with torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda"):
                    value = loss(network, batch.to(where).tensors)
                value.backward()  # type: ignore[no-untyped-call]
                float(value.detach())
                seconds.append(time.perf_counter() - begun)
            return float(np.median(seconds[1:]))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise no_memory(device, size, edge) from error
        release_memory(device)
    raise AssertionError("unreachable")


def read_settings(state: str | Path) -> dict[str, Any] | None:
    """Return the settings that a state on disk was written with, or None."""
    from napari_dmri.training.checkpoint import load_card

    path = Path(state)
    if not path.is_file():
        return None
    settings = load_card(path).get("settings", {})
    return dict(settings)
