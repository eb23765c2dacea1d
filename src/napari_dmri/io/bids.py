"""Files beside an image: gradient tables and JSON sidecars, also inherited in a BIDS folder.

BIDS' inheritance principle: a file applies to every image at its level or below that has all of
the entities (``key-value``) and the suffix in the file's own name; the nearest one wins, and JSON
files are merged key by key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nibabel.orientations import io_orientation

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import stem_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "entities",
    "find_gradients",
    "find_inherited",
    "read_json",
    "read_sidecar",
    "reoriented_sidecar",
    "sidecar_path",
]

_PAIRS = ((".bval", ".bvec"), (".bvals", ".bvecs"), ("_bval", "_bvec"), ("_bvals", "_bvecs"))
_LEVELS = 5


def entities(path: str | Path) -> tuple[dict[str, str], str]:
    """Return the BIDS entities of a file name and its suffix.

    Examples
    --------
    >>> entities("sub-01_ses-a_dwi.nii.gz")
    ({'sub': '01', 'ses': 'a'}, 'dwi')
    """
    *pairs, suffix = stem_of(path).split("_")
    found = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    return found, suffix


def find_inherited(image: Path, extension: str) -> list[Path]:
    """List the files with an extension that apply to an image, nearest (most specific) first."""
    mine, suffix = entities(image)
    found: list[Path] = []
    for folder in _levels(image.resolve().parent):
        here = []
        for path in folder.glob(f"*{extension}"):
            theirs, their_suffix = entities(path)
            if their_suffix == suffix and theirs.items() <= mine.items() and path.is_file():
                here.append((len(theirs), path))
        found += [path for _, path in sorted(here, key=lambda pair: (-pair[0], pair[1].name))]
    return found


def _levels(folder: Path) -> Iterator[Path]:
    """Yield a folder and those above, up to the data set's root."""
    for level in [folder, *folder.parents][:_LEVELS]:
        yield level
        if (level / "dataset_description.json").exists():
            return


def find_gradients(image: Path) -> tuple[Path, Path] | None:
    """Find the bval and bvec files of an image, or None where there is neither.

    Looked for: the image's own stem, FSL's plain ``bvals``/``bvecs`` in the folder, and BIDS
    inheritance for a ``sub-*`` name.

    Raises
    ------
    InputError
        If only one of the two is there.
    """
    folder, stem = image.parent, stem_of(image)
    own = [(folder / f"{stem}{a}", folder / f"{stem}{b}") for a, b in _PAIRS]
    for bval, bvec in own:
        if bval.is_file() and bvec.is_file():
            return bval, bvec
    values = [a for a, _ in own if a.is_file()]
    vectors = [b for _, b in own if b.is_file()]
    if not values and not vectors:
        for a, b in (("bvals", "bvecs"), ("bval", "bvec")):
            if (folder / a).is_file() and (folder / b).is_file():
                return folder / a, folder / b
    if image.name.startswith("sub-"):
        values += find_inherited(image, ".bval")
        vectors += find_inherited(image, ".bvec")
    if values and vectors:
        return values[0], vectors[0]
    if values or vectors:
        have, lacks = (values[0], "bvec") if values else (vectors[0], "bval")
        raise InputError(
            f"{image.name}: {have.name} is there but its {lacks} file is not; put it beside the "
            f"image as {stem}.{lacks}, or name both files (--bval, --bvec)."
        )
    return None


def sidecar_path(image: Path) -> Path:
    """Return the path of an image's own JSON sidecar.

    ``x.json`` for ``x.nii.gz`` as BIDS has it; the whole name for other formats (``x.mif.json``),
    since an image and its conversion may lie side by side and differ, for example in SH basis.
    """
    if image.name.lower().endswith((".nii", ".nii.gz")):
        return image.parent / f"{stem_of(image)}.json"
    return image.parent / f"{image.name}.json"


def read_sidecar(image: Path) -> dict[str, Any]:
    """Read an image's JSON sidecar, merged with inherited ones for a BIDS name; {} if none.

    Raises
    ------
    InputError
        If one is not valid JSON.
    """
    paths = [sidecar_path(image)]
    stem = stem_of(image)
    nifti = [image.parent / f"{stem}{suffix}" for suffix in (".nii", ".nii.gz")]
    if not paths[0].is_file() and not any(path.is_file() for path in nifti):
        paths = [image.parent / f"{stem}.json"]
    if image.name.startswith("sub-"):
        paths += [p for p in find_inherited(image, ".json") if p.name != paths[0].name]
    merged: dict[str, Any] = {}
    for path in reversed(paths):
        if path.is_file():
            merged.update(read_json(path))
    return merged


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    InputError
        If the file is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); repair it or move it away."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a JSON {type(content).__name__}; expected an object of keys and values."
        )
    return content


def reoriented_sidecar(
    sidecar: Mapping[str, Any], original_affine: NDArray[np.float64]
) -> dict[str, Any]:
    """Return a sidecar whose voxel-axis directions (i, j, k) fit the canonical voxel order.

    ``PhaseEncodingDirection`` and ``SliceEncodingDirection`` name axes of the file that was read;
    the file that is written has other axes.
    """
    turned = dict(sidecar)
    orientation = io_orientation(original_affine)
    if "SliceTiming" in turned:
        turned.setdefault("SliceEncodingDirection", "k")
    for key in ("PhaseEncodingDirection", "SliceEncodingDirection"):
        value = turned.get(key)
        if isinstance(value, str) and value[:1] in ("i", "j", "k"):
            axis, sign = orientation["ijk".index(value[0])]
            backwards = value.endswith("-") ^ bool(sign < 0)
            turned[key] = "ijk"[int(axis)] + ("-" if backwards else "")
    return turned
