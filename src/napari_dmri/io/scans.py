"""Read a scan from any format into one frame, and write it to any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import atomic_paths, full_suffix, stem_of, to_json
from napari_dmri.io.bids import (
    entities,
    find_gradients,
    read_sidecar,
    reoriented_sidecar,
    sidecar_path,
)
from napari_dmri.io.gradients import check_table, format_fsl, fsl_to_scanner, read_fsl
from napari_dmri.io.opened import OpenedImage, open_image
from napari_dmri.scan import GradientTable, Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["read_scan", "write_scan"]

_OWN_KEYS = {"Simulated": "simulated", "SubjectLabel": "subject", "Site": "site"}


def read_scan(
    path: str | Path,
    *,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
) -> Scan:
    """Open a diffusion scan: NIfTI with bval/bvec, MRtrix ``.mif``, or NRRD.

    Only the header and the gradient table are read; the data stay on disk until they are asked
    for. Voxels come in closest-canonical order and b-vectors in the scanner's RAS frame.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz``, ``.mif``, ``.mif.gz``, ``.nrrd`` or ``.nhdr``.
    bval, bvec
        FSL-style gradient files; found beside the image (or inherited, for a BIDS name) if None.
        Given ones are used in place of a table inside the file.
    mask
        A mask image on the same grid.

    Raises
    ------
    InputError
        If a file is missing, damaged or not 4D, if counts disagree, or if the gradient table
        cannot be used.
    """
    image = open_image(path)
    if image.ndim != 4:
        raise InputError(
            f"{image.path.name} is 3D {image.data.shape[:3]}; a scan is 4D (x, y, z, volume): "
            "open it as an image, or give the 4D file."
        )
    notes = list(image.notes)
    sidecar = read_sidecar(image.path)
    gradients, files = _gradients(image, bval, bvec, notes)
    metadata: dict[str, Any] = {
        "simulated": bool(sidecar.get("Simulated", False)),
        "orientation": image.orientation,
        "original_affine": image.original_affine,
        "sidecar": sidecar,
        "warnings": notes,
        "gradient_files": files,
    }
    for key, name in (("SubjectLabel", "subject"), ("Site", "site")):
        if key in sidecar:
            metadata[name] = str(sidecar[key])
    if isinstance(sidecar.get("Provenance"), dict):
        metadata["provenance"] = sidecar["Provenance"]
    scan = Scan(
        image.data,
        image.affine,
        gradients,
        name=_name(image.path, metadata),
        path=image.path,
        metadata=metadata,
    )
    if mask is None:
        return scan
    from napari_dmri.io.maps import read_mask

    return scan.with_mask(read_mask(mask, scan))


def _name(path: Path, metadata: Mapping[str, Any]) -> str:
    """Return a short readable name: ``sub-01 ge_st run-2`` where the sidecar says who and where."""
    parts, suffix = entities(path)
    if not {"subject", "site"} <= metadata.keys() or suffix != "dwi" or {"desc", "rec"} & {*parts}:
        return stem_of(path)
    name = f"{metadata['subject']} {metadata['site']}"
    run = parts.get("run", "1").lstrip("0")
    return name if run == "1" else f"{name} run-{run}"


def _gradients(
    image: OpenedImage, bval: str | Path | None, bvec: str | Path | None, notes: list[str]
) -> tuple[GradientTable, tuple[str, ...]]:
    """Return the gradient table and the files it came from."""
    name, volumes = image.path.name, image.data.shape[3]
    if (bval is None) != (bvec is None):
        given, lacks = ("bval", "bvec") if bvec is None else ("bvec", "bval")
        raise InputError(f"{name}: a {given} file was given without its {lacks}; give both.")
    if bval is not None and bvec is not None:
        files = (Path(bval).expanduser(), Path(bvec).expanduser())
    elif image.bvalues is not None and image.vectors is not None:
        if len(image.bvalues) != volumes:
            raise InputError(
                f"{name}: {volumes} volumes but {len(image.bvalues)} rows in its gradient table; "
                "they must be equal: repair the header, or give bval and bvec files."
            )
        return check_table(image.bvalues, image.vectors, name, notes), (str(image.path),)
    else:
        found = find_gradients(image.path)
        if found is None:
            stem = stem_of(image.path)
            raise InputError(
                f"{name} has {volumes} volumes and no gradient table: {stem}.bval and {stem}.bvec "
                "are not beside it; put them there, or name them (--bval, --bvec)."
            )
        files = found
    bvalues, vectors = read_fsl(*files, volumes)
    table = check_table(bvalues, fsl_to_scanner(vectors, image.original_affine), name, notes)
    return table, tuple(str(f) for f in files)


def write_scan(
    scan: Scan,
    path: str | Path,
    *,
    overwrite: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a scan with its gradient table and a JSON sidecar; all files appear, or none.

    Parameters
    ----------
    scan
        What to write; voxel order and affine are written as they are.
    path
        ``.nii`` or ``.nii.gz`` (with bval and bvec beside it), ``.mif`` or ``.mif.gz``, ``.nrrd``,
        or ``.nhdr`` (with ``.raw.gz`` beside it).
    overwrite
        Replace existing files.
    provenance
        How it was made, kept in the sidecar; None takes what the scan's metadata say.

    Returns
    -------
    The files written, the image first.

    Raises
    ------
    InputError
        If the format is not known, a target exists, or the folder cannot be written to.
    """
    path = Path(path).expanduser()
    suffix, stem = full_suffix(path), stem_of(path)
    sidecar = sidecar_path(path)
    text = to_json(_sidecar(scan, provenance))
    affine = np.asarray(scan.affine)
    if suffix in (".nii", ".nii.gz"):
        from napari_dmri.io.nifti import write_nifti

        targets = [path, path.parent / f"{stem}.bval", path.parent / f"{stem}.bvec", sidecar]
        with atomic_paths(targets, overwrite) as (image, bval, bvec, json):
            write_nifti(image, scan.data, affine, "napari-dmri")
            values, vectors = format_fsl(scan.gradients, affine)
            bval.write_text(values, encoding="ascii")
            bvec.write_text(vectors, encoding="ascii")
            json.write_text(text, encoding="utf-8")
        return targets
    if suffix in (".mif", ".mif.gz"):
        from napari_dmri.io.mrtrix import write_mif

        targets = [path, sidecar]
        with atomic_paths(targets, overwrite) as (image, json):
            write_mif(image, scan.data, affine, scan.gradients)
            json.write_text(text, encoding="utf-8")
        return targets
    if suffix in (".nrrd", ".nhdr"):
        from napari_dmri.io.nrrd import write_nrrd

        targets = [path, sidecar]
        if suffix == ".nhdr":
            targets.append(path.parent / f"{stem}.raw.gz")
        with atomic_paths(targets, overwrite) as (image, json, *detached):
            write_nrrd(image, scan.data, affine, scan.gradients, *detached, stem=stem)
            json.write_text(text, encoding="utf-8")
        return targets
    raise InputError(
        f"Scans are not written as {suffix or path.name!r}; choose .nii.gz, .nii, .mif.gz, .mif, "
        ".nrrd or .nhdr."
    )


def _sidecar(scan: Scan, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the JSON sidecar says of a scan."""
    original: NDArray[np.float64] | None = scan.metadata.get("original_affine")
    sidecar = dict(scan.metadata.get("sidecar") or {})
    if original is not None:
        sidecar = reoriented_sidecar(sidecar, original)
    for key, name in _OWN_KEYS.items():
        value = scan.metadata.get(name)
        if value is not None and value is not False:
            sidecar[key] = value
    made = provenance if provenance is not None else scan.metadata.get("provenance")
    if made:
        sidecar["Provenance"] = dict(made)
    return sidecar
