"""An image file that was opened: its grid, its lazy data, and what its header says."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt2axcodes
from numpy.typing import NDArray

from napari_dmri.device import require_memory
from napari_dmri.errors import InputError
from napari_dmri.io.atomic import full_suffix
from napari_dmri.io.volumes import LazyVolumes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.io.raw_files import RawFile

__all__ = [
    "SUFFIXES",
    "OpenedImage",
    "check_affine",
    "check_dtype",
    "existing_file",
    "open_image",
    "to_canonical",
]

Array = NDArray[Any]

SUFFIXES = (".nii", ".nii.gz", ".mif", ".mif.gz", ".mih", ".nrrd", ".nhdr")
"""Image files that are read."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """Hold an opened image in closest-canonical order.

    ``data`` (X, Y, Z, N) is lazy, N = 1 for a 3D file (``spatial`` is then 3); ``affine`` belongs
    to it; ``original_affine`` and ``orientation`` (axis codes) are the file's own. ``bvalues`` and
    ``vectors`` (scanner RAS, lengths as stored) are there where the file holds a gradient table.
    """

    path: Path
    data: LazyVolumes
    ndim: int
    affine: NDArray[np.float64]
    original_affine: NDArray[np.float64]
    orientation: str
    bvalues: Array | None = None
    vectors: Array | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def read(self) -> Array:
        """Read everything: (X, Y, Z) for a 3D file, otherwise (X, Y, Z, N)."""
        require_memory(
            self.data.nbytes, f"Reading {self.path.name}", "crop it or close other programs."
        )
        return self.data[..., 0] if self.ndim == 3 else self.data[...]


def open_image(path: str | Path) -> OpenedImage:
    """Open a NIfTI, MRtrix or NRRD image: only its header is read.

    Raises
    ------
    InputError
        If there is no such file, it is of another format, or its header cannot be used.
    """
    path = existing_file(path)
    suffix = full_suffix(path)
    if suffix in (".nii", ".nii.gz"):
        from napari_dmri.io.nifti import open_nifti

        return open_nifti(path)
    if suffix in (".mif", ".mif.gz", ".mih"):
        from napari_dmri.io.mrtrix import open_mif

        return open_mif(path)
    if suffix in (".nrrd", ".nhdr"):
        from napari_dmri.io.nrrd import open_nrrd

        return open_nrrd(path)
    from napari_dmri.io.dicom import refuse_dicom

    refuse_dicom(path)
    raise InputError(
        f"{path.name} is of no format that is read here ({suffix or 'no suffix'}); expected one "
        f"of {', '.join(SUFFIXES)}: convert it first."
    )


def existing_file(path: str | Path) -> Path:
    """Return the path of a file that exists.

    Raises
    ------
    InputError
        If it is missing, empty, not readable, or a folder (of DICOM files, or any other).
    """
    path = Path(path).expanduser()
    if path.is_dir():
        from napari_dmri.io.dicom import refuse_folder

        refuse_folder(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or convert it again.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read; change its permissions, or copy it.")
    return path


def check_affine(affine: Array, name: str) -> NDArray[np.float64]:
    """Return a finite, regular affine as float64.

    Raises
    ------
    InputError
        With the offending numbers.
    """
    affine = np.array(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        count = int((~np.isfinite(affine)).sum())
        raise InputError(
            f"{name}: {count} of 16 numbers of the affine are not finite; repair the header."
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (sizes <= 0).any():
        raise InputError(
            f"{name}: the voxel size is {' x '.join(f'{s:g}' for s in sizes)} mm; each edge must "
            "be above zero: repair the header."
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-6:
        raise InputError(
            f"{name}: the affine is singular (determinant {np.linalg.det(affine[:3, :3]):g}): "
            "two of its axes are parallel; repair the header."
        )
    return affine


def check_dtype(dtype: np.dtype[Any], name: str) -> None:
    """Refuse complex and colour numbers.

    Raises
    ------
    InputError
        If the numbers are not real.
    """
    if dtype.kind not in "iufb":
        what = "complex" if dtype.kind == "c" else "colour (RGB)"
        raise InputError(
            f"{name} holds {what} numbers ({dtype}); real numbers are expected: save the "
            "magnitude, or one channel."
        )


def to_canonical(
    raw: RawFile,
    affine: Array,
    axes: Sequence[int] = (0, 1, 2, 3),
    flips: Sequence[bool] = (False, False, False, False),
    slope: float = 1.0,
    intercept: float = 0.0,
) -> tuple[LazyVolumes, NDArray[np.float64], str]:
    """Return lazy data in closest-canonical order, their affine, and the axis codes on disk.

    ``axes`` and ``flips`` bring the file's axes to the order that ``affine`` speaks of.
    """
    data = LazyVolumes(raw, axes, flips, slope, intercept)
    orientation = io_orientation(affine)
    order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    backwards = [bool(orientation[axis, 1] < 0) for axis in order]
    canonical = affine @ inv_ornt_aff(orientation, data.shape[:3])
    codes = "".join(ornt2axcodes(orientation))
    return data.reordered([*order, 3], [*backwards, False]), canonical, codes
