r"""Run an evaluation cell by cell, resumably: train, choose on validation, score on test.

A cell is a method on a protocol with a seed. Networks learn without truth on the training subjects;
nothing that is scored on the test subjects has been chosen on them. A cell's scores are one small
JSON file, written when it is done; a training that is stopped goes on from its state. One that
collapses is told of there in place of scores, and the others go on.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.evaluation.plan import (
    BASES,
    CEILING,
    DEGREE,
    NETWORKS,
    STEPS,
    TAUGHT,
    Cell,
    Settings,
    options,
    planned_cells,
    prepare_folder,
    undone_cells,
)
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, Case, Protocol, make_case
from napari_dmri.deconvolve.evaluation.scoring import joined, peaks_of, score_at, validation_score
from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.images import ResponseSet
from napari_dmri.progress import Progress, part, silent
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.images import ShImage

__all__ = ["evaluate", "fod_of", "model_path", "read_cells", "tissues_for"]


def evaluate(
    out: str | Path,
    settings: Settings | None = None,
    *,
    protocols: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Evaluate methods, or go on with an evaluation that was begun.

    Parameters
    ----------
    out
        A folder: empty, not there yet, or of the same evaluation.
    settings
        What must be the same to go on.
    protocols, methods, seeds
        What is done now; see `planned_cells`.
    minutes
        After so many no other cell is begun, and a training stops and keeps its state; None does
        all, 0 nothing. What goes before and after a training has no state and takes what it takes.
    device, progress
        Where it runs; who is told, and may raise `Cancelled`.

    Returns
    -------
    One dict a cell that is done: its protocol, method, seed, choices and scores, or in their place
    how its training ``collapsed``. None may be.

    Raises
    ------
    InputError
        If a name is unknown, the minutes are no number from 0, or the folder holds something else.
    """
    settings = settings or Settings()
    if minutes is not None and not minutes >= 0:
        raise InputError(f"{minutes:g} minutes are given; give 0 or more.")
    cells = planned_cells(protocols, methods, seeds)
    folder = prepare_folder(Path(out).expanduser(), settings)
    report = progress or silent
    clock = _Clock(minutes)
    left = undone_cells(folder, cells)
    done = len(cells) - len(left)
    try:
        for n, cell in enumerate(left, done):
            # However little time there is, a call brings the work on.
            if cell is not left[0] or minutes == 0:
                clock.check()
            inner = part(report, n / len(cells), (n + 1) / len(cells), f"{cell.name}: ")
            _run(cell, folder, settings, device, clock, inner)
            done = n + 1
    except _TimeIsUp:
        words = f"stopped after {minutes:g} minutes; the same command goes on"
        report(done / len(cells), words)
    return read_cells(folder) if any(folder.glob("*/scores.json")) else []


def read_cells(folder: str | Path) -> list[dict[str, Any]]:
    """Return the scores of all cells that are done.

    Raises
    ------
    InputError
        If there are none.
    """
    paths = sorted(Path(folder).glob("*/scores.json"))
    if not paths:
        raise InputError(f"{folder} holds no scores of an evaluation yet.")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def model_path(folder: Path, cell: Cell) -> Path:
    """Name the file of a cell's trained network."""
    return folder / cell.name / "model.safetensors"


def tissues_for(responses: ResponseSet, bvalues: int) -> ResponseSet:
    """Keep as many tissues as b-values can tell apart: white matter, then CSF, then grey matter.

    So much for classical methods, which a third tissue on two b-values either is refused (MSMT-CSD)
    or does not help (RUMBA-TV: F1 0.767 with it and without); networks take all tissues.
    """
    from napari_dmri.deconvolve.shd.fit import choose_others

    kept = ("wm", *choose_others(bvalues, tuple(responses), one_scan=True))
    return ResponseSet({tissue: responses[tissue] for tissue in responses if tissue in kept})


def fod_of(
    method: str,
    case: Case,
    model: ShdModel | None,
    chosen: dict[str, Any],
    device: str = "auto",
    *,
    everywhere: bool = False,
) -> ShImage:
    """Deconvolve a case by a method with the settings chosen for it.

    Only the scored voxels are deconvolved, except for ``everywhere`` and where a method iterates
    over neighbours; networks see the whole brain around a voxel in either case, as they would in
    use.
    """
    from napari_dmri.deconvolve.registry import deconvolve

    if method == CEILING and case.subject is not None:
        return case.subject.fod(DEGREE)
    scan, base = case.seen, BASES.get(method, method)
    responses = case.responses
    if base not in NETWORKS:
        responses = tissues_for(responses, len(scan.gradients.shells))
    wanted = None if everywhere else case.scored
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        given = chosen if model is None else {**chosen, "model": model}
        if base != "rumba-tv":
            given = {**given, "mask": wanted}
        return deconvolve(scan, base, responses, device=device, **given).fod


class _TimeIsUp(Cancelled):
    """The minutes of a call are over."""


class _Clock:
    """Stop a call when its minutes are over: between cells, and in a training that has begun.

    What goes before the first step keeps no state: to stop there would leave nothing to go on from.
    """

    def __init__(self, minutes: float | None) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.training = False

    def hear(self, event: Any) -> None:
        """Take an event of a training; one that was done already is let through to its end."""
        self.training = self.training or getattr(event, "kind", "done") != "done"

    def check(self) -> None:
        """Raise if the time is over."""
        if time.monotonic() > self.end:
            raise _TimeIsUp

    def timed(self, progress: Progress) -> Progress:
        """Check whenever a training reports."""

        def report(fraction: float, text: str) -> None:
            progress(fraction, text)
            if self.training:
                self.check()

        return report


def _run(
    cell: Cell, folder: Path, settings: Settings, device: str, clock: _Clock, report: Progress
) -> None:
    from napari_dmri.io.atomic import write_json

    protocol = PROTOCOLS[cell.protocol]
    model = None
    name = {"protocol": cell.protocol, "method": cell.method, "seed": cell.seed}
    scored = folder / cell.name / "scores.json"
    if cell.method in NETWORKS:
        try:
            model = _trained(cell, folder, settings, device, clock, part(report, 0, 0.8))
        except Collapsed as error:
            write_json(scored, {**name, "chosen": {}, "collapsed": str(error)})
            return
    report(0.8, "validation")
    chosen, threshold, f1 = _choose(cell.method, protocol, settings, model, device)
    cases = [_case(protocol, "test", k, settings) for k in range(settings.test)]
    found: list[NDArray[np.float32]] = []
    begun = time.monotonic()
    for k, case in enumerate(cases):
        report(0.9 + 0.1 * k / len(cases), f"test {case.name}")
        found.append(peaks_of(fod_of(cell.method, case, model, chosen, device), case))
    applied = time.monotonic() - begun
    truth = joined([case.truth for case in cases])
    scores = score_at(np.concatenate(found), truth, threshold)
    each = [score_at(p, c.truth, threshold)["f1"] for p, c in zip(found, cases, strict=True)]
    write_json(
        scored,
        {
            **name,
            "chosen": chosen,
            "threshold": threshold,
            "validation_f1": f1,
            **scores,
            "f1_each": each,
            "voxels": len(truth),
            "train_seconds": 0.0 if model is None else _seconds(model),
            "test_seconds": round(applied, 1),
        },
    )


def _seconds(model: ShdModel) -> float:
    """Return how long a network was trained, with known fODFs and without."""
    parts = [model.card, *([model.card["taught"]] if "taught" in model.card else [])]
    return float(sum(entry["outcome"]["seconds"] for entry in parts))


def _case(protocol: Protocol, role: str, number: int, settings: Settings) -> Case:
    return make_case(protocol, role, number, size=settings.scans)


def _choose(
    method: str, protocol: Protocol, settings: Settings, model: ShdModel | None, device: str
) -> tuple[dict[str, Any], float, float]:
    """Return the option with the largest F1 on the validation scan, its threshold, and the F1."""
    case = _case(protocol, "validation", 0, settings)
    best: tuple[dict[str, Any], float, float] | None = None
    for option in options(method, protocol):
        chosen = dict(option)
        peaks = peaks_of(fod_of(method, case, model, chosen, device), case)
        threshold, f1 = validation_score(peaks, case.truth)
        if best is None or f1 > best[2]:
            best = chosen, threshold, f1
    assert best is not None
    return best


def _is_of(model: ShdModel, chosen: Preset) -> bool:
    """Tell whether a network has a method's architecture, with gains or without, and its loss."""
    made, weights = model.architecture, dict(model.card["losses"])
    return (
        replace(made, gains=()) == chosen.architecture
        and bool(made.gains) == chosen.equalise
        and weights == chosen.losses.as_dict()
    )


def _trained(
    cell: Cell, folder: Path, settings: Settings, device: str, clock: _Clock, report: Progress
) -> ShdModel:
    """Return the cell's network: from its file, or trained now (from its state, if any)."""
    from napari_dmri.deconvolve.shd.amortise import Subject, train_model
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.presets import preset
    from napari_dmri.deconvolve.shd.teach import teach_model
    from napari_dmri.training.checkpoint import require_free

    path, taught = model_path(folder, cell), cell.method in TAUGHT
    method = BASES.get(cell.method, cell.method)
    if path.is_file():
        model = ShdModel.load(path)
        if not _is_of(model, preset(method, settings.size)):
            raise InputError(
                f"{path} is another network than {cell.method} is now; delete {path.parent}, or "
                "use another folder."
            )
        return model
    require_free(path)
    protocol = PROTOCOLS[cell.protocol]
    path.parent.mkdir(parents=True, exist_ok=True)
    subjects = []
    for k in range(settings.train):
        report(0.1 * k / settings.train, f"training subject {k + 1} of {settings.train}")
        case = _case(protocol, "train", k, settings)
        target = case.subject.fod(DEGREE) if taught and case.subject is not None else None
        subjects.append(
            Subject(case.name, case.scan, case.responses, inputs=case.inputs, target=target)
        )
    state = path.with_name("model.state.safetensors")
    steps = settings.steps or STEPS.get(settings.size)
    model = (teach_model if taught else train_model)(
        subjects,
        method,
        size=settings.size,
        steps=steps or preset(method, settings.size).plan.total_steps,
        seed=cell.seed,
        state=state,
        device=device,
        on_event=clock.hear,
        progress=clock.timed(part(report, 0.1, 1.0)),
    )
    model.save(path)
    drop_state(state)
    clock.check()
    return model
