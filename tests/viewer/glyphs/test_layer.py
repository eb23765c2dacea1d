"""The layer among napari's other things: slicing, grid, hiding, duplicating, saving, odd data."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.viewer.glyphs.detail import SOFTWARE
from napari_dmri.viewer.glyphs.layer import SHGlyphs

from .conftest import field_of, fodf

pytestmark = pytest.mark.viewer


@pytest.fixture
def viewer(clean):
    """Return the viewer that this module's tests share."""
    return clean


def lit(picture):
    return int((picture[..., :3].astype(int).sum(-1) > 60).sum())


def test_slices_follow_the_slider_to_the_edges_of_the_volume(viewer, draw, pixels):
    coefficients = np.zeros((4, 5, 3, 45), np.float32)
    for z, direction in enumerate(np.eye(3)):
        coefficients[:, :, z] = fodf(direction)[0]
    layer = draw(ShImage(coefficients, np.diag([2.0, 2, 3, 1])))
    layer.restyle(lighting=0)
    for z in range(3):
        viewer.dims.set_current_step(0, z)
        picture = pixels()[..., :3].reshape(-1, 3).astype(int)
        assert np.argmax(picture.sum(0)) == z
    for order in ((1, 0, 2), (2, 0, 1), (0, 2, 1)):
        viewer.dims.order = order
        for step in (0, -1):
            viewer.dims.set_current_step(order[0], range(layer.field.grid[order[0]])[step])
            assert lit(pixels()) > 0


def test_3d_shows_slices_slabs_or_the_volume(viewer, draw, pixels):
    layer = draw(field_of((0, 1, 0), (6, 5, 4)))
    viewer.dims.ndisplay = 3
    assert len(layer.shown()[0]) == 6 * 5 + 6 * 4 + 5 * 4 - 6 - 5 - 4 + 1
    layer.restyle(extent="slab", thickness=2)
    assert len(layer.shown()[0]) == 2 * 30
    layer.restyle(extent="volume")
    assert len(layer.shown()[0]) == 120
    layer.volume_budget = 40
    layer.refresh()
    thinned = layer.shown()[0]
    assert len(thinned) <= 40 and thinned.step == 2
    assert lit(pixels()) > 100
    viewer.dims.ndisplay = 2
    assert len(layer.shown()[0]) == 30


def test_three_slices_follow_the_point(viewer, draw):
    layer = draw(field_of((0, 1, 0), (6, 5, 4)))
    viewer.dims.set_current_step(0, 3)
    viewer.dims.ndisplay = 3
    voxels = layer.shown()[0].voxels
    counts = np.bincount(voxels[:, 0], minlength=4)
    assert counts.argmax() == 3


def test_grid_mode_shows_each_layer_in_its_panel(viewer, draw, pixels):
    first = draw(field_of((1, 0, 0), (3, 3, 1)))
    second = draw(field_of((0, 1, 0), (3, 3, 1)))
    for layer in (first, second):
        layer.restyle(lighting=0)
    for ndisplay in (2, 3):
        viewer.canvas.grid.enabled = True
        viewer.canvas.grid.shape = (1, 2)
        viewer.dims.ndisplay = ndisplay
        viewer.reset_view()
        picture = pixels()[..., :3].astype(int)
        half = picture.shape[1] // 2
        left, right = picture[:, :half].sum((0, 1)), picture[:, half:].sum((0, 1))
        assert left[0] > 3 * left[1]
        assert right[1] > 3 * right[0]
        viewer.canvas.grid.enabled = False
        assert lit(pixels()) > 0


def test_hiding_reordering_reset_and_theme(viewer, draw, pixels):
    image = viewer.add_image(np.zeros((5, 5, 5)), name="map")
    layer = draw(field_of((1, 0, 0)))
    shown = lit(pixels())
    layer.visible = False
    assert lit(pixels()) < shown / 10
    viewer.dims.set_current_step(0, 0)
    layer.visible = True
    viewer.layers.move(1, 0)
    assert viewer.layers[0] is layer
    viewer.layers.move(1, 0)
    assert viewer.layers[1] is layer
    viewer.reset_view()
    viewer.theme = "light"
    viewer.theme = "dark"
    assert abs(lit(pixels()) - shown) < 0.05 * shown
    layer.opacity = 0.3
    red = pixels()[..., 0]
    # where a lobe lies in front of another of its glyph, both shine through: 1 - 0.7**2
    assert red.max() < 0.52 * 255 and np.percentile(red[red > 20], 90) < 80
    assert image in viewer.layers


def test_a_duplicate_is_another_glyph_layer_with_the_same_look(viewer, draw):
    layer = draw(field_of((1, 0, 0)), scale=(3, 2, 1))
    layer.restyle(size=2.0, colour="uniform")
    copy = SHGlyphs.create(*layer.as_layer_data_tuple())
    copy.name = "copy"
    viewer.add_layer(copy)
    assert type(copy) is SHGlyphs
    assert copy.style == layer.style or copy.style.size == 2.0
    assert copy.style.colour == "uniform"
    np.testing.assert_array_equal(copy.scale, layer.scale)
    viewer.layers.selection = {layer}
    from napari.layers import _layer_actions

    _layer_actions._duplicate_layer(viewer.layers)
    assert sum(isinstance(x, SHGlyphs) for x in viewer.layers) == 3


def test_fifty_rounds_of_adding_and_removing_leave_nothing_behind(viewer, qtbot, node_of):
    import psutil
    from vispy.gloo.globject import GLObject

    from napari_dmri.viewer.glyphs.show import glyph_layer

    image = field_of((1, 0, 0), (20, 20, 2))
    viewer.window.resize(400, 300)
    # without a layer that stays, napari builds its sliders anew every time
    viewer.add_image(np.zeros((2, 20, 20)), units=("mm",) * 3)
    drawn = []

    def rounds(count):
        for _ in range(count):
            layer = viewer.add_layer(glyph_layer(image))
            qtbot.wait(5)
            drawn.append(node_of(layer).drawn)
            viewer.layers.remove(layer)
        gc.collect()
        objects = sum(issubclass(type(x), GLObject) for x in gc.get_objects())
        return objects, psutil.Process().memory_info().rss

    # napari collects garbage at every removal; what is here already need not be searched each time
    gc.collect()
    gc.freeze()
    try:
        objects, memory = rounds(5)
        after, more = rounds(50)
    finally:
        gc.unfreeze()
    assert after <= objects
    assert np.mean(np.array(drawn) == 400) > 0.9
    assert more - memory < 25e6


def test_even_orders(viewer, draw, pixels):
    for order in (0, 2, 4, 6, 12, 16):
        layer = draw(field_of((0, 0, 1), (2, 2, 1), order=order))
        assert layer.field.space.order == order
        assert lit(pixels()) > 200
        layer.restyle(order=min(2, order))
        assert lit(pixels()) > 200
        viewer.layers.remove(layer)


@pytest.mark.parametrize("order", [1, 8])
def test_full_sets_are_not_symmetric(viewer, draw, pixels, order):
    from napari_dmri.viewer.glyphs.basis import ShSpace, values_and_gradients
    from napari_dmri.viewer.glyphs.show import _registered

    space = ShSpace(order, full=True)
    towards = values_and_gradients(np.array([[1.0, 0, 0]]), space)[0]
    draw(field_of((1, 0, 0)))
    viewer.layers.clear()
    data = np.tile(towards, (1, 1, 1, 1)).astype(np.float32)
    layer = viewer.add_layer(_registered()(data, units=("mm",) * 3))
    viewer.reset_view()
    assert layer.field.space == space
    picture = pixels()[..., :3].astype(int)
    bright = picture[..., 0] > 100
    columns = np.nonzero(bright)[1]
    centre = (picture.shape[1] - 1) / 2
    assert abs(columns.mean() - centre) > 0.1 * (np.ptp(columns) + 1)
    with pytest.raises(InputError, match="odd degrees"):
        from napari_dmri.viewer.glyphs.show import image_of

        image_of(layer)


def test_odd_numbers_are_left_out_or_drawn_as_they_are(viewer, draw, pixels):
    coefficients = np.tile(fodf((1, 0, 0))[0], (4, 4, 1, 1)).astype(np.float32)
    coefficients[0, 0] = np.nan
    coefficients[1, 0] = 0
    coefficients[2, 0] = np.inf
    coefficients[3, 0] *= -1
    coefficients[0, 1, 0, 3] = np.nan
    layer = draw(ShImage(coefficients, np.eye(4)))
    assert len(layer.shown()[0]) == 12
    assert lit(pixels()) > 100
    layer.restyle(negative=False)
    assert len(layer.shown()[0]) == 12
    layer.restyle(negative=False, threshold=0.9)
    assert len(layer.shown()[0]) == 11
    layer.restyle(normalise=True)
    assert lit(pixels()) > 100
    facts = layer.facts_at((0, 1, 2))
    assert facts is not None and layer.facts_at((0, 0, 0)) is None


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_to_draw_is_no_error(viewer, draw, pixels, value):
    draw(ShImage(np.full((3, 3, 3, 15), value, np.float32), np.eye(4)))
    viewer.dims.ndisplay = 3
    assert lit(pixels()) == 0


def test_any_amplitude_fits_its_voxel(viewer, draw, pixels):
    image = field_of((1, 0, 0), (3, 3, 1))
    counts = []
    for amplitude in (1e-30, 1e-6, 1, 1e9, 1e30):
        layer = draw(image.with_coefficients(image.coefficients * np.float32(amplitude)))
        counts.append(lit(pixels()))
        viewer.layers.remove(layer)
    assert max(counts) - min(counts) <= 0.05 * max(counts)


def test_thin_volumes(viewer, draw, pixels):
    for shape in ((1, 1, 1), (1, 1, 9), (9, 1, 1), (1, 7, 1)):
        layer = draw(field_of((0, 1, 1) / np.sqrt(2), shape))
        for ndisplay in (2, 3):
            viewer.dims.ndisplay = ndisplay
            viewer.reset_view()
            assert lit(pixels()) > 20
        viewer.layers.remove(layer)


class Spy:
    """Five million voxels of which every reading is counted."""

    shape = (160, 200, 160, 45)
    ndim, dtype = 4, np.dtype(np.float32)

    def __init__(self):
        self.read = 0

    def __getitem__(self, key):
        ranges = [range(n)[k] for n, k in zip(self.shape[:3], key, strict=False)]
        size = [len(r) for r in ranges if isinstance(r, range)]
        self.read += int(np.prod(size))
        return np.broadcast_to(fodf((1, 0, 0))[0].astype(np.float32), (*size, 45))


def test_a_volume_of_five_million_voxels_is_read_slice_by_slice(viewer, draw, pixels):
    draw(field_of((1, 0, 0)))
    viewer.layers.clear()
    data = Spy()
    layer = SHGlyphs(data, units=("mm",) * 3)
    viewer.add_layer(layer)
    viewer.reset_view()
    assert lit(pixels()) > 1000
    assert data.read <= 2 * 200 * 160
    before = data.read
    viewer.dims.set_current_step(0, 3)
    pixels()
    assert data.read - before == 200 * 160
    viewer.dims.set_current_step(0, 80)
    assert data.read - before <= 2 * 200 * 160


def test_memory_maps_are_read_where_they_are_shown(viewer, draw, tmp_path):
    data = np.lib.format.open_memmap(tmp_path / "sh.npy", "w+", np.float32, (8, 9, 10, 15))
    data[4] = fodf((0, 0, 1), 4)[0]
    draw(field_of((1, 0, 0)))
    layer = SHGlyphs(data, units=("mm",) * 3)
    viewer.layers.clear()
    viewer.add_layer(layer)
    viewer.dims.set_current_step(0, 4)
    assert len(layer.shown()[0]) == 90
    viewer.dims.set_current_step(0, 5)
    assert len(layer.shown()[0]) == 0


def test_the_status_bar_tells_peaks_gfa_and_afd(viewer, draw):
    layer = draw(field_of((0, 0.6, 0.8), affine=np.diag([2.0, 2, 2, 1])))
    status = layer.get_status((4, 4, 4), world=True, view_direction=None)
    words = status["value"]
    assert "voxel (2, 2, 2)" in words
    assert "+0.60 +0.80" in words.replace("-0.60 -0.80", "+0.60 +0.80")
    assert "GFA" in words and "AFD 1" in words
    assert layer.get_value((400, 4, 4), world=True) is None
    viewer.dims.ndisplay = 3
    value = layer.get_value(
        (-20, 4, 4), view_direction=np.array([1.0, 0, 0]), dims_displayed=[0, 1, 2], world=True
    )
    assert value is not None and "voxel (2, 2" in value


def test_saving_and_reading_back(viewer, draw, tmp_path):
    from napari_dmri.io import read_sh
    from napari_dmri.sphere.harmonics import convert_basis
    from napari_dmri.viewer.glyphs.show import save_glyphs

    image = field_of((1, 0.5, 0), (2, 3, 4), np.diag([2.0, 2, 3, 1]))
    wrong = image.with_coefficients(convert_basis(image.coefficients, "tournier07", "descoteaux07"))
    layer = draw(wrong)
    layer.restyle(basis="descoteaux07")
    for name, basis in (("a.nii.gz", "descoteaux07_legacy"), ("b.mif", "tournier07")):
        save_glyphs(layer, tmp_path / name, basis=basis)
        back = read_sh(tmp_path / name)
        np.testing.assert_allclose(back.coefficients, image.coefficients, atol=1e-5)
        np.testing.assert_allclose(back.affine, image.affine)
    with pytest.raises(InputError, match="exists"):
        save_glyphs(layer, tmp_path / "b.mif")


def test_bad_data_are_refused_in_words(viewer, draw):
    draw(field_of((1, 0, 0)))
    with pytest.raises(InputError, match="7 coefficients"):
        SHGlyphs(np.zeros((2, 2, 2, 7), np.float32))
    with pytest.raises(InputError, match="one grid"):
        SHGlyphs(np.zeros((2, 2, 2, 6), np.float32), mask=np.ones((3, 2, 2), bool))
    with pytest.raises(InputError, match="not known"):
        viewer.layers[0].restyle(colour="pink")


def test_the_level_of_detail_follows_the_zoom(viewer, draw, pixels, node_of):
    layer = draw(field_of((1, 0, 0), (40, 40, 1)))
    pixels()
    node = node_of(layer)
    far, drawn = node.frequency, node.drawn
    assert drawn == 1600
    viewer.scene.camera.zoom *= 12
    pixels()
    assert node.frequency > far
    assert node.drawn < 600
    layer.restyle(detail=24)
    pixels()
    assert node.frequency == 24


def test_many_glyphs_are_coarser_while_the_mouse_moves_the_camera(
    viewer, draw, pixels, node_of, qtbot
):
    layer = draw(field_of((1, 0, 0), (20, 20, 1)))
    node = node_of(layer)
    node.budget = replace(SOFTWARE, moving=4e4)
    pixels()
    rest, asked = node.frequency, []
    node.moving, node.settle = lambda: True, lambda: asked.append(True)
    pixels()
    assert node.frequency < rest and asked
    node.moving = lambda: False
    pixels()
    assert node.frequency >= rest


def test_clipping_planes_cut_and_figures_are_exported_at_any_scale(viewer, draw, pixels):
    layer = draw(field_of((0.8, 0.6, 0), (6, 6, 6)))
    pixels()
    small = viewer.export_figure(scale_factor=10, flash=False)
    large = viewer.export_figure(scale_factor=30, flash=False)
    assert 5 < lit(large) / lit(small) < 13
    viewer.dims.ndisplay = 3
    layer.restyle(extent="volume")
    whole = lit(pixels())
    plane = {"position": (3, 3, 3), "normal": (0, 0, 1), "enabled": True}
    layer.experimental_clipping_planes = [plane]
    assert 0.05 * whole < lit(pixels()) < 0.95 * whole
    layer.experimental_clipping_planes.clear()
    assert abs(lit(pixels()) - whole) < 0.02 * whole


def test_a_mask_that_is_painted_on_says_where_glyphs_are(viewer, draw, pixels):
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :2] = 1
    labels = viewer.add_labels(mask, visible=False, units=("mm",) * 3)
    directions = np.zeros((4, 4, 1, 45), np.float32)
    for y, fibre in enumerate(((1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0))):
        directions[:, y] = fodf(fibre)[0]
    layer = draw(ShImage(directions, np.eye(4), name="halves"))
    panel = viewer.window._qt_viewer.controls.widgets[layer]
    panel.where.offer(layer, None)
    panel.where.setCurrentIndex(panel.where.findText(labels.name))
    layer.restyle(lighting=0, negative=False)
    lead = np.diff(pixels()[..., :2].astype(int))
    assert layer.style.where is labels and len(layer.shown()[0]) == 8
    assert lead.min() < -150 and (lead < -50).sum() > 20 * (lead > 50).sum()
    mask[0] = 1 - mask[0]
    labels.refresh()
    layer.events.set_data()
    lead = np.diff(pixels()[..., :2].astype(int))
    assert len(layer.shown()[0]) == 8
    assert lead.max() > 150 and (lead > 50).sum() > 20 * (lead < -50).sum()
    viewer.layers.remove(labels)
    layer.events.style()
    assert "removed" in panel.where.currentText()
