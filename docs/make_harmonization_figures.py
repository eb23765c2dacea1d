"""What learned harmonization does to a lesion that no training subject had: table and picture.

Run from the repository root: ``python docs/make_harmonization_figures.py [MODEL ...]`` with models
of the package (``demo-shresnet`` and ``demo-linear-rish`` without it) or files. A subject that no
model has seen is simulated with and without a lesion at both sites, with the same noise. Writes
``benchmarks/results/lesion.tsv``, ``docs/images/harmonize_lesion.png`` (of the first model) and the
table in ``docs/harmonize.md``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from napari_dmri import Scan, fit_tensor
from napari_dmri.compare.evaluate import normalised_shell, signal_at
from napari_dmri.compare.metrics import nmse
from napari_dmri.compare.tables import Row, Table
from napari_dmri.harmonize import load, refit
from napari_dmri.harmonize.shipped import find_model
from napari_dmri.phantom.anatomy import Lesion
from napari_dmri.phantom.travelling import TravellingSubject, simulate_subject

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
SITES = ("ge_st", "prisma_st")
SUBJECT, SEED, SHELL, ORDER = 6, 7, 1200.0, 4
KINDS = {"none": None, "oedema": Lesion("oedema"), "CSF cavity": Lesion("csf")}
CHANGED = 0.2
"""Share of a voxel's tissue that the lesion must have changed for the voxel to count."""


@dataclass(frozen=True)
class Case:
    """Hold a subject with a lesion, where it is, and what the target site measured."""

    made: TravellingSubject
    inside: np.ndarray
    white: np.ndarray

    @property
    def source(self) -> Scan:
        """The scan to harmonize."""
        return self.made.scans[SITES[0]]

    @property
    def target(self) -> Scan:
        """The scan at the other site."""
        return self.made.scans[SITES[1]]


def make_cases() -> dict[str, Case]:
    """Simulate the subject without and with each lesion."""
    made = {
        kind: simulate_subject(SUBJECT, sites=SITES, seed=SEED, lesion=lesion)
        for kind, lesion in KINDS.items()
    }
    healthy = made["none"].truth.tissue
    cases = {}
    for kind, subject in made.items():
        # Without a lesion the oedema's voxels are measured, as a control.
        other = made["oedema" if kind == "none" else kind].truth.tissue
        inside = np.abs(other - healthy).max(-1) > CHANGED
        white = (healthy[..., 0] > 0.7) & ~inside & np.asarray(subject.scans[SITES[0]].mask)
        cases[kind] = Case(subject, inside & np.asarray(subject.scans[SITES[0]].mask), white)
    return cases


def measure(case: Case, scan: Scan, maps: dict[str, Any] | None = None) -> dict[str, float]:
    """Return NMSE of the signal, mean S/b0, MD and FA in the lesion, NMSE in white matter."""
    directions = case.target.gradients.directions[case.target.gradients.shell(SHELL).indices]
    signal = signal_at(scan, directions, SHELL, mask=case.inside | case.white)
    goal = normalised_shell(case.target, SHELL)
    tensor = fit_tensor(scan, mask=case.inside)
    values = {
        "NMSE lesion": nmse(signal, goal, case.inside),
        "NMSE WM": nmse(signal, goal, case.white),
        "S/b0": float(signal[case.inside].mean()),
        "MD (um2/ms)": 1000 * float(tensor.md[case.inside].mean()),
        "FA": float(tensor.fa[case.inside].mean()),
    }
    maps = maps or {}
    if "novelty" in maps:
        novel = maps["novelty"].data > 1
        values["novel, lesion"] = float(novel[case.inside].mean())
        values["novel, WM"] = float(novel[case.white].mean())
    if "source kept" in maps:
        values["kept, lesion"] = float(maps["source kept"].data[case.inside].mean())
        values["kept, WM"] = float(maps["source kept"].data[case.white].mean())
    return values


def rows_of(kind: str, case: Case, models: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Return a table row for each scan of a case, and what each model made of it."""
    repeat = case.made.repeats[SITES[1]]
    plain = {
        "source": case.source,
        "source, refitted": refit(case.source, ORDER),
        "target": case.target,
        "target repeat, refitted": refit(repeat, ORDER),
    }
    rows = [Row(kind, {"scan": name, **measure(case, scan)}) for name, scan in plain.items()]
    results = {}
    for name, model in models.items():
        both: tuple[dict[str, Any], ...] = ({},)
        if hasattr(model, "projection"):
            both = ({"projection": False}, {"projection": True})
        for given in both:
            result = model.apply_detailed(case.source, **given)
            label = model.card["label"] + (", projected" if given.get("projection") else "")
            values = measure(case, result.scan, result.maps)
            rows.append(Row(kind, {"scan": label, **values}))
            results.setdefault(name, result)
    return rows, results


def draw(cases: dict[str, Case], results: dict[str, Any], label: str) -> None:
    """Draw mean S/b0 before and after, what is left to the target, novelty and what was kept."""
    kinds = list(cases)
    figure, axes = plt.subplots(
        len(kinds), 6, figsize=(12.5, 2.35 * len(kinds)), layout="constrained"
    )
    for number, (row, kind) in enumerate(zip(axes, kinds, strict=True)):
        case, result = cases[kind], results[kind]
        middle = int(np.round(np.argwhere(case.inside)[:, 2].mean()))
        scans = (case.source, result.scan, case.target)
        means = [normalised_shell(s, SHELL).mean(-1)[..., middle] for s in scans]
        inside = np.asarray(case.source.mask)[..., middle]
        novelty, kept = (
            np.where(inside, result.maps[name].data[..., middle], np.nan)
            for name in ("novelty", "source kept")
        )
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 0.7}
        both: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -0.15, "vmax": 0.15}
        panels = [
            ("source", means[0], grey),
            (label, means[1], grey),
            ("target", means[2], grey),
            (f"{label} minus target", np.where(inside, means[1] - means[2], np.nan), both),
            (
                "novelty (above 1:\nunlike training voxels)",
                novelty,
                {"cmap": "magma", "vmin": 0, "vmax": 2},
            ),
            ("share of the source\nthat was kept", kept, {"cmap": "viridis", "vmin": 0, "vmax": 1}),
        ]
        for axis, (title, image, style) in zip(row, panels, strict=True):
            shown = axis.imshow(np.asarray(image).T, origin="lower", **style)
            if kind != "none":
                outline = case.inside[..., middle].T
                axis.contour(outline, [0.5], colors="#35c79a", linewidths=0.8)
            axis.set(xticks=[], yticks=[], title="" if number else title)
            axis.title.set_fontsize(9)
            if axis in row[2:]:
                figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
        row[0].set_ylabel("no lesion" if kind == "none" else kind, fontsize=9)
    figure.suptitle("Mean S/b0 at b = 1200 s/mm2, simulated; lesion outlined", fontsize=10)
    figure.savefig(DOCS / "images" / "harmonize_lesion.png", dpi=95)


def main() -> None:
    """Make the cases, apply the models, write table and picture."""
    names = sys.argv[1:] or ["demo-shresnet", "demo-linear-rish"]
    models = {name: load(find_model(name)) for name in names}
    cases = make_cases()
    rows: list[Row] = []
    first: dict[str, Any] = {}
    for kind, case in cases.items():
        more, results = rows_of(kind, case, models)
        rows += more
        first[kind] = results[names[0]]
    columns = ("scan", "NMSE lesion", "NMSE WM", "S/b0", "MD (um2/ms)", "FA")
    guards = ("novel, lesion", "novel, WM", "kept, lesion", "kept, WM")
    table = Table("", (*columns, *guards), tuple(rows), "lesion")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lesion.tsv").write_text(table.to_tsv(), encoding="utf-8")
    text = table.to_markdown()
    print(text)
    draw(cases, first, models[names[0]].card["label"])
    page = DOCS / "harmonize.md"
    if page.is_file():
        lines = "\n".join(line for line in text.splitlines() if line.startswith("|"))
        whole = page.read_text(encoding="utf-8")
        before, start, rest = whole.partition("<!-- lesion -->\n")
        _, end, after = rest.partition("<!-- end -->")
        filled = f"{before}{start}{lines}\n{end}{after}" if start and end else whole
        page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
