"""Tables of an evaluation: mean over seeds with 95 % confidence, a table a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.tables import Row, Table
from napari_dmri.deconvolve.evaluation.plan import EVERY, SHIPPED, TAUGHT
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["confidence", "label_of", "result_tables", "scores_table", "write_results"]

COLUMNS = {
    "auc": ("PR-AUC", 4),
    "f1": ("F1", 4),
    "error": ("angular error (°)", 2),
    "fnr": ("FNR", 4),
    "fpr": ("FPR", 4),
    "error_1": ("one fibre (°)", 2),
    "error_crossing": ("crossings (°)", 2),
}

SCORES = (
    *("protocol", "method", "seed", "chosen", "threshold", "validation_f1", *COLUMNS),
    *("voxels", "train_seconds", "test_seconds"),
)


def confidence(values: Sequence[float]) -> tuple[float, float | None]:
    r"""Return the mean of some values and the half-width of its 95 % confidence interval.

    .. math:: t_{0.975,\,n-1}\; s / \sqrt{n}

    None for one value.

    Examples
    --------
    >>> confidence([1.0, 2.0, 3.0])
    (2.0, 2.484137711...)
    """
    from scipy.stats import t

    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if x.size < 2:
        return mean, None
    return mean, float(t.ppf(0.975, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))


def label_of(method: str) -> str:
    """Return a method's name for people."""
    from napari_dmri.deconvolve.registry import METHODS

    if method == SHIPPED:
        return "shipped (taught)"
    if method in TAUGHT:
        return f"{METHODS[TAUGHT[method]].label}, taught"
    return METHODS[method].label if method in METHODS else "true fODF"


def result_tables(cells: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """Put scores in a table a protocol, one row a method."""
    tables = {}
    for name, protocol in PROTOCOLS.items():
        own = [cell for cell in cells if cell["protocol"] == name]
        rows, lost = [], []
        for method in EVERY:
            seeds = [cell for cell in own if cell["method"] == method]
            if not seeds:
                continue
            scored = [cell for cell in seeds if "collapsed" not in cell]
            rows.append(Row(label_of(method), _mean_row(scored)))
            lost += [
                f"{label_of(method)}, seed {cell['seed']}: {cell['collapsed']}"
                for cell in seeds
                if cell not in scored
            ]
        if rows:
            count = next((cell["voxels"] for cell in own if "voxels" in cell), 0)
            notes = [
                f"{count} voxels of test subjects; thresholds and settings chosen on "
                "another subject; ± is the 95 % confidence interval of the mean over seeds.",
                "Angular error: over all true fibres, to the nearest peak, 90° without any.",
                *lost,
            ]
            if any(cell["method"] == SHIPPED for cell in own):
                notes.append(
                    "Shipped: the network that comes with the package, trained before on the true "
                    "fODFs of other simulated people."
                )
            tables[name] = Table(
                f"{name}: {protocol.summary}",
                tuple(rows[0].values),
                tuple(rows),
                "method",
                tuple(notes),
            )
    return tables


def _mean_row(cells: Sequence[Mapping[str, Any]]) -> dict[str, float | int | str | None]:
    """Return the means over seeds; nothing but their number where every training collapsed."""
    values: dict[str, float | int | str | None] = {
        "chosen": _words(cells[0]["chosen"]) if cells else "",
        "seeds": len(cells),
    }
    for key, (column, digits) in COLUMNS.items():
        values[column] = None
        if cells:
            mean, half = confidence([cell[key] for cell in cells])
            text = f"{mean:.{digits}f}"
            values[column] = text if half is None else f"{text} ± {half:.{digits}f}"
    minutes = [cell["train_seconds"] / 60 for cell in cells]
    values["training (min)"] = f"{np.mean(minutes):.1f}" if minutes else None
    return values


def scores_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Put every cell in one row, as the TSV keeps it."""
    rows = []
    for cell in sorted(cells, key=_place):
        values = {key: cell.get(key) for key in SCORES if key != "protocol"}
        values["chosen"] = "collapsed" if "collapsed" in cell else _words(cell["chosen"])
        rows.append(Row(str(cell["protocol"]), values))
    return Table("Evaluation", SCORES[1:], tuple(rows), "protocol")


def write_results(folder: Path, cells: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write ``scores.tsv`` (a row a cell) and ``tables.md`` into the evaluation's folder."""
    from napari_dmri.io.atomic import write_text

    texts = {
        "scores.tsv": scores_table(cells).to_tsv(),
        "tables.md": "\n".join(t.to_markdown() for t in result_tables(cells).values()),
    }
    for name, text in texts.items():
        write_text(folder / name, text, overwrite=True)
    return [folder / name for name in texts]


def _place(cell: Mapping[str, Any]) -> tuple[int, int, int]:
    return [*PROTOCOLS].index(cell["protocol"]), EVERY.index(cell["method"]), int(cell["seed"])


def _words(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in chosen.items())
