"""The Scan dock, through its own fields and buttons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri.io import read_scan
from napari_dmri.io.qc_record import read_verdicts
from napari_dmri.signal.orientation import fix_gradients
from napari_dmri.viewer import commands
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import kind_of, scan_layer, scan_of
from napari_dmri.viewer.plots import lambert
from napari_dmri.viewer.prefetch import prefetch

pytestmark = pytest.mark.viewer


@pytest.fixture
def dock(viewer):
    return open_dock(viewer, "Scan")


def test_a_typed_path_opens_with_facts_and_findings(viewer, dock, scan_files, settle):
    assert "Open a diffusion scan" in dock.facts.text()
    assert not dock.run_bar.button.isEnabled()
    dock.path.setText(str(scan_files / "sub-01_dwi.nii.gz"))
    dock.path.returnPressed.emit()
    assert scan_of(dock.scans.layer).name == viewer.layers[0].name
    facts = dock.facts.text()
    assert "14 × 16 × 12 voxels" in facts and "2 × 2 × 2.5 mm, stored as RAS" in facts
    assert "b=1000" in facts
    assert dock.findings.rows
    assert dock.run_bar.button.isEnabled()
    settle(lambda: "directions" in dock._plots)
    dots = sum(len(spots) for _, spots, _ in dock._plots["directions"]._points)
    assert dots == 2 * 20


def test_volumes_are_unpacked_in_the_background(scan_files):
    scan = read_scan(scan_files / "sub-01_dwi.nii.gz")
    thread = prefetch(scan)
    thread.join(30)
    (scan_files / "sub-01_dwi.nii.gz").unlink()
    assert np.isfinite(scan.data[..., 21]).all()
    assert prefetch(scan.select(range(3))) is None


def test_a_path_that_cannot_be_read_is_one_sentence(viewer, dock, tmp_path):
    assert dock.open_path(tmp_path / "not here.nii.gz") == []
    assert dock.file_line.level == "error"
    assert "not here.nii.gz" in dock.file_line.sentence
    assert len(viewer.layers) == 0


def test_run_qc_finds_a_dropout_and_a_click_goes_there(viewer, dock, many_directions, finish):
    data = np.array(many_directions.data)
    data[:, :, 7, 11] *= 0.2
    array, kwargs, _ = scan_layer(replace(many_directions, data=data))
    viewer.add_image(array, **kwargs)
    for name, box in dock.checks.items():
        box.setChecked(name in ("noise", "outliers", "motion"))
    dock.run_bar.button.click()
    finish(dock.run_bar)
    result = dock.result
    assert (11, 7) in result.outliers.slices
    # 24 mm are too thin for motion: no number is called one, and no curve is drawn.
    assert any("cannot be judged" in row.text() for row in dock.findings.rows)
    assert dock.sections["Motion"].isHidden() and not dock.sections["Outliers"].isHidden()
    assert kind_of(viewer.layers[-1]) == "mask"
    assert dock.mask_row.picker.layer is viewer.layers[-1]
    assert f"{result.snr[-1].snr:.1f}" in dock.facts.text()
    assert any("lost signal" in row.text() for row in dock.findings.rows)
    dock._plots["outliers"].jumped.emit(11, 7)
    assert viewer.dims.current_step[:2] == (11, 7)
    dock.findings.jumped.emit(3)
    assert viewer.dims.current_step[0] == 3


def test_the_fix_makes_a_new_layer_and_keeps_the_old(viewer, dock, small_scan):
    wrong = fix_gradients(small_scan.gradients, "flip y", small_scan.affine)
    array, kwargs, _ = scan_layer(replace(small_scan, gradients=wrong))
    before = viewer.add_image(array, **kwargs)
    after = dock.apply_fix("flip y")
    assert len(viewer.layers) == 2
    assert np.allclose(scan_of(after).gradients.directions, small_scan.gradients.directions)
    assert np.allclose(scan_of(before).gradients.directions, wrong.directions)
    assert after.metadata["napari_dmri"]["provenance"]["parameters"] == {"fix": "flip y"}
    assert dock.scans.layer is after


def test_view_buttons_and_cine(viewer, dock, small_scan, settle):
    array, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(array, **kwargs)
    dock.view.planes["coronal"].click()
    assert viewer.dims.order == (0, 2, 1, 3)
    dock.view.sides["neurological"].click()
    assert viewer.canvas.overlays["dmri_right"].text == "R"
    assert dock.view.sides["neurological"].isChecked()
    assert not dock.view.sides["radiological"].isChecked()
    dock.view.rate.setValue(30)
    dock.view.play.click()
    settle(lambda: viewer.dims.current_step[0] >= 2)
    dock.view.play.click()
    assert not dock.view.timer.isActive()
    assert "b=1000" in dock.view.volume.text()


def test_cancel_leaves_nothing(viewer, dock, small_scan, finish):
    array, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(array, **kwargs)
    dock.run_bar.button.click()
    assert dock.run_bar.button.text() == "Cancel"
    dock.run_bar.button.click()
    assert dock.run_bar.button.text() == "Cancelling…"
    finish(dock.run_bar)
    assert dock.run_bar.button.text() == "Run QC"
    assert "Cancelled" in dock.run_bar.message.sentence
    assert dock.result is None
    assert len(viewer.layers) == 1


def test_the_command_makes_a_mask_and_never_cancels_one(
    viewer, dock, small_scan, settle, monkeypatch
):
    said = []
    monkeypatch.setattr(commands, "show_info", said.append)
    array, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(array, **kwargs)
    commands.make_mask()
    commands.make_mask()
    assert said == ["A mask is being made; cancel it first."]
    settle(lambda: dock.mask_row.picker.layer is not None)


def test_verdicts_go_into_a_record_beside_the_scan(viewer, dock, scan_files):
    dock.open_path(scan_files / "sub-01_dwi.nii.gz")
    dock.verdict.note.setText("ghost\tin frontal lobe")
    dock.verdict.buttons["unsure"].click()
    dock.verdict.buttons["reject"].click()
    rows = read_verdicts(scan_files / "qc_record.tsv")
    assert [row["verdict"] for row in rows] == ["unsure", "reject"]
    assert rows[0]["note"] == "ghost in frontal lobe"
    assert dock.verdict.buttons["reject"].isChecked()
    assert not dock.verdict.buttons["unsure"].isChecked()


def test_the_disk_keeps_areas_and_edges():
    assert np.allclose(lambert(np.array([[1.0, 0, 0], [0, -1, 0]])), [[1, 0], [0, -1]])
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    radius = np.linalg.norm(lambert(points), axis=1)
    assert abs((radius < np.sqrt(0.5)).mean() - 0.5) < 0.01


def test_a_second_scan_is_shown_alone_at_slices_that_it_has(viewer, dock, small_scan, tmp_path):
    from napari_dmri.io import write_scan

    far = small_scan.affine.copy()
    far[:3, 3] += (200, 300, 400)
    write_scan(small_scan, tmp_path / "one.nii.gz")
    write_scan(replace(small_scan, affine=far), tmp_path / "two.nii.gz")
    (first,) = dock.open_path(tmp_path / "one.nii.gz")
    dock.mask_row.add(np.ones(small_scan.grid, bool), dock.scan, {})
    mask = viewer.layers[-1]
    (second,) = dock.open_path(tmp_path / "two.nii.gz")
    assert second.visible and not first.visible and not mask.visible
    low, high = second.extent.world
    assert low[1] <= viewer.dims.point[1] <= high[1]
    np.testing.assert_allclose(viewer.scene.camera.center[1:], (low + high)[2:] / 2, atol=2)
    dock.scans.setCurrentIndex(1)
    dock.scans.activated.emit(1)
    assert first.visible and not second.visible
    assert first.extent.world[0, 1] <= viewer.dims.point[1] <= first.extent.world[1, 1]


def test_words_about_a_scan_go_with_it(viewer, dock, small_scan):
    data, kwargs, _ = scan_layer(small_scan)
    layer = viewer.add_image(data, **kwargs)
    dock.run_bar.message.say("1 warning, listed below.", "warning")
    row = dock.findings.rows[0]
    viewer.layers.remove(layer)
    assert dock.run_bar.message.sentence == ""
    assert dock.path.text() == ""
    assert row.isHidden()


def test_a_closed_dock_hears_nothing(viewer, dock, small_scan):
    data, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(data, **kwargs)
    dock.view.play.click()
    dock.setParent(None)
    assert not dock.view.timer.isActive()
    viewer.dims.ndisplay = 3
    viewer.theme = "light"
    viewer.layers.clear()
    assert dock.scans.count() == 1
    assert scan_of(dock.scans.layer) is small_scan
    viewer.theme = "dark"


def test_colour_fa_is_shown_in_the_brain_only(viewer, dock, small_scan, finish):
    data, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(data, **kwargs)
    dock.colour_button.click()
    finish(dock.run_bar)
    colours = viewer.layers[-1]
    assert kind_of(colours) == "colour"
    assert not colours.data[[0, 0, -1], [0, -1, 0], [0, -1, 0]].any()
    assert colours.data[6, 8, 7].max() > 0.3
