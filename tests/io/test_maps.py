from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage
from napari_dmri.io import read_labels, read_map, read_mask, write_map

LAS = np.diag([-2.0, 2, 2, 1])
RAS = np.array([[2.0, 0, 0, -6], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
GRID = ScalarImage(np.zeros((4, 3, 2), np.float32), RAS)


def save(path, data, affine=LAS):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mif", ".mif.gz"])
@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 3)])
def test_round_trip(tmp_path, suffix, shape):
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = ScalarImage(data, RAS, "MD", "mm²/s", {"method": "tensor"})
    written = write_map(image, tmp_path / f"m{suffix}")
    assert [p.name for p in written] == [
        f"m{suffix}",
        "m.json" if "nii" in suffix else f"m{suffix}.json",
    ]
    again = read_map(written[0])
    np.testing.assert_array_equal(again.data, data)
    np.testing.assert_allclose(again.affine, RAS)
    assert (again.name, again.units, dict(again.provenance)) == (
        "MD",
        "mm²/s",
        {"method": "tensor"},
    )


def test_plain_map_has_no_sidecar_and_is_not_overwritten(tmp_path):
    image = ScalarImage(np.ones((2, 2, 2), bool), RAS)
    assert len(write_map(image, tmp_path / "m.nii.gz")) == 1
    with pytest.raises(InputError, match="exists already"):
        write_map(image, tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match=r"not written as '\.png'"):
        write_map(image, tmp_path / "m.png")
    with pytest.raises(InputError, match="3D or 4D"):
        write_map(ScalarImage(np.ones((2, 2)), RAS), tmp_path / "n.nii")


def test_reading_turns_to_canonical(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    image = read_map(save(tmp_path / "t1.nii.gz", data))
    np.testing.assert_array_equal(image.data, data[::-1])
    np.testing.assert_allclose(image.affine, RAS)


def test_mask_on_the_same_grid_however_it_is_stored(tmp_path):
    data = np.zeros((4, 3, 2), np.uint8)
    data[0, 1, 1] = 255
    assert np.argwhere(read_mask(save(tmp_path / "m.nii", data), GRID)).tolist() == [[3, 1, 1]]
    four = read_mask(save(tmp_path / "m4.nii", data[..., None]), GRID)
    assert four.dtype == bool and four.sum() == 1


@pytest.mark.parametrize(
    ("data", "affine", "words"),
    [
        (np.ones((4, 3, 3), np.uint8), LAS, r"another grid: 4 x 3 x 3 voxels .* 4 x 3 x 2 voxels"),
        (np.ones((4, 3, 2), np.uint8), np.diag([-2.0, 2, 2.5, 1]), r"2 x 2 x 2\.5 mm"),
        (np.ones((4, 3, 2, 2), np.uint8), LAS, r"4D \(2 volumes\)"),
        (np.zeros((4, 3, 2), np.uint8), LAS, r"is empty \(24 voxels"),
    ],
)
def test_unusable_masks(tmp_path, data, affine, words):
    with pytest.raises(InputError, match=words):
        read_mask(save(tmp_path / "m.nii.gz", data, affine), GRID)


def test_fractions_and_nan_in_a_mask_are_counted(tmp_path):
    data = np.ones((4, 3, 2), np.float32)
    data[0, 0] = (0.4, np.nan)
    with pytest.warns(DmriWarning, match=r"1 fractions \(cut at 0\.5\) and 1 values .* 24 voxels"):
        assert read_mask(save(tmp_path / "m.nii", data), GRID).sum() == 22


def test_labels(tmp_path):
    data = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    labels = read_labels(save(tmp_path / "seg.nii", data))
    assert labels.data.dtype == np.int32 and labels.data.max() == 23
    with pytest.raises(InputError, match="24 of 24 voxels are not whole"):
        read_labels(save(tmp_path / "seg.nii", data + 0.5))
    with pytest.raises(InputError, match="labels are 3D"):
        read_labels(save(tmp_path / "seg4.nii", np.ones((4, 3, 2, 2), np.uint8)))


def test_more_than_free_memory(tmp_path, monkeypatch):
    path = save(tmp_path / "x.nii", np.ones((4, 3, 2), np.float32))
    monkeypatch.setattr("napari_dmri.device.free_memory", lambda device="cpu": 50)
    with pytest.raises(InputError, match=r"needs .* GB of memory"):
        read_map(path)
