"""Lay panels out side by side in the viewer's own grid, and put everything back afterwards.

One camera and one slider drive all panels exactly. napari fills the grid by layer order and
stride, so short panels are padded with hidden one-voxel layers; every panel also gets its own
crosshair, which follows the mouse in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from napari.experimental import layers_linked
from napari.layers import Labels, Layer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dmri.viewer.compare_parts import Crosshair, dress, single_shot, spacer
from napari_dmri.viewer.compare_state import (
    ViewerState,
    best_columns,
    fit_panels,
    make_room,
    reorder,
)

__all__ = ["CompareLayout"]

LINKED = ("contrast_limits", "colormap", "gamma", "interpolation2d")


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
    blinked
        Emitted with whether blinking is on now.
    """

    left = Signal(str)
    noticed = Signal(str)
    blinked = Signal(bool)

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
        self._box: np.ndarray | None = None
        self._fitted: tuple[Any, ...] | None = None
        self._previous_key: Any = None
        self._check = single_shot(0, self._settle)
        self._follow = single_shot(25, self._point)
        self._refit = single_shot(80, self._fit_again)
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
        linked: Sequence[Sequence[Layer]] = (),
        columns: int = 0,
        crosshair: bool = True,
        box: np.ndarray | None = None,
    ) -> None:
        """Show panels side by side; the first layer of each gives its title and colour bar.

        Layers that are not in the viewer are added, and removed again by ``leave``. While active,
        new panels replace the old ones and the view stays.

        Parameters
        ----------
        panels
            Layers of each panel, bottom first.
        linked
            Groups of layers; those of a group share contrast and colours from now on.
        columns
            Panels in a row; 0 chooses what shows them largest (up to three stay in one row).
        crosshair
            Whether a crosshair follows the mouse in all panels.
        box
            What to fit to the panels, as two corners in the layers' world (2, 3); None: all.
        """
        first = not self.active
        if first:
            self._state = ViewerState(self.viewer)
        with self._quietly():
            if not first:
                self.stop_blink()
                self._clear({layer for panel in panels for layer in panel})
            self.panels = [list(panel) for panel in panels]
            self._columns, self._box = columns, box
            shown = {layer for panel in self.panels for layer in panel}
            for layer in self.viewer.layers:
                if layer.visible != (layer in shown):
                    layer.visible = layer in shown
            for number, panel in enumerate(self.panels, 1):
                dress(panel[0])
                for layer in panel:
                    if layer not in self.viewer.layers:
                        self._added.append(self.viewer.add_layer(layer))
                if crosshair:
                    cross = self._help(Crosshair(panel[0], f"crosshair {number}"))
                    self._crosshairs.append(cross)
            for group in linked:
                if len(group) > 1:
                    self._links.enter_context(layers_linked(list(group), LINKED))
            if first:
                self._connect()
                make_room(self.viewer)
            self.viewer.layers.selection.clear()
            before = self._fitted and self._fitted[2]
            self._arrange()
            self.fit(keep_view=not first and before == self._fitting())
            self._point()
        self.viewer.update_status_from_cursor()

    def leave(self, keep: Sequence[Layer] = (), notice: str = "") -> None:
        """Put the viewer back exactly as it was; layers that were added go, except those to keep.

        Layers that came from elsewhere meanwhile stay, on top.
        """
        if self._state is None:
            return
        with self._quietly():
            self._disconnect()
            self.stop_blink(arrange=False)
            self._clear(set(keep))
            state, self._state = self._state, None
            self.panels = []
            state.restore(hidden=[layer for layer in keep if layer in self.viewer.layers])
        self.left.emit(notice)

    def fit(self, keep_view: bool = False) -> None:
        """Fit all panels to the canvas, leaving room for titles, or only their titles and bars."""
        mains = [panel[0] for panel in self.panels]
        if mains:
            fit_panels(self.viewer, mains, self._box, keep_view)
            camera = self.viewer.scene.camera
            self._fitted = (tuple(camera.center), float(camera.zoom), self._fitting())
            self._zoomed()

    def _fitting(self) -> tuple[Any, ...]:
        """Return what the view was fitted to: the grid and the box."""
        box = None if self._box is None else tuple(self._box.ravel())
        return self.viewer.canvas.grid.shape, box

    def focus(self) -> tuple[float, ...]:
        """Return the position of the crosshair in world coordinates."""
        position = np.array(self.viewer.cursor.position, float)
        hidden = list(self.viewer.dims.not_displayed)
        position[hidden] = np.array(self.viewer.dims.point)[hidden]
        return tuple(float(x) for x in position)

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
        self.blinked.emit(True)

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
        self.blinked.emit(False)

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
        shown = {*self.panels[index], *self._crosshairs[index : index + 1]}
        for layer in self._in_panels():
            if layer.visible != (layer in shown):
                layer.visible = layer in shown

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Change the layer list without reacting to it, and let napari redraw once at the end."""
        self._busy = True
        try:
            # The grid goes off before the batch, in which napari moves nothing: titles and colour
            # bars would stay in panels that are no more, and could not be shown again.
            for panel in self.panels:
                if panel and panel[0] in self.viewer.layers:
                    dress(panel[0])
            self.viewer.canvas.grid.enabled = False
            with self.viewer.layers.batched_update():
                yield
        finally:
            self._busy = False

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
                pad = pads.pop() if pads else self._help(spacer(group[0]))
                group.append(pad)
        wanted = [layer for group in groups for layer in group]
        reorder(layers, wanted)
        columns = self._columns or best_columns(self.viewer, self.panels, self._box)
        grid.stride = stride
        grid.shape = (-(-len(groups) // columns), columns)
        grid.spacing = 4
        grid.enabled = True

    def _connect(self) -> None:
        viewer = self.viewer
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._changed)
        viewer.mouse_move_callbacks.append(self._moved)
        viewer.dims.events.point.connect(self._point)
        viewer.dims.events.order.connect(self._turned)
        viewer.canvas.events.size.connect(self._resized)
        viewer.scene.camera.events.zoom.connect(self._zoomed)
        self._previous_key = viewer.bind_key("b", None)
        viewer.bind_key("b", self.toggle_blink)

    def _disconnect(self) -> None:
        viewer = self.viewer
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._changed)
        if self._moved in viewer.mouse_move_callbacks:
            viewer.mouse_move_callbacks.remove(self._moved)
        viewer.dims.events.point.disconnect(self._point)
        viewer.dims.events.order.disconnect(self._turned)
        viewer.canvas.events.size.disconnect(self._resized)
        viewer.scene.camera.events.zoom.disconnect(self._zoomed)
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
        with self._quietly():
            self.panels = [[x for x in panel if x in layers] for panel in self.panels]
            self._helpers = [x for x in self._helpers if x in layers]
            self._crosshairs = [x for x in self._crosshairs if x in layers]
            if self._crosshairs and len(self._crosshairs) < len(self.panels):
                for cross in self._crosshairs:
                    layers.remove(cross)
                    self._helpers.remove(cross)
                self._crosshairs = []
            known = {*self._state.layers, *self._added, *self._helpers}
            for layer in [layer for layer in layers if layer not in known]:
                self._state.adopt(layer)
                if isinstance(layer, Labels):
                    if layer not in self.panels[0]:
                        self.panels[0].append(layer)
                else:
                    layer.visible = False
                    layers.selection.discard(layer)
                    self.noticed.emit(f"{layer.name!r} came; it is hidden until you leave.")
            if self.blinking is None:
                self._arrange()

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

    def _moved(self, *_: Any) -> None:
        if not self._follow.isActive():
            self._follow.start()

    def _zoomed(self, event: Any = None) -> None:
        for cross in self._crosshairs:
            cross.fit_width(float(self.viewer.scene.camera.zoom))

    def _point(self, event: Any = None) -> None:
        position = self.focus()
        for cross in self._crosshairs:
            cross.point_at(position)

    def _turned(self, event: Any = None) -> None:
        self._point()
        self._refit.start()

    def _resized(self, event: Any = None) -> None:
        self._refit.start()

    def _fit_again(self) -> None:
        camera = self.viewer.scene.camera
        if self.active and self._fitted is not None:
            untouched = self._fitted[:2] == (tuple(camera.center), float(camera.zoom))
            self.fit(keep_view=not untouched)
