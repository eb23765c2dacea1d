"""Draw responses: the signal about the fibre per shell, and its zonal coefficients.

One code for the dock and for files: everything is drawn on the Figure that the caller gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.style import Style
from napari_dmri.deconvolve.response_fit import zonal_basis
from napari_dmri.images import ResponseSet

if TYPE_CHECKING:
    from napari_dmri.images import Response

__all__ = ["draw_response"]

NAMES = {"wm": "white matter", "gm": "grey matter", "csf": "CSF"}


def draw_response(
    figure: Any, responses: ResponseSet | Response, *, style: Style | None = None
) -> None:
    """Draw the shape of white matter's response and the coefficients of all tissues.

    On the left, the signal over the direction's angle to the fibre, which points up, per shell, as
    a part of the b0 signal; grey matter's and CSF's are circles. On the right, the magnitudes of
    the coefficients over their order, and the isotropic tissues' at l = 0.

    Parameters
    ----------
    figure
        Matplotlib Figure to draw on; cleared first.
    responses
        A set, or one response.
    style
        Colours.
    """
    look = style or Style()
    figure.clear()
    figure.set_facecolor(look.background)
    tissues = (
        dict(responses) if isinstance(responses, ResponseSet) else {responses.tissue: responses}
    )
    narrow = figure.get_figwidth() < 5
    rows, columns = (2, 1) if narrow else (1, 2)
    shape = figure.add_subplot(rows, columns, 1, projection="polar")
    bars = figure.add_subplot(rows, columns, 2)
    _draw_shape(shape, tissues, look)
    _draw_coefficients(bars, tissues, look)
    figure.tight_layout()


def _draw_shape(ax: Any, tissues: dict[str, Response], look: Style) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_facecolor(look.background)
    ax.set_theta_zero_location("N")
    angle = np.linspace(0, 2 * np.pi, 361)
    for tissue, response in tissues.items():
        top = _scale(response)
        for row, bvalue, colour in _weighted(response, look):
            if tissue == "wm":
                radius = zonal_basis(np.cos(angle), response.order) @ row / top
                label = _shell_name(bvalue)
                ax.plot(angle, np.maximum(radius, 0), color=colour, linewidth=1.8, label=label)
            else:
                radius = np.full_like(angle, row[0] / np.sqrt(4 * np.pi) / top)
                dash = "--" if tissue == "gm" else ":"
                ax.plot(angle, radius, color=colour, linewidth=0.9, linestyle=dash)
    ax.set_rlim(0)
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.set_rlabel_position(20)
    ax.set_xticks(np.deg2rad([0, 45, 90, 135, 180, 225, 270, 315]))
    ax.set_xticklabels(["fibre", "", "90°", "", "", "", "90°", ""])
    ax.tick_params(colors=look.text, labelsize="small")
    ax.grid(color=look.grid, linewidth=0.6)
    ax.spines["polar"].set_color(look.grid)
    ax.set_title("signal / b0 signal", color=look.text, fontsize="medium")
    others = [NAMES[t] for t in ("gm", "csf") if t in tissues]
    if others:
        lines = {"grey matter": "dashed", "CSF": "dotted"}
        words = ", ".join(f"{name} {lines[name]}" for name in others)
        ax.set_xlabel(words, color=look.text, fontsize="small")


def _draw_coefficients(ax: Any, tissues: dict[str, Response], look: Style) -> None:
    ax.set_facecolor(look.background)
    for tissue, response in tissues.items():
        top = _scale(response) * np.sqrt(4 * np.pi)
        for row, bvalue, colour in _weighted(response, look):
            size = np.abs(row) / top
            if tissue == "wm":
                order = np.arange(0, response.order + 1, 2)
                shown = size > 0
                ax.plot(
                    order[shown],
                    size[shown],
                    "o-",
                    color=colour,
                    markersize=4,
                    label=_shell_name(bvalue),
                )
            else:
                mark = "s" if tissue == "gm" else "^"
                ax.plot([0], size[:1], mark, color=colour, markersize=5, fillstyle="none")
    ax.set_yscale("log")
    ax.set_ylim(1e-4, 1.5)
    ax.set_xticks(np.arange(0, max(r.order for r in tissues.values()) + 1, 2))
    ax.set_xlabel("order l", color=look.text)
    ax.set_ylabel("|r| / r of b0 at l = 0", color=look.text)
    ax.tick_params(colors=look.text, labelsize="small")
    ax.grid(color=look.grid, linewidth=0.6)
    for spine in ax.spines.values():
        spine.set_color(look.grid)
    handles, _ = ax.get_legend_handles_labels()
    if not handles:
        return
    legend = ax.legend(frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_color(look.text)


def _scale(response: Response) -> float:
    """Return the signal at b = 0, or of the first row where no b0 row is known."""
    return float(response.zonal[0, 0] / np.sqrt(4 * np.pi)) or 1.0


def _weighted(response: Response, look: Style) -> list[tuple[Any, float | None, str]]:
    """Return the rows that are not b0's, their b-value, and a colour that deepens with it."""
    colours = (look.first, look.second, look.third, look.line)
    shells = response.bvalues or (None,) * len(response.zonal)
    rows = [
        (row, b)
        for k, (row, b) in enumerate(zip(response.zonal, shells, strict=True))
        if (b is None and (k > 0 or len(response.zonal) == 1)) or (b is not None and b > 50)
    ]
    return [(row, b, colours[k % len(colours)]) for k, (row, b) in enumerate(rows)]


def _shell_name(bvalue: float | None) -> str:
    return "shell" if bvalue is None else f"b = {bvalue:g} s/mm²"
