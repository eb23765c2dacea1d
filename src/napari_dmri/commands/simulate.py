"""Verbs that open windows or make scans: view, demo, phantom."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from napari_dmri.commands.console import (
    BvalOption,
    BvecOption,
    JsonOption,
    QuietOption,
    emit,
    progress_bar,
)
from napari_dmri.errors import InputError

__all__ = ["Size", "demo", "phantom", "view"]


FOUR_D = ("scan", "series")
"""What `napari_dmri.io.classify` calls files that gradients can belong to."""


class Size(str, Enum):
    """How large simulated heads are."""

    small = "small"
    medium = "medium"
    full = "full"


def view(
    files: Annotated[
        list[Path], typer.Argument(help="Scans, maps, masks, SH images, streamlines.")
    ],
    basis: Annotated[
        str | None,
        typer.Option(
            help="SH basis of the files that do not name theirs: tournier07 (MRtrix3), "
            "descoteaux07 (DIPY), or either with _legacy.",
            show_default=False,
        ),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Glyphs of several SH images in panels.")
    ] = False,
    bval: BvalOption = None,
    bvec: BvecOption = None,
) -> None:
    """Open files in napari with the docks."""
    given = [path for path in (bval, bvec) if path is not None]
    if len(given) == 1:
        raise InputError("--bval and --bvec belong together and one is given; give both.")
    missing = [str(path) for path in (*files, *given) if not path.exists()]
    if missing:
        raise InputError(f"No file at {', '.join(missing)}; check the path.")
    if basis is not None:
        from napari_dmri.io.sh_images import basis_name

        basis = basis_name(basis)
    gradients = None
    if bval is not None and bvec is not None:
        from napari_dmri.io import classify

        series = [path for path in files if path.is_file() and classify(path) in FOUR_D]
        if len(series) != 1:
            raise InputError(
                f"--bval and --bvec belong to one scan and {len(series)} 4D images are given; "
                "put each scan's gradient files beside it."
            )
        gradients = (bval, bvec)
    _needs_viewer()
    from napari_dmri.viewer.launch import view_files

    view_files(files, basis=basis, side_by_side=side_by_side, gradients=gradients)


def demo(
    scan: Annotated[
        Path | None, typer.Option(help="A scan of your own; simulated subjects without it.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for pictures, maps and the table.")
    ] = Path("demo_output"),
    headless: Annotated[
        bool | None,
        typer.Option("--headless/--window", help="Close the window at the end, or leave it open."),
    ] = None,
) -> None:
    """Show the whole path: open, fit SH, harmonize, compare."""
    if scan is not None and not scan.exists():
        raise InputError(f"No scan at {scan}; check the path.")
    _needs_viewer()
    from napari_dmri.viewer.demo import run_demo

    run_demo(scan=scan, out=output, headless=headless)


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write into.", show_default=False)],
    subjects: Annotated[int, typer.Option(help="How many subjects.")] = 10,
    sites: Annotated[
        list[str] | None,
        typer.Option(help="Two or more sites: --sites ge_st prisma_st.", show_default=False),
    ] = None,
    size: Annotated[Size, typer.Option(help="How large the heads are.")] = Size.small,
    seed: Annotated[int, typer.Option(help="Same seed, same subjects.")] = 7,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the subjects that are there already.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; None decides.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate travelling subjects: the same people scanned at several sites."""
    if subjects < 1:
        raise InputError(f"{subjects} subjects were asked for; at least 1 is needed.")
    from napari_dmri.phantom.travelling import make_travelling

    chosen = tuple(sites or ("ge_st", "prisma_st"))
    with progress_bar(quiet) as progress:
        pairs = make_travelling(
            out,
            subjects=subjects,
            sites=chosen,
            size=size.value,
            seed=seed,
            resume=resume,
            workers=workers,
            progress=progress,
        )
    result = {"pairs": pairs, "subjects": subjects, "sites": chosen, "seed": seed}
    line = f"{subjects} simulated subjects at {', '.join(chosen)}; pairs are listed in {pairs}"
    emit(result, [line], json=json, quiet=quiet)


def _needs_viewer() -> None:
    """Refuse where napari or Qt is not installed, with the command that installs them."""
    from importlib.util import find_spec

    if find_spec("napari") is None or find_spec("qtpy") is None:
        raise InputError(
            "The viewer is not installed; install it with: pip install 'napari-dmri[viewer]' "
            "'napari[pyqt6]'."
        )
