"""SH images in files: coefficients in the last axis, the basis named in the JSON sidecar.

Sidecar keys follow the BIDS derivatives of diffusion models where they exist
(``SphericalHarmonicBasis``, ``SphericalHarmonicDegree``).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ShImage
from napari_dmri.io.atomic import full_suffix, stem_of
from napari_dmri.io.bids import read_sidecar
from napari_dmri.io.maps import write_array
from napari_dmri.io.opened import open_image
from napari_dmri.sphere.harmonics import BASES, convert_basis, order_of

__all__ = ["basis_name", "read_sh", "write_sh"]

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
    if basis is None:
        basis = sidecar.get("SphericalHarmonicBasis")
    if basis is None:
        basis = "tournier07"
        if ".nii" in full_suffix(path):
            warnings.warn(
                f"{image.path.name} does not say its SH basis; tournier07 (MRtrix3) is assumed: "
                "name another (basis=) if it is not.",
                DmriWarning,
                stacklevel=2,
            )
    stored = np.asarray(image.read(), dtype=np.float32)
    coefficients = convert_basis(stored, basis_name(str(basis)))
    bad = ~np.isfinite(coefficients).all(-1)
    if bad.any():
        warnings.warn(
            f"{image.path.name}: {int(bad.sum())} of {bad.size} voxels hold values that are not "
            "finite; they are set to zero and masked out.",
            DmriWarning,
            stacklevel=2,
        )
        coefficients[bad] = 0
    inside = (coefficients != 0).any(-1)
    bvalue = sidecar.get("BValue")
    return ShImage(
        coefficients,
        image.affine,
        mask=None if inside.all() else inside,
        bvalue=None if bvalue is None else float(bvalue),
        normalised=bool(sidecar.get("Normalised", True)),
        name=str(sidecar.get("Name", stem_of(image.path))),
        provenance=dict(sidecar.get("Provenance") or {}),
    )


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
