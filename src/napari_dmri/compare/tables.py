"""Tables of results: rows with a name, columns with a name, and text forms of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.maps import require_same_grid
from napari_dmri.compare.metrics import correlation, mean_sd, nmse
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Row", "Table", "combine", "comparison_table", "label_names"]

Value = float | int | str | None


@dataclass(frozen=True)
class Row:
    """One named row; its values are by column name."""

    name: str
    values: Mapping[str, Value]

    def __getitem__(self, column: str) -> Value:
        return self.values[column]


@dataclass(frozen=True)
class Table:
    """Hold named rows under named columns.

    Parameters
    ----------
    title
        What the table is of, with units.
    columns
        Names of the columns after the row's own name.
    rows
        The rows; a value that a row lacks is empty.
    heading
        Name of the first column.
    notes
        Sentences to go below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    heading: str = "region"
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def cells(self) -> list[list[str]]:
        """Return every row as text: its name, then its values."""
        return [[r.name, *(_text(r.values.get(c)) for c in self.columns)] for r in self.rows]

    def to_tsv(self) -> str:
        """Return the table as tab-separated text with one header line."""
        lines = [[self.heading, *self.columns], *self.cells()]
        return "".join("\t".join(_plain(cell) for cell in line) + "\n" for line in lines)

    def to_markdown(self) -> str:
        """Return the table as Markdown, with its title above and its notes below."""
        lines = [f"**{self.title}**", ""]
        lines.append("| " + " | ".join([self.heading, *self.columns]) + " |")
        lines.append("|---" + "|---:" * len(self.columns) + "|")
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in r) + " |" for r in self.cells()]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON can hold it; values that are not finite become null."""
        rows = [
            {self.heading: r.name, **{c: _json(r.values.get(c)) for c in self.columns}}
            for r in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def comparison_table(
    a: ScalarImage,
    b: ScalarImage,
    labels: Any | None = None,
    *,
    reference: ScalarImage | None = None,
    names: Mapping[int, str] | None = None,
    mask: NDArray[Any] | None = None,
) -> Table:
    """Compare two maps region by region.

    Without a reference, B is the baseline: mean difference is A − B and NMSE that of A against B.
    With one, NMSE and correlation are given for A and for B against the reference.

    Parameters
    ----------
    a, b, reference
        Maps on one grid.
    labels
        Regions (X, Y, Z), integers, 0 is none; an array or an image. None: one region, the mask.
    names
        Region names by label; others are called ``"label 7"``.
    mask
        Voxels that count (X, Y, Z).

    Raises
    ------
    InputError
        If shapes differ, or no voxel is labelled.
    """
    arrays = [np.asarray(i.data) for i in (a, b, *([reference] if reference else []))]
    grid = arrays[0].shape
    regions = np.ones(grid[:3], np.int64) if labels is None else _array(labels)
    for image in (b, reference):
        if image is not None:
            require_same_grid(a, image, "table")
    if regions.shape != grid[:3]:
        raise InputError(
            f"The labels have shape {regions.shape} and the maps {grid[:3]}; paint them on, or "
            "resample them to, the maps' grid."
        )
    chosen = regions > 0 if mask is None else (regions > 0) & np.asarray(mask).astype(bool)
    if not chosen.any():
        raise InputError("The table needs at least one labelled voxel; paint or choose labels.")
    found, values = regions[chosen], [array[chosen] for array in arrays]
    known = dict(names or {}) if labels is not None else {1: "all"}
    rows = []
    for label in np.unique(found):
        region = [value[found == label] for value in values]
        if np.isfinite(np.stack(region)).all(0).any():
            rows.append(Row(known.get(int(label), f"label {label}"), _statistics(*region)))
    units = f" ({a.units})" if a.units else ""
    if not rows:
        raise InputError("No labelled voxel is finite in all maps; check the labels and the maps.")
    return Table(
        f"{a.name} and {b.name}{units}" + (f" against {reference.name}" if reference else ""),
        tuple(rows[0].values),
        tuple(rows),
    )


def label_names(labels: Any) -> dict[int, str]:
    """Name the labels that occur by their numbers."""
    return {int(v): f"label {int(v)}" for v in np.unique(_array(labels)) if v > 0}


def _statistics(
    a: NDArray[Any], b: NDArray[Any], reference: NDArray[Any] | None = None
) -> dict[str, Value]:
    finite = np.isfinite(a) & np.isfinite(b)
    if reference is not None:
        finite &= np.isfinite(reference)
        reference = reference[finite]
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    (mean_a, sd_a), (mean_b, sd_b) = mean_sd(a), mean_sd(b)
    values: dict[str, Value] = {
        "n": int(a.shape[0]),
        "mean A": mean_a,
        "SD A": sd_a,
        "mean B": mean_b,
        "SD B": sd_b,
        "mean A − B": float((a - b).mean()),
    }
    if reference is None:
        return {**values, "NMSE": nmse(a, b), "correlation": correlation(a, b)}
    mean_r, sd_r = mean_sd(reference)
    return {
        **values,
        "mean reference": mean_r,
        "SD reference": sd_r,
        "NMSE A": nmse(a, reference),
        "NMSE B": nmse(b, reference),
        "correlation A": correlation(a, reference),
        "correlation B": correlation(b, reference),
    }


def _array(labels: Any) -> NDArray[np.int64]:
    data = np.asarray(getattr(labels, "data", labels) if _is_image(labels) else labels)
    return data.astype(np.int64, copy=False)


def _is_image(labels: Any) -> bool:
    return isinstance(labels, ScalarImage)


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, int, str, np.integer)):
        return str(value)
    return "n/a" if np.isnan(value) else f"{float(value):.4g}"


def _plain(cell: str) -> str:
    return " ".join(cell.split())


def _json(value: Value) -> Value:
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def combine(tables: Sequence[Table], title: str, names: Sequence[str]) -> Table:
    """Put tables with the same columns one below the other, each row under its table's name."""
    rows = [
        Row(f"{name}: {row.name}", row.values)
        for name, table in zip(names, tables, strict=True)
        for row in table.rows
    ]
    return Table(title, tables[0].columns, tuple(rows), tables[0].heading)
