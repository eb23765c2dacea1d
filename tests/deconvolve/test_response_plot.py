"""The drawing of responses: what it shows, for sets and single responses of any kind."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_dmri.compare.style import Style
from napari_dmri.deconvolve.response_kernel import kernel_zonal
from napari_dmri.deconvolve.response_plot import draw_response
from napari_dmri.images import Response, ResponseSet

ROWS = np.zeros((3, 5))
ROWS[0, 0] = np.sqrt(4 * np.pi)
ROWS[1:] = kernel_zonal([1000.0, 3000.0], 0.5, 1.7, 0.85, 8)
WM = Response(500 * ROWS, (0, 1000, 3000))
GM = Response(700 * ROWS[:, :1], (0, 1000, 3000), "gm")


def test_each_shell_is_a_line_about_the_fibre() -> None:
    figure = Figure(figsize=(8, 3.5))
    draw_response(figure, ResponseSet({"wm": WM, "gm": GM}), style=Style.dark())
    shape, bars = figure.axes
    assert len(shape.lines) == 4
    angle, radius = shape.lines[1].get_data()
    along, across = radius[0], radius[90]
    assert np.degrees(angle[90]) == pytest.approx(90)
    exact = 0.5 + 0.5 * np.exp(-3 * 0.85)
    assert across == pytest.approx(exact, rel=0.02)
    assert along < 0.1 * across
    assert [t.get_text() for t in bars.get_legend().get_texts()] == [
        "b = 1000 s/mm²",
        "b = 3000 s/mm²",
    ]
    draw_response(figure, WM)
    assert len(figure.axes) == 2


def test_responses_without_bvalues_and_of_one_row_are_drawn() -> None:
    figure = Figure(figsize=(3, 6))
    draw_response(figure, Response(WM.zonal[2:], None))
    assert len(figure.axes[0].lines) == 1
    draw_response(figure, GM)
    assert len(figure.axes[0].lines) == 2
    figure.canvas.draw()
