"""What a run of the Deconvolve dock needs, said before it is begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.images import n_coefficients
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.network_fit import FitOptions, forecast, tissues_of, usual_weights
from napari_dmri.viewer.widgets._parts import device_line, time_words

__all__ = ["LOSS_WORDS", "fit_words", "run_words"]

LOSS_WORDS = {
    "sparsity": "sparsity",
    "non_negativity": "non-negativity",
    "spatial": "smoothness",
}
"""What weights of the loss are called in the window."""

HEAD = 0.35
"""Share of a volume's voxels that a brain mask holds, about, where it is still to be made."""


def run_words(scan: Scan | None, methods: Mapping[str, Mapping[str, Any]], make_mask: bool) -> str:
    """Say where methods with their settings will run, what they need and about how long."""
    if scan is None:
        return device_line()
    grid, voxels = int(np.prod(scan.grid)), _voxels(scan, make_mask)
    order = max(settings.get("order") or 12 for settings in methods.values())
    needed = (
        4.0 * grid * (3 * n_coefficients(order) * len(methods) + 40) + 4.0 * voxels * scan.shape[3]
    )
    seconds = sum(METHODS[name].forecast(voxels, given) for name, given in methods.items())
    line = device_line(needed, 2 + seconds)
    return line.split(" | about")[0] if line.startswith("NVIDIA") else line


def fit_words(
    scan: Scan | None,
    method: str,
    options: FitOptions,
    make_mask: bool,
    responses: ResponseSet | None = None,
) -> str:
    """Say where a fit will run, what it needs, how long, when glyphs come, and what it separates.

    Weights of the loss are named where they are not the method's own.
    """
    if scan is None:
        return device_line()
    device = preferences.device()
    seconds, first, needed = forecast(scan, _voxels(scan, make_mask), method, options, device)
    words = f"{device_line(needed, seconds)}, first glyphs after {time_words(first)}"
    tissues = tissues_of(scan, responses, options)
    if tissues is not None:
        words += f" | {' + '.join(t.upper() for t in tissues)}"
    usual = usual_weights(method, options, device)
    changed = [
        f"{LOSS_WORDS[name]} {value:g} (usually {usual[name]:g})"
        for name, value in options.weights.items()
        if value != usual[name]
    ]
    return f"{words} | {', '.join(changed)}" if changed else words


def _voxels(scan: Scan, make_mask: bool) -> int:
    if scan.mask is not None:
        return int(scan.mask.sum())
    return round((HEAD if make_mask else 1.0) * int(np.prod(scan.grid)))
