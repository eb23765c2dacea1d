"""Remember how a viewer looks, put it back exactly, and fit panels to the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Layer

__all__ = [
    "ViewerState",
    "best_columns",
    "fit_panels",
    "fit_titles",
    "make_room",
    "reorder",
    "shown_size",
]

LOOKS = (
    "visible",
    "opacity",
    "blending",
    "contrast_limits_range",
    "contrast_limits",
    "colormap",
    "gamma",
    "interpolation2d",
)
OVERLAYS = ("name_overlay", "colorbar")
GRID = ("stride", "shape", "spacing", "enabled")
CAMERA = ("orientation", "angles", "perspective", "center", "zoom", "mouse_pan", "mouse_zoom")


class ViewerState:
    """Hold everything about a viewer that a layout may change.

    That is the grid, the camera, the slider positions and axis order, the overlays, and of
    each layer its place, look, titles, colour bars and whether it is selected.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.layers: list[Layer] = list(viewer.layers)
        self._looks = {layer: _look(layer) for layer in self.layers}
        self._selected = set(viewer.layers.selection)
        self._active = viewer.layers.selection.active
        self._grid = _read(viewer.canvas.grid, GRID)
        self._camera = _read(viewer.scene.camera, CAMERA)
        self._overlays = {k: _fields(overlay) for k, overlay in viewer.canvas.overlays.items()}
        dims = viewer.dims
        self._dims = (dims.ndisplay, dims.ndim, tuple(dims.order), tuple(dims.point))

    def adopt(self, layer: Layer) -> None:
        """Count in a layer that came later: it stays, on top, as it is now."""
        self.layers.append(layer)
        self._looks[layer] = _look(layer)

    def restore(self, hidden: Sequence[Layer] = ()) -> None:
        """Put the viewer back; layers that are gone stay gone, new ones stay on top.

        Parameters
        ----------
        hidden
            Layers that came since and stay, but hidden.
        """
        viewer, layers = self.viewer, self.viewer.layers
        viewer.canvas.grid.enabled = False
        reorder(layers, [layer for layer in self.layers if layer in layers])
        for layer in layers:
            if layer in self._looks:
                _restore_look(layer, self._looks[layer])
        for layer in hidden:
            layer.visible = False
            for name in OVERLAYS:
                if hasattr(layer, name):
                    getattr(layer, name).visible = False
        ndisplay, ndim, order, point = self._dims
        viewer.dims.ndisplay = ndisplay
        if viewer.dims.ndim == ndim:
            viewer.dims.order = order
            viewer.dims.point = point
        for name, fields in self._overlays.items():
            if name in viewer.canvas.overlays:
                _write(viewer.canvas.overlays[name], fields)
        _write(viewer.canvas.grid, self._grid)
        _write(viewer.scene.camera, self._camera)
        selection = layers.selection
        selection.clear()
        selection.update(layer for layer in self._selected if layer in layers)
        selection.active = self._active if self._active in layers else None


def reorder(layers: Any, wanted: Sequence[Layer]) -> None:
    """Put some layers first, in this order, and leave the others behind them as they are."""
    rest = [layer for layer in layers if layer not in wanted]
    if list(layers)[: len(wanted)] != list(wanted) and len(rest) < len(wanted):
        for layer in rest:
            layers.move(layers.index(layer), len(layers))
    for index, layer in enumerate(wanted):
        if layers[index] is not layer:
            layers.move(layers.index(layer), index)


def _look(layer: Layer) -> dict[str, Any]:
    look = _read(layer, [name for name in LOOKS if hasattr(layer, name)])
    for name in OVERLAYS:
        if hasattr(layer, name):
            look[name] = _fields(getattr(layer, name))
    return look


def _restore_look(layer: Layer, look: dict[str, Any]) -> None:
    for name in OVERLAYS:
        if name in look:
            _write(getattr(layer, name), look[name])
    _write(layer, {name: value for name, value in look.items() if name not in OVERLAYS})


def _read(thing: Any, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(thing, name) for name in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _fields(model: Any) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _write(thing: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if not _same(getattr(thing, name), value):
            setattr(thing, name, value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return a is b or a == b


TITLE = 30
"""Canvas pixels that a panel's title takes."""

BAR = 36
"""Canvas pixels to leave free beside the image for a colour bar in the lower corner."""


def fit_panels(
    viewer: Any, mains: Sequence[Layer], box: np.ndarray | None = None, keep_view: bool = False
) -> None:
    """Fit one image per panel, with its title above and its colour bar beside or below.

    Where a panel is narrow the image takes its whole width, and the bar goes into the free strip
    below; where it is wide the bar goes beside, into the lower corner. Titles shrink until they
    fit. A box (two corners in the layers' world) is fitted instead of the whole image where one is
    given; ``keep_view`` leaves the camera alone.
    """
    if min(viewer.canvas.viewbox_size(viewer.layers)) < 2 * TITLE:
        return
    box_height, box_width = (float(n) for n in viewer.canvas.viewbox_size(viewer.layers))
    fit_titles(viewer, mains)
    bar = 0.3 * box_height
    if viewer.dims.ndisplay == 3:
        if not keep_view:
            viewer.fit_to_view(margin=0.1)
    else:
        (height, width), centre = shown_size(viewer, mains[0], box)
        zoom = min((box_height - 2 * TITLE) / height, 0.94 * box_width / width)
        beside = min((box_height - 2 * TITLE) / height, (box_width - 2 * BAR) / width)
        free = (box_height - zoom * height) / 2
        below = free > 110
        if not keep_view:
            viewer.scene.camera.center = (0.0, *centre)
            viewer.scene.camera.zoom = zoom if below else max(beside, 0.75 * zoom)
        bar = 0.75 * free if below else bar
    look = {
        "size": (12.0, float(np.clip(bar, 60, 200))),
        "font_size": 8.0,
    }
    for layer in mains:
        if hasattr(layer, "colorbar"):
            _write(layer.colorbar, look)


def fit_titles(viewer: Any, mains: Sequence[Layer]) -> None:
    """Make titles as large as the longest of them allows in its panel."""
    width = float(viewer.canvas.viewbox_size(viewer.layers)[1])
    longest = max(len(layer.name) for layer in mains)
    font = float(np.clip(0.98 * width / max(longest, 1), 6, 11))
    for layer in mains:
        _write(layer.name_overlay, {"font_size": font})


def shown_size(
    viewer: Any, layer: Layer, box: np.ndarray | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return height, width and centre of a layer, or of a box in it, on the screen (world units).

    ``fit_to_view(layers=...)`` cannot be used: it fails for 3D layers among 4D ones.
    """
    world = np.asarray(layer.extent.world if box is None else box, float)
    world = world + np.outer((-0.5, 0.5), layer.extent.step[-world.shape[1] :])
    offset = viewer.dims.ndim - world.shape[1]
    shown = [axis - offset for axis in viewer.dims.displayed]
    size, centre = world[1] - world[0], world.mean(0)
    return tuple(float(n) for n in size[shown]), tuple(float(n) for n in centre[shown])


def best_columns(viewer: Any, panels: Sequence[Sequence[Layer]], box: np.ndarray | None) -> int:
    """Return how many panels to put in a row: all, or half where that shows them larger."""
    count = len(panels)
    if count <= 3:
        return count
    height, width = viewer.canvas.size
    tall, wide = shown_size(viewer, panels[0][0], box)[0]
    halves = -(-count // 2)
    row = min(width / count / wide, height / tall)
    two = min(width / halves / wide, height / 2 / tall)
    return halves if two > row else count


def make_room(viewer: Any) -> None:
    """Clear the upper edge of the panels for titles; left and right letters get a background."""
    overlays = viewer.canvas.overlays
    for edge in {"dmri_top", "dmri_bottom"} & set(overlays):
        overlays[edge].opacity, overlays[edge].position = 0, "bottom_left"
    for edge in {"dmri_left", "dmri_right"} & set(overlays):
        overlays[edge].box = True
