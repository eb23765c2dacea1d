"""Several deconvolutions of one scan side by side, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.compare.maps import require_same_grid
from napari_dmri.compare.tables import Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.base import Deconvolution
    from napari_dmri.images import PeakImage

__all__ = ["MethodRun", "first_peak_angles", "method_table"]


@dataclass(frozen=True, eq=False)
class MethodRun:
    """Hold what one method made of a scan: its label, result, peaks, and how long it took (s)."""

    label: str
    result: Deconvolution
    peaks: PeakImage
    seconds: float


def first_peak_angles(first: PeakImage, second: PeakImage) -> NDArray[np.float32]:
    """Return the angle between the largest peaks of two images in degrees (X, Y, Z).

    NaN where one of them has no peak.

    Raises
    ------
    InputError
        If they are on different grids.
    """
    require_same_grid(first, second, "angles between peaks")
    a, b = (image.directions[..., 0, :].astype(np.float64) for image in (first, second))
    cosine = np.abs((a * b).sum(-1))
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    angles = np.rad2deg(np.arctan2(sine, cosine)).astype(np.float32)
    there = (first.amplitudes[..., 0] > 0) & (second.amplitudes[..., 0] > 0)
    return np.where(there, angles, np.float32(np.nan))


def method_table(runs: Sequence[MethodRun]) -> Table:
    """Compare deconvolutions of one scan; angles are to the first peaks of the first run.

    The residual and the peaks are of all voxels with an fODF; angles are of the half of them in
    which the first run finds most fibre density, as directions mean little elsewhere.
    """
    first = runs[0]
    density = first.result.fod.coefficients[..., 0]
    some = density > 0
    dense = some & (density >= np.median(density[some])) if some.any() else some
    column = f"angle to {first.label} (°)"
    rows = []
    for run in runs:
        inside = (run.result.fod.coefficients != 0).any(-1)
        angles = first_peak_angles(first.peaks, run.peaks)[dense]
        angles = angles[np.isfinite(angles)]
        residual = run.result.maps.get("residual")
        values = {
            "residual": _median(np.asarray(residual.data)[inside]) if residual else None,
            "peaks per voxel": float(run.peaks.count[inside].mean()) if inside.any() else None,
            column: _median(angles) if run is not first else None,
            "seconds": run.seconds,
            "voxels": int(run.result.voxels),
            "volumes": len(run.result.volumes),
        }
        rows.append(Row(run.label, values))
    notes = (
        "Residual: median over voxels of the root mean square of measured minus predicted signal, "
        "over the mean b0; methods that use fewer volumes explain fewer.",
        f"Angle: median between first peaks, in the half of the voxels with most fibre density in "
        f"{first.label}.",
    )
    title = f"Deconvolutions of {first.result.fod.name.split(' | ')[0]}"
    return Table(title, tuple(rows[0].values), tuple(rows), "method", notes)


def _median(values: NDArray[np.float32]) -> float | None:
    return float(np.median(values)) if values.size else None
