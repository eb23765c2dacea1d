"""Take the tables of a cross-validation into the repository and into docs/harmonize.md.

Run from the repository root: ``python docs/make_harmonization_tables.py NAME FOLDER``, with FOLDER
what ``napari-dmri harmonize evaluate --folds`` wrote and NAME one of default, gap_tissue,
gap_spatial, gap_global, sweep, tiled, others. Writes ``benchmarks/results/harmonize/NAME_*.tsv``,
for the default gap the box plots, and the tables between the page's markers; without arguments it
fills the page from the tables that are there.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "harmonize"
NAMES = ("default", "gap_tissue", "gap_spatial", "gap_global", "sweep", "tiled", "others")
MEASURES = [f"{m} {t}" for m in ("signal", "FA", "MD") for t in ("WM", "GM")]
ENERGIES = [f"{m} {t}" for m in ("RISH0", "RISH2", "RISH4", "angle") for t in ("WM", "GM")]
TABLES = ("mean", "gap", "tests", "subjects")
OURS, PROJECTED = "SHResNet n=2", "SHResNet n=2, projected"
FAINT = "LinearRISH, lambda 1e-05"
"""LinearRISH on a fit that is hardly smoothed."""

VARIANTS = tuple(
    f"SHResNet n=2{kind}{end}" for kind in ("", " tiled", " MSE") for end in ("", ", projected")
)
PAPER_MSE = {1: "0.375", 2: "0.372", 3: "0.375", 6: "0.377", 7: "0.41", 9: "0.41", 11: "0.41"}
"""Mean squared error times 100 by number of blocks, Koppers et al., table 1."""
PAIRS = (
    *(f"{OURS} - {other}" for other in ("Golkov", "Golkov with energy")),
    *(f"{OURS} - {other}" for other in ("LinearRISH", FAINT, "source, refitted")),
    *(f"{PROJECTED} - {other}" for other in ("Golkov, projected", "Golkov", "LinearRISH")),
    f"{PROJECTED} - source, refitted",
)


def read(name: str, table: str) -> list[dict[str, str]]:
    """Return a table's rows, or none."""
    path = RESULTS / f"{name}_{table}.tsv"
    if not path.is_file():
        return []
    lines = [ln for ln in path.read_text(encoding="utf-8").splitlines() if not ln.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose numbers stand to the right."""
    rule = "|---|" + "---:|" * (len(columns) - 1)
    return "\n".join(
        ["| " + " | ".join(columns) + " |", rule, *(f"| {' | '.join(r)} |" for r in rows)]
    )


def means(name: str) -> list[dict[str, str]]:
    """Return the means of the rows that all subjects have; others would be of easier ones."""
    rows = read(name, "mean")
    every = max((int(r["subjects"]) for r in rows), default=0)
    return [r for r in rows if int(r["subjects"]) == every]


def mean_table(name: str) -> str:
    """Return mean NMSE in percent."""
    rows = [
        [r["row"], r["subjects"], *(f"{100 * float(r[m]):.2f}" for m in MEASURES)]
        for r in means(name)
    ]
    return markdown(["NMSE, %", "subjects", *MEASURES], rows)


def energy_table(name: str) -> str:
    """Return mean NMSE of the energies by order in percent, and angles in degrees."""
    rows = []
    for r in means(name):
        values = (float(r[m]) * (1 if m.startswith("angle") else 100) for m in ENERGIES)
        rows.append([r["row"], *(f"{v:.2f}" if v < 100 else f"{v:.0f}" for v in values)])
    heads = [m.replace("angle", "angle (°)") for m in ENERGIES]
    return markdown(["NMSE, %", *heads], rows)


def gap_table(name: str) -> str:
    """Return the share of the gap that each method closes."""
    whole = {r["row"] for r in means(name)}
    return markdown(
        ["gap closed", *MEASURES],
        [[r["row"], *(r[m] for m in MEASURES)] for r in read(name, "gap") if r["row"] in whole],
    )


def test_table(name: str) -> str:
    """Return the change of the mean error and p after Holm's correction, SHResNet n=2 alone."""
    cells: dict[str, dict[str, str]] = {}
    for r in read(name, "tests"):
        if r["rows"] in PAIRS:
            change, p = float(r["change %"]), float(r["p Holm"])
            cells.setdefault(r["rows"], {})[r["measure"]] = f"{change:+.1f} % ({p:.3f})"
    rows = [[pair, *(cells[pair].get(m, "") for m in MEASURES)] for pair in PAIRS if pair in cells]
    return markdown(["change of the error (p)", *MEASURES], rows)


def common_table(name: str, labels: dict[str, list[str]]) -> str:
    """Return mean NMSE in percent of some rows, each over the subjects that all of them scored."""
    scores: dict[str, dict[str, dict[str, str]]] = {}
    for r in read(name, "subjects"):
        if r["row"] in labels:
            scores.setdefault(r["row"], {})[r["subject"]] = r
    shared = sorted(set.intersection(*(set(of) for of in scores.values()))) if scores else []
    rows = []
    for label, more in labels.items():
        if label in scores:
            values = ([float(scores[label][s][m]) for s in shared] for m in MEASURES)
            means = [f"{100 * sum(v) / len(v):.3f}" for v in values]
            rows.append([label, str(len(shared)), *means, *more])
    return markdown(["NMSE, %", "subjects", *MEASURES], rows)


def variants_table(name: str) -> str:
    """Return the modes and losses of SHResNet with two blocks."""
    return common_table(name, {label: [] for label in VARIANTS})


def sweep_table(name: str) -> str:
    """Return the scores by number of blocks, with the paper's errors beside them."""
    table = common_table(name, {f"SHResNet n={n}": [mse] for n, mse in PAPER_MSE.items()})
    head, rule, *rows = table.splitlines()
    return "\n".join([f"{head} paper's MSE × 100 |", f"{rule}---:|", *rows])


def fill(page: str) -> str:
    """Put each table that there is between its markers."""
    makers = {
        "mean": ("mean", mean_table),
        "gap": ("gap", gap_table),
        "tests": ("tests", test_table),
        "variants": ("subjects", variants_table),
        "energies": ("mean", energy_table),
        "blocks": ("subjects", sweep_table),
    }
    for name in NAMES:
        for marker, (table, make) in makers.items():
            before, start, rest = page.partition(f"<!-- {name} {marker} -->\n")
            _, end, after = rest.partition("<!-- end -->")
            if start and end and read(name, table):
                page = f"{before}{start}{make(name)}\n{end}{after}"
    return page


def main() -> None:
    """Copy what was given, then fill the page."""
    if len(sys.argv) == 3:
        name, folder = sys.argv[1], Path(sys.argv[2])
        if name not in NAMES:
            raise SystemExit(f"Unknown name {name!r}; choose one of {', '.join(NAMES)}.")
        RESULTS.mkdir(parents=True, exist_ok=True)
        for table in TABLES:
            # One subject has no tests.
            if (folder / f"{table}.tsv").is_file():
                shutil.copy(folder / f"{table}.tsv", RESULTS / f"{name}_{table}.tsv")
        if name == "default":
            for measure in ("signal", "FA", "MD"):
                shutil.copy(folder / f"{measure}.png", DOCS / "images" / f"harmonize_{measure}.png")
    page = DOCS / "harmonize.md"
    page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
