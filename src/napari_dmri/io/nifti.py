"""NIfTI-1 and -2, ``.nii`` and ``.nii.gz``: headers by nibabel, data lazily, writing by volume."""

from __future__ import annotations

import gzip
import threading
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.imageglobals import logger
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.io.opened import OpenedImage, check_affine, check_dtype, to_canonical
from napari_dmri.io.raw_files import MappedFile, RawFile, StreamedFile

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["compressed_or_plain", "disk_dtype", "open_nifti", "write_nifti", "write_volumes"]

Array = NDArray[Any]


def open_nifti(path: Path) -> OpenedImage:
    """Open a NIfTI file: its header now, its data when they are asked for.

    Raises
    ------
    InputError
        If it is not NIfTI, or its header, affine, or data type cannot be used.
    """
    packed = _packed_as_named(path)
    try:
        with _without_log():
            image = nib.load(path)
        affine = np.asarray(image.affine)
        shape = tuple(int(n) for n in image.shape)
        proxy = image.dataobj
        dtype = np.dtype(proxy.dtype)
        slope, intercept, offset = float(proxy.slope), float(proxy.inter), int(proxy.offset)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path} is truncated or damaged: its header cannot be unpacked; copy or convert it "
            "again."
        ) from error
    except Exception as error:  # nibabel raises many kinds for what is not NIfTI
        raise InputError(
            f"{path.name} is not a NIfTI file that can be read: {_why_not(path, error)}; copy or "
            "convert it again."
        ) from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise InputError(f"{path.name} is {type(image).__name__}, not NIfTI; convert it first.")
    check_dtype(dtype, path.name)
    ndim, shape = _spatial_shape(shape, path.name)
    notes = []
    header = image.header
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        notes.append(
            "The header has neither sform nor qform: position and orientation are guessed from "
            "the voxel size alone, so left and right are not known."
        )
    notes += _check_zooms(path, image)
    affine = check_affine(affine, path.name)
    raw: RawFile = (
        StreamedFile(path, offset, shape, dtype)
        if packed
        else MappedFile(path, offset, shape, dtype)
    )
    data, canonical, codes = to_canonical(raw, affine, slope=slope, intercept=intercept)
    return OpenedImage(
        path, data, ndim, canonical, affine, codes, fields={"header": header}, notes=tuple(notes)
    )


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep nibabel's remarks on headers off the screen: what matters is said in our own words."""
    thread = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _packed_as_named(path: Path) -> bool:
    """Tell whether a file is gzip-compressed; refuse one whose name says otherwise."""
    with path.open("rb") as stream:
        start = stream.read(4)
    packed, named = start[:2] == b"\x1f\x8b", path.name.lower().endswith(".gz")
    if packed and not named:
        raise InputError(
            f"{path.name} is gzip-compressed, against its name; rename it to {path.name}.gz."
        )
    if named and not packed:
        sizes = (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
        remedy = (
            f"rename it to {path.name[:-3]}."
            if {348, 540} & {*sizes}
            else "it is no NIfTI file either: copy or convert it again."
        )
        raise InputError(f"{path.name} is not gzip-compressed, against its name; {remedy}")
    return packed


def _why_not(path: Path, error: Exception) -> str:
    """Say what is wrong with a header that nibabel does not take."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            start = stream.read(348)
    except (OSError, EOFError, zlib.error):
        return "it is truncated or damaged within its header"
    if len(start) < 348:
        return f"it holds {len(start)} bytes, and a header alone has 348"
    size = int.from_bytes(start[:4], "little")
    version2 = 540 in (size, int.from_bytes(start[:4], "big"))
    magic, expected = (start[4:8], b"n+2\0") if version2 else (start[344:348], b"n+1\0")
    if magic != expected:
        return f"its magic bytes are {magic!r} and not {expected!r}"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _check_zooms(path: Path, image: Any) -> list[str]:
    """Look at the voxel size as it stands in the file; nibabel would make a zero 1.

    Refuse it where the affine hangs on it; otherwise return a note.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as stream:
        content = stream.read(int(image.header["sizeof_hdr"]))
    header = image.header_class(content, image.header.endianness, check=False)
    zooms = np.asarray(header["pixdim"])[1:4]
    if np.isfinite(zooms).all() and (zooms != 0).all():
        return []
    words = f"the voxel size in the header is {' x '.join(f'{float(z):g}' for z in zooms)} mm"
    if int(image.header["sform_code"]) > 0:
        return [f"{path.name}: {words}; the sform, which gives one too, was used."]
    raise InputError(f"{path.name}: {words}; each edge must be above zero: repair the header.")


def _spatial_shape(shape: tuple[int, ...], name: str) -> tuple[int, tuple[int, ...]]:
    """Return 3 or 4 and the shape with four axes."""
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(
            f"{name} has shape {shape}; a 3D image (x, y, z) or 4D scan (x, y, z, volume) is "
            "expected."
        )
    return len(shape), (*shape, 1)[:4]


def disk_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian type that numbers are stored in: bool as uint8, no 64 bits."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    if kind == "b":
        return np.dtype("u1")
    if kind == "f":
        return np.dtype("<f4")
    if kind in "iu":
        return np.dtype(f"<{kind}{min(size, 4)}") if size > 1 else np.dtype(f"{kind}1")
    raise InputError(f"Numbers of type {dtype} cannot be written; expected real numbers.")


def write_nifti(path: Path, data: Any, affine: Array, description: str = "") -> None:
    """Write an array (X, Y, Z) or (X, Y, Z, N), volume by volume, unscaled, sform and qform set."""
    dtype = disk_dtype(data.dtype)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(data.shape)
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm")
    header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1.0] * (len(data.shape) - 3)])
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    with compressed_or_plain(path) as stream:
        stream.write(header.binaryblock)
        stream.write(b"\0\0\0\0")
        write_volumes(stream, data, dtype)


@contextmanager
def compressed_or_plain(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, gzipped by suffix; the same content gives the same bytes."""
    with path.open("wb") as plain:
        if not path.name.endswith(".gz"):
            yield plain
            return
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=plain, mtime=0) as packed:
            yield packed  # type: ignore[misc]


def write_volumes(stream: IO[bytes], data: Any, dtype: np.dtype[Any]) -> None:
    """Write an array's numbers, first axis fastest, one volume in memory at a time.

    Raises
    ------
    InputError
        If 64-bit integers do not fit into 32 bits.
    """
    count = data.shape[3] if len(data.shape) == 4 else 1
    for index in range(count):
        volume = np.asarray(data[..., index] if len(data.shape) == 4 else data)
        if dtype.kind in "iu" and volume.dtype.itemsize > 4:
            limits = np.iinfo(dtype)
            if volume.size and (volume.min() < limits.min or volume.max() > limits.max):
                raise InputError(
                    f"Values from {volume.min()} to {volume.max()} do not fit into {dtype.name}; "
                    "write them as floating-point numbers."
                )
        stream.write(volume.astype(dtype, copy=False).tobytes(order="F"))
