"""Small files in every format, made independently of the writers under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _rotation(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    unit = np.array(axis) / np.linalg.norm(axis)
    return Rotation.from_rotvec(np.deg2rad(degrees) * unit).as_matrix()


def _affine(linear: np.ndarray, sizes: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = linear * np.array(sizes)
    affine[:3, 3] = (-31.0, 17.5, -8.25)
    return affine


TURNED = _rotation(23, (0.3, -1.0, 0.5))
PERMUTED = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], dtype=float)
AFFINES = {
    "RAS": _affine(np.eye(3), (2, 2, 2)),
    "LAS": _affine(np.diag([-1.0, 1, 1]), (2, 2, 2.5)),
    "oblique det>0": _affine(TURNED, (2, 2.2, 2.5)),
    "oblique det<0": _affine(TURNED @ np.diag([-1.0, 1, 1]), (2, 2.2, 2.5)),
    "flipped y det<0": _affine(TURNED @ np.diag([1.0, -1, 1]), (1.5, 2, 3)),
    "permuted det>0": _affine(PERMUTED, (2.7, 2.7, 2.5)),
    "permuted oblique det<0": _affine(TURNED @ PERMUTED @ np.diag([1.0, 1, -1]), (2, 3, 2.5)),
}


@pytest.fixture(params=list(AFFINES))
def affine(request: pytest.FixtureRequest) -> np.ndarray:
    """Affines that are flipped, turned, oblique, permuted; both signs of the determinant."""
    return AFFINES[request.param]


@pytest.fixture(scope="session")
def directions() -> np.ndarray:
    """Thirteen unit vectors in scanner RAS, the first zero for the b0."""
    vectors = np.random.default_rng(5).normal(size=(13, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return vectors


BVALUES = np.array([0.0] + [1000.0] * 6 + [2500.0] * 6)
FIBRE = np.array([0.48, -0.6, 0.64])


@pytest.fixture
def fibre_data(directions: np.ndarray) -> np.ndarray:
    """A fibre along FIBRE in every voxel, each voxel with its own b0, voxel order as on disk."""
    b0 = np.arange(1, 4 * 5 * 3 + 1, dtype=float).reshape(4, 5, 3) + 100
    along = (directions @ FIBRE) ** 2
    return (b0[..., None] * np.exp(-BVALUES * (3e-4 + 1.4e-3 * along))).astype(np.float32)


def tensor_axis(signal: np.ndarray, bvalues: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The principal direction, by an ordinary least-squares fit of the log signal."""
    x, y, z = vectors.T
    quadratic = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    design = np.column_stack([np.ones(len(bvalues)), -bvalues[:, None] * quadratic])
    _, xx, yy, zz, xy, xz, yz = np.linalg.lstsq(design, np.log(signal), rcond=None)[0]
    matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return np.linalg.eigh(matrix)[1][:, -1]


@pytest.fixture(scope="session")
def check_fibre() -> Callable[..., None]:
    """Assert that a scan of `fibre_data` has its fibre and its voxels where they belong."""

    def check(scan: Any, disk: np.ndarray, affine: np.ndarray) -> None:
        data = np.asarray(scan.data)
        where = np.round(np.linalg.inv(affine) @ scan.affine, 6)
        for voxel in [(0, 0, 0), (1, 2, 1), (2, 1, 0)]:
            there = (where @ [*voxel, 1])[:3].round().astype(int)
            np.testing.assert_allclose(data[voxel], disk[tuple(there)], rtol=1e-6)
        axis = tensor_axis(data[1, 1, 1].astype(float), BVALUES, scan.gradients.directions)
        assert abs(axis @ FIBRE) > np.cos(np.deg2rad(0.05))
        np.testing.assert_allclose(scan.gradients.bvalues, BVALUES, rtol=1e-6)
        assert (np.argmax(np.abs(scan.affine[:3, :3]), axis=0) == [0, 1, 2]).all()
        assert (np.diag(scan.affine)[:3] > 0).all()

    return check


def fsl_vectors(directions: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """FSL's definition, for orthogonal axes: voxel axes, x negated when det > 0."""
    linear = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    vectors = directions @ linear
    if np.linalg.det(linear) > 0:
        vectors[:, 0] *= -1
    return vectors


@pytest.fixture
def fsl_scan(tmp_path: Path, directions: np.ndarray, fibre_data: np.ndarray) -> Callable[..., Path]:
    """Write a NIfTI with bval and bvec by nibabel and NumPy; text can be replaced."""

    def write(
        affine: np.ndarray = AFFINES["LAS"],
        data: np.ndarray = fibre_data,
        name: str = "dwi.nii.gz",
        bval: str | None = None,
        bvec: str | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine), path)
        stem = path.name.split(".nii")[0]
        if bval is None:
            bval = " ".join(f"{b:g}" for b in BVALUES)
        if bvec is None:
            vectors = fsl_vectors(directions, affine)
            bvec = "\n".join(" ".join(f"{v:.8f}" for v in row) for row in vectors.T)
        (path.parent / f"{stem}.bval").write_text(bval)
        (path.parent / f"{stem}.bvec").write_text(bvec)
        return path

    return write
