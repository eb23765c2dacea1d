from __future__ import annotations

import json

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.io.bids import entities, find_gradients, read_sidecar, reoriented_sidecar


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_entities():
    assert entities("sub-01_acq-b1000_dwi.nii.gz") == ({"sub": "01", "acq": "b1000"}, "dwi")


def test_inheritance_takes_the_nearest_that_applies(tmp_path):
    touch(tmp_path / "dataset_description.json", "{}")
    image = touch(tmp_path / "sub-01" / "dwi" / "sub-01_acq-a_dwi.nii.gz")
    root = [touch(tmp_path / f"dwi{e}") for e in (".bval", ".bvec")]
    assert find_gradients(image) == (root[0], root[1])
    touch(tmp_path / "acq-b_dwi.bval")
    touch(tmp_path / "sub-01" / "dwi" / "sub-01_acq-a_T1w.bval")
    acquisition = [touch(tmp_path / f"acq-a_dwi{e}") for e in (".bval", ".bvec")]
    assert find_gradients(image) == (acquisition[0], acquisition[1])
    own = [touch(image.parent / f"sub-01_acq-a_dwi{e}") for e in (".bval", ".bvec")]
    assert find_gradients(image) == (own[0], own[1])


def test_inheritance_stops_at_the_root_of_the_data_set(tmp_path):
    for extension in (".bval", ".bvec"):
        touch(tmp_path / f"dwi{extension}")
    image = touch(tmp_path / "set" / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    touch(tmp_path / "set" / "dataset_description.json", "{}")
    assert find_gradients(image) is None


def test_sidecars_are_merged_nearest_last(tmp_path):
    touch(tmp_path / "dwi.json", json.dumps({"EchoTime": 0.1, "Site": "far"}))
    image = touch(tmp_path / "sub-01" / "sub-01_dwi.nii.gz")
    touch(tmp_path / "sub-01" / "sub-01_dwi.json", json.dumps({"Site": "near"}))
    assert read_sidecar(image) == {"EchoTime": 0.1, "Site": "near"}


@pytest.mark.parametrize(
    "names", [("dwi.bval", "dwi.bvec"), ("dwi.bvals", "dwi.bvecs"), ("bvals", "bvecs")]
)
def test_names_beside_the_image(tmp_path, names):
    found = tuple(touch(tmp_path / n) for n in names)
    assert find_gradients(tmp_path / "dwi.nii.gz") == found


def test_one_of_two_is_refused(tmp_path):
    touch(tmp_path / "dwi.bval")
    with pytest.raises(InputError, match=r"dwi\.bval is there but its bvec file is not"):
        find_gradients(tmp_path / "dwi.nii.gz")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_bad_json_is_refused(tmp_path, text):
    touch(tmp_path / "dwi.json", text)
    with pytest.raises(InputError, match="JSON"):
        read_sidecar(tmp_path / "dwi.nii.gz")


def test_axis_directions_follow_the_reorientation():
    affine = np.array([[0, 0, -2.0, 0], [-2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    sidecar = {"PhaseEncodingDirection": "i-", "SliceTiming": [0, 1], "EchoTime": 0.1}
    turned = reoriented_sidecar(sidecar, affine)
    assert turned["PhaseEncodingDirection"] == "j"
    assert turned["SliceEncodingDirection"] == "i-"
    assert turned["EchoTime"] == 0.1
