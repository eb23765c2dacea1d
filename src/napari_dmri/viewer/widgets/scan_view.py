"""Controls of what the canvas shows: plane, left and right, and a cine through the volumes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.scan import Scan
from napari_dmri.viewer import orientation

__all__ = ["ViewControls"]

SIDES = {
    "radiological": "Show the right side of the body on the left, as if seen from the feet.",
    "neurological": "Show the right side of the body on the right, as if seen from above.",
}


class ViewControls(QWidget):
    """Three planes, two conventions, and play through the volumes."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.scan: Scan | None = None
        self.planes = {name: QPushButton(f"&{name.capitalize()}") for name in orientation.PLANES}
        self.sides = {
            "radiological": QPushButton("Ra&diological"),
            "neurological": QPushButton("&Neurological"),
        }
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        for group, act in (
            (self.planes, orientation.set_plane),
            (self.sides, orientation.set_convention),
        ):
            layout.addLayout(self._group(group, act))
        for name, button in self.planes.items():
            button.setToolTip(f"Show {name} slices.")
        for name, button in self.sides.items():
            button.setToolTip(SIDES[name] + " napari calls both left-handed; neither mirrors.")
        layout.addLayout(self._cine())
        self._events = (
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
            viewer.dims.events.ndim,
            viewer.scene.camera.events.orientation,
        )
        for event in self._events:
            event.connect(self._reflect)
        viewer.dims.events.current_step.connect(self._tell_volume)
        self._reflect()
        self.show_scan(None)

    def let_go(self) -> None:
        """Stop playing, and listening to the viewer."""
        self.timer.stop()
        for event in self._events:
            event.disconnect(self._reflect)
        self.viewer.dims.events.current_step.disconnect(self._tell_volume)

    def _group(self, buttons: dict[str, QPushButton], act: Any) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(2)
        group = QButtonGroup(self)
        group.setExclusive(False)
        for name, button in buttons.items():
            button.setCheckable(True)
            button.setAutoDefault(False)
            button.clicked.connect(lambda _, n=name: self._choose(act, n))
            group.addButton(button)
            row.addWidget(button, 1)
        return row

    def _choose(self, act: Any, name: str) -> None:
        act(self.viewer, name)
        self._reflect()

    def _cine(self) -> QHBoxLayout:
        self.timer = QTimer(self)
        self.timer.timeout.connect(self._next)
        self.play = QPushButton("&Play")
        self.play.setCheckable(True)
        self.play.setToolTip("Play through the volumes, to see motion, dropouts and artefacts.")
        self.play.toggled.connect(self._toggle)
        self.rate = QSpinBox()
        self.rate.setRange(1, 30)
        self.rate.setValue(8)
        self.rate.setSuffix(" /s")
        self.rate.setToolTip("Volumes a second.")
        self.rate.setAccessibleName("Volumes a second")
        self.rate.valueChanged.connect(lambda fps: self.timer.setInterval(1000 // fps))
        self.volume = QLabel()
        row = QHBoxLayout()
        row.addWidget(self.play)
        row.addWidget(self.rate)
        row.addWidget(self.volume, 1)
        return row

    def show_scan(self, scan: Scan | None) -> None:
        """Follow the volumes of a scan."""
        self.scan = scan
        self.play.setEnabled(scan is not None)
        self.rate.setEnabled(scan is not None)
        if scan is None:
            self.play.setChecked(False)
        self._tell_volume()

    def jump(self, volume: int, index: int = -1, axis: int = 2) -> None:
        """Show a volume, and the slice ``index`` across a voxel axis (0 x, 1 y, 2 z)."""
        dims = self.viewer.dims
        if self.scan is None or dims.ndim < 4:
            return
        if volume >= 0:
            dims.set_current_step(dims.ndim - 4, min(volume, self.scan.shape[3] - 1))
        if index >= 0:
            orientation.set_plane(self.viewer, ("sagittal", "coronal", "axial")[axis])
            dims.set_current_step(dims.ndim - 1 - axis, index)

    def _toggle(self, on: bool) -> None:
        self.play.setText("Sto&p" if on else "&Play")
        if on:
            self.timer.start(1000 // self.rate.value())
        else:
            self.timer.stop()

    def _next(self) -> None:
        dims = self.viewer.dims
        if self.scan is None or dims.ndim < 4:
            self.play.setChecked(False)
            return
        axis = dims.ndim - 4
        dims.set_current_step(axis, (dims.current_step[axis] + 1) % self.scan.shape[3])

    def _reflect(self, event: Any = None) -> None:
        shown = {orientation.plane_of(self.viewer), orientation.convention_of(self.viewer)}
        for name, button in {**self.planes, **self.sides}.items():
            button.setChecked(name in shown)
        enough = self.viewer.dims.ndim >= 3
        for button in self.planes.values():
            button.setEnabled(enough)

    def _tell_volume(self, event: Any = None) -> None:
        dims = self.viewer.dims
        if self.scan is None or dims.ndim < 4:
            self.volume.setText("")
            return
        index = dims.current_step[dims.ndim - 4]
        if index < len(self.scan.gradients):
            bvalue = self.scan.gradients.bvalues[index]
            self.volume.setText(f"volume {index} | b={bvalue:.0f}")
