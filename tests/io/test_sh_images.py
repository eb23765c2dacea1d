from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ShImage
from napari_dmri.io import open_sh, read_sh, write_sh
from napari_dmri.sphere.harmonics import BASES


@pytest.fixture
def image():
    coefficients = np.random.default_rng(0).normal(size=(3, 4, 2, 15)).astype(np.float32)
    coefficients[0, 0] = 0
    mask = np.ones((3, 4, 2), bool)
    mask[0, 0] = False
    affine = np.diag([2.0, 2, 2, 1])
    return ShImage(coefficients, affine, mask, 1200.0, True, "sub-01", {"method": "sh-fit"})


@pytest.mark.parametrize("basis", [*BASES, "mrtrix3"])
def test_round_trip_in_every_basis(tmp_path, image, basis):
    written = write_sh(image, tmp_path / "a.nii.gz", basis=basis)
    again = read_sh(written[0])
    np.testing.assert_allclose(again.coefficients, image.coefficients, rtol=1e-6)
    np.testing.assert_array_equal(again.mask, image.mask)
    assert (again.bvalue, again.normalised, again.name) == (1200.0, True, "sub-01")
    assert dict(again.provenance) == {"method": "sh-fit"}


@pytest.mark.parametrize("suffix", [".nii", ".mif", ".mif.gz"])
def test_other_files(tmp_path, image, suffix):
    again = read_sh(write_sh(image, tmp_path / f"a{suffix}")[0])
    np.testing.assert_array_equal(again.coefficients, image.coefficients)


def test_file_in_another_basis_gives_dipy_s_function(tmp_path, image):
    from dipy.core.sphere import Sphere
    from dipy.reconst.shm import sh_to_sf

    from napari_dmri.sphere.harmonics import design_matrix

    path = write_sh(image, tmp_path / "a.nii.gz", basis="descoteaux07_legacy")[0]
    points = np.random.default_rng(1).normal(size=(9, 3))
    stored = np.asarray(nib.load(path).dataobj)[1, 1, 1]
    sphere = Sphere(xyz=points / np.linalg.norm(points, axis=1, keepdims=True))
    expected = sh_to_sf(stored, sphere, sh_order_max=4, basis_type="descoteaux07", legacy=True)
    ours = design_matrix(points, 4) @ read_sh(path).coefficients[1, 1, 1]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_without_a_word_mrtrix_is_assumed_and_said(tmp_path, image, recwarn):
    for suffix in (".nii.gz", ".mif"):
        for path in write_sh(image, tmp_path / f"a{suffix}", overwrite=True)[1:]:
            path.unlink()
    assert read_sh(tmp_path / "a.mif").order == 4
    assert not recwarn.list
    with pytest.warns(DmriWarning, match="tournier07"):
        read_sh(tmp_path / "a.nii.gz")
    named = read_sh(tmp_path / "a.nii.gz", basis="descoteaux07")
    assert not np.array_equal(named.coefficients, image.coefficients)


def test_reading_turns_the_voxels_but_not_the_coefficients(tmp_path, image):
    las = np.diag([-2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(image.coefficients, las), tmp_path / "a.nii.gz")
    again = read_sh(tmp_path / "a.nii.gz", basis="mrtrix3")
    np.testing.assert_array_equal(again.coefficients, image.coefficients[::-1])


def test_not_finite_voxels_are_counted_and_masked(tmp_path, image):
    broken = image.coefficients.copy()
    broken[2, 2, 1, 3] = np.nan
    path = write_sh(image.with_coefficients(broken), tmp_path / "a.nii.gz")[0]
    with pytest.warns(DmriWarning, match="1 of 24 voxels"):
        again = read_sh(path)
    assert not again.mask[2, 2, 1] and np.isfinite(again.coefficients).all()


def test_bad_input(tmp_path, image):
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)), tmp_path / "3.nii")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 14), np.float32), np.eye(4)), tmp_path / "14.nii")
    with pytest.raises(InputError, match="is 3D"):
        read_sh(tmp_path / "3.nii")
    with pytest.raises(InputError, match=r"14\.nii: 14 volumes are not a set"):
        read_sh(tmp_path / "14.nii")
    with pytest.raises(InputError, match="basis 'fourier' is not known"):
        write_sh(image, tmp_path / "a.nii.gz", basis="fourier")
    with pytest.raises(InputError, match=r"\.mif file holds MRtrix3's basis"):
        write_sh(image, tmp_path / "a.mif", basis="descoteaux07")
    path = write_sh(image, tmp_path / "a.nii.gz")[0]
    with pytest.raises(InputError, match="exists already"):
        write_sh(image, path)
    (tmp_path / "a.json").write_text(json.dumps({"SphericalHarmonicBasis": "x"}))
    with pytest.raises(InputError, match="basis 'x' is not known"):
        read_sh(path)


def test_one_image_in_two_formats_keeps_two_sidecars(tmp_path):
    rng = np.random.default_rng(0)
    image = ShImage(rng.normal(size=(2, 2, 2, 15)).astype(np.float32), np.eye(4))
    write_sh(image, tmp_path / "fod.nii.gz", basis="descoteaux07")
    write_sh(image, tmp_path / "fod.mif")
    for name in ("fod.nii.gz", "fod.mif"):
        again = read_sh(tmp_path / name)
        np.testing.assert_allclose(again.coefficients, image.coefficients, rtol=1e-6)


def test_a_conversion_without_a_sidecar_takes_the_one_of_its_stem(tmp_path):
    image = ShImage(np.ones((2, 2, 2, 15), np.float32), np.eye(4), bvalue=1200.0)
    write_sh(image, tmp_path / "fod.mif")
    (tmp_path / "fod.mif.json").rename(tmp_path / "fod.json")
    assert read_sh(tmp_path / "fod.mif").bvalue == 1200


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mif", ".mif.gz"])
def test_opening_reads_nothing_until_a_part_is_asked_for(tmp_path, suffix):
    coefficients = np.random.default_rng(0).normal(size=(4, 5, 6, 15)).astype(np.float32)
    path = tmp_path / f"fod{suffix}"
    write_sh(ShImage(coefficients, np.diag([-2.0, 2, 3, 1]), bvalue=1000.0, name="x"), path)
    opened = open_sh(path)
    assert opened.shape == (4, 5, 6, 15) and opened.order == 4 and opened.named
    assert opened.bvalue == 1000 and opened.name == "x" and "fod" in repr(opened)
    np.testing.assert_array_equal(opened.coefficients[:, :, 2], coefficients[::-1, :, 2])
    np.testing.assert_array_equal(opened.read().coefficients, read_sh(path).coefficients)
    np.testing.assert_array_equal(opened.read().affine, opened.affine)


def test_a_named_basis_is_not_remarked_on_and_an_assumed_one_is(tmp_path):
    path = tmp_path / "bare.nii"
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 6), np.float32), np.eye(4)), path)
    assert "does not say its SH basis" in open_sh(path).remark()
    assert open_sh(path, basis="descoteaux07").remark() == ""
    with pytest.raises(InputError, match="not known"):
        open_sh(path, basis="fourier")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 7), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match="7"):
        open_sh(path)
