"""Train a network of the SHD family, and begin again at a lower learning rate when it collapses."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent
from napari_dmri.training.parts import Diverged
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from napari_dmri.deconvolve.shd.live import Live
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.presets import Plan, Preset
    from napari_dmri.deconvolve.shd.samples import PatchStore
    from napari_dmri.training.parts import Batches, Fit, Switch

__all__ = [
    "Outcome",
    "choose_plan",
    "choose_preset",
    "read_settings",
    "time_steps",
    "train_with_retries",
]

LOWER = 1 / 3
"""What a learning rate is multiplied by after a collapse."""

CLIP = 1.0
"""Largest norm of a gradient."""


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
    batches: Batches,
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
    validation: Batches | None = None,
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
    InputError
        If memory runs out.
    """
    import copy

    from napari_dmri.deconvolve.shd.compiled import compiled_loss
    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.norms import settle_norms
    from napari_dmri.device import out_of_memory
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
                drop_state(state)
            if number >= retries:
                raise _given_up(error, plan, number) from error
            words = f"{error} It begins again at a learning rate of {plan.lr * LOWER:.2g}."
            notes.append(words)
            live.say(words)
            continue
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise InputError(
                f"Memory ran out on {device} for a step of {plan.batch} patches of "
                f"{preset.architecture.patch} voxels an edge; choose the "
                "size small, close other programs, or choose another device."
            ) from error
        notes += loss.notes
        settle_norms(network, batches, plan.batch, device)
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
    from napari_dmri.deconvolve.shd.presets import TUNING, preset

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
        chosen = replace(
            chosen,
            architecture=start.architecture,
            mode=str(start.card["mode"]),
            plan=replace(chosen.plan, lr=chosen.plan.lr * TUNING),
        )
    return size, chosen


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
    from napari_dmri.deconvolve.shd.presets import TUNING

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


def time_steps(
    preset: Preset, store: PatchStore, device: str, others: int, count: int = 3
) -> float:
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
