"""What the Deconvolve dock runs: responses, one method with a preview, or several side by side."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.compare.deconvolutions import MethodRun, method_table
from napari_dmri.compare.tables import Table
from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.outputs import PEAK_SHARE, fibre_density, peak_count, peaks_of
from napari_dmri.deconvolve.registry import METHODS, deconvolve
from napari_dmri.errors import InputError
from napari_dmri.images import PeakImage, ScalarImage, ShImage
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan
from napari_dmri.viewer.jobs import hushed
from napari_dmri.viewer.network_models import is_network, label_of, with_model

__all__ = [
    "OUTPUTS",
    "Comparison",
    "DeconvolveOptions",
    "DeconvolveResult",
    "Preview",
    "compare_methods",
    "deconvolve_scan",
    "estimate_responses",
    "export_deconvolution",
    "finished_result",
    "prepared_scan",
]

CONTEXT = 8
"""Slices on both sides of the one on show that a network sees for a first look."""

OUTPUTS = ("glyphs", "AFD", "peak count", "residual", "GM, CSF", "peaks")


@dataclass(frozen=True)
class DeconvolveOptions:
    """What to run and what to make of it.

    Parameters
    ----------
    method, settings
        A name in `METHODS`, and its settings.
    outputs
        Names from `OUTPUTS`.
    algorithm
        How responses are estimated where none are given.
    peak_share
        Peaks below this share of a voxel's largest are left out.
    make_mask
        Whether a brain mask is made for a scan that has none.
    slice_shown
        Array axis and index of the slice to begin with; None begins with all.
    device
        Where to compute.
    """

    method: str = "csd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("glyphs", "AFD", "peak count", "residual")
    algorithm: str = "auto"
    peak_share: float = PEAK_SHARE
    make_mask: bool = True
    slice_shown: tuple[int, int] | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Preview:
    """The responses, and one slice's fODFs on the whole grid, while the rest is still at work.

    ``fod`` is None where no slice is ready yet; ``loss`` is that of a network that is being fitted.
    """

    responses: ResponseSet
    fod: ShImage | None = None
    loss: float | None = None


@dataclass(frozen=True, eq=False)
class DeconvolveResult:
    """What one method made of a scan; maps in the order of the outputs asked for.

    ``model`` is the network that was fitted to the scan, if one was.
    """

    scan: Scan
    responses: ResponseSet
    result: Deconvolution
    maps: Mapping[str, ScalarImage]
    peaks: PeakImage | None = None
    outputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    method: str = ""
    seconds: float = 0.0
    model: Any = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several methods made of a scan, and the table of it."""

    scan: Scan
    responses: ResponseSet
    runs: tuple[MethodRun, ...]
    table: Table


def estimate_responses(
    scan: Scan, algorithm: str, make_mask: bool = True, progress: Progress | None = None
) -> ResponseSet:
    """Estimate the responses of a scan, within its mask or one made for it."""
    from napari_dmri.deconvolve.response import estimate_response

    scan, _ = _masked(scan, make_mask, part(progress, 0, 0.3, "mask: "))
    return estimate_response(scan, algorithm, progress=part(progress, 0.3, 1, "response: "))


def deconvolve_scan(
    scan: Scan,
    responses: ResponseSet | None,
    options: DeconvolveOptions,
    preview: Callable[[Preview], None] | None = None,
    progress: Progress | None = None,
) -> DeconvolveResult:
    """Estimate the fODFs of a scan, the slice on show first, and make the maps.

    The result is that of the method on the whole scan, whatever was shown before.
    """
    begun = time.perf_counter()
    scan, responses, notes = prepared_scan(scan, responses, options, part(progress, 0, 0.15))
    how = {"device": options.device, **with_model(options.settings)}
    if preview is not None and options.slice_shown is not None and "glyphs" in options.outputs:
        fod = _one_slice(scan, responses, options, part(progress, 0.15, 0.2, "this slice: "))
        if fod is not None:
            preview(Preview(responses, fod))
    result = deconvolve(scan, options.method, responses, progress=part(progress, 0.2, 0.9), **how)
    made = finished_result(scan, responses, result, options, notes, part(progress, 0.9, 1))
    return replace(made, seconds=time.perf_counter() - begun)


def prepared_scan(
    scan: Scan, responses: ResponseSet | None, options: DeconvolveOptions, progress: Progress
) -> tuple[Scan, ResponseSet, tuple[str, ...]]:
    """Return the scan with a mask, its responses, and a note where a mask was made."""
    scan, notes = _masked(scan, options.make_mask, part(progress, 0, 0.35, "mask: "))
    if responses is None:
        responses = estimate_responses(scan, options.algorithm, False, part(progress, 0.35, 1))
    return scan, responses, notes


def finished_result(
    scan: Scan,
    responses: ResponseSet,
    result: Deconvolution,
    options: DeconvolveOptions,
    notes: tuple[str, ...],
    progress: Progress,
) -> DeconvolveResult:
    """Name a deconvolution, find the peaks, and make the maps that are asked for."""
    want = options.outputs
    result = named(result, f"{scan.name} | {label_of(options.method, result)}")
    peaks = None
    if {"peak count", "peaks"} & set(want):
        peaks = peaks_of(
            result, options.peak_share, device=options.device,
            progress=part(progress, 0, 0.8, "peaks: "),
        )  # fmt: skip
    progress(1.0, "done")
    return DeconvolveResult(
        scan, responses, result, _maps(result, peaks, want), peaks, want,
        (*notes, *result.notes), options.method,
    )  # fmt: skip


def named(result: Deconvolution, name: str) -> Deconvolution:
    """Return a deconvolution whose fODF and maps carry a name, and how they were made."""
    words = {"gm": "GM", "csf": "CSF"}
    maps = {
        key: replace(
            image, name=f"{name} | {words.get(key, key)}", provenance=result.fod.provenance
        )
        for key, image in result.maps.items()
    }
    return replace(result, fod=replace(result.fod, name=name), maps=maps)


def _masked(
    scan: Scan, make_mask: bool, progress: Progress
) -> tuple[Scan, tuple[str, ...]]:  # fmt: skip
    if scan.mask is not None or not make_mask:
        return scan, ()
    from napari_dmri.signal.mask import brain_mask

    mask = brain_mask(scan, progress=progress)
    return scan.with_mask(mask), (f"A brain mask of {int(mask.sum())} voxels was made first.",)


def _one_slice(
    scan: Scan, responses: ResponseSet, options: DeconvolveOptions, progress: Progress
) -> ShImage | None:
    """Deconvolve one slice; None where it holds no voxel of the mask.

    A network sees some slices on both sides as well, as it does in the whole scan.
    """
    assert options.slice_shown is not None
    axis, index = options.slice_shown
    around = CONTEXT if is_network(options.method) else 0
    first = max(0, index - around)
    where: list[slice] = [slice(None)] * 3
    where[axis] = slice(first, index + 1 + around)
    cut = (*where, slice(None))
    mask = None if scan.mask is None else scan.mask[tuple(where)]
    if mask is not None and not mask.take(index - first, axis).any():
        return None
    thin = replace(scan, data=np.asarray(scan.data[cut]), mask=mask)
    # What the whole run will warn about is not said twice.
    with hushed():
        found = deconvolve(
            thin, options.method, responses, device=options.device, progress=progress,
            **with_model(options.settings),
        )  # fmt: skip
    whole = np.zeros((*scan.grid, found.fod.shape[3]), np.float32)
    where[axis] = slice(index, index + 1)
    whole[tuple(where)] = found.fod.coefficients.take([index - first], axis)
    name = f"{scan.name} | {label_of(options.method, found)}"
    return replace(found.fod, coefficients=whole, affine=scan.affine, mask=None, name=name)


def _maps(
    result: Deconvolution, peaks: PeakImage | None, want: tuple[str, ...]
) -> dict[str, ScalarImage]:
    maps = {}
    for key in ("csf", "gm"):
        if "GM, CSF" in want and key in result.maps:
            maps[key.upper()] = result.maps[key]
    if "residual" in want and "residual" in result.maps:
        maps["residual"] = result.maps["residual"]
    if "peak count" in want and peaks is not None:
        maps["peak count"] = replace(peak_count(peaks), name=f"{result.fod.name} | peak count")
    if "AFD" in want:
        maps["AFD"] = fibre_density(result.fod)
    return maps


def compare_methods(
    scan: Scan,
    responses: ResponseSet | None,
    methods: Mapping[str, Mapping[str, Any]],
    options: DeconvolveOptions,
    at_hand: Mapping[str, DeconvolveResult] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run several methods with their settings on one scan and tabulate what they found.

    ``at_hand`` holds results of the same scan with the same settings, which are not run again.
    """
    made = dict(at_hand or {})
    scan, responses, _ = prepared_scan(scan, responses, options, part(progress, 0, 0.15))
    weights = np.array([METHODS[name].forecast(1000, given) for name, given in methods.items()])
    weights[[name in made for name in methods]] *= 0.1
    ends = 0.15 + 0.85 * np.r_[0, np.cumsum(weights)] / weights.sum()
    runs = []
    for (name, settings), start, stop in zip(methods.items(), ends, ends[1:], strict=False):
        begun = time.perf_counter()
        if name in made:
            result, seconds = made[name].result, made[name].seconds
        else:
            result = deconvolve(
                scan, name, responses, device=options.device,
                progress=part(progress, start, start + 0.9 * (stop - start)),
                **with_model(settings),
            )  # fmt: skip
            seconds = time.perf_counter() - begun
        label = label_of(name, result)
        result = named(result, f"{scan.name} | {label}")
        peaks = peaks_of(
            result, options.peak_share, device=options.device,
            progress=part(progress, start + 0.9 * (stop - start), stop, f"{label} peaks: "),
        )  # fmt: skip
        runs.append(MethodRun(label, result, peaks, seconds))
    return Comparison(scan, responses, tuple(runs), method_table(runs))


def export_deconvolution(
    result: DeconvolveResult,
    folder: Path,
    basis: str = "tournier07",
    suffix: str = ".nii.gz",
    progress: Progress | None = None,
) -> list[Path]:
    """Write fODF, peaks, maps, responses and a methods text into a folder.

    Parameters
    ----------
    result
        What to write.
    folder
        Where to; existing files are refused before anything is written.
    basis, suffix
        Of the fODF; peaks are written in the same format, maps as NIfTI.

    Raises
    ------
    InputError
        If a file is there already, or the folder cannot be written.
    """
    from napari_dmri.compare.methods_text import methods_text
    from napari_dmri.io import write_map, write_peaks, write_sh
    from napari_dmri.io.atomic import write_text
    from napari_dmri.io.responses import write_responses

    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.result.fod.name)
    stem = re.sub("_+", "_", safe)
    fod = folder / f"{stem}_fod{suffix}"
    maps = {
        folder / f"{stem}_{name.replace(' ', '-')}.nii.gz": m for name, m in result.maps.items()
    }
    peaks = folder / f"{stem}_peaks{suffix}"
    response = folder / f"{stem}_response_wm.txt"
    methods = folder / f"{stem}_methods.txt"
    there = [p.name for p in (fod, peaks, response, methods, *maps) if p.exists()]
    if there:
        raise InputError(
            f"{len(there)} files are in {folder} already ({', '.join(there[:3])}); "
            "choose another folder or remove them."
        )
    report = part(progress, 0, 1)
    report(0.0, f"writing {fod.name}")
    write_sh(result.result.fod, fod, basis=basis)
    written = [fod]
    if result.peaks is not None:
        report(0.4, f"writing {peaks.name}")
        write_peaks(result.peaks, peaks)
        written.append(peaks)
    for index, (target, image) in enumerate(maps.items()):
        report(0.5 + 0.4 * index / len(maps), f"writing {target.name}")
        write_map(image, target)
        written.append(target)
    written += write_responses(result.responses, response)
    records = [result.responses.wm.provenance, result.result.provenance]
    records += [] if result.peaks is None else [result.peaks.provenance]
    write_text(methods, methods_text(records))
    return [*written, methods]
