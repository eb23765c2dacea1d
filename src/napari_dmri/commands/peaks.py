"""The verb peaks: find the maxima of fODFs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dmri.commands.console import (
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    emit,
    progress_bar,
    refuse_file,
)
from napari_dmri.errors import InputError

__all__ = ["peaks"]

MAPS = (".nii.gz", ".nii", ".mif.gz", ".mif")


def peaks(
    fod: Annotated[Path, typer.Argument(help="SH coefficients of fODFs (4D).", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Peak image as MRtrix3's (.nii.gz, .nii, .mif.gz, .mif), or DIPY's .pam5.",
            show_default=False,
        ),
    ],
    threshold: Annotated[
        float, typer.Option(help="Smallest amplitude, as a share of the voxel's largest.")
    ] = 0.0,
    most: Annotated[int, typer.Option("--max", help="Peaks a voxel at most.")] = 10,
    minimum: Annotated[float, typer.Option(help="Amplitude that peaks lie above.")] = 0.0,
    separation: Annotated[float, typer.Option(help="Degrees between peaks at least.")] = 5.0,
    afd: Annotated[
        Path | None,
        typer.Option("--afd", help="Write the density of each peak's lobe.", show_default=False),
    ] = None,
    dispersion: Annotated[
        Path | None,
        typer.Option(
            "--dispersion", help="Write the spread of each lobe in degrees.", show_default=False
        ),
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option("--basis", help="SH basis of the file, if it says none.", show_default=False),
    ] = None,
    mask: MaskOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the peaks of fODFs, largest first, and write them as a peak image."""
    from napari_dmri.deconvolve.peaks import find_peaks
    from napari_dmri.images import ScalarImage
    from napari_dmri.io import read_mask, read_sh, write_map, write_peaks
    from napari_dmri.io.atomic import stem_of

    output = refuse_file(output, overwrite, (*MAPS, ".pam5"), source=fod)
    extra = {"afd": afd, "dispersion": dispersion}
    targets = {
        name: refuse_file(path, overwrite, MAPS, source=fod)
        for name, path in extra.items()
        if path is not None
    }
    # Two NIfTI files of one name share their JSON file, whatever their suffixes.
    names = {path.resolve().parent / stem_of(path) for path in (output, *targets.values())}
    if len(names) <= len(targets):
        raise InputError("Two results would go to files of one name; give each its own.")
    image = read_sh(fod, basis=basis)
    with progress_bar(quiet) as progress:
        found = find_peaks(
            image,
            threshold=threshold,
            minimum=minimum,
            separation=separation,
            most=most,
            lobes=bool(targets),
            mask=None if mask is None else read_mask(mask, image),
            device=device,
            progress=progress,
        )
    written = write_peaks(found, output, overwrite=overwrite)
    units = {"afd": "", "dispersion": "degrees"}
    for name, path in targets.items():
        map_ = ScalarImage(getattr(found, name), found.affine, name, units[name], found.provenance)
        written += write_map(map_, path, overwrite=overwrite)
    counts = found.count
    voxels, total = int((counts > 0).sum()), int(counts.sum())
    mean = total / voxels if voxels else 0.0
    lines = [f"{total} peaks in {voxels} of {counts.size} voxels, {mean:.2f} a voxel that has any"]
    lines += [f"wrote {path}" for path in written]
    result = {"peaks": total, "voxels": voxels, "written": [str(p) for p in written]}
    emit(result, lines, json=json, quiet=quiet)
