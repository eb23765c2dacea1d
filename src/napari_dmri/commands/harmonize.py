"""Verbs of harmonization: train, apply, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dmri.commands.console import (
    BvalOption,
    BvecOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    Verbs,
    emit,
    print_table,
    progress_bar,
    refuse_file,
    say_error,
)
from napari_dmri.errors import InputError

__all__ = ["app"]

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    help="Make scans of one site comparable with another's: train, apply, evaluate.",
)

ModelArgument = Annotated[Path, typer.Argument(help="A trained model file.", show_default=False)]
OutOption = Annotated[
    Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)
]


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="The method, e.g. linear-rish.")],
    output: OutOption,
    pairs: Annotated[
        Path | None, typer.Option(help="TSV of travelling pairs: subject, source, target.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="TSV of two groups: site, scan, mask.")
    ] = None,
    source_site: Annotated[
        str | None, typer.Option(help="Which site is the source, where the TSV leaves a choice.")
    ] = None,
    order: Annotated[int | None, typer.Option(help="SH order; the poorer scans decide.")] = None,
    smooth: Annotated[float, typer.Option(help="Laplace-Beltrami lambda.")] = 0.006,
    shell: Annotated[float | None, typer.Option(help="b-value in s/mm².")] = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model on travelling pairs or on two groups."""
    from napari_dmri.harmonize import METHODS, read_groups, read_pairs

    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if (pairs is None) == (groups is None):
        given = "both were given" if pairs else "none was given"
        raise InputError(f"Training takes --pairs TSV or --groups TSV, and {given}; give one.")
    if output.suffix != ".safetensors":
        output = output.with_name(output.name + ".safetensors")
    refuse_file(output, overwrite)
    model = METHODS[method].make(order=order, smooth=smooth, shell=shell)
    with progress_bar(quiet) as progress:
        if pairs is not None:
            model.fit(read_pairs(pairs, source_site), device=device, progress=progress)
        elif groups is not None:
            both = read_groups(groups, source_site)
            model.fit_groups(both.source, both.target, device=device, progress=progress)
    path = model.save(output, overwrite=overwrite)
    card = model.card
    lines = [
        f"{card['label']}: {card['source_site']} -> {card['target_site']}, "
        f"{len(card['subjects'])} subjects, order {card['order']} at b={card['shell']:g} s/mm²",
        *(["trained on simulated scans: demo only"] if card.get("simulated") else []),
        f"wrote {path}",
    ]
    emit({"card": card, "files": [path]}, lines, json=json, quiet=quiet)


@app.command()
def apply(
    model: ModelArgument,
    scans: Annotated[
        list[Path], typer.Argument(help="Scans, or folders of scans.", show_default=False)
    ],
    output: OutOption,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write the scale maps and the alignment beside.")
    ] = False,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Harmonize scans; a scan that fails does not stop the others.

    One scan goes to the file OUT. Several scans, or a folder, go to the folder OUT with one row a
    scan in summary.tsv. Without --mask, a mask beside a scan (NAME_mask.nii.gz) is used, else one
    is made. With --maps, a folder NAME_maps beside each result holds the scale map of each order
    and what the alignment looks like. The exit code is 1 when a scan failed.
    """
    from napari_dmri.commands.batch import Job, harmonize_all, plan_jobs, summary_table
    from napari_dmri.compare.folder import refuse_existing
    from napari_dmri.harmonize import load
    from napari_dmri.io.atomic import write_text

    jobs: list[Job]
    jobs, folder = plan_jobs(
        scans, output, mask, overwrite, gradients=(bval, bvec) if bval or bvec else None, maps=maps
    )
    if folder is not None:
        refuse_existing(folder, ("summary.tsv",), overwrite)
    trained = load(model)
    with progress_bar(quiet) as progress:
        outcomes = harmonize_all(trained, jobs, device, overwrite, progress, alone=folder is None)
    table = summary_table(trained.card, outcomes)
    if folder is not None:
        write_text(folder / "summary.tsv", table.to_tsv(), overwrite=overwrite)
    if json:
        emit(table.to_dict(), (), json=True, quiet=quiet)
    elif folder is None:
        lines = [*outcomes[0].notes, f"wrote {outcomes[0].output}"]
        if jobs[0].maps is not None:
            lines.append(f"wrote the maps to {jobs[0].maps}")
        emit({}, lines, json=False, quiet=quiet)
    else:
        print_table(table, quiet=quiet)
    failed = [o for o in outcomes if o.error]
    if failed:
        say_error(f"{len(failed)} of {len(outcomes)} scans failed; see the table.")
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: ModelArgument,
    pairs: Annotated[
        Path,
        typer.Option(help="TSV of pairs: subject, source, target; target_repeat if there is one."),
    ],
    output: OutOption,
    source_site: Annotated[
        str | None,
        typer.Option(help="Which source site's rows of the TSV; the model's own without it."),
    ] = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare harmonized scans with what the target site measured, on subjects not trained on."""
    from napari_dmri.commands.batch import evaluate_pairs
    from napari_dmri.compare.folder import refuse_existing, staged_folder
    from napari_dmri.compare.methods_text import methods_text
    from napari_dmri.harmonize import load
    from napari_dmri.io.atomic import write_text

    names = ("evaluation.tsv", "mean.tsv", "evaluation.md", "methods.txt")
    folder = refuse_existing(output, names, overwrite)
    trained = load(model)
    with progress_bar(quiet) as progress:
        every, mean, records = evaluate_pairs(trained, pairs, device, progress, source_site)
    texts = (every.to_tsv(), mean.to_tsv(), mean.to_markdown() + "\n" + every.to_markdown())
    with staged_folder(folder, overwrite) as staging:
        for name, text in zip(names, (*texts, methods_text(records)), strict=True):
            write_text(staging / name, text)
    if json:
        result: dict[str, Any] = {"mean": mean.to_dict(), "subjects": every.to_dict()}
        emit({**result, "files": [folder / n for n in names]}, (), json=True, quiet=quiet)
    else:
        print_table(mean, quiet=quiet)
        emit({}, [f"wrote {', '.join(names)} to {folder}"], json=False, quiet=quiet)
