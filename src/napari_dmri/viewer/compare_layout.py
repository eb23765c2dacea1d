"""Lay panels out side by side in the viewer's own grid, and put everything back afterwards.

One camera and one slider drive all panels exactly. napari fills the grid by layer order and
stride, so short panels are padded with hidden one-voxel layers; every panel also gets its own
crosshair, which follows the mouse in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from napari.experimental import layers_linked
from napari.layers import Image, Labels, Layer, Vectors
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dmri.viewer.compare_state import ViewerState, fit_panels, make_room

__all__ = ["CompareLayout", "Crosshair"]

LINKED = ("contrast_limits", "colormap", "gamma", "interpolation2d")


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
            edge_width=0.25,
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

    def get_status(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Return no value, so that the status bar lists the maps only."""
        return {**super().get_status(*args, **kwargs), "value": ""}


class CompareLayout:
    """Show panels of layers side by side; ``leave`` restores the viewer exactly.

    Parameters
    ----------
    viewer
        The napari viewer.

    Attributes
    ----------
    left
        Emitted with a sentence (or an empty one) whenever the comparison ends.
    noticed
        Emitted with a sentence when the layout reacted to a change of the layer list.
    """

    left = Signal(str)
    noticed = Signal(str)

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.panels: list[list[Layer]] = []
        self.blinking: tuple[int, int] | None = None
        self._state: ViewerState | None = None
        self._added: list[Layer] = []
        self._helpers: list[Layer] = []
        self._crosshairs: list[Crosshair] = []
        self._links = ExitStack()
        self._busy = False
        self._columns = 0
        self._fitted: tuple[Any, float] | None = None
        self._previous_key: Any = None
        self._check = _timer(0, self._settle)
        self._follow = _timer(25, self._point)
        self._refit = _timer(80, self._fit_again)
        self._blink = QTimer()
        self._blink.timeout.connect(self._alternate)

    @property
    def active(self) -> bool:
        """Whether panels are shown now."""
        return self._state is not None

    def enter(
        self,
        panels: Sequence[Sequence[Layer]],
        *,
        linked: Sequence[Layer] = (),
        columns: int = 0,
        crosshair: bool = True,
    ) -> None:
        """Show panels side by side; the first layer of each gives its title and colour bar.

        Layers that are not in the viewer are added, and removed again by ``leave``. While active,
        new panels replace the old ones and the view stays.

        Parameters
        ----------
        panels
            Layers of each panel, bottom first.
        linked
            Layers that share contrast and colours from now on.
        columns
            Panels in a row; 0 chooses what shows them largest (up to three stay in one row).
        crosshair
            Whether a crosshair follows the mouse in all panels.
        """
        first = not self.active
        self._busy = True
        try:
            if first:
                self._state = ViewerState(self.viewer)
            else:
                self.stop_blink()
                self._clear({layer for panel in panels for layer in panel})
            self.panels = [list(panel) for panel in panels]
            self._columns = columns
            for layer in (layer for panel in self.panels for layer in panel):
                if layer not in self.viewer.layers:
                    self._added.append(self.viewer.add_layer(layer))
            if crosshair:
                self._crosshairs = [
                    self._help(Crosshair(panel[0], f"crosshair {i + 1}"))
                    for i, panel in enumerate(self.panels)
                ]
            if linked:
                self._links.enter_context(layers_linked(list(linked), LINKED))
            for layer in self.viewer.layers:
                layer.visible = any(layer in panel for panel in self.panels) or (
                    layer in self._crosshairs
                )
            for panel in self.panels:
                _dress(panel[0])
            if first:
                self._connect()
                make_room(self.viewer)
            self.viewer.layers.selection.clear()
            self._arrange()
            if first:
                self.fit()
            self._point()
        finally:
            self._busy = False

    def leave(self, keep: Sequence[Layer] = (), notice: str = "") -> None:
        """Put the viewer back exactly as it was; layers that were added go, except those to keep.

        Layers that came from elsewhere meanwhile stay, on top.
        """
        if self._state is None:
            return
        self._busy = True
        try:
            self._disconnect()
            self.stop_blink(arrange=False)
            self._clear(set(keep))
            state, self._state = self._state, None
            self.panels = []
            state.restore(hidden=[layer for layer in keep if layer in self.viewer.layers])
        finally:
            self._busy = False
        self.left.emit(notice)

    def fit(self) -> None:
        """Fit all panels to the canvas, leaving room for titles."""
        mains = [panel[0] for panel in self.panels]
        if mains:
            fit_panels(self.viewer, mains)
            camera = self.viewer.scene.camera
            self._fitted = (tuple(camera.center), float(camera.zoom))

    def start_blink(self, first: int = 0, second: int = 1, interval: float = 0.6) -> None:
        """Alternate two panels in the whole canvas (interval in seconds; 0 waits for the key)."""
        if not self.active:
            return
        self.blinking = (first, second)
        self._busy = True
        self.viewer.canvas.grid.enabled = False
        self._busy = False
        self._show_only(first)
        self.viewer.layers.selection.clear()
        self.viewer.layers.selection.update({self.panels[first][0], self.panels[second][0]})
        self.viewer.layers.selection.active = None
        self.fit()
        if interval > 0:
            self._blink.start(round(1000 * interval))

    def stop_blink(self, arrange: bool = True) -> None:
        """Go back from blinking to the panels."""
        if self.blinking is None:
            return
        self._blink.stop()
        self.blinking = None
        for layer in self._in_panels():
            layer.visible = True
        if arrange and self.active:
            self.viewer.layers.selection.clear()
            self._arrange()
            self.fit()

    def toggle_blink(self, *_: Any) -> None:
        """Start blinking the first two panels, or stop."""
        if self.blinking is None:
            self.start_blink()
        else:
            self.stop_blink()

    @property
    def shown(self) -> int | None:
        """Index of the panel that blinking shows now."""
        if self.blinking is None:
            return None
        return next(i for i in self.blinking if self.panels[i][0].visible)

    def _alternate(self) -> None:
        if self.blinking is not None:
            first, second = self.blinking
            self._show_only(second if self.shown == first else first)

    def _show_only(self, index: int) -> None:
        for i, panel in enumerate(self.panels):
            for layer in panel:
                layer.visible = i == index
        for i, cross in enumerate(self._crosshairs):
            cross.visible = i == index

    def _in_panels(self) -> list[Layer]:
        return [layer for panel in self.panels for layer in panel] + list(self._crosshairs)

    def _help(self, layer: Any) -> Any:
        selection = self.viewer.layers.selection
        selected, active = set(selection), selection.active
        self.viewer.add_layer(layer)
        selection.clear()
        selection.update(selected)
        selection.active = active
        self._helpers.append(layer)
        return layer

    def _clear(self, kept: set[Layer]) -> None:
        """Remove links, helpers, and what this layout added, except what is kept."""
        self._links.close()
        for layer in [*self._helpers, *self._added]:
            if layer in self.viewer.layers and layer not in kept:
                self.viewer.layers.remove(layer)
        self._added = [layer for layer in self._added if layer in kept]
        self._helpers, self._crosshairs = [], []

    def _arrange(self) -> None:
        """Order the layers panel by panel, pad to one stride, and switch the grid on."""
        assert self._state is not None
        grid, layers = self.viewer.canvas.grid, self.viewer.layers
        grid.enabled = False
        groups = [list(panel) for panel in self.panels]
        for group, cross in zip(groups, self._crosshairs, strict=False):
            group.append(cross)
        stride = max(len(group) for group in groups)
        pads = [p for p in self._helpers if not isinstance(p, Crosshair) and p in layers]
        for group in groups:
            while len(group) < stride:
                pad = pads.pop() if pads else self._help(_pad(group[0]))
                group.append(pad)
        wanted = [layer for group in groups for layer in group]
        wanted += [layer for layer in layers if layer not in wanted]
        for index, layer in enumerate(wanted):
            if layers[index] is not layer:
                layers.move(layers.index(layer), index)
        columns = self._columns or self._best_columns()
        grid.stride = stride
        grid.shape = (-(-len(groups) // columns), columns)
        grid.spacing = 4
        grid.enabled = True

    def _best_columns(self) -> int:
        count = len(self.panels)
        if count <= 3:
            return count
        height, width = self.viewer.canvas.size
        size = [
            self.panels[0][0].extent.world[1][a] - self.panels[0][0].extent.world[0][a]
            for a in (-2, -1)
        ]
        halves = -(-count // 2)
        row = min(width / count / size[1], height / size[0])
        two = min(width / halves / size[1], height / 2 / size[0])
        return halves if two > row else count

    def _connect(self) -> None:
        viewer = self.viewer
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._changed)
        viewer.mouse_move_callbacks.append(self._moved)
        viewer.dims.events.point.connect(self._sliced)
        viewer.dims.events.order.connect(self._resized)
        viewer.dims.events.ndisplay.connect(self._resized)
        viewer.canvas.events.size.connect(self._resized)
        self._previous_key = viewer.bind_key("b", None)
        viewer.bind_key("b", self.toggle_blink)

    def _disconnect(self) -> None:
        viewer = self.viewer
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._changed)
        if self._moved in viewer.mouse_move_callbacks:
            viewer.mouse_move_callbacks.remove(self._moved)
        viewer.dims.events.point.disconnect(self._sliced)
        viewer.dims.events.order.disconnect(self._resized)
        viewer.dims.events.ndisplay.disconnect(self._resized)
        viewer.canvas.events.size.disconnect(self._resized)
        viewer.bind_key("b", None)
        if self._previous_key is not None:
            viewer.bind_key("b", self._previous_key)
        for timer in (self._check, self._follow, self._refit):
            timer.stop()

    def _changed(self, event: Any = None) -> None:
        if not self._busy:
            self._check.start()

    def _settle(self) -> None:
        """React to layers that came, went or moved."""
        if self._state is None or self._busy:
            return
        layers = self.viewer.layers
        for panel in self.panels:
            if panel[0] not in layers:
                self.leave(notice=f"The comparison ended because {panel[0].name!r} was removed.")
                return
        self._busy = True
        try:
            self.panels = [[x for x in panel if x in layers] for panel in self.panels]
            self._helpers = [x for x in self._helpers if x in layers]
            self._crosshairs = [x for x in self._crosshairs if x in layers]
            if self._crosshairs and len(self._crosshairs) < len(self.panels):
                self._clear_crosshairs()
            known = {*self._state.layers, *self._added, *self._helpers}
            for layer in [layer for layer in layers if layer not in known]:
                self._state.adopt(layer)
                if isinstance(layer, Labels):
                    self.panels[0].append(layer)
                else:
                    layer.visible = False
                    layers.selection.discard(layer)
                    self.noticed.emit(f"{layer.name!r} came; it is hidden until you leave.")
            if self.blinking is None:
                self._arrange()
        finally:
            self._busy = False

    def _clear_crosshairs(self) -> None:
        for cross in self._crosshairs:
            self.viewer.layers.remove(cross)
            self._helpers.remove(cross)
        self._crosshairs = []

    def show_on_first(self, layer: Layer | None) -> None:
        """Show a Labels layer on top of the first panel, instead of the last one shown there."""
        if not self.active:
            return
        assert self._state is not None
        old = [x for x in self.panels[0][1:] if isinstance(x, Labels)]
        for x in old:
            if x is not layer:
                self.panels[0].remove(x)
                x.visible = False
        if layer is not None and layer not in self.panels[0]:
            self.panels[0].append(layer)
            layer.visible = True
        self._changed()

    def _moved(self, viewer: Any, event: Any) -> None:
        if not self._follow.isActive():
            self._follow.start()

    def _sliced(self, event: Any = None) -> None:
        self._point()

    def _point(self) -> None:
        position = np.array(self.viewer.cursor.position, float)
        hidden = list(self.viewer.dims.not_displayed)
        position[hidden] = np.array(self.viewer.dims.point)[hidden]
        for cross in self._crosshairs:
            cross.point_at(position)

    def _resized(self, event: Any = None) -> None:
        self._refit.start()

    def _fit_again(self) -> None:
        camera = self.viewer.scene.camera
        if self.active and self._fitted == (tuple(camera.center), float(camera.zoom)):
            self.fit()


def _dress(layer: Layer) -> None:
    layer.name_overlay.position = "top_center"
    layer.name_overlay.visible = True
    if isinstance(layer, Image):
        layer.colorbar.position = "bottom_right"
        layer.colorbar.visible = True


def _pad(like: Layer) -> Image:
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


def _timer(wait: int, call: Callable[[], None]) -> QTimer:
    timer = QTimer()
    timer.setSingleShot(True)
    timer.setInterval(wait)
    timer.timeout.connect(call)
    return timer
