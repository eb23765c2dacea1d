"""The verb that compares deconvolution methods on simulated subjects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dmri.commands.console import (
    DeviceOption,
    JsonOption,
    QuietOption,
    emit,
    print_table,
    progress_bar,
)
from napari_dmri.errors import Cancelled, InputError

if TYPE_CHECKING:
    from napari_dmri.compare.tables import Table
    from napari_dmri.deconvolve.evaluation.plan import Settings
    from napari_dmri.progress import Progress

__all__ = ["evaluate"]

STUDIES = ("directions", "tracking", "lesions")


def evaluate(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder that keeps models and scores."),
    ],
    study: Annotated[str, typer.Option(help="directions, tracking or lesions.")] = "directions",
    size: Annotated[
        str, typer.Option(help="small (networks for a CPU) or paper (the papers' networks).")
    ] = "small",
    protocols: Annotated[
        list[str] | None,
        typer.Option("--protocol", help="high, low, super, random; may be repeated."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="A method; may be repeated.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Trainings of each network; 3 of SHD, SHD-TV, SHD-S and 1 of others."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each training; 3000, or the paper's.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after so many minutes, in a training, too; directions only."),
    ] = None,
    scans: Annotated[
        str | None, typer.Option(help="Simulated scans: small, medium or full.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare deconvolution methods on simulated subjects whose fibres are known.

    Networks learn from three subjects and a fourth chooses the epoch; settings and thresholds are
    chosen on a fifth, and two more are scored. The folder keeps all that is done; the same command
    goes on in it, in the middle of a training too. The method 'shipped' is the package's network
    for a protocol, as it is. The studies of tracking and lesions take methods and networks from it.
    """
    from napari_dmri.deconvolve.evaluation.plan import Settings

    if study not in STUDIES:
        raise InputError(f"Unknown study {study!r}; choose one of {', '.join(STUDIES)}.")
    if study != "directions":
        own = {"--minutes": minutes, "--steps": steps, "--seeds": seeds}
        given = [name for name, value in own.items() if value is not None]
        given += [] if size == "small" else ["--size"]
        if given:
            raise InputError(
                f"The study of {study} trains nothing and takes no {', '.join(given)}; leave them "
                "out, or train with --study directions first."
            )
    left: list[str] = []
    try:
        with progress_bar(quiet) as progress:
            if study == "directions":
                settings = Settings(size=size, scans=scans or "small", steps=steps)
                tables, files, left = _directions(
                    output, settings, protocols, methods, seeds, minutes, device, progress
                )
            else:
                tables, files = _studies(study, output, protocols, methods, scans, device, progress)
    except (Cancelled, KeyboardInterrupt):
        typer.secho("The same command goes on.", fg="yellow", err=True)
        raise
    if json:
        shown = {name: table.to_dict() for name, table in tables.items()}
        emit({**shown, "left": left, "files": files}, (), json=True, quiet=quiet)
        return
    for table in tables.values():
        print_table(table, quiet=quiet)
    lines = [f"wrote {', '.join(f.name for f in files)} to {output}"] if files else []
    if left:
        lines.append(
            f"stopped after {minutes:g} minutes with {_cells(len(left))} to do "
            f"({', '.join(left[:3])}{', ...' if len(left) > 3 else ''}); the same command goes on"
        )
    emit({}, lines, json=False, quiet=quiet)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _directions(
    output: Path,
    settings: Settings,
    protocols: list[str] | None,
    methods: list[str] | None,
    seeds: int | None,
    minutes: float | None,
    device: str,
    progress: Progress,
) -> tuple[dict[str, Table], list[Path], list[str]]:
    """Return the tables, the files, and the names of the cells that are still to do."""
    from napari_dmri.deconvolve.evaluation.cells import evaluate as run
    from napari_dmri.deconvolve.evaluation.plan import planned_cells, undone_cells
    from napari_dmri.deconvolve.evaluation.tables import result_tables, write_results

    cells = run(
        output,
        settings,
        protocols=protocols or (),
        methods=methods or (),
        seeds=seeds,
        minutes=minutes,
        device=device,
        progress=progress,
    )
    home = output.expanduser()
    left = undone_cells(home, planned_cells(protocols or (), methods or (), seeds))
    files = write_results(home, cells) if cells else []
    return result_tables(cells), files, [cell.name for cell in left]


def _studies(
    study: str,
    output: Path,
    protocols: list[str] | None,
    methods: list[str] | None,
    scans: str | None,
    device: str,
    progress: Progress,
) -> tuple[dict[str, Table], list[Path]]:
    """Return the tables of a study, one a protocol, and the files."""
    from napari_dmri.deconvolve.evaluation import studies
    from napari_dmri.io.atomic import write_text

    tracking = study == "tracking"
    run = studies.study_tracking if tracking else studies.study_lesions
    usual = studies.TRACKED if tracking else studies.LESION_METHODS
    tables, files = {}, []
    for name in protocols or ["high"]:
        table = tables[f"{study}_{name}"] = run(
            output,
            name,
            methods or usual,
            size=scans or ("medium" if tracking else "small"),
            device=device,
            progress=progress,
        )
        for suffix, text in (("tsv", table.to_tsv()), ("md", table.to_markdown())):
            files.append(output.expanduser() / f"{study}_{name}.{suffix}")
            write_text(files[-1], text, overwrite=True)
    return tables, files
