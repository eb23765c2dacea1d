"""Maps, masks and labels: images without a gradient table, read in canonical order."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage
from napari_dmri.io.atomic import atomic_paths, full_suffix, stem_of, to_json
from napari_dmri.io.bids import read_sidecar, sidecar_path
from napari_dmri.io.opened import open_image
from napari_dmri.scan import same_grid

__all__ = ["read_labels", "read_map", "read_mask", "write_array", "write_map"]

Array = NDArray[Any]


def read_map(path: str | Path) -> ScalarImage:
    """Read a 3D image (X, Y, Z), or a 4D one (X, Y, Z, K), whole and in canonical order.

    Integers stay integers; units and provenance come from the JSON sidecar where there is one.

    Raises
    ------
    InputError
        If the file cannot be used or does not fit into memory.
    """
    image = open_image(path)
    sidecar = read_sidecar(image.path)
    data = image.read()
    if data.dtype == np.float64:
        data = data.astype(np.float32)
    return ScalarImage(
        data,
        image.affine,
        name=str(sidecar.get("Name", stem_of(image.path))),
        units=str(sidecar.get("Units", "")),
        provenance=dict(sidecar.get("Provenance") or {}),
    )


def read_labels(path: str | Path) -> ScalarImage:
    """Read a segmentation (X, Y, Z) as integers.

    Raises
    ------
    InputError
        If it is not 3D or holds numbers that are not whole.
    """
    image = read_map(path)
    data = image.data[..., 0] if image.data.ndim == 4 and image.shape[3] == 1 else image.data
    name = Path(path).name
    if data.ndim != 3:
        raise InputError(f"{name} has shape {image.shape}; labels are 3D (x, y, z).")
    if data.dtype.kind == "f":
        wrong = int((~np.isfinite(data) | (data != np.round(data))).sum())
        if wrong:
            raise InputError(
                f"{name}: {wrong} of {data.size} voxels are not whole numbers; labels are "
                "integers: open it as an image."
            )
        data = data.astype(np.int32)
    return ScalarImage(data, image.affine, image.name, provenance=image.provenance)


def read_mask(path: str | Path, like: Any) -> NDArray[np.bool_]:
    """Read a mask (X, Y, Z) for something with a shape and an affine, as bool.

    Voxels above zero are inside; a mask of fractions is cut at 0.5, with a warning.

    Raises
    ------
    InputError
        If the mask is on another grid, not 3D, or empty.
    """
    image = read_map(path)
    data = image.data[..., 0] if image.data.ndim == 4 and image.shape[3] == 1 else image.data
    name = Path(path).name
    if data.ndim != 3:
        raise InputError(
            f"The mask {name} is 4D ({data.shape[3]} volumes); a mask is 3D (x, y, z): give one "
            "volume of it."
        )
    if not same_grid(ScalarImage(data, image.affine), like):
        raise InputError(
            f"The mask {name} is on another grid: {_grid(data, image.affine)}, and the scan "
            f"{_grid(like, like.affine)}; resample the mask to the scan, or make a new one."
        )
    cut = 0.0
    if data.dtype.kind == "f":
        fractions = int(((data > 0) & (data < 1)).sum())
        bad = int((~np.isfinite(data)).sum())
        if fractions:
            cut = 0.5
        if fractions or bad:
            warnings.warn(
                f"The mask {name} has {fractions} fractions (cut at 0.5) and {bad} values that "
                f"are not finite (left out) in {data.size} voxels.",
                DmriWarning,
                stacklevel=2,
            )
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    inside: NDArray[np.bool_] = data > cut
    if not inside.any():
        raise InputError(
            f"The mask {name} is empty ({data.size} voxels, none above {cut:g}); "
            "make or draw a new one."
        )
    return np.ascontiguousarray(inside)


def _grid(data: Any, affine: Array) -> str:
    sizes = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    shape = " x ".join(str(n) for n in data.shape[:3])
    origin = ", ".join(f"{v:.1f}" for v in np.asarray(affine)[:3, 3])
    return f"{shape} voxels of {' x '.join(f'{s:.3g}' for s in sizes)} mm from ({origin}) mm"


def write_map(image: ScalarImage, path: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write a map, mask or labels; units and provenance go to a JSON sidecar where there are any.

    Parameters
    ----------
    image
        Floating-point data are written as float32, bool as uint8.
    path
        ``.nii``, ``.nii.gz``, ``.mif`` or ``.mif.gz``.
    overwrite
        Replace existing files.

    Raises
    ------
    InputError
        If the format is not known, a target exists, or the folder cannot be written to.
    """
    path = Path(path).expanduser()
    about: dict[str, Any] = {}
    if image.units or image.provenance:
        about = {"Name": image.name, "Units": image.units, "Provenance": dict(image.provenance)}
    return write_array(path, image.data, image.affine, about, overwrite=overwrite)


def write_array(
    path: Path, data: Any, affine: Array, about: dict[str, Any], *, overwrite: bool = False
) -> list[Path]:
    """Write an array without a gradient table, and a JSON sidecar unless ``about`` is empty.

    Raises
    ------
    InputError
        As for `write_map`.
    """
    suffix = full_suffix(path)
    if suffix not in (".nii", ".nii.gz", ".mif", ".mif.gz"):
        raise InputError(
            f"Maps are not written as {suffix or path.name!r}; choose .nii.gz, .nii, .mif.gz or "
            ".mif."
        )
    if len(data.shape) not in (3, 4):
        raise InputError(f"An image has shape {data.shape}; 3D or 4D is expected.")
    targets = [path, sidecar_path(path)] if about else [path]
    with atomic_paths(targets, overwrite) as (image, *json):
        if suffix.startswith(".nii"):
            from napari_dmri.io.nifti import write_nifti

            write_nifti(image, data, np.asarray(affine), "napari-dmri")
        else:
            from napari_dmri.io.mrtrix import write_mif

            write_mif(image, data, np.asarray(affine))
        if json:
            json[0].write_text(to_json(about), encoding="utf-8")
    return targets
