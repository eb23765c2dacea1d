"""Recognise DICOM, and say what to do with it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NoReturn

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_dicom", "refuse_dicom", "refuse_folder"]

_SUFFIXES = {".dcm", ".ima", ".dicom"}


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, by its suffix or the mark at byte 128."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def refuse_dicom(path: Path) -> None:
    """Refuse a DICOM file with the way to convert its folder; let anything else pass.

    Raises
    ------
    InputError
        If it is DICOM.
    """
    if is_dicom(path):
        raise InputError(_sentence(f"{path.name} is a DICOM file", path.parent))


def refuse_folder(folder: Path) -> NoReturn:
    """Refuse a folder: of DICOM files with the way to convert it, any other with what to open.

    Raises
    ------
    InputError
        Always.
    """
    files = (p for p in folder.rglob("*") if p.is_file())
    if any(is_dicom(p) for p in islice(files, 64)):
        raise InputError(_sentence(f"{folder.name} is a folder of DICOM files", folder))
    raise InputError(f"{folder} is a folder; open an image file inside it.")


def _sentence(what: str, folder: Path) -> str:
    return (
        f"{what}; convert it with dcm2niix (dcm2niix -z y -o OUTPUT '{folder}') and open the "
        ".nii.gz it writes, with its bval and bvec beside it."
    )
