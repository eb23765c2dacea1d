r"""Gradient tables in files: read, check, and convert between frames.

Inside, directions are unit vectors in the scanner's RAS frame. With A the 3 x 3 part of the
image's on-disk affine (voxel indices to RAS mm) and R its columns brought to unit length:

- FSL (``.bvec``): :math:`g_{RAS} = R\,D\,g`, D = diag(-1, 1, 1) if det(A) > 0, else identity
  (vectors are in voxel axes, with x negated where the image is not stored in radiological order).
- MRtrix3 (``dw_scheme``): :math:`g_{RAS} = g`.
- NRRD: :math:`g_{RAS} = S\,M\,g`, M the measurement frame, S = diag(-1, -1, 1) for a
  left-posterior-superior space; lengths may encode b, :math:`b_i = b\,|g_i|^2 / \max_j |g_j|^2`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.scan import B0_THRESHOLD, GradientTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "check_table",
    "format_fsl",
    "fsl_to_scanner",
    "read_fsl",
    "read_numbers",
    "scanner_to_fsl",
]

Array = NDArray[Any]

UNIT_TOLERANCE = 1e-3
"""Vectors closer to unit length than this are normalised without a word."""

LOWEST_B = 30.0
"""A table whose highest b-value is below this is not in s/mm²."""

HIGHEST_B = 1e6
"""A table whose highest b-value is above this is not in s/mm²."""


def read_numbers(path: Path) -> Array:
    """Read a text file of numbers as a matrix (rows, columns).

    Raises
    ------
    InputError
        If the file is missing or empty, holds something else than numbers, or its rows differ in
        length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give the gradient file that is there.") from error
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path} is not a readable text file of numbers; check its permissions and content."
        ) from error
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            bad = next(w for w in words if not _is_number(w))
            raise InputError(
                f"{path}, line {number}: {bad!r} is not a number; correct the file."
            ) from error
    if not rows:
        raise InputError(f"{path} is empty; expected numbers, one for each volume.")
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise InputError(
            f"{path} has rows of {min(lengths)} to {max(lengths)} numbers; all rows must be "
            "equally long: correct the file."
        )
    return np.array(rows)


def read_fsl(bval: Path, bvec: Path, volumes: int) -> tuple[Array, Array]:
    """Read b-values (N,) and vectors (N, 3) as they are in FSL-style files, 3 x N or N x 3.

    Raises
    ------
    InputError
        If a file cannot be read or counts disagree with each other or with the volumes.
    """
    values, vectors = read_numbers(bval), read_numbers(bvec)
    if 1 not in values.shape:
        raise InputError(
            f"{bval} holds {values.shape[0]} rows of {values.shape[1]} numbers; expected one row "
            "(or one column) of b-values."
        )
    if 3 not in vectors.shape:
        raise InputError(
            f"{bvec} holds {vectors.shape[0]} rows of {vectors.shape[1]} numbers; expected "
            f"3 rows of {values.size} (or {values.size} rows of 3)."
        )
    if vectors.shape[0] == 3 and not (vectors.shape == (3, 3) and _rows_are_vectors(vectors)):
        vectors = vectors.T
    if not volumes == values.size == len(vectors):
        raise InputError(
            f"The counts disagree: {volumes} volumes, {values.size} b-values ({bval.name}), "
            f"{len(vectors)} b-vectors ({bvec.name}); they must be equal: check that the files "
            "belong together."
        )
    return values.reshape(-1), vectors


def _rows_are_vectors(vectors: Array) -> bool:
    """Tell N x 3 from 3 x N for three volumes: FSL's 3 x N unless only the rows are 0 or unit."""

    def proper(rows: Array) -> bool:
        norms = np.linalg.norm(rows, axis=1)
        return bool(((norms < 1e-3) | (np.abs(norms - 1) < 1e-2)).all())

    return proper(vectors) and not proper(vectors.T)


def check_table(
    bvalues: Array, vectors: Array, name: str, notes: list[str] | None = None
) -> GradientTable:
    """Make a gradient table of b-values and vectors in the scanner's frame.

    Vectors of weighted volumes that are not of unit length are normalised, with a `DmriWarning`
    that counts them where any is off by more than 1e-3.

    Parameters
    ----------
    bvalues, vectors
        (N,) s/mm² and (N, 3).
    name
        Of the file, for messages.
    notes
        Gets the sentences a user should know.

    Raises
    ------
    InputError
        If a b-value is negative, not finite or not in s/mm², or if the vector of a volume with
        b > 50 is zero or not finite.
    """
    notes = [] if notes is None else notes
    bvalues = np.array(bvalues, dtype=np.float64)
    vectors = np.array(vectors, dtype=np.float64)
    _check_bvalues(bvalues, name)
    weighted = bvalues > B0_THRESHOLD
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(weighted & ~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise InputError(
            f"{name}: {bad.size} of {int(weighted.sum())} volumes with b > {B0_THRESHOLD:g} have a "
            f"zero or non-finite b-vector (volumes {_some(bad)}, from 0); correct the vectors, or "
            "remove these volumes (trace or ADC images do not belong to the scan)."
        )
    off = weighted & (np.abs(norms - 1) > UNIT_TOLERANCE)
    if off.any():
        sentence = (
            f"{name}: {int(off.sum())} of {int(weighted.sum())} b-vectors are not of unit length "
            f"({norms[off].min():.3f} to {norms[off].max():.3f}) and were normalised; if their "
            "length was meant to encode the b-value, correct the b-values."
        )
        notes.append(sentence)
        warnings.warn(sentence, DmriWarning, stacklevel=3)
    unit = np.zeros_like(vectors)
    unit[weighted] = vectors[weighted] / norms[weighted, None]
    if weighted.all():
        notes.append(
            f"No b0 volume: the lowest b-value is {bvalues.min():g} s/mm² (b0 means "
            f"b <= {B0_THRESHOLD:g}); anything that needs S/b0 is refused."
        )
    elif not weighted.any():
        notes.append(
            f"All {len(bvalues)} volumes have b <= {B0_THRESHOLD:g} s/mm²; there is no "
            "diffusion-weighted volume."
        )
    return GradientTable(bvalues, unit)


def _check_bvalues(bvalues: Array, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(bvalues))
    if bad.size:
        raise InputError(
            f"{name}: {bad.size} of {bvalues.size} b-values are not finite (volumes {_some(bad)}, "
            "from 0); correct the b-values."
        )
    bad = np.flatnonzero(bvalues < 0)
    if bad.size:
        raise InputError(
            f"{name}: {bad.size} of {bvalues.size} b-values are negative (lowest "
            f"{bvalues.min():g} s/mm², volumes {_some(bad)}, from 0); b-values are 0 or more: "
            "correct them."
        )
    highest = bvalues.max(initial=0)
    if 0 < highest <= LOWEST_B and np.ptp(bvalues) > 0:
        raise InputError(
            f"{name}: the highest b-value is {highest:g}, which looks like ms/µm²; s/mm² are "
            "expected: multiply the b-values by 1000."
        )
    if highest > HIGHEST_B:
        raise InputError(
            f"{name}: the highest b-value is {highest:g}, which looks like s/m²; s/mm² are "
            "expected: divide the b-values by 1 000 000."
        )


def fsl_to_scanner(vectors: Array, affine: Array) -> Array:
    """Turn FSL vectors (N, 3) of an image with this on-disk affine into the scanner's RAS frame.

    Lengths are kept.
    """
    return _keep_lengths(vectors, _fsl_matrix(affine))


def scanner_to_fsl(vectors: Array, affine: Array) -> Array:
    """Turn vectors (N, 3) in the scanner's RAS frame into FSL's, for an image with this affine."""
    return _keep_lengths(vectors, np.linalg.inv(_fsl_matrix(affine)))


def _fsl_matrix(affine: Array) -> Array:
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    matrix: Array = linear / np.linalg.norm(linear, axis=0)
    if np.linalg.det(linear) > 0:
        matrix = matrix * np.array([-1.0, 1.0, 1.0])
    return matrix


def _keep_lengths(vectors: Array, matrix: Array) -> Array:
    """Map vectors; a matrix that is not quite a rotation must not change lengths."""
    vectors = np.asarray(vectors, dtype=np.float64)
    turned = vectors @ matrix.T
    before = np.linalg.norm(vectors, axis=1, keepdims=True)
    after = np.linalg.norm(turned, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        result: Array = turned * np.where(after > 0, before / np.where(after > 0, after, 1), 1)
    return result


def format_fsl(table: GradientTable, affine: Array) -> tuple[str, str]:
    """Return the text of a bval and a bvec file (3 x N) for an image with this affine."""
    vectors = scanner_to_fsl(table.directions, affine) + 0.0
    bval = " ".join(f"{b:.10g}" for b in table.bvalues) + "\n"
    bvec = "".join(" ".join(f"{v:.10g}" for v in row) + "\n" for row in vectors.T)
    return bval, bvec


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _some(indices: Sequence[int] | Array, limit: int = 8) -> str:
    """Name volumes, counted from 0 as in every viewer."""
    shown = ", ".join(str(int(i)) for i in indices[:limit])
    return shown + (f" and {len(indices) - limit} more" if len(indices) > limit else "")
