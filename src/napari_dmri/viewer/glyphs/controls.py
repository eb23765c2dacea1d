"""The glyph layer's controls in napari's layer panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import BASES
from napari_dmri.viewer._napari_compat import QtLayerControls
from napari_dmri.viewer.glyphs.inspect import inspect_voxel
from napari_dmri.viewer.glyphs.layer import SHGlyphs
from napari_dmri.viewer.glyphs.style import EXTENTS

__all__ = ["GlyphControls"]

DETAILS = (("automatic", None), ("coarse", 3), ("medium", 6), ("fine", 12), ("very fine", 24))
BASIS_WORDS = {
    "tournier07": "MRtrix3 (tournier07)",
    "tournier07_legacy": "tournier07, legacy",
    "descoteaux07": "descoteaux07",
    "descoteaux07_legacy": "descoteaux07, legacy",
}


class GlyphControls(QtLayerControls):
    """Show and change the style of a glyph layer.

    Parameters
    ----------
    layer
        The glyph layer.
    """

    PAN_ZOOM_ACTION_NAME = "activate_points_pan_zoom_mode"
    TRANSFORM_ACTION_NAME = "activate_points_transform_mode"

    def __init__(self, layer: SHGlyphs) -> None:
        super().__init__(layer)
        space = layer.field.space
        kind = "with odd degrees" if space.full else "even"
        self._row("SH", QLabel(f"order {space.order}, {kind}, {space.count} coefficients"))
        self.size = self._spin(0.05, 50, 0.1, 2)
        self.size.valueChanged.connect(lambda v: layer.restyle(size=v))
        self._row("size", self.size, "1 makes the 95th percentile just fit its voxel.")
        self.clip = QCheckBox("clip to voxel")
        self.clip.setToolTip("Shrink glyphs that leave their voxel.")
        self.clip.toggled.connect(lambda on: layer.restyle(clip=on))
        self.normalise = QCheckBox("normalise")
        self.normalise.setToolTip("Let every glyph fill its voxel, whatever its amplitude.")
        self.normalise.toggled.connect(lambda on: layer.restyle(normalise=on))
        self._row("", self._pair(self.clip, self.normalise))
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, 100)
        self.threshold.valueChanged.connect(lambda v: layer.restyle(threshold=v / 100))
        self._row("threshold", self.threshold,
                  "Hide glyphs below this share of the 95th percentile.")  # fmt: skip
        self.where = _LayerBox("all", Image, Labels)
        self.where_above = self._spin(-1e6, 1e6, 0.05, 3)
        self.where.currentIndexChanged.connect(
            lambda *_: layer.restyle(where=self.where.currentData())
        )
        self.where_above.valueChanged.connect(lambda v: layer.restyle(where_above=v))
        self._row("where", self._pair(self.where, self.where_above),
                  "Show glyphs only where this map or mask is above the value.")  # fmt: skip
        self.order = QComboBox()
        for degree in reversed(space.degrees):
            self.order.addItem(str(degree), degree)
        self.order.currentIndexChanged.connect(
            lambda *_: layer.restyle(order=self.order.currentData())
        )
        self._row("order up to", self.order, "Leave out higher degrees.")
        self.basis = QComboBox()
        for name in BASES:
            self.basis.addItem(BASIS_WORDS[name], name)
        self.basis.currentIndexChanged.connect(
            lambda *_: layer.restyle(basis=self.basis.currentData())
        )
        self.basis.activated.connect(lambda *_: self._settle_basis())
        self.basis_question = QLabel("The file does not name it: choose here.")
        self.basis_question.setWordWrap(True)
        self.basis_question.setStyleSheet("color: #e0a030;")
        self.basis_question.setToolTip(
            "Right is the basis in which fibres run along the anatomy. Choosing one, also the one "
            "that is shown, settles the question."
        )
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.basis)
        column.addWidget(self.basis_question)
        self._row("basis", box, "The SH basis that the file is in; when it is wrong, glyphs "
                  "are mirrored, turned or spiky.")  # fmt: skip
        self._build_colour(layer)
        self.lighting = QSlider(Qt.Orientation.Horizontal)
        self.lighting.setRange(0, 100)
        self.lighting.valueChanged.connect(lambda v: layer.restyle(lighting=v / 100))
        self._row("lighting", self.lighting, "From flat to fully lit.")
        self.detail = QComboBox()
        for words, frequency in DETAILS:
            self.detail.addItem(words, frequency)
        self.detail.currentIndexChanged.connect(
            lambda *_: layer.restyle(detail=self.detail.currentData())
        )
        self._row("resolution", self.detail, "Automatic follows the size on the screen.")
        self.extent = QComboBox()
        self.extent.addItems(EXTENTS)
        self.extent.currentTextChanged.connect(lambda text: layer.restyle(extent=text))
        self.thickness = QSpinBox()
        self.thickness.setRange(1, 99)
        self.thickness.setToolTip("Slices of a slab.")
        self.thickness.valueChanged.connect(lambda v: layer.restyle(thickness=v))
        self._row("in 3D", self._pair(self.extent, self.thickness), "What a 3D view shows; a "
                  "volume with too many voxels is thinned evenly.")  # fmt: skip
        self.inspect = QPushButton("inspect")
        self.inspect.setCheckable(True)
        self.inspect.setChecked(layer.inspecting)
        self.inspect.setToolTip("Click a glyph to see it large, with its numbers (or Shift-click).")
        self.inspect.toggled.connect(self._set_inspecting)
        self.save = QPushButton("save…")
        self.save.setToolTip("Save as an SH image (.nii.gz or .mif).")
        self.save.clicked.connect(lambda *_: ask_and_save(layer, self))
        self._row("", self._pair(self.inspect, self.save))
        layer.events.style.connect(self._reflect)
        layer.events.inspect.connect(self._inspect)
        self._reflect()

    def _build_colour(self, layer: SHGlyphs) -> None:
        self.colour = QComboBox()
        for words, name in (("direction", "direction"), ("amplitude", "amplitude"),
                            ("one colour", "uniform"), ("map", "map")):  # fmt: skip
            self.colour.addItem(words, name)
        self.colour.currentIndexChanged.connect(
            lambda *_: layer.restyle(colour=self.colour.currentData())
        )
        self.swatch = QPushButton()
        self.swatch.setFixedWidth(28)
        self.swatch.setToolTip("The colour of “one colour”.")
        self.swatch.clicked.connect(self._choose_colour)
        self.colour_layer = _LayerBox("choose a map", Image)
        self.colour_layer.currentIndexChanged.connect(
            lambda *_: layer.restyle(colour_layer=self.colour_layer.currentData())
        )
        self._row("colour", self._pair(self.colour, self.swatch), "Direction: red right-left, "
                  "green front-back, blue up-down.")  # fmt: skip
        self._row("map", self.colour_layer, "The map of colour “map”, with its own colours.")
        self.negative = QCheckBox("negative lobes")
        self.negative.setToolTip("Draw where the function is negative, in white, or leave it out.")
        self.negative.toggled.connect(lambda on: layer.restyle(negative=on))
        self.outline = QCheckBox("outline")
        self.outline.setToolTip("Draw outlines, so that glyphs of a layer below show through.")
        self.outline.toggled.connect(lambda on: layer.restyle(outline=on))
        self._row("", self._pair(self.negative, self.outline))

    def _row(self, label: str, widget: QWidget, tip: str = "") -> None:
        name = QLabel(f"{label}:" if label else "")
        if tip:
            name.setToolTip(tip)
            if not widget.toolTip():
                widget.setToolTip(tip)
        widget.setAccessibleName(label or getattr(widget, "text", lambda: "")())
        self.layout().addRow(name, widget)

    def _pair(self, *widgets: QWidget) -> QWidget:
        box = QWidget()
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in widgets:
            row.addWidget(widget, 1)
        return box

    def _spin(self, low: float, high: float, step: float, decimals: int) -> QDoubleSpinBox:
        spin = QDoubleSpinBox()
        spin.setRange(low, high)
        spin.setDecimals(decimals)
        spin.setSingleStep(step)
        spin.setKeyboardTracking(False)
        return spin

    def _choose_colour(self) -> None:
        now = QColor.fromRgbF(*self.layer.style.uniform)
        chosen = QColorDialog.getColor(now, self, "Colour of the glyphs")
        if chosen.isValid():
            self.layer.restyle(
                uniform=(chosen.redF(), chosen.greenF(), chosen.blueF()), colour="uniform"
            )

    def _settle_basis(self) -> None:
        """Take the chosen basis as the file's: the question is answered."""
        self.layer.basis_named = True
        self._reflect()

    def _set_inspecting(self, on: bool) -> None:
        self.layer.inspecting = on

    def _inspect(self, event: Any) -> None:
        inspect_voxel(self.layer, event.voxel)

    def _reflect(self, event: Any = None) -> None:
        """Show the layer's style without changing it."""
        style = self.layer.style
        widgets = (
            self.size, self.clip, self.normalise, self.threshold, self.where, self.where_above,
            self.order, self.basis, self.colour, self.colour_layer, self.negative, self.outline,
            self.lighting,
            self.detail, self.extent, self.thickness, self.inspect,
        )  # fmt: skip
        blockers = [QSignalBlocker(widget) for widget in widgets]
        self.size.setValue(style.size)
        self.clip.setChecked(style.clip)
        self.normalise.setChecked(style.normalise)
        self.threshold.setValue(round(100 * style.threshold))
        self.where.offer(self.layer, style.where)
        self.where_above.setValue(style.where_above)
        self.order.setCurrentIndex(max(0, self.order.findData(self.layer.space.order)))
        self.basis.setCurrentIndex(self.basis.findData(style.basis))
        self.colour.setCurrentIndex(self.colour.findData(style.colour))
        self.colour_layer.offer(self.layer, style.colour_layer)
        self.negative.setChecked(style.negative)
        self.outline.setChecked(style.outline)
        self.lighting.setValue(round(100 * style.lighting))
        at = self.detail.findData(style.detail)
        if at < 0:
            self.detail.addItem(f"{10 * style.detail**2 + 2} directions", style.detail)
            at = self.detail.count() - 1
        self.detail.setCurrentIndex(at)
        self.extent.setCurrentText(style.extent)
        self.thickness.setValue(style.thickness)
        self.inspect.setChecked(self.layer.inspecting)
        red, green, blue = (round(255 * c) for c in style.uniform)
        self.swatch.setStyleSheet(f"background-color: rgb({red}, {green}, {blue});")
        self.swatch.setVisible(style.colour == "uniform")
        self.basis_question.setVisible(not self.layer.basis_named)
        self.where_above.setEnabled(style.where is not None)
        self.colour_layer.setEnabled(style.colour == "map")
        del blockers


class _LayerBox(QComboBox):
    """Offer the layers of some types on the same grid, read anew whenever it is opened."""

    def __init__(self, nothing: str, *types: type) -> None:
        super().__init__()
        self.nothing, self.types = nothing, types
        self._for: Any = None
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.addItem(nothing, None)

    def offer(self, layer: SHGlyphs, chosen: Any) -> None:
        """List the maps that fit a glyph layer, with one chosen."""
        self._for = layer
        viewer = napari.current_viewer()
        self.clear()
        self.addItem(self.nothing, None)
        for other in viewer.layers if viewer is not None else ():
            fits = isinstance(other, self.types) and not getattr(other, "rgb", False)
            if fits and other.data.shape == layer.field.grid:
                self.addItem(other.name, other)
        if chosen is not None and self.findData(chosen) < 0:
            self.addItem(f"{chosen.name} (removed)", chosen)
        self.setCurrentIndex(
            next((i for i in range(self.count()) if self.itemData(i) is chosen), 0)
        )

    def showPopup(self) -> None:
        """Read the layers before they are offered."""
        if self._for is not None:
            with QSignalBlocker(self):
                self.offer(self._for, self.currentData())
        super().showPopup()


def ask_and_save(layer: SHGlyphs, parent: QWidget | None = None) -> None:
    """Ask for a file and save a glyph layer as an SH image; say what was written."""
    from napari_dmri.viewer.glyphs.show import save_glyphs

    kinds = {f"NIfTI, {words} (*.nii.gz)": name for name, words in BASIS_WORDS.items()}
    kinds["MRtrix3 (*.mif)"] = "tournier07"
    path, kind = QFileDialog.getSaveFileName(parent, "Save SH image", "", ";;".join(kinds))
    if not path:
        return
    target = Path(path)
    if not target.name.lower().endswith((".nii", ".nii.gz", ".mif", ".mif.gz")):
        target = target.with_name(target.name + (".mif" if "mif" in kind else ".nii.gz"))
    try:
        save_glyphs(layer, target, basis=kinds[kind], overwrite=target == Path(path))
    except (InputError, OSError) as error:
        show_error(str(error))
    else:
        show_info(f"Wrote {target.name}.")
