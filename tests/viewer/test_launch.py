"""Docks, samples and commands, as napari finds them."""

from __future__ import annotations

import napari
import numpy as np
import pytest

from napari_dmri.viewer import commands, orientation
from napari_dmri.viewer.launch import DOCKS, open_docks, view_files
from napari_dmri.viewer.layers import kind_of, scan_of

pytestmark = pytest.mark.viewer


def test_docks_open_as_tabs_in_order_within_a_laptop(viewer, scan_files):
    widgets = open_docks(viewer)
    assert tuple(widgets) == DOCKS
    for name, widget in widgets.items():
        assert widget.minimumWidth() <= 320, name
        assert widget.widget().minimumSizeHint().width() <= 320, name
    viewer.open(str(scan_files / "sub-01_dwi.nii.gz"), plugin="napari-dmri")
    for name, widget in widgets.items():
        assert widget.widget().minimumSizeHint().width() <= 320, name


def test_every_control_has_a_tooltip_and_is_reached_by_keyboard(viewer):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QProgressBar

    widgets = open_docks(viewer)
    for name in ("Scan", "SH fit", "Deconvolve"):
        for control in widgets[name].findChildren((QAbstractButton, QComboBox, QLineEdit)):
            if control.objectName().startswith("qt_") or isinstance(control, QProgressBar):
                continue
            assert control.toolTip() or control.parent().toolTip(), (name, control)
            assert control.focusPolicy() & Qt.FocusPolicy.TabFocus, (name, control)


def test_the_samples_open(viewer):
    (small,) = viewer.open_sample("napari-dmri", "small_64d")
    assert scan_of(small).gradients.shell().bvalue == pytest.approx(1000, abs=30)
    (many,) = viewer.open_sample("napari-dmri", "small_101d")
    assert scan_of(many).shape[3] == 102
    assert kind_of(many) == "scan"


def test_the_simulated_subject_opens_with_its_mark_and_masks(viewer):
    layers = viewer.open_sample("napari-dmri", "travelling")
    scans = [scan_of(layer) for layer in layers if scan_of(layer) is not None]
    assert [scan.metadata["site"] for scan in scans] == ["ge_st", "prisma_st"]
    assert all(scan.simulated and "simulated" in scan.name for scan in scans)
    masks = [np.asarray(layer.data).T > 0 for layer in layers if kind_of(layer) == "mask"]
    for scan, mask in zip(scans, masks, strict=True):
        data = np.asarray(scan.data)
        assert data.dtype == np.int16 and not data[~mask].any() and data[mask].any()


def test_commands_act_on_the_current_viewer(viewer, scan_files):
    viewer.open(str(scan_files / "sub-01_dwi.nii.gz"), plugin="napari-dmri")
    assert napari.current_viewer() is not None
    commands.sagittal()
    assert orientation.plane_of(viewer) == "sagittal"
    commands.neurological()
    assert orientation.convention_of(viewer) == "neurological"
    commands.coronal()
    commands.radiological()
    assert orientation.edge_letters(viewer)["left"] == "R"
    commands.axial()
    assert orientation.plane_of(viewer) == "axial"


def test_view_files_opens_docks_and_files(monkeypatch, make_napari_viewer, scan_files):
    made = make_napari_viewer(show=True)
    monkeypatch.setattr(napari, "Viewer", lambda **_: made)
    ran = []
    monkeypatch.setattr(napari, "run", lambda: ran.append(True))
    files = [scan_files / f"sub-01_dwi.{end}" for end in ("bval", "bvec")]
    moved = tuple(file.rename(file.with_name(f"gradients{file.suffix}")) for file in files)
    view_files([scan_files / "sub-01_dwi.nii.gz", scan_files / "t1.nii.gz"], gradients=moved)
    assert len(made.layers) == 2
    assert scan_of(made.layers[0]).gradients.shell().bvalue == 1000
    assert ran == [True]
    assert set(made.window.dock_widgets) >= {f"{name} (napari-dmri)" for name in DOCKS}
    assert np.allclose(made.layers[1].extent.world, made.layers[0].extent.world[:, 1:])
