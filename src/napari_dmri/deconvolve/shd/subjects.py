"""Training subjects: in memory, or files that a list names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shd.shell_choice import choose_subset
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.images import ShImage
    from napari_dmri.scan import Scan

__all__ = ["LazySubject", "Subject", "read_seen", "read_subjects"]


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
    see: tuple[int, float | None] | None = None

    def load(self) -> Subject:
        """Read the scan, its mask, responses and fODFs.

        Raises
        ------
        InputError
            If a file is not what it must be, or the scan has no shell beside b0.
        """
        from napari_dmri.io import read_scan, read_sh
        from napari_dmri.io.responses import read_response

        scan = read_scan(self.path, mask=self.mask)
        if not scan.gradients.weighted_shells:
            raise InputError(
                f"{self.subject}: {scan.name} has {scan.gradients.summary()} and no "
                "diffusion-weighted shell; check its bval file."
            )
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
        seen = None if self.see is None else choose_subset(scan.gradients, *self.see)
        return Subject(self.subject, scan, found, target, seen)


def read_subjects(tsv: str | Path) -> list[LazySubject]:
    """Read a list of training subjects.

    The columns are ``subject``, ``scan`` and, if wanted, ``mask``, ``wm``, ``gm``, ``csf``
    (response files; without ``wm`` responses are estimated), ``fod`` (known fODFs) and ``see`` (the
    directions that the network sees of it, as `read_seen` takes them). Paths are relative to the
    list. A subject may come several times, with another scan.

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
        see = row.get("see") or "n/a"
        subjects.append(
            LazySubject(
                row["subject"],
                file,
                optional_file(path, line, "mask", row),
                given or None,
                optional_file(path, line, "fod", row),
                None if see == "n/a" else read_seen(see, f"{path.name}, row {line}"),
            )
        )
    return subjects


def read_seen(text: str, where: str) -> tuple[int, float | None]:
    """Read how many directions a network sees, and of which shell, for `choose_subset`.

    Parameters
    ----------
    text
        ``"30"``, of the shell with most directions, or ``"30@1000"``.
    where
        Who asks, for sentences.

    Raises
    ------
    InputError
        If it is written in another way.
    """
    number, at, shell = text.strip().partition("@")
    try:
        return int(number), float(shell) if at else None
    except ValueError:
        raise InputError(
            f"{where}: {text!r} does not say how many directions are seen; write 30, or 30@1000 "
            "for those of a shell."
        ) from None
