"""The Compare dock, driven by its own fields and buttons in the real window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtWidgets import QApplication

from napari_dmri import GradientTable, ScalarImage, Scan
from napari_dmri.compare.maps import MapCache
from napari_dmri.errors import InputError
from napari_dmri.viewer import preferences
from napari_dmri.viewer.layers import KEY, labels_layer, map_layer, scan_layer
from napari_dmri.viewer.widgets import compare_work as work
from napari_dmri.viewer.widgets.compare import CompareDock
from napari_dmri.viewer.widgets.compare_form import MAP_NAMES, labels_of

pytestmark = pytest.mark.viewer

SHAPE = (12, 11, 8)
AFFINE = np.array([[2.0, 0, 0, -12], [0, 2, 0, -10], [0, 0, 2.5, -9], [0, 0, 0, 1]])


def simulate(name: str, scale: float = 1.0, seed: int = 1, shape=SHAPE, affine=AFFINE) -> Scan:
    """Simulate an ellipsoid: white matter (sticks along x) around a ball of water."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    table = GradientTable(
        np.r_[0.0, 0.0, np.full(30, 1000.0)], np.vstack([np.zeros((2, 3)), directions])
    )
    at = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*at, indexing="ij")))
    mask, water = radius < 0.9, radius < 0.4
    stick = np.exp(-1000.0 * (4e-4 + scale * 1.2e-3 * directions[:, 0] ** 2))
    ball = np.full(30, np.exp(-3.0))
    weighted = np.where(water[..., None], ball, stick)
    data = 1000 * mask[..., None] * np.concatenate([np.ones((*shape, 2)), weighted], -1)
    data = data + np.random.default_rng(seed).normal(0, 8, data.shape)
    return Scan(np.abs(data).astype(np.float32), affine, table, mask, name)


def add(viewer, scan: Scan):
    data, kwargs, _ = scan_layer(scan)
    return viewer.add_image(data, **kwargs)


def add_map(viewer, image: ScalarImage):
    data, kwargs, _ = map_layer(image)
    return viewer.add_image(data, **kwargs)


@pytest.fixture
def opened(make_napari_viewer, settle):
    viewer = make_napari_viewer()
    a = add(viewer, simulate("sub-01 ge_st"))
    b = add(viewer, simulate("sub-01 prisma_st", 0.8, 2))
    dock = CompareDock(viewer)
    viewer.window.add_dock_widget(dock, name="Compare")

    def press():
        dock.run_bar.button.click()
        finish(lambda: dock.layout_.active)

    def finish(until=lambda: True):
        settle(lambda: not dock.run_bar.running and not dock._auto.isActive() and until())
        settle(lambda: not dock._table_busy and not dock._painted.isActive())

    yield viewer, dock, a, b, press, finish
    dock.layout_.leave()
    viewer.window.remove_dock_widget("all")


def panel_names(viewer):
    return [x.name for x in viewer.layers if x.metadata.get(KEY, {}).get("role") == "panel"]


def test_the_whole_path_with_buttons(opened, settle, tmp_path):
    viewer, dock, a, b, press, finish = opened
    order = [x.name for x in viewer.layers]
    assert dock.a.layer is a
    assert dock.b.layer is b
    assert "12 x 11 x 8" in dock.understood.sentence
    press()

    assert panel_names(viewer) == [
        "FA: sub-01 ge_st",
        "FA: sub-01 prisma_st",
        "FA: A − B",
    ]
    first, second, between = (panel[0] for panel in dock.layout_.panels)
    assert first.metadata[KEY]["provenance"]["method"] == "tensor"
    np.testing.assert_allclose(first.scale, (2.5, 2, 2))
    assert [str(u) for u in first.units] == ["millimeter"] * 3
    assert tuple(first.contrast_limits) == tuple(second.contrast_limits)
    assert between.contrast_limits[0] == -between.contrast_limits[1]
    inside = dock.compared.mask.T
    np.testing.assert_allclose(between.data[inside], (first.data - second.data)[inside], atol=1e-6)
    assert np.isnan(between.data[~inside]).all()

    settle(lambda: dock.table is not None)
    assert dock.table["white matter"]["n"] > 100
    assert dock.table["white matter"]["mean A − B"] > 0.02
    assert dock.numbers.table.rowCount() == len(dock.table.columns)

    dock.map.setCurrentText("MD")
    finish(lambda: dock.compared.choice.map_name == "MD")
    assert first.name == "MD: sub-01 ge_st (mm²/s)"
    assert first in viewer.layers
    dock.mode.setCurrentIndex(2)
    finish(lambda: dock.compared.choice.mode == "ratio")
    assert between.name == "MD: A / B"
    low, high = between.contrast_limits
    assert low + high == pytest.approx(2)

    dock.export(tmp_path, "table")
    finish(lambda: (tmp_path / "table.tsv").exists())
    assert (tmp_path / "table.tsv").read_text().startswith("region\tn\t")
    dock.export(tmp_path, "figure")
    finish(lambda: (tmp_path / "MD_figure.png").exists())
    written = (tmp_path / "table.tsv").stat().st_mtime_ns
    dock.export(tmp_path, "table")
    finish(lambda: dock.run_bar.message.level == "error")
    assert "not overwritten" in dock.run_bar.message.sentence
    assert (tmp_path / "table.tsv").stat().st_mtime_ns == written
    dock.copy.click()
    assert "Diffusion tensors were fitted" in QApplication.clipboard().text()

    dock.paint.click()
    layer = dock.labels.layer
    finish()
    assert layer.mode == "paint"
    assert dock.layout_.panels[0] == [first, layer]
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (1, 3)
    assert layer.data.shape == SHAPE[::-1]

    layer.paint((4, 3, 3), 1)
    settle(lambda: dock.table is not None and dock.table.rows[0].name == "label 1")
    few = dock.table["label 1"]["n"]
    layer.brush_size = 6
    layer.paint((4, 5, 5), 1)
    settle(lambda: dock.table["label 1"]["n"] > few)
    counted = int(((layer.data.T > 0) & dock.compared.mask).sum())
    assert dock.table["label 1"]["n"] == counted

    dock.leave.click()
    assert [x.name for x in viewer.layers] == [*order, "regions"]
    assert not viewer.canvas.grid.enabled
    assert dock.leave.isHidden()
    assert layer.visible


def test_maps_are_computed_where_the_preferences_say(opened, monkeypatch):
    _, dock, *_, finish = opened
    monkeypatch.setattr(preferences, "device", lambda: "nowhere")
    dock.run_bar.button.click()
    finish()
    assert "'nowhere' is not available" in dock.run_bar.message.sentence


def test_reference_gives_differences_to_it(opened):
    viewer, dock, a, b, _, finish = opened
    target = add(viewer, simulate("sub-01 repeat", 0.8, 3))
    dock.compare_now(a, b, reference=target, map_name="RISH2")
    finish(lambda: dock.layout_.active)

    assert panel_names(viewer) == [
        "RISH2: sub-01 ge_st",
        "RISH2: sub-01 prisma_st",
        "RISH2: sub-01 repeat",
        "RISH2: A − reference",
        "RISH2: B − reference",
    ]
    dock.rows.setCurrentText("one row")
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (1, 5)
    dock.rows.setCurrentText("two rows")
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 3)
    assert dock.table["white matter"]["NMSE B"] < dock.table["white matter"]["NMSE A"]
    assert dock.compared.comparison.a.provenance["parameters"]["order"] == 4
    dock.keep.setChecked(True)
    dock.leave.click()
    kept = [x for x in viewer.layers if x.name.startswith("RISH2")]
    assert len(kept) == 5
    assert not any(x.visible for x in kept)
    assert dock.a.findText("RISH2: sub-01 ge_st") >= 0


def test_what_does_not_fit_is_refused_and_closing_restores(opened):
    viewer, dock, a, b, press, _ = opened
    small = add(viewer, simulate("small", shape=(10, 11, 8)))
    dock.a.choose(a)
    dock.b.choose(small)

    assert dock.understood.level == "error"
    assert "12 x 11 x 8" in dock.understood.sentence
    assert "10 x 11 x 8" in dock.understood.sentence
    assert not dock.run_bar.button.isEnabled()
    dock.b.choose(a)
    assert "same layer" in dock.understood.sentence

    dock.b.choose(b)
    press()
    other = ScalarImage(np.ones((3, 3, 3), np.uint8), AFFINE, "elsewhere")
    data, kwargs, _ = labels_layer(other)
    dock.labels.choose(viewer.add_labels(data, **kwargs))

    assert dock.run_bar.message.level == "error"
    assert "3 x 3 x 3" in dock.run_bar.message.sentence

    viewer.window.remove_dock_widget(dock)

    assert not viewer.canvas.grid.enabled
    assert panel_names(viewer) == []


def test_plain_maps_are_compared_as_they_are(opened):
    viewer, dock, _, _, _, finish = opened
    rng = np.random.default_rng(0)
    one = ScalarImage(rng.random(SHAPE, np.float32) + 1, AFFINE, "thickness", "mm")
    two = replace(one, data=one.data * 1.1, name="thickness 2")
    layers = [add_map(viewer, one), add_map(viewer, two)]
    dock.compare_now(*layers)
    finish(lambda: dock.layout_.active)

    assert not dock.map.isEnabled()
    assert panel_names(viewer)[0].startswith("thickness")
    assert dock.table["all"]["n"] == np.prod(SHAPE)
    assert dock.table["all"]["mean A"] == pytest.approx(one.data.mean(), rel=1e-5)


def test_masks_limit_what_counts_and_fits_are_kept():
    a, b = simulate("a"), simulate("b", 0.8, 2)
    half = a.mask.copy()
    half[:6] = False
    cache = MapCache()
    done = work.compute(work.Choice(a, b.with_mask(half), ("a", "b")), cache)

    assert (done.mask == (a.mask & half)).all()
    bare = a.with_mask(None)
    choice = work.Choice(bare, b, ("a", "b"))
    first = work.compute(choice, cache).comparison.a
    again = work.compute(replace(choice, map_name="MD"), cache)
    kept = work.compute(choice, cache).comparison.a
    assert kept.data is first.data or np.shares_memory(kept.data, first.data)
    assert not again.comparison.a.data[~b.mask].any()


@pytest.mark.parametrize("name", MAP_NAMES)
def test_every_map_can_be_compared(name):
    a, b = simulate("a"), simulate("b", 0.8, 2)
    done = work.compute(work.Choice(a, b, ("a", "b"), map_name=name, volume=5), MapCache())

    inside = done.mask
    between = done.panels[-1].image.data[inside]
    expected = (done.comparison.a.data - done.comparison.b.data)[inside]
    np.testing.assert_allclose(between, expected, rtol=1e-5, atol=1e-7)
    assert work.table_of(done)["white matter"]["n"] > 100


def test_labels_with_a_leading_axis_are_taken_at_the_slider():
    first = simulate("a")
    like = ScalarImage(np.zeros(SHAPE), first.affine, "map")
    painted = np.zeros((3, *SHAPE[::-1]), int)
    painted[2, 1, 2, 3] = 4
    place = {"scale": (1, 2.5, 2, 2), "translate": (0, -9, -10, -12)}
    layer = Labels(painted, name="new", **place)

    assert labels_of(layer, like, (2, 0, 0, 0))[3, 2, 1] == 4
    assert not labels_of(layer, like, (0, 0, 0, 0)).any()
    with pytest.raises(InputError, match=r"new has 12 x 11 x 8 voxels of 2 x 2 x 2\.5 mm"):
        labels_of(layer, replace(like, affine=np.eye(4)), (0, 0, 0, 0))


def test_everything_is_written_at_once(tmp_path):
    done = work.compute(work.Choice(simulate("a"), simulate("b", 0.8, 2), ("a", "b")), MapCache())
    paths = work.save(done, tmp_path / "out")

    names = {p.name for p in paths}
    assert {"table.tsv", "methods.txt", "FA_panels.png", "FA_A.nii.gz"} <= names
    with pytest.raises(InputError, match="not overwritten"):
        work.save(done, tmp_path / "out", "methods")


def test_a_map_of_vectors_is_refused():
    image = ScalarImage(np.zeros((4, 4, 4, 3), np.float32), np.eye(4), "vectors")
    with pytest.raises(InputError, match=r"vectors has shape \(4, 4, 4, 3\)"):
        work.compute(work.Choice(image, image, ("vectors", "other")), MapCache())
