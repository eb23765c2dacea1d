"""Peak images: round trips, frames, MRtrix3's NaN, DIPY's PAM5, refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path  # noqa: TC003

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri import PeakImage, read_peaks, write_peaks
from napari_dmri.errors import InputError

SHAPE = (4, 3, 5)


def oblique() -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [12, -8, 20], degrees=True).as_matrix()
    affine[:3, :3] = turn * [2.0, 2.1, 2.5]
    affine[:3, 3] = (-10, 5, 3)
    return affine


def some_peaks(affine: np.ndarray, most: int = 3) -> PeakImage:
    rng = np.random.default_rng(0)
    u = rng.standard_normal((*SHAPE, most, 3))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    amplitudes = -np.sort(-rng.random((*SHAPE, most)), axis=-1)
    amplitudes[0] = 0
    amplitudes[1, ..., 1:] = 0
    u[amplitudes == 0] = 0
    return PeakImage(
        u.astype(np.float32),
        amplitudes.astype(np.float32),
        affine,
        name="some",
        provenance={"method": "peaks"},
    )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mif", ".mif.gz", ".pam5"])
@pytest.mark.parametrize("affine", [np.diag([2.0, 2, 2, 1]), oblique()], ids=["straight", "turned"])
def test_round_trip(tmp_path: Path, suffix: str, affine: np.ndarray) -> None:
    pytest.importorskip("h5py") if suffix == ".pam5" else None
    peaks = some_peaks(affine)
    written = write_peaks(peaks, tmp_path / f"p{suffix}")
    assert all(path.is_file() for path in written)
    again = read_peaks(tmp_path / f"p{suffix}")
    assert np.allclose(again.directions, peaks.directions, atol=1e-6)
    assert np.allclose(again.amplitudes, peaks.amplitudes, rtol=1e-6)
    assert np.allclose(again.affine, affine, atol=1e-5)
    if suffix != ".pam5":
        assert again.name == "some" and again.provenance["method"] == "peaks"


def test_volumes_are_vectors_in_scanner_axes(tmp_path: Path) -> None:
    peaks = some_peaks(oblique())
    write_peaks(peaks, tmp_path / "p.nii")
    data = nib.load(tmp_path / "p.nii").get_fdata()
    assert data.shape == (*SHAPE, 9)
    expected = peaks.directions * peaks.amplitudes[..., None]
    assert np.allclose(data.reshape(*SHAPE, 3, 3), expected, atol=1e-6)
    assert not data[0].any() and not data[1, ..., 3:].any()


def test_flipped_voxels_keep_scanner_directions(tmp_path: Path) -> None:
    peaks = some_peaks(np.diag([2.0, 2, 2, 1]))
    vectors = (peaks.directions * peaks.amplitudes[..., None]).reshape(*SHAPE, 9)
    affine = np.diag([-2.0, 2, 2, 1])
    affine[0, 3] = 2.0 * (SHAPE[0] - 1)
    nib.save(nib.Nifti1Image(vectors[::-1], affine), tmp_path / "las.nii")
    again = read_peaks(tmp_path / "las.nii")
    assert np.allclose(again.directions, peaks.directions, atol=1e-6)


def test_nan_is_no_peak_and_peaks_are_sorted(tmp_path: Path) -> None:
    vectors = np.full((1, 1, 1, 9), np.nan, np.float32)
    vectors[0, 0, 0] = [0, 0, 0.5, 2, 0, 0, np.nan, np.nan, np.nan]
    nib.save(nib.Nifti1Image(vectors, np.eye(4)), tmp_path / "p.nii")
    peaks = read_peaks(tmp_path / "p.nii")
    assert peaks.amplitudes[0, 0, 0].tolist() == [2, 0.5, 0]
    assert peaks.directions[0, 0, 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_dipy_reads_pam5(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from dipy.io.peaks import load_pam

    peaks = some_peaks(oblique())
    write_peaks(peaks, tmp_path / "p.pam5", coefficients=np.ones((*SHAPE, 45), np.float32))
    pam = load_pam(str(tmp_path / "p.pam5"))
    turn = oblique()[:3, :3] / np.linalg.norm(oblique()[:3, :3], axis=0)
    assert np.allclose(pam.peak_dirs @ turn.T, peaks.directions, atol=1e-5)
    assert np.allclose(pam.peak_values, peaks.amplitudes)
    assert pam.shm_coeff.shape == (*SHAPE, 45)
    there = peaks.amplitudes > 0
    assert (pam.peak_indices[~there] == -1).all()
    near = np.abs((pam.sphere.vertices[pam.peak_indices[there]] * pam.peak_dirs[there]).sum(-1))
    assert near.min() > np.cos(np.deg2rad(8))


def test_pam5_without_h5py_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(InputError, match="h5py"):
        write_peaks(some_peaks(np.eye(4)), tmp_path / "p.pam5")
    assert not list(tmp_path.iterdir())


def test_refusals(tmp_path: Path) -> None:
    peaks = some_peaks(np.eye(4))
    with pytest.raises(InputError, match="not written as"):
        write_peaks(peaks, tmp_path / "p.trk")
    write_peaks(peaks, tmp_path / "p.nii.gz")
    with pytest.raises(InputError, match="exists already"):
        write_peaks(peaks, tmp_path / "p.nii.gz")
    write_peaks(peaks, tmp_path / "p.nii.gz", overwrite=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 4), "f4"), np.eye(4)), tmp_path / "four.nii")
    with pytest.raises(InputError, match="4 volumes"):
        read_peaks(tmp_path / "four.nii")
    (tmp_path / "bad.pam5").write_text("no")
    with pytest.raises(InputError, match="PAM5"):
        read_peaks(tmp_path / "bad.pam5")
    with pytest.raises(InputError, match="does not exist"):
        read_peaks(tmp_path / "none.pam5")


def test_mrtrix_tracks_through_it(tmp_path: Path) -> None:
    if shutil.which("tckgen") is None:
        pytest.skip("MRtrix3's tckgen is not installed")
    from napari_dmri.io import read_streamlines

    u = np.zeros((12, 5, 5, 2, 3), np.float32)
    u[..., 0, :] = np.array([0.8, 0.6, 0])
    amplitudes = np.zeros(u.shape[:-1], np.float32)
    amplitudes[..., 0] = 0.7
    write_peaks(PeakImage(u, amplitudes, np.diag([2.0, 2, 2, 1])), tmp_path / "p.mif")
    mask = nib.Nifti1Image(np.ones(u.shape[:3], np.uint8), np.diag([2.0, 2, 2, 1]))
    nib.save(mask, tmp_path / "mask.nii")
    subprocess.run(
        ["tckgen", "-quiet", "-algorithm", "FACT", "p.mif", "out.tck", "-seed_image", "mask.nii",
         "-select", "10", "-minlength", "4", "-nthreads", "1"], cwd=tmp_path, check=True,
    )  # fmt: skip
    lines = read_streamlines(tmp_path / "out.tck")
    assert len(lines) == 10
    for line in lines:
        along = line[-1] - line[0]
        assert abs(along @ [0.8, 0.6, 0]) == pytest.approx(np.linalg.norm(along), rel=1e-3)
