"""What a deconvolution shows: which outputs, glyphs that come in, and maps as layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QWidget

from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.deconvolving import OUTPUTS, DeconvolveOptions
from napari_dmri.viewer.layers import KEY, LayerData, kind_of, map_layer

__all__ = ["LiveGlyphs", "OutputBoxes", "SliceWatch", "map_layers", "slice_on_show"]

LOOKS: dict[str, dict[str, Any]] = {
    "AFD": {"colormap": "gray"},
    "peak count": {"colormap": "viridis", "contrast_limits": (0, 5)},
    "residual": {"colormap": "inferno"},
}


TIPS = {
    "glyphs": "The fODF of every voxel, drawn on the graphics card; the slice on show comes first.",
    "AFD": "Total apparent fibre density: the fODF's integral, in units of the response.",
    "peak count": "How many fibre directions were found in each voxel.",
    "residual": "Root mean square of measured minus predicted signal, over the mean b0.",
    "GM, CSF": "Grey matter and CSF beside white matter, where the method tells them apart.",
    "peaks": "The largest three directions of each voxel as sticks.",
}


class OutputBoxes(QWidget):
    """Tick what is made of a deconvolution; ``boxes`` go by the output's name."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes = {name: QCheckBox(name) for name in OUTPUTS}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 4, 0, 4)
        grid.setVerticalSpacing(2)
        for index, (name, box) in enumerate(self.boxes.items()):
            box.setToolTip(TIPS[name])
            box.setChecked(name in DeconvolveOptions().outputs)
            box.toggled.connect(self.changed.emit)
            grid.addWidget(box, index // 3, index % 3)


class LiveGlyphs:
    """Hold the glyph layer of a run: begun with one slice, filled when the rest is done.

    While a network is fitted, the slice is shown anew every few seconds. Glyphs that are on show
    in the same place are hidden; they are back if the run is dropped.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.layer: Any = None
        self._hidden: list[Any] = []

    def show(self, fod: ShImage, note: str = "this slice") -> None:
        """Show a slice, in the layer of the one before; not again once that was removed."""
        if self.layer is None:
            self.begin(fod, note)
        elif self.layer in self.viewer.layers and kind_of(self.layer) == "glyphs":
            self._put(fod, f"{fod.name} ({note}) glyphs")

    def begin(self, fod: ShImage, note: str = "this slice") -> None:
        """Show the slice that is ready."""
        from napari_dmri.viewer.glyphs.show import show_glyphs

        self.drop()
        self._hide_others()
        self.layer = show_glyphs(self.viewer, replace(fod, name=f"{fod.name} ({note})"))

    def fill(self, fod: ShImage) -> Any:
        """Show all glyphs, in the same layer where it is still there, and return it."""
        from napari_dmri.viewer.glyphs.show import show_glyphs

        layer = self.layer
        if layer is None:
            self._hide_others()
        self._hidden = []
        if layer is None or layer not in self.viewer.layers or kind_of(layer) != "glyphs":
            self.layer = None
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
            return show_glyphs(self.viewer, fod)
        self._put(fod, f"{fod.name} glyphs")
        self.layer = None
        # On top of the maps that came meanwhile.
        layers = self.viewer.layers
        layers.move(layers.index(layer), len(layers))
        layers.selection.active = layer
        return layer

    def _put(self, fod: ShImage, name: str) -> None:
        self.layer.data = fod.coefficients.transpose(2, 1, 0, 3)
        self.layer.name = name
        self.layer.metadata[KEY] |= {"object": fod, "provenance": dict(fod.provenance)}

    def drop(self) -> None:
        """Take the slice away again."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
        for other in self._hidden:
            if other in self.viewer.layers:
                other.visible = True
        self._hidden = []

    def _hide_others(self) -> None:
        if self.viewer.canvas.grid.enabled:
            return
        self._hidden = [
            layer for layer in self.viewer.layers if kind_of(layer) == "glyphs" and layer.visible
        ]
        for layer in self._hidden:
            layer.visible = False


def map_layers(maps: dict[str, ScalarImage], shown: str = "") -> list[LayerData]:
    """Describe maps as layers; the one named is shown, the others wait."""
    made = []
    for name, image in maps.items():
        data = np.asarray(image.data)
        plain = replace(image, data=np.maximum(data, 0)) if name != "peak count" else image
        described, kwargs, kind = map_layer(plain, visible=name == shown, **LOOKS.get(name, {}))
        kwargs["metadata"][KEY]["object"] = image
        made.append((described, kwargs, kind))
    return made


def slice_on_show(viewer: Any, layer: Any, scan: Scan) -> tuple[int, int]:
    """Return the array axis (x, y, z: 0, 1, 2) and index of the slice of a scan on show.

    In 3D it is the axial slice that the sliders point at.
    """
    dims = viewer.dims
    hidden = [axis - (dims.ndim - 3) for axis in dims.order[: dims.ndim - 2]]
    axis = hidden[-1] if dims.ndisplay == 2 and hidden and hidden[-1] >= 0 else 0
    point = np.asarray(dims.point, float)[-3:]
    index = round(float((point[axis] - layer.translate[-3:][axis]) / layer.scale[-3:][axis]))
    array_axis = 2 - axis
    return array_axis, int(np.clip(index, 0, scan.grid[array_axis] - 1))


class SliceWatch:
    """Know which slice of a scan is on show, for a job that asks from its own thread.

    Calling it returns the array axis and the index, or None while no scan is followed.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._followed: tuple[Any, Scan] | None = None
        self._now: tuple[int, int] | None = None
        events = viewer.dims.events
        self._events = (events.point, events.order, events.ndisplay)
        for event in self._events:
            event.connect(self._look)

    def follow(self, layer: Any, scan: Scan | None) -> None:
        """Watch the slices of this scan from now on."""
        self._followed = None if scan is None else (layer, scan)
        self._look()

    def __call__(self) -> tuple[int, int] | None:
        """Return the slice on show."""
        return self._now

    def let_go(self) -> None:
        """Stop listening to the viewer."""
        for event in self._events:
            event.disconnect(self._look)

    def _look(self, event: Any = None) -> None:
        self._now = None if self._followed is None else slice_on_show(self.viewer, *self._followed)
