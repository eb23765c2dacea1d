"""The part of the Deconvolve dock that says which responses are used and where they are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.utils import DirectLabelColormap
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.response import ALGORITHMS
from napari_dmri.errors import InputError
from napari_dmri.scan import Scan
from napari_dmri.viewer.deconvolving import estimate_responses
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import labels_layer
from napari_dmri.viewer.plots import PlotCanvas
from napari_dmri.viewer.widgets._parts import StatusLine, beside
from napari_dmri.viewer.widgets.compare_plots import theme_style

__all__ = ["ResponsePart", "response_words"]

TISSUE_COLOURS = {1: "#e5534b", 2: "#3fb950", 3: "#3b8eea"}
"""White matter, grey matter and CSF, in the colours of the plot."""


class ResponsePart(QWidget):
    """Choose how responses come about (``choice``, for a form), and look at them (the rest).

    ``changed`` is emitted whenever others are at hand.

    Parameters
    ----------
    viewer
        The napari viewer.
    scan
        Returns the scan chosen, with its mask.
    """

    changed = Signal()

    def __init__(self, viewer: Any, scan: Callable[[], Scan | None]) -> None:
        super().__init__()
        self.viewer, self._scan = viewer, scan
        self.job: Job | None = None
        self.make_mask = True
        self._estimated: ResponseSet | None = None
        self._files: dict[str, ResponseSet] = {}
        self._asked: tuple[Any, ...] = ()
        self.source = QComboBox()
        self.source.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.source.setAccessibleName("Response")
        for name, words in ALGORITHMS.items():
            self.source.addItem("estimate" if name == "auto" else f"estimate: {name}", name)
            tip = f"{words[:1].upper()}{words[1:]}."
            self.source.setItemData(self.source.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.source.setToolTip("The signal of a single fibre, and of grey matter and CSF.")
        self.make = _button("estimate", "Estimate the responses now; Run does it otherwise.")
        self.open = _button("open…", "Choose a response file (MRtrix text), with those of grey "
                            "matter and CSF beside it.")  # fmt: skip
        self.line = StatusLine()
        self.show_plot = _button("plot", "Show the shape of the responses.", checkable=True)
        self.show_voxels = _button("voxels", "Add a layer of the voxels they were taken from.")
        self.save = _button("save…", "Write the responses as MRtrix text files.")
        self.choice = beside(self.source, self.open)
        self.buttons = beside(self.make, self.show_plot, self.show_voxels, self.save)
        self.plot = ResponsePlot(viewer)
        self.plot.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.line, self.buttons, self.plot):
            column.addWidget(widget)
        self.source.currentIndexChanged.connect(self._source_changed)
        self.make.clicked.connect(self._make)
        self.open.clicked.connect(self._ask_open)
        self.show_plot.toggled.connect(self._toggle_plot)
        self.show_voxels.clicked.connect(self.add_voxels)
        self.save.clicked.connect(self._ask_save)
        self._tell()

    def let_go(self) -> None:
        """Cancel the job at work."""
        if self.job is not None:
            self.job.cancel()

    @property
    def algorithm(self) -> str:
        """How responses are estimated; ``auto`` where files are given."""
        name = str(self.source.currentData())
        return name if name in ALGORITHMS else "auto"

    @property
    def responses(self) -> ResponseSet | None:
        """The responses at hand for the scan chosen; None until they are estimated."""
        return self._files.get(self.source.currentData(), self._estimated)

    def scan_changed(self) -> None:
        """Forget what was estimated from another scan."""
        self._estimated = None
        self._tell()

    def take(self, responses: ResponseSet) -> None:
        """Keep responses that Run has estimated for the scan chosen."""
        if self.responses is not responses:
            self._estimated = responses
            self._tell()

    def load(self, path: str | Path) -> bool:
        """Offer response files and choose them; say why where they cannot be read."""
        from napari_dmri.io.responses import read_responses

        try:
            responses = read_responses(path)
        except (InputError, OSError) as error:
            self.line.say(str(error), "error")
            return False
        # Qt would take a mapping for a list of its own.
        key = f"{len(self._files)} {path}"
        self._files[key] = responses
        self.source.addItem(Path(path).name, key)
        role = Qt.ItemDataRole.ToolTipRole
        self.source.setItemData(self.source.count() - 1, str(path), role)
        self.source.setCurrentIndex(self.source.count() - 1)
        return True

    def add_voxels(self) -> Any:
        """Add a Labels layer of the voxels that the responses were taken from."""
        responses = self.responses
        if responses is None or responses.voxels is None:
            return None
        scan = self._scan()
        name = f"{scan.name} | response voxels" if scan is not None else "response voxels"
        image = replace(responses.voxels, name=name)
        colours = {0: (0, 0, 0, 0), None: (0, 0, 0, 0), **TISSUE_COLOURS}
        data, kwargs, _ = labels_layer(
            image, opacity=0.8, colormap=DirectLabelColormap(color_dict=colours)
        )
        return self.viewer.add_labels(data, **kwargs)

    def write(self, path: str | Path) -> None:
        """Write the responses, and say what was written."""
        from napari_dmri.io.responses import write_responses

        assert self.responses is not None
        try:
            files = write_responses(self.responses, path)
        except (InputError, OSError) as error:
            self.line.say(str(error), "error")
        else:
            self.line.say(f"Wrote {', '.join(f.name for f in files)}.", "ok")

    def _source_changed(self, *_: Any) -> None:
        self._estimated = None
        self._tell()

    def _tell(self) -> None:
        """Say what is at hand."""
        responses, scan = self.responses, self._scan()
        from_file = self.source.currentData() in self._files
        if responses is not None:
            self.line.say(response_words(responses), "ok")
            self.line.setToolTip("\n".join(responses.notes))
        elif scan is None:
            self.line.say("")
        else:
            self.line.setToolTip("")
            self.line.say("Estimated from this scan when you press Run, or now.")
        self.make.setVisible(not from_file)
        self.make.setEnabled(scan is not None)
        for button in (self.show_plot, self.show_voxels, self.save):
            button.setVisible(responses is not None)
        self.show_voxels.setEnabled(responses is not None and responses.voxels is not None)
        self.plot.show_responses(responses if self.show_plot.isChecked() else None)
        self.changed.emit()

    def _make(self) -> None:
        if self.job is not None and self.job.running:
            self.job.cancel()
            self.make.setEnabled(False)
            return
        scan = self._scan()
        if scan is None:
            return
        self._asked = (scan.data, scan.gradients, self.source.currentIndex())
        self.job = Job("Response", estimate_responses, scan, self.algorithm, self.make_mask)
        self.job.progressed.connect(self._progressed)
        self.job.finished.connect(self._made)
        self.make.setText("cancel")
        self.line.say("estimating …")
        self.job.start()

    def _progressed(self, fraction: float, text: str) -> None:
        self.line.say(f"{100 * fraction:.0f} %  {text}")

    def _made(self, outcome: Outcome) -> None:
        self.make.setText("estimate")
        self.make.setEnabled(True)
        scan = self._scan()
        data, gradients, index = self._asked
        if outcome.error is not None:
            self.line.say(outcome.error, "error")
        elif outcome.cancelled or scan is None:
            self._tell()
        elif (
            data is scan.data
            and gradients is scan.gradients
            and index == self.source.currentIndex()
        ):
            self._estimated = outcome.result
            self._tell()
            if outcome.warnings:
                words = "\n".join([self.line.sentence, *outcome.warnings])
                self.line.say(words, "warning")

    def _toggle_plot(self, shown: bool) -> None:
        self.plot.show_responses(self.responses if shown else None)

    def _ask_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open white matter's response", "", "Responses (*.txt);;All files (*)"
        )
        if path:
            self.load(path)

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the responses", "response_wm.txt", "Responses (*.txt)"
        )
        if path:
            self.write(path)


class ResponsePlot(PlotCanvas):
    """Draw the shape of the responses in the dock."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 430, "Shape of the responses")
        self.figure.set_layout_engine("none")
        self.unsetCursor()
        self._responses: ResponseSet | None = None

    def show_responses(self, responses: ResponseSet | None) -> None:
        """Show responses, or nothing."""
        self._responses = responses
        self.setVisible(responses is not None)
        if responses is not None:
            self.repaint_theme()

    def paint(self) -> None:
        """Draw the responses into the figure, in the theme's colours."""
        if self._responses is not None:
            from napari_dmri.deconvolve.response_plot import draw_response

            draw_response(self.figure, self._responses, style=theme_style(self.viewer))

    def resizeEvent(self, event: Any) -> None:
        """Lay the axes out again for the new width."""
        super().resizeEvent(event)
        if self._responses is not None:
            self.figure.tight_layout()


def response_words(responses: ResponseSet) -> str:
    """Say which tissues, shells and orders responses have, and how many voxels they are from."""
    words = []
    for tissue, response in responses.items():
        name = tissue.upper()
        if response.order:
            name += f" order {response.order}"
        if response.voxels:
            name += f" ({response.voxels} voxels)"
        words.append(name)
    bvalues = responses.wm.bvalues
    shells = "" if bvalues is None else "b=" + ", ".join(f"{b:.0f}" for b in bvalues) + " | "
    if bvalues is None:
        shells = f"{len(responses.wm.zonal)} shells (not named) | "
    return shells + ", ".join(words)


def _button(text: str, tip: str, checkable: bool = False) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setCheckable(checkable)
    return button
