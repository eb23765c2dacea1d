"""A tiny scan with two tissues and tiny networks, for the tests of what runs them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.deconvolve.sticks import crossing_signal, isotropic, response, table, units

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shd import presets
from napari_dmri.scan import Scan

GRID = (7, 6, 5)
AFFINE = np.diag([2.0, 2, 2, 1])
REAL = presets.preset


def make_scan(grid=GRID, seed=0, counts=(3, 16, 16), **more) -> Scan:
    """Make crossing fibres that differ from voxel to voxel, and water in a corner."""
    gradients = table(counts)
    n = int(np.prod(grid))
    fibres = units(2 * n, seed).reshape(n, 2, 3)
    signal = crossing_signal(gradients, fibres, np.full((n, 2), 0.5)).reshape(*grid, -1)
    signal[: grid[0] // 3] = 100 * np.exp(-gradients.bvalues * 3e-3)
    mask = np.ones(grid, bool)
    mask[-1, -1, :] = False
    more = {"mask": mask, "name": "sub-01", **more}
    return Scan(signal.astype(np.float32), AFFINE, gradients, **more)


def make_responses() -> ResponseSet:
    wm, gm, csf = response(4), isotropic("gm", 1e-3), isotropic("csf", 3e-3)
    return ResponseSet({"wm": wm, "gm": gm, "csf": csf})


@pytest.fixture
def scan() -> Scan:
    return make_scan()


@pytest.fixture(scope="session")
def responses() -> ResponseSet:
    return make_responses()


def make_tiny(name: str, size: str = "small", mode: str | None = None) -> presets.Preset:
    """Return a method with a network of a few features and a plan of a few steps."""
    chosen = REAL(name, size, mode)
    patch = 4 if chosen.mode == "tiled" else chosen.architecture.patch
    made = replace(chosen.architecture, n_side=2, filters=4, depth=2, degree=4, patch=patch)
    plan = presets.Plan(lr=5e-3, batch=2, epochs=4, steps=3, drops=(2,))
    return replace(chosen, architecture=made, plan=plan)


@pytest.fixture
def tiny(monkeypatch):
    """Make every method tiny."""
    monkeypatch.setattr(presets, "preset", make_tiny)
    return make_tiny
