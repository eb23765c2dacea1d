r"""k-fold cross-validation of harmonizers on travelling subjects: train, harmonize, score, resume.

Each subject is tested once, by models that have not seen it: the runner compares the training list
of every model, and the content of its scans, with the subject before it scores anything. A subject
whose scan a model refuses is noted with the reason, and the others go on. All methods use one SH
order and lambda. What is done is written as it is done, one file a fold and
method, so that the same call goes on where an earlier one stopped, in the middle of a training too.

A source or repeat on another grid than the target is first moved there, as training moves it, with
a warning.

Rows that no method makes stand beside: the source raw and refitted (an SH fit and no model), a
second scan of the target raw and refitted, and the target without noise. The refitted repeat is the
floor: what is between it and the refitted source is the gap that a method can close.
"""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.harmonize.base import refuse_training_subject
from napari_dmri.harmonize.contenders import DEFAULT, Case, Contender, Fold, contender, make_folds
from napari_dmri.harmonize.evaluation_plan import (
    Settings,
    choose_settings,
    models_of,
    prepare_folder,
    take_models,
)
from napari_dmri.harmonize.evaluation_rows import REFITTED, Scores, baselines, rows_of, scored
from napari_dmri.harmonize.registry import METHODS, load
from napari_dmri.progress import Progress, part, silent
from napari_dmri.training.checkpoint import require_free
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.harmonize.base import Harmonizer
    from napari_dmri.training.stages import Stage

__all__ = ["cross_validate", "read_refusals", "read_scores"]


def cross_validate(
    cases: Sequence[Case],
    out: str | Path,
    *,
    folds: int = 10,
    contenders: Sequence[str] = DEFAULT,
    order: int | None = None,
    smooth: float = 0.006,
    shell: float | None = None,
    stages: Sequence[Stage] | None = None,
    seed: int = 0,
    only: Sequence[int] | None = None,
    models: str | Path | None = None,
    processes: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
) -> Scores:
    """Cross-validate methods, or go on with a cross-validation that was begun.

    Parameters
    ----------
    cases
        Travelling subjects; see `read_cases`.
    out
        A folder: empty, not there yet, or of the same cross-validation.
    folds
        Their number.
    contenders
        Names; see `contender`.
    order, smooth, shell
        SH order (None: the poorer site's), lambda, b-value (None: the target's richest shell).
    stages
        The plan of training of the networks; None takes the paper's.
    seed
        Of folds and networks.
    only
        Numbers of the folds to do now, from 1; None does all.
    models
        The folder of a cross-validation of other people whose models are scored here; None trains.
    processes
        Folds at a time.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    One dict a subject and row: ``subject``, ``row``, ``fold`` and the scores.

    Raises
    ------
    InputError
        If there are too few subjects, the folder holds something else, or a model has seen the
        subject that it is tested on.
    """
    report = progress or silent
    settings = choose_settings(cases, order, smooth, shell, folds, seed, contenders, stages)
    plan = make_folds([case.subject for case in cases], settings.folds, seed)
    chosen = [fold for fold in plan if only is None or fold.number in only]
    if not chosen:
        raise InputError(f"No fold among {list(only or ())}; they are numbered 1 to {len(plan)}.")
    given = {} if models is None else models_of(Path(models).expanduser(), settings, chosen)
    folder = prepare_folder(Path(out).expanduser(), settings, cases)
    take_models(given, folder)
    if processes > 1 and len(chosen) > 1:
        _in_processes(cases, folder, settings, chosen, processes, device, report)
    else:
        for n, fold in enumerate(chosen):
            inner = part(report, n / len(chosen), (n + 1) / len(chosen), f"{fold.name}: ")
            run_fold(cases, folder, settings, fold, device, inner)
    report(1.0, f"{len(chosen)} folds done")
    return read_scores(folder)


def run_fold(
    cases: Sequence[Case],
    folder: Path,
    settings: Settings,
    fold: Fold,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Train and score all contenders of a fold; what is there already is kept."""
    by_name = {case.subject: case for case in cases}
    tested = [by_name[s] for s in fold.test]
    report = progress or silent
    where = folder / fold.name
    share = 1 / (len(settings.contenders) + 1)

    def without(case: Case) -> Scores:
        return baselines(case, settings, fold, device, report)

    _once(
        where / "scores_baselines.json",
        lambda: [row for case in tested for row in scored(without, case, [REFITTED], fold)],
    )
    for n, name in enumerate(settings.contenders):
        inner = part(report, (n + 1) * share, (n + 2) * share, f"{name}: ")
        one = contender(name)

        def work(one: Contender = one, inner: Progress = inner) -> Scores:
            model = _trained(one, by_name, where, settings, fold, device, part(inner, 0, 0.9))
            found: Scores = []
            for case in tested:
                # Who was trained on is the runner's fault; a scan that is refused is the scan's.
                for seen in (case.subject, case.pair.source, case.pair.target):
                    refuse_training_subject(model, seen)
                ask = partial(rows_of, model, one, settings, fold, device, part(inner, 0.9, 1))
                found += scored(ask, case, [label for label, _ in one.rows], fold)
            return found

        _once(where / f"scores_{name}.json", work)


def read_scores(folder: str | Path) -> Scores:
    """Return the scores of all folds that are done, subject by subject.

    Raises
    ------
    InputError
        If there are none.
    """
    found = [entry for entry in _entries(folder) if "error" not in entry]
    if not found:
        raise InputError(f"{folder} holds no scores of a cross-validation yet.")
    return sorted(found, key=lambda entry: str(entry["subject"]))


def read_refusals(folder: str | Path) -> list[str]:
    """Return, in a sentence each, which subjects a model of the folds that are done refused."""
    refused = {
        (str(e["subject"]), str(e["error"])): str(e["row"]).removesuffix(", projected")
        for e in _entries(folder)
        if "error" in e
    }
    return [f"{subject}, {row}: {error}" for (subject, error), row in sorted(refused.items())]


def _entries(folder: str | Path) -> Scores:
    found: Scores = []
    for path in sorted(Path(folder).glob("fold-*/scores_*.json")):
        found += json.loads(path.read_text(encoding="utf-8"))
    return found


def _in_processes(
    cases: Sequence[Case],
    folder: Path,
    settings: Settings,
    chosen: Sequence[Fold],
    processes: int,
    device: str,
    report: Progress,
) -> None:
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children, get_context

    others = {child.pid for child in active_children()}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {
            pool.submit(_alone, list(cases), folder, settings, fold, device, processes)
            for fold in chosen
        }
        try:
            done = 0
            while running:
                ready, running = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in ready:
                    future.result()
                done += len(ready)
                report(done / len(chosen), f"{done} of {len(chosen)} folds")
        except BrokenProcessPool as error:
            raise InputError(
                f"{processes} worker processes could not start or were killed; what is done is "
                'kept. In a script, call from under `if __name__ == "__main__":`, or use one.'
            ) from error
        except BaseException:
            for future in running:
                future.cancel()
            # A training that is ended here keeps its state and goes on from it.
            for child in active_children():
                if child.pid not in others:
                    child.terminate()
            raise


def _alone(
    cases: list[Case], folder: Path, settings: Settings, fold: Fold, device: str, processes: int
) -> None:
    """Run a fold in a process of its own, with its share of the cores."""
    import os

    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        run_fold(cases, folder, settings, fold, device)


def _once(path: Path, work: Any) -> None:
    """Do some work and write its scores, unless they are there already."""
    from napari_dmri.io.atomic import write_json

    if not path.is_file():
        write_json(path, work())


def _trained(
    one: Contender,
    cases: dict[str, Case],
    where: Path,
    settings: Settings,
    fold: Fold,
    device: str,
    progress: Progress,
) -> Harmonizer:
    """Return the fold's model: from its file, or trained now (from its state, if there is one)."""
    path = where / f"{one.name}.safetensors"
    if path.is_file():
        return load(path)
    require_free(path)
    given = {"order": settings.order, "smooth": settings.smooth, "shell": settings.shell}
    pairs = {s: cases[s].pair for s in (*fold.train, *fold.validation)}
    if one.method == "linear-rish":
        # It has no epochs to choose from, so it learns from the validation subject as well.
        model = METHODS[one.method].make(**{**given, **one.settings})
        model.fit(list(pairs.values()), device=device, progress=progress)
        model.save(path)
        return load(path)
    where.mkdir(parents=True, exist_ok=True)
    model = METHODS[one.method].make(
        **given, **one.settings, seed=settings.seed, stages=settings.stages
    )
    state = where / f"{one.name}.state.safetensors"
    model.fit(
        [pairs[s] for s in fold.train],
        validation=[pairs[s] for s in fold.validation],
        device=device,
        progress=progress,
        state=state,
    )
    model.save(path)
    drop_state(state)
    return load(path)
