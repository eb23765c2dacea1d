"""The verb response: estimate responses of one scan, or the mean of several."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    progress_bar,
    refuse_file,
)
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.images import ResponseSet

__all__ = ["Algorithm", "Spread", "response"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mif.gz", ".mif")
TEXTS = (".txt",)
PICTURES = (".png", ".pdf", ".svg")


class Algorithm(str, Enum):
    """How the voxels are found."""

    auto = "auto"
    tournier = "tournier"
    fa = "fa"
    dhollander = "dhollander"


class Spread(str, Enum):
    """What is done about the spread of fibres within voxels."""

    auto = "auto"
    remove = "remove"
    keep = "keep"


def response(
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN...", help="A scan; several are averaged.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="White matter's response file; grey matter's and CSF's go beside it.",
            show_default=False,
        ),
    ],
    algorithm: Annotated[Algorithm, typer.Option(help="How voxels are found.")] = Algorithm.auto,
    order: Annotated[int | None, typer.Option(help="Highest order; 10 without it.")] = None,
    spread: Annotated[
        Spread,
        typer.Option(help="Take the fibres' spread within voxels out; auto does so for auto."),
    ] = Spread.auto,
    mask: MaskOption = None,
    voxels: Annotated[
        Path | None,
        typer.Option("--voxels", help="Write the voxels: 1 WM, 2 GM, 3 CSF.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the response.", show_default=False)
    ] = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Estimate the responses of a scan, or the mean of several, into MRtrix3 text files."""
    from napari_dmri.deconvolve.response import average_responses, estimate_response
    from napari_dmri.io import write_map
    from napari_dmri.io.responses import response_paths, write_responses
    from napari_dmri.progress import part

    for path in response_paths(output).values():
        refuse_file(path, overwrite, TEXTS)
    if voxels is not None:
        refuse_file(voxels, overwrite, IMAGE_SUFFIXES, scans[0])
    if plot is not None:
        refuse_file(plot, overwrite, PICTURES)
    if len(scans) > 1 and (mask or bval or bvec or voxels):
        raise InputError(
            f"--mask, --bval, --bvec and --voxels belong to one scan and {len(scans)} are given; "
            "estimate each scan's response by itself."
        )
    sets = []
    with progress_bar(quiet) as progress:
        for n, path in enumerate(scans):
            step = part(progress, n / len(scans), (n + 1) / len(scans), f"{path.name}: ")
            sets.append(
                estimate_response(
                    open_scan(path, mask, bval, bvec),
                    algorithm.value,
                    order=order,
                    spread=None if spread is Spread.auto else spread.value,
                    device=device,
                    progress=step,
                )
            )
    found = average_responses(sets)
    files = write_responses(found, output, overwrite=overwrite)
    if voxels is not None and found.voxels is not None:
        files += write_map(found.voxels, voxels, overwrite=overwrite)
    if plot is not None:
        files.append(_draw(found, plot, overwrite))
    result = {
        "algorithm": algorithm.value,
        "scans": [str(p) for p in scans],
        "tissues": {
            name: {"voxels": r.voxels, "bvalues": r.bvalues, "zonal": r.zonal}
            for name, r in found.items()
        },
        "notes": found.notes,
        "provenance": found.wm.provenance,
        "files": files,
    }
    lines = [*found.notes, *(f"wrote {file}" for file in files)]
    emit(result, lines, json=json, quiet=quiet)


def _draw(found: ResponseSet, path: Path, overwrite: bool) -> Path:
    from matplotlib.figure import Figure

    from napari_dmri.deconvolve.response_plot import draw_response
    from napari_dmri.io.atomic import atomic_path

    figure = Figure(figsize=(8, 3.6), dpi=120)
    draw_response(figure, found)
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary)
    return path
