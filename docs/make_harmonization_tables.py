"""Take the tables of a cross-validation into the repository and into docs/harmonize.md.

Run from the repository root: ``python docs/make_harmonization_tables.py NAME FOLDER``, with FOLDER
what ``napari-dmri harmonize evaluate --folds`` wrote and NAME one of default, gap_tissue,
gap_spatial, gap_global. Writes ``benchmarks/results/harmonize/NAME_*.tsv``, for the default gap the
box plots, and the tables between the page's markers; without arguments it fills the page from the
tables that are there.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "harmonize"
NAMES = ("default", "gap_tissue", "gap_spatial", "gap_global")
MEASURES = [f"{m} {t}" for m in ("signal", "FA", "MD") for t in ("WM", "GM")]
TABLES = ("mean", "gap", "tests", "subjects")
OURS, PROJECTED = "SHResNet n=2", "SHResNet n=2, projected"
PAIRS = (
    *(f"{OURS} - {other}" for other in ("Golkov", "Golkov with energy")),
    *(f"{OURS} - {other}" for other in ("LinearRISH", "source, refitted")),
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


def mean_table(name: str) -> str:
    """Return mean NMSE in percent."""
    rows = [
        [r["row"], r["subjects"], *(f"{100 * float(r[m]):.2f}" for m in MEASURES)]
        for r in read(name, "mean")
    ]
    return markdown(["NMSE, %", "subjects", *MEASURES], rows)


def gap_table(name: str) -> str:
    """Return the share of the gap that each method closes."""
    return markdown(
        ["gap closed", *MEASURES],
        [[r["row"], *(r[m] for m in MEASURES)] for r in read(name, "gap")],
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


def fill(page: str) -> str:
    """Put each table that there is between its markers."""
    for name in NAMES:
        for table, make in (("mean", mean_table), ("gap", gap_table), ("tests", test_table)):
            if read(name, table):
                before, start, rest = page.partition(f"<!-- {name} {table} -->\n")
                _, end, after = rest.partition("<!-- end -->")
                if start and end:
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
