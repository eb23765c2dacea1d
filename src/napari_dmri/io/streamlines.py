"""Streamlines from ``.tck``, ``.trk`` and ``.trx``, in scanner RAS millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.io.opened import existing_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["STREAMLINE_SUFFIXES", "read_streamlines"]

STREAMLINE_SUFFIXES = (".tck", ".trk", ".trx")


def read_streamlines(path: str | Path) -> list[NDArray[np.float32]]:
    """Read streamlines as arrays (n, 3) of points in scanner RAS millimetres.

    Raises
    ------
    InputError
        If the file is of another format or damaged, or has no streamline.
    """
    path = existing_file(path)
    suffix = path.suffix.lower()
    if suffix not in STREAMLINE_SUFFIXES:
        raise InputError(
            f"{path.name} is not a streamline file; expected {', '.join(STREAMLINE_SUFFIXES)}."
        )
    try:
        lines = _read_trx(path) if suffix == ".trx" else _read_nibabel(path)
    except Exception as error:  # the readers raise many kinds for damaged files
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path.name} cannot be read as {suffix} ({what}); copy or convert it again."
        ) from error
    if not lines:
        raise InputError(f"{path.name} holds no streamline.")
    return lines


def _read_nibabel(path: Path) -> list[NDArray[np.float32]]:
    from nibabel.streamlines import load

    return _arrays(load(path).streamlines)


def _read_trx(path: Path) -> list[NDArray[np.float32]]:
    from trx.trx_file_memmap import load

    trx = load(str(path))
    try:
        return _arrays(trx.streamlines)
    finally:
        trx.close()


def _arrays(lines: Any) -> list[NDArray[np.float32]]:
    return [np.array(line, dtype=np.float32) for line in lines]
