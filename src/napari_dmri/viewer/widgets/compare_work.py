"""What the Compare dock computes, without any window: maps, differences, regions, tables, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan

__all__ = ["Choice", "Compared", "compute", "image_limits", "save", "table_of"]

Source = Scan | ScalarImage

SH_MAPS = ("RISH0", "RISH2", "RISH4", "GFA", "residual")


@dataclass(frozen=True, eq=False)
class Choice:
    """What to compare: scans or maps with their names, which map, and against what.

    Parameters
    ----------
    a, b, reference
        Scans, or maps that are taken as they are.
    names
        What they are called, in this order.
    map_name, volume
        The map of each scan; the volume for ``"volume"``.
    mode
        ``"difference"``, ``"percent"`` or ``"ratio"``.
    order, smooth
        SH fit; order None takes the largest that all scans support.
    """

    a: Source
    b: Source
    names: tuple[str, ...]
    reference: Source | None = None
    map_name: str = "FA"
    volume: int | None = None
    mode: str = "difference"
    order: int | None = None
    smooth: float = 0.006

    @property
    def sources(self) -> tuple[Source, ...]:
        """A, B and, where given, the reference."""
        return (self.a, self.b) if self.reference is None else (self.a, self.b, self.reference)

    @property
    def scans(self) -> tuple[Scan, ...]:
        """Those of the sources that are scans."""
        return tuple(s for s in self.sources if isinstance(s, Scan))

    @property
    def kind(self) -> str:
        """What the maps are called together."""
        if not self.scans:
            return "map"
        return f"volume {self.volume}" if self.map_name == "volume" else self.map_name


@dataclass(frozen=True, eq=False)
class Compared:
    """Maps side by side, how they differ, and the tissue they are in.

    Parameters
    ----------
    choice
        What was asked for.
    comparison
        The maps (a `Comparison` of the core), named for titles.
    panels
        What is shown, left to right: the maps, then the differences (NaN outside the mask).
    tissue
        Tissue labels (X, Y, Z); None where no scan tells the tissue.
    mask
        Voxels that count (X, Y, Z).
    records
        Provenance of steps that the maps do not tell themselves.
    """

    choice: Choice
    comparison: Any
    panels: tuple[Any, ...]
    tissue: np.ndarray | None
    mask: np.ndarray
    records: tuple[Mapping[str, Any], ...] = ()


def check_grids(choice: Choice) -> None:
    """Refuse sources on different grids, with their numbers.

    Raises
    ------
    InputError
        If shapes or affines differ.
    """
    from napari_dmri.compare.maps import require_same_grid

    first = choice.sources[0]
    for other, name in zip(choice.sources[1:], choice.names[1:], strict=False):
        require_same_grid(first, other, "comparison", (choice.names[0], name))


def compute(
    choice: Choice, cache: Any, device: str = "auto", progress: Progress | None = None
) -> Compared:
    """Compute the maps, their differences and the tissue labels of a choice.

    Parameters
    ----------
    choice
        What to compare.
    cache
        A `MapCache`: fits are kept in it, so that the next map is quick.
    device, progress
        Where maps are computed; who is told.

    Raises
    ------
    InputError
        If the grids differ or a map cannot be computed.
    """
    from napari_dmri.compare.maps import common_order, compute_map
    from napari_dmri.compare.report import Comparison, tissue_provenance

    check_grids(choice)
    mask = _mask(choice, cache, part(progress, 0, 0.1))
    order = choice.order
    if order is None and choice.map_name in SH_MAPS and choice.scans:
        order = common_order(choice.scans)
    images = []
    step = 0.7 / len(choice.sources)
    for index, (source, name) in enumerate(zip(choice.sources, choice.names, strict=True)):
        start = 0.1 + index * step
        if isinstance(source, Scan):
            scan = _masked(source, choice, cache)
            image = compute_map(
                scan,
                choice.map_name,
                volume=choice.volume,
                order=order,
                smooth=choice.smooth,
                device=device,
                cache=cache,
                progress=part(progress, start, start + step, f"{name}: "),
            )
            images.append(replace(image, name=f"{choice.kind}: {name}"))
        else:
            _require_volume(source, name)
            images.append(replace(source, name=name))
    if mask is None:
        values = [np.nan_to_num(np.asarray(image.data)) for image in images]
        mask = np.logical_or.reduce([value != 0 for value in values])
    comparison = Comparison(choice.kind, *images)
    tissue, records = None, ()
    if choice.scans:
        scan = _masked(choice.scans[-1 if choice.reference is not None else 0], choice, cache)
        tissue = _tissue(scan, cache, device, part(progress, 0.8, 0.95))
        made = (s.metadata.get("provenance") for s in choice.scans)
        records = (*(record for record in made if record), tissue_provenance(scan.name))
    panels = tuple(_only_inside(p, mask, choice.kind) for p in comparison.panels(choice.mode))
    if progress is not None:
        progress(1.0, "done")
    return Compared(choice, comparison, panels, tissue, mask, records)


def table_of(
    compared: Compared, labels: np.ndarray | None = None, names: Mapping[int, str] | None = None
) -> Any:
    """Tabulate a comparison by tissue, or by labels (X, Y, Z) as they are painted now."""
    from napari_dmri.compare.maps import TISSUES
    from napari_dmri.compare.tables import comparison_table

    one = compared.comparison
    if labels is None and compared.tissue is not None:
        labels, names = compared.tissue, TISSUES
    return comparison_table(
        one.a, one.b, labels, reference=one.reference, names=names, mask=compared.mask
    )


def table_and_mask(
    compared: Compared, labels: np.ndarray | None, names: Mapping[int, str] | None
) -> tuple[Compared, Any, np.ndarray | None, str]:
    """Return the comparison, its table, the voxels that it counts, and what went wrong in words."""
    try:
        table = table_of(compared, labels, names)
    except InputError as error:
        return compared, None, None, str(error)
    regions = compared.tissue if labels is None else labels
    mask = compared.mask if regions is None else compared.mask & (np.asarray(regions) > 0)
    return compared, table, mask, ""


def image_limits(compared: Compared) -> tuple[float, float]:
    """Return contrast limits that suit all maps: 0 or the 0.5th, to the 99.5th percentile."""
    one = compared.comparison
    images = [one.a, one.b] + ([one.reference] if one.reference else [])
    values = np.concatenate([np.asarray(i.data)[compared.mask].ravel() for i in images])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    values = values[:: max(1, values.size // 200_000)]
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    low = 0.0 if values.min() >= 0 else low
    return (low, high) if high > low else (low, low + 1.0)


def difference_limits(compared: Compared) -> dict[float, tuple[float, float]]:
    """Return one symmetric pair of limits for all differences, by their centre (0, or 1)."""
    limits: dict[float, tuple[float, float]] = {}
    for panel in compared.panels:
        if panel.diverging:
            values = np.asarray(panel.image.data)
            values = np.abs(values[np.isfinite(values)] - panel.centre)
            reach = float(np.percentile(values, 99)) if values.size else 1.0
            before = limits.get(panel.centre, (panel.centre, panel.centre))
            reach = max(reach or 1e-6, before[1] - panel.centre)
            limits[panel.centre] = (panel.centre - reach, panel.centre + reach)
    return limits


FILES = {
    "figure": ("{kind}_figure.png",),
    "table": ("table.tsv",),
    "methods": ("methods.txt",),
}
"""What each export button writes; everything is `write_comparison`."""


def save(
    compared: Compared,
    folder: str | Path,
    what: str = "everything",
    *,
    labels: np.ndarray | None = None,
    label_names: Mapping[int, str] | None = None,
    position: tuple[int, int, int] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the figure, the table, the methods, or everything, into a folder.

    Nothing is overwritten, and nothing is left half-written.

    Raises
    ------
    InputError
        If a file of that name is there already, or the folder cannot be written to.
    """
    from napari_dmri.compare.folder import refuse_existing, staged_folder
    from napari_dmri.compare.report import write_comparison

    if what == "everything":
        used = compared.tissue if labels is None else labels
        return write_comparison(
            folder,
            [compared.comparison],
            labels=used,
            label_names=label_names,
            mode=compared.choice.mode,
            names=(compared.choice.names[0], compared.choice.names[1]),
            more_provenance=compared.records,
            progress=progress,
        )
    names = [name.format(kind=compared.choice.kind.replace(" ", "_")) for name in FILES[what]]
    target = refuse_existing(folder, names)
    with staged_folder(target) as staging:
        path = staging / names[0]
        if what == "figure":
            figure_of(compared, position).savefig(path, dpi=150)
        elif what == "table":
            path.write_text(table_of(compared, labels, label_names).to_tsv(), encoding="utf-8")
        else:
            path.write_text(methods_of(compared), encoding="utf-8")
    return [target / name for name in names]


def figure_of(compared: Compared, position: tuple[int, int, int] | None = None) -> Any:
    """Draw the panels in three planes through a voxel."""
    from napari_dmri.compare.figures import panel_figure

    return panel_figure(list(compared.panels), mask=compared.mask, position=position)


def methods_of(compared: Compared) -> str:
    """Say how the maps and differences were made, with parameters, versions and citations."""
    from napari_dmri.compare.report import methods_text

    made = [panel.image.provenance for panel in compared.panels]
    return methods_text([*compared.records, *made])


def _mask(choice: Choice, cache: Any, progress: Progress) -> np.ndarray | None:
    """Return the voxels that all scans have inside their masks; None where there is no scan."""
    from napari_dmri.signal.mask import brain_mask

    if not choice.scans:
        return None
    own = [scan.mask for scan in choice.scans if scan.mask is not None]
    if own:
        return np.logical_and.reduce(own)
    scan = choice.scans[0]
    progress(0.0, f"brain mask of {scan.name}")
    return np.asarray(cache.get(scan, "brain mask", lambda: brain_mask(scan, progress=progress)))


def _masked(scan: Scan, choice: Choice, cache: Any) -> Scan:
    """Return the scan with a mask, the same object each time, so that its fits stay cached."""
    if scan.mask is not None:
        return scan
    donor = next((s for s in choice.scans if s.mask is not None), choice.scans[0])

    def make() -> Scan:
        mask = donor.mask if donor.mask is not None else _mask(choice, cache, lambda f, t: None)
        return scan.with_mask(mask)

    # The copy is kept under the donor too: another mask is another fit.
    return cache.get(scan, ("masked by", id(donor)), make)


def _tissue(scan: Scan, cache: Any, device: str, progress: Progress) -> np.ndarray:
    from napari_dmri.compare.maps import compute_map, tissue_labels
    from napari_dmri.signal.tensor import fit_tensor

    def make() -> np.ndarray:
        compute_map(scan, "FA", device=device, cache=cache, progress=progress)
        tensor = cache.get(scan, "tensor", lambda: fit_tensor(scan, mask=scan.mask, device=device))
        return tissue_labels(tensor, b0=cache.get(scan, "b0", scan.mean_b0), mask=scan.mask)

    return cache.get(scan, "tissue", make)


def _only_inside(panel: Any, mask: np.ndarray, kind: str) -> Any:
    if not panel.diverging:
        return panel
    data = np.where(mask, np.asarray(panel.image.data, np.float32), np.float32(np.nan))
    title = f"{kind}: {panel.title}"
    return replace(panel, image=replace(panel.image, data=data, name=title), title=title)


def _require_volume(image: ScalarImage, name: str) -> None:
    if len(image.shape) != 3:
        raise InputError(
            f"{name} has shape {image.shape}; maps that are compared have one value in each "
            "voxel (x, y, z): choose another layer."
        )


def box_of(mask: np.ndarray, scale: np.ndarray, translate: np.ndarray) -> np.ndarray | None:
    """Return two corners (z, y, x) around a mask (X, Y, Z) with a margin of two voxels, in mm."""
    if not mask.any():
        return None
    found = np.array([(at.min() - 2, at.max() + 2) for at in np.nonzero(mask)], float).T[:, ::-1]
    return found * scale + translate
