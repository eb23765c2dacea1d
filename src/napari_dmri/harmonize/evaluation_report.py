r"""Tables, tests and box plots of a cross-validation.

The share of the gap that a method closes, of mean errors E over subjects, is

.. math:: \frac{E_{refitted} - E_{method}}{E_{refitted} - E_{floor}},

1 where it comes as near to the target as a second scan at the target site does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.scores import MEASURES
from napari_dmri.compare.statistics import bootstrap, holm, paired_test
from napari_dmri.compare.tables import Row, Table
from napari_dmri.harmonize.evaluation_rows import BASELINES, FLOOR, REFITTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CONTEXT", "Report", "report_tables", "write_report"]

TISSUES = ("WM", "GM")

LEAST_GAP = 0.05
"""Least gap, as a share of the refitted source's error, of which a part can be told."""

CONTEXT = (
    "Koppers et al. (2018) report mean drops against no harmonization of 35 / 29 % (signal), "
    "18 / 9 % (FA) and 40 / 28 % (MD) in WM / GM, on other subjects and scanners and from the raw "
    "source: context, not comparable."
)

Report = dict[str, Table]


def report_tables(
    scores: Sequence[Mapping[str, Any]],
    pairs: Sequence[tuple[str, str]] = (),
    *,
    simulated: bool = False,
    refused: Sequence[str] = (),
) -> Report:
    """Tabulate a cross-validation.

    Parameters
    ----------
    scores
        What `read_scores` returns.
    pairs
        Rows to compare, (a, b); none compares every SHResNet row with every other method's.
    simulated
        Whether the scans are, for the notes.
    refused
        What `read_refusals` returns, for the notes.

    Returns
    -------
    ``"subjects"``: every score; ``"mean"``: means over subjects; ``"gap"``: share of the gap closed
    with 95 % intervals; ``"tests"``: paired tests, corrected in families of signal and FA, and of
    MD, in both tissues.
    """
    names = _ordered({str(s["row"]) for s in scores})
    columns = [c for c in scores[0] if c not in ("subject", "row", "fold")]
    subjects = sorted({str(s["subject"]) for s in scores})
    note = ("Simulated scans. " if simulated else "") + CONTEXT
    every = Table(
        "Scores by subject",
        ("row", "fold", *columns),
        tuple(
            Row(str(s["subject"]), {"row": s["row"], "fold": s["fold"], **_pick(s, columns)})
            for s in sorted(scores, key=lambda s: (str(s["subject"]), names.index(str(s["row"]))))
        ),
        "subject",
    )
    mean = Table(
        f"Mean scores of {len(subjects)} subjects: NMSE, angle in degrees",
        ("subjects", *columns),
        tuple(_mean_row(name, _of(scores, name), columns) for name in names),
        "row",
        (note, *(f"Refused: {sentence}" for sentence in refused)),
    )
    report = {"subjects": every, "mean": mean}
    if REFITTED in names and FLOOR in names:
        report["gap"] = _gap_table(scores, [n for n in names if n not in BASELINES])
    chosen = list(pairs) or _default_pairs(names)
    tests = _test_table(scores, chosen)
    if tests.rows:
        report["tests"] = tests
    return report


def write_report(
    folder: str | Path,
    report: Report,
    scores: Sequence[Mapping[str, Any]],
    *,
    simulated: bool = False,
    overwrite: bool = True,
) -> list[Path]:
    """Write the tables as TSV and Markdown, and box plots of signal, FA and MD.

    Returns
    -------
    The files: a TSV a table, ``evaluation.md``, ``signal.png``, ``FA.png``, ``MD.png``.
    """
    from napari_dmri.compare.boxes import box_figure
    from napari_dmri.compare.folder import staged_folder
    from napari_dmri.io.atomic import write_text

    names = _ordered({str(s["row"]) for s in scores})
    order = [n for n in ("mean", "gap", "tests", "subjects") if n in report]
    files = []
    with staged_folder(folder, overwrite) as staging:
        for name in order:
            files.append(write_text(staging / f"{name}.tsv", report[name].to_tsv()))
        text = "\n".join(report[name].to_markdown() for name in order)
        files.append(write_text(staging / "evaluation.md", text))
        for measure in MEASURES:
            panels = {
                tissue: {
                    name: [float(s[f"{measure} {tissue}"]) for s in _of(scores, name)]
                    for name in names
                }
                for tissue in TISSUES
            }
            note = "Simulated travelling subjects" if simulated else ""
            figure = box_figure(panels, f"NMSE of {measure}", note=note)
            path = staging / f"{measure}.png"
            figure.savefig(path, dpi=120)
            files.append(path)
    return [Path(folder) / path.name for path in files]


def closed(
    scores: Sequence[Mapping[str, Any]], row: str, column: str
) -> tuple[float, float, float]:
    """Return the share of the gap that a row closes, and its 95 % interval over subjects."""
    values = [_by_subject(scores, name, column) for name in (REFITTED, row, FLOOR)]
    subjects = sorted(set.intersection(*(set(v) for v in values)))
    if not subjects:
        return (float("nan"),) * 3
    refitted, own, floor = (np.array([v[s] for s in subjects]) for v in values)

    def share(rows: Any) -> Any:
        gap = (refitted - floor)[rows].mean(-1)
        gain = (refitted - own)[rows].mean(-1)
        return np.divide(gain, gap, out=np.full_like(gain, np.nan), where=gap != 0)

    everyone = np.arange(len(subjects))[None]
    return float(share(everyone)[0]), *bootstrap(share, len(subjects))


def gap_of(scores: Sequence[Mapping[str, Any]], column: str) -> tuple[float, float, bool]:
    """Return the refitted source's and the floor's mean error, and whether a gap is between them.

    There is none where its 95 % interval over subjects has 0 in it, or where it is less than
    `LEAST_GAP` of the refitted source's error: a share of it would say nothing.
    """
    refitted, floor = (_by_subject(scores, name, column) for name in (REFITTED, FLOOR))
    subjects = sorted(set(refitted) & set(floor))
    if not subjects:
        return float("nan"), float("nan"), False
    a, b = (np.array([v[s] for s in subjects]) for v in (refitted, floor))
    low, high = bootstrap(lambda rows: (a - b)[rows].mean(-1), len(subjects))
    sure = low > 0 or high < 0
    there = sure and abs((a - b).mean()) >= LEAST_GAP * a.mean()
    return float(a.mean()), float(b.mean()), bool(there)


def _gap_table(scores: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    gaps = {column: gap_of(scores, column) for column in _measured()}
    rows = []
    for name in names:
        values: dict[str, float | int | str | None] = {}
        for column, (*_, there) in gaps.items():
            share, low, high = closed(scores, name, column)
            known = there and np.isfinite(share)
            values[column] = f"{share:.0%} ({low:.0%} to {high:.0%})" if known else "no gap"
        rows.append(Row(name, values))
    notes = [
        "Share of the gap between the refitted source and the refitted repeat of the target that a "
        "method closes, of mean errors over subjects, with 95 % bootstrap intervals."
    ]
    without = [
        f"{column} ({100 * a:.3g} % and {100 * b:.3g} %)"
        for column, (a, b, there) in gaps.items()
        if not there and np.isfinite(a)
    ]
    if without:
        notes.append(
            f"No gap to close in {', '.join(without)}: the refitted source is as near to the "
            "target as the target's own repeat is, or nearly."
        )
    return Table("Gap closed", _measured(), tuple(rows), "row", tuple(notes))


def _test_table(scores: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> Table:
    families = (("signal", "FA"), ("MD",))
    rows = []
    for a, b in pairs:
        for family in families:
            tests = []
            for column in [f"{m} {t}" for m in family for t in TISSUES]:
                first, second = (_by_subject(scores, name, column) for name in (a, b))
                subjects = sorted(set(first) & set(second))
                if len(subjects) < 2:
                    continue
                x, y = ([v[s] for s in subjects] for v in (first, second))
                tests.append((column, float(np.mean(y)), paired_test(x, y)))
            adjusted = holm([test.p for *_, test in tests])
            for (column, base, test), corrected in zip(tests, adjusted, strict=True):
                change = 100 / base if base else float("nan")
                rows.append(
                    Row(
                        f"{a} - {b}",
                        {
                            "measure": column,
                            "n": test.n,
                            "change %": test.mean * change,
                            "low %": test.low * change,
                            "high %": test.high * change,
                            "effect r": test.effect,
                            "r low": test.effect_low,
                            "r high": test.effect_high,
                            "p": test.p,
                            "p Holm": corrected,
                        },
                    )
                )
    titles = tuple(rows[0].values) if rows else ("measure",)
    note = (
        "Wilcoxon signed-rank tests, two-sided, over subjects; Holm within signal and FA (a family "
        "of 4) and within MD; change of the mean error against the second method with 95 % "
        "bootstrap interval; r is the rank-biserial correlation, -1 where the first is better in "
        "every subject."
    )
    return Table("Paired tests", titles, tuple(rows), "rows", (note,))


def _default_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return every SHResNet row against every other method's row and the refitted source."""
    ours = [n for n in names if n.startswith("SHResNet")]
    others = [n for n in names if n not in BASELINES and n not in ours]
    return [(a, b) for a in ours for b in (*others, REFITTED) if b in names]


def _measured() -> tuple[str, ...]:
    return tuple(f"{m} {t}" for m in MEASURES for t in TISSUES)


def _ordered(names: set[str]) -> list[str]:
    """Return rows from raw to refitted, methods, then repeats and truth."""
    first = [n for n in BASELINES[:2] if n in names]
    last = [n for n in BASELINES[2:] if n in names]
    return [*first, *sorted(names - set(BASELINES)), *last]


def _of(scores: Sequence[Mapping[str, Any]], row: str) -> list[Mapping[str, Any]]:
    return [s for s in scores if s["row"] == row]


def _by_subject(scores: Sequence[Mapping[str, Any]], row: str, column: str) -> dict[str, float]:
    found = {str(s["subject"]): float(s[column]) for s in _of(scores, row)}
    return {k: v for k, v in found.items() if np.isfinite(v)}


def _pick(score: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {c: score.get(c) for c in columns}


def _mean_row(name: str, those: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Row:
    means = {c: float(np.mean([float(s[c]) for s in those])) for c in columns}
    return Row(name, {"subjects": len(those), **means})
