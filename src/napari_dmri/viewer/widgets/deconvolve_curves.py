"""The curves of a network that is fitted to a scan: its loss and the terms of it, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_dmri.viewer.plots import SHELL_COLOURS
from napari_dmri.viewer.widgets.train_plots import CurvePlot

__all__ = ["TermCurves"]

MOST_POINTS = 400
TOTAL = "loss"

SPAN = 1e-5
"""Smallest value shown, as a share of the largest."""


class TermCurves(CurvePlot):
    """Show the loss and its terms by step, on a logarithmic axis; failed attempts stay in gray."""

    def __init__(self, viewer: Any) -> None:
        self.terms: dict[str, list[tuple[float, float]]] = {}
        self.failed: list[list[tuple[float, float]]] = []
        super().__init__(viewer)
        self.setAccessibleName("Loss and its terms by step")

    def begin(self) -> None:
        """Forget an earlier fit."""
        self.terms, self.failed = {}, []
        super().begin()

    def again(self) -> None:
        """Keep what is there as a failed attempt, and begin another."""
        if TOTAL in self.terms:
            self.failed.append(self.terms[TOTAL])
        self.terms = {}
        self.repaint_theme()

    def tell(self, event: Any) -> None:
        """Take an event of the training loop."""
        at = float(max(event.epoch - 1, 0) * event.steps + event.step)
        if event.kind == "epoch":
            at = float(event.epoch * event.steps)
        if event.kind not in ("step", "epoch"):
            return
        values = {TOTAL: event.train, **event.metrics}
        for name, value in values.items():
            if value is not None and np.isfinite(value):
                self.terms.setdefault(name, []).append((at, float(value)))
        self.repaint_soon()

    @property
    def steps(self) -> int:
        """The last step that was told of."""
        return int(max((p[-1][0] for p in self.terms.values() if p), default=0))

    def paint(self) -> None:
        """Draw a line a term, and the loss thicker."""
        axes = self.figure.subplots()
        for points in self.failed:
            axes.plot(*_drawn(points), lw=1, color=self.quiet)
        colours = iter(SHELL_COLOURS)
        for name, points in sorted(self.terms.items(), key=lambda t: t[0] != TOTAL):
            thick = name == TOTAL
            colour = self.ink if thick else next(colours, self.quiet)
            marker = "." if len(points) < 3 else ""
            axes.plot(*_drawn(points), marker=marker, lw=1.8 if thick else 1, color=colour,
                      label=name.replace("_", " "))  # fmt: skip
        axes.set(xlabel="step", yscale="log")
        low, top = axes.get_ylim()
        # A term that is nearly nothing would press all others to the top.
        axes.set_ylim(bottom=max(low, SPAN * top))
        axes.margins(x=0.01)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(which="minor", colors=self.ink, labelsize=7, length=1, labelleft=False)
        if self.terms:
            self.figure.legend(
                loc="outside upper center", ncols=3, fontsize=7, frameon=False,
                labelcolor=self.ink, handlelength=1.2, columnspacing=1,
            )  # fmt: skip
        self.dress(axes)


def _drawn(points: list[tuple[float, float]]) -> tuple[Any, Any]:
    """Return at most so many points for drawing, all positive, the last one among them."""
    step = max(1, len(points) // MOST_POINTS)
    shown = [p for p in (*points[:-1:step], *points[-1:]) if p[1] > 0]
    return tuple(zip(*shown, strict=True)) if shown else ((), ())
