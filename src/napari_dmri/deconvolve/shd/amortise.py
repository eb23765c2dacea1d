"""Train a network of the SHD family once on many subjects and schemes, to apply it to others.

Subjects may differ in directions, voxels and b-values, as long as each has a shell for each of the
network's; one subject goes in at a time with its own responses. Volumes go to files, so that
memory holds one of them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.order_rule import RULES
from napari_dmri.deconvolve.shd.subjects import LazySubject, Subject, read_subjects
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.deconvolve.shd.running import Outcome
    from napari_dmri.deconvolve.shd.samples import PatchStore
    from napari_dmri.training.parts import Switch

__all__ = ["LazySubject", "Subject", "read_subjects", "train_model"]

TESTS = 12
"""Batches that choose the best epoch, where subjects are kept for it."""

ENOUGH = 4
"""Subjects from which one is kept to choose the best epoch."""

TOLERANCE = 0.25
"""Relative difference of b-values up to which a subject's shell is the network's."""


def train_model(
    subjects: Sequence[Subject | LazySubject],
    method: str = "shd-s-tv",
    *,
    validation: Sequence[Subject | LazySubject] | None = None,
    others: Sequence[str] | None = None,
    bvalues: Sequence[float] | None = None,
    size: str | None = None,
    mode: str | None = None,
    start: ShdModel | None = None,
    rule: str | None = None,
    supervised: float | None = None,
    weights: Mapping[str, float | str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    state: str | Path | None = None,
    on_event: Callable[[Any], None] | None = None,
    switch: Switch | None = None,
    progress: Progress | None = None,
    retries: int = 2,
) -> ShdModel:
    """Train a network on subjects.

    Parameters
    ----------
    subjects
        Whom to learn from; read one at a time.
    method
        A name of `presets.PRESETS`.
    validation
        Subjects that choose the best epoch. None: the last of four or more; with fewer the training
        loss chooses.
    others
        Tissues besides white matter; None takes those that shells and responses of all allow.
    bvalues
        The network's shells in s/mm², b0 first; None takes the subjects' mean.
    size, mode, start, rule, weights, steps, seed, device, state, switch, retries
        As for `fit_to_scan`.
    supervised
        Weight of the distance to known fODFs. None: 1 where every subject has them, else 0.
    on_event, progress
        Told of curves (`Event`) and in words (str); told of progress, and may raise `Cancelled`.

    Raises
    ------
    InputError
        If there are no subjects, shells or tissues differ among them, or a scan cannot be prepared.
    """
    from napari_dmri.deconvolve.shd.card import make_card
    from napari_dmri.deconvolve.shd.gains import equalised
    from napari_dmri.deconvolve.shd.live import Live
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.running import (
        choose_preset,
        choose_rule,
        read_settings,
        train_with_retries,
    )
    from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore
    from napari_dmri.device import choose_device

    report = progress or silent
    where = choose_device(device)
    used, kept = list(subjects), list(validation or ())
    if not used:
        raise InputError("There are no subjects to learn from; give at least one scan.")
    if not kept and validation is None and len(used) >= ENOUGH:
        kept = [used.pop()]
    size, chosen = choose_preset(method, size, start, where.name, mode, weights)
    recipe = _recipe([*used, *kept], others, bvalues, start, supervised, part(progress, 0, 0.02))
    recipe = replace(recipe, rule=choose_rule(rule, start))
    losses = replace(chosen.losses, supervised=recipe.supervised)
    plan = chosen.plan if steps is None else chosen.plan.shortened(steps)
    chosen = replace(chosen, losses=losses, plan=plan)
    entries: list[dict[str, Any]] = []
    notes: list[str] = []
    with (
        PatchStore(recipe.others, on_disk=True) as training,
        PatchStore(recipe.others, on_disk=True) as testing,
    ):
        every = [*((s, training) for s in used), *((s, testing) for s in kept)]
        for n, (subject, store) in enumerate(every):
            inner = part(report, 0.02 + 0.13 * n / len(every), 0.02 + 0.13 * (n + 1) / len(every))
            use = "training" if store is training else "validation"
            entries.append(_add(store, subject, recipe, chosen, use, notes, inner))
        if start is None:
            chosen = equalised(chosen, training.volumes)
        edge = chosen.architecture.patch
        batches = FodPatches(training.volumes, edge, chosen.plan.steps, where.torch())
        tests = FodPatches(testing.volumes, edge, TESTS, where.torch()) if kept else None
        settings = {
            "method": method,
            "size": size,
            "others": list(recipe.others),
            "bvalues": list(recipe.bvalues),
            "architecture": chosen.architecture.as_dict(),
            "losses": losses.as_dict(),
            "data": [[e["use"], e["learned"]] for e in entries],
            "start": "" if start is None else start.sha256,
        }
        held = None if state is None else read_settings(state)
        outcome: Outcome = train_with_retries(
            chosen,
            len(recipe.bvalues),
            len(recipe.others),
            batches,
            Live(chosen, None, where.name, on_event),
            settings,
            start=None if start is None else start.network,
            seed=seed,
            device=where.name,
            state=state,
            attempt=0 if held is None else int(held.get("attempt", 0)),
            retries=retries,
            switch=switch,
            progress=part(report, 0.15, 1.0),
            validation=tests,
        )
    card = make_card(
        replace(chosen, plan=outcome.plan),
        recipe.others,
        recipe.bvalues,
        entries,
        outcome.fit,
        seed=seed,
        device=where.name,
        trained_from="subjects",
        rule=recipe.rule,
        start=start,
        known_fods=bool(recipe.supervised),
        notes=(*notes, *outcome.notes),
    )
    report(1.0, "trained")
    return ShdModel(chosen.architecture, recipe.others, recipe.bvalues, outcome.network, card)


@dataclass(frozen=True)
class Recipe:
    """Say what subjects have in common: tissues, shells, their fit, the weight of known fODFs."""

    others: tuple[str, ...]
    bvalues: tuple[float, ...]
    supervised: float
    voxels: tuple[float, ...]
    rule: str = RULES[0]


def _recipe(
    subjects: Sequence[Subject | LazySubject],
    others: Sequence[str] | None,
    bvalues: Sequence[float] | None,
    start: ShdModel | None,
    supervised: float | None,
    progress: Progress,
) -> Recipe:
    """Read the subjects' headers and settle tissues, shells and supervision."""
    from napari_dmri.deconvolve.shd.fit import choose_others
    from napari_dmri.deconvolve.shd.inputs import check_others

    found, sizes = [], []
    tissues = {"wm", "gm", "csf"}
    known = 0
    for n, entry in enumerate(subjects):
        progress(n / len(subjects), f"reading {entry.subject}")
        subject = entry.load() if isinstance(entry, LazySubject) else entry
        table = subject.scan.gradients
        seen = table if subject.inputs is None else table.select(subject.inputs)
        found.append((entry.subject, tuple(s.bvalue for s in seen.shells)))
        sizes.append(subject.scan.voxel_size)
        if subject.responses is not None:
            tissues &= set(subject.responses)
        known += subject.target is not None
    if start is not None:
        bvalues, others = start.bvalues, start.others
    if bvalues is None:
        bvalues = _common(found)
    chosen = choose_others(len(bvalues), sorted(tissues)) if others is None else others
    missing = [t for t in chosen if t not in tissues]
    if missing:
        raise InputError(
            f"Some subject has no response for {', '.join(missing)}; estimate one, or train "
            "without this tissue."
        )
    weight = float(known == len(subjects)) if supervised is None else float(supervised)
    if weight and known < len(subjects):
        raise InputError(
            f"{known} of {len(subjects)} subjects have known fODFs; training with supervision "
            "needs them of all."
        )
    voxel = tuple(float(v) for v in np.median(np.array(sizes), axis=0))
    return Recipe(check_others(tuple(chosen)), tuple(float(b) for b in bvalues), weight, voxel)


def _common(found: Sequence[tuple[str, tuple[float, ...]]]) -> tuple[float, ...]:
    """Return the mean of the subjects' shells, which must be as many.

    Raises
    ------
    InputError
        If they are not.
    """
    counts = {len(shells) for _, shells in found}
    if len(counts) > 1:
        listed = "; ".join(f"{name}: {', '.join(f'{b:g}' for b in b_s)}" for name, b_s in found[:6])
        raise InputError(
            f"The subjects have different shells (b = {listed}); say which the network takes, with "
            "bvalues (--bvalues)."
        )
    means = np.array([shells for _, shells in found]).mean(0)
    return (0.0, *(float(round(b / 10) * 10) for b in means[1:]))


def _add(
    store: PatchStore,
    entry: Subject | LazySubject,
    recipe: Recipe,
    preset: Preset,
    use: str,
    notes: list[str],
    progress: Progress,
) -> dict[str, Any]:
    """Prepare a subject and put it in a store; return its entry on the card."""
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.deconvolve.shd.card import training_entry
    from napari_dmri.deconvolve.shd.fit import content_hash
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.samples import surround
    from napari_dmri.deconvolve.shd.tiles import reach

    progress(0.0, f"{entry.subject}: preparing")
    subject = entry.load() if isinstance(entry, LazySubject) else entry
    responses = subject.responses
    if responses is None:
        responses = estimate_response(subject.scan, progress=part(progress, 0, 0.4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DmriWarning)
        prepared = prepare(
            subject.scan,
            responses,
            others=recipe.others,
            bvalues=recipe.bvalues,
            input_order=preset.architecture.input_order,
            degree=preset.architecture.degree,
            rule=recipe.rule,
            inputs=subject.inputs,
            tolerance=TOLERANCE,
            margin=reach(preset.architecture),
            progress=part(progress, 0.4, 0.9),
        )
    said = [str(w.message) for w in caught if issubclass(w.category, DmriWarning)]
    notes += said
    for words in said:
        warnings.warn(words, DmriWarning, stacklevel=4)
    target: NDArray[Any] | None = None
    if recipe.supervised and subject.target is not None:
        target = _target(subject, preset.architecture.coefficients_out)
    store.add(
        surround(prepared), label=subject.subject, target=target, margin=preset.architecture.patch
    )
    made = training_entry(subject.scan, prepared.orders, subject.subject, use)
    made["voxels"] = int(prepared.mask.sum())
    made["learned"] = content_hash(prepared, target)
    made["inputs"] = len(prepared.inputs)
    return made


def _target(subject: Subject, width: int) -> NDArray[np.float32]:
    """Return known fODFs with as many coefficients as the network's.

    Raises
    ------
    InputError
        If they are on another grid.
    """
    assert subject.target is not None
    given = subject.target.coefficients
    if given.shape[:3] != subject.scan.grid:
        raise InputError(
            f"{subject.subject}: the known fODFs are on a grid of {given.shape[:3]} voxels and the "
            f"scan of {subject.scan.grid}; they must share it."
        )
    target = np.zeros((*given.shape[:3], width), np.float32)
    shared = min(width, given.shape[3])
    target[..., :shared] = given[..., :shared]
    return target
