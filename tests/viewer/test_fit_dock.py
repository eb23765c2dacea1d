"""The SH fit dock makes what the core makes, as layers in register."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.io import read_sh
from napari_dmri.signal.sh_fit import fit_sh
from napari_dmri.viewer import commands
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import KEY, kind_of, scan_layer

pytestmark = pytest.mark.viewer


@pytest.fixture
def dock(viewer, small_scan):
    array, kwargs, _ = scan_layer(small_scan)
    viewer.add_image(array, **kwargs)
    return open_dock(viewer, "SH fit")


def test_it_offers_what_the_directions_support(dock):
    assert dock.shell.currentData() == 1000
    assert dock.order.currentText() == "auto (4)"
    assert "15 coefficients from 20 directions" in dock.order_line.sentence
    assert dock.order_line.level == "ok"
    dock.order.setCurrentIndex(dock.order.findData(8))
    assert dock.order_line.level == "error"


def test_run_adds_named_layers_with_place_and_provenance(viewer, dock, small_scan, finish):
    for box in dock.outputs.values():
        box.setChecked(True)
    scan = viewer.layers[0]
    dock.result_name.setText("sub-01 ge_st")
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert dock.run_bar.message.level != "error", dock.run_bar.message.sentence
    names = [layer.name for layer in viewer.layers[1:]]
    expected = ["SH 4", "SH residual", "RISH0", "RISH2", "RISH4", "GFA", "FA", "MD", "AD", "RD"]
    assert names == [f"sub-01 ge_st | {name}" for name in [*expected, "colour FA"]]
    for layer in viewer.layers[1:]:
        assert np.allclose(layer.scale[-3:], scan.scale[-3:])
        assert np.allclose(layer.translate[-3:], scan.translate[-3:])
        assert [str(u) for u in layer.units[-3:]] == ["millimeter"] * 3
        assert layer.metadata[KEY]["provenance"]["method"] in ("sh-fit", "tensor")
    assert viewer.layers.extent.units is not None
    direct = fit_sh(small_scan, device="cpu").coefficients
    assert np.allclose(np.asarray(viewer.layers[1].data).T, direct, atol=1e-6)
    assert kind_of(viewer.layers[1]) == "sh"
    fa = np.asarray(viewer.layers["sub-01 ge_st | FA"].data)
    assert 0.3 < np.median(fa[4:8, 6:10, 5:9]) < 0.8


def test_what_was_painted_is_what_is_fitted(viewer, dock, small_scan, finish):
    painted = np.zeros(small_scan.grid[::-1], np.uint8)
    painted[5, 7:9, 6:8] = 1
    mask = viewer.add_labels(painted, scale=viewer.layers[0].scale[1:], units=("mm",) * 3)
    assert "every voxel is fitted, air too" in dock.mask_line.sentence
    dock.mask_row.picker.choose(mask)
    assert dock.mask_line.sentence == ""
    mask.data[5, 7, 8] = 1
    for name, box in dock.outputs.items():
        box.setChecked(name == "FA")
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert np.count_nonzero(np.asarray(viewer.layers[-1].data)) == 5


def test_export_writes_the_basis_chosen_and_never_overwrites(
    viewer, dock, tmp_path, finish, settle
):
    for name, box in dock.outputs.items():
        box.setChecked(name in ("SH", "GFA"))
    assert not dock.export_button.isEnabled()
    dock.run_bar.button.click()
    finish(dock.run_bar)
    dock.basis.setCurrentIndex(dock.basis.findData("descoteaux07_legacy"))
    dock.export(tmp_path)
    settle(dock.export_button.isEnabled)
    assert sorted(p.name for p in tmp_path.glob("*.nii.gz")) == [
        "sub-01_GFA.nii.gz",
        "sub-01_sh.nii.gz",
    ]
    again = read_sh(tmp_path / "sub-01_sh.nii.gz")
    assert np.allclose(again.coefficients, dock.result.sh.coefficients, atol=1e-6)
    dock.export(tmp_path)
    settle(dock.export_button.isEnabled)
    assert dock.export_line.level == "error"
    assert "already" in dock.export_line.sentence


def test_an_order_that_cannot_be_fitted_is_red_before_run(dock):
    dock.order.setCurrentIndex(dock.order.findData(6))
    assert dock.order_line.level == "error"
    assert "choose a lower order" in dock.order_line.sentence


def test_a_mif_file_holds_mrtrix_harmonics(dock):
    dock.basis.setCurrentIndex(dock.basis.findData("descoteaux07"))
    dock.format.setCurrentIndex(dock.format.findData(".mif"))
    assert dock.basis.currentData() == "tournier07"
    assert not dock.basis.isEnabled()
    dock.format.setCurrentIndex(dock.format.findData(".nii.gz"))
    assert dock.basis.isEnabled()


def test_results_are_called_as_the_layer_is(viewer, dock, finish):
    viewer.layers[0].name = "Ärztin 7"
    dock.mask_row.picker.refresh()
    assert dock.scan.name == "Ärztin 7"


def test_the_command_starts_a_fit_and_never_cancels_one(viewer, dock, finish, monkeypatch):
    said = []
    monkeypatch.setattr(commands, "show_info", said.append)
    commands.run_fit()
    assert dock.run_bar.running and not said
    commands.run_fit()
    assert said == ["A run is at work; cancel it first."]
    finish(dock.run_bar)
    assert "Cancelled" not in dock.run_bar.message.sentence and len(viewer.layers) > 1
    for box in dock.outputs.values():
        box.setChecked(False)
    commands.run_fit()
    assert not dock.run_bar.running and said[1:] == ["Choose an output."]


def test_closing_the_dock_cancels_its_job(viewer, dock, settle):
    dock.run_bar.button.click()
    job = dock.run_bar.job
    before = len(viewer.layers)
    dock.setParent(None)
    settle(lambda: not job.running)
    assert len(viewer.layers) == before
    viewer.layers.pop()  # nobody listens any more
