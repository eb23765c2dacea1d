"""A record of what was accepted and rejected: one row a verdict, in a tab-separated file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COLUMNS", "VERDICTS", "append_verdict", "read_verdicts"]

VERDICTS = ("accept", "unsure", "reject")

COLUMNS = ("time", "scan", "path", "verdict", "note", "errors", "warnings", "version")


def append_verdict(
    record: Path,
    *,
    scan: str,
    verdict: str,
    path: Path | None = None,
    note: str = "",
    errors: int = 0,
    warnings: int = 0,
) -> Path:
    """Add a row to a record, which is made where there is none; earlier rows are kept as they are.

    Parameters
    ----------
    record
        The TSV file.
    scan, path
        The scan's name, and the file it came from.
    verdict
        One of `VERDICTS`.
    note
        Free text; tabs and line breaks become spaces.
    errors, warnings
        How many findings of these levels the checks gave.

    Raises
    ------
    InputError
        If the verdict is not known, the file is not such a record, or it cannot be written.
    """
    from napari_dmri import __version__

    if verdict not in VERDICTS:
        raise InputError(f"Verdict {verdict!r} is not known; choose {', '.join(VERDICTS)}.")
    rows = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    header = "\t".join(COLUMNS)
    if rows and rows[0] != header:
        raise InputError(
            f"{record} is not a QC record: its first line is {rows[0][:60]!r}, expected "
            f"{header!r}; choose another file or folder."
        )
    fields = (
        datetime.now(UTC).isoformat(timespec="seconds"),
        scan,
        "" if path is None else str(path),
        verdict,
        note,
        str(errors),
        str(warnings),
        __version__,
    )
    row = "\t".join(" ".join(field.split()) for field in fields)
    write_text(record, "\n".join([*(rows or [header]), row]) + "\n", overwrite=True)
    return record


def read_verdicts(record: Path) -> list[dict[str, str]]:
    """Read a record as one dict a row."""
    rows = [line.split("\t") for line in record.read_text(encoding="utf-8").splitlines()]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
