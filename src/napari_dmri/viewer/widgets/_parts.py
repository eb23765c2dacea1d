"""The five parts that every dock is made of, from top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QEvent, QEventLoop, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDockWidget,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.device import free_memory
from napari_dmri.viewer import _napari_compat as compat
from napari_dmri.viewer import preferences
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import LayerData
from napari_dmri.viewer.widgets.run_bar import LEVEL_COLOURS, RunBar, StatusLine

__all__ = [
    "LEVEL_COLOURS",
    "Dock",
    "LayerPicker",
    "RunBar",
    "Section",
    "StatusLine",
    "beside",
    "device_line",
    "time_words",
]


class LayerPicker(QComboBox):
    """Offer the layers that fit, and keep up with the layer list.

    Emits ``layer_changed`` with the layer (or None) whenever the choice changes.
    """

    layer_changed = Signal(object)

    def __init__(
        self,
        viewer: Any,
        accepts: Callable[[Any], bool],
        empty: str = "nothing open",
        optional: str | None = None,
    ) -> None:
        super().__init__()
        self._viewer, self._accepts, self._empty, self._optional = viewer, accepts, empty, optional
        self._last: Any = None
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumContentsLength(8)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.refresh)
        self.currentIndexChanged.connect(self._announce)
        self.refresh()

    def let_go(self) -> None:
        """Stop listening to the layer list."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self.refresh)

    @property
    def layer(self) -> Any:
        """The layer chosen, or None."""
        return self.currentData()

    def choose(self, layer: Any) -> None:
        """Choose a layer that is on offer."""
        for index in range(self.count()):
            if self.itemData(index) is layer:
                self.setCurrentIndex(index)
                return

    def refresh(self, event: Any = None) -> None:
        """Read the layer list again, newest first, keeping the choice where it is still there."""
        current = self.currentData()
        fitting = [layer for layer in reversed(self._viewer.layers) if self._accepts(layer)]
        self.blockSignals(True)
        self.clear()
        if self._optional is not None:
            self.addItem(self._optional, None)
        for layer in fitting:
            self.addItem(layer.name, layer)
            layer.events.name.disconnect(self._rename)
            layer.events.name.connect(self._rename)
        if not fitting and self._optional is None:
            self.addItem(self._empty, None)
        index = next((i for i in range(self.count()) if self.itemData(i) is current), 0)
        self.setCurrentIndex(index)
        self.blockSignals(False)
        self._announce()

    def _rename(self, event: Any = None) -> None:
        for index in range(self.count()):
            layer = self.itemData(index)
            if layer is not None:
                self.setItemText(index, layer.name)

    def _announce(self, *_: Any) -> None:
        self.setToolTip(self.currentText())
        if self.currentData() is not self._last:
            self._last = self.currentData()
            self.layer_changed.emit(self._last)


class Section(QWidget):
    """A part of a dock that folds away under its title."""

    toggled = Signal(bool)

    def __init__(self, title: str, expanded: bool = False) -> None:
        super().__init__()
        self.header = QToolButton()
        self.header.setText(title)
        self.header.setCheckable(True)
        self.header.setAutoRaise(True)
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.header.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.header.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.inner = QWidget()
        self.column = QVBoxLayout(self.inner)
        self.column.setContentsMargins(4, 2, 0, 6)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.setSpacing(0)
        layout.addWidget(self.header)
        layout.addWidget(self.inner)
        self.header.toggled.connect(self._show)
        self.header.setChecked(expanded)
        self._show(expanded)

    def setText(self, title: str) -> None:
        """Change the title."""
        self.header.setText(title)

    def addWidget(self, widget: QWidget) -> None:
        """Add a widget to the part that folds away."""
        self.column.addWidget(widget)

    def isExpanded(self) -> bool:
        """Tell whether the content is shown."""
        return self.header.isChecked()

    def expand(self, animate: bool = False) -> None:
        """Show the content."""
        self.header.setChecked(True)

    def collapse(self, animate: bool = False) -> None:
        """Hide the content."""
        self.header.setChecked(False)

    def _show(self, expanded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if expanded else Qt.ArrowType.RightArrow
        self.header.setArrowType(arrow)
        self.header.setToolTip("Press to hide." if expanded else "Press to show.")
        self.inner.setVisible(expanded)
        self.toggled.emit(expanded)


class Dock(QScrollArea):
    """A dock: input, method, settings, result, device and Run, from top to bottom.

    Subclasses fill ``form`` (rows), ``settings`` (collapsed rows) and ``extra`` (below Run).
    """

    title = "Diffusion MRI"

    def __init__(self, viewer: Any, run_text: str = "Run") -> None:
        super().__init__()
        compat.delete_in_own_context()
        # napari hands plugins a proxy that wraps every layer anew, so that no two are identical
        self.viewer = getattr(viewer, "__wrapped__", viewer)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(320)
        body = QWidget()
        self.body = QVBoxLayout(body)
        self.body.setContentsMargins(8, 8, 8, 8)
        self.form = _form()
        self.body.addLayout(self.form)
        self.collapsible = Section("Settings")
        inner = QWidget()
        self.settings = _form()
        inner.setLayout(self.settings)
        self.collapsible.addWidget(inner)
        self.body.addWidget(self.collapsible)
        self.after = _form()
        self.body.addLayout(self.after)
        self.device = StatusLine()
        self.body.addWidget(self.device)
        self.run_bar = RunBar(run_text)
        self.body.addWidget(self.run_bar)
        self.extra = QVBoxLayout()
        self.body.addLayout(self.extra)
        self.body.addStretch(1)
        self.setWidget(body)
        self.run_bar.connect_start(self.make_job)
        self.run_bar.finished.connect(self._done)
        self.run_bar.finished.connect(lambda _: QTimer.singleShot(0, self._show_message))

    def row(
        self, label: str, widget: QWidget, tip: str = "", form: QFormLayout | None = None
    ) -> None:
        """Add a labelled row with a tooltip, reachable by the label's mnemonic."""
        name = QLabel(label)
        name.setBuddy(widget)
        name.setToolTip(tip)
        if tip and not widget.toolTip():
            widget.setToolTip(tip)
        widget.setAccessibleName(label.replace("&", ""))
        if isinstance(widget, QComboBox):
            widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        (self.form if form is None else form).addRow(name, widget)

    def line(self, form: QFormLayout | None = None) -> StatusLine:
        """Add a quiet line across the dock."""
        status = StatusLine()
        (self.form if form is None else form).addRow(status)
        return status

    def showEvent(self, event: Any) -> None:
        """Give the dock's tab a short title, so that all tabs fit side by side."""
        super().showEvent(event)
        frame = self.parentWidget()
        while frame is not None and not isinstance(frame, QDockWidget):
            frame = frame.parentWidget()
        if frame is not None:
            frame.setWindowTitle(self.title)

    def make_job(self) -> Job | None:
        """Make the job that Run starts; None where something is missing (and say it)."""
        return None

    def show_result(self, result: Any) -> None:
        """Show what a job made."""

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is None and not outcome.cancelled:
            self.show_result(outcome.result)

    def add_layers(self, made: Iterable[LayerData]) -> list[Layer]:
        """Add layers one after the other and let the window draw in between.

        napari takes a tenth of a second for each, so that ten at once would freeze the window.
        """
        added = []
        for one in made:
            added.append(self.viewer.add_layer(Layer.create(*one)))
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        return added

    def _show_message(self) -> None:
        if self.run_bar.message.isVisible():
            self.ensureWidgetVisible(self.run_bar.message, 0, 8)

    def event(self, event: Any) -> bool:
        """Stop what is at work, and stop listening, when the dock is taken out of the window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.stop()
        return bool(super().event(event))

    def stop(self) -> None:
        """Cancel what a closed dock has at work, and stop listening to the viewer."""
        for part in self.findChildren(QWidget):
            if hasattr(part, "let_go"):
                part.let_go()


def _form() -> QFormLayout:
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    return form


def beside(first: QWidget, *rest: QWidget) -> QWidget:
    """Put widgets in one row; the first takes the space, and the focus."""
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(first, 1)
    for widget in rest:
        row.addWidget(widget)
    holder.setFocusProxy(first)
    return holder


def name_edit(text: str = "") -> QLineEdit:
    """Return a field for the name of what will be made."""
    edit = QLineEdit(text)
    edit.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return edit


def device_line(needed: float = 0.0, seconds: float = 0.0) -> str:
    """Say where a job will run, what it needs and about how long, without loading torch.

    Parameters
    ----------
    needed
        Memory in bytes.
    seconds
        Expected time; 0 leaves it out.
    """
    gpu = preferences.device() in ("auto", "cuda") and Path("/dev/nvidia0").exists()
    threads = max(1, (os.cpu_count() or 2) - 1)
    words = ["NVIDIA GPU" if gpu else f"CPU, {threads} thread{'s' if threads > 1 else ''}"]
    if needed:
        size = f"{needed / 2**30:.1f}" if needed > 0.05 * 2**30 else "under 0.1"
        words.append(f"needs {size} of {free_memory() / 2**30:.0f} GB")
    if seconds:
        words.append(f"about {time_words(seconds)}")
    return " | ".join(words)


def time_words(seconds: float) -> str:
    """Say how long something takes, in the unit that is easiest to read."""
    if seconds < 180:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
