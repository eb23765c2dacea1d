"""Plots of a comparison, drawn on Axes that the caller gives: one code for docks and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.metrics import Agreement, agreement, paired_values
from napari_dmri.compare.panels import (
    PLANES,
    Panel,
    centre_of,
    draw_slice,
    limits_of,
    panel_figure,
)
from napari_dmri.compare.style import Style, region_of, values_of
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.images import ScalarImage

__all__ = [
    "PLANES",
    "Panel",
    "Style",
    "centre_of",
    "draw_bland_altman",
    "draw_histogram",
    "draw_slice",
    "limits_of",
    "panel_figure",
]

MOST_POINTS = 4000


def draw_histogram(
    ax: Any,
    maps: list[ScalarImage] | tuple[ScalarImage, ...],
    *,
    mask: NDArray[Any] | None = None,
    names: list[str] | tuple[str, ...] | None = None,
    bins: int = 80,
    style: Style | None = None,
) -> None:
    """Draw the distributions of two or three maps, as outlines over common bins.

    Parameters
    ----------
    ax
        Matplotlib Axes to draw on; cleared first.
    maps
        One to three maps of one kind.
    mask
        Voxels that count (X, Y, Z); None takes those where the first map is not zero.
    names
        Legend; None takes the maps' names.
    bins
        Number of bins between the 0.5th and 99.5th percentile of all.
    style
        Colours.
    """
    look = style or Style()
    _dress(ax, look)
    titles = names or [image.name for image in maps]
    values = [values_of(image, mask, maps[0]) for image in maps]
    together = np.concatenate(values)
    if not together.size:
        raise InputError("No voxel to plot: the mask is empty or no value is finite.")
    low, high = (float(v) for v in np.percentile(together, (0.5, 99.5)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    for value, title, colour in zip(
        values, titles, (look.first, look.second, look.third), strict=False
    ):
        counts, _ = np.histogram(value, edges)
        share = 100 * counts / max(value.size, 1)
        ax.stairs(share, edges, color=colour, linewidth=1.4, label=title)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(_with_units("value", maps[0].units))
    ax.set_ylabel("voxels (%)")
    _legend(ax, look)


def draw_bland_altman(
    ax: Any,
    a: ScalarImage,
    b: ScalarImage,
    *,
    mask: NDArray[Any] | None = None,
    names: tuple[str, str] = ("A", "B"),
    style: Style | None = None,
) -> Agreement:
    """Draw difference over mean with bias and 95 % limits of agreement.

    All voxels enter the bias and the limits; at most 4000 are drawn, evenly chosen.

    Returns
    -------
    The bias and limits that are drawn.
    """
    look = style or Style()
    _dress(ax, look)
    chosen = region_of(a, mask, a)
    x, y = paired_values(a.data, b.data, chosen)
    found = agreement(a.data, b.data, chosen)
    step = max(1, -(-x.size // MOST_POINTS))
    ax.scatter(
        ((x + y) / 2)[::step],
        (x - y)[::step],
        s=4,
        color=look.first,
        alpha=0.35,
        linewidths=0,
        rasterized=True,
    )
    lines = [(found.bias, "bias", "-"), (found.upper, "+1.96 SD", "--")]
    for level, word, dash in [*lines, (found.lower, "−1.96 SD", "--")]:
        if np.isfinite(level):
            ax.axhline(level, color=look.second, linestyle=dash, linewidth=1.2)
            ax.annotate(
                f"{word} {level:.3g}",
                (1, level),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=look.text,
                fontsize="small",
            )
    spread = [v for v in (found.lower, found.upper) if np.isfinite(v)]
    if len(spread) == 2 and spread[1] > spread[0]:
        margin = spread[1] - spread[0]
        ax.set_ylim(spread[0] - 0.6 * margin, spread[1] + 0.6 * margin)
    ax.axhline(0, color=look.line, linewidth=0.6)
    ax.set_xlabel(_with_units(f"mean of {names[0]} and {names[1]}", a.units))
    ax.set_ylabel(_with_units(f"{names[0]} − {names[1]}", a.units))
    return found


def _with_units(text: str, units: str) -> str:
    return f"{text} ({units})" if units else text


def _dress(ax: Any, look: Style) -> None:
    ax.clear()
    ax.set_facecolor(look.background)
    if ax.figure is not None:
        ax.figure.set_facecolor(look.background)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.line)
    ax.tick_params(colors=look.text, labelsize="small")
    ax.xaxis.label.set_color(look.text)
    ax.yaxis.label.set_color(look.text)
    ax.title.set_color(look.text)
    ax.xaxis.offsetText.set_color(look.text)
    ax.yaxis.offsetText.set_color(look.text)
    ax.grid(True, color=look.grid, linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)


def _legend(ax: Any, look: Style) -> None:
    legend = ax.legend(frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_color(look.text)
