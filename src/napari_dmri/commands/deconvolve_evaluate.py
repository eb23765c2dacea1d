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
from napari_dmri.errors import InputError

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
        float | None, typer.Option(help="Begin nothing new after so many minutes.")
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
    goes on in it, in the middle of a training too. The studies of tracking and lesions take methods
    and networks from it.
    """
    from napari_dmri.deconvolve.evaluation.plan import Settings
    from napari_dmri.io.atomic import write_text

    if study not in STUDIES:
        raise InputError(f"Unknown study {study!r}; choose one of {', '.join(STUDIES)}.")
    with progress_bar(quiet) as progress:
        if study == "directions":
            settings = Settings(size=size, scans=scans or "small", steps=steps)
            tables, files = _directions(
                output, settings, protocols or [], methods or [], seeds, minutes, device, progress
            )
        else:
            tables = {}
            for name in protocols or ["high"]:
                tables[f"{study}_{name}"] = _study(
                    study, output, name, methods, scans, device, progress
                )
            files = []
            for name, table in tables.items():
                for suffix, text in (("tsv", table.to_tsv()), ("md", table.to_markdown())):
                    files.append(output / f"{name}.{suffix}")
                    write_text(files[-1], text, overwrite=True)
    if json:
        emit(
            {**{name: table.to_dict() for name, table in tables.items()}, "files": files},
            (),
            json=True,
            quiet=quiet,
        )
        return
    for table in tables.values():
        print_table(table, quiet=quiet)
    emit({}, [f"wrote {', '.join(f.name for f in files)} to {output}"], json=False, quiet=quiet)


def _directions(
    output: Path,
    settings: Settings,
    protocols: list[str],
    methods: list[str],
    seeds: int | None,
    minutes: float | None,
    device: str,
    progress: Progress,
) -> tuple[dict[str, Table], list[Path]]:
    from napari_dmri.deconvolve.evaluation.cells import evaluate as run
    from napari_dmri.deconvolve.evaluation.tables import result_tables, write_results

    cells = run(
        output,
        settings,
        protocols=protocols,
        methods=methods,
        seeds=seeds,
        minutes=minutes,
        device=device,
        progress=progress,
    )
    return result_tables(cells), write_results(output, cells)


def _study(
    study: str,
    output: Path,
    protocol: str,
    methods: list[str] | None,
    scans: str | None,
    device: str,
    progress: Progress,
) -> Table:
    from napari_dmri.deconvolve.evaluation import studies

    tracking = study == "tracking"
    run = studies.study_tracking if tracking else studies.study_lesions
    usual = studies.TRACKED if tracking else studies.LESION_METHODS
    return run(
        output,
        protocol,
        methods or usual,
        size=scans or ("medium" if tracking else "small"),
        device=device,
        progress=progress,
    )
