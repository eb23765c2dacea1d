"""Describe a scan in numbers and in words, and keep a record of who accepted it and why.

The record is a TSV that only grows: a later verdict on the same scan adds a row, and the last row
of a scan counts. Every append rewrites the file beside itself and renames it, so that a crash or a
full disk leaves the old record whole.
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan
    from napari_dmri.signal.findings import Finding

__all__ = [
    "DECISIONS",
    "Verdict",
    "append_verdict",
    "describe_lines",
    "describe_scan",
    "read_verdicts",
    "summarize_findings",
]

DECISIONS = ("accept", "reject", "unsure")
COLUMNS = ("scan", "decision", "note", "rater", "when", "findings")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _rater() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


@dataclass(frozen=True)
class Verdict:
    """One person's judgement of one scan.

    Parameters
    ----------
    scan
        The scan's path, or its name where it has none.
    decision
        ``"accept"``, ``"reject"`` or ``"unsure"``.
    note
        Free text; tabs and line breaks are kept.
    rater
        Who judged; the user's login name if not given.
    when
        UTC time, ISO 8601; now if not given.
    findings
        What the checks said, in short (see `summarize_findings`).

    Raises
    ------
    InputError
        If the decision is none of the three or no scan is named.
    """

    scan: str
    decision: str
    note: str = ""
    rater: str = field(default_factory=_rater)
    when: str = field(default_factory=_now)
    findings: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise InputError(
                f"The decision is {self.decision!r}; choose one of {', '.join(DECISIONS)}."
            )
        if not str(self.scan).strip():
            raise InputError("The verdict names no scan; give its path or name.")


def summarize_findings(findings: Iterable[Finding]) -> str:
    """Join the titles of findings that are not ok, e.g. ``"warning: Uneven directions"``."""
    return "; ".join(f"{f.level}: {f.title}" for f in findings if f.level != "ok")


def append_verdict(path: str | Path, verdict: Verdict) -> Path:
    """Add a verdict as the last row of a TSV, which is made with a header if it is not there.

    Raises
    ------
    InputError
        If the file has other columns, cannot be read as text, or cannot be written.
    """
    from napari_dmri.io.atomic import write_text

    path = Path(path).expanduser()
    before = _read(path) if path.exists() else "\t".join(COLUMNS) + "\n"
    if before and not before.endswith("\n"):
        before += "\n"
    row = "\t".join(_escape(str(getattr(verdict, name))) for name in COLUMNS)
    write_text(path, f"{before}{row}\n", overwrite=True)
    return path


def read_verdicts(path: str | Path) -> list[Verdict]:
    """Read all verdicts of a TSV, in the order they were given.

    Raises
    ------
    InputError
        If the file is missing, has other columns, or a row that is not whole.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no verdict file {path}; verdicts are written on first use.")
    verdicts = []
    for number, line in enumerate(_read(path).split("\n")[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise InputError(
                f"Line {number} of {path.name} has {len(cells)} cells; expected {len(COLUMNS)} "
                f"({', '.join(COLUMNS)}): repair or remove the line."
            )
        verdicts.append(Verdict(**dict(zip(COLUMNS, map(_unescape, cells), strict=True))))
    return verdicts


def describe_scan(
    scan: Scan, *, read: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Describe a scan as a dict that JSON can hold: grid, units, shells, directions, warnings.

    Condition numbers that are infinite (fewer directions than coefficients) come as None. With
    ``read``, every voxel is looked at too (see `check_voxels`).
    """
    from napari_dmri.signal.directions import condition_numbers
    from napari_dmri.signal.findings import LEVELS, check_scan
    from napari_dmri.signal.sh_fit import choose_order

    found = [*check_scan(scan)]
    if read:
        from napari_dmri.signal.voxels import check_voxels

        found += check_voxels(scan, progress=progress)
        found.sort(key=lambda finding: -LEVELS.index(finding.level))
    table = scan.gradients
    shells = []
    for shell in table.shells:
        entry: dict[str, Any] = {"bvalue": shell.bvalue, "count": shell.count, "b0": shell.is_b0}
        if not shell.is_b0:
            directions = table.directions[shell.indices]
            distinct = table.distinct_directions(shell.indices)
            entry["distinct_directions"] = distinct
            entry["order"] = choose_order(directions) if distinct >= 2 else None
            entry["condition_numbers"] = {
                str(order): round(value, 3) if np.isfinite(value) and value < 1e6 else None
                for order, value in condition_numbers(directions).items()
            }
        shells.append(entry)
    warnings = scan.metadata.get("warnings") or ()
    return {
        "name": scan.name,
        "path": str(scan.path) if scan.path is not None else None,
        "shape": list(scan.shape),
        "data_type": str(scan.data.dtype),
        "voxel_size": [round(float(size), 4) for size in scan.voxel_size],
        "orientation": scan.metadata.get("orientation"),
        "affine": [[round(float(value), 6) for value in row] for row in scan.affine],
        "volumes": scan.shape[3],
        "b0": int(table.b0_mask.sum()),
        "shells": shells,
        "summary": table.summary(),
        "mask": scan.mask is not None,
        "simulated": scan.simulated,
        "warnings": [str(warnings)] if isinstance(warnings, str) else [str(w) for w in warnings],
        "findings": [
            {
                "level": finding.level,
                "title": finding.title,
                "detail": finding.detail,
                "volumes": list(finding.volumes),
            }
            for finding in found
        ],
    }


def describe_lines(scan: Scan | dict[str, Any]) -> list[str]:
    """Describe a scan (or what `describe_scan` made of it) in lines of plain text."""
    about = scan if isinstance(scan, dict) else describe_scan(scan)
    x, y, z, volumes = about["shape"]
    size = " x ".join(f"{value:.2f}" for value in about["voxel_size"])
    stored = f", stored {about['orientation']}" if about["orientation"] else ""
    lines = [
        about["name"] + (" (simulated)" if about["simulated"] else ""),
        f"{x} x {y} x {z} voxels of {size} mm{stored}, {volumes} volumes, {about['data_type']}",
        about["summary"],
    ]
    for shell in about["shells"]:
        if shell["b0"]:
            continue
        numbers = ", ".join(
            f"{order}: {'singular' if value is None else f'{value:.3g}'}"
            for order, value in shell["condition_numbers"].items()
        )
        order = "no SH order" if shell["order"] is None else f"SH order up to {shell['order']}"
        lines.append(
            f"b={shell['bvalue']:g}: {shell['distinct_directions']} distinct directions, {order} "
            f"(condition numbers {numbers})"
        )
    lines += [
        f"{finding['level']}: {finding['title']}. {finding['detail']}"
        for finding in about["findings"]
        if finding["level"] != "ok"
    ]
    return lines


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} could not be read as text ({error}); choose another verdict file."
        ) from error
    text = text.replace("\r\n", "\n")
    header = text.split("\n", 1)[0]
    if text and tuple(header.split("\t")) != COLUMNS:
        raise InputError(
            f"{path} has the columns {header.split(chr(9))}; a verdict file has "
            f"{', '.join(COLUMNS)}: choose another file, this one is left as it is."
        )
    return text or "\t".join(COLUMNS) + "\n"


_CODES = (("\\", "\\\\"), ("\t", "\\t"), ("\r", "\\r"), ("\n", "\\n"))


def _escape(text: str) -> str:
    for plain, code in _CODES:
        text = text.replace(plain, code)
    return text


def _unescape(text: str) -> str:
    plain = {code: character for character, code in _CODES}
    return re.sub(r"\\[\\trn]", lambda match: plain[match.group()], text)
