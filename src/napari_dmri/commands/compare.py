"""The verb that compares two scans, or two maps."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dmri.commands.console import (
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    emit,
    progress_bar,
)
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.compare.report import Comparison
    from napari_dmri.images import ScalarImage
    from napari_dmri.scan import Scan

__all__ = ["Mode", "compare", "read_regions"]


class Mode(str, Enum):
    """How two maps are set against each other."""

    difference = "difference"
    percent = "percent"
    ratio = "ratio"


def compare(
    a: Annotated[Path, typer.Argument(help="A scan or a map.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The baseline, on the same grid.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write into.", show_default=False)
    ],
    reference: Annotated[
        Path | None, typer.Option(help="What A and B are both compared with.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Regions; without them white matter, grey matter, CSF.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", help="Maps of scans, e.g. --map FA MD RISH2 (default: FA MD)."),
    ] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume, for --map volume.")] = None,
    mode: Annotated[Mode, typer.Option(help="What the third panel shows.")] = Mode.difference,
    order: Annotated[int | None, typer.Option(help="SH order of RISH, GFA, residual.")] = None,
    shell: Annotated[float | None, typer.Option(help="b-value of the SH fit (s/mm²).")] = None,
    mask: MaskOption = None,
    bval: Annotated[
        list[Path] | None,
        typer.Option(
            help="b-values that are not beside the scans: one file for all, or one each for A, B "
            "and the reference.",
            show_default=False,
        ),
    ] = None,
    bvec: Annotated[
        list[Path] | None, typer.Option(help="b-vectors, in the same way.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two scans or maps: panels, plots, a table by region, and the methods in words."""
    from napari_dmri.compare.folder import refuse_existing
    from napari_dmri.compare.report import write_comparison

    folder = refuse_existing(output, ("table.tsv", "methods.txt"), overwrite)
    paths = [a, b, *([reference] if reference else [])]
    tables = _gradient_files(bval, bvec, len(paths))
    regions: NDArray[Any] | None
    with progress_bar(quiet) as progress:
        inner = part(progress, 0, 0.8)
        if _are_scans(paths, given=bool(bval)):
            wanted = maps or ["FA", "MD"]
            found, regions, records = _of_scans(
                paths, tables, labels, mask, wanted, volume, order, shell, device, inner
            )
        else:
            if maps:
                raise InputError("--map is for scans; A and B are maps already: leave it out.")
            found, regions, records = _of_maps(paths, labels, mask)
        files = write_comparison(
            folder,
            found,
            labels=regions,
            label_names=_names(labels, regions),
            mode=mode.value,
            names=(found[0].a.name, found[0].b.name) if a.name != b.name else ("A", "B"),
            more_provenance=records,
            overwrite=overwrite,
            progress=part(progress, 0.8, 1),
        )
    text = (folder / "table.tsv").read_text(encoding="utf-8").splitlines()
    heading, *rows = (line.split("\t") for line in text)
    values = [[row[0], *map(_number, row[1:])] for row in rows]
    result = {"rows": [dict(zip(heading, row, strict=True)) for row in values], "files": files}
    emit(result, [*text, f"wrote {len(files)} files to {folder}"], json=json, quiet=quiet)


def _number(cell: str) -> float | None:
    """Return a cell's number; None where it has none."""
    return None if cell in ("", "n/a") else float(cell)


def _gradient_files(
    bval: Sequence[Path] | None, bvec: Sequence[Path] | None, count: int
) -> list[tuple[Path | None, Path | None]]:
    """Return the gradient files of each scan, (None, None) where they are beside it."""
    values, vectors = list(bval or ()), list(bvec or ())
    if len(values) != len(vectors) or len(values) not in (0, 1, count):
        raise InputError(
            f"{len(values)} --bval and {len(vectors)} --bvec files were given for {count} scans; "
            f"give one of each for all of them, or {count} in the order A, B, reference."
        )
    if not values:
        return [(None, None)] * count
    pairs = list(zip(values, vectors, strict=True))
    return [(pairs * count)[i] for i in range(count)]


def _are_scans(paths: Sequence[Path], given: bool) -> bool:
    """Tell scans from maps; with gradient files ``given``, any 4D image is a scan."""
    from napari_dmri.io import classify

    kinds = {path: classify(path) for path in paths}
    if set(kinds.values()) <= ({"scan", "series"} if given else {"scan"}):
        return True
    if set(kinds.values()) <= {"image", "labels"}:
        if given:
            raise InputError("--bval and --bvec are for scans; A and B are maps: leave them out.")
        return False
    listed = ", ".join(f"{path}: {kind}" for path, kind in kinds.items())
    raise InputError(f"Compare takes scans or 3D maps, all of one kind; these are {listed}.")


def _of_scans(
    paths: Sequence[Path],
    tables: Sequence[tuple[Path | None, Path | None]],
    labels: Path | None,
    mask: Path | None,
    wanted: Sequence[str],
    volume: int | None,
    order: int | None,
    shell: float | None,
    device: str,
    progress: Progress,
) -> tuple[list[Comparison], NDArray[Any], list[dict[str, Any]]]:
    from napari_dmri.compare.maps import (
        MAP_INFO,
        MapCache,
        common_order,
        compute_map,
        require_same_grid,
        tissue_labels,
    )
    from napari_dmri.compare.report import Comparison, tissue_provenance
    from napari_dmri.io import read_mask, read_scan
    from napari_dmri.signal.mask import brain_mask

    unknown = [name for name in wanted if name not in MAP_INFO]
    if unknown:
        raise InputError(f"Unknown map {', '.join(unknown)}; choose from {', '.join(MAP_INFO)}.")
    scans = [
        read_scan(path, bval=bval, bvec=bvec)
        for path, (bval, bvec) in zip(paths, tables, strict=True)
    ]
    base = scans[-1]
    for scan in scans[:-1]:
        require_same_grid(scan, base, "comparison")
    regions = None if labels is None else read_regions(labels, base)
    if mask is not None:
        inside = read_mask(mask, base)
    else:
        inside = brain_mask(base, progress=part(progress, 0, 0.1))
    scans = [scan.with_mask(inside) for scan in scans]
    records: list[dict[str, Any]] = []
    if regions is None:
        regions = tissue_labels(scans[-1], device=device, progress=part(progress, 0.1, 0.2))
        records.append(tissue_provenance(base.name))
    if any(MAP_INFO[name].needs == "sh" for name in wanted):
        order = order or common_order(scans, shell)
    cache = MapCache()
    found = []
    for done, name in enumerate(wanted):
        made: list[ScalarImage] = []
        for index, scan in enumerate(scans):
            at = (done + index / len(scans)) / len(wanted)
            inner = part(progress, 0.2 + 0.8 * at, 0.2 + 0.8 * at, f"{name}: ")
            made.append(
                compute_map(
                    scan,
                    name,
                    volume=volume,
                    order=order,
                    shell=shell,
                    device=device,
                    progress=inner,
                    cache=cache,
                )
            )
        found.append(Comparison(name, *made))
    return found, regions, records


def _of_maps(
    paths: Sequence[Path], labels: Path | None, mask: Path | None
) -> tuple[list[Comparison], NDArray[Any] | None, list[dict[str, Any]]]:
    import numpy as np

    from napari_dmri.compare.maps import require_same_grid
    from napari_dmri.compare.report import Comparison
    from napari_dmri.io import read_map, read_mask

    images = [read_map(path) for path in paths]
    for image in images[1:]:
        require_same_grid(images[0], image, "comparison")
    regions = None if labels is None else read_regions(labels, images[0])
    if mask is not None:
        inside = read_mask(mask, images[0])
        regions = inside.astype(np.int16) if regions is None else np.where(inside, regions, 0)
    return [Comparison("map", *images)], regions, []


def read_regions(path: Path, like: Scan | ScalarImage) -> NDArray[Any]:
    """Read labels on the grid of a scan or map."""
    import numpy as np

    from napari_dmri.compare.maps import require_same_grid
    from napari_dmri.io import read_labels

    image = read_labels(path)
    require_same_grid(image, like, "comparison", (f"the labels {path.name}", like.name))
    return np.asarray(image.data)


def _names(labels: Path | None, regions: NDArray[Any] | None) -> dict[int, str] | None:
    """Name regions of a labels file by number, those of the tissue rule by tissue."""
    if labels is not None:
        return {}
    if regions is not None and not (set(regions.ravel().tolist()) - {0, 1}):
        return {1: "mask"}
    return None
