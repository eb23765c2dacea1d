"""MRtrix3 images, ``.mif``, ``.mif.gz`` and ``.mih``: our own small reader and writer.

The header is text: ``dim``, ``vox``, ``layout`` (for each axis its place in memory, 0 fastest,
with a minus sign where it runs backwards), ``datatype``, ``transform`` (unit axes and origin in
scanner RAS mm), ``scaling`` (offset, scale), ``dw_scheme`` (x, y, z, b in the scanner's RAS
frame), ``file`` (where the numbers start). Format: MRtrix3 documentation, "Image file formats".
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.io.nifti import compressed_or_plain, disk_dtype, write_volumes
from napari_dmri.io.opened import OpenedImage, check_affine, check_dtype, to_canonical
from napari_dmri.io.raw_files import HeldArray, MappedFile, RawFile, StreamedFile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.scan import GradientTable

    Array = NDArray[Any]

__all__ = ["open_mif", "read_header", "write_mif"]

MAGIC = "mrtrix image"
_LONGEST_HEADER = 2**24
_TYPE = re.compile(r"(c?float|u?int)(8|16|32|64)(le|be)?$", re.IGNORECASE)


def read_header(path: Path) -> dict[str, list[str]]:
    """Read a header: every key with its lines.

    Raises
    ------
    InputError
        If the file is not an MRtrix image, or its header has no end.
    """
    header: dict[str, list[str]] = {}
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            if stream.readline(64).decode("latin1").strip() != MAGIC:
                raise InputError(
                    f"{path.name} does not start with {MAGIC!r}, so it is not an MRtrix image; "
                    "copy or convert it again."
                )
            read = 0
            while read < _LONGEST_HEADER:
                line = stream.readline(_LONGEST_HEADER)
                read += len(line)
                text = line.decode("utf-8", "replace").strip()
                if text == "END":
                    return header
                if not line:
                    break
                key, colon, value = text.partition(":")
                if colon:
                    header.setdefault(key.strip().lower(), []).append(value.strip())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path} is truncated, damaged or not gzip-compressed: its header cannot be read; "
            "copy or convert it again."
        ) from error
    raise InputError(f"{path} is truncated: its header has no END; copy or convert it again.")


def open_mif(path: Path) -> OpenedImage:
    """Open an MRtrix image: its header now, its data when they are asked for.

    Raises
    ------
    InputError
        If it is not an MRtrix image or its header cannot be used.
    """
    header = read_header(path)
    name, notes = path.name, []
    dims = [int(n) for n in _numbers(header, "dim", name)]
    while len(dims) > 4 and dims[-1] == 1:
        dims.pop()
    if len(dims) not in (3, 4) or min(dims) < 1:
        raise InputError(
            f"{name} has shape {tuple(dims)}; a 3D image (x, y, z) or 4D scan (x, y, z, volume) "
            "is expected."
        )
    axes, flips = _layout(header, len(dims), name)
    shape4 = [*dims, 1][:4]
    on_disk = [0, 0, 0, 0]
    for axis, place in enumerate(axes):
        on_disk[place] = shape4[axis]
    raw = _raw(path, header, on_disk)
    if "transform" not in header:
        notes.append("The header has no transform: position and orientation are guessed.")
    affine = check_affine(_affine(header, dims, name), name)
    offset, scale = 0.0, 1.0
    if "scaling" in header:
        offset, scale = _numbers(header, "scaling", name, 2)
    data, canonical, codes = to_canonical(raw, affine, axes, flips, scale, offset)
    bvalues = vectors = None
    if "dw_scheme" in header:
        table = _table(header["dw_scheme"], name)
        bvalues, vectors = table[:, 3], table[:, :3]
    return OpenedImage(
        path, data, len(dims), canonical, affine, codes, bvalues, vectors, header, tuple(notes)
    )


def _numbers(header: dict[str, list[str]], key: str, name: str, count: int = 0) -> list[float]:
    try:
        numbers = [float(word) for word in header[key][0].replace(",", " ").split()]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{name}: the header's {key!r} is {header.get(key, ['missing'])[0]!r}; expected "
            "numbers: convert the image again."
        ) from error
    if count and len(numbers) != count:
        raise InputError(f"{name}: the header's {key!r} has {len(numbers)} numbers, not {count}.")
    return numbers


def _layout(header: dict[str, list[str]], ndim: int, name: str) -> tuple[list[int], list[bool]]:
    """Return for each axis its place in memory (0 fastest) and whether it runs backwards."""
    words = header.get("layout", [",".join(f"+{i}" for i in range(ndim))])[0].split(",")[:ndim]
    places = [word.strip().lstrip("+-") for word in words]
    if len(places) != ndim or not all(p.isdigit() for p in places):
        raise InputError(
            f"{name}: the header's layout is {','.join(words)!r}; expected {ndim} signed places."
        )
    ranks = np.argsort(np.argsort([int(p) for p in places], kind="stable"))
    axes = [int(r) for r in ranks]
    flips = [word.strip().startswith("-") for word in words]
    if ndim == 3:
        axes, flips = [*axes, 3], [*flips, False]
    return axes, flips


def _raw(path: Path, header: dict[str, list[str]], shape: list[int]) -> RawFile:
    """Find the numbers and their type."""
    words = header.get("file", [""])[0].rsplit(maxsplit=1)
    if len(header.get("file", [])) != 1 or not words or "[" in words[0]:
        raise InputError(
            f"{path.name} keeps its data in {len(header.get('file', []))} or more files; only one "
            "is read: convert it with mrconvert to .mif."
        )
    offset = int(words[1]) if len(words) == 2 and words[1].isdigit() else 0
    where = words[0] if len(words) == 2 and words[1].isdigit() else " ".join(words)
    data_path = path if where == "." else path.parent / where
    if not data_path.is_file():
        raise InputError(f"{path.name}: its data file {data_path} does not exist.")
    packed = data_path.name.lower().endswith(".gz")
    kind = header.get("datatype", [""])[0]
    if kind.lower() == "bit":
        return _bits(data_path, offset, shape, packed)
    match = _TYPE.match(kind)
    if match is None:
        raise InputError(f"{path.name}: its data type {kind!r} is not known; convert it again.")
    base, bits, order = match.group(1).lower(), int(match.group(2)), (match.group(3) or "").lower()
    letter = {"int": "i", "uint": "u", "float": "f", "cfloat": "c"}[base]
    size = bits // 8 * (2 if letter == "c" else 1)
    dtype = np.dtype(f"{'>' if order == 'be' else '<' if order == 'le' else '='}{letter}{size}")
    check_dtype(dtype, path.name)
    if packed:
        return StreamedFile(data_path, offset, shape, dtype)
    return MappedFile(data_path, offset, shape, dtype)


def _bits(path: Path, offset: int, shape: list[int], packed: bool) -> HeldArray:
    """Unpack one bit a voxel, the most significant first."""
    count = math.prod(shape)
    size = [-(-count // 8)]
    kind = np.dtype(np.uint8)
    raw = StreamedFile(path, offset, size, kind) if packed else MappedFile(path, offset, size, kind)
    bits = np.unpackbits(np.asarray(raw.array(size[0])))[:count]
    return HeldArray(path, bits.reshape(shape, order="F"))


def _affine(header: dict[str, list[str]], dims: list[int], name: str) -> Array:
    sizes = np.array(_numbers(header, "vox", name)[:3])
    affine = np.eye(4)
    if "transform" in header:
        rows = _table(header["transform"][:3], name)
        if rows.shape != (3, 4):
            raise InputError(f"{name}: the transform has shape {rows.shape}; expected (3, 4).")
        affine[:3] = rows
    else:
        affine[:3, 3] = -0.5 * (np.array(dims[:3]) - 1) * sizes
    if not (sizes > 0).all():
        raise InputError(
            f"{name}: the voxel size is {' x '.join(f'{s:g}' for s in sizes)} mm; each edge must "
            "be above zero: repair the header."
        )
    affine[:3, :3] = affine[:3, :3] * sizes
    return affine


def _table(lines: list[str], name: str) -> Array:
    """Read rows of four numbers."""
    try:
        rows = [[float(w) for w in line.replace(",", " ").split()] for line in lines]
    except ValueError as error:
        raise InputError(f"{name}: its header holds text where numbers belong ({error}).") from None
    lengths = sorted({len(row) for row in rows})
    if lengths != [4]:
        raise InputError(
            f"{name}: rows of {lengths[0]} to {lengths[-1]} numbers in dw_scheme or transform; "
            "expected 4 in each."
        )
    return np.array(rows)


def write_mif(path: Path, data: Any, affine: Array, gradients: GradientTable | None = None) -> None:
    """Write an array (X, Y, Z) or (X, Y, Z, N), volume by volume, with its gradient table."""
    dtype = disk_dtype(data.dtype)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    ndim = len(data.shape)
    axes = np.hstack([affine[:3, :3] / sizes, affine[:3, 3:]])
    word = {"i": "Int", "u": "UInt", "f": "Float"}[dtype.kind] + str(8 * dtype.itemsize)
    lines = [
        MAGIC,
        "dim: " + ",".join(str(int(n)) for n in data.shape),
        "vox: " + ",".join(f"{v:.12g}" for v in [*sizes, *[1.0] * (ndim - 3)]),
        "layout: " + ",".join(f"+{i}" for i in range(ndim)),
        "datatype: " + word + ("LE" if dtype.itemsize > 1 else ""),
    ]
    lines += ["transform: " + ",".join(f"{v + 0.0:.12g}" for v in row) for row in axes]
    if gradients is not None:
        lines += [
            "dw_scheme: " + ",".join(f"{v + 0.0:.10g}" for v in (*direction, b))
            for direction, b in zip(gradients.directions, gradients.bvalues, strict=True)
        ]
    text = "\n".join(lines) + "\nfile: . "
    offset = -(-(len(text) + 16) // 16) * 16
    head = (text + f"{offset}\nEND\n").encode("ascii")
    with compressed_or_plain(path) as stream:
        stream.write(head.ljust(offset, b"\0"))
        write_volumes(stream, data, dtype)
