"""Colours of plots, and which voxels of a map they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.images import ScalarImage

__all__ = ["Style", "region_of", "values_of"]


@dataclass(frozen=True)
class Style:
    """Colours of a plot, any matplotlib colours; the defaults suit white paper.

    `Style.dark` suits a dark window; a dock passes its theme's own colours.
    """

    background: str = "#ffffff"
    text: str = "#222222"
    grid: str = "#d0d0d0"
    first: str = "#0072b2"
    second: str = "#d55e00"
    third: str = "#009e73"
    line: str = "#444444"

    @classmethod
    def dark(cls) -> Style:
        """Return colours for a dark background."""
        return cls("#262930", "#f0f1f2", "#414851", "#56b4e9", "#e69f00", "#35c79a", "#b0b4ba")


def region_of(
    image: ScalarImage, mask: NDArray[Any] | None, first: ScalarImage
) -> NDArray[np.bool_]:
    """Return the voxels that count: the mask, or where the first map is finite and not zero."""
    if mask is None:
        base = np.asarray(first.data)
        return np.asarray(np.isfinite(base) & (base != 0))
    chosen = np.asarray(mask).astype(bool, copy=False)
    if chosen.shape != image.shape[:3]:
        raise InputError(
            f"The mask has shape {chosen.shape} and {image.name} {image.shape[:3]}; they must be "
            "on one grid."
        )
    return chosen


def values_of(
    image: ScalarImage, mask: NDArray[Any] | None, first: ScalarImage
) -> NDArray[np.float64]:
    """Return the finite values of a map in its region (n,)."""
    value = np.asarray(image.data)[region_of(image, mask, first)].astype(np.float64)
    return value[np.isfinite(value)]
