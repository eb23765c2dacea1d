"""Small plots for docks, in the theme's own colours; a click takes the viewer there."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy

from napari_dmri.scan import GradientTable

__all__ = ["SHELL_COLOURS", "DirectionPlot", "MotionPlot", "OutlierPlot", "PlotCanvas", "lambert"]

SHELL_COLOURS = ("#3b8eea", "#e8912d", "#3fb950", "#c678dd", "#e5534b", "#56b6c2")
"""One a shell, lowest b first; legible on napari's dark and light themes."""


class PlotCanvas(FigureCanvasQTAgg):
    """A plot of fixed height that follows the theme and leaves the mouse wheel to the dock.

    Subclasses paint ``self.figure`` in ``paint``; ``jumped`` carries the volume (or -1) and the
    slice (or -1) that was clicked.
    """

    jumped = Signal(int, int)

    def __init__(self, viewer: Any, height: int, name: str) -> None:
        super().__init__(Figure(layout="constrained", dpi=96))
        self.viewer = viewer
        self.setFixedHeight(height)
        self.setMinimumWidth(200)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(name)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.mpl_connect("button_press_event", self._clicked)
        viewer.events.theme.connect(self.repaint_theme)

    def let_go(self) -> None:
        """Stop listening to the viewer."""
        self.viewer.events.theme.disconnect(self.repaint_theme)

    def wheelEvent(self, event: Any) -> None:
        """Leave scrolling to the dock."""
        event.ignore()

    def repaint_theme(self, event: Any = None) -> None:
        """Paint again, in the colours of the theme on show."""
        theme = get_theme(self.viewer.theme)
        self.ink = theme.text.as_hex()
        self.paper = theme.background.as_hex()
        self.quiet = theme.primary.as_hex()
        self.figure.clear()
        self.figure.set_facecolor(self.paper)
        self.paint()
        self.draw_idle()

    def paint(self) -> None:
        """Draw everything into the cleared figure."""

    def dress(self, axes: Any) -> Any:
        """Give axes the theme's colours."""
        axes.set_facecolor(self.paper)
        axes.tick_params(colors=self.ink, labelsize=7, length=2, pad=2)
        for spine in axes.spines.values():
            spine.set_color(self.quiet)
        for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
            label.set_color(self.ink)
            label.set_fontsize(8)
        return axes

    def _clicked(self, event: Any) -> None:
        if event.inaxes is not None:
            self.clicked(event)

    def clicked(self, event: Any) -> None:
        """Emit ``jumped`` for a click in the axes; here, the volume on the x axis."""
        self.jumped.emit(max(0, round(event.xdata)), -1)


def lambert(directions: np.ndarray) -> np.ndarray:
    r"""Project unit vectors (N, 3) onto a disk of radius 1, equal areas staying equal.

    .. math:: (x, y) \mapsto \sqrt{1 - |z|}\, \frac{(x, y)}{\sqrt{x^2 + y^2}}
    """
    flat = directions[:, :2]
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.sqrt(1 - np.abs(directions[:, 2:])) * flat / np.where(length > 0, length, 1)


class DirectionPlot(PlotCanvas):
    """Show directions on both hemispheres: filled where measured, open at the antipode."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 190, "Directions on the sphere")
        self.gradients: GradientTable | None = None
        self.mirrored = True
        self._points: list[tuple[Any, np.ndarray, np.ndarray]] = []

    def show_gradients(self, gradients: GradientTable | None, mirrored: bool) -> None:
        """Show a gradient table; mirrored puts R on the left, as the radiological view does."""
        self.gradients, self.mirrored = gradients, mirrored
        self.repaint_theme()

    def paint(self) -> None:
        """Draw two Lambert disks, coloured by shell."""
        self._points = []
        if self.gradients is None:
            return
        left, right = ("R", "L") if self.mirrored else ("L", "R")
        handles = []
        for axes, upper in zip(self.figure.subplots(1, 2), (True, False), strict=True):
            self._disk(axes, "upper half" if upper else "lower half", left, right)
            shells = self.gradients.weighted_shells
            for index, shell in enumerate(shells):
                colour = SHELL_COLOURS[index % len(SHELL_COLOURS)]
                given = self.gradients.directions[shell.indices]
                above = given[:, 2] >= 0
                inside = above if upper else ~above
                spots = lambert(given) * [-1 if self.mirrored else 1, 1]
                mine, other = spots[inside], -spots[~inside]
                filled = axes.scatter(*mine.T, s=12, color=colour, linewidths=0)
                axes.scatter(*other.T, s=12, facecolors="none", edgecolors=colour, linewidths=0.8)
                volumes = np.r_[shell.indices[inside], shell.indices[~inside]]
                self._points.append((axes, np.r_[mine, other], volumes))
                filled.set_label(f"b={shell.bvalue:g}: {shell.count}")
                handles.append(filled)
        if handles:
            self.figure.legend(
                handles=handles[: len(handles) // 2],
                loc="outside lower center",
                ncols=3,
                fontsize=7,
                frameon=False,
                labelcolor=self.ink,
                handletextpad=0.1,
                columnspacing=1,
            )

    def _disk(self, axes: Any, title: str, left: str, right: str) -> None:
        axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", title=title)
        axes.axis("off")
        self.dress(axes)
        turn = np.linspace(0, 2 * np.pi, 181)
        for radius in (1.0, np.sqrt(1 - np.cos(np.pi / 4))):
            axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=self.quiet, lw=0.8)
        for text, x, y in ((left, -1.13, 0), (right, 1.13, 0), ("A", 0, 1.12), ("P", 0, -1.12)):
            axes.text(x, y, text, color=self.ink, fontsize=7, ha="center", va="center")

    def clicked(self, event: Any) -> None:
        """Jump to the volume of the nearest marker."""
        best: tuple[float, int] = (0.15, -1)
        for axes, spots, volumes in self._points:
            if axes is event.inaxes and len(spots):
                gaps = np.hypot(*(spots - [event.xdata, event.ydata]).T)
                best = min(best, (float(gaps.min()), int(volumes[gaps.argmin()])))
        if best[1] >= 0:
            self.jumped.emit(best[1], -1)


class OutlierPlot(PlotCanvas):
    """Show how far each slice of each volume is off, and each volume as a whole."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 210, "Outliers by volume and slice")
        self.outliers: Any = None

    def show_outliers(self, outliers: Any) -> None:
        """Show the scores that `find_outliers` gave."""
        self.outliers = outliers
        self.repaint_theme()

    def paint(self) -> None:
        """Draw the volume scores above the heat map of slices."""
        if self.outliers is None:
            return
        scores = np.nan_to_num(np.asarray(self.outliers.slice_scores)).T
        top, low = self.figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
        volumes = np.arange(scores.shape[1])
        colours = np.where(np.isin(volumes, self.outliers.volumes), "#f85149", SHELL_COLOURS[0])
        top.bar(volumes, np.nan_to_num(self.outliers.volume_scores), color=colours, width=0.9)
        top.set_ylabel("score")
        limit = 8.0
        image = low.imshow(
            scores, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit,
            interpolation="nearest",
        )  # fmt: skip
        if self.outliers.slices:
            spots = np.array([(s[0], s[1]) for s in self.outliers.slices])
            low.plot(*spots.T, "s", mfc="none", mec=self.ink, ms=5, mew=0.8)
        low.set(xlabel="volume", ylabel="slice")
        bar = self.figure.colorbar(image, ax=low, fraction=0.04, pad=0.02)
        bar.set_label("score", color=self.ink, fontsize=8)
        for axes in (top, low, bar.ax):
            self.dress(axes)

    def clicked(self, event: Any) -> None:
        """Jump to the volume, and to the slice where the heat map was clicked."""
        heat = event.inaxes is self.figure.axes[1]
        self.jumped.emit(max(0, round(event.xdata)), max(0, round(event.ydata)) if heat else -1)


class MotionPlot(PlotCanvas):
    """Show where the head was in each volume, relative to the first."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 190, "Motion by volume")
        self.motion: Any = None

    def show_motion(self, motion: Any) -> None:
        """Show the motion that `estimate_motion` found."""
        self.motion = motion
        self.repaint_theme()

    def paint(self) -> None:
        """Draw translations and rotations, one line an axis."""
        if self.motion is None:
            return
        moves = (
            ("mm", self.motion.translations, ("x: R", "y: A", "z: S")),
            ("degrees", self.motion.rotations, ("about x", "about y", "about z")),
        )
        rows = self.figure.subplots(2, 1, sharex=True)
        for axes, (unit, values, names) in zip(rows, moves, strict=True):
            for index, name in enumerate(names):
                axes.plot(values[:, index], lw=1, color=("#e5534b", "#3fb950", "#3b8eea")[index])
                axes.lines[-1].set_label(name)
            axes.axhline(0, color=self.quiet, lw=0.6, zorder=0)
            axes.set_ylabel(unit)
            axes.margins(x=0.01)
            axes.legend(
                fontsize=6.5, frameon=False, labelcolor=self.ink, ncols=3, loc="lower left",
                bbox_to_anchor=(0, 0.94), borderaxespad=0, handlelength=1, columnspacing=1,
            )  # fmt: skip
            self.dress(axes)
        rows[-1].set_xlabel("volume")
