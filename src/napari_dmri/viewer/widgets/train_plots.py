"""What a training shows while it runs: its curves, and one slice as the network has it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_dmri.viewer import orientation, preferences
from napari_dmri.viewer.plots import SHELL_COLOURS, PlotCanvas

__all__ = ["CurvePlot", "SlicePlot"]

REST = 0.8
"""Seconds between two paintings, so that training keeps the processor and the window keeps up."""

FLAT = 2.5
"""How much wider than high a slice is from which three of them stand one below the other."""

TRAINING, VALIDATION = SHELL_COLOURS[0], SHELL_COLOURS[1]


class LivePlot(PlotCanvas):
    """A plot that is painted now and then while its content changes, and at the end."""

    def __init__(self, viewer: Any, height: int, name: str) -> None:
        super().__init__(viewer, height, name)
        self._painted = 0.0
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.repaint_theme)

    def repaint_theme(self, event: Any = None) -> None:
        """Paint again."""
        self._painted = time.monotonic()
        super().repaint_theme(event)

    def repaint_soon(self) -> None:
        """Paint again, now or when the last painting was long enough ago."""
        waited = time.monotonic() - self._painted
        if waited >= REST:
            self.repaint_theme()
        elif not self._later.isActive():
            self._later.start(round(1000 * (REST - waited)))

    def let_go(self) -> None:
        """Stop listening to the viewer, and paint no more."""
        self._later.stop()
        super().let_go()


class CurvePlot(LivePlot):
    """Show training and validation loss by epoch as they come, on a logarithmic axis."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 180, "Training and validation loss by epoch")
        self.curves: dict[int, dict[str, float | None]] = {}
        self.now: tuple[float, float] | None = None
        self.repaint_theme()

    def begin(self) -> None:
        """Forget an earlier training."""
        self.curves, self.now = {}, None
        self.repaint_theme()

    def tell(self, event: Any) -> None:
        """Take an event of the training loop."""
        if event.kind == "step":
            self.now = (event.epoch - 1 + event.step / max(event.steps, 1), event.train)
        elif event.kind in ("start", "epoch"):
            self.curves[event.epoch] = {"train": event.train, "validation": event.validation}
            self.now = None
        else:
            return
        self.repaint_soon()

    def show_curves(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Show the curves of a model's card."""
        self.curves = {
            int(e["epoch"]): {"train": e["train"], "validation": e["validation"]} for e in entries
        }
        self.now = None
        self.repaint_theme()

    @property
    def best(self) -> int | None:
        """The epoch of the lowest validation loss so far."""
        known = {n: e["validation"] for n, e in self.curves.items() if e["validation"] is not None}
        return min(known, key=lambda n: known[n]) if known else None

    def paint(self) -> None:
        """Draw both curves, the running mean of this epoch, and a ring at the best."""
        axes = self.figure.subplots()
        for name, colour in (("train", TRAINING), ("validation", VALIDATION)):
            points = [(n, e[name]) for n, e in sorted(self.curves.items()) if e[name]]
            if name == "train" and self.now is not None:
                points.append(self.now)
            label = "training" if name == "train" else name
            axes.plot(*(zip(*points, strict=True) if points else ((), ())), ".-", lw=1.2, ms=4,
                      color=colour, label=label)  # fmt: skip
        best = self.best
        if best is not None:
            axes.plot(best, self.curves[best]["validation"], "o", mfc="none", mec=self.ink, ms=8)
        axes.set(xlabel="epoch", ylabel="loss", yscale="log")
        low, top = axes.get_ylim()
        axes.yaxis.set_minor_formatter(lambda x, _: _minor(x, top / low))
        axes.yaxis.set_major_formatter("{x:.2g}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(which="minor", colors=self.ink, labelsize=7, length=1)
        axes.legend(fontsize=7, frameon=False, labelcolor=self.ink, loc="upper right")
        self.dress(axes)
        axes.yaxis.label.set_fontsize(7)

    def clicked(self, event: Any) -> None:
        """Do nothing: an epoch is no place to go to."""


class SlicePlot(LivePlot):
    """Show one slice three times: source, prediction, target, in the same grays."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 170, "A slice: source, prediction and target")
        self.preview: Any = None
        viewer.scene.camera.events.orientation.connect(self.repaint_theme)

    def let_go(self) -> None:
        """Stop listening to the viewer, and paint no more."""
        self.viewer.scene.camera.events.orientation.disconnect(self.repaint_theme)
        super().let_go()

    def show_preview(self, preview: Any) -> None:
        """Show what training has made of its slice; None clears it."""
        self.preview = preview
        self.repaint_soon()

    def paint(self) -> None:
        """Draw the three pictures, cropped to what is learned from, with their errors."""
        made = self.preview
        if made is None:
            return
        known = np.isfinite(made.target)
        rows, columns = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        low, top = (float(v) for v in np.percentile(made.target[known], [1, 99]))
        # As the window shows it: radiological has the right side, and the front, on the left.
        convention = orientation.convention_of(self.viewer) or preferences.convention()
        mirrored = convention != "neurological"
        near, far = orientation.ENDS[1 if made.axis == 0 else 2]
        left, right = (far, near) if mirrored else (near, far)
        across, up = made.spacing
        before, after = made.errors
        shown = (
            ("source", made.source, f"error {before:.4f}"),
            ("prediction", made.prediction, f"error {after:.4f}"),
            ("target", made.target, "measured"),
        )
        columns, rows_ = made.target[box].shape
        # Flat slices one below the other, which shows them larger.
        flat = columns * across > FLAT * rows_ * up
        panels = self.figure.subplots(3, 1) if flat else self.figure.subplots(1, 3)
        for axes, (name, picture, note) in zip(panels, shown, strict=True):
            image = picture[box].T
            axes.imshow(image[:, ::-1] if mirrored else image, cmap="gray", vmin=low, vmax=top,
                        origin="lower", interpolation="nearest", aspect=up / across)  # fmt: skip
            for x, side, letter in ((0.02, "left", left), (0.98, "right", right)):
                axes.text(x, 0.02, letter, transform=axes.transAxes, ha=side, va="bottom",
                          color=self.ink, fontsize=7)  # fmt: skip
            axes.axis("off")
            if flat:
                axes.text(-0.03, 0.5, f"{name}\n{note}", transform=axes.transAxes, ha="right",
                          va="center", color=self.ink, fontsize=7)  # fmt: skip
            else:
                axes.set_title(f"{name}\n{note}")
            self.dress(axes)
        plane = ("sagittal", "coronal", "axial")[made.axis]
        words = (
            f"mean S/b0, {made.subject}, {plane} {made.index}, "
            f"{'after' if made.whole else 'in'} epoch {made.epoch}"
        )
        self.figure.supxlabel(words, color=self.ink, fontsize=7)

    def clicked(self, event: Any) -> None:
        """Do nothing: the slice may be of a scan that is not open."""


def _minor(value: float, span: float) -> str:
    """Label what lies between the powers of ten: all of it, 2 and 5, or nothing, by the span."""
    digit = f"{value:e}"[0]
    return f"{value:.2g}" if span < 3 or (span < 30 and digit in "25") else ""
