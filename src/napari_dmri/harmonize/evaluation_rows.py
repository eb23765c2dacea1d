"""Score, on one subject, what a harmonizer of a cross-validation makes, and what none does."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.harmonize.reconstruct import refit
from napari_dmri.harmonize.training_pairs import Recipe, onto_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_dmri.compare.scores import Reference
    from napari_dmri.harmonize.base import Harmonizer
    from napari_dmri.harmonize.contenders import Case, Contender, Fold
    from napari_dmri.harmonize.evaluation_plan import Settings
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan

__all__ = ["BASELINES", "FLOOR", "REFITTED", "Scores", "baselines", "on_grid", "rows_of", "scored"]

REFITTED, FLOOR = "source, refitted", "target repeat, refitted (floor)"

BASELINES = ("source, raw", REFITTED, "target repeat, raw", FLOOR, "target without noise")
"""Rows that no method makes."""

MOVED = " Interpolation smooths it, in the rows without a model too."

Scores = list[dict[str, Any]]


def scored(ask: Callable[[Case], Scores], case: Case, labels: Sequence[str], fold: Fold) -> Scores:
    """Score a subject, or note under the rows' labels why it was refused."""
    try:
        return ask(case)
    except InputError as error:
        said = {"error": " ".join(str(error).split())}
        return [_entry(case, label, fold, said) for label in labels]


def rows_of(
    model: Harmonizer,
    one: Contender,
    settings: Settings,
    fold: Fold,
    device: str,
    progress: Progress,
    case: Case,
) -> Scores:
    """Score what a contender makes of a subject."""
    source, target = case.pair.source, case.pair.target
    source = on_grid(source, target, case.subject, settings.recipe, "source", device)
    reference = _reference(case, source, settings, device)
    rows = []
    for n, (label, projection) in enumerate(one.rows):
        progress(n / len(one.rows), f"scoring {label}")
        chosen: dict[str, Any] = {} if projection is None else {"projection": projection}
        harmonized = model.apply(source, device=device, **chosen)
        # LinearRISH scales the coefficients of a smoothed fit; networks learn the signal itself.
        smoothed = one.method == "linear-rish" and "smooth" not in one.settings
        scores = reference.score(harmonized, smoothed=smoothed)
        rows.append(_entry(case, label, fold, scores))
    return rows


def baselines(
    case: Case, settings: Settings, fold: Fold, device: str, progress: Progress
) -> Scores:
    """Score the rows that no method makes, as many as the subject has scans for."""
    progress(0.0, f"scoring {case.subject} without a model")
    target = case.pair.target
    source = on_grid(case.pair.source, target, case.subject, settings.recipe, "source", device)
    reference = _reference(case, source, settings, device)
    fit: dict[str, Any] = {
        "order": settings.order,
        "smooth": settings.smooth,
        "shell": settings.shell,
        "device": device,
    }
    scans = [("source, raw", source, reference), (REFITTED, refit(source, **fit), reference)]
    if case.repeat is not None:
        given = case.repeat.load()
        repeat = on_grid(given, target, case.subject, settings.recipe, "repeat", device)
        near = reference
        if repeat is given:
            repeat = repeat.with_mask(target.mask)
        else:
            # A moved slab lacks its ends; its rows are of the voxels that it has.
            near = _reference(case, repeat, settings, device)
        scans += [("target repeat, raw", repeat, near), (FLOOR, refit(repeat, **fit), near)]
    true = case.true_target(target)
    if true is not None:
        scans.append(("target without noise", true, reference))
    return [
        _entry(case, label, fold, by.score(scan, smoothed=label in (REFITTED, FLOOR)))
        for label, scan, by in scans
    ]


def on_grid(scan: Scan, target: Scan, subject: str, recipe: Recipe, role: str, device: str) -> Scan:
    """Return a scan on the target's grid, moved there as training moves a pair's source.

    Warns
    -----
    DmriWarning
        When it was moved: every row of that scan is then smoothed by interpolation as well.
    """
    moved, said = onto_target(scan, target, subject, recipe, role=role, device=device)
    if said:
        warnings.warn(said + MOVED, DmriWarning, stacklevel=2)
    return moved


def _reference(case: Case, scan: Scan, settings: Settings, device: str) -> Reference:
    """Return the target's measurements where it and a scan have tissue."""
    from napari_dmri.compare.scores import Reference
    from napari_dmri.compare.tissue import labels_on, tissue_labels

    target, given = case.pair.target, case.pair.tissue
    if given is None:
        labels: NDArray[Any] = tissue_labels(target, device=device)
    else:
        labels = labels_on(given, target)
    if target.mask is not None:
        labels = np.where(target.mask, labels, 0)
    if scan.mask is not None:
        labels = np.where(scan.mask, labels, 0)
    return Reference(target, labels, settings.shell, settings.order, settings.smooth, device)


def _entry(case: Case, label: str, fold: Fold, scores: Mapping[str, float | str]) -> dict[str, Any]:
    return {"subject": case.subject, "row": label, "fold": fold.number, **scores}
