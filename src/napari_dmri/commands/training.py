"""What the verbs of harmonization need to train networks and to cross-validate methods."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import Cancelled, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_dmri.compare.tables import Table
    from napari_dmri.progress import Progress
    from napari_dmri.training.stages import Stage

__all__ = [
    "LEARNED",
    "cross_validation",
    "fit_network",
    "kept_folder",
    "network_settings",
    "resumable",
    "short_stages",
    "state_beside",
]

LEARNED = ("shresnet", "golkov")


def network_settings(
    method: str,
    *,
    mode: str | None,
    blocks: int | None,
    projection: bool | None,
    epochs: int | None,
    seed: int | None,
    learning_rate: float | None = None,
    energy: float | None = None,
    registration: str | None = None,
) -> dict[str, Any]:
    """Return the settings of a network's training that were given.

    Raises
    ------
    InputError
        If one was given that the method does not have, or is out of range.
    """
    given: dict[str, Any] = {
        name: value
        for name, value in (
            ("mode", mode),
            ("blocks", blocks),
            ("projection", projection),
            ("epochs", epochs),
            ("seed", seed),
            ("learning_rate", learning_rate),
            ("energy", energy),
            ("registration", registration),
        )
        if value is not None
    }
    if method not in LEARNED and given:
        raise InputError(
            f"{method} has no setting {', '.join(given)}; these belong to {' and '.join(LEARNED)}."
        )
    if method == "golkov" and {"mode", "blocks"} & set(given):
        raise InputError("The Golkov network is voxel-wise; it has no mode and no blocks.")
    if {"epochs", "learning_rate"} & set(given):
        given["stages"] = short_stages(given.pop("epochs", None), given.pop("learning_rate", None))
    return given


def short_stages(epochs: int | None, learning_rate: float | None = None) -> tuple[Stage, ...]:
    """Return the paper's stages, changed.

    Parameters
    ----------
    epochs
        Of the second stage at most; 0 leaves it out, None leaves it as it is.
    learning_rate
        Of both stages at their beginning; None takes the paper's.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    from napari_dmri.harmonize.learned import PAPER_STAGES

    if epochs is not None and epochs < 0:
        raise InputError(f"{epochs} epochs of the second stage; expected 0 or more.")
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise InputError(
            f"A learning rate of {learning_rate:g}; expected a number above 0 and below 1, the "
            f"paper's is {PAPER_STAGES[0].lr:g}."
        )
    first, second = PAPER_STAGES
    if learning_rate is not None:
        first, second = (replace(stage, lr=learning_rate) for stage in PAPER_STAGES)
    if epochs is None:
        return first, second
    return (first, replace(second, epochs=epochs)) if epochs else (first,)


def state_beside(output: Path) -> Path:
    """Name the file in which a training keeps its state until the model is written."""
    return output.with_name(f"{output.name.removesuffix('.safetensors')}.training.safetensors")


def fit_network(
    model: Any,
    pairs: Sequence[Any],
    validation: Sequence[Any] | None,
    output: Path,
    device: str,
    progress: Progress,
) -> Path:
    """Train a network with its state beside the model's file; return the state's path.

    A training that was stopped keeps the state, and the same call goes on from it.
    """
    from napari_dmri.io.atomic import require_writable

    state = state_beside(output)
    require_writable(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    with resumable(state):
        model.fit(pairs, validation=validation, device=device, progress=progress, state=state)
    return state


@contextmanager
def resumable(*states: Path) -> Iterator[None]:
    """Say, when a training is stopped, that it can go on from the first state that is there."""
    import typer

    try:
        yield
    except (Cancelled, KeyboardInterrupt):
        for state in [path for path in states if path.is_file()][:1]:
            typer.secho(f"The same command goes on from {state.name}.", fg="yellow", err=True)
        raise


@contextmanager
def kept_folder(folder: Path) -> Iterator[None]:
    """Make a folder to write in, and take it away again where nothing came of it."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # a state that was kept, for one
                folder.rmdir()
        raise


def cross_validation(
    pairs: Path,
    output: Path,
    *,
    source_site: str | None,
    folds: int,
    methods: Sequence[str],
    order: int | None,
    smooth: float,
    shell: float | None,
    epochs: int | None,
    seed: int,
    only: Sequence[int],
    models: Path | None,
    processes: int,
    device: str,
    progress: Progress,
) -> tuple[dict[str, Table], list[Path], list[str]]:
    """Cross-validate methods, or go on with it, and write the tables of what is done.

    Returns
    -------
    The tables by name, the files, and who was refused, in a sentence each.
    """
    from napari_dmri.harmonize.contenders import DEFAULT, SWEEP, read_cases
    from napari_dmri.harmonize.evaluation import cross_validate, read_refusals
    from napari_dmri.harmonize.evaluation_report import report_tables, write_report
    from napari_dmri.progress import part

    cases = read_cases(pairs, source_site)
    named: list[str] = []
    for name in methods or DEFAULT:
        named += SWEEP if name == "sweep" else [name]
    scores = cross_validate(
        cases,
        output,
        folds=folds,
        contenders=list(dict.fromkeys(named)),
        order=order,
        smooth=smooth,
        shell=shell,
        stages=None if epochs is None else short_stages(epochs),
        seed=seed,
        only=list(only) or None,
        models=models,
        processes=processes,
        device=device,
        progress=part(progress, 0, 0.99),
    )
    simulated = bool(cases[0].pair.target.simulated)
    refused = read_refusals(output)
    tables = report_tables(scores, simulated=simulated, refused=refused)
    files = write_report(output, tables, scores, simulated=simulated)
    progress(1.0, "evaluated")
    return tables, files, refused
