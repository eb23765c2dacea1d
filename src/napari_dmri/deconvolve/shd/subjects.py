"""Training subjects: in memory, or files that a list names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.images import ShImage
    from napari_dmri.scan import Scan

__all__ = ["LazySubject", "Subject", "read_subjects"]


@dataclass(frozen=True, eq=False)
class Subject:
    """Hold one training subject.

    Parameters
    ----------
    subject
        Its label.
    scan
        The scan; its mask says which voxels to learn from.
    responses
        Of this scan; None estimates them.
    target
        Known fODFs on the scan's grid, to learn from with supervision; None without.
    inputs
        Volumes that the network sees, to learn from few directions to explain all; None for all.
    """

    subject: str
    scan: Scan
    responses: ResponseSet | None = None
    target: ShImage | None = None
    inputs: Sequence[int] | NDArray[Any] | None = None


@dataclass(frozen=True)
class LazySubject:
    """Name the files of a training subject; `load` reads them."""

    subject: str
    path: Path
    mask: Path | None = None
    responses: dict[str, Path] | None = None
    fod: Path | None = None

    def load(self) -> Subject:
        """Read the scan, its mask, responses and fODFs."""
        from napari_dmri.io import read_scan, read_sh
        from napari_dmri.io.responses import read_response

        scan = read_scan(self.path, mask=self.mask)
        found = None
        if self.responses:
            bvalues = tuple(s.bvalue for s in scan.gradients.shells)
            found = ResponseSet(
                {
                    tissue: read_response(path, tissue=tissue, bvalues=bvalues)
                    for tissue, path in self.responses.items()
                }
            )
        target = None if self.fod is None else read_sh(self.fod)
        return Subject(self.subject, scan, found, target)


def read_subjects(tsv: str | Path) -> list[LazySubject]:
    """Read a list of training subjects.

    The columns are ``subject``, ``scan`` and, if wanted, ``mask``, ``wm``, ``gm``, ``csf``
    (response files; without ``wm`` responses are estimated) and ``fod`` (known fODFs). Paths are
    relative to the list. A subject may come several times, with another scan.

    Raises
    ------
    InputError
        If a column or a file is missing, a scan comes twice, or a response of another tissue comes
        without white matter's, by row.
    """
    from napari_dmri.harmonize.cohort import optional_file, read_rows, required_file

    path, rows = read_rows(tsv, ("subject", "scan"))
    subjects: list[LazySubject] = []
    seen: dict[Path, int] = {}
    for line, row in rows:
        file = required_file(path, line, "scan", row["scan"])
        if file in seen:
            raise InputError(
                f"{path.name}, row {line}: {row['scan']} stands in row {seen[file]} already."
            )
        seen[file] = line
        named = {t: optional_file(path, line, t, row) for t in ("wm", "gm", "csf")}
        given = {t: f for t, f in named.items() if f is not None}
        if given and "wm" not in given:
            raise InputError(
                f"{path.name}, row {line}: a response of {', '.join(given)} and none of wm; give "
                "white matter's as well, or none to have all estimated."
            )
        subjects.append(
            LazySubject(
                row["subject"],
                file,
                optional_file(path, line, "mask", row),
                given or None,
                optional_file(path, line, "fod", row),
            )
        )
    return subjects
