"""What a comparison adds to the viewer: crosshairs, spacers, titles and colour bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Layer, Vectors
from qtpy.QtCore import QTimer

__all__ = ["Crosshair", "dress", "show_in", "single_shot", "spacer"]


class Crosshair(Vectors):
    """Mark one point by a line along each axis, over the grid of an image; silent in the status."""

    def __init__(self, image: Layer, name: str) -> None:
        size = [int(n) for n in image.data.shape[-3:]]
        kept = slice(image.ndim - 3, None)
        self._top = np.array(size, float) - 1
        super().__init__(
            self._lines(self._top / 2),
            name=name,
            edge_color="#ffb000",
            edge_width=0.4,
            vector_style="line",
            opacity=0.8,
            scale=image.scale[kept],
            translate=image.translate[kept],
            units=tuple(str(u) for u in image.units[kept]),
            axis_labels=image.axis_labels[kept],
        )

    def _lines(self, at: np.ndarray) -> np.ndarray:
        lines = np.zeros((3, 2, 3))
        for axis in range(3):
            lines[axis, 0] = at
            lines[axis, 0, axis] = 0
            lines[axis, 1, axis] = self._top[axis]
        return lines

    def point_at(self, world: Sequence[float]) -> None:
        """Move to the voxel nearest to a world position, staying inside the image."""
        at = np.round((np.asarray(world, float)[-3:] - self.translate) / self.scale)
        lines = self._lines(np.clip(at, 0, self._top))
        if not np.array_equal(lines, self.data):
            self.data = lines

    def fit_width(self, zoom: float) -> None:
        """Draw lines about 1.5 canvas pixels wide at a zoom (pixels per millimetre)."""
        width = float(np.clip(1.6 / (zoom * self.scale.min()), 0.05, 2))
        if abs(width - self.edge_width) > 0.1 * width:
            self.edge_width = width

    def get_status(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Return no value, so that the status bar lists the maps only."""
        return {**super().get_status(*args, **kwargs), "value": ""}


def dress(layer: Layer) -> None:
    """Show a layer's name above it and its colour bar."""
    layer.name_overlay.position = "top_center"
    layer.name_overlay.visible = True
    if isinstance(layer, Image):
        layer.colorbar.position = "bottom_right"
        layer.colorbar.visible = True


def spacer(like: Layer) -> Image:
    """Make a hidden one-voxel layer, which fills a place in the grid."""
    kept = slice(like.ndim - 3, None)
    return Image(
        np.zeros((1, 1, 1), np.float32),
        name="spacer",
        visible=False,
        scale=like.scale[kept],
        translate=like.translate[kept],
        units=tuple(str(u) for u in like.units[kept]),
        axis_labels=like.axis_labels[kept],
    )


def single_shot(wait: int, call: Callable[[], None]) -> QTimer:
    """Make a timer that calls once, a while (ms) after the last start."""
    timer = QTimer()
    timer.setSingleShot(True)
    timer.setInterval(wait)
    timer.timeout.connect(call)
    return timer


def show_in(layer: Any, data: Any, look: dict[str, Any]) -> None:
    """Show another map in a layer that is laid out already."""
    layer.data = data
    layer.metadata = look["metadata"]
    layer.name = look["name"]
    layer.colormap = look["colormap"]
    low, high = look["contrast_limits"]
    layer.contrast_limits_range = (low, high)
    layer.contrast_limits = (low, high)
