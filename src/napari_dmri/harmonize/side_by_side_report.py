"""Tables, figures and files of several harmonizers on one scan."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.blocks import EDGE, compare_in_blocks, cubes
from napari_dmri.compare.scores import MEASURES, SHORT
from napari_dmri.compare.statistics import holm
from napari_dmri.compare.tables import Row, Table
from napari_dmri.harmonize.side_by_side import MEASURED, REFIT, REPEAT
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_dmri.compare.panels import Panel
    from napari_dmri.harmonize.side_by_side import SideBySide

__all__ = [
    "BLOCK_NOTE",
    "brief",
    "draw",
    "panels_of",
    "score_table",
    "test_table",
    "write_side_by_side",
]

BLOCK_NOTE = (
    f"Differences are tested over cubes of {EDGE:g} mm of this one scan, taken as independent: "
    "they say whether a difference holds throughout this scan, and nothing about other people. "
    "For that, evaluate several subjects (harmonize evaluate --folds)."
)


def score_table(made: SideBySide) -> Table:
    """Tabulate scores by candidate; a model that failed has a row without numbers."""
    from napari_dmri.compare.scores import columns
    from napari_dmri.compare.tissue import TISSUES

    names = columns(made.order)
    rows = [
        Row(c.label, {**c.scores, "seconds": None if c.seconds is None else round(c.seconds, 2)})
        for c in made.candidates
    ]
    rows += [Row(label, dict.fromkeys((*names, "seconds"))) for label in made.failed]
    counts = ", ".join(
        f"{TISSUES[v]} {int((made.labels == v).sum())} voxels" for v in sorted(SHORT)
    )
    notes = [
        f"NMSE of S/b0, FA, MD and SH energies against {made.reference.name} as measured, at "
        f"b={made.bvalue:g} s/mm²; angle: median, in degrees. {counts}.",
        f"{REFIT}: the SH fit of the models (order {made.order}, lambda {made.smooth:g}) and no "
        f"model; it alone removes noise, so methods are judged from there, not from {MEASURED!r}.",
        *(
            [
                f"{REPEAT}: a second scan at the target site, refitted: as near as a method can be "
                "expected to come."
            ]
            if any(c.label == REPEAT for c in made.candidates)
            else []
        ),
        *made.notes,
        *(f"{label} was left out: {why}" for label, why in made.failed.items()),
    ]
    title = f"{made.source.name} against {made.reference.name}"
    return Table(title, (*names, "seconds"), tuple(rows), "method", tuple(notes))


def brief(scores: Table) -> Table:
    """Return the columns of signal, FA and MD only, and the seconds."""
    kept = tuple(c for c in scores.columns if c.split()[0] in (*MEASURES, "seconds"))
    return replace(scores, columns=kept)


def test_table(made: SideBySide) -> Table:
    """Tabulate how errors differ: each model and the refit, and each two models."""
    models = list(made.models)
    pairs = [(one, made[REFIT]) for one in models] + list(combinations(reversed(models), 2))
    blocks = cubes(made.labels.shape, made.source.voxel_size)
    found: list[tuple[str, dict[str, Any]]] = []
    for a, b in pairs:
        for measure in MEASURES:
            for value, tissue in SHORT.items():
                test = compare_in_blocks(
                    a.errors[measure], b.errors[measure], blocks, made.labels == value
                )
                values: dict[str, Any] = {
                    "measure": measure,
                    "tissue": tissue,
                    "NMSE": a.scores[f"{measure} {tissue}"],
                    "change %": 100 * test.change,
                    "low %": 100 * test.low,
                    "high %": 100 * test.high,
                    "blocks": test.blocks,
                    "p": test.p,
                }
                found.append((f"{a.label} against {b.label}", values))
    known = [n for n, (_, values) in enumerate(found) if np.isfinite(values["p"])]
    for n, p in zip(known, holm([found[n][1]["p"] for n in known]), strict=True):
        found[n][1]["p (Holm)"] = p
    columns = ("measure", "tissue", "NMSE", "change %", "low %", "high %", "blocks", "p (Holm)")
    rows = tuple(Row(name, {c: values.get(c) for c in columns}) for name, values in found)
    notes = (
        "Change of the squared error, below 0 where the first is nearer to the reference; 95 % "
        "interval by bootstrap, p by Wilcoxon's signed-rank test, corrected by Holm's rule over "
        f"all {len(known)} tests.",
        BLOCK_NOTE,
    )
    return Table("How the errors differ in this scan", columns, rows, "methods", notes)


def panels_of(made: SideBySide, maps: dict[str, Any], mode: str = "difference") -> list[Panel]:
    """Return what is shown: reference and each candidate, then each one's difference from it.

    Differences are NaN outside white and grey matter.
    """
    from napari_dmri.compare.maps import difference
    from napari_dmri.compare.panels import Panel

    inside = made.labels > 0
    reference = maps["reference"]
    plain = [Panel(image, label) for label, image in maps.items()]
    centre = 1.0 if mode == "ratio" else 0.0
    differences = []
    for label, image in maps.items():
        if label != "reference":
            title = f"{label} − reference"
            between = difference(image, reference, mode)
            data = np.where(inside, np.asarray(between.data), np.float32(np.nan))
            between = replace(between, data=data, name=title)
            differences.append(Panel(between, title, True, centre=centre))
    return [*plain, *differences]


def write_side_by_side(
    made: SideBySide,
    folder: str | Path,
    maps: Sequence[str] = ("FA", "MD"),
    *,
    scans: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Path]:
    """Write tables, a figure for each map, and how it was made, into a folder.

    Parameters
    ----------
    made
        The comparison.
    folder
        Where to; made if it is not there.
    maps
        Names of maps to draw.
    scans
        Whether to write the harmonized scans (b0 and the shell compared) as NIfTI.
    overwrite
        Replace earlier results.
    device, progress
        Where maps are computed; who is told.

    Returns
    -------
    The files, ``scores.tsv`` first.

    Raises
    ------
    InputError
        If results are there already or the folder cannot be written to.
    """
    from napari_dmri.compare.folder import refuse_existing, staged_folder
    from napari_dmri.compare.methods_text import methods_text
    from napari_dmri.compare.report import tissue_provenance
    from napari_dmri.io import write_scan
    from napari_dmri.io.atomic import write_text

    target = refuse_existing(folder, ("scores.tsv", "tests.tsv", "methods.txt"), overwrite)
    scores, tests = made.scores(), made.tests()
    records = [c.scan.metadata.get("provenance") or {} for c in made.models]
    records.append(tissue_provenance(made.reference.name))
    with staged_folder(target, overwrite) as staging:
        for n, name in enumerate(maps):
            inner = part(progress, n / len(maps), (n + 1) / len(maps), f"{name}: ")
            found = made.maps(name, device=device, progress=part(inner, 0, 0.6))
            inner(0.6, "drawing")
            draw(made, found, name).savefig(staging / f"{name}.png", dpi=110)
            records += [image.provenance for image in found.values()]
        write_text(staging / "scores.tsv", scores.to_tsv())
        write_text(staging / "tests.tsv", tests.to_tsv())
        write_text(staging / "comparison.md", f"{scores.to_markdown()}\n{tests.to_markdown()}")
        write_text(staging / "methods.txt", methods_text(records))
        if scans:
            for one in made.models:
                safe = "".join(c if c.isalnum() else "_" for c in one.label)
                write_scan(one.scan, staging / f"{safe}_dwi.nii.gz")
        written = sorted(p.relative_to(staging) for p in staging.rglob("*") if p.is_file())
    if progress is not None:
        progress(1.0, "written")
    return sorted((target / p for p in written), key=lambda p: p.name != "scores.tsv")


def draw(made: SideBySide, maps: dict[str, Any], name: str) -> Any:
    """Draw an axial slice: the reference and all rows above, their differences below."""
    from matplotlib.figure import Figure

    from napari_dmri.compare.panels import centre_of, draw_slice, limits_of
    from napari_dmri.compare.style import Style

    inside, style = made.labels > 0, Style()
    panels = panels_of(made, maps)
    plain = [p for p in panels if not p.diverging]
    differences = [p for p in panels if p.diverging]
    figure = Figure(figsize=(2.3 * len(plain) + 0.8, 6.0), layout="constrained")
    axes = figure.subplots(2, len(plain), squeeze=False)
    index = centre_of(inside, made.labels.shape)[2]
    common = limits_of(plain[0].image, inside)
    reach = max(limits_of(p.image, inside, diverging=True)[1] for p in differences)
    axes[1, 0].set_axis_off()
    for column, panel in enumerate(plain):
        drawn = draw_slice(
            axes[0, column], panel, "axial", index, limits=common, style=style, edges=not column
        )
        axes[0, column].set_title(panel.title, fontsize="medium")
    figure.colorbar(drawn, ax=list(axes[0]), shrink=0.8, pad=0.01).set_label(plain[0].image.units)
    for column, panel in enumerate(differences, 1):
        drawn = draw_slice(
            axes[1, column], panel, "axial", index, limits=(-reach, reach), style=style, edges=False
        )
        axes[1, column].set_title(panel.title.removesuffix(" − reference"), fontsize="small")
    bar = figure.colorbar(drawn, ax=list(axes[1]), shrink=0.8, pad=0.01)
    bar.set_label(" ".join(("− reference", plain[0].image.units)).strip())
    figure.suptitle(f"{name} of {made.source.name}, and what each lacks of {made.reference.name}")
    return figure
