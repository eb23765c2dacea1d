"""What the user asks of the glyphs: one frozen value, and the numbers that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "EXTENTS", "GlyphStyle", "gains_of", "map_values"]

COLOURS = ("direction", "amplitude", "uniform", "map")
EXTENTS = ("three slices", "slab", "volume")
"""What 3D shows: orthogonal slices through the sliders' point, slices around it, or all of it."""


@dataclass(frozen=True, eq=False)
class GlyphStyle:
    """Hold the look of a glyph layer.

    Parameters
    ----------
    size
        1 makes the 95th percentile of the amplitudes just fit its voxel.
    clip, normalise
        Shrink glyphs that leave their voxel; make all glyphs fill their voxel.
    threshold
        Glyphs below this share of the 95th percentile are not drawn.
    where, where_above
        An image layer on the same grid; glyphs where it is not above the value are not drawn.
    order
        Degrees above this are left out; None keeps all.
    colour
        One of `COLOURS`.
    uniform
        Red, green, blue of ``"uniform"``.
    colormap
        Name of the colormap of ``"amplitude"``.
    colour_layer
        The image layer of ``"map"``, with its own colormap and contrast limits.
    negative
        Draw negative lobes, in white, or leave them out.
    outline
        Draw outlines only, which lets other glyphs below show through.
    lighting
        0 is flat, 1 is full.
    detail
        Frequency of the template sphere; None follows the size on the screen.
    basis
        The basis that the file's coefficients are in, whatever it was read as.
    extent, thickness
        What 3D shows, one of `EXTENTS`, and how many slices a slab has.
    """

    size: float = 1.0
    clip: bool = False
    normalise: bool = False
    threshold: float = 0.0
    where: Any = None
    where_above: float = 0.0
    order: int | None = None
    colour: str = "direction"
    uniform: tuple[float, float, float] = (1.0, 0.78, 0.2)
    colormap: str = "viridis"
    colour_layer: Any = None
    negative: bool = True
    outline: bool = False
    lighting: float = 1.0
    detail: int | None = None
    basis: str = "tournier07"
    extent: str = "three slices"
    thickness: int = 1


def gains_of(
    style: GlyphStyle, largest: NDArray[np.float32], reference: float, voxel: float
) -> NDArray[np.float64]:
    """Return the millimetres per unit of amplitude of each glyph (N,).

    Parameters
    ----------
    style
        Size, clipping and normalisation.
    largest
        The largest radius of each glyph (N,).
    reference
        The amplitude that just fits its voxel at size 1.
    voxel
        The shortest voxel edge (mm).
    """
    half = voxel / 2
    own = half / np.maximum(largest.astype(np.float64), 1e-300)
    if style.normalise:
        gains = style.size * own
    else:
        gains = np.full(len(largest), style.size * half / max(reference, 1e-300))
    return np.minimum(gains, own) if style.clip else gains


def map_values(layer: Any, voxels: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the values of an image layer at voxels (N,); None where it is on another grid."""
    data = layer.data
    try:
        if data.ndim == 4:
            data = data[int(np.clip(0, 0, data.shape[0] - 1))]
        return np.asarray(data)[tuple(voxels.T)].astype(np.float64)
    except (IndexError, TypeError, ValueError):
        return None
