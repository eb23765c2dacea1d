from __future__ import annotations

import json
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.io import read_scan, write_scan
from napari_dmri.scan import GradientTable, Scan

FORMATS = [".nii", ".nii.gz", ".mif", ".mif.gz", ".nrrd", ".nhdr"]


@pytest.fixture
def scan(directions):
    data = np.random.default_rng(3).integers(0, 3000, (4, 5, 3, 13)).astype(np.int16)
    affine = np.diag([2.0, 2.2, 2.5, 1])
    affine[:3, 3] = (-4, 5, 6)
    table = GradientTable(np.array([0.0] + [1000.0] * 6 + [2500.0] * 6), directions)
    about = {"simulated": True, "subject": "07", "site": "ge_st", "sidecar": {"EchoTime": 0.09}}
    return Scan(data, affine, table, metadata=about)


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip_keeps_everything(tmp_path, scan, suffix):
    written = write_scan(scan, tmp_path / f"my scän{suffix}", provenance={"method": "test"})
    assert all(path.exists() for path in written)
    assert len(list(tmp_path.iterdir())) == len(written)
    again = read_scan(written[0])
    np.testing.assert_array_equal(again.data[...], scan.data)
    assert again.data.dtype == np.int16
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-6)
    np.testing.assert_allclose(again.gradients.directions, scan.gradients.directions, atol=1e-8)
    np.testing.assert_allclose(again.gradients.bvalues, scan.gradients.bvalues, rtol=1e-8)
    assert (again.simulated, again.metadata["subject"], again.metadata["site"]) == (
        True,
        "07",
        "ge_st",
    )
    assert again.metadata["sidecar"]["Provenance"] == {"method": "test"}
    assert again.metadata["sidecar"]["EchoTime"] == 0.09
    assert again.metadata["orientation"] == "RAS" and again.metadata["warnings"] == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    suffix=st.sampled_from([".nii", ".mif", ".nrrd"]),
)
def test_any_affine_keeps_directions_and_places(tmp_path_factory, scan, seed, signs, suffix):
    """The scan is written as it lies; reading brings it to canonical order, anatomy unmoved."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * signs * [1.5, 2, 2.5]
    affine[:3, 3] = (10, -20, 30)
    lying = Scan(scan.data, affine, scan.gradients)
    again = read_scan(write_scan(lying, tmp_path_factory.mktemp("x") / f"x{suffix}")[0])
    np.testing.assert_allclose(again.gradients.directions, scan.gradients.directions, atol=1e-6)
    back = np.linalg.inv(affine) @ again.affine
    i, j, k = (back @ [1, 1, 1, 1]).round().astype(int)[:3]
    np.testing.assert_allclose(back @ [1, 1, 1, 1], [i, j, k, 1], atol=1e-4)
    np.testing.assert_array_equal(again.data[1, 1, 1], scan.data[i, j, k])


def test_existing_files_are_refused_whole(tmp_path, scan):
    (tmp_path / "x.bvec").write_text("mine")
    with pytest.raises(InputError, match=r"x\.bvec exists already"):
        write_scan(scan, tmp_path / "x.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.bvec"]
    assert len(write_scan(scan, tmp_path / "x.nii.gz", overwrite=True)) == 4


@pytest.mark.parametrize("suffix", FORMATS)
def test_failure_on_the_way_leaves_nothing(tmp_path, scan, suffix):
    class Breaking:
        shape, dtype, ndim = scan.shape, np.dtype(np.int16), 4

        def __getitem__(self, key):
            if key[-1] == 7:
                raise InputError("the source is truncated")
            return scan.data[key]

    broken = Scan(Breaking(), scan.affine, scan.gradients)
    with pytest.raises(InputError, match="truncated"):
        write_scan(broken, tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_read_only_folder_and_unknown_format(tmp_path, scan, monkeypatch):
    with pytest.raises(InputError, match=r"not written as '\.txt'; choose \.nii\.gz"):
        write_scan(scan, tmp_path / "x.txt")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="read-only"):
        write_scan(scan, tmp_path / "x.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_path_with_spaces_and_other_alphabets(fsl_scan):
    scan = read_scan(fsl_scan(name="mein Scan – 脳/dwi ü.nii.gz"))
    assert scan.name == "dwi ü"
    assert scan.metadata["orientation"] == "LAS" and not scan.simulated


def test_opening_reads_no_data(fsl_scan):
    scan = read_scan(fsl_scan())
    assert scan.data._raw.unpacked == 0
    scan.volumes([0])
    assert scan.data._raw.unpacked >= 1


def test_given_gradient_files_are_used(fsl_scan, tmp_path):
    path = fsl_scan()
    for extension in (".bval", ".bvec"):
        (tmp_path / f"dwi{extension}").rename(tmp_path / f"other{extension}")
    with pytest.raises(InputError, match=r"13 volumes and no gradient table: dwi\.bval"):
        read_scan(path)
    with pytest.raises(InputError, match="bval file was given without its bvec"):
        read_scan(path, bval=tmp_path / "other.bval")
    scan = read_scan(path, bval=tmp_path / "other.bval", bvec=tmp_path / "other.bvec")
    assert len(scan.gradients) == 13


def test_bids_name_inherits_table_and_sidecar(fsl_scan, tmp_path):
    path = fsl_scan(name="sub-01/dwi/sub-01_dwi.nii.gz")
    for extension in (".bval", ".bvec"):
        (path.parent / f"sub-01_dwi{extension}").rename(tmp_path / f"dwi{extension}")
    (tmp_path / "dwi.json").write_text(json.dumps({"Simulated": True, "Site": "a"}))
    scan = read_scan(path)
    assert scan.simulated and scan.metadata["site"] == "a"
    assert scan.metadata["gradient_files"] == (
        str(tmp_path / "dwi.bval"),
        str(tmp_path / "dwi.bvec"),
    )


BVAL, BVEC = "0 " + "1000 " * 12, ("0 " + "1 " * 12 + "\n") + ("0 " * 13 + "\n") * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"bval": ""}, r"dwi\.bval is empty"),
        ({"bvec": "\n"}, r"dwi\.bvec is empty"),
        ({"bval": "0 1000"}, "13 volumes, 2 b-values .* 13 b-vectors"),
        ({"bval": BVAL.replace("1000", "1.0")}, "looks like ms/µm²"),
        ({"bval": BVAL, "bvec": BVEC.replace("1 ", "0 ")}, "12 of 12 volumes .* zero"),
        ({"bval": BVAL.replace("1000", "-5", 1), "bvec": BVEC}, "1 of 13 b-values are negative"),
        ({"bval": BVAL, "bvec": BVEC.replace("1", "nan")}, "12 of 12 volumes .*non-finite"),
        ({"bval": "a b c"}, "'a' is not a number"),
    ],
)
def test_unusable_gradient_files(fsl_scan, files, words):
    with pytest.raises(InputError, match=words):
        read_scan(fsl_scan(**files))


def test_missing_vectors(fsl_scan, tmp_path):
    path = fsl_scan()
    (tmp_path / "dwi.bvec").unlink()
    with pytest.raises(InputError, match=r"dwi\.bval is there but its bvec file is not"):
        read_scan(path)


def test_warnings_are_kept_with_the_scan(fsl_scan):
    with pytest.warns(DmriWarning, match="12 of 12 b-vectors are not of unit length"):
        scan = read_scan(fsl_scan(bval=BVAL, bvec=BVEC.replace("1", "1.05")))
    assert "normalised" in scan.metadata["warnings"][0]
    scan = read_scan(fsl_scan(bval=BVAL.replace("0 ", "900 ", 1), bvec=BVEC.replace("0 1", "1 1")))
    assert "No b0 volume" in scan.metadata["warnings"][0]
    with pytest.raises(InputError, match="no b0 volume"):
        scan.mean_b0()


def test_3d_one_volume_nan_and_zeros(fsl_scan):
    with pytest.raises(InputError, match=r"is 3D \(4, 5, 3\); a scan is 4D"):
        read_scan(fsl_scan(data=np.ones((4, 5, 3), np.float32)))
    one = fsl_scan(data=np.ones((4, 5, 3, 1), np.float32), bval="0", bvec="0\n0\n0")
    assert read_scan(one).shape == (4, 5, 3, 1)
    data = np.zeros((4, 5, 3, 13), np.float32)
    data[0, 0, 0, 3] = np.nan
    assert np.isnan(read_scan(fsl_scan(data=data)).data[..., 3]).sum() == 1


def test_missing_empty_foreign_and_dicom(tmp_path):
    for name, content, words in (
        ("none.nii", None, "does not exist"),
        ("empty.nii", b"", r"is empty \(0 bytes\)"),
        ("x.png", b"png", "of no format that is read here"),
        ("slice", b"\0" * 128 + b"DICM", "DICOM file; convert it with dcm2niix"),
        ("x.dcm", b"any", "dcm2niix"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_scan(tmp_path / name)
    with pytest.raises(InputError, match="a folder of DICOM files; convert it with dcm2niix"):
        read_scan(tmp_path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="is a folder; open an image file"):
        read_scan(tmp_path / "sub")


def test_file_without_permission_to_read(tmp_path, monkeypatch):
    path = tmp_path / "x.nii"
    path.write_bytes(b"something")
    monkeypatch.setattr(os, "access", lambda path, how: how != os.R_OK)
    with pytest.raises(InputError, match=r"x\.nii cannot be read; change its permissions"):
        read_scan(path)


def test_mask_is_read_on_request(fsl_scan, tmp_path):
    path = fsl_scan()
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[0, 1, 2] = 1
    nib.save(nib.Nifti1Image(mask, nib.load(path).affine), tmp_path / "m.nii.gz")
    scan = read_scan(path, mask=tmp_path / "m.nii.gz")
    assert np.argwhere(scan.mask).tolist() == [[3, 1, 2]]
    assert read_scan(path).mask is None


@pytest.mark.parametrize(
    ("folder", "codes", "summary"),
    [
        ("siemens_trio", "LAS", "2 b0 + 40 at b=1000"),
        ("philips_achieva_crop", "LAS", "1 b0 + 32 at b=1000"),
        ("siemens_sagittal", "PSL", "1 b0 + 20 at b=2000"),
    ],
)
def test_real_scans_open_as_nibabel_sees_them(real_data, folder, codes, summary):
    path = real_data / folder / "dwi.nii.gz"
    scan = read_scan(path)
    assert scan.metadata["orientation"] == codes and scan.gradients.summary() == summary
    expected = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_allclose(scan.affine, expected.affine)
    np.testing.assert_array_equal(scan.data[..., 1], expected.dataobj[..., 1])


def test_reading_a_whole_brain_keeps_memory_low(real_data):
    scan = read_scan(real_data / "siemens_trio" / "dwi.nii.gz")
    tracemalloc.start()
    try:
        everything = scan.volumes()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * everything.nbytes
