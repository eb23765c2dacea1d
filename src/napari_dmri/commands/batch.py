"""Many scans through one harmonizer: which files, which names, one row a scan."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.tables import Row, Table, combine
from napari_dmri.errors import InputError
from napari_dmri.io.atomic import full_suffix, stem_of
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.harmonize.base import Harmonization, Harmonizer
    from napari_dmri.harmonize.training_pairs import Recipe
    from napari_dmri.scan import Scan

__all__ = [
    "Job",
    "Outcome",
    "evaluate_pairs",
    "harmonize_all",
    "mask_beside",
    "on_one_grid",
    "plan_jobs",
    "summary_table",
]

SUFFIXES = (".nii.gz", ".nii", ".mif.gz", ".mif", ".nrrd", ".nhdr")


@dataclass(frozen=True)
class Job:
    """One scan to harmonize: where it is, its mask, and where the result goes.

    ``gradients`` are bval and bvec files that are not beside it; ``maps`` is a folder for the maps.
    """

    scan: Path
    mask: Path | None
    output: Path
    gradients: tuple[Path | None, Path | None] | None = None
    maps: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its notes, or why it failed."""

    job: Job
    seconds: float
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def output(self) -> Path:
        """Where the result is."""
        return self.job.output


def plan_jobs(
    scans: Sequence[Path],
    output: Path,
    mask: Path | None,
    overwrite: bool,
    *,
    gradients: tuple[Path | None, Path | None] | None = None,
    maps: bool = False,
) -> tuple[list[Job], Path | None]:
    """Find the scans and name their results, before any work.

    Returns
    -------
    The jobs, and the folder of the results; None when one scan goes to one file.

    Raises
    ------
    InputError
        If a path does not exist, no scan is found, two results would share a name, a result
        exists, or one mask or gradient table is given for several scans.
    """
    from napari_dmri.commands.console import refuse_file

    found: list[tuple[Path, Path]] = []
    for path in scans:
        if path.is_dir():
            inside = _scans_in(path)
            if not inside:
                raise InputError(f"No scan in the folder {path}; a scan has a gradient table.")
            found += [(scan, scan.relative_to(path).parent) for scan in inside]
        elif path.exists():
            found.append((path, Path()))
        else:
            raise InputError(f"No file or folder at {path}; check the path.")
    if mask is not None and len(found) > 1:
        raise InputError(
            f"One mask was given for {len(found)} scans; put each mask beside its scan as "
            "NAME_mask.nii.gz."
        )
    if gradients is not None and len(found) > 1:
        raise InputError(
            f"One gradient table was given for {len(found)} scans; put each bval and bvec file "
            "beside its scan."
        )
    if len(scans) == 1 and not scans[0].is_dir() and full_suffix(output) in SUFFIXES:
        target = output.expanduser()
        refuse_file(target, overwrite, source=scans[0])
        beside = _maps_beside(target, overwrite) if maps else None
        return [Job(scans[0], mask or mask_beside(scans[0]), target, gradients, beside)], None
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; several scans go to a folder.")
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for scan, below in found:
        suffix = ".nii.gz" if full_suffix(scan) in (".nrrd", ".nhdr") else full_suffix(scan)
        target = output.expanduser() / below / f"{stem_of(scan)}_harmonized{suffix}"
        if target in taken:
            raise InputError(
                f"{scan} and {taken[target]} would both become {target}; rename one, or harmonize "
                "them into different folders."
            )
        taken[target] = scan
        refuse_file(target, overwrite)
        beside = _maps_beside(target, overwrite) if maps else None
        jobs.append(Job(scan, mask or mask_beside(scan), target, gradients, beside))
    return jobs, output.expanduser()


def harmonize_all(
    model: Harmonizer,
    jobs: Sequence[Job],
    device: str,
    overwrite: bool,
    progress: Progress,
    *,
    alone: bool = False,
) -> list[Outcome]:
    """Harmonize each scan; a failure is noted and the next one begins.

    A scan that stands alone fails loudly instead. Cancelling stops everything.
    """
    from napari_dmri.io import read_scan, write_scan

    outcomes: list[Outcome] = []
    for done, job in enumerate(jobs):
        begun = time.monotonic()
        prefix = f"{job.scan.name}: "
        inner = part(progress, done / len(jobs), (done + 1) / len(jobs), prefix)
        try:
            bval, bvec = job.gradients or (None, None)
            scan = read_scan(job.scan, mask=job.mask, bval=bval, bvec=bvec)
            result = model.apply_detailed(scan, device=device, progress=inner)
            record = result.scan.metadata.get("provenance")
            write_scan(result.scan, job.output, overwrite=overwrite, provenance=record)
            if job.maps is not None:
                _write_maps(result, job.maps, overwrite)
        except (InputError, OSError, MemoryError) as error:
            if alone:
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            outcomes.append(Outcome(job, time.monotonic() - begun, error=text))
        else:
            outcomes.append(Outcome(job, time.monotonic() - begun, result.notes))
    return outcomes


def _write_maps(result: Harmonization, folder: Path, overwrite: bool) -> None:
    """Write the maps of a harmonization, all or none."""
    from napari_dmri.compare.folder import staged_folder
    from napari_dmri.io import write_map

    with staged_folder(folder, overwrite) as staging:
        for name, image in result.maps.items():
            write_map(image, staging / f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', name)}.nii.gz")


def summary_table(card: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Table:
    """Return one row a scan: done or failed, seconds, result, notes."""
    rows = tuple(
        Row(
            str(o.job.scan),
            {
                "status": "failed" if o.error else "done",
                "seconds": round(o.seconds, 2),
                "result": "" if o.error else str(o.output),
                "notes": o.error or " ".join(o.notes),
            },
        )
        for o in outcomes
    )
    title = f"{card.get('label')}: {card.get('source_site')} -> {card.get('target_site')}"
    return Table(title, ("status", "seconds", "result", "notes"), rows, "scan")


def evaluate_pairs(
    model: Harmonizer,
    pairs: Path,
    device: str,
    progress: Progress,
    source_site: str | None = None,
) -> tuple[Table, Table, list[Mapping[str, Any]]]:
    """Harmonize each pair's source and compare it with its target.

    Returns
    -------
    All subjects' tables in one, their mean, and the provenance of what was done.

    Raises
    ------
    InputError
        If a subject was trained on (before any work), or a pair on two grids cannot be aligned.
    """
    from napari_dmri.compare.evaluate import evaluate_harmonization
    from napari_dmri.harmonize import read_pairs, refuse_training_subject
    from napari_dmri.harmonize.cohort import source_sites
    from napari_dmri.harmonize.training_pairs import Recipe

    if source_site is None and model.card.get("source_site") in (sites := source_sites(pairs)):
        source_site = str(model.card["source_site"]) if len(sites) > 1 else None
    listed = read_pairs(pairs, source_site)
    repeats = _repeats(pairs)
    for pair in listed:
        refuse_training_subject(model, pair.subject)
    shells = model.card.get("shells") or [{"bvalue": model.card["shell"]}]
    top = max(shells, key=lambda entry: float(entry["bvalue"]))
    asked = (model.card.get("parameters") or {}).get("registration")
    recipe = Recipe(
        float(top["bvalue"]),
        int(top.get("order") or model.card["order"]),
        float(model.card.get("smooth", 0.006)),
        # Pairs whose header cannot be trusted are no better aligned when they are evaluated.
        registration="always" if asked == "always" else "rigid",
    )
    tables: list[Table] = []
    records: list[Mapping[str, Any]] = []
    for done, pair in enumerate(listed):
        share = (done / len(listed), (done + 1) / len(listed))
        inner = part(progress, *share, f"{pair.subject}: ")
        source, target = pair.source, pair.target
        refuse_training_subject(model, source)
        refuse_training_subject(model, target)
        repeat = repeats[pair.subject].load() if pair.subject in repeats else None
        source, repeat, labels = on_one_grid(source, target, repeat, pair.subject, recipe, device)
        harmonized = model.apply(source, device=device, progress=part(inner, 0, 0.7))
        records.append(harmonized.metadata.get("provenance", {}))
        tables.append(
            evaluate_harmonization(
                source,
                None,
                harmonized,
                target,
                repeat,
                labels,
                shell=float(top["bvalue"]),
                order=top.get("order"),
                smooth=float(model.card.get("smooth", 0.006)),
                device=device,
                progress=part(inner, 0.7, 1),
            )
        )
    label = str(model.card.get("label"))
    every = combine(tables, f"NMSE by subject ({label})", [pair.subject for pair in listed])
    return every, _mean(tables, label), records


def on_one_grid(
    source: Scan, target: Scan, repeat: Scan | None, subject: str, recipe: Recipe, device: str
) -> tuple[Scan, Scan | None, NDArray[np.int16] | None]:
    """Move source and repeat to the target's grid; labels, if any, are of where both then are."""
    from napari_dmri.compare.tissue import tissue_labels
    from napari_dmri.harmonize.evaluation_rows import on_grid

    moved = on_grid(source, target, subject, recipe, "source", device)
    again = repeat and on_grid(repeat, target, subject, recipe, "repeat", device)
    if moved is source and again is repeat:
        return source, repeat, None
    labels = tissue_labels(target, device=device).astype(np.int16)
    for scan, given in ((moved, source), (again, repeat)):
        if scan is not None and scan is not given and scan.mask is not None:
            labels[~scan.mask] = 0
    return moved, again, labels


def _mean(tables: Sequence[Table], label: str) -> Table:
    names = list(dict.fromkeys(row.name for table in tables for row in table.rows))
    rows = []
    for name in names:
        those = [row for table in tables for row in table.rows if row.name == name]
        values = {
            column: float(np.mean([_number(row.values[column]) for row in those]))
            for column in tables[0].columns
        }
        rows.append(Row(name, {"subjects": len(those), **values}))
    note = f"Mean NMSE of {len(tables)} subjects; the reference is each target scan as measured."
    columns = ("subjects", *tables[0].columns)
    return Table(f"NMSE ({label})", columns, tuple(rows), "scan", (note,))


def _number(value: Any) -> float:
    """Return a cell's number; NaN where it has none, so that no mean counts it as 0."""
    return float("nan") if value is None else float(value)


def _repeats(pairs: Path) -> dict[str, Any]:
    """Return the scans of an optional column ``target_repeat`` (or ``repeat``) by subject."""
    from napari_dmri.harmonize.cohort import LazyScan, optional_file, read_rows

    path, rows = read_rows(pairs, ("subject",))
    found = {}
    for line, row in rows:
        column = "target_repeat" if "target_repeat" in row else "repeat"
        file = optional_file(path, line, column, row)
        if file is not None:
            found[row["subject"]] = LazyScan(file, None, row["subject"])
    return found


def _scans_in(folder: Path) -> list[Path]:
    """Return files that are scans, and such as cannot be opened (their row says why)."""
    from napari_dmri.io import classify

    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(p.startswith(".") for p in path.relative_to(folder).parts)
        if hidden or not path.is_file() or full_suffix(path) not in SUFFIXES:
            continue
        try:
            kind = classify(path)
        except InputError:
            kind = "scan"
        if kind == "scan":
            found.append(path)
    return found


def _maps_beside(target: Path, overwrite: bool) -> Path:
    """Name the folder of a result's maps; refuse one that holds some."""
    folder = target.with_name(f"{stem_of(target)}_maps")
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists already and is not overwritten; choose another name or say "
            "--overwrite."
        )
    return folder


def mask_beside(scan: Path) -> Path | None:
    """Return the mask that lies beside a scan (NAME_mask), if there is one."""
    stem = stem_of(scan)
    for name in dict.fromkeys((stem, stem.removesuffix("_dwi"))):
        for ending in ("_mask", "_desc-brain_mask"):
            for suffix in (".nii.gz", ".nii"):
                path = scan.with_name(f"{name}{ending}{suffix}")
                if path.is_file():
                    return path
    return None
