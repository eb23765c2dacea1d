"""The layer list's menu for glyph layers, and outlines over filled glyphs."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.viewer.glyphs import commands
from napari_dmri.viewer.glyphs.layer import SHGlyphs

from .conftest import field_of

pytestmark = pytest.mark.viewer


def offered(viewer):
    """Return the visible entries of the layer list's context menu, by title."""
    from app_model.backends.qt import QModelMenu
    from napari._app_model import get_app_model
    from napari._app_model.constants import MenuId
    from napari._app_model.context import get_context

    menu = QModelMenu(MenuId.LAYERLIST_CONTEXT, get_app_model())
    menu.update_from_context(get_context(viewer.layers))
    return {action.text(): action for action in menu.actions() if action.isVisible()}


def test_the_layer_menu_offers_glyph_actions_to_glyph_layers_only(viewer, draw, monkeypatch):
    image = viewer.add_image(np.zeros((3, 3, 3)), name="map")
    layer = draw(field_of((1, 0, 0), (3, 3, 3)))
    viewer.layers.selection = {layer}
    titles = [title for _, title, _ in commands.menu_actions()]
    entries = offered(viewer)
    assert set(titles) <= set(entries)
    assert not layer.inspecting
    entries["Inspect glyphs by clicking"].trigger()
    panel = viewer.window._qt_viewer.controls.widgets[layer]
    assert layer.inspecting and panel.inspect.isChecked() and layer.cursor == "cross"
    entries["Inspect glyphs by clicking"].trigger()
    assert not layer.inspecting and not panel.inspect.isChecked()
    saved = []
    monkeypatch.setattr("napari_dmri.viewer.glyphs.controls.ask_and_save", saved.append)
    entries["Save as SH image…"].trigger()
    assert saved == [layer]
    entries["Show peaks as vectors"].trigger()
    assert type(viewer.layers[-1]).__name__ == "Vectors"
    viewer.layers.selection = {image}
    assert not set(titles) & set(offered(viewer))
    draw(field_of((0, 1, 0), (3, 3, 3)))
    assert sum(isinstance(x, SHGlyphs) for x in viewer.layers) == 2


def test_an_outline_lets_the_glyphs_below_show_through(viewer, draw, pixels):
    filled = draw(field_of((1, 0, 0), (1, 1, 1)))
    filled.restyle(lighting=0)
    alone = pixels()[..., :3].astype(int)
    draw(field_of((1, 0, 0), (1, 1, 1))).restyle(
        colour="uniform", uniform=(1.0, 1.0, 1.0), outline=True
    )
    both = pixels()[..., :3].astype(int)
    red = (both[..., 0] > 150) & (both[..., 1] < 60)
    white = both.min(-1) > 200
    assert red.sum() > 0.85 * ((alone[..., 0] > 150) & (alone[..., 1] < 60)).sum()
    covered = alone.max(-1) > 60
    perimeter = (covered & ~np.roll(covered, 1, 0)).sum() + (
        covered & ~np.roll(covered, 1, 1)
    ).sum()
    assert 0.5 * perimeter < white.sum() < 6 * perimeter
    rows, columns = np.nonzero(white & covered)
    inside = covered[rows - 5, columns] & covered[rows + 5, columns]
    inside &= covered[rows, columns - 5] & covered[rows, columns + 5]
    assert inside.mean() < 0.4
    viewer.layers[-1].restyle(outline=False)
    assert (pixels()[..., :3].min(-1) > 200).sum() > 5 * white.sum()
