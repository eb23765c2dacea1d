"""What the Deconvolve dock runs to fit a network to a scan, and where its state is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.deconvolve.shd.card import model_label
from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan
from napari_dmri.training.parts import Switch
from napari_dmri.training.state import OtherTraining, drop_state
from napari_dmri.viewer.deconvolving import (
    DeconvolveOptions,
    DeconvolveResult,
    Preview,
    finished_result,
    prepared_scan,
)
from napari_dmri.viewer.network_models import Known, has_gpu

__all__ = [
    "WEIGHTS",
    "FitOptions",
    "fit_network",
    "forecast",
    "state_file",
    "tissues_of",
    "usual_weights",
]

PREVIEW_EVERY = 5.0
"""Seconds between two looks at the slice on show, at least."""

WEIGHTS = ("sparsity", "non_negativity", "spatial")
"""Parts of the loss whose weights can be set, by their names in `LossWeights`."""

KEPT_STATES = 12
"""Fits that were stopped and are kept; older ones are deleted when another begins."""


@dataclass(frozen=True)
class FitOptions:
    """How a network is fitted to a scan.

    Parameters
    ----------
    size
        ``"small"`` or ``"paper"``; None lets the device decide.
    minutes
        End after so long with the best so far; None follows the plan to its end.
    seed
        Of the weights and the order of patches.
    start
        The model to begin from; None begins from random weights.
    mode
        ``"paper"`` or ``"tiled"``; None takes the method's own.
    seen
        Directions of the richest shell that the network sees, to explain all; None shows it all.
    others
        Tissues besides white matter; None takes as many as b-values, or ``start``'s.
    weights
        Parts of the loss that count otherwise than the method has them, by name.
    """

    size: str | None = None
    minutes: float | None = None
    seed: int = 0
    start: Known | None = None
    mode: str | None = None
    seen: int | None = None
    others: tuple[str, ...] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


def forecast(
    scan: Scan, voxels: int, method: str, options: FitOptions, device: str
) -> tuple[float, float, float]:
    """Return about how many seconds a fit takes, seconds to its first glyphs, and bytes."""
    from napari_dmri.deconvolve.shd.fit import forecast_fit

    found = forecast_fit(
        voxels,
        method,
        size=options.size,
        mode=options.mode,
        device=_likely(device),
        minutes=options.minutes,
        start=None if options.start is None else options.start.card,
    )
    return found.seconds, found.preview_seconds, found.memory


def usual_weights(method: str, options: FitOptions, device: str) -> dict[str, float]:
    """Return the weights of the loss as the method has them at the size that will be fitted."""
    from napari_dmri.deconvolve.shd.presets import preset

    size, mode = options.size, options.mode
    if options.start is not None:
        size, mode = str(options.start.card.get("size") or "small"), None
    elif size is None:
        size = "paper" if _likely(device).startswith("cuda") else "small"
    losses = preset(method, size, mode).losses
    return {name: float(getattr(losses, name)) for name in WEIGHTS}


def tissues_of(
    scan: Scan, responses: ResponseSet | None, options: FitOptions
) -> tuple[str, ...] | None:
    """Return the tissues that a fit separates; None where that waits for the responses."""
    from napari_dmri.deconvolve.shd.fit import choose_others

    if options.others is not None:
        return ("wm", *options.others)
    if options.start is not None:
        return tuple(map(str, options.start.card["tissues"]))
    if responses is None:
        return None
    known = choose_others(len(scan.gradients.shells), tuple(responses), one_scan=True)
    return ("wm", *known)


def _likely(device: str) -> str:
    """Return the device that "auto" will be, without loading torch."""
    return "cuda" if device == "auto" and has_gpu() else device


def state_file(scan: Scan, method: str, options: FitOptions) -> Path:
    """Return where the state of a fit is kept: the same place for the same fit of the same scan."""
    from platformdirs import user_cache_path

    digest = hashlib.sha256()
    mask = b"" if scan.mask is None else np.packbits(scan.mask).tobytes()
    start = "" if options.start is None else str(options.start.card.get("sha256", ""))
    plain = replace(options, start=None)
    for fact in (scan.path or scan.name, scan.shape, method, plain, start):
        digest.update(repr(fact).encode() + b"|")
    for array in (scan.gradients.bvalues, scan.gradients.directions, scan.affine):
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    digest.update(mask)
    folder = user_cache_path("napari-dmri") / "fits"
    return folder / f"{method}-{digest.hexdigest()[:16]}.safetensors"


def fit_network(
    scan: Scan,
    responses: ResponseSet | None,
    options: DeconvolveOptions,
    fit: FitOptions,
    state: Path,
    switch: Switch,
    slice_shown: Callable[[], tuple[int, int] | None],
    progress: Progress | None = None,
    preview: Callable[[Any], None] | None = None,
) -> DeconvolveResult:
    """Fit a network to a scan, apply it, and make the maps.

    ``preview`` is called with what the fit tells: responses, events for the curves, words about a
    retry, and a slice's fODFs. A state that is at ``state`` is gone on from; it goes once the
    result is there, and stays when the fit is stopped.
    """
    from napari_dmri.deconvolve.shd.fit import fit_to_scan
    from napari_dmri.deconvolve.shd.shell_choice import choose_subset

    # What cannot be is said before the scan is prepared.
    inputs = None if fit.seen is None else choose_subset(scan.gradients, fit.seen)
    tell = preview or (lambda news: None)
    scan, responses, notes = prepared_scan(scan, responses, options, part(progress, 0, 0.05))
    tell(Preview(responses))
    state.parent.mkdir(parents=True, exist_ok=True)
    _forget_old(state)
    label = METHODS[options.method].label
    if fit.start is not None:
        label = model_label({**fit.start.card, "label": label})
    name = f"{scan.name} | {label}"

    def show(made: Any) -> None:
        tell(Preview(responses, _on_whole_grid(made, scan, name), made.loss))

    try:
        fitted = fit_to_scan(
            scan,
            responses,
            options.method,
            others=fit.others,
            weights=fit.weights,
            size=fit.size,
            mode=fit.mode,
            inputs=inputs,
            start=None if fit.start is None else fit.start.load(),
            minutes=fit.minutes,
            seed=fit.seed,
            device=options.device,
            state=state,
            on_event=tell,
            on_preview=show if "glyphs" in options.outputs else None,
            preview_slice=slice_shown,
            preview_every=PREVIEW_EVERY,
            switch=switch,
            progress=part(progress, 0.05, 0.9),
        )
    except OtherTraining as error:
        # Responses, which may not be known before, are not part of the state's name.
        raise InputError(
            "The fit that was stopped had other responses, or the scan or this program has changed "
            'since: take the responses back that it had to go on, or press "Begin anew".'
        ) from error
    made = finished_result(
        scan, responses, fitted.deconvolution, options,
        (*notes, *fitted.notes), part(progress, 0.9, 1),
    )  # fmt: skip
    drop_state(state)
    return replace(made, model=fitted.model)


def _on_whole_grid(made: Any, scan: Scan, name: str) -> ShImage:
    """Put a slice's fODFs (X, Y, C along its two axes) on the scan's grid."""
    fod = np.asarray(made.coefficients, np.float32)
    whole = np.zeros((*scan.grid, fod.shape[-1]), np.float32)
    where: list[Any] = [slice(None)] * 3
    where[made.axis] = made.index
    whole[tuple(where)] = fod
    return ShImage(whole, scan.affine, normalised=False, name=name)


def _forget_old(state: Path) -> None:
    """Delete the oldest states of other fits."""
    others = [path for path in state.parent.glob("*.safetensors") if path != state]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_STATES - 1 :]:
        drop_state(path)
