"""Train LinearRISH: from travelling pairs, or from two groups of matched subjects."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize import features, scale_maps
from napari_dmri.harmonize.alignment import Channels, register_rigid
from napari_dmri.harmonize.linear_rish_card import Facts, facts_of, make_card
from napari_dmri.harmonize.pair_alignment import look_alike
from napari_dmri.harmonize.plans import (
    load_scan,
    mixed_sites,
    plan_orders,
    require_one_site,
    require_pair,
    scan_of,
    subjects_of,
)
from napari_dmri.harmonize.template import Template, build_template
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def train_pairs(
    model: LinearRish,
    pairs: Sequence[PairLike | tuple[Scan, Scan]],
    *,
    device: str,
    progress: Progress | None,
) -> Trained:
    """Train from travelling pairs: ratios within subjects, their mean, its root."""
    report = progress or silent
    subjects = subjects_of(pairs)
    report(0.0, f"reading {len(pairs)} pairs")
    require_one_site(subjects, pairs)
    named = [
        (f"{subject} {role}", partial(scan_of, pair, role))
        for subject, pair in zip(subjects, pairs, strict=True)
        for role in ("source", "target")
    ]
    orders, notes = plan_orders(model, named)
    facts: list[Facts] = []
    brains: list[features.Brain] = []
    partners: list[features.Brain] = []
    rigid: list[Array] = []
    for n, (subject, pair) in enumerate(zip(subjects, pairs, strict=True)):
        inner = part(report, 0.4 * n / len(pairs), 0.4 * (n + 1) / len(pairs), f"{subject}: ")
        source = _measure(model, scan_of(pair, "source"), orders, device, part(inner, 0.0, 0.3))
        target = _measure(model, scan_of(pair, "target"), orders, device, part(inner, 0.3, 0.6))
        for role, (brain, scan) in (("source", source), ("target", target)):
            facts.append(facts_of(subject, role, scan, orders))
            (brains if role == "source" else partners).append(brain)
        motion = register_rigid(
            source[0].channels, target[0].channels, progress=part(inner, 0.6, 1.0)
        )
        alike = require_pair(source[0].channels, target[0].channels, motion, subject)
        notes += look_alike(alike, subject)
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
        (f"{role} scan {n}", partial(load_scan, entry))
        for role, scans in (("source", source_scans), ("target", target_scans))
        for n, entry in enumerate(scans, 1)
    ]
    sites = [str(read().metadata.get("site") or "") for _, read in named]
    each = [
        (label, site, "") if role == "source" else (label, "", site)
        for (label, _), (role, _), site in zip(named, entries, sites, strict=True)
    ]
    if words := mixed_sites(each, "scans"):
        raise InputError(words)
    orders, notes = plan_orders(model, named)
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
        brain, scan = _measure(model, load_scan(entry), orders, device, inner)
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
