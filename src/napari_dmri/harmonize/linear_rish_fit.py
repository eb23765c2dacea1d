"""Train LinearRISH: from travelling pairs, or from two groups of matched subjects."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize import features, scale_maps
from napari_dmri.harmonize.alignment import Channels, agreement, register_rigid
from napari_dmri.harmonize.linear_rish_card import Facts, facts_of, make_card
from napari_dmri.harmonize.template import Template, build_template
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_dmri.harmonize.base import PairLike
    from napari_dmri.harmonize.linear_rish import LinearRish
    from napari_dmri.scan import Scan

__all__ = ["MIN_GROUP", "WARN_GROUP", "train_groups", "train_pairs"]

Array = NDArray[Any]

Trained = tuple[dict[str, Any], Channels, dict[float, scale_maps.ScaleMaps]]

MIN_GROUP = 10
"""Scans a site below which group training is refused."""

WARN_GROUP = 16
"""Scans a site below which group training is warned about (Cetin Karayumak 2019: 16 to 18)."""

MIN_PAIR_OVERLAP = 0.6
MIN_PAIR_CORRELATION = 0.5
"""Below these a pair is not of one head: masks (Dice) and FA with L0 (correlation)."""


def train_pairs(
    model: LinearRish,
    pairs: Sequence[PairLike | tuple[Scan, Scan]],
    *,
    device: str,
    progress: Progress | None,
) -> Trained:
    """Train from travelling pairs: ratios within subjects, their mean, its root."""
    report = progress or silent
    subjects = _subjects(pairs)
    report(0.0, f"reading {len(pairs)} pairs")
    named = [
        (f"{subject} {role}", partial(_of, pair, role))
        for subject, pair in zip(subjects, pairs, strict=True)
        for role in ("source", "target")
    ]
    orders, notes = _plan(model, named)
    facts: list[Facts] = []
    brains: list[features.Brain] = []
    partners: list[features.Brain] = []
    rigid: list[Array] = []
    for n, (subject, pair) in enumerate(zip(subjects, pairs, strict=True)):
        inner = part(report, 0.4 * n / len(pairs), 0.4 * (n + 1) / len(pairs), f"{subject}: ")
        source = _measure(model, _of(pair, "source"), orders, device, part(inner, 0.0, 0.3))
        target = _measure(model, _of(pair, "target"), orders, device, part(inner, 0.3, 0.6))
        for role, (brain, scan) in (("source", source), ("target", target)):
            facts.append(facts_of(subject, role, scan, orders))
            (brains if role == "source" else partners).append(brain)
        motion = register_rigid(
            source[0].channels, target[0].channels, progress=part(inner, 0.6, 1.0)
        )
        _require_pair(source[0].channels, target[0].channels, motion, subject)
        rigid.append(motion)
    template = build_template(
        [b.channels for b in brains],
        list(subjects),
        rounds=model.rounds,
        tolerance=model.tolerance,
        iterations=model.iterations,
        progress=part(report, 0.4, 0.95),
    )
    if len(pairs) == 1:
        notes.append(
            "Trained on one travelling subject: the scale maps hold its anatomy and noise; use at "
            "least 3."
        )
    report(0.95, "scale maps")
    maps = {}
    for bvalue, order in orders.items():
        ratios = _mean_of_ratios(model, template, brains, partners, rigid, bvalue, order)
        maps[bvalue] = _finish(model, ratios, template)
    card = make_card(model, "pairs", facts, orders, maps, template, notes)
    report(1.0, "trained")
    return card, template.channels, maps


def train_groups(
    model: LinearRish,
    source_scans: Sequence[Any],
    target_scans: Sequence[Any],
    *,
    device: str,
    progress: Progress | None,
) -> Trained:
    """Train from two groups: mean energies of each site, their ratio, its root."""
    report = progress or silent
    counts = {"source": len(source_scans), "target": len(target_scans)}
    if min(counts.values()) < MIN_GROUP:
        raise InputError(
            f"Groups of {counts['source']} source and {counts['target']} target scans; at least "
            f"{MIN_GROUP} matched subjects a site are needed ({WARN_GROUP} or more are advised): "
            "add subjects, or train from travelling pairs."
        )
    entries = [("source", s) for s in source_scans] + [("target", s) for s in target_scans]
    report(0.0, f"reading {len(entries)} scans")
    named = [
        (f"{role} scan {n + 1}", partial(_load, entry)) for n, (role, entry) in enumerate(entries)
    ]
    orders, notes = _plan(model, named)
    if min(counts.values()) < WARN_GROUP:
        notes.append(
            f"Trained on groups of {counts['source']} and {counts['target']} scans; "
            f"{WARN_GROUP} or more matched subjects a site are advised."
        )
    facts: list[Facts] = []
    brains: list[features.Brain] = []
    for n, (role, entry) in enumerate(entries):
        inner = part(
            report, 0.3 * n / len(entries), 0.3 * (n + 1) / len(entries), f"scan {n + 1}: "
        )
        brain, scan = _measure(model, _load(entry), orders, device, inner)
        brains.append(brain)
        facts.append(facts_of(str(scan.metadata.get("subject") or scan.name), role, scan, orders))
    template = build_template(
        [b.channels for b in brains],
        [f.name for f in facts],
        rounds=model.rounds,
        tolerance=model.tolerance,
        iterations=model.iterations,
        progress=part(report, 0.3, 0.95),
    )
    report(0.95, "scale maps")
    maps = {}
    for bvalue, order in orders.items():
        means = {}
        covered = template.channels.mask.copy()
        for role in counts:
            chosen = [i for i, (r, _) in enumerate(entries) if r == role]
            means[role], inside = _mean_energy(template, brains, chosen, bvalue, order)
            covered &= inside
        ratios = scale_maps.ratio(means["target"], means["source"], covered, model.cap)
        maps[bvalue] = _finish(model, ratios, template)
    card = make_card(model, "groups", facts, orders, maps, template, notes)
    report(1.0, "trained")
    return card, template.channels, maps


def _subjects(pairs: Sequence[Any]) -> tuple[str, ...]:
    if not pairs:
        raise InputError("No pairs to train on; give at least one (source, target) pair of scans.")
    labels: list[str] = []
    for n, pair in enumerate(pairs):
        label = "" if isinstance(pair, tuple) else str(pair.subject)
        if not label:
            label = str(_of(pair, "source").metadata.get("subject") or f"pair {n + 1}")
        if label in labels:
            raise InputError(
                f"Subject {label} comes twice (pairs {labels.index(label) + 1} and {n + 1}); "
                "give each travelling subject once."
            )
        labels.append(label)
    return tuple(labels)


def _of(pair: Any, role: str) -> Scan:
    if isinstance(pair, tuple):
        return _as_scan(pair[0] if role == "source" else pair[1])
    return _as_scan(getattr(pair, role))


def _as_scan(value: Any) -> Scan:
    from napari_dmri.scan import Scan

    if not isinstance(value, Scan):
        raise InputError(
            f"Training takes scans with gradients, not {type(value).__name__}; read files with "
            "read_scan or read_pairs."
        )
    return value


def _load(entry: Any) -> Scan:
    return _as_scan(entry.load() if hasattr(entry, "load") else entry)


def _plan(
    model: LinearRish, scans: Sequence[tuple[str, Callable[[], Scan]]]
) -> tuple[dict[float, int], list[str]]:
    """Choose shells (the last scan's, a target) and the order that all scans support."""
    light = [(name, load()) for name, load in scans]
    reference = light[-1][1]
    if model.shell is None:
        shells = [reference.gradients.shell().bvalue]
    else:
        shells = [
            reference.gradients.shell(float(b)).bvalue
            for b in np.atleast_1d(np.asarray(model.shell, float))
        ]
    for name, scan in light:
        if not scan.gradients.b0_mask.any():
            raise InputError(
                f"{name} has no b0 volume (lowest b-value {scan.gradients.bvalues.min():g} "
                "s/mm²); S/b0 needs one."
            )
        for bvalue in shells:
            try:
                scan.gradients.shell(bvalue)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
    orders, notes = features.common_orders(light, sorted(set(shells)), model.order)
    for bvalue in orders:
        mapped = [
            f"{name} ({found:g})"
            for name, scan in light
            if features.needs_mapping(found := scan.gradients.shell(bvalue).bvalue, bvalue)
        ]
        if mapped:
            how = (
                f"their S/b0 were raised to {bvalue:g}/b"
                if model.map_bvalue
                else "they were used as they are"
            )
            notes.append(
                f"{len(mapped)} scans differ from b={bvalue:g} s/mm² by more than 1 % and {how}: "
                f"{', '.join(mapped[:4])}{' ...' if len(mapped) > 4 else ''}."
            )
    return orders, notes


def _measure(
    model: LinearRish, scan: Scan, orders: dict[float, int], device: str, progress: Progress
) -> tuple[features.Brain, Scan]:
    masked, _ = features.with_mask(scan, part(progress, 0.0, 0.3))
    brain = features.measure(
        masked,
        orders,
        model.smooth,
        map_bvalue=model.map_bvalue,
        device=device,
        progress=part(progress, 0.3, 1.0),
    )
    return brain, masked


def _require_pair(source: Channels, target: Channels, motion: Array, subject: str) -> None:
    correlation, overlap = agreement(source, target, motion)
    if overlap < MIN_PAIR_OVERLAP or correlation < MIN_PAIR_CORRELATION:
        raise InputError(
            f"The scans of {subject} cannot be aligned rigidly: their masks overlap by "
            f"{overlap:.0%} (at least {MIN_PAIR_OVERLAP:.0%} is needed) and their FA and L0 "
            f"correlate by {correlation:.2f} (at least {MIN_PAIR_CORRELATION:.2f}); check that "
            "both are of one person and cover the same part of the head."
        )


def _mean_of_ratios(
    model: LinearRish,
    template: Template,
    brains: Sequence[features.Brain],
    partners: Sequence[features.Brain],
    rigid: Sequence[Array],
    bvalue: float,
    order: int,
) -> Array:
    """Average the subjects' ratios in template space where at least half of them have one.

    Both scans' energies are interpolated once, from their own grids, and divided there: what
    interpolation smooths in one it smooths in the other.
    """
    shape = (*template.channels.shape, order // 2 + 1)
    total = np.zeros(shape)
    count = np.zeros(template.channels.shape)
    for brain, partner, motion, warp in zip(brains, partners, rigid, template.warps, strict=True):
        chain = warp.after(motion, partner.mask.shape, partner.channels.affine)
        source = warp.to_static(brain.energies[bvalue])
        target = chain.to_static(partner.energies[bvalue])
        inside = (warp.to_static(brain.mask.astype(np.float32)) > 0.5) & (
            chain.to_static(partner.mask.astype(np.float32)) > 0.5
        )
        quotient = scale_maps.ratio(target, source, inside, model.cap)
        total += np.nan_to_num(quotient)
        count += inside
    enough = (count >= 0.5 * len(brains)) & template.channels.mask & (count > 0)
    mean = total / np.maximum(count, 1)[..., None]
    return np.where(enough[..., None], mean, np.nan)


def _mean_energy(
    template: Template,
    brains: Sequence[features.Brain],
    chosen: Sequence[int],
    bvalue: float,
    order: int,
) -> tuple[Array, Array]:
    shape = (*template.channels.shape, order // 2 + 1)
    total = np.zeros(shape)
    count = np.zeros(template.channels.shape)
    for i in chosen:
        warp = template.warps[i]
        inside = warp.to_static(brains[i].mask.astype(np.float32)) > 0.5
        total += np.where(inside[..., None], warp.to_static(brains[i].energies[bvalue]), 0)
        count += inside
    return total / np.maximum(count, 1)[..., None], count >= 0.5 * len(chosen)


def _finish(model: LinearRish, ratios: Array, template: Template) -> scale_maps.ScaleMaps:
    channels = template.channels
    if not np.isfinite(ratios).all(-1).any():
        raise InputError(
            "The scans have no voxel in common in template space; check masks and that all scans "
            "cover the same part of the head."
        )
    return scale_maps.finish(
        ratios, channels.mask, channels.voxel_size, model.cap, model.rim, model.fwhm
    )
