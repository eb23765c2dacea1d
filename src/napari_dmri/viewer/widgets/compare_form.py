"""What the Compare dock asks: the layers, the map, how it is shown, and by which regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QPushButton,
    QSpinBox,
)

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.layers import KEY, kind_of, object_of, scan_of, spatial
from napari_dmri.viewer.widgets import compare_work as work
from napari_dmri.viewer.widgets._parts import Dock, LayerPicker, beside

__all__ = ["CompareForm", "image_of", "label_names", "labels_of"]

MAP_NAMES = ("b0", "volume", "FA", "MD", "RISH0", "RISH2", "RISH4", "GFA", "residual")
MODES = {"difference": "difference", "percent": "percent difference", "ratio": "ratio"}
ROWS = {"auto": 0, "one row": 99, "two rows": -2}
EMPTY = "Open two scans, or two maps, on one grid to compare them."

EXPORTS = {
    "figure": "Write a PNG of the panels in three planes through the crosshair.",
    "table": "Write the table as TSV.",
    "methods": "Write what was done, with parameters, versions and citations.",
    "everything": "Write figures, table, maps (NIfTI) and methods.",
}
"""The export buttons and what they do."""


class CompareForm(Dock):
    """Hold the fields of the Compare dock and tell what they say as one `Choice`.

    ``wished`` is emitted when another comparison is wanted, ``arranged`` when only another layout.
    """

    wished = Signal()
    arranged = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, "Compare")
        self._chosen = False
        self._build_form()

    def _build_form(self) -> None:
        self.a = LayerPicker(self.viewer, _offers, "open a scan first")
        self.b = LayerPicker(self.viewer, _offers, "open a second scan")
        self.swap = QPushButton("⇄")
        self.swap.setToolTip("Exchange A and B.")
        self.swap.setAccessibleName("Exchange A and B")
        self.swap.setMaximumWidth(32)
        self.reference = LayerPicker(self.viewer, _offers, optional="none")
        self.row("&A", beside(self.a, self.swap), "First scan or map: the left panel.")
        self.row("&B", self.b, "Second scan or map; without a reference it is the baseline.")
        self.row("R&eference", self.reference, "What both should look like, e.g. the target scan.")
        self.map = QComboBox()
        self.map.addItems(MAP_NAMES)
        self.map.setCurrentText("FA")
        self.volume = QSpinBox()
        self.volume.setPrefix("no. ")
        self.volume.hide()
        self.row("Ma&p", beside(self.map, self.volume), "What is computed from each scan.")
        self.mode = QComboBox()
        for key, text in MODES.items():
            self.mode.addItem(text, key)
        self.row("Sho&w", self.mode, "A − B, 100 (A − B) / B, or A / B.")
        self.labels = LayerPicker(
            self.viewer, lambda x: isinstance(x, Labels), optional="tissue (white, grey, CSF)"
        )
        self.paint = QPushButton("paint")
        self.paint.setToolTip("Make an empty Labels layer on this grid and paint regions on A.")
        self.row("&Table by", beside(self.labels, self.paint), "Regions of the table.")
        self.understood = self.line()
        self.order = QSpinBox()
        self.order.setRange(0, 16)
        self.order.setSingleStep(2)
        self.order.setSpecialValueText("auto")
        self.row("SH order", self.order, "auto: the largest that all scans support", self.settings)
        self.smooth = QDoubleSpinBox()
        self.smooth.setDecimals(4)
        self.smooth.setSingleStep(0.001)
        self.smooth.setValue(0.006)
        self.row("SH lambda", self.smooth, "Laplace-Beltrami regularisation", self.settings)
        self.rows = QComboBox()
        self.rows.addItems(list(ROWS))
        self.row("Panels", self.rows, "auto: whatever shows them larger", self.settings)
        self.interval = QDoubleSpinBox()
        self.interval.setRange(0.1, 5)
        self.interval.setValue(0.6)
        self.interval.setSuffix(" s")
        self.row("Blink every", self.interval, "Time for which A, then B, is shown", self.settings)
        self.crosshair = QCheckBox("crosshair in all panels")
        self.crosshair.setChecked(True)
        self.settings.addRow(self.crosshair)
        self.keep = QCheckBox("keep the maps when leaving")
        self.keep.setToolTip("They stay as hidden layers; otherwise the viewer is as it was.")
        self.settings.addRow(self.keep)
        for picker in (self.a, self.b, self.reference):
            picker.layer_changed.connect(self._sources_changed)
            picker.activated.connect(self._touched)
        self.swap.clicked.connect(self._swap)
        self.map.currentTextChanged.connect(self._map_changed)
        for signal in (self.volume.valueChanged, self.mode.currentIndexChanged):
            signal.connect(lambda *_: self.wished.emit())
        for signal in (self.order.valueChanged, self.smooth.valueChanged):
            signal.connect(lambda *_: self.wished.emit())
        self.crosshair.toggled.connect(lambda *_: self.arranged.emit())
        self.rows.currentIndexChanged.connect(lambda *_: self.arranged.emit())

    def _touched(self, *_: Any) -> None:
        self._chosen = True

    def default_choice(self, event: Any = None) -> None:
        """Offer the two newest scans, the older one as A, until the user chooses."""
        if self._chosen:
            return
        fitting = [x for x in reversed(self.viewer.layers) if _offers(x)]
        scans = [x for x in fitting if scan_of(x) is not None]
        best = scans if len(scans) > 1 else fitting
        if best:
            self.b.choose(best[0])
            self.a.choose(best[1] if len(best) > 1 else best[0])

    def _sources_changed(self, *_: Any) -> None:
        scans = [s for s in (scan_of(p.layer) for p in (self.a, self.b, self.reference)) if s]
        self.map.setEnabled(bool(scans))
        self.map.setToolTip("" if scans else "A and B are maps: they are compared as they are.")
        if scans:
            self.volume.setMaximum(min(s.shape[3] for s in scans) - 1)
        self.understand()
        self.wished.emit()

    def _map_changed(self, name: str) -> None:
        self.volume.setVisible(name == "volume")
        self.wished.emit()

    def _swap(self) -> None:
        a, b = self.a.layer, self.b.layer
        if a is not None and b is not None:
            self._touched()
            for picker, layer in ((self.a, b), (self.b, a)):
                picker.choose(layer)

    def choice(self) -> work.Choice | None:
        """Return what the fields say; None where A or B is missing."""
        layers = [self.a.layer, self.b.layer]
        if self.reference.layer is not None:
            layers.append(self.reference.layer)
        sources = [image_of(layer) for layer in layers]
        if layers[0] is layers[1] or any(s is None for s in sources):
            return None
        return work.Choice(
            sources[0],
            sources[1],
            tuple(layer.name for layer in layers),
            sources[2] if len(sources) == 3 else None,
            self.map.currentText(),
            self.volume.value() if self.map.currentText() == "volume" else None,
            self.mode.currentData(),
            self.order.value() or None,
            self.smooth.value(),
        )

    def understand(self) -> None:
        """Say what the fields mean, or what is missing, and allow Run accordingly."""
        choice = self.choice()
        if choice is None:
            same = self.a.layer is not None and self.a.layer is self.b.layer
            self.understood.say("A and B are the same layer; choose another." if same else EMPTY)
            self.run_bar.enable(False, EMPTY)
            return
        try:
            work.check_grids(choice)
        except InputError as error:
            self.understood.say(str(error), "error")
            self.run_bar.enable(False, str(error))
            return
        shape = " x ".join(str(n) for n in choice.a.shape[:3])
        size = np.linalg.norm(choice.a.affine[:3, :3], axis=0)
        words = [f"one grid: {shape}, {' x '.join(f'{s:.3g}' for s in size)} mm"]
        words += dict.fromkeys(scan.gradients.summary() for scan in choice.scans)
        self.understood.say(" | ".join(words), "ok")
        self.run_bar.enable(True, "Compute the maps and lay them out side by side.")


def image_of(layer: Any) -> Scan | ScalarImage | None:
    """Return what a layer holds: its scan or map, or a plain 3D image or labels in millimetres."""
    if layer is None:
        return None
    thing = object_of(layer)
    if isinstance(thing, Scan):
        return thing
    ours = isinstance(thing, ScalarImage) and thing.shape == tuple(reversed(layer.data.shape))
    data = np.asarray(layer.data)
    if data.ndim != 3 or getattr(layer, "rgb", False):
        return None
    if ours:
        affine, units, provenance = thing.affine, thing.units, thing.provenance
    else:
        affine = np.eye(4)
        affine[:3, :3] = np.diag(layer.scale[::-1])
        affine[:3, 3] = layer.translate[::-1]
        units, provenance = "", {}
    return ScalarImage(data.T, affine, layer.name, units, provenance)


def _offers(layer: Any) -> bool:
    facts = layer.metadata.get(KEY, {})
    if not isinstance(layer, Image) or layer.rgb or facts.get("role") == "panel":
        return False
    if layer.name.startswith("spacer"):
        return False
    return kind_of(layer) == "scan" or layer.ndim == 3


def label_names(layer: Any) -> dict[int, str] | None:
    """Return the names of a Labels layer's regions where it has some."""
    facts = layer.metadata.get(KEY, {}) if layer is not None else {}
    names = facts.get("names")
    if facts.get("kind") == "mask":
        return {1: "mask"}
    return {int(k): str(v) for k, v in names.items()} if names else None


def labels_of(layer: Any, like: ScalarImage, step: Sequence[int]) -> np.ndarray:
    """Return a copy of a Labels layer (X, Y, Z) as it is painted now, on the grid of a map.

    Labels with a leading axis, as napari makes them beside 4D scans, are taken at the slider's
    step.

    Raises
    ------
    InputError
        If the labels are on another grid, with both.
    """
    data = np.asarray(layer.data)
    if data.ndim == 4:
        data = data[min(int(step[len(step) - 4]), len(data) - 1)]
    place = spatial(like.affine, like.shape)
    fits = data.shape == tuple(like.shape[:3])[::-1] and all(
        np.allclose(getattr(layer, name)[-3:], place[name], atol=1e-3)
        for name in ("scale", "translate")
    )
    if not fits:
        grid = " x ".join(str(n) for n in like.shape[:3])
        shape = " x ".join(str(n) for n in reversed(data.shape))
        size = " x ".join(f"{s:.3g}" for s in layer.scale[:-4:-1])
        raise InputError(
            f"{layer.name} has {shape} voxels of {size} mm and the maps {grid} on their own grid; "
            "choose labels on the maps' grid, or paint new ones."
        )
    return np.array(data.T)
