"""Look at a scan's numbers once: what is not finite, empty or negative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.progress import Progress, silent
from napari_dmri.signal.blocks import blocks
from napari_dmri.signal.findings import Finding

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = ["check_voxels"]

Array = NDArray[Any]


def check_voxels(scan: Scan, *, progress: Progress | None = None) -> tuple[Finding, ...]:
    """Count voxels and volumes with numbers that cannot be fitted; each volume is read once.

    Parameters
    ----------
    scan
        The scan; its mask, where it has one, says which voxels are looked at.
    progress
        Who is told.

    Returns
    -------
    Findings, an ``"ok"`` one where there is nothing to say.
    """
    report = progress or silent
    volumes = scan.shape[3]
    voxels = broken = silent_voxels = 0
    bad, negative, filled = (np.zeros(volumes, np.int64) for _ in range(3))
    for block in blocks(scan, np.arange(volumes), scan.mask):
        finite = np.isfinite(block.signal)
        useful = finite & (block.signal != 0)
        voxels += len(finite)
        broken += int((~finite.all(1)).sum())
        silent_voxels += int((~useful.any(1)).sum())
        bad += (~finite).sum(0)
        filled += useful.sum(0)
        negative += (finite & (block.signal < 0)).sum(0)
        report(block.done, "reading volumes")
    if silent_voxels == voxels:
        words = f"All {voxels} voxels are zero, NaN or Inf in every volume: check the image file."
        return (Finding("error", "No signal", words),)
    found = []
    if broken:
        words = (
            f"{broken} of {voxels} voxels hold NaN or Inf, in {_named(bad > 0)}; fits leave these "
            "voxels out."
        )
        found.append(Finding("warning", "Values that are not finite", words, _listed(bad > 0)))
    if not filled.all():
        words = f"There is nothing but zeros in {_named(filled == 0)}; remove them from the scan."
        found.append(Finding("warning", "Empty volumes", words, _listed(filled == 0)))
    if negative.any():
        words = (
            f"{int(negative.sum())} values are below zero, in {_named(negative > 0)}; S/b0 counts "
            "them as 0 and logarithms raise them to a floor."
        )
        found.append(Finding("note", "Negative values", words, _listed(negative > 0)))
    return tuple(found) or (Finding("ok", "Signal", f"{voxels} voxels, all finite."),)


def _listed(where: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(where))


def _named(where: Array, limit: int = 8) -> str:
    """Name volumes, counted from 0."""
    indices = _listed(where)
    more = f" and {len(indices) - limit} more" if len(indices) > limit else ""
    some = ", ".join(str(i) for i in indices[:limit]) + more
    return f"volume {some}" if len(indices) == 1 else f"volumes {some}"
