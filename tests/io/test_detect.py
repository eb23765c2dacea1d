from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.io import classify, what_is_missing, write_sh

RNG = np.random.default_rng(0)
FLOAT4 = RNG.normal(size=(3, 3, 3, 15)).astype(np.float32)


def save(path, data):
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("wmfod.nii.gz", FLOAT4, "sh"),
        ("sub_sh.nii", FLOAT4, "sh"),
        ("wash.nii", FLOAT4, "series"),
        ("wmfod.nii", FLOAT4[..., :14], "series"),
        ("wmfod.nii", FLOAT4.astype(np.int16), "series"),
        ("bold.nii.gz", FLOAT4, "series"),
        ("T1w.nii.gz", FLOAT4[..., 0], "image"),
        ("T1w.nii.gz", FLOAT4[..., :1], "image"),
        ("T1w.nii", np.arange(125, dtype=np.int16).reshape(5, 5, 5), "image"),
        ("T1w_masked.nii", np.arange(125, dtype=np.int16).reshape(5, 5, 5), "image"),
        ("x.nii", (FLOAT4[..., 0] > 0).astype(np.uint8), "labels"),
        ("aparc+aseg.nii", np.arange(125, dtype=np.int32).reshape(5, 5, 5), "labels"),
        ("brain_mask.nii", (FLOAT4[..., 0] > 0).astype(np.float32), "labels"),
        ("brain_mask.nii", FLOAT4[..., 0], "image"),
        ("gm_probability.nii", (FLOAT4[..., 0] > 0).astype(np.float32), "image"),
    ],
)
def test_what_a_file_holds(tmp_path, name, data, expected):
    assert classify(save(tmp_path / name, data)) == expected


def test_scan_and_sh_by_sidecar(tmp_path, fsl_scan):
    assert classify(fsl_scan()) == "scan"
    assert what_is_missing(tmp_path / "dwi.nii.gz") == ""
    image = ShImage(FLOAT4, np.eye(4))
    assert classify(write_sh(image, tmp_path / "any.nii.gz")[0]) == "sh"


def test_series_says_what_it_lacks(tmp_path):
    path = save(tmp_path / "a.nii.gz", FLOAT4)
    assert "15 volumes and no gradient table" in what_is_missing(path)
    (tmp_path / "bvals").write_text("0 1000")
    (tmp_path / "bvecs").write_text("0 1\n0 0\n0 0")
    assert classify(path) == "series"
    assert "15 volumes and bvals 2 b-values" in what_is_missing(path)
    (tmp_path / "a.bval").write_text("0 1000")
    assert classify(path) == "series"
    assert "bvec file is not" in what_is_missing(path)
    (tmp_path / "a.bvec").write_text("0 1\n0 0\n0 0")
    assert classify(path) == "scan"


def test_streamlines_and_refusals(tmp_path):
    (tmp_path / "x.trk").write_bytes(b"x")
    assert classify(tmp_path / "x.trk") == "streamlines"
    (tmp_path / "x.dcm").write_bytes(b"x")
    for path, words in ((tmp_path / "x.dcm", "dcm2niix"), (tmp_path / "no.nii", "does not exist")):
        with pytest.raises(InputError, match=words):
            classify(path)
