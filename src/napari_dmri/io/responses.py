"""Response files, as MRtrix3 writes and reads them: text, a row a shell, zonal coefficients.

Rows rise with the b-value, b0 first; columns are l = 0, 2, ... L. Isotropic tissue has one column.
A comment ``# Shells: 0,1200`` says the b-values. White matter's file is the one that is named; grey
matter's and CSF's lie beside it: ``wm`` in its name becomes ``gm`` and ``csf``, and a name without
it (``resp.txt``) gets an ending (``resp_gm.txt``, ``resp_csf.txt``).
"""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import TISSUES, Response, ResponseSet
from napari_dmri.io.atomic import atomic_path, atomic_paths, full_suffix, stem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "read_response",
    "read_responses",
    "response_paths",
    "write_response",
    "write_responses",
]

MOST_BYTES = 1_000_000
"""A response file holds some hundred numbers; anything larger is something else."""


def read_response(
    path: str | Path,
    *,
    tissue: str | None = None,
    bvalues: Sequence[float] | None = None,
) -> Response:
    """Read the response of one tissue from a text file.

    Parameters
    ----------
    path
        The file.
    tissue
        ``"wm"``, ``"gm"`` or ``"csf"``; None takes the word that the file's name holds, else
        ``"wm"``.
    bvalues
        The shells (s/mm²), one a row; None takes those of the ``Shells`` comment, if there is one.

    Raises
    ------
    InputError
        If the file is missing or holds no table of numbers, the b-values do not fit its rows or do
        not rise, or a mean signal (l = 0) is negative.

    Warns
    -----
    DmriWarning
        If an isotropic tissue's file has coefficients above l = 0, which are left out.
    """
    path = Path(path).expanduser()
    rows, comments = _read_table(path)
    known = tissue or _tissue_of(path) or "wm"
    if known not in TISSUES:
        raise InputError(f"{path.name}: unknown tissue {known!r}; choose wm, gm or csf.")
    shells = bvalues if bvalues is not None else _shells_of(comments, path.name)
    if shells is not None:
        if len(shells) != len(rows):
            raise InputError(
                f"{path.name} has {len(rows)} rows and {len(shells)} b-values are given for them "
                f"({', '.join(f'{b:g}' for b in shells)}); a response has one row a shell."
            )
        if any(b <= a for a, b in pairwise(shells)) or min(shells) < 0:
            raise InputError(
                f"{path.name}: the b-values {', '.join(f'{b:g}' for b in shells)} do not rise; "
                "sort the rows by b-value, b0 first."
            )
    if (rows[:, 0] < 0).any():
        raise InputError(
            f"{path.name}: the mean signal (first column) is negative in "
            f"{int((rows[:, 0] < 0).sum())} of {len(rows)} rows, lowest {rows[:, 0].min():g}; "
            "this is no response: estimate one from the scan."
        )
    if known != "wm" and rows.shape[1] > 1:
        if rows[:, 1:].any():
            warnings.warn(
                f"{path.name}: the {known} response is isotropic; its {rows.shape[1] - 1} columns "
                "above l = 0 were left out.",
                DmriWarning,
                stacklevel=2,
            )
        rows = rows[:, :1]
    about = {"path": str(path), "simulated": comments.get("simulated", "").lower() == "true"}
    voxels = comments.get("voxels", "")
    return Response(
        rows,
        None if shells is None else tuple(float(b) for b in shells),
        known,
        int(voxels) if voxels.isdigit() else 0,
        about,
    )


def write_response(response: Response, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the response of one tissue as MRtrix3 reads it.

    Raises
    ------
    InputError
        If the target exists, or its folder cannot be written to.
    """
    path = Path(path).expanduser()
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(_text_of(response), encoding="utf-8")
    return path


def read_responses(path: str | Path) -> ResponseSet:
    """Read the responses of a scan: white matter's file and what lies beside it, or a folder.

    Parameters
    ----------
    path
        White matter's file, or a folder that holds one ``*wm*.txt`` and at most one ``*gm*.txt``
        and ``*csf*.txt`` each.

    Raises
    ------
    InputError
        If white matter's is missing or one of several, or a file cannot be used.
    """
    path = Path(path).expanduser()
    files = _in_folder(path) if path.is_dir() else _beside(path)
    found = {tissue: read_response(file, tissue=tissue) for tissue, file in files.items()}
    rows = {tissue: len(response.zonal) for tissue, response in found.items()}
    if len(set(rows.values())) > 1:
        words = ", ".join(f"{t} {n}" for t, n in rows.items())
        raise InputError(
            f"The responses at {path} have different numbers of shells ({words} rows); files of "
            "one set belong to one scan: remove those that do not."
        )
    names = ", ".join(file.name for file in files.values())
    return ResponseSet(found, notes=(f"responses read from {names}",))


def write_responses(
    responses: ResponseSet, path: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write white matter's response to the file that is named and the others beside it.

    Parameters
    ----------
    responses
        The set.
    path
        White matter's file; see the module for the others' names.
    overwrite
        Replace existing files; one of a tissue that the set does not have is removed, as it would
        be read as part of the set.

    Raises
    ------
    InputError
        If a file exists, or the folder cannot be written to.
    """
    targets = response_paths(path)
    stale = [p for tissue, p in targets.items() if tissue not in responses and p.exists()]
    if stale and not overwrite:
        raise InputError(
            f"{stale[0]} exists already and would be read as part of this set, which has no such "
            "tissue; choose another name, or say overwrite=True (--overwrite)."
        )
    files = [targets[tissue] for tissue in responses]
    with atomic_paths(files, overwrite) as temporaries:
        for temporary, response in zip(temporaries, responses.values(), strict=True):
            temporary.write_text(_text_of(response), encoding="utf-8")
    for old in stale:
        old.unlink()
    return files


def response_paths(path: str | Path) -> dict[str, Path]:
    """Return the file of each tissue that belongs to white matter's file.

    Examples
    --------
    >>> [p.name for p in response_paths("resp.txt").values()]
    ['resp.txt', 'resp_gm.txt', 'resp_csf.txt']
    >>> [p.name for p in response_paths("sub-01_WM.txt").values()]
    ['sub-01_WM.txt', 'sub-01_GM.txt', 'sub-01_CSF.txt']

    Raises
    ------
    InputError
        If the name says that it is another tissue's.
    """
    path = Path(path).expanduser()
    named = _tissue_of(path)
    if named in ("gm", "csf"):
        raise InputError(
            f"{path.name} is named as the {named} response; give white matter's file, the others "
            "are found beside it."
        )
    stem, suffix = stem_of(path), path.name[len(stem_of(path)) :]
    found = {"wm": path}
    for tissue in ("gm", "csf"):
        where = _word_in(stem, "wm")
        if where is None:
            name = f"{stem}_{tissue}"
        else:
            word = tissue.upper() if stem[where : where + 2].isupper() else tissue
            name = f"{stem[:where]}{word}{stem[where + 2 :]}"
        found[tissue] = path.with_name(name + suffix)
    return found


def _word_in(name: str, word: str) -> int | None:
    """Return where a word stands in a name: by itself rather than inside letters, the last one."""
    low = name.lower()
    alone = [m.start() for m in re.finditer(rf"(?<![a-z]){word}(?![a-z])", low)]
    if alone:
        return alone[-1]
    at = low.rfind(word)
    return at if at >= 0 and word == "wm" else None


def _tissue_of(path: Path) -> str | None:
    stem = stem_of(path)
    found = [(at, word) for word in TISSUES if (at := _word_in(stem, word)) is not None]
    return max(found)[1] if found else None


def _beside(path: Path) -> dict[str, Path]:
    targets = response_paths(path)
    return {t: p for t, p in targets.items() if t == "wm" or p.is_file()}


def _in_folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for tissue in TISSUES:
        files = sorted(p for p in folder.glob("*.txt") if _tissue_of(p) == tissue)
        if len(files) > 1:
            raise InputError(
                f"{folder} holds {len(files)} {tissue} responses "
                f"({', '.join(p.name for p in files[:4])}); name white matter's file instead."
            )
        if files:
            found[tissue] = files[0]
    if "wm" not in found:
        raise InputError(
            f"{folder} holds no *wm*.txt; name white matter's response file, or a folder with one."
        )
    return found


def _read_table(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Return the numbers (S, K) and the comments by their lower-case key."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; a response is a text file.")
    if not path.is_file():
        raise InputError(f"There is no response file {path}; check the path.")
    if path.stat().st_size > MOST_BYTES or full_suffix(path) in (".nii", ".nii.gz", ".mif"):
        raise InputError(
            f"{path.name} ({path.stat().st_size} bytes) is no response file; expected a short text "
            "with one row of numbers a shell."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(
            f"{path.name} is not text; a response file holds one row of numbers a shell."
        ) from None
    rows: list[list[float]] = []
    comments: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        key, colon, value = comment.partition(":")
        if colon:
            comments.setdefault(key.strip().lower(), value.strip())
        if not text.strip():
            continue
        try:
            rows.append([float(word) for word in text.replace(",", " ").split()])
        except ValueError:
            raise InputError(
                f"{path.name}, line {number}: {text.strip()[:40]!r} is no row of numbers; a "
                "response file holds one row of numbers a shell."
            ) from None
    if not rows:
        raise InputError(f"{path.name} holds no numbers; expected one row a shell.")
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise InputError(
            f"{path.name} has rows of {min(lengths)} to {max(lengths)} numbers; all rows need the "
            "same count (l = 0, 2, ... L): fill up with zeros."
        )
    table = np.array(rows, np.float64)
    if not np.isfinite(table).all():
        raise InputError(
            f"{path.name} has {int((~np.isfinite(table)).sum())} values that are not finite; "
            "estimate the response again."
        )
    return table, comments


def _shells_of(comments: dict[str, str], name: str) -> list[float] | None:
    said = comments.get("shells")
    if not said:
        return None
    try:
        return [float(word) for word in said.replace(",", " ").split()]
    except ValueError:
        raise InputError(
            f"{name}: the comment 'Shells: {said[:40]}' holds no b-values; write them as "
            "'# Shells: 0,1200'."
        ) from None


def _text_of(response: Response) -> str:
    lines = []
    if response.bvalues is not None:
        lines.append(f"# Shells: {','.join(f'{b:g}' for b in response.bvalues)}")
    lines.append(f"# Tissue: {response.tissue}")
    if response.voxels:
        lines.append(f"# Voxels: {response.voxels}")
    if response.provenance.get("simulated"):
        lines.append("# Simulated: true")
    lines += [" ".join(f"{v:.10g}" for v in row) for row in response.zonal]
    return "\n".join(lines) + "\n"
