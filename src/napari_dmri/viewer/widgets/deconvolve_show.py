"""What a deconvolution looks like in the viewer: glyphs that fill in, and maps as layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.layers import KEY, LayerData, kind_of, map_layer

__all__ = ["LiveGlyphs", "map_layers", "slice_on_show"]

LOOKS: dict[str, dict[str, Any]] = {
    "AFD": {"colormap": "gray"},
    "peak count": {"colormap": "viridis", "contrast_limits": (0, 5)},
    "residual": {"colormap": "inferno"},
}


class LiveGlyphs:
    """Hold the glyph layer of a run: begun with one slice, filled when the rest is done.

    Glyphs that are on show in the same place are hidden; they are back if the run is dropped.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.layer: Any = None
        self._hidden: list[Any] = []

    def begin(self, fod: ShImage) -> None:
        """Show the slice that is ready."""
        from napari_dmri.viewer.glyphs.show import show_glyphs

        self.drop()
        self._hide_others()
        self.layer = show_glyphs(self.viewer, replace(fod, name=f"{fod.name} (this slice)"))

    def fill(self, fod: ShImage) -> Any:
        """Show all glyphs, in the same layer where it is still there, and return it."""
        from napari_dmri.viewer.glyphs.show import show_glyphs

        layer, self.layer = self.layer, None
        if layer is None:
            self._hide_others()
        self._hidden = []
        if layer is None or layer not in self.viewer.layers or kind_of(layer) != "glyphs":
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
            return show_glyphs(self.viewer, fod)
        layer.data = fod.coefficients.transpose(2, 1, 0, 3)
        layer.name = f"{fod.name} glyphs"
        layer.metadata[KEY] |= {"object": fod, "provenance": dict(fod.provenance)}
        # On top of the maps that came meanwhile.
        layers = self.viewer.layers
        layers.move(layers.index(layer), len(layers))
        layers.selection.active = layer
        return layer

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
