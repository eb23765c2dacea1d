"""Several harmonizers on one scan, set against the scan that the target site measured.

Rows: the source as measured; *refit only*, the source after the models' SH fit and no model, which
is what a method has to beat, as fitting alone removes noise; then each model. All are scored
against the reference as measured (`compare.scores`), and set against each other in blocks of
voxels (`compare.blocks`).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.harmonize.base import (
    choose_projection,
    has_projection,
    refuse_training_subject,
    same_subject,
)
from napari_dmri.harmonize.cards import refuse_errors
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.compare.tables import Table
    from napari_dmri.harmonize.base import Harmonizer
    from napari_dmri.images import ScalarImage
    from napari_dmri.scan import Scan

__all__ = [
    "MEASURED",
    "REFIT",
    "REPEAT",
    "Candidate",
    "SideBySide",
    "compare_models",
    "model_label",
    "require_reference",
]

Array = NDArray[Any]

MEASURED, REFIT, REPEAT = "as measured", "refit only", "target again"
"""Rows without a model."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Hold a row: its label, the scan as it makes it, its scores and squared errors by voxel."""

    label: str
    scan: Scan
    scores: Mapping[str, float]
    errors: Mapping[str, Array]
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    model: bool = False


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Hold several harmonizations of one scan and how near each comes to the reference.

    Parameters
    ----------
    source, reference
        The scan that was harmonized, and the one that the target site measured, both masked.
    candidates
        `MEASURED`, `REFIT`, the models in the order given, and where there is one the target's
        second scan.
    failed
        Models that could not be used, and why, by label.
    labels
        1 white matter, 2 grey matter (X, Y, Z).
    squares
        Squares of the reference's signal, FA and MD in each voxel (X, Y, Z).
    bvalue, order, smooth
        Shell (s/mm²), SH order and lambda of the fit.
    notes
        What had to be said.
    """

    source: Scan
    reference: Scan
    candidates: tuple[Candidate, ...]
    failed: Mapping[str, str]
    labels: NDArray[np.int16]
    squares: Mapping[str, Array]
    bvalue: float
    order: int
    smooth: float
    notes: tuple[str, ...] = ()
    _cache: Any = field(default=None, repr=False)

    def __getitem__(self, label: str) -> Candidate:
        for one in self.candidates:
            if one.label == label:
                return one
        raise KeyError(label)

    @property
    def models(self) -> tuple[Candidate, ...]:
        """The rows that a model made."""
        return tuple(one for one in self.candidates if one.model)

    def scores(self) -> Table:
        """Tabulate the scores: a row a candidate, and a row that says why a model failed."""
        from napari_dmri.harmonize.side_by_side_report import score_table

        return score_table(self)

    def tests(self) -> Table:
        """Tabulate how the errors of each two methods differ, in blocks of this scan."""
        from napari_dmri.harmonize.side_by_side_report import test_table

        return test_table(self)

    def maps(
        self, name: str = "FA", *, device: str = "auto", progress: Progress | None = None
    ) -> dict[str, ScalarImage]:
        """Compute one map of the reference (key ``"reference"``) and of every candidate.

        Parameters
        ----------
        name
            One of `napari_dmri.compare.maps.MAPS` but ``"volume"``.
        device, progress
            Where it runs; who is told.
        """
        from napari_dmri.compare.maps import compute_map

        scans = {"reference": self.reference} | {c.label: c.scan for c in self.candidates}
        found = {}
        for n, (label, scan) in enumerate(scans.items()):
            inner = part(progress, n / len(scans), (n + 1) / len(scans), f"{label}: ")
            inner(0.0, name)
            image = compute_map(
                scan,
                name,
                order=self.order,
                smooth=self.smooth,
                shell=self.bvalue,
                device=device,
                progress=inner,
                cache=self._cache,
            )
            found[label] = replace(image, name=f"{name}: {label}")
        return found


def compare_models(
    scan: Scan,
    reference: Scan,
    models: Sequence[Harmonizer | str | Path] | Mapping[str, Harmonizer | str | Path],
    *,
    labels: Array | ScalarImage | None = None,
    repeat: Scan | None = None,
    both_projections: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> SideBySide:
    """Harmonize a scan with several models and compare all with a reference.

    A model that cannot be used (missing, of another shell, trained on this subject) is left out
    with its reason in ``failed``; the others go on.

    Parameters
    ----------
    scan
        A scan of the source site.
    reference
        The same person measured at the target site, on the same grid and in register.
    models
        Trained models, files, or names of models of the package; a mapping gives their labels.
    labels
        1 white matter, 2 grey matter (X, Y, Z); None takes the tissue rule on the reference.
    repeat
        A second scan at the target site: as near as a method can be expected to come.
    both_projections
        Whether each network is applied with and without the RISH projection.
    device, progress
        Where it runs; who is told.

    Raises
    ------
    InputError
        If there is no model or none can be used, the reference is the scan itself, of another
        person or on another grid, or the labels are on another grid.
    """
    from napari_dmri.compare.maps import MapCache
    from napari_dmri.harmonize import features
    from napari_dmri.harmonize.reconstruct import refit

    report = progress or silent
    report(0.0, "checking the scans")
    require_reference(scan, reference)
    loaded, failed = _load(models, scan, reference)
    if not loaded:
        reasons = " ".join(f"{label}: {why}" for label, why in failed.items())
        raise InputError(f"No model can be compared. {reasons}".strip())
    if both_projections:
        loaded = _both_projections(loaded)
    cards = [model.card for model in loaded.values()]
    bvalue, order = float(cards[0]["shell"]), max(int(card["order"]) for card in cards)
    smooth = float(cards[0]["parameters"]["smooth"])
    for label in [label for label, model in loaded.items() if not _has(model.card, scan, bvalue)]:
        other = float(loaded.pop(label).card["shell"])
        failed[label] = (
            f"The model is of b={other:g} s/mm² and the comparison of b={bvalue:g} s/mm², as the "
            "first model is; compare models of one shell."
        )
    source, _ = features.with_mask(scan, part(report, 0.0, 0.05, "mask: "))
    target, _ = features.with_mask(reference, part(report, 0.05, 0.1, "mask: "))
    scored = _reference(source, target, labels, bvalue, order, smooth, device)
    rows = [_row(MEASURED, source, scored)]
    fit: dict[str, Any] = {"order": order, "smooth": smooth, "shell": bvalue, "device": device}
    report(0.15, "SH fit without a model")
    rows.append(_row(REFIT, refit(source, **fit), scored, smoothed=True))
    ends = np.linspace(0.2, 0.95, len(loaded) + 1)
    for (label, model), start, stop in zip(loaded.items(), ends, ends[1:], strict=False):
        inner = part(report, float(start), float(stop), f"{label}: ")
        try:
            rows.append(_apply(label, model, source, scored, device, inner))
        except (InputError, OSError) as error:
            failed[label] = str(error)
    if not any(row.model for row in rows):
        reasons = " ".join(f"{label}: {why}" for label, why in failed.items())
        raise InputError(f"No model could harmonize {scan.name}. {reasons}")
    if repeat is not None:
        report(0.95, "the target's second scan")
        again = refit(repeat.with_mask(target.mask), **fit)
        rows.append(_row(REPEAT, again, scored, smoothed=True))
    report(1.0, f"{sum(row.model for row in rows)} models compared")
    return SideBySide(
        source,
        _single(target, scored.inside, bvalue),
        tuple(replace(r, scan=_single(r.scan, scored.inside, bvalue)) for r in rows),
        failed,
        np.asarray(scored.labels, np.int16),
        scored.squares,
        scored.bvalue,
        order,
        smooth,
        tuple(_notes(scan, reference, cards)),
        MapCache(),
    )


def require_reference(scan: Scan, reference: Scan) -> None:
    """Refuse a reference that says nothing about how a scan was harmonized.

    Raises
    ------
    InputError
        If it is the scan itself, of another person, or on another grid.
    """
    from napari_dmri.compare.maps import require_same_grid

    if scan is reference or (scan.path is not None and scan.path == reference.path):
        raise InputError(
            f"{scan.name} is the scan and the reference; the reference is what the target site "
            "measured of the same person."
        )
    people = [str(s.metadata.get("subject") or "") for s in (scan, reference)]
    if all(people) and not same_subject(*people):
        raise InputError(
            f"The scan is of {people[0]} and the reference of {people[1]}; the reference must be "
            "of the same person."
        )
    require_same_grid(scan, reference, "comparison", (scan.name, f"the reference {reference.name}"))


def model_label(card: Mapping[str, Any]) -> str:
    """Return what a model is called among others: its method, and its mode if it has several."""
    label = str(card.get("label") or card.get("method") or "model")
    return f"{label} {card['mode']}" if card.get("method") == "shresnet" else label


def _load(
    models: Sequence[Harmonizer | str | Path] | Mapping[str, Harmonizer | str | Path],
    scan: Scan,
    reference: Scan,
) -> tuple[dict[str, Harmonizer], dict[str, str]]:
    """Return the models that fit the scan, and why others do not, by label."""
    from napari_dmri.harmonize.registry import load

    given = models.items() if isinstance(models, Mapping) else [("", m) for m in models]
    loaded: dict[str, Harmonizer] = {}
    failed: dict[str, str] = {}
    for wanted, one in given:
        name = wanted or (Path(one).stem if isinstance(one, (str, Path)) else "model")
        try:
            model = load(one) if isinstance(one, (str, Path)) else one
            name = _unused(wanted or model_label(model.card), {**loaded, **failed})
            for seen in (scan, reference):
                refuse_training_subject(model, seen)
            refuse_errors(model.check(scan), f"The {name} model")
        except (InputError, OSError) as error:
            failed[_unused(name, {**loaded, **failed})] = str(error)
        else:
            loaded[name] = model
    return loaded, failed


def _both_projections(loaded: Mapping[str, Harmonizer]) -> dict[str, Harmonizer]:
    """Return every model that has a projection twice: without it, and with it."""
    made: dict[str, Harmonizer] = {}
    for label, model in loaded.items():
        if has_projection(model):
            made[label] = choose_projection(model, False)
            label = _unused(f"{label}, projected", {**loaded, **made})
            model = choose_projection(model, True)
        made[label] = model
    return made


def _has(card: Mapping[str, Any], scan: Scan, bvalue: float) -> bool:
    """Return whether a model is of the shell of a scan that a b-value names."""
    own = scan.gradients.shell(bvalue).bvalue
    for one in card.get("shells") or [{"bvalue": card["shell"]}]:
        # A model may have shells that this scan lacks.
        with suppress(InputError):
            if scan.gradients.shell(float(one["bvalue"])).bvalue == own:
                return True
    return False


def _unused(label: str, taken: Mapping[str, Any]) -> str:
    """Return a label that no other model has, with a number where it must."""
    if label not in taken:
        return label
    return next(f"{label} ({n})" for n in range(2, 1000) if f"{label} ({n})" not in taken)


def _reference(
    source: Scan,
    target: Scan,
    labels: Array | ScalarImage | None,
    bvalue: float,
    order: int,
    smooth: float,
    device: str,
) -> Any:
    """Return what candidates are scored against, in voxels that both scans have."""
    from napari_dmri.compare.scores import Reference
    from napari_dmri.compare.tissue import labels_on, tissue_labels

    found = tissue_labels(target, device=device) if labels is None else labels_on(labels, target)
    found = np.where(np.asarray(source.mask) & np.asarray(target.mask), found, 0)
    return Reference(target, found, bvalue, order, smooth, device)


def _apply(
    label: str, model: Harmonizer, source: Scan, scored: Any, device: str, progress: Progress
) -> Candidate:
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        made = model.apply_detailed(source, device=device, progress=part(progress, 0, 0.9))
    seconds = time.perf_counter() - begun
    progress(0.9, "scoring")
    row = _row(label, made.scan, scored, smoothed=model.card["method"] == "linear-rish")
    return replace(row, seconds=seconds, notes=tuple(made.notes), model=True)


def _row(label: str, scan: Scan, scored: Any, *, smoothed: bool = False) -> Candidate:
    scores, errors = scored.score_with_errors(scan, smoothed=smoothed)
    return Candidate(label, scan, scores, errors)


def _single(scan: Scan, inside: Array, bvalue: float) -> Scan:
    """Return b0 and the shell that is compared, so that maps are of what the scores are of."""
    shell = scan.gradients.shell(bvalue)
    volumes = np.sort(np.concatenate([np.flatnonzero(scan.gradients.b0_mask), shell.indices]))
    kept = scan if len(volumes) == scan.shape[3] else scan.select(volumes)
    return kept.with_mask(scan.mask if scan.mask is not None else inside)


def _notes(scan: Scan, reference: Scan, cards: Sequence[Mapping[str, Any]]) -> list[str]:
    site = reference.metadata.get("site")
    sites = {str(card["target_site"]) for card in cards}
    said = []
    if site and sites - {str(site), "target"}:
        said.append(
            f"The reference says it is from {site}; models harmonize to {', '.join(sorted(sites))}."
        )
    if scan.simulated or reference.simulated:
        said.append("Simulated scans.")
    return said
