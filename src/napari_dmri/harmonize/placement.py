"""Put scale maps from the template onto a scan's grid, and say what was cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.harmonize.scale_maps import reach_beyond

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.harmonize.alignment import Warp
    from napari_dmri.harmonize.scale_maps import ScaleMaps

__all__ = ["at_cap", "onto_scan"]

Array = NDArray[Any]


def onto_scan(
    warp: Warp, maps: ScaleMaps, mask: Array, slab_axes: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Warp scale maps to a scan's grid; 1 where the template does not reach.

    Parameters
    ----------
    warp
        The map from the template to the scan.
    maps
        Scale maps on the template's grid.
    mask
        The scan's brain mask.
    slab_axes
        Axes along which the template is a slab; its end slices serve a little beyond its faces.

    Returns
    -------
    Scales (X, Y, Z, orders) on the scan's grid, and the voxels of its mask that have one.
    """
    wide, cover, widths = reach_beyond(maps.scales, maps.mask, slab_axes)
    grid = warp.grid.copy()
    grid[:3, 3] -= grid[:3, :3] @ widths
    onto = replace(warp, shape=cover.shape, grid=grid)
    warped = onto.to_moving(wide)
    covered = mask & (onto.to_moving(cover.astype(np.float32)) >= 0.5)
    # Beyond the template's image the warp reads zeros; a weight says how much was read.
    weight = onto.to_moving(np.ones(cover.shape, np.float32))
    scales = np.where(covered[..., None], warped / np.maximum(weight, 1e-3)[..., None], 1)
    return scales.astype(np.float32), covered


def at_cap(scales: Array, mask: Array, cap: tuple[float, float], name: str) -> str:
    """Say how many voxels of a scan have a scale at the cap; empty where none has."""
    low, high = cap
    inside = scales[mask]
    count = int(((inside <= low * 1.001) | (inside >= high * 0.999)).sum())
    if not count:
        return ""
    return f"{name}: {count} of {inside.size} voxels are at the cap of {low:g} to {high:g}."
