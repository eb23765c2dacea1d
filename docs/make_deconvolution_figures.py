"""Draw the figures of the pages on deconvolution, from a simulated person.

Run from the repository root: ``python docs/make_deconvolution_figures.py [NAME ...]``; without
names, all are drawn.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

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


FIGURES = {"responses": figure_responses}


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
