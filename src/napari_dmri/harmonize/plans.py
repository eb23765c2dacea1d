"""What all trainings agree on before they begin: subjects, shells, the common order, one head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize import features
from napari_dmri.harmonize.alignment import agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_dmri.harmonize.alignment import Channels
    from napari_dmri.scan import Scan

__all__ = [
    "ALIGN",
    "Plan",
    "load_scan",
    "mixed_sites",
    "plan_orders",
    "require_one_site",
    "require_pair",
    "scan_of",
    "subjects_of",
]

Array = NDArray[Any]

ROLES = ("source", "target")

MIN_PAIR_OVERLAP = 0.6
MIN_PAIR_CORRELATION = 0.5
"""Below these a pair is not of one head: masks (Dice) and FA with L0 (correlation)."""

ALIGN = 'align them first, or train with registration="always" (--registration always)'
"""What to do about pairs on one grid that are misaligned."""


class Plan(Protocol):
    """What was asked of a model: its shells (b-values), SH order, and mapping of b-values."""

    shell: Any
    order: int | None
    map_bvalue: bool


def subjects_of(pairs: Sequence[Any]) -> tuple[str, ...]:
    """Return the pairs' subject labels; refuse no pairs, and a subject that comes twice."""
    if not pairs:
        raise InputError("No pairs to train on; give at least one (source, target) pair of scans.")
    labels: list[str] = []
    for n, pair in enumerate(pairs):
        label = "" if isinstance(pair, tuple) else str(pair.subject)
        if not label:
            label = str(scan_of(pair, "source").metadata.get("subject") or f"pair {n + 1}")
        if label in labels:
            raise InputError(
                f"Subject {label} comes twice (pairs {labels.index(label) + 1} and {n + 1}); "
                "give each travelling subject once."
            )
        labels.append(label)
    return tuple(labels)


def require_one_site(subjects: Sequence[str], pairs: Sequence[Any]) -> None:
    """Refuse pairs of several source or target sites, of which one model would make a mixture.

    Raises
    ------
    InputError
        With the sites, their subjects and the remedy.
    """
    named = [
        (subject, _site(pair, "source"), _site(pair, "target"))
        for subject, pair in zip(subjects, pairs, strict=True)
    ]
    if words := mixed_sites(named):
        raise InputError(words)


def mixed_sites(named: Sequence[tuple[str, str, str]], what: str = "pairs") -> str:
    """Say which pairs are of which sites where there are several; else an empty sentence.

    Parameters
    ----------
    named
        Subject, source site and target site of each pair; a site that is not known is empty.
    what
        What they are, for the sentence: pairs, or scans.
    """
    said = []
    for n, role in enumerate(ROLES, 1):
        sites: dict[str, list[str]] = {}
        for entry in named:
            if entry[n]:
                sites.setdefault(entry[n], []).append(entry[0])
        if len(sites) > 1:
            each = "; ".join(f"{site}: {_some(people)}" for site, people in sites.items())
            said.append(f"{len(sites)} {role} sites ({each})")
    if not said:
        return ""
    words = (
        f"The {what} are of {' and of '.join(said)}, and a model maps one site to one: keep the "
        f"{what} of one, and train a model for each of the others."
    )
    if what == "pairs":
        words += " In a list, --source-site SITE (source=SITE) keeps the rows of one source site."
    return words


def _site(pair: Any, role: str) -> str:
    return str(scan_of(pair, role).metadata.get("site") or "")


def _some(names: Sequence[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def scan_of(pair: Any, role: str) -> Scan:
    """Return the ``"source"`` or ``"target"`` of a pair, read now where it lies on disk."""
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


def load_scan(entry: Any) -> Scan:
    """Return a scan, or what an object's ``load()`` returns."""
    return _as_scan(entry.load() if hasattr(entry, "load") else entry)


def plan_orders(
    plan: Plan, scans: Sequence[tuple[str, Callable[[], Scan]]]
) -> tuple[dict[float, int], list[str]]:
    """Choose shells (the last scan's, a target) and the order that all scans support."""
    light = [(name, load()) for name, load in scans]
    reference = light[-1][1]
    if plan.shell is None:
        shells = [reference.gradients.shell().bvalue]
    else:
        shells = [
            reference.gradients.shell(float(b)).bvalue
            for b in np.atleast_1d(np.asarray(plan.shell, float))
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
    orders, notes = features.common_orders(light, sorted(set(shells)), plan.order)
    for bvalue in orders:
        mapped = [
            f"{name} ({found:g})"
            for name, scan in light
            if features.needs_mapping(found := scan.gradients.shell(bvalue).bvalue, bvalue)
        ]
        if mapped:
            how = (
                f"their S/b0 were raised to {bvalue:g}/b"
                if plan.map_bvalue
                else "they were used as they are"
            )
            notes.append(
                f"{len(mapped)} scans differ from b={bvalue:g} s/mm² by more than 1 % and {how}: "
                f"{', '.join(mapped[:4])}{' ...' if len(mapped) > 4 else ''}."
            )
    return orders, notes


def require_pair(
    source: Channels, target: Channels, motion: Array, subject: str, *, lying: bool = False
) -> float:
    """Refuse two scans that are not of one head after a motion (target from source, mm).

    ``lying`` scans are taken as they lie: no motion was looked for.

    Returns
    -------
    The correlation of their FA and L0.
    """
    correlation, overlap = agreement(source, target, motion)
    if overlap < MIN_PAIR_OVERLAP or correlation < MIN_PAIR_CORRELATION:
        failed = "do not lie on each other" if lying else "cannot be aligned rigidly"
        remedy = f"{ALIGN} if they are misaligned, and " if lying else ""
        raise InputError(
            f"The scans of {subject} {failed}: their masks overlap by {overlap:.0%} (at least "
            f"{MIN_PAIR_OVERLAP:.0%} is needed) and their FA and L0 correlate by "
            f"{correlation:.2f} (at least {MIN_PAIR_CORRELATION:.2f}); {remedy}check that both "
            "are of one person and cover the same part of the head."
        )
    return correlation
