"""Track bundles and probe lesions with the methods that an evaluation chose and trained."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.evaluation.cells import fod_of, model_path
from napari_dmri.deconvolve.evaluation.lesion import (
    LesionScore,
    lesion_scans,
    lesion_table,
    probe_lesion,
)
from napari_dmri.deconvolve.evaluation.plan import CEILING, DEGREE, NETWORKS, Cell, Settings
from napari_dmri.deconvolve.evaluation.protocols import (
    PROTOCOLS,
    ROLES,
    Case,
    Size,
    simulated,
    subject_case,
)
from napari_dmri.deconvolve.evaluation.tables import label_of
from napari_dmri.deconvolve.evaluation.tracking import (
    KINDS,
    BundleScore,
    Rules,
    score_bundles,
    track,
    tracking_table,
)
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.compare.tables import Table
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.images import ShImage
    from napari_dmri.phantom.travelling import TravellingSubject

__all__ = ["LESION_METHODS", "TRACKED", "study_lesions", "study_tracking"]

TRACKED = ("csd", "rumba-tv", "shd", "shd-tv", "shd-s")
LESION_METHODS = ("csd", "msmt-csd", "rumba-tv", "shd", "shd-tv", "shd-s", "shd-s-tv")
LESIONS = ("csf", "oedema")


def study_tracking(
    folder: str | Path,
    protocol: str = "high",
    methods: Sequence[str] = TRACKED,
    *,
    size: Size = "medium",
    rules: Rules | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Table:
    """Track the test subjects' fODFs of every method, and of the truth; what is done is kept.

    Parameters
    ----------
    folder
        Of the evaluation, which has chosen settings and trained networks (seed 0), and whose test
        subjects are tracked.
    protocol, methods, size
        Which scans and methods.
    rules
        Of tracking.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    A row a method and kind of tracking for the mean of the subjects, and one for each.

    Raises
    ------
    InputError
        If the evaluation has not done a method on the protocol yet.
    """
    report = progress or silent
    home = Path(folder).expanduser()
    names = (*methods, CEILING)
    cells = {m: _cell(home, protocol, m) for m in methods}
    people = ROLES["test"][: _test_subjects(home)]
    scores: list[dict[tuple[str, str], BundleScore]] = []
    for number, index in enumerate(people, 1):
        subject = case = None
        own: dict[tuple[str, str], BundleScore] = {}
        for n, name in enumerate(names):
            done = (number - 1 + n / len(names)) / len(people)
            report(done, f"subject {number} of {len(people)}, {name}")
            # The first subject's files are named as when there was no other.
            label = f"{protocol}_{name}" + ("" if number == 1 else f"_{number}")
            path = home / "tracking" / f"{label}.json"
            of = _origin(cells.get(name), size, rules)
            if not _holds(path, of):
                if case is None or subject is None:
                    subject, case = _test_case(protocol, index, size)
                truth = subject.truth
                fod = truth.fod(DEGREE) if name == CEILING else _fod(cells[name], case, device)
                found = {
                    k: asdict(score_bundles(track(fod, truth, k, rules), truth)) for k in KINDS
                }
                _write(path, {"of": of, "scores": found})
            for kind, values in json.loads(path.read_text(encoding="utf-8"))["scores"].items():
                own[label_of(name), kind] = BundleScore(**values)
        scores.append(own)
    report(1.0, "tracked")
    return tracking_table(*scores)


def study_lesions(
    folder: str | Path,
    protocol: str = "high",
    methods: Sequence[str] = LESION_METHODS,
    *,
    size: Size = "small",
    device: str = "auto",
    progress: Progress | None = None,
) -> Table:
    """Probe a test subject's lesions with every method; what is done is kept.

    Parameters
    ----------
    folder, protocol, methods, size, device, progress
        As for `study_tracking`.

    Raises
    ------
    InputError
        If the evaluation has not done a method on the protocol yet.
    """
    report = progress or silent
    home = Path(folder).expanduser()
    scores: dict[tuple[str, str], LesionScore] = {}
    cells = {m: _cell(home, protocol, m) for m in methods}
    steps = [(kind, m) for kind in LESIONS for m in methods]
    for n, (kind, name) in enumerate(steps):
        report(n / len(steps), f"{kind}, {name}")
        path = home / "lesions" / f"{protocol}_{kind}_{name}.json"
        of = _origin(cells[name], size, None)
        if not _holds(path, of):
            subject, inside = lesion_scans(PROTOCOLS[protocol], kind, size)
            case = subject_case(PROTOCOLS[protocol], subject)
            fod = _fod(cells[name], case, device)
            score = probe_lesion(fod, subject, inside, cells[name][1]["threshold"])
            _write(path, {"of": of, "scores": asdict(score)})
        held = json.loads(path.read_text(encoding="utf-8"))["scores"]
        scores[kind, label_of(name)] = LesionScore(**held)
    report(1.0, "probed")
    return lesion_table(scores)


def _test_subjects(folder: Path) -> int:
    """Return how many test subjects an evaluation has."""
    card = folder / "evaluation.json"
    held = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return int(held.get("test", Settings().test))


def _test_case(protocol: str, index: int, size: Size) -> tuple[TravellingSubject, Case]:
    chosen = PROTOCOLS[protocol]
    if not chosen.site:
        raise InputError(f"Protocol {protocol} has no subjects, so it has no bundles.")
    subject = simulated(chosen.site, index, size=size)
    return subject, subject_case(chosen, subject)


def _cell(folder: Path, protocol: str, method: str) -> tuple[Cell, dict[str, Any], Path]:
    """Return a cell of the evaluation with its scores and its model's file."""
    if protocol not in PROTOCOLS:
        raise InputError(f"Unknown protocol {protocol!r}; choose of {', '.join(PROTOCOLS)}.")
    cell = Cell(protocol, method, 0)
    path = folder / cell.name / "scores.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no scores of {method} on {protocol}; evaluate it first: "
            f"--method {method} --protocol {protocol}."
        )
    scores = json.loads(path.read_text(encoding="utf-8"))
    if "collapsed" in scores:
        raise InputError(
            f"{method} has no network on {protocol}: {scores['collapsed']} Leave the method out, "
            f"or delete {path.parent} and evaluate it again."
        )
    return cell, scores, model_path(folder, cell)


def _fod(done: tuple[Cell, dict[str, Any], Path], case: Case, device: str) -> ShImage:
    from napari_dmri.deconvolve.shd.model import ShdModel

    cell, scores, path = done
    model: ShdModel | None = ShdModel.load(path) if cell.method in NETWORKS else None
    fod = fod_of(cell.method, case, model, dict(scores["chosen"]), device, everywhere=True)
    return replace(fod, name=cell.method)


def _origin(
    cell: tuple[Cell, dict[str, Any], Path] | None, size: Size, rules: Rules | None
) -> dict[str, Any]:
    """Return what kept scores are of: scans, rules, and how the evaluation chose the method."""
    chosen: dict[str, Any] = {"degree": DEGREE}
    if cell is not None:
        chosen = {k: cell[1][k] for k in ("chosen", "threshold", "f1")}
    made = {"size": size, "rules": None if rules is None else asdict(rules), **chosen}
    return dict(json.loads(json.dumps(made)))


def _holds(path: Path, of: dict[str, Any]) -> bool:
    """Tell whether a file keeps scores of this very case."""
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("of") == of


def _write(path: Path, values: dict[str, Any]) -> None:
    from napari_dmri.io.atomic import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values, overwrite=True)
