"""Box plots of scores by method, one panel a measure, as papers on harmonization show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.style import Style
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["box_figure", "draw_boxes"]


def draw_boxes(
    ax: Any,
    values: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    label: str = "",
    style: Style | None = None,
) -> None:
    """Draw one box a method: median, quartiles, whiskers to the extremes, each subject a dot.

    Parameters
    ----------
    ax
        Matplotlib Axes to draw on; cleared first.
    values
        Values of the subjects by method, drawn from left to right.
    title, label
        Above the plot; along its vertical axis.
    style
        Colours.

    Raises
    ------
    InputError
        If no value is finite.
    """
    look = style or Style()
    ax.clear()
    ax.set_facecolor(look.background)
    kept = {name: np.asarray(v, float)[np.isfinite(v)] for name, v in values.items()}
    kept = {name: v for name, v in kept.items() if v.size}
    if not kept:
        raise InputError("No value to plot: none is finite.")
    boxes = ax.boxplot(
        list(kept.values()),
        whis=(0, 100),
        widths=0.55,
        showfliers=False,
        medianprops={"color": look.second, "linewidth": 1.6},
    )
    for part in ("boxes", "whiskers", "caps"):
        for line in boxes[part]:
            line.set_color(look.first)
    for n, points in enumerate(kept.values(), start=1):
        # Dots are spread sideways in a fixed pattern, so that a plot is the same each time.
        spread = 0.3 * (np.arange(points.size) / max(points.size - 1, 1) - 0.5)
        ax.scatter(n + spread, points, s=7, color=look.line, alpha=0.7, linewidths=0, zorder=3)
    ax.set_xticks(range(1, len(kept) + 1), list(kept), rotation=40, ha="right")
    ax.tick_params(colors=look.text, labelsize="small")
    ax.set_title(title, color=look.text)
    ax.set_ylabel(label, color=look.text)
    ax.set_ylim(bottom=0)
    ax.grid(True, axis="y", color=look.grid, linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.line)


def box_figure(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    label: str,
    *,
    note: str = "",
    style: Style | None = None,
) -> Figure:
    """Draw panels side by side, e.g. white and grey matter.

    Parameters
    ----------
    panels
        By title, the values of the subjects by method.
    label
        Along the vertical axes.
    note
        A line below.
    style
        Colours.
    """
    from matplotlib.figure import Figure

    look = style or Style()
    width = max(3.2, 0.45 * max(len(p) for p in panels.values()) + 1.2)
    figure = Figure(
        figsize=(width * len(panels), 4.2), facecolor=look.background, layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        draw_boxes(ax, values, title=title, label=label, style=look)
    if note:
        figure.supxlabel(note, fontsize="small", color=look.text)
    return figure
