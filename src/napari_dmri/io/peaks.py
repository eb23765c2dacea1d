"""Peaks in files: MRtrix3's peak images, and DIPY's PAM5.

A peak image is 4D with volumes x, y, z of the first peak, x, y, z of the second ...: vectors in
the scanner's RAS frame as long as the amplitude, zero where there is no peak (MRtrix3 itself
writes NaN; both are read). A PAM5 file is HDF5; DIPY tracks in voxel axes, so its directions are
turned into them and back.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.images import PeakImage
from napari_dmri.io.atomic import atomic_path, full_suffix, stem_of
from napari_dmri.io.bids import read_sidecar
from napari_dmri.io.maps import write_array
from napari_dmri.io.opened import open_image

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_peaks", "write_peaks"]

IMAGES = (".nii", ".nii.gz", ".mif", ".mif.gz")
BLOCK = 20000
"""Voxels whose peaks are matched with DIPY's sphere at once."""

TOTAL_WEIGHT, ANGLE = 0.5, 60.0
"""Tracking settings that a PAM5 file must hold; DIPY's own defaults."""

Array = NDArray[Any]


def write_peaks(
    peaks: PeakImage,
    path: str | Path,
    *,
    coefficients: Array | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write peaks, and how they were made into a JSON sidecar (not with PAM5).

    Parameters
    ----------
    peaks
        What to write.
    path
        ``.nii``, ``.nii.gz``, ``.mif`` or ``.mif.gz`` for an MRtrix3 peak image, ``.pam5`` for
        DIPY.
    coefficients
        The SH coefficients that they are of (X, Y, Z, C), kept in a PAM5 file.
    overwrite
        Replace existing files.

    Raises
    ------
    InputError
        If the format is not known, h5py is missing for PAM5, a target exists, or the folder
        cannot be written to.
    """
    path = Path(path).expanduser()
    suffix = full_suffix(path)
    if suffix.lower() == ".pam5":
        return [_write_pam(peaks, path, coefficients, overwrite)]
    if suffix not in IMAGES:
        raise InputError(
            f"Peaks are not written as {suffix or path.name!r}; choose .nii.gz, .nii, .mif.gz or "
            ".mif (MRtrix3), or .pam5 (DIPY)."
        )
    vectors = peaks.directions * peaks.amplitudes[..., None]
    about = {
        "Name": peaks.name,
        "PeaksPerVoxel": peaks.shape[3],
        "ReferenceFrame": "scanner RAS",
        "Provenance": dict(peaks.provenance),
    }
    data = vectors.reshape(*peaks.shape[:3], -1).astype(np.float32, copy=False)
    return write_array(path, data, peaks.affine, about, overwrite=overwrite)


def read_peaks(path: str | Path) -> PeakImage:
    """Read an MRtrix3 peak image or a PAM5 file, each voxel's largest peak first.

    Voxels and vectors that are NaN or zero are no peaks.

    Raises
    ------
    InputError
        If the file cannot be used, or its volumes are not vectors.
    """
    path = Path(path).expanduser()
    if full_suffix(path).lower() == ".pam5":
        return _read_pam(path)
    image = open_image(path)
    volumes = image.data.shape[3] if image.ndim == 4 else 0
    if volumes == 0 or volumes % 3:
        raise InputError(
            f"{image.path.name} has {volumes or 'no'} volumes; a peak image has three for each "
            "peak (x, y, z): write it with 'napari-dmri peaks' or sh2peaks."
        )
    sidecar = read_sidecar(image.path)
    vectors = np.asarray(image.read(), dtype=np.float32)
    vectors = vectors.reshape(*vectors.shape[:3], volumes // 3, 3)
    name = str(sidecar.get("Name", stem_of(image.path)))
    return _from_vectors(vectors, image.affine, name, sidecar.get("Provenance") or {})


def _from_vectors(vectors: Array, affine: Array, name: str, made: Mapping[str, Any]) -> PeakImage:
    amplitudes = np.linalg.norm(vectors, axis=-1)
    there = np.isfinite(amplitudes) & (amplitudes > 0)
    amplitudes = np.where(there, amplitudes, 0).astype(np.float32)
    directions = np.zeros(vectors.shape, np.float32)
    np.divide(vectors, amplitudes[..., None], out=directions, where=there[..., None])
    order = np.argsort(-amplitudes, axis=-1, kind="stable")
    amplitudes = np.take_along_axis(amplitudes, order, -1)
    directions = np.take_along_axis(directions, order[..., None], -2)
    return PeakImage(directions, amplitudes, affine, name=name, provenance=made)


def _axes(affine: Array) -> NDArray[np.float64]:
    """Return the rotation from voxel axes to the scanner's."""
    from scipy.linalg import polar

    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    rotation: NDArray[np.float64] = polar(columns)[0]
    return rotation


def _require_h5py(path: Path) -> None:
    if find_spec("h5py") is None:
        raise InputError(
            f"{path.name}: PAM5 files need the package h5py, which is not installed; install it "
            "(pip install h5py), or use .nii.gz."
        )


def _write_pam(peaks: PeakImage, path: Path, coefficients: Array | None, overwrite: bool) -> Path:
    _require_h5py(path)
    from dipy.data import get_sphere
    from dipy.direction.peaks import PeaksAndMetrics
    from dipy.io.peaks import save_pam

    sphere = get_sphere(name="repulsion724")
    pam = PeaksAndMetrics()
    pam.affine = np.asarray(peaks.affine, np.float64)
    pam.peak_dirs = (peaks.directions @ _axes(peaks.affine)).astype(np.float32)
    pam.peak_values = peaks.amplitudes
    pam.peak_indices = _nearest(pam.peak_dirs, peaks.amplitudes, sphere.vertices)
    pam.sphere = sphere
    pam.B = pam.gfa = pam.qa = pam.odf = None
    pam.shm_coeff = coefficients
    pam.total_weight, pam.ang_thr = TOTAL_WEIGHT, ANGLE
    with atomic_path(path, overwrite) as temporary:
        save_pam(str(temporary), pam)
    return path


def _nearest(directions: Array, amplitudes: Array, vertices: Array) -> NDArray[np.int32]:
    """Return the vertex nearest to each peak, -1 where there is none."""
    flat = directions.reshape(-1, 3)
    found = np.full(len(flat), -1, np.int32)
    own = np.flatnonzero(amplitudes.reshape(-1) > 0)
    for start in range(0, len(own), BLOCK):
        part = own[start : start + BLOCK]
        found[part] = (flat[part] @ vertices.T.astype(np.float32)).argmax(1)
    return found.reshape(amplitudes.shape)


def _read_pam(path: Path) -> PeakImage:
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    _require_h5py(path)
    from dipy.io.peaks import load_pam

    try:
        pam = load_pam(str(path))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path.name} is not a PAM5 file that can be read: {error}") from error
    affine = np.eye(4) if pam.affine is None else np.asarray(pam.affine, np.float64)
    vectors = pam.peak_dirs @ _axes(affine).T * np.asarray(pam.peak_values)[..., None]
    return _from_vectors(vectors.astype(np.float32), affine, stem_of(path), {})
