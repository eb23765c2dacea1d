r"""NRRD, ``.nrrd`` and ``.nhdr``: headers by pynrrd, data lazily, the NAMIC diffusion keys.

Gradients ``DWMRI_gradient_nnnn`` are in the measurement frame M, whose vectors are its columns in
the file's space; their length encodes b, :math:`b_i = b\\,|g_i|^2 / \\max_j |g_j|^2` (NAMIC,
"DWI NRRD format").
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.io.nifti import compressed_or_plain, disk_dtype, write_volumes
from napari_dmri.io.opened import OpenedImage, check_affine, check_dtype, to_canonical
from napari_dmri.io.raw_files import (
    HeldArray,
    MappedFile,
    RawFile,
    StreamedFile,
    stored_size,
    unpacked_size,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.scan import GradientTable

    Array = NDArray[Any]

__all__ = ["open_nrrd", "write_nrrd"]

_SPACES = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
}
_SHORT = {"ras": "right-anterior-superior", "las": "left-anterior-superior"}
_SHORT["lps"] = "left-posterior-superior"
_LONGEST_LINE = 2**16
_INTEGERS = {"char": 1, "short": 2, "int": 4, "longlong": 8}
_NAMES = {1: "int8", 2: "int16", 4: "int32"}


def open_nrrd(path: Path) -> OpenedImage:
    """Open an NRRD file, attached or detached: its header now, its data when they are asked for.

    Raises
    ------
    InputError
        If it is not NRRD or its header cannot be used.
    """
    import nrrd

    name = path.name
    with path.open("rb") as stream:
        if stream.read(4) != b"NRRD":
            raise InputError(
                f"{name} does not start with 'NRRD', so it is not an NRRD file; copy or convert "
                "it again."
            )
        stream.seek(0)
        lines: list[str] = []
        while (line := stream.readline(_LONGEST_LINE)).strip():
            lines.append(line.decode("utf-8", "surrogateescape"))
        start = stream.tell()
    try:
        header = dict(nrrd.read_header(lines))
    except Exception as error:  # pynrrd raises many kinds for a bad header
        raise InputError(f"{name}: its NRRD header cannot be read ({error}).") from error
    sizes = [int(n) for n in np.atleast_1d(header.get("sizes", []))]
    if len(sizes) not in (3, 4) or min(sizes) < 1:
        raise InputError(
            f"{name} has shape {tuple(sizes)}; a 3D image (x, y, z) or 4D scan (x, y, z, volume) "
            "is expected."
        )
    notes: list[str] = []
    flip = _space(header, name, notes)
    spatial, affine = _geometry(header, sizes, flip, name, notes)
    listed = [a for a in range(len(sizes)) if a not in spatial] or [3]
    axes = [*spatial, *listed]
    raw = _raw(path, header, [*sizes, 1][:4], start)
    slope, intercept = _unquantise(header, raw.dtype)
    data, canonical, codes = to_canonical(
        raw, check_affine(affine, name), axes, [False] * 4, slope, intercept
    )
    bvalues, vectors = _gradients(header, flip, name)
    return OpenedImage(
        path, data, len(sizes), canonical, affine, codes, bvalues, vectors, header, tuple(notes)
    )


def _space(header: dict[str, Any], name: str, notes: list[str]) -> Array:
    """Return the signs that turn the file's space into RAS."""
    space = str(header.get("space", "")).lower().removesuffix("-time")
    space = _SHORT.get(space, space)
    if space not in _SPACES:
        notes.append(
            f"The header's space is {space or 'missing'!r}; left-posterior-superior is assumed, "
            "so check left and right."
        )
        space = "left-posterior-superior"
    units = {str(u).strip('"').lower() for u in header.get("space units", [])}
    units -= {"mm", "", "none", "???", "nan"}
    if units:
        raise InputError(
            f"{name}: its space units are {', '.join(sorted(units))}; millimetres are expected: "
            "convert the header."
        )
    return np.array(_SPACES[space])


def _geometry(
    header: dict[str, Any], sizes: list[int], flip: Array, name: str, notes: list[str]
) -> tuple[list[int], Array]:
    """Return which axes are spatial, and the affine of these."""
    rows = header.get("space directions")
    if rows is None:
        raise InputError(
            f"{name} has no 'space directions', so its voxel size and orientation are not known; "
            "convert the image again."
        )
    vectors = [
        np.full(3, np.nan) if r is None else np.asarray(r, dtype=np.float64).reshape(-1)
        for r in rows
    ]
    spatial = [a for a, v in enumerate(vectors) if v.size == 3 and not np.isnan(v).all()]
    if len(spatial) != 3 or len(vectors) != len(sizes):
        raise InputError(
            f"{name} has {len(spatial)} axes with a direction in space; 3 are expected: convert "
            "the image again."
        )
    affine = np.eye(4)
    affine[:3, :3] = flip[:, None] * np.stack([vectors[a] for a in spatial], axis=1)
    origin = header.get("space origin")
    if origin is None:
        notes.append("The header has no space origin: the first voxel is put at 0, 0, 0 mm.")
    else:
        affine[:3, 3] = flip * np.asarray(origin, dtype=np.float64)
    return spatial, affine


def _dtype(header: dict[str, Any], name: str) -> np.dtype[Any]:
    word = str(header.get("type", "")).lower()
    endian = str(header.get("endian", "little")).lower()
    order = ">" if endian == "big" else "<"
    if word in ("float", "double"):
        return np.dtype(f"{order}f{4 if word == 'float' else 8}")
    short = word.removesuffix("_t")
    match = re.fullmatch(r"(u?)int(8|16|32|64)", short)
    if match:
        return np.dtype(f"{order}{'u' if match.group(1) else 'i'}{int(match.group(2)) // 8}")
    unsigned = word.startswith(("unsigned", "u"))
    base = word.removeprefix("unsigned").removeprefix("signed").removeprefix("u")
    base = base.replace(" ", "").replace("int", "") or "int"
    if base in _INTEGERS:
        return np.dtype(f"{order}{'u' if unsigned else 'i'}{_INTEGERS[base]}")
    raise InputError(f"{name}: its data type {word!r} is not known; convert it again.")


def _raw(path: Path, header: dict[str, Any], shape: list[int], start: int) -> RawFile:
    """Find the numbers: attached or detached, plain or packed."""
    dtype = _dtype(header, path.name)
    check_dtype(dtype, path.name)
    where = header.get("data file", header.get("datafile"))
    data_path = path
    if where is not None:
        if str(where).split()[0] == "LIST" or "%" in str(where):
            raise InputError(
                f"{path.name} keeps its data in several files ({where}); only one is read: "
                "convert it to a single .nrrd."
            )
        data_path, start = path.parent / str(where), 0
        if not data_path.is_file():
            raise InputError(f"{path.name}: its data file {data_path} does not exist.")
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if lines:
        with data_path.open("rb") as stream:
            stream.seek(start)
            for _ in range(lines):
                stream.readline()
            start = stream.tell()
    nbytes = math.prod(shape) * dtype.itemsize
    encoding = str(header.get("encoding", "raw")).lower()
    if encoding == "raw":
        size = data_path.stat().st_size
        offset = max(size - nbytes, start) if skip < 0 else start + skip
        return MappedFile(data_path, offset, shape, dtype)
    if encoding in ("gzip", "gz"):
        return StreamedFile(
            data_path,
            _packed_skip(data_path, nbytes, start) if skip < 0 else skip,
            shape,
            dtype,
            start,
        )
    import nrrd

    try:
        array = nrrd.read(str(path))[0].reshape(shape)
    except Exception as error:  # pynrrd raises many kinds for bad data
        raise InputError(f"{path.name}: its data cannot be decoded ({error}).") from error
    return HeldArray(data_path, array)


def _packed_skip(path: Path, nbytes: int, start: int) -> int:
    """Return how many unpacked bytes come before the last ``nbytes``."""
    skip = (stored_size(path) - nbytes) % 2**32
    return skip if skip < 2**20 else max(0, unpacked_size(path, start) - nbytes)


def _unquantise(header: dict[str, Any], dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return slope and intercept where integers stand for a range, ``old min`` to ``old max``."""
    low, high = (header.get(f"old {e}", header.get(f"old{e}")) for e in ("min", "max"))
    if low is None or high is None or dtype.kind not in "iu" or dtype.itemsize > 2:
        return 1.0, 0.0
    limits = np.iinfo(dtype)
    slope = (float(high) - float(low)) / (float(limits.max) - float(limits.min))
    if not np.isfinite(slope) or slope <= 0:
        return 1.0, 0.0
    intercept = float(low) - float(limits.min) * slope
    return slope, intercept if abs(intercept) > 1e-2 * slope else 0.0


def _gradients(
    header: dict[str, Any], flip: Array, name: str
) -> tuple[Array, Array] | tuple[None, None]:
    """Return b-values and unit vectors in RAS, or None twice where there is no table."""
    found: dict[int, Array] = {}
    for key, value in header.items():
        match = re.fullmatch(r"DWMRI_gradient_(\d+)", str(key))
        if match is None:
            continue
        try:
            vector = np.array([float(w) for w in str(value).split()])
        except ValueError:
            vector = np.empty(0)
        if vector.shape != (3,):
            raise InputError(f"{name}: {key} is {value!r}; expected three numbers.")
        repeats = int(header.get(f"DWMRI_NEX_{match.group(1)}", 1))
        for again in range(repeats):
            found[int(match.group(1)) + again] = vector
    if not found:
        if any(str(key).startswith("DWMRI_B-matrix") for key in header):
            raise InputError(
                f"{name} holds B-matrices; gradients (DWMRI_gradient_nnnn) are read: convert it."
            )
        return None, None
    if sorted(found) != list(range(len(found))):
        raise InputError(
            f"{name}: its {len(found)} gradients are not numbered 0000 to {len(found) - 1:04d}; "
            "repair the header."
        )
    try:
        nominal = float(header["DWMRI_b-value"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{name}: DWMRI_b-value is {header.get('DWMRI_b-value', 'missing')!r}; expected one "
            "number in s/mm²."
        ) from error
    vectors = np.stack([found[i] for i in range(len(found))])
    norms = np.linalg.norm(vectors, axis=1)
    longest = np.nanmax(norms, initial=0.0)
    share = norms / longest if longest > 0 else norms
    share[np.abs(share - 1) < 5e-3] = 1
    bvalues = nominal * share**2
    bvalues[~np.isfinite(bvalues)] = nominal
    unit = vectors / np.where(norms > 0, norms, 1)[:, None]
    frame = header.get("measurement frame")
    matrix = np.eye(3) if frame is None else np.asarray(frame, dtype=np.float64).T
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError(f"{name}: its measurement frame is not a finite 3 x 3 matrix.")
    turned = (unit @ matrix.T) * flip
    lengths = np.linalg.norm(turned, axis=1)
    return bvalues, turned / np.where(lengths > 0, lengths, 1)[:, None]


def write_nrrd(
    path: Path,
    data: Any,
    affine: Array,
    gradients: GradientTable,
    detached: Path | None = None,
    *,
    stem: str = "",
) -> None:
    """Write a scan as NRRD in RAS space, its measurement frame the identity.

    With a ``detached`` path, the numbers go there, gzipped, and the header names ``stem``.raw.gz.
    """
    dtype = disk_dtype(data.dtype)
    word = ("u" if dtype.kind == "u" else "") + _NAMES.get(dtype.itemsize, "")
    columns = " ".join(f"({','.join(f'{v + 0.0:.12g}' for v in c)})" for c in affine[:3, :3].T)
    highest = float(gradients.bvalues.max(initial=0.0))
    lengths = np.sqrt(gradients.bvalues / highest) if highest > 0 else gradients.bvalues
    lines = [
        "NRRD0005",
        f"type: {'float' if dtype.kind == 'f' else word}",
        "dimension: 4",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(int(n)) for n in data.shape),
        f"space directions: {columns} none",
        "kinds: space space space list",
        "endian: little",
        "encoding: gzip",
        'space units: "mm" "mm" "mm"',
        f"space origin: ({','.join(f'{v:.12g}' for v in affine[:3, 3])})",
        "measurement frame: (1,0,0) (0,1,0) (0,0,1)",
        *([] if detached is None else [f"data file: {stem}.raw.gz"]),
        "modality:=DWMRI",
        f"DWMRI_b-value:={highest:.10g}",
    ]
    for index, vector in enumerate(gradients.directions * lengths[:, None]):
        numbers = " ".join(f"{v + 0.0:.10g}" for v in vector)
        lines.append(f"DWMRI_gradient_{index:04d}:={numbers}")
    head = ("\n".join(lines) + "\n").encode("utf-8")
    if detached is not None:
        path.write_bytes(head)
        with compressed_or_plain(detached) as stream:
            write_volumes(stream, data, dtype)
        return
    import gzip

    with path.open("wb") as plain:
        plain.write(head + b"\n")
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=plain, mtime=0) as packed:
            write_volumes(packed, data, dtype)  # type: ignore[arg-type]
