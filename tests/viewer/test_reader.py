"""Files become layers in register; what cannot be read becomes one sentence."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from napari.layers import Image, Labels, Tracks
from napari.utils.notifications import notification_manager

from napari_dmri.viewer.layers import kind_of, scan_of
from napari_dmri.viewer.reader import NOTHING, get_reader, read

pytestmark = pytest.mark.viewer


def open_file(viewer, path):
    return viewer.open(str(path), plugin="napari-dmri")


def told() -> list[str]:
    messages = [n.message for n in notification_manager.records]
    notification_manager.records.clear()
    return messages


def test_a_scan_opens_as_volumes_in_millimetres(viewer, scan_files):
    (layer,) = open_file(viewer, scan_files / "sub-01_dwi.nii.gz")
    assert isinstance(layer, Image)
    assert kind_of(layer) == "scan"
    assert layer.data.shape == (22, 12, 16, 14)
    assert np.allclose(layer.scale, (1, 2.5, 2, 2))
    assert [str(u) for u in layer.units] == [
        "dimensionless",
        "millimeter",
        "millimeter",
        "millimeter",
    ]
    assert layer.axis_labels == ("volume", "z", "y", "x")
    assert np.array_equal(np.asarray(layer.data), np.asarray(scan_of(layer).data).T)


def test_it_opens_at_its_first_b0_the_right_way_up(viewer, scan_files):
    open_file(viewer, scan_files / "sub-01_dwi.nii.gz")
    assert viewer.dims.current_step[0] == 0
    assert viewer.dims.current_step[1] > 0
    assert viewer.canvas.overlays["dmri_left"].text == "R"


def test_maps_and_masks_open_in_register(viewer, scan_files):
    open_file(viewer, scan_files / "sub-01_dwi.nii.gz")
    (image,) = open_file(viewer, scan_files / "t1.nii.gz")
    (mask,) = open_file(viewer, scan_files / "brain_mask.nii.gz")
    assert isinstance(image, Image)
    assert isinstance(mask, Labels)
    assert kind_of(mask) == "mask"
    for layer in (image, mask):
        assert layer.data.shape == (12, 16, 14)
        assert np.allclose(layer.extent.world, viewer.layers[0].extent.world[:, 1:])
    assert viewer.layers.extent.units is not None


def test_an_oblique_permuted_image_lies_where_it_should(viewer, tmp_path):
    import nibabel as nib

    turn, _ = np.linalg.qr(np.array([[0.1, 0.05, 1.0], [1.0, 0.1, 0.0], [0.0, -1.0, 0.1]]))
    affine = np.eye(4)
    affine[:3, :3] = turn * [2, 3, 4]
    affine[:3, 3] = (10, -20, 30)
    data = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "turned.nii.gz")
    (layer,) = open_file(viewer, tmp_path / "turned.nii.gz")
    assert (layer.scale > 0).all()
    centre = affine @ [2, 2.5, 3, 1]
    assert np.allclose(layer.extent.world.mean(0)[::-1], centre[:3], atol=1e-3)
    viewer.dims.ndisplay = 3
    viewer.layers.clear()


def test_streamlines_open_as_tracks(viewer, tmp_path, scan_files):
    from nibabel.streamlines import Tractogram, save

    lines = [np.array([[0, 0, 0], [5, 0, 0], [10, 1, 0.0]]), np.array([[1, 2, 3], [1, 2, 9.0]])]
    save(Tractogram(lines, affine_to_rasmm=np.eye(4)), str(tmp_path / "fibres.tck"))
    open_file(viewer, scan_files / "sub-01_dwi.nii.gz")
    (layer,) = open_file(viewer, tmp_path / "fibres.tck")
    assert isinstance(layer, Tracks)
    assert np.allclose(layer.data[layer.data[:, 0] == 1][:, 2:], [[3, 2, 1], [9, 2, 1]])
    assert layer.name == "fibres"
    red = layer.track_colors[0]
    assert red[0] > 0.95 and max(red[1:3]) < 0.3
    assert viewer.layers.extent.units is not None


def test_a_series_without_gradients_opens_and_says_what_it_lacks(viewer, scan_files):
    told()
    (layer,) = open_file(viewer, scan_files / "bare.nii.gz")
    assert kind_of(layer) == "map"
    assert layer.data.shape[0] == 22
    (message,) = [m for m in told() if "bare" in m]
    assert "bval" in message


def test_a_dicom_folder_gets_one_sentence(viewer, tmp_path):
    told()
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
    assert get_reader(str(folder)) is not None
    assert read(str(folder)) == NOTHING
    (message,) = told()
    assert "dcm2niix" in message
    assert len(viewer.layers) == 0


def test_a_truncated_file_gets_one_sentence(viewer, scan_files):
    told()
    whole = gzip.decompress((scan_files / "sub-01_dwi.nii.gz").read_bytes())
    (scan_files / "sub-01_dwi.nii.gz").write_bytes(gzip.compress(whole[:-5000]))
    assert open_file(viewer, scan_files / "sub-01_dwi.nii.gz") == []
    (message,) = told()
    assert "bytes" in message and "Traceback" not in message


def test_other_files_and_folders_are_left_to_others(tmp_path):
    (tmp_path / "empty").mkdir()
    assert get_reader(str(tmp_path / "photo.png")) is None
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader([str(tmp_path / "a.nii"), str(tmp_path / "b.png")]) is None
