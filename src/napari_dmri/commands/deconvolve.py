"""Verbs of deconvolution: apply; fit and train of networks (see `networks`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    open_scan,
    progress_bar,
    refuse_file,
)
from napari_dmri.commands.deconvolve_evaluate import evaluate
from napari_dmri.commands.networks import fit, train
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.deconvolve.base import ResponseSet
    from napari_dmri.deconvolve.registry import Method
    from napari_dmri.images import Response
    from napari_dmri.scan import Scan

__all__ = ["app"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mif.gz", ".mif")

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    help="Estimate fibre orientation distributions (fODFs).",
)


app.command()(fit)
app.command()(train)


@app.callback()
def group() -> None:
    """Estimate fibre orientation distributions (fODFs)."""


app.command()(evaluate)


def _map_option(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", help=f"Write {what} here, too.", show_default=False)


@app.command()
def apply(
    scan: Annotated[Path, typer.Argument(help="The scan.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="fODF to write (.mif or NIfTI).", show_default=False),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="csd, msmt-csd, rumba, rumba-tv, or a network: shd-s-tv, shd-tv, shd, rt-esd, "
            "esd, ...; by the number of shells without it.",
            show_default=False,
        ),
    ] = None,
    response: Annotated[
        Path | None,
        typer.Option(
            help="White matter's response file, with NAME_gm and NAME_csf beside it, or a folder; "
            "estimated from the scan without it.",
            show_default=False,
        ),
    ] = None,
    shell: Annotated[
        str | None,
        typer.Option(
            help="csd, rumba: a b-value in s/mm², or all; without it csd takes the highest."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="csd: standard, or sharpest: order 16 from all shells, Rician noise, hard "
            "constraint; for several shells, two to three times slower."
        ),
    ] = None,
    order: Annotated[
        int | None,
        typer.Option(
            help="SH order of the fODF; csd and msmt-csd choose by directions without it."
        ),
    ] = None,
    hardness: Annotated[
        float | None,
        typer.Option(help="csd: cost of negative amplitudes, 0.4 to 20, or inf to forbid them."),
    ] = None,
    regulariser: Annotated[
        float | None, typer.Option(help="csd, msmt-csd: weight of the fODF's norm.")
    ] = None,
    noise: Annotated[str | None, typer.Option(help="csd, msmt-csd: gaussian or rician.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Networks: a trained model (a file, or one of the package by name); the one of "
            "the package that has the scan's shells without it.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="Networks: paper or tiled; the model's own without it.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="rumba: number of steps; 1200 without it.")
    ] = None,
    accelerate: Annotated[
        bool | None,
        typer.Option(
            "--accelerate/--plain",
            help="rumba: extrapolate between steps (default), or take every one.",
            show_default=False,
        ),
    ] = None,
    gm: Annotated[Path | None, _map_option("gm", "grey matter's map")] = None,
    csf: Annotated[Path | None, _map_option("csf", "CSF's map")] = None,
    residual: Annotated[Path | None, _map_option("residual", "the residual")] = None,
    afd: Annotated[Path | None, _map_option("afd", "the total fibre density")] = None,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Estimate the fODF of every voxel, in MRtrix3's basis."""
    from napari_dmri.deconvolve.outputs import fibre_density
    from napari_dmri.deconvolve.registry import METHODS, deconvolve, method_named, suggest_method
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.io import write_map, write_sh
    from napari_dmri.io.atomic import stem_of
    from napari_dmri.io.responses import read_responses
    from napari_dmri.progress import part

    if method is not None:
        method_named(method)
    wanted = {"gm": gm, "csf": csf, "residual": residual, "afd": afd}
    targets = {name: path for name, path in wanted.items() if path is not None}
    for path in (output, *targets.values()):
        refuse_file(path, overwrite, IMAGE_SUFFIXES, scan)
    # Two NIfTI files of one name share their JSON file, whatever their suffixes.
    every = [path.expanduser().resolve() for path in (output, *targets.values())]
    if len({path.parent / stem_of(path) for path in every}) <= len(targets):
        raise InputError("Two results would go to files of one name; give each its own.")
    given = {
        "preset": preset,
        "order": order,
        "hardness": hardness,
        "regulariser": regulariser,
        "noise": noise,
        "model": model,
        "mode": mode,
        "iterations": iterations,
        "accelerate": accelerate,
    }
    settings: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    if shell is not None:
        settings["shell"] = shell_value(shell)
    source = open_scan(scan, mask, bval, bvec)
    responses = None if response is None else read_responses(response)
    chosen = METHODS[method or suggest_method(source, responses)]
    _refuse(chosen, source, responses, settings, targets)
    with progress_bar(quiet) as progress:
        where = "from " + response.name if response is not None else "estimated from the scan"
        if responses is None:
            responses = estimate_response(source, progress=part(progress, 0, 0.2, "response: "))
        _require_tissues(chosen, source, responses, model, targets)
        result = deconvolve(
            source, chosen.name, responses, device=device, progress=part(progress, 0.2, 1),
            **settings,
        )  # fmt: skip
    maps = {**result.maps, "afd": fibre_density(result.fod)}
    files = write_sh(result.fod, output, overwrite=overwrite)
    for name, path in targets.items():
        files += write_map(maps[name], path, overwrite=overwrite)
    how = "" if method else " (by the number of shells)"
    everywhere = (
        ["no mask was given: all voxels with signal were deconvolved, outside the head as well"]
        if source.mask is None
        else []
    )
    about = {
        "method": chosen.name,
        "order": result.fod.order,
        "voxels": result.voxels,
        "converged": result.converged,
        "volumes": list(result.volumes),
        "response": where,
        "response_voxels": {tissue: one.voxels for tissue, one in responses.items()},
        "notes": [*result.notes, *everywhere],
        "files": files,
    }
    lines = [
        f"{chosen.label}{how}: order {result.fod.order}, {result.voxels} voxels",
        f"response {where}: {', '.join(map(_describe, responses.values()))}",
        *result.notes,
        *everywhere,
        f"wrote {', '.join(str(f) for f in files if f.suffix != '.json')}",
    ]
    emit(about, lines, json=json, quiet=quiet)


def shell_value(text: str) -> float | str:
    """Read a b-value, or ``all``.

    Raises
    ------
    InputError
        If it is neither.
    """
    if text.strip().lower() == "all":
        return "all"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--shell {text}: give a b-value in s/mm², or all.")
    return value


def _refuse(
    method: Method,
    scan: Scan,
    responses: ResponseSet | None,
    settings: dict[str, Any],
    targets: dict[str, Path],
) -> None:
    """Refuse what the method cannot do, before any work is done.

    Raises
    ------
    InputError
        If it cannot be used on the scan, does not take a setting, has no model, or does not give a
        map.
    """
    problem = method.problem(scan.gradients, responses)
    if problem:
        raise InputError(problem)
    method.keywords(settings)
    if method.family == "networks" and "model" not in settings:
        from napari_dmri.deconvolve.shd.apply import no_model
        from napari_dmri.deconvolve.shd.shipped import choose_shipped

        tissues = None if responses is None else tuple(responses)
        if choose_shipped(method.name, scan.gradients, tissues) is None:
            raise InputError(no_model(method.name, scan.gradients, tissues))
    for name in targets:
        if name not in (*method.maps, "afd"):
            raise InputError(
                f"{method.label} gives no {name} map; leave --{name} out, or choose msmt-csd."
            )


def _require_tissues(
    method: Method,
    scan: Scan,
    responses: ResponseSet,
    model: Path | None,
    targets: dict[str, Path],
) -> None:
    """Refuse maps of tissues that are not separated, before any work is done.

    Raises
    ------
    InputError
        If the responses, or the model of a network, are without one.
    """
    from napari_dmri.deconvolve.shd.shipped import choose_shipped, find_model
    from napari_dmri.training.checkpoint import load_card

    known, source = tuple(responses), "the responses are"
    if method.family == "networks":
        shipped = None if model else choose_shipped(method.name, scan.gradients, known)
        path = find_model(model) if model else shipped.path if shipped else None
        if path is not None:
            known, source = tuple(load_card(path).get("tissues", known)), f"{path.name} is"
    for name in ("gm", "csf"):
        if name in targets and name not in known:
            raise InputError(
                f"--{name} is asked for and {source} of {', '.join(known)} alone; leave --{name} "
                "out, or choose what separates it."
            )


def _describe(response: Response) -> str:
    voxels = f" from {response.voxels} voxels" if response.voxels else ""
    return f"{response.tissue} order {response.order}{voxels}"
