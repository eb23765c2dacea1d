"""Glyphs of several images side by side: one camera, one slider, each over the same maps."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer
from napari.utils.notifications import show_info

from napari_dmri.viewer.compare_layout import CompareLayout
from napari_dmri.viewer.layers import kind_of

__all__ = ["panels_of", "toggle"]

_layouts: WeakKeyDictionary[Any, CompareLayout] = WeakKeyDictionary()


def toggle(viewer: Any) -> CompareLayout | None:
    """Show the visible glyph layers side by side; the second time, put everything back.

    Every panel shows its own glyphs over the maps that are visible. Returns the layout while
    panels are shown, otherwise None, after a sentence that says what is missing.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    layout = _layouts.get(viewer)
    if layout is not None and layout.active:
        layout.leave()
        return None
    panels = panels_of(viewer)
    if len(panels) < 2:
        show_info("Show the glyphs of two SH images or more first.")
        return None
    if viewer.canvas.grid.enabled:
        show_info("Leave the comparison, or switch the grid off, first.")
        return None
    layout = _layouts[viewer] = CompareLayout(viewer)
    maps = [group for group in zip(*(panel[:-1] for panel in panels), strict=True) if group]
    layout.enter(panels, linked=maps)
    return layout


def panels_of(viewer: Any) -> list[list[Layer]]:
    """Return for each visible glyph layer copies of the visible maps, and the layer itself."""
    shown = [layer for layer in viewer.layers if layer.visible]
    glyphs = [layer for layer in shown if kind_of(layer) == "glyphs"]
    maps = [layer for layer in shown if isinstance(layer, Image)]
    return [[*(_copy(one, layer) for one in maps), layer] for layer in glyphs]


def _copy(layer: Image, glyphs: Layer) -> Layer:
    """Return another view of the same data, named after both."""
    data, state, kind = layer.as_layer_data_tuple()
    return Layer.create(data, {**state, "name": f"{layer.name} | {glyphs.name}"}, kind)
