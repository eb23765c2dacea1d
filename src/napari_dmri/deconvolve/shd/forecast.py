"""How long a fit takes and what it needs, told before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.presets import continued, preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_dmri.deconvolve.shd.presets import Preset

__all__ = ["Forecast", "forecast_fit"]

PATCH = 3**3
"""Voxels of a patch of the papers."""

REFERENCE = 100.0
"""GFLOP/s of a float32 matrix product of one thread of the machine that was timed."""

GPU = 60.0
"""How many times faster a GPU is than that."""

PACES: dict[tuple[str, str], tuple[float, float]] = {
    ("shd-s-tv", "small"): (0.233, 6.15e-05),
    ("shd-s", "small"): (0.233, 6.48e-05),
    ("shd-tv", "small"): (0.127, 0.00245),
    ("shd", "small"): (0.125, 0.00257),
    ("rt-esd", "small"): (0.307, 0.0034),
    ("esd", "small"): (0.0802, 6.29e-05),
    ("cnn", "small"): (0.0557, 0.000502),
    ("cnn-tv", "small"): (0.0572, 0.000475),
    ("mlp", "small"): (0.0225, 1.01e-05),
    ("concat-so3", "small"): (0.37, 0.00725),
    ("e3-sh", "small"): (0.0172, 9.43e-05),
    ("shd-s-tv", "paper"): (0.394, 0.000171),
    ("shd-s", "paper"): (0.403, 0.000179),
    ("shd-tv", "paper"): (1.58, 0.0386),
    ("shd", "paper"): (1.53, 0.0369),
    ("rt-esd", "paper"): (6.34, 0.0443),
    ("esd", "paper"): (0.0839, 0.00123),
    ("cnn", "paper"): (0.224, 0.00417),
    ("cnn-tv", "paper"): (0.225, 0.004),
    ("mlp", "paper"): (0.0281, 0.000139),
    ("concat-so3", "paper"): (4.6, 0.11),
    ("e3-sh", "paper"): (0.15, 0.003),
}
"""Seconds of a step of training and of one voxel (a patch in paper mode) on that thread."""


@dataclass(frozen=True)
class Forecast:
    """Say about how many seconds a fit takes, until its first glyphs, its steps and bytes."""

    seconds: float
    preview_seconds: float
    memory: int
    steps: int


def forecast_fit(
    voxels: int,
    method: str = "shd-s-tv",
    *,
    size: str | None = None,
    mode: str | None = None,
    device: str = "auto",
    minutes: float | None = None,
    start: Mapping[str, Any] | None = None,
    every: float = 5.0,
) -> Forecast:
    """Forecast a fit from the voxels of the mask, without loading torch on a CPU.

    Parameters
    ----------
    voxels
        In the mask.
    method, size, mode, device, minutes
        As for `fit_to_scan`; ``"auto"`` is taken for a CPU unless torch is loaded already.
    start
        The card of a trained model to begin from, whose network and mode are kept and which a part
        of the plan tunes.
    every
        Seconds between two previews.
    """
    cuda = _on_cuda(device)
    own = None if start is None else str(start.get("size") or "small")
    size = size or own or ("paper" if cuda else "small")
    chosen = preset(method, size, mode if start is None else None)
    if start is not None:
        network = Architecture.from_dict(dict(start["architecture"]))
        chosen = continued(chosen, network, str(start["mode"]))
    faster = GPU if cuda else machine_speed() / REFERENCE
    plan, made = chosen.plan, chosen.architecture
    patch = made.patch**3
    # A step has as many voxels whatever the network, and takes as long as its network is large.
    each, voxel = (seconds / faster for seconds in PACES[method, own or size])
    tiled = chosen.mode == "tiled"
    if tiled and preset(method).mode == "paper":
        # The pace is of a patch for each voxel; a tile's voxels share their neighbours.
        voxel /= PATCH
    if minutes is not None:
        plan = plan.within(60 * minutes / each)
    elif start is not None:
        plan = plan.tuned()
    # What a halo costs; all of a tile is kept in a preview, which is one slice of it.
    final = voxels * voxel * _overlap(chosen)
    slice_time = voxels ** (2 / 3) * voxel * (1.3 * made.patch if tiled else 1)
    shown = (slice_time if tiled else min(2.0, slice_time)) + each
    memory = 4 * plan.batch * patch * 14 * width(chosen) * made.filters
    return Forecast(
        2.0 + plan.cost * each + final,
        2.0 + every + shown,
        int(memory + 250e6),
        plan.total_steps,
    )


def width(preset: Preset) -> int:
    """Return the vertices of a voxel at the first level."""
    return 1 if preset.architecture.layer == "convolution" else preset.architecture.vertices[0]


def voxel_pace(method: str) -> float:
    """Return about how many voxels a second a small model of a method takes on two cores."""
    # Two cores are less than twice one.
    return 1.5 / (_overlap(preset(method, "small")) * PACES[method, "small"][1])


def _overlap(chosen: Preset) -> float:
    """Return how often a voxel is computed, about."""
    if chosen.mode != "tiled":
        return 1.0
    return 10.0 if chosen.architecture.border == "zeros" else 5.0


@cache
def machine_speed() -> float:
    """Measure the GFLOP/s of a float32 matrix product on this machine, in a few milliseconds."""
    a = np.random.default_rng(0).random((768, 768), np.float32)
    best = np.inf
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return float(2 * len(a) ** 3 / best / 1e9)


def _on_cuda(device: str) -> bool:
    """Tell whether a fit would run on a CUDA device, without loading torch for the question."""
    if device != "auto":
        return device.startswith("cuda")
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())
