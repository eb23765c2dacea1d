from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.streamlines import Tractogram, save

from napari_dmri.errors import InputError
from napari_dmri.io import read_streamlines

AFFINE = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1]])
LINES = [np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([[0.0, 0, 0], [1, 1, 1], [-2, 2, 9]])]


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "ref.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 20), np.uint8), AFFINE), path)
    return path


def write(path, reference):
    if path.suffix == ".trx":
        from dipy.io.stateful_tractogram import Space, StatefulTractogram
        from dipy.io.streamline import save_tractogram

        made = StatefulTractogram(LINES, str(reference), Space.RASMM)
        save_tractogram(made, str(path), bbox_valid_check=False)
        return
    header = {"voxel_to_rasmm": AFFINE, "voxel_sizes": (2, 2, 2.5), "dimensions": (40, 40, 20)}
    header["voxel_order"] = "LAS"
    save(Tractogram(LINES, affine_to_rasmm=np.eye(4)), str(path), header=header)


@pytest.mark.parametrize("suffix", [".tck", ".trk", ".trx"])
def test_points_come_in_scanner_millimetres(tmp_path, reference, suffix):
    write(tmp_path / f"x{suffix}", reference)
    lines = read_streamlines(tmp_path / f"x{suffix}")
    assert len(lines) == 2
    for line, expected in zip(lines, LINES, strict=True):
        assert line.dtype == np.float32
        np.testing.assert_allclose(line, expected, atol=1e-3)


@pytest.mark.parametrize("suffix", [".tck", ".trk", ".trx"])
def test_damaged_files(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_bytes(b"not streamlines")
    with pytest.raises(InputError, match=f"cannot be read as {suffix}"):
        read_streamlines(tmp_path / f"x{suffix}")


def test_other_missing_and_none(tmp_path):
    (tmp_path / "x.vtk").write_bytes(b"x")
    with pytest.raises(InputError, match="not a streamline file"):
        read_streamlines(tmp_path / "x.vtk")
    with pytest.raises(InputError, match="does not exist"):
        read_streamlines(tmp_path / "x.tck")
    save(Tractogram([], affine_to_rasmm=np.eye(4)), str(tmp_path / "e.tck"))
    with pytest.raises(InputError, match="no streamline"):
        read_streamlines(tmp_path / "e.tck")
