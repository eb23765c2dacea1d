"""The ways in: files, the SH fit dock, commands, the layer panel, the inspector, the fallback."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Vectors

from napari_dmri.errors import InputError
from napari_dmri.io import read_sh, write_sh
from napari_dmri.viewer import _napari_compat as compat
from napari_dmri.viewer.glyphs import commands
from napari_dmri.viewer.glyphs.layer import SHGlyphs

from .conftest import field_of, fodf

pytestmark = pytest.mark.viewer


def glyphs_in(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, SHGlyphs)]


@pytest.mark.parametrize("suffix", [".nii.gz", ".mif"])
def test_an_sh_file_opens_as_glyphs(viewer, settle, tmp_path, suffix):
    path = tmp_path / f"sub_fod{suffix}"
    write_sh(field_of((1, 0, 0), (4, 4, 4)), path)
    viewer.open(str(path), plugin="napari-dmri")
    settle(lambda: bool(glyphs_in(viewer)))
    layer = glyphs_in(viewer)[0]
    assert len(layer.shown()[0]) == 16
    assert not viewer.layers[0].visible


def test_commands_show_glyphs_peaks_and_the_angle(viewer, settle):
    from napari_dmri.viewer.layers import sh_layer

    turned = np.array([np.cos(0.3), np.sin(0.3), 0])
    for direction in ((1, 0, 0), turned):
        data, kwargs, _ = sh_layer(field_of(direction, (3, 3, 3)))
        viewer.layers.selection.active = viewer.add_image(data, **kwargs)
        commands.show_sh_glyphs()
    assert len(glyphs_in(viewer)) == 2
    commands.compare_sh_glyphs()
    settle(lambda: any(layer.style.colour == "map" for layer in glyphs_in(viewer)))
    lower, upper = glyphs_in(viewer)
    assert lower.style.colour == "map"
    assert upper.style.colour == "uniform" and upper.style.outline
    np.testing.assert_allclose(lower.style.colour_layer.data, np.rad2deg(0.3), atol=1)
    commands.show_sh_peaks()
    vectors = next(layer for layer in viewer.layers if isinstance(layer, Vectors))
    assert len(vectors.data) == 27
    assert vectors.units == upper.units


def test_the_fit_dock_shows_its_result_as_glyphs(viewer, small_scan, finish, settle):
    from napari_dmri.viewer.layers import scan_layer
    from napari_dmri.viewer.widgets.fit import FitDock

    data, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(data, **kwargs)
    dock = FitDock(viewer)
    viewer.window.add_dock_widget(dock, name="SH fit")
    assert not dock.glyphs_button.isEnabled()
    dock.run_bar.button.click()
    finish(dock.run_bar)
    dock.glyphs_button.click()
    assert len(glyphs_in(viewer)) == 1


def test_the_panel_shows_and_changes_the_style(viewer, qtbot):
    from napari_dmri.viewer.glyphs.controls import GlyphControls
    from napari_dmri.viewer.glyphs.show import show_glyphs

    fa = viewer.add_image(np.random.default_rng(0).random((5, 5, 5)), name="FA")
    layer = show_glyphs(viewer, field_of((1, 0, 0)))
    panel = viewer.window._qt_viewer.controls.widgets[layer]
    assert isinstance(panel, GlyphControls)
    panel.size.setValue(2.5)
    panel.clip.setChecked(True)
    panel.threshold.setValue(40)
    panel.order.setCurrentIndex(panel.order.findData(4))
    panel.basis.setCurrentIndex(panel.basis.findData("descoteaux07"))
    panel.colour.setCurrentIndex(panel.colour.findData("map"))
    panel.colour_layer.setCurrentIndex(panel.colour_layer.findText("FA"))
    panel.where.setCurrentIndex(panel.where.findText("FA"))
    panel.where_above.setValue(0.5)
    panel.negative.setChecked(False)
    panel.lighting.setValue(30)
    panel.detail.setCurrentIndex(2)
    panel.extent.setCurrentText("slab")
    style = layer.style
    assert (style.size, style.clip, style.threshold, style.order) == (2.5, True, 0.4, 4)
    assert (style.basis, style.colour, style.colour_layer) == ("descoteaux07", "map", fa)
    assert (style.where, style.where_above, style.negative) == (fa, 0.5, False)
    assert (style.lighting, style.detail, style.extent) == (0.3, 6, "slab")
    assert 0 < len(layer.shown()[0]) < 25
    layer.restyle(size=1.5, order=8, normalise=True)
    assert panel.size.value() == 1.5 and panel.order.currentData() == 8
    assert panel.normalise.isChecked()


def test_a_click_opens_the_glyph_with_its_numbers(viewer, qtbot):
    from napari_dmri.viewer.glyphs import inspect
    from napari_dmri.viewer.glyphs.show import show_glyphs

    layer = show_glyphs(viewer, field_of((0, 0.6, 0.8), affine=np.diag([2.0, 2, 2, 1])))
    layer.events.inspect(voxel=(2, 2, 1))
    window = inspect._open[id(layer)]
    qtbot.waitExposed(window)
    text = window.numbers.text()
    assert "(1, 2, 2)" in text and "2.0 4.0 4.0 mm" in text and "peak 1" in text
    picture = window.canvas.render()[..., :3].astype(int)
    assert (picture.max(-1) > 120).sum() > 1000
    layer.events.inspect(voxel=(0, 0, 0))
    assert inspect._open[id(layer)] is window and "(0, 0, 0)" in window.numbers.text()
    window.close()
    assert id(layer) not in inspect._open


def test_without_instancing_peaks_are_shown_and_the_reason_given(viewer, monkeypatch):
    from napari_dmri.viewer.glyphs import show

    reason = "SH glyphs need instanced drawing, which this graphics system does not offer."
    monkeypatch.setattr(compat, "why_no_glyphs", lambda: reason)
    said = []
    monkeypatch.setattr(show, "show_warning", said.append)
    layer = show.show_glyphs(viewer, field_of((1, 0, 0), (2, 2, 2)))
    assert reason in said[0]
    assert isinstance(layer, Vectors) and len(layer.data) == 8
    with pytest.raises(InputError, match="instanced"):
        show.glyph_layer(field_of((1, 0, 0), (2, 2, 2)))


def test_peaks_of_an_oblique_image_lie_along_its_shown_axes(viewer):
    from napari_dmri.viewer.glyphs.peaks import peaks_layer

    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = turn * [1, 2, 3]
    layer = peaks_layer(field_of(turn[:, 0], (2, 2, 2), affine))
    along = layer.data[:, 1] * layer.scale
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    assert (np.abs(along[:, 2]) > 0.99).all()
    np.testing.assert_allclose(layer.edge_color[0, :3], np.abs(turn[:, 0]), atol=0.1)


def test_a_saved_layer_reads_back(viewer, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    from napari_dmri.viewer.glyphs.show import show_glyphs

    show_glyphs(viewer, field_of((1, 0, 0), (3, 2, 2)))
    path = tmp_path / "out.nii.gz"
    kind = "NIfTI, descoteaux07 (*.nii.gz)"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), kind))
    commands.save_glyph_layer()
    np.testing.assert_allclose(read_sh(path).coefficients[0, 0, 0], fodf((1, 0, 0))[0], atol=1e-6)
