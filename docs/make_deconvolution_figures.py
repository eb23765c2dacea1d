"""Draw the figures of the pages on deconvolution, from a simulated person and a measured scan.

Run from the repository root: ``python docs/make_deconvolution_figures.py [NAME ...]``; without
names, all are drawn. ``dock`` needs a display (``bash scripts/on-screen.sh`` gives a virtual one),
``tissues`` the real scans (``NAPARI_DMRI_DATA``, ``../shared/data`` without it).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from napari_dmri import estimate_response
from napari_dmri.deconvolve.response_plot import draw_response
from napari_dmri.phantom.travelling import simulate_subject

DOCS = Path(__file__).resolve().parent


def figure_responses() -> None:
    """Draw a subject's responses and the voxels that they were taken from."""
    site = "research_hr"
    scan = simulate_subject(0, sites=(site,), size="small", repeats=False).scans[site]
    responses = estimate_response(scan)
    figure = plt.figure(figsize=(11, 3.6), dpi=90)
    left, right = figure.subfigures(1, 2, width_ratios=(0.42, 1))
    ax = left.subplots()
    ax.set_position((0.02, 0.02, 0.96, 0.88))
    plane = scan.shape[2] // 2
    b0 = scan.mean_b0()[..., plane].T
    labels = responses.voxels.data[..., plane].T
    ax.imshow(b0, cmap="gray", origin="lower", vmax=np.quantile(b0[b0 > 0], 0.98))
    colours = np.array([[0, 0, 0, 0], [0.3, 0.75, 1, 1], [0.95, 0.6, 0.1, 1], [0.3, 0.9, 0.5, 1]])
    ax.imshow(colours[labels], origin="lower", interpolation="nearest")
    ax.set_axis_off()
    ax.set_title("white matter, grey matter, CSF", fontsize=10)
    shapes = Figure(figsize=(7.7, 3.6), dpi=90)
    draw_response(shapes, responses)
    stream = BytesIO()
    shapes.savefig(stream, dpi=90)
    stream.seek(0)
    picture = right.subplots()
    picture.set_position((0, 0, 1, 1))
    picture.imshow(np.asarray(Image.open(stream)))
    picture.set_axis_off()
    save(figure, "responses.png", dpi=90)


def figure_dock() -> None:
    """Take pictures of the Deconvolve dock: a run, and methods side by side."""
    import napari

    from napari_dmri.viewer.driving import press, settle, wait_for
    from napari_dmri.viewer.launch import open_dock
    from napari_dmri.viewer.layers import scan_layer
    from napari_dmri.viewer.orientation import prepare

    site = "prisma_st+b3000"
    scan = simulate_subject(0, sites=(site,), size="small", repeats=False).scans[site]
    viewer = napari.Viewer()
    viewer.window.resize(1280, 860)
    prepare(viewer)
    data, kwargs, _ = scan_layer(replace(scan, name="sub-01 (simulated)"))
    viewer.add_image(data, **kwargs)
    dock = open_dock(viewer, "Deconvolve")
    dock.mask_row.add(scan.mask, scan, {}).visible = False
    settle(0.5)
    press(dock.run_bar)
    _, up, along = viewer.scene.camera.center
    viewer.scene.camera.center = (0, up + 12, along + 6)
    viewer.scene.camera.zoom *= 3
    viewer.layers[-1].restyle(size=1.5)
    keep(viewer, "deconvolve.png")
    for layer in list(viewer.layers)[2:]:
        viewer.layers.remove(layer)
    compare = dock.compare
    compare.expand()
    compare.boxes["rumba"].setChecked(True)
    dock.method_settings.show_method("rumba")
    dock.method_settings.set({"accelerate": True})
    dock.method_settings.show_method(dock.method.currentData())
    press(compare.run_bar)
    wait_for(lambda: viewer.canvas.grid.enabled, "the panels")
    for panel in compare.panels:
        panel[1].restyle(size=1.5)
        panel[0].colorbar.visible = False
    settle(0.5)
    viewer.scene.camera.zoom *= 3.5
    dock.ensureWidgetVisible(compare.row_)
    keep(viewer, "deconvolve_methods.png")
    viewer.close()


def keep(viewer: Any, name: str) -> None:
    """Save a picture of the whole window as a small PNG."""
    from napari_dmri.viewer.driving import settle

    settle(1.0)
    shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    shot.quantize(192, dither=Image.Dither.NONE).save(DOCS / "images" / name, optimize=True)


def figure_tissues() -> None:
    """Draw what a shipped network makes of a measured scan of one shell."""
    from napari_dmri import brain_mask
    from napari_dmri.deconvolve import deconvolve
    from napari_dmri.io import read_scan

    folder = Path(os.environ.get("NAPARI_DMRI_DATA", DOCS.parents[1] / "shared" / "data"))
    scan = read_scan(folder / "siemens_trio" / "dwi.nii.gz")
    scan = scan.with_mask(brain_mask(scan))
    responses = estimate_response(scan)
    plane = scan.shape[2] // 2
    wanted = np.zeros(scan.grid, bool)
    wanted[:, :, plane] = scan.mask[:, :, plane]
    found = deconvolve(scan, "shd-s-tv", responses, mask=wanted)
    b0 = scan.mean_b0()
    panels = {
        "b0": b0 / np.quantile(b0[scan.mask], 0.98),
        "white matter": found.fod.coefficients[..., 0],
        "grey matter": found.maps["gm"].data,
        "CSF": found.maps["csf"].data,
    }
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.4), dpi=90, layout="constrained")
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        factor = 1 if title == "b0" else np.sqrt(4 * np.pi)
        ax.imshow(factor * values[:, :, plane].T, cmap="gray", origin="lower", vmin=0, vmax=1)
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    save(figure, "deconvolve_tissues.png", dpi=90)


FIGURES = {"responses": figure_responses, "dock": figure_dock, "tissues": figure_tissues}


def save(figure: Figure, name: str, dpi: int) -> None:
    """Write a figure as a small PNG into the pages' folder."""
    (DOCS / "images").mkdir(exist_ok=True)
    stream = BytesIO()
    figure.savefig(stream, dpi=dpi, facecolor="white")
    plt.close(figure)
    stream.seek(0)
    image = Image.open(stream).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(DOCS / "images" / name, optimize=True)


def main() -> None:
    """Draw what is named, or everything."""
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()


if __name__ == "__main__":
    main()
