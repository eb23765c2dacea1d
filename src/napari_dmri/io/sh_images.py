"""SH images in files: coefficients in the last axis, the basis named in the JSON sidecar.

Sidecar keys follow the BIDS derivatives of diffusion models where they exist
(``SphericalHarmonicBasis``, ``SphericalHarmonicDegree``).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.device import require_memory
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ShImage
from napari_dmri.io.atomic import full_suffix, stem_of
from napari_dmri.io.bids import read_sidecar
from napari_dmri.io.maps import write_array
from napari_dmri.io.opened import open_image
from napari_dmri.sphere.harmonics import BASES, convert_basis, order_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_dmri.io.volumes import LazyVolumes

__all__ = ["ShFile", "basis_name", "open_sh", "read_sh", "write_sh"]

_ALIASES = {
    "mrtrix3": "tournier07",
    "mrtrix": "tournier07",
    "tournier": "tournier07",
    "descoteaux": "descoteaux07_legacy",
}


def basis_name(word: str) -> str:
    """Return the name of a basis for any of its spellings.

    Raises
    ------
    InputError
        If it is not known.
    """
    name = _ALIASES.get(word.strip().lower(), word.strip().lower())
    if name not in BASES:
        raise InputError(
            f"The SH basis {word!r} is not known; choose one of {', '.join(BASES)}, mrtrix3."
        )
    return name


@dataclass(frozen=True, eq=False)
class ShFile:
    """Hold an SH file that was opened, of which only the header was read.

    Parameters
    ----------
    path
        The file.
    coefficients
        Lazy array (X, Y, Z, C), as stored, in closest-canonical order.
    basis
        The basis that they are stored in.
    named
        Whether the file, its format or the caller says the basis; otherwise it is assumed.
    affine
        Voxel indices to scanner RAS millimetres (4, 4).
    bvalue, normalised, name, provenance
        As in `napari_dmri.images.ShImage`.
    """

    path: Path
    coefficients: LazyVolumes
    basis: str
    named: bool
    affine: NDArray[np.float64]
    bvalue: float | None = None
    normalised: bool = True
    name: str = "SH"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ShFile({self.path.name!r}, {self.shape[:3]}, order {self.order}, {self.basis})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z, C)."""
        return self.coefficients.shape

    @property
    def order(self) -> int:
        """The maximum degree L."""
        return order_of(self.coefficients.shape[3])

    def remark(self) -> str:
        """Say that the basis is assumed; nothing where it is known."""
        if self.named:
            return ""
        return (
            f"{self.path.name} does not say its SH basis; {self.basis} (MRtrix3) is assumed: "
            "name another (basis=) if it is not."
        )

    def read(self, basis: str | None = None) -> ShImage:
        """Read everything and convert it to the internal basis.

        Voxels with values that are not finite are set to zero, masked out, and counted in a
        `DmriWarning`.

        Parameters
        ----------
        basis
            The basis that it is stored in, where that is not ``self.basis``.

        Raises
        ------
        InputError
            If it does not fit into free memory, or the basis is not known.
        """
        size = 4 * self.coefficients.size
        require_memory(2 * size, f"Reading {self.path.name}", "crop it or close other programs.")
        stored = np.asarray(self.coefficients[...], dtype=np.float32)
        coefficients = convert_basis(stored, basis_name(basis or self.basis))
        bad = np.asarray(~np.isfinite(coefficients).all(-1), dtype=bool)
        if bad.any():
            warnings.warn(
                f"{self.path.name}: {int(bad.sum())} of {bad.size} voxels hold values that are "
                "not finite; they are set to zero and masked out.",
                DmriWarning,
                stacklevel=2,
            )
            coefficients = np.where(bad[..., None], np.float32(0), coefficients)
        inside = (coefficients != 0).any(-1)
        return ShImage(
            coefficients,
            self.affine,
            mask=None if inside.all() else inside,
            bvalue=self.bvalue,
            normalised=self.normalised,
            name=self.name,
            provenance=self.provenance,
        )


def open_sh(path: str | Path, *, basis: str | None = None) -> ShFile:
    """Open an SH file: its header and sidecar are read, its coefficients when they are asked for.

    Parameters
    ----------
    path
        4D ``.nii``, ``.nii.gz``, ``.mif`` or ``.mif.gz``; one volume a coefficient. Uncompressed
        files are memory-mapped; compressed ones are unpacked into memory, once, on the first
        access.
    basis
        The basis in the file; if None, as the sidecar says, otherwise MRtrix3's (tournier07).

    Raises
    ------
    InputError
        If the file cannot be used, is not 4D, or its volumes are not a set of even coefficients.
    """
    image = open_image(path)
    if image.ndim != 4:
        raise InputError(
            f"{image.path.name} is 3D {image.data.shape[:3]}; an SH image is 4D "
            "(x, y, z, coefficient)."
        )
    try:
        order_of(image.data.shape[3])
    except InputError as error:
        raise InputError(f"{image.path.name}: {error}") from error
    sidecar = read_sidecar(image.path)
    told = basis if basis is not None else sidecar.get("SphericalHarmonicBasis")
    bvalue = sidecar.get("BValue")
    return ShFile(
        image.path,
        image.data,
        basis_name(str(told)) if told is not None else "tournier07",
        named=told is not None or ".nii" not in full_suffix(path),
        affine=image.affine,
        bvalue=None if bvalue is None else float(bvalue),
        normalised=bool(sidecar.get("Normalised", True)),
        name=str(sidecar.get("Name", stem_of(image.path))),
        provenance=dict(sidecar.get("Provenance") or {}),
    )


def read_sh(path: str | Path, *, basis: str | None = None) -> ShImage:
    """Read SH coefficients and convert them to the internal basis.

    Parameters
    ----------
    path
        4D ``.nii``, ``.nii.gz``, ``.mif`` or ``.mif.gz``; one volume a coefficient.
    basis
        The basis in the file; if None, as the sidecar says, otherwise MRtrix3's (tournier07),
        with a `DmriWarning` where the file is NIfTI.

    Raises
    ------
    InputError
        If the file cannot be used, is not 4D, or its volumes are not a set of even coefficients.
    """
    opened = open_sh(path, basis=basis)
    if not opened.named:
        warnings.warn(opened.remark(), DmriWarning, stacklevel=2)
    return opened.read()


def write_sh(
    image: ShImage, path: str | Path, *, basis: str = "tournier07", overwrite: bool = False
) -> list[Path]:
    """Write SH coefficients in a basis, named in the JSON sidecar.

    Parameters
    ----------
    image
        What to write.
    path
        ``.nii``, ``.nii.gz``, or ``.mif``, ``.mif.gz`` (these in MRtrix3's basis only).
    basis
        One of `napari_dmri.sphere.harmonics.BASES`, or ``mrtrix3``.
    overwrite
        Replace existing files.

    Returns
    -------
    The image and its sidecar.

    Raises
    ------
    InputError
        If basis or format are not known, a target exists, or the folder cannot be written to.
    """
    path = Path(path).expanduser()
    basis = basis_name(basis)
    if ".mif" in full_suffix(path) and basis != "tournier07":
        raise InputError(
            f"A .mif file holds MRtrix3's basis (tournier07), not {basis}; write .nii.gz instead."
        )
    about: dict[str, Any] = {
        "Name": image.name,
        "SphericalHarmonicBasis": basis,
        "SphericalHarmonicDegree": image.order,
        "Normalised": image.normalised,
        "Provenance": dict(image.provenance),
    }
    if image.bvalue is not None:
        about["BValue"] = image.bvalue
    coefficients = convert_basis(image.coefficients, "tournier07", basis)
    return write_array(path, coefficients, np.asarray(image.affine), about, overwrite=overwrite)
