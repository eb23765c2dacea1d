"""Lists of training scans: a TSV of travelling pairs, or of two groups.

``pairs.tsv`` has the columns subject, source, target and, if wanted, source_mask, target_mask,
source_site, target_site, tissue (labels on the target's grid: 1 white matter, 2 grey matter);
``groups.tsv`` has site, scan and, if wanted, mask, subject, role ("source" or "target"). Paths are
relative to the TSV. Scans are opened when training asks for them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.images import ScalarImage
    from napari_dmri.scan import Scan

__all__ = [
    "Groups",
    "LazyPair",
    "LazyScan",
    "optional_file",
    "read_groups",
    "read_pairs",
    "read_rows",
    "required_file",
    "source_sites",
]


@dataclass(frozen=True)
class LazyScan:
    """Name a scan on disk, its mask, subject and site; `load` opens it."""

    path: Path
    mask: Path | None = None
    subject: str = ""
    site: str = ""

    def load(self) -> Scan:
        """Open the scan; what the TSV says of subject and site goes before its sidecar."""
        from napari_dmri.io import read_scan

        scan = read_scan(self.path, mask=self.mask)
        said = {"subject": self.subject, "site": self.site}
        metadata = {**scan.metadata, **{k: v for k, v in said.items() if v}}
        return replace(scan, metadata=metadata)


@dataclass(frozen=True)
class LazyPair:
    """Name one travelling subject's two scans; each is opened when it is asked for."""

    source_scan: LazyScan
    target_scan: LazyScan
    subject: str
    tissue_file: Path | None = None

    @property
    def source(self) -> Scan:
        """The scan at the source site."""
        return self.source_scan.load()

    @property
    def target(self) -> Scan:
        """The scan at the target site."""
        return self.target_scan.load()

    @property
    def tissue(self) -> ScalarImage | None:
        """Labels of tissue on the target's grid, 1 white matter and 2 grey matter, if given."""
        from napari_dmri.io import read_labels

        return None if self.tissue_file is None else read_labels(self.tissue_file)


@dataclass(frozen=True)
class Groups:
    """Hold the scans of two sites."""

    source: tuple[LazyScan, ...]
    target: tuple[LazyScan, ...]
    source_site: str
    target_site: str


def read_pairs(tsv: str | Path, source: str | None = None) -> list[LazyPair]:
    """Read a list of travelling pairs.

    Parameters
    ----------
    tsv
        The list.
    source
        Read only the rows of this ``source_site``; needed where the list has several.

    Raises
    ------
    InputError
        If a column or a file is missing (by row), the list has several source sites and none was
        chosen, a subject comes twice, or a scan is paired with itself.
    """
    path, rows = read_rows(tsv, ("subject", "source", "target"))
    rows = _of_source(path, rows, source)
    pairs: list[LazyPair] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        subject = row["subject"]
        if subject in seen:
            raise InputError(
                f"{path.name}, row {line}: subject {subject} stands in row {seen[subject]} "
                "already; give each travelling subject once."
            )
        seen[subject] = line
        scans = {}
        for role in ("source", "target"):
            scans[role] = LazyScan(
                required_file(path, line, role, row[role]),
                optional_file(path, line, f"{role}_mask", row),
                subject,
                row.get(f"{role}_site") or "",
            )
        if scans["source"].path == scans["target"].path:
            raise InputError(
                f"{path.name}, row {line}: source and target are the same file "
                f"({row['source']}); a pair needs a scan of each site."
            )
        tissue = optional_file(path, line, "tissue", row)
        pairs.append(LazyPair(scans["source"], scans["target"], subject, tissue))
    return pairs


def source_sites(tsv: str | Path) -> tuple[str, ...]:
    """List the source sites that a list of travelling pairs names."""
    _, rows = read_rows(tsv, ("subject", "source", "target"))
    return tuple(dict.fromkeys(row.get("source_site") or "" for _, row in rows))


def _of_source(
    path: Path, rows: list[tuple[int, dict[str, str]]], asked: str | None
) -> list[tuple[int, dict[str, str]]]:
    """Keep the rows of one source site."""
    sites = list(dict.fromkeys(row.get("source_site") or "" for _, row in rows))
    if asked is None:
        if len(sites) > 1:
            named = ", ".join(site or "(empty)" for site in sites)
            raise InputError(
                f"{path.name} has {len(sites)} source sites ({named}) and a model maps one; choose "
                "it (--source-site SITE, source=SITE), or keep its rows only."
            )
        return rows
    if asked not in sites:
        if sites == [""]:
            raise InputError(
                f"{path.name} names no source sites, so {asked!r} cannot be chosen; add a column "
                "source_site, or leave the choice out."
            )
        raise InputError(f"{path.name} has the source sites {', '.join(sites)}, not {asked!r}.")
    return [(line, row) for line, row in rows if (row.get("source_site") or "") == asked]


def read_groups(tsv: str | Path, source: str | None = None) -> Groups:
    """Read a list of two groups of scans.

    Parameters
    ----------
    tsv
        The list.
    source
        The source site; None takes the site of role "source", or the one that comes first.

    Raises
    ------
    InputError
        If there are not exactly two sites, a column or a file is missing (by row), or roles
        contradict each other.
    """
    path, rows = read_rows(tsv, ("site", "scan"))
    scans: dict[str, list[LazyScan]] = {}
    roles: dict[str, str] = {}
    seen: dict[Path, int] = {}
    for line, row in rows:
        site, role = row["site"], row.get("role") or ""
        if role and role not in ("source", "target"):
            raise InputError(
                f"{path.name}, row {line}: the role is {role!r}; expected 'source' or 'target'."
            )
        if role and roles.setdefault(site, role) != role:
            raise InputError(
                f"{path.name}, row {line}: {site} is {role} here and {roles[site]} above; a site "
                "has one role."
            )
        file = required_file(path, line, "scan", row["scan"])
        if file in seen:
            raise InputError(
                f"{path.name}, row {line}: {row['scan']} stands in row {seen[file]} already."
            )
        seen[file] = line
        mask = optional_file(path, line, "mask", row)
        scans.setdefault(site, []).append(LazyScan(file, mask, row.get("subject") or "", site))
    if len(scans) != 2:
        raise InputError(
            f"{path.name} lists {len(scans)} sites ({', '.join(scans)}); expected exactly two."
        )
    first = _source_site(path, list(scans), roles, source)
    second = next(site for site in scans if site != first)
    return Groups(tuple(scans[first]), tuple(scans[second]), first, second)


def _source_site(path: Path, sites: list[str], roles: dict[str, str], asked: str | None) -> str:
    if asked is not None:
        if asked not in sites:
            raise InputError(f"{path.name} has the sites {', '.join(sites)}, not {asked!r}.")
        return asked
    if len(roles) == 2 and len(set(roles.values())) == 1:
        raise InputError(
            f"{path.name}: both sites have the role {next(iter(roles.values()))!r}; one is the "
            "source and one the target."
        )
    for site, role in roles.items():
        if role == "source":
            return site
        return next(other for other in sites if other != site)
    return sites[0]


def read_rows(
    tsv: str | Path, needed: tuple[str, ...]
) -> tuple[Path, list[tuple[int, dict[str, str]]]]:
    """Read a TSV with some columns; rows are numbered as in the file, the header is row 1.

    Raises
    ------
    InputError
        If there is no such text file, a needed column is missing or empty, or it has no rows.
    """
    path = Path(tsv)
    if not path.is_file():
        raise InputError(f"No list at {path}; give a TSV with the columns {', '.join(needed)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not a text file in UTF-8; save the list as TSV."
        ) from error
    reader = csv.DictReader(text.splitlines(), delimiter="\t")
    columns = [c.strip() for c in reader.fieldnames or []]
    missing = [c for c in needed if c not in columns]
    if missing:
        raise InputError(
            f"{path.name} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(columns) or 'none'}: separate columns with tabs."
        )
    reader.fieldnames = columns
    rows = []
    for row in reader:
        values = {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}
        if not any(values.values()):
            continue
        for column in needed:
            if not values[column]:
                raise InputError(f"{path.name}, row {reader.line_num}: {column} is empty.")
        rows.append((reader.line_num, values))
    if not rows:
        raise InputError(f"{path.name} has a header and no rows; add one row a scan or pair.")
    return path, rows


def required_file(tsv: Path, line: int, column: str, value: str) -> Path:
    """Return the file that a row names, relative to the list.

    Raises
    ------
    InputError
        If there is none, by row.
    """
    found = (tsv.parent / Path(value).expanduser()).resolve()
    if not found.is_file():
        raise InputError(
            f"{tsv.name}, row {line}: no file at {value} ({column}); paths are relative to "
            f"{tsv.parent}."
        )
    return found


def optional_file(tsv: Path, line: int, column: str, row: dict[str, str]) -> Path | None:
    """Return the file that a row names, or None where the column is missing, empty or n/a."""
    value = row.get(column) or ""
    if value in ("", "n/a"):
        return None
    return required_file(tsv, line, column, value)
