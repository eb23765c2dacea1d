from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.io.nifti import disk_dtype, open_nifti, write_nifti

AFFINE = np.diag([2.0, 2, 2, 1])


def save(path, data, affine=AFFINE, kind=nib.Nifti1Image, **header):
    image = kind(data, affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def test_fibre_comes_out_along_itself(affine, fsl_scan, fibre_data, check_fibre):
    from napari_dmri.io import read_scan

    for name in ("dwi.nii.gz", "dwi.nii"):
        check_fibre(read_scan(fsl_scan(affine, name=name)), fibre_data, affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_scaled_integers_in_both_byte_orders(tmp_path, suffix, order, kind):
    stored = np.random.default_rng(0).integers(0, 4000, (3, 4, 5, 2)).astype(f"{order}i2")
    header = kind.header_class(endianness=order)
    header.set_data_dtype(stored.dtype)
    image = kind(stored, AFFINE, header)
    image.header.set_slope_inter(0.25, -3)
    path = tmp_path / f"x{suffix}"
    with open(path, "wb") if suffix == ".nii" else gzip.open(path, "wb") as stream:
        image.header.set_data_offset(image.header.single_vox_offset)
        image.header.write_to(stream)
        stream.write(stored.tobytes(order="F"))
    np.testing.assert_allclose(nib.load(path).get_fdata(), stored * 0.25 - 3)
    opened = open_nifti(path)
    assert opened.data.dtype == np.float32
    np.testing.assert_array_equal(opened.data[...], stored * 0.25 - 3)


def test_sform_is_preferred_then_qform_then_a_note(tmp_path):
    data, qform = np.ones((2, 2, 2), np.float32), np.diag([-3.0, 3, 3, 1])
    image = nib.Nifti1Image(data, None)
    image.set_qform(qform, 1)
    nib.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(open_nifti(tmp_path / "q.nii").original_affine, qform)
    image.set_sform(AFFINE, 1)
    nib.save(image, tmp_path / "s.nii")
    np.testing.assert_allclose(open_nifti(tmp_path / "s.nii").original_affine, AFFINE)
    assert open_nifti(tmp_path / "s.nii").notes == ()
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "n.nii")
    assert "neither sform nor qform" in open_nifti(tmp_path / "n.nii").notes[0]


def test_wrong_names_and_magic(tmp_path):
    path = save(tmp_path / "x.nii", np.ones((2, 2, 2), np.float32))
    packed = tmp_path / "y.nii.gz"
    packed.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="is not gzip-compressed, against its name"):
        open_nifti(packed)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="is gzip-compressed, against its name"):
        open_nifti(path)
    path.write_bytes(b"hello" * 200)
    with pytest.raises(InputError, match="not a NIfTI file"):
        open_nifti(path)
    packed.write_bytes(gzip.compress(b"hello" * 200)[:15])
    with pytest.raises(InputError, match=r"header cannot be unpacked|not a NIfTI"):
        open_nifti(packed)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_files(tmp_path, suffix):
    data = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
    path = save(tmp_path / f"x{suffix}", data)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"truncated.*promises 6496 .*bytes and it holds \d+"):
        open_nifti(path)


def test_complex_and_colour_are_refused(tmp_path):
    with pytest.raises(InputError, match="complex"):
        open_nifti(save(tmp_path / "c.nii", np.ones((2, 2, 2), np.complex64)))
    rgb = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="RGB"):
        open_nifti(save(tmp_path / "r.nii", rgb))


def corrupt_affine(tmp_path, change):
    path = save(tmp_path / "x.nii", np.ones((2, 2, 2), np.float32))
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content, nib.Nifti1Header.template_dtype, count=1)
    change(header)
    path.write_bytes(content)
    return path


def test_unusable_affines(tmp_path):
    def nan(header):
        header["srow_x"][0, 1] = np.nan

    def zero(header):
        header["srow_z"][0, 2] = 0

    def no_size(header):
        header["pixdim"][0, 2] = 0
        header["sform_code"] = 0

    for change, words in (
        (nan, "1 of 16 numbers of the affine are not finite"),
        (zero, "voxel size is 2 x 2 x 0 mm"),
        (no_size, "voxel size in the header is 2 x 0 x 2 mm"),
    ):
        with pytest.raises(InputError, match=words):
            open_nifti(corrupt_affine(tmp_path, change))


def test_axes_that_are_parallel_are_singular(tmp_path):
    def parallel(header):
        header["srow_x"][0, :3] = (2, 2, 0)
        header["srow_y"][0, :3] = (2, 2, 0)

    with pytest.raises(InputError, match=r"singular \(determinant 0\)"):
        open_nifti(corrupt_affine(tmp_path, parallel))


def test_shapes(tmp_path):
    ones = np.ones((2, 3, 4, 1, 1), np.float32)
    assert open_nifti(save(tmp_path / "a.nii", ones[..., 0])).ndim == 4
    assert open_nifti(save(tmp_path / "b.nii", ones[..., 0, 0])).data.shape == (2, 3, 4, 1)
    for bad in (ones[:, :, 0, 0, 0], np.ones((2, 3, 4, 1, 3), np.float32)):
        with pytest.raises(InputError, match=r"3D image .* or 4D scan"):
            open_nifti(save(tmp_path / "c.nii", bad))


def test_written_files_are_what_nibabel_reads(tmp_path, affine):
    for dtype in (np.int16, np.uint8, np.float32, bool, np.float64, np.int64):
        data = np.arange(24).reshape(2, 3, 4).astype(dtype)
        write_nifti(tmp_path / "x.nii.gz", data, affine)
        image = nib.load(tmp_path / "x.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), data)
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
        assert image.get_data_dtype() == disk_dtype(np.dtype(dtype))
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)


def test_same_content_same_bytes_and_no_overflow(tmp_path):
    data = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, data, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with pytest.raises(InputError, match="do not fit into int32"):
        write_nifti(tmp_path / "c.nii", data << 40, AFFINE)
    with pytest.raises(InputError, match="cannot be written"):
        write_nifti(tmp_path / "c.nii", data.astype(complex), AFFINE)
