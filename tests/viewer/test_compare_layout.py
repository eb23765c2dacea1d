"""Side-by-side panels: what is shown, and that leaving restores the viewer exactly."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_dmri.viewer.compare_layout import CompareLayout
from napari_dmri.viewer.compare_parts import Crosshair
from napari_dmri.viewer.orientation import prepare

pytestmark = pytest.mark.viewer

SPACE = {
    "scale": (2.0, 1.5, 1.5),
    "translate": (-10.0, -12.0, -9.0),
    "units": ("mm",) * 3,
    "axis_labels": ("z", "y", "x"),
}
CAMERA = ("center", "zoom", "angles", "perspective", "orientation", "mouse_pan", "mouse_zoom")
SPACE_4D = {
    "scale": (1.0, 2.0, 1.5, 1.5),
    "translate": (0.0, -10.0, -12.0, -9.0),
    "units": ("dimensionless", "mm", "mm", "mm"),
    "axis_labels": ("volume", "z", "y", "x"),
}


def snapshot(viewer) -> dict:
    def fields(model, names=None):
        return {n: _plain(getattr(model, n)) for n in names or type(model).model_fields}

    def look(layer):
        names = ("visible", "opacity", "blending", "gamma", "contrast_limits", "interpolation2d")
        values = {n: _plain(getattr(layer, n)) for n in names if hasattr(layer, n)}
        if isinstance(layer, Image):
            values["colormap"] = layer.colormap.name
            values["range"] = tuple(layer.contrast_limits_range)
            values["colorbar"] = fields(layer.colorbar)
        values["title"] = fields(layer.name_overlay)
        return values

    selection = viewer.layers.selection
    return {
        "order": [layer.name for layer in viewer.layers],
        "looks": {layer.name: look(layer) for layer in viewer.layers},
        "selected": {layer.name for layer in selection},
        "active": selection.active.name if selection.active else None,
        "grid": fields(viewer.canvas.grid),
        "camera": fields(
            viewer.scene.camera, ("center", "zoom", "angles", "perspective", "orientation")
        ),
        "dims": fields(
            viewer.dims, ("ndim", "ndisplay", "order", "point", "range", "axis_labels", "units")
        ),
        "overlays": {name: fields(o) for name, o in viewer.canvas.overlays.items()},
        "keys": set(viewer.keymap),
        "mouse": list(viewer.mouse_move_callbacks),
        "listeners": [
            len(e.callbacks)
            for e in (
                viewer.layers.events.inserted,
                viewer.layers.events.removed,
                viewer.layers.events.reordered,
                viewer.dims.events.point,
                viewer.dims.events.order,
            )
        ],
    }


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return str(value) if type(value).__module__.startswith(("napari", "pint")) else value


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer()
    prepare(viewer)
    rng = np.random.default_rng(3)
    viewer.add_image(rng.random((5, 8, 10, 12), np.float32), name="scan", **SPACE_4D)
    viewer.add_image(rng.random((8, 10, 12), np.float32), name="T1", **SPACE)
    viewer.add_image(rng.random((8, 10, 12), np.float32), name="own map", **SPACE)
    labels = np.zeros((8, 10, 12), np.uint8)
    labels[2:5, 3:6, 4:8] = 1
    viewer.add_labels(labels, name="regions", **SPACE)
    viewer.layers["T1"].visible = False
    viewer.layers["own map"].contrast_limits = (0.1, 0.7)
    viewer.layers["own map"].colormap = "magma"
    viewer.layers["scan"].name_overlay.visible = True
    viewer.dims.point = (3, 0.0, -3.0, 0.0)
    viewer.dims.order = (0, 2, 1, 3)
    viewer.scene.camera.zoom, viewer.scene.camera.center = 3.5, (0.0, 1.0, 2.0)
    viewer.layers.selection = {viewer.layers["T1"], viewer.layers["regions"]}
    viewer.bind_key("b", lambda viewer: None)
    return viewer


def maps(count: int, low: float = 0.0) -> list[Image]:
    rng = np.random.default_rng(7)
    return [
        Image(low + rng.random((8, 10, 12), np.float32), name=f"map {i}", **SPACE)
        for i in range(count)
    ]


def boxes(viewer) -> list[list]:
    """Return the visible layers of each panel, crosshairs apart."""
    found = [
        [viewer.layers[i] for i in indices if viewer.layers[i].visible]
        for _, indices in viewer.canvas.grid.iter_viewboxes(viewer.layers)
    ]
    assert all(sum(isinstance(x, Crosshair) for x in box) == 1 for box in found if box)
    return [[x for x in box if not isinstance(x, Crosshair)] for box in found]


def test_panels_are_shown_and_leaving_restores_exactly(viewer):
    before = snapshot(viewer)
    layout = CompareLayout(viewer)
    a, b = maps(2)
    own, regions = viewer.layers["own map"], viewer.layers["regions"]
    layout.enter([[a, regions], [b], [own]], linked=[[a, b]])

    assert layout.active
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (1, 3)
    assert boxes(viewer) == [[a, regions], [b], [own]]
    assert all(x.name_overlay.visible and x.colorbar.visible for x in (a, b, own))
    assert not viewer.layers["scan"].visible
    assert not viewer.layers.selection

    viewer.mouse_over_canvas = True
    viewer.cursor.position = (3, 1e6, -3.0, -6.0)
    layout._point()
    for cross in (x for x in viewer.layers if isinstance(x, Crosshair)):
        assert cross.data[1, 0].tolist() == [7, 0, 2]
        assert cross.data[2, 0].tolist() == [7, round((-3.0 + 12.0) / 1.5), 0]
    assert _plain(viewer.dims.range) == before["dims"]["range"]
    viewer.cursor.position = (3, 0.0, -3.0, 0.0)
    viewer.update_status_from_cursor()
    status = str(viewer.status)
    assert all(x.name in status for x in (a, b, own))
    assert "crosshair" not in status
    assert "spacer" not in status

    a.contrast_limits = (0.2, 0.4)
    assert tuple(b.contrast_limits) == (0.2, 0.4)
    own.contrast_limits = (0.0, 0.2)
    regions.opacity = 0.1
    viewer.dims.order = (0, 3, 1, 2)
    viewer.dims.point = (1, 2.0, 1.5, 1.5)
    viewer.scene.camera.zoom = 9
    layout.leave()

    assert snapshot(viewer) == before
    assert not layout.active
    a.contrast_limits = (0.0, 0.9)
    assert tuple(b.contrast_limits) == (0.2, 0.4)


def test_new_panels_keep_the_view_and_the_first_state_comes_back(viewer):
    before = snapshot(viewer)
    layout = CompareLayout(viewer)
    a, b, c = maps(3)
    layout.enter([[a], [c]])
    viewer.scene.camera.zoom = 11.0
    layout.enter([[a], [b]], linked=[[a, b]])

    assert viewer.scene.camera.zoom == 11.0
    assert c not in viewer.layers
    assert boxes(viewer) == [[a], [b]]
    layout.leave()
    assert snapshot(viewer) == before

    layout.enter([[a], [b]])
    layout.leave(keep=[a])
    assert a in viewer.layers
    assert not a.visible
    assert b not in viewer.layers


def test_the_layout_reacts_to_the_layer_list(viewer, settle):
    layout = CompareLayout(viewer)
    noticed, said = [], []
    layout.noticed.connect(noticed.append)
    layout.left.connect(said.append)
    a, b = maps(2)
    regions = viewer.layers["regions"]
    layout.enter([[a], [b]], crosshair=True)
    fresh = viewer.add_labels(np.zeros((8, 10, 12), int), name="painted", **SPACE)
    other = viewer.add_image(np.ones((8, 10, 12)), name="result", **SPACE)
    settle(lambda: bool(noticed))
    assert boxes(viewer) == [[a, fresh], [b]]
    assert not other.visible

    layout.show_on_first(regions)
    viewer.layers.move(0, len(viewer.layers))
    settle(lambda: viewer.layers[0] is a)
    assert boxes(viewer) == [[a, regions], [b]]
    layout.show_on_first(None)
    assert layout.panels[0] == [a]

    viewer.layers.remove(b)
    settle(lambda: not layout.active)
    assert "map 1" in said[0]
    names = ["scan", "T1", "own map", "regions", "painted", "result"]
    assert [x.name for x in viewer.layers] == names
    assert other.visible
    assert regions.visible


def test_blinking_alternates_and_comes_back(viewer, settle):
    before = snapshot(viewer)
    layout = CompareLayout(viewer)
    a, b, c, d = maps(4)
    layout.enter([[a], [b], [c], [d]], columns=2, crosshair=False)
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 2)
    layout.start_blink(interval=0.3)

    assert not viewer.canvas.grid.enabled
    assert [x.visible for x in (a, b, c, d)] == [True, False, False, False]
    settle(lambda: layout.shown == 1)
    assert [x.visible for x in (a, b, c, d)] == [False, True, False, False]
    layout.toggle_blink()
    assert viewer.canvas.grid.enabled
    assert all(x.visible for x in (a, b, c, d))
    layout.toggle_blink()
    layout.leave()
    assert snapshot(viewer) == before


def test_panels_come_and_go_many_times(make_napari_viewer, settle):
    viewer = make_napari_viewer()
    own = viewer.add_image(maps(1)[0].data, name="own map", **SPACE)
    before = snapshot(viewer)
    layout = CompareLayout(viewer)
    for turn in range(2):
        a, b = maps(2)
        layout.enter([[own], [a]])
        # Another grid while one is on, in which the first panel is no more.
        layout.enter([[a], [b]])
        layout.leave()
        assert snapshot(viewer) == before
        layout.enter([[own], [b]])
        own.colorbar.visible = turn % 2 == 0
        viewer.layers.remove(b)
        settle(lambda: not layout.active)
        assert snapshot(viewer) == before
    assert viewer.screenshot(canvas_only=True, flash=False).any()
