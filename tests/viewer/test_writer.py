"""Layers saved by napari are the files that other programs expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_dmri.images import ScalarImage
from napari_dmri.io import read_labels, read_map, read_scan
from napari_dmri.viewer.layers import labels_layer, map_layer, rgb_layer, scan_layer
from napari_dmri.viewer.writer import affine_of

pytestmark = pytest.mark.viewer

OBLIQUE = np.array([[2, 0.1, 0, 5], [-0.1, 2, 0.2, -7], [0, -0.2, 2.5, 11], [0, 0, 0, 1.0]])


def test_scans_maps_colours_and_labels_come_back(viewer, small_scan, tmp_path):
    scan = replace(small_scan, affine=OBLIQUE)
    b0 = np.asarray(scan.data[..., 0])
    viewer.add_image(scan_layer(scan)[0], **scan_layer(scan)[1])
    data, kwargs, _ = map_layer(ScalarImage(b0, OBLIQUE, "b0"))
    viewer.add_image(data, **kwargs)
    data, kwargs, _ = labels_layer(ScalarImage(b0 > 300, OBLIQUE, "mask"), "mask")
    viewer.add_labels(data, **kwargs)
    colours = np.random.default_rng(0).random((*b0.shape, 3)).astype(np.float32)
    data, kwargs, _ = rgb_layer(colours, OBLIQUE, "colours")
    viewer.add_image(data, **kwargs)
    names = ("scan.nii.gz", "b0.nii.gz", "mask.nii.gz", "colours.nii.gz")
    for layer, name in zip(viewer.layers, names, strict=True):
        assert layer.save(str(tmp_path / name), plugin="napari-dmri")
    again = read_scan(tmp_path / "scan.nii.gz")
    assert np.allclose(again.affine, OBLIQUE, atol=1e-4)
    assert np.allclose(again.gradients.directions, scan.gradients.directions, atol=1e-4)
    assert np.allclose(np.asarray(again.data), np.asarray(scan.data), rtol=1e-4, atol=0.5)
    assert np.allclose(read_map(tmp_path / "b0.nii.gz").data, b0)
    assert np.array_equal(np.asarray(read_labels(tmp_path / "mask.nii.gz").data) > 0, b0 > 300)
    assert np.allclose(np.asarray(read_map(tmp_path / "colours.nii.gz").data), colours)


def test_an_existing_file_is_kept_and_said_so(viewer, small_scan, tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"precious")
    layer = viewer.add_image(scan_layer(small_scan)[0], **scan_layer(small_scan)[1])
    notification_manager.records.clear()
    with pytest.warns(UserWarning, match="did not return any written paths"):
        layer.save(str(tmp_path / "scan.nii.gz"), plugin="napari-dmri")
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"precious"
    assert any("exists already" in n.message for n in notification_manager.records)


def test_a_foreign_layer_is_placed_by_its_scale():
    attributes = {"scale": (1, 4, 3, 2), "translate": (0, 30, 20, 10), "metadata": {}}
    affine = affine_of((2, 3, 4), attributes)
    assert np.allclose(np.diag(affine), (2, 3, 4, 1))
    assert np.allclose(affine[:3, 3], (10, 20, 30))
