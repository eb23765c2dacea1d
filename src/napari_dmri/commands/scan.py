"""Verbs of one scan: info, fit-sh, tensor, mask."""

from __future__ import annotations

from enum import Enum
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
    progress_bar,
    refuse_file,
)

__all__ = ["Basis", "TensorMethod", "fit_sh", "info", "mask", "tensor"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mif.gz", ".mif")

ScanArgument = Annotated[Path, typer.Argument(help="The scan.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--output", "-o", help="File to write.", show_default=False)]
OutFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder to write into.", show_default=False)
]


class TensorMethod(str, Enum):
    """How tensors are fitted."""

    wls = "wls"
    ols = "ols"


class Basis(str, Enum):
    """SH bases that files may hold."""

    tournier07 = "tournier07"
    mrtrix3 = "mrtrix3"
    tournier07_legacy = "tournier07_legacy"
    descoteaux07 = "descoteaux07"
    descoteaux07_legacy = "descoteaux07_legacy"


def info(
    scan: ScanArgument,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    header: Annotated[
        bool, typer.Option("--header", help="Do not read the voxels, only what describes them.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say what a scan is: shells, grid, directions, and what was found wrong with it."""
    from napari_dmri.signal.quality import describe_lines, describe_scan

    source = open_scan(scan, mask, bval, bvec)
    with progress_bar() as progress:
        about = describe_scan(source, read=not header, progress=progress)
    emit(about, describe_lines(about), json=json, quiet=False)


def fit_sh(
    scan: ScanArgument,
    output: OutFile,
    order: Annotated[
        int | None, typer.Option(help="SH order; the directions decide without it.")
    ] = None,
    smooth: Annotated[float, typer.Option(help="Laplace-Beltrami lambda.")] = 0.006,
    shell: Annotated[
        float | None, typer.Option(help="b-value in s/mm²; the shell with most directions.")
    ] = None,
    basis: Annotated[Basis, typer.Option(help="SH basis of the file.")] = Basis.tournier07,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit spherical harmonics to S/b0 of one shell."""
    from napari_dmri.io import write_sh
    from napari_dmri.signal.sh_fit import condition_number
    from napari_dmri.signal.sh_fit import fit_sh as fit

    refuse_file(output, overwrite, IMAGE_SUFFIXES, scan)
    source = open_scan(scan, mask, bval, bvec)
    with progress_bar(quiet) as progress:
        image = fit(source, order, smooth, shell, device=device, progress=progress)
    files = write_sh(image, output, basis=basis.value, overwrite=overwrite)
    chosen = source.gradients.shell(image.bvalue)
    directions = source.gradients.directions[chosen.indices]
    condition = condition_number(directions, image.order)
    distinct = source.gradients.distinct_directions(chosen.indices)
    result = {
        "order": image.order,
        "order_chosen_automatically": order is None,
        "coefficients": image.shape[3],
        "shell": chosen.bvalue,
        "directions": distinct,
        "condition_number": condition,
        "smooth": smooth,
        "basis": basis.value,
        "files": files,
    }
    how = "chosen" if order is None else "asked for"
    lines = [
        f"order {image.order} {how}: {image.shape[3]} coefficients for {distinct} directions at "
        f"b={chosen.bvalue:g} s/mm², condition number {condition:.3g}, lambda {smooth:g}",
        f"wrote {files[0]}",
    ]
    emit(result, lines, json=json, quiet=quiet)


def tensor(
    scan: ScanArgument,
    output: OutFolder,
    method: Annotated[TensorMethod, typer.Option(help="Least squares.")] = TensorMethod.wls,
    max_bvalue: Annotated[
        float | None, typer.Option(help="Highest b-value to use (s/mm²).")
    ] = None,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit diffusion tensors; write FA, MD, AD, RD, colour FA and the tensor itself."""
    from napari_dmri.compare.folder import refuse_existing, staged_folder
    from napari_dmri.images import ScalarImage
    from napari_dmri.io import write_map
    from napari_dmri.signal.tensor import fit_tensor

    names = ("FA", "MD", "AD", "RD", "colour_FA", "tensor")
    folder = refuse_existing(output, (f"{name}.nii.gz" for name in names), overwrite)
    source = open_scan(scan, mask, bval, bvec)
    with progress_bar(quiet) as progress:
        image = fit_tensor(
            source, method.value, max_bvalue=max_bvalue, device=device, progress=progress
        )
    made = (image.fa, image.md, image.ad, image.rd, image.colour_fa, image.tensor)
    units = ("", "mm²/s", "mm²/s", "mm²/s", "", "mm²/s")
    with staged_folder(folder, overwrite) as staging:
        for name, data, unit in zip(names, made, units, strict=True):
            title = f"{source.name} {name.replace('_', ' ')}"
            result = ScalarImage(data, image.affine, title, unit, image.provenance)
            write_map(result, staging / f"{name}.nii.gz")
    files = [folder / f"{name}.nii.gz" for name in names]
    about = {"provenance": image.provenance, "files": files}
    emit(about, [f"wrote {', '.join(names)} to {folder}"], json=json, quiet=quiet)


def mask(
    scan: ScanArgument,
    output: OutFile,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a brain mask."""
    import numpy as np

    from napari_dmri.images import ScalarImage
    from napari_dmri.io import write_map
    from napari_dmri.provenance import provenance
    from napari_dmri.signal.mask import brain_mask

    refuse_file(output, overwrite, IMAGE_SUFFIXES, scan)
    source = open_scan(scan, None, bval, bvec)
    with progress_bar(quiet) as progress:
        inside = brain_mask(source, progress=progress)
    made = provenance("brain-mask", {}, {"scan": source.name}, simulated=source.simulated)
    image = ScalarImage(inside.astype(np.uint8), source.affine, f"{source.name} mask", "", made)
    files = write_map(image, output, overwrite=overwrite)
    litres = float(inside.sum() * abs(np.linalg.det(source.affine[:3, :3])) / 1e6)
    result = {"voxels": int(inside.sum()), "volume_litres": round(litres, 4), "files": files}
    line = f"{int(inside.sum())} voxels, {litres:.2f} litres; wrote {files[0]}"
    emit(result, [line], json=json, quiet=quiet)
