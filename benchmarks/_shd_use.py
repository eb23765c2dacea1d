"""A whole brain by a network of the package, as a click on *Run* does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from _cost import once

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dmri.scan import Scan

METHOD = "shd-s-tv"

GRID, VOXEL, CENTRE = (96, 96, 60), 1.98, (0.0, -16.0, 10.0)
"""The whole brain's grid, with the voxels in mm that bring about 200,000 of them into the mask."""

SITES = {"clinical": "shd-s-tv-one-shell", "research_hr": "shd-s-tv-two-shells"}
"""Simulated scanners, and the networks of the package that fit their shells."""

TARGETS = {"cpu": 300.0, "cuda": 5.0}
"""Seconds that a whole brain may take on two threads, and on a GPU."""


def brain(
    ask: Callable[..., dict[str, Any]],
    note: Callable[..., None],
    threads: int,
    folder: str,
    grid: list[int] | None,
) -> None:
    """Print what a shipped network takes for a whole brain; scans are simulated once, in a folder.

    ``ask`` measures in a process of its own, ``note`` takes figures for the table; another ``grid``
    is for a quick look.
    """
    shape = " x ".join(map(str, grid or GRID))
    print(f"\nA shipped network on a simulated brain, {shape} voxels of {VOXEL:g} mm, wall seconds")
    for site, model in SITES.items():
        path = Path(folder) / f"{site}.npz"
        if not path.exists():
            ask(what="simulate", name=site, path=str(path), grid=grid)
        found = ask(what="brain", name=site, path=str(path))
        seconds, voxels = found["seconds"], found["voxels"]
        target = None
        if grid is None and (found["device"] == "cuda" or threads == 2):
            target = TARGETS[found["device"]]
        print(
            f"{site:12s} {model:20s} {voxels:,} voxels in the phantom's own mask: "
            f"{seconds:7.2f} s ({found['cpu']:.2f} CPU s), {voxels / seconds:,.0f} voxels/s, "
            f"+ {found['added']:.3f} GB; responses before that {found['responses']:.2f} s"
            + against(seconds, target)
        )
        if "again" in found:
            print(f"{'':33s} a second time {found['again']:.2f} s")
            note(part="brain", name=f"{site}, a second time", seconds=found["again"])
        note(
            part="brain",
            name=f"{site}, {model}",
            seconds=seconds,
            cpu_seconds=found["cpu"],
            added_gb=found["added"],
            peer="" if target is None else "target",
            peer_seconds=target,
            voxels=voxels,
            rate=voxels / seconds,
        )
        note(part="brain", name=f"{site}, responses", voxels=voxels, seconds=found["responses"])


def against(seconds: float, target: float | None) -> str:
    if target is None:
        return ""
    return f"; target {target:g} s: {'met' if seconds <= target else 'MISSED'}"


def simulate(path: str, name: str, grid: list[int] | None) -> dict[str, Any]:
    """Write a simulated scan to a file, so that simulating leaves no traces in what is measured."""
    from dataclasses import replace

    import numpy as np

    from napari_dmri.phantom.anatomy import make_subject
    from napari_dmri.phantom.composition import sample
    from napari_dmri.phantom.presets import get_scanner
    from napari_dmri.phantom.travelling import Field

    x, y, z = grid or GRID
    subject = make_subject(0)
    view = Field((x * VOXEL, y * VOXEL, z * VOXEL), CENTRE).grid(VOXEL)
    scanner = replace(get_scanner(name), voxel_size=VOXEL)
    scan = scanner.scan(subject, sample(subject, view))
    table = scan.gradients
    assert scan.mask is not None
    np.savez(
        path,
        data=scan.volumes(),
        affine=scan.affine,
        mask=scan.mask,
        bvals=table.bvalues,
        bvecs=table.directions,
    )
    return {"voxels": int(scan.mask.sum())}


def loaded(path: str) -> Scan:
    import numpy as np

    from napari_dmri.scan import GradientTable, Scan

    with np.load(path) as held:
        table = GradientTable(held["bvals"], held["bvecs"])
        return Scan(held["data"], held["affine"], table, mask=held["mask"])


def measure_brain(device: str, name: str, path: str) -> dict[str, Any]:
    """Deconvolve as a click does, the responses known."""
    from napari_dmri.deconvolve.registry import deconvolve
    from napari_dmri.deconvolve.response import estimate_response

    scan = loaded(path)
    assert scan.mask is not None
    responses, before = once(lambda: estimate_response(scan, device=device), device)

    def click() -> Any:
        return deconvolve(scan, METHOD, responses, model=SITES[name], device=device).voxels

    voxels, found = once(click, device)
    if device == "cuda":
        # The first time a process asks a GPU for anything, its libraries load.
        found["again"] = once(click, device)[1]["seconds"]
    return {**found, "voxels": voxels, "responses": before["seconds"], "device": device}
