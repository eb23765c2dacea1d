"""Write a comparison to a folder: figures, tables, maps and the methods in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.figures import (
    Panel,
    Style,
    draw_bland_altman,
    draw_histogram,
    panel_figure,
)
from napari_dmri.compare.folder import refuse_existing, staged_folder
from napari_dmri.compare.maps import difference, require_same_grid
from napari_dmri.compare.methods_text import methods_text
from napari_dmri.compare.tables import Table, comparison_table
from napari_dmri.compare.tissue import CSF_MD, FA_LIMITS, TISSUES
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, silent
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Comparison", "methods_text", "tissue_provenance", "write_comparison"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One kind of map of A, of B, and of the reference where there is one."""

    kind: str
    a: ScalarImage
    b: ScalarImage
    reference: ScalarImage | None = None

    def panels(self, mode: str = "difference") -> list[Panel]:
        """Return what a figure shows: A | B | A − B, or A | B | R | A − R | B − R."""
        centre = 1.0 if mode == "ratio" else 0.0
        shown = [Panel(self.a, f"A: {self.a.name}"), Panel(self.b, f"B: {self.b.name}")]
        if self.reference is None:
            between = difference(self.a, self.b, mode)
            return [*shown, Panel(between, _short(mode, "A", "B"), True, centre=centre)]
        shown.append(Panel(self.reference, f"reference: {self.reference.name}"))
        for word, image in (("A", self.a), ("B", self.b)):
            between = difference(image, self.reference, mode)
            title = _short(mode, word, "reference")
            shown.append(Panel(between, title, True, centre=centre))
        return shown


def write_comparison(
    folder: str | Path,
    comparisons: Sequence[Comparison],
    *,
    labels: NDArray[Any] | None = None,
    label_names: Mapping[int, str] | None = None,
    mode: str = "difference",
    names: tuple[str, str] = ("A", "B"),
    more_provenance: Sequence[Mapping[str, Any]] = (),
    style: Style | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write figures (PNG), a table (TSV), maps (NIfTI) and ``methods.txt`` into a folder.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    comparisons
        Maps by kind, all on one grid.
    labels
        Regions (X, Y, Z); None: the voxels where the first map is not zero.
    label_names
        Names of the regions; None: the tissues.
    mode
        ``"difference"``, ``"percent"`` or ``"ratio"``.
    names
        What A and B are called in plots.
    more_provenance
        Steps that the maps do not tell themselves: harmonization, labels.
    style
        Colours; None: for white paper.
    overwrite
        Replace earlier results.
    progress
        Who is told; it may stop the work, and nothing is left then.

    Returns
    -------
    The files, ``table.tsv`` first.

    Raises
    ------
    InputError
        If there is nothing to compare, grids differ, or results are there already.
    """
    from napari_dmri.io import write_map
    from napari_dmri.io.atomic import write_json, write_text

    if not comparisons:
        raise InputError("There is nothing to compare; choose at least one map.")
    first = comparisons[0].a
    for one in comparisons:
        for image in (one.a, one.b, one.reference):
            if image is not None:
                require_same_grid(first, image, "comparison", ("A", image.name))
    known = TISSUES if label_names is None and labels is not None else label_names
    report = progress or silent
    target = refuse_existing(folder, ("table.tsv", "methods.txt"), overwrite)
    mask = None if labels is None else np.asarray(labels) > 0
    tables: list[tuple[str, Table]] = []
    records: list[Mapping[str, Any]] = list(more_provenance)
    with staged_folder(target, overwrite) as staging:
        for done, one in enumerate(comparisons):
            report(done / len(comparisons), f"comparing {one.kind}")
            inside = mask if mask is not None else _not_zero(one.a)
            tables.append((one.kind, _table(one, labels, known, inside)))
            panels = one.panels(mode)
            figure = panel_figure(panels, mask=inside, title=one.kind, style=style)
            figure.savefig(staging / f"{one.kind}_panels.png", dpi=120)
            _plots(one, inside, names, style).savefig(staging / f"{one.kind}_plots.png", dpi=120)
            for word, image in _named(one, panels, mode):
                write_map(image, staging / f"{one.kind}_{word}.nii.gz")
                records.append(image.provenance)
        if labels is not None:
            regions = ScalarImage(np.asarray(labels).astype(np.int16), first.affine, "labels")
            write_map(regions, staging / "labels.nii.gz")
        table = _stacked(tables)
        write_text(staging / "table.tsv", table.to_tsv())
        write_text(staging / "table.md", table.to_markdown())
        write_text(staging / "methods.txt", methods_text(records))
        write_json(staging / "provenance.json", [dict(r) for r in records])
        made = sorted(p.relative_to(staging) for p in staging.rglob("*") if p.is_file())
    report(1.0, "written")
    return sorted((target / p for p in made), key=lambda p: p.name != "table.tsv")


def tissue_provenance(scan: str) -> dict[str, Any]:
    """Describe the tissue rule as a step."""
    parameters = {"csf_md": CSF_MD, "fa_limits": list(FA_LIMITS)}
    return provenance("tissue", parameters, {"scan": scan})


def _table(
    one: Comparison,
    labels: NDArray[Any] | None,
    names: Mapping[int, str] | None,
    mask: NDArray[np.bool_],
) -> Table:
    return comparison_table(one.a, one.b, labels, reference=one.reference, names=names, mask=mask)


def _stacked(tables: Sequence[tuple[str, Table]]) -> Table:
    from napari_dmri.compare.tables import combine

    if len(tables) == 1:
        return tables[0][1]
    kinds, found = [k for k, _ in tables], [t for _, t in tables]
    return combine(found, "Comparison of " + ", ".join(kinds), kinds)


def _plots(
    one: Comparison, mask: NDArray[np.bool_], names: tuple[str, str], style: Style | None
) -> Any:
    from matplotlib.figure import Figure

    look = style or Style()
    figure = Figure(figsize=(9.5, 3.6), layout="constrained", facecolor=look.background)
    left, right = figure.subplots(1, 2)
    shown = [one.a, one.b] + ([one.reference] if one.reference else [])
    words = [*names, "reference"][: len(shown)]
    draw_histogram(left, shown, mask=mask, names=words, style=look)
    other = one.reference or one.b
    # With a reference, what matters is how B agrees with it.
    pair = (one.b, other, (names[1], "reference")) if one.reference else (one.a, one.b, names)
    draw_bland_altman(right, pair[0], pair[1], mask=mask, names=pair[2], style=look)
    return figure


def _named(one: Comparison, panels: Sequence[Panel], mode: str) -> list[tuple[str, ScalarImage]]:
    if one.reference is None:
        words = ["A", "B", f"A-B_{mode}"]
    else:
        words = ["A", "B", "reference", f"A-reference_{mode}", f"B-reference_{mode}"]
    return [(word, panel.image) for word, panel in zip(words, panels, strict=True)]


def _short(mode: str, a: str, b: str) -> str:
    return {"difference": f"{a} − {b}", "percent": f"({a} − {b}) / {b}"}.get(mode, f"{a} / {b}")


def _not_zero(image: ScalarImage) -> NDArray[np.bool_]:
    data = np.asarray(image.data)
    return np.asarray(np.isfinite(data) & (data != 0))
