"""Verbs of trained models: list those of the package, compare several on one scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dmri.commands.console import (
    BvalOption,
    BvecOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    emit,
    open_scan,
    print_table,
    progress_bar,
)
from napari_dmri.errors import InputError
from napari_dmri.progress import part

__all__ = ["compare", "models"]


def compare(
    scan: Annotated[Path, typer.Argument(help="A scan of the source site.", show_default=False)],
    reference: Annotated[
        Path,
        typer.Option(
            "--reference",
            help="The same person measured at the target site, on the same grid.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder for the results.", show_default=False)
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model file, or a name of 'models'; may be repeated. Without it, all models "
            "of the package."
        ),
    ] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="A second scan at the target site: the floor.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="1 white, 2 grey matter, on the reference's grid.")
    ] = None,
    maps: Annotated[
        list[str] | None, typer.Option("--map", help="Maps to draw: FA, MD, RISH0, ...")
    ] = None,
    both: Annotated[
        bool,
        typer.Option(
            "--both-projections", help="Each network with and without the RISH projection."
        ),
    ] = False,
    scans: Annotated[bool, typer.Option("--scans", help="Write the harmonized scans.")] = False,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Harmonize one scan with several models, against a scan of the target site.

    Without --mask, masks beside the scans (NAME_mask.nii.gz) are used, else they are made. Writes
    scores.tsv (NMSE of signal, FA and MD by tissue, and more), tests.tsv (how the errors
    differ, in blocks of this one scan), both as Markdown, a figure for each map, and methods.txt.
    A model that cannot be used is left out and named; the exit code is 1 then.
    """
    from napari_dmri.commands.batch import mask_beside
    from napari_dmri.commands.compare import read_regions
    from napari_dmri.compare.folder import refuse_existing
    from napari_dmri.compare.maps import MAP_INFO
    from napari_dmri.harmonize import compare_models, shipped_models, write_side_by_side
    from napari_dmri.harmonize.side_by_side_report import brief

    wanted = maps or ["FA", "MD"]
    unknown = [name for name in wanted if name not in MAP_INFO or name == "volume"]
    if unknown:
        known = ", ".join(name for name in MAP_INFO if name != "volume")
        raise InputError(f"Unknown map {', '.join(unknown)}; choose from {known}.")
    refuse_existing(output, ("scores.tsv", "tests.tsv", "methods.txt"), overwrite)
    chosen = model or [one.name for one in shipped_models()]
    source = open_scan(scan, mask or mask_beside(scan), bval, bvec)
    target = open_scan(reference, mask or mask_beside(reference))
    again = None if repeat is None else open_scan(repeat)
    regions = None if labels is None else read_regions(labels, target)
    with progress_bar(quiet) as progress:
        made = compare_models(
            source,
            target,
            chosen,
            labels=regions,
            repeat=again,
            both_projections=both,
            device=device,
            progress=part(progress, 0, 0.8),
        )
        files = write_side_by_side(
            made,
            output,
            wanted,
            scans=scans,
            overwrite=overwrite,
            device=device,
            progress=part(progress, 0.8, 1),
        )
    scores, tests = made.scores(), made.tests()
    if json:
        result = {"scores": scores.to_dict(), "tests": tests.to_dict(), "failed": made.failed}
        emit({**result, "files": files}, (), json=True, quiet=quiet)
    else:
        print_table(brief(scores), quiet=quiet)
        print_table(tests, quiet=quiet)
        names = ", ".join(path.name for path in files)
        emit({}, [f"wrote {names} to {output}"], json=False, quiet=quiet)
    if made.failed:
        raise typer.Exit(1)


def models(json: JsonOption = False) -> None:
    """List the models that come with the package; their names stand for their files."""
    from napari_dmri.harmonize import shipped_models

    listed = [
        {
            "name": one.name,
            "method": one.card["label"],
            "sites": f"{one.card['source_site']} -> {one.card['target_site']}",
            "shell": one.card["shell"],
            "order": one.card["order"],
            "purpose": one.card.get(
                "purpose", "simulated, demo only" if one.card["simulated"] else "research"
            ),
            "file": one.path,
        }
        for one in shipped_models()
    ]
    lines = [
        f"{m['name']}: {m['method']}, {m['sites']}, b={m['shell']:g} s/mm², order {m['order']}; "
        f"{m['purpose']}"
        for m in listed
    ]
    emit({"models": listed}, lines or ["no model is installed"], json=json, quiet=False)
