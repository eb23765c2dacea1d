"""What the SH fit dock runs: SH and tensor of one scan, and the maps made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_dmri.images import ScalarImage, ShImage, TensorImage
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan

__all__ = ["SH_OUTPUTS", "TENSOR_OUTPUTS", "FitOptions", "FitResult", "export_fit", "fit_scan"]

SH_OUTPUTS = ("SH", "residual", "RISH", "GFA")
TENSOR_OUTPUTS = ("FA", "MD", "AD", "RD", "colour FA")


@dataclass(frozen=True)
class FitOptions:
    """What to fit and what to make of it.

    Parameters
    ----------
    outputs
        Names from `SH_OUTPUTS` and `TENSOR_OUTPUTS`.
    shell, order
        Of the SH fit; None takes the default shell, and the order that it supports.
    smooth, normalise, clip
        Laplace-Beltrami smoothing; S/b0 rather than S; S/b0 clipped to [0, 1].
    tensor
        ``"wls"`` or ``"ols"``.
    max_bvalue
        Highest b-value (s/mm²) in the tensor fit; None leaves the choice to `fit_tensor`.
    device
        Where to compute.
    """

    outputs: tuple[str, ...] = ("SH", "GFA", "FA", "MD", "colour FA")
    shell: float | None = None
    order: int | None = None
    smooth: float = 0.006
    normalise: bool = True
    clip: bool = True
    tensor: str = "wls"
    max_bvalue: float | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class FitResult:
    """SH, tensor and maps of one scan; maps in the order of the outputs asked for."""

    scan: Scan
    sh: ShImage | None = None
    tensor: TensorImage | None = None
    maps: Mapping[str, ScalarImage] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def fit_scan(scan: Scan, options: FitOptions, progress: Progress | None = None) -> FitResult:
    """Fit SH and tensor as far as the outputs need them, and make the maps."""
    want = options.outputs
    need_sh, need_tensor = (any(o in want for o in some) for some in (SH_OUTPUTS, TENSOR_OUTPUTS))
    split = 0.5 if need_sh and need_tensor else float(need_sh)
    sh, tensor, maps = None, None, {}
    if need_sh:
        sh = _fit_sh(scan, options, part(progress, 0, 0.7 * split, "SH: "))
        maps |= _sh_maps(scan, sh, options, part(progress, 0.7 * split, split, "SH maps: "))
    if need_tensor:
        from napari_dmri.signal.tensor import fit_tensor

        tensor = fit_tensor(
            scan,
            options.tensor,
            max_bvalue=options.max_bvalue,
            mask=scan.mask,
            device=options.device,
            progress=part(progress, split, 0.97, "tensor: "),
        )
        maps |= _tensor_maps(scan, tensor, want)
    part(progress, 0, 1)(1.0, "done")
    return FitResult(scan, sh, tensor, maps, want)


def _fit_sh(scan: Scan, options: FitOptions, progress: Progress) -> ShImage:
    from napari_dmri.signal.sh_fit import fit_sh

    return fit_sh(
        scan,
        options.order,
        options.smooth,
        options.shell,
        options.normalise,
        mask=scan.mask,
        clip=options.clip,
        device=options.device,
        progress=progress,
    )


def _sh_maps(
    scan: Scan, sh: ShImage, options: FitOptions, progress: Progress
) -> dict[str, ScalarImage]:
    from napari_dmri.signal.rish import gfa, rish
    from napari_dmri.signal.sh_fit import residual_map

    def image(data: np.ndarray, name: str, units: str = "") -> ScalarImage:
        return ScalarImage(data, sh.affine, f"{scan.name} | {name}", units, sh.provenance)

    maps = {}
    if "residual" in options.outputs:
        residual = residual_map(scan, sh, device=options.device, progress=progress)
        maps["residual"] = image(residual, "SH residual")
    if "RISH" in options.outputs:
        features = rish(sh)
        for index in range(features.shape[3]):
            name = f"RISH{2 * index}"
            maps[name] = image(np.ascontiguousarray(features[..., index]), name)
    if "GFA" in options.outputs:
        maps["GFA"] = image(gfa(sh), "GFA")
    return maps


def _tensor_maps(scan: Scan, tensor: TensorImage, want: tuple[str, ...]) -> dict[str, ScalarImage]:
    makers = {
        "FA": (lambda: tensor.fa, ""),
        "MD": (lambda: tensor.md, "mm²/s"),
        "AD": (lambda: tensor.ad, "mm²/s"),
        "RD": (lambda: tensor.rd, "mm²/s"),
        "colour FA": (lambda: tensor.colour_fa, ""),
    }
    return {
        name: ScalarImage(make(), tensor.affine, f"{scan.name} | {name}", units, tensor.provenance)
        for name, (make, units) in makers.items()
        if name in want
    }


def export_fit(
    result: FitResult,
    folder: Path,
    basis: str = "tournier07",
    suffix: str = ".nii.gz",
    progress: Progress | None = None,
) -> list[Path]:
    """Write the SH image and the maps of a fit into a folder, one file each.

    Maps are always NIfTI; the suffix is that of the SH image. Existing files are refused before
    anything is written.

    Raises
    ------
    InputError
        If a file is there already, or the folder cannot be written.
    """
    from napari_dmri.errors import InputError
    from napari_dmri.io import write_map, write_sh

    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.scan.name)
    targets = {name: folder / f"{stem}_{name.replace(' ', '-')}.nii.gz" for name in result.maps}
    sh_target = folder / f"{stem}_sh{suffix}"
    there = [p.name for p in (sh_target, *targets.values()) if p.exists()]
    if there:
        raise InputError(
            f"{len(there)} files are in {folder} already ({', '.join(there[:3])}); "
            "choose another folder or remove them."
        )
    report = part(progress, 0, 1)
    written = []
    if result.sh is not None:
        report(0.0, f"writing {sh_target.name}")
        write_sh(result.sh, sh_target, basis=basis)
        written.append(sh_target)
    for index, (name, target) in enumerate(targets.items()):
        report((index + 1) / (len(targets) + 1), f"writing {target.name}")
        write_map(result.maps[name], target)
        written.append(target)
    return written
