"""Choose how finely glyphs are drawn: by their size on the screen and what the machine holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from napari_dmri.viewer.glyphs.sphere import FREQUENCIES

__all__ = ["COARSEST", "HARDWARE", "SOFTWARE", "Budget", "choose_frequency"]

COARSEST, ENOUGH = 2, 3
"""The coarsest sphere there is, and the one on which a single sharp lobe still has its shape: even
the smallest glyphs are drawn on that, unless there are too many of them."""

HYSTERESIS = 1.25
"""The size must leave a level's range by this factor before the level changes."""

SPARE = 1.6
"""Few glyphs are drawn finer than they need to be by this factor."""


@dataclass(frozen=True)
class Budget:
    """Say what one redraw may cost.

    Parameters
    ----------
    triangles, moving
        Triangles of one redraw, at rest and while the mouse moves the camera.
    sharpness
        The frequency wanted is this times the root of the diameter in pixels.
    texels
        Stored radii at once.
    volume
        Glyphs of a whole volume in 3D.
    """

    triangles: float
    moving: float
    sharpness: float
    texels: int
    volume: int


SOFTWARE = Budget(triangles=2.2e6, moving=1e6, sharpness=0.85, texels=4_000_000, volume=20_000)
HARDWARE = Budget(triangles=60e6, moving=60e6, sharpness=1.3, texels=16_000_000, volume=200_000)


def choose_frequency(
    diameter: float,
    count: int,
    budget: Budget,
    current: int | None = None,
    moving: bool = False,
) -> int:
    """Choose the template for glyphs of a diameter in pixels.

    Parameters
    ----------
    diameter
        Of the glyph that just fits its voxel.
    count
        Glyphs to draw.
    budget
        What one redraw may cost.
    current
        The frequency drawn now, which stays unless the size is well outside its range.
    moving
        Whether the camera is being moved, when pictures must follow each other fast.
    """
    triangles = budget.moving if moving else budget.triangles
    affordable = sqrt(triangles / (20 * max(count, 1)))
    most = max((f for f in FREQUENCIES if f <= affordable), default=FREQUENCIES[0])
    most = max(most, COARSEST)
    wanted = max(float(ENOUGH), budget.sharpness * sqrt(max(diameter, 1.0)))
    if count * 20 * (SPARE * wanted) ** 2 < budget.triangles / 8:
        wanted *= SPARE
    nearest = _at_least(wanted)
    if current is not None and current <= most:
        stretch = sqrt(HYSTERESIS)
        if _at_least(wanted / stretch) <= current <= _at_least(wanted * stretch):
            return current
    return max(COARSEST, min(nearest, most))


def _at_least(wanted: float) -> int:
    """Return the lowest frequency that is not more than a fifth below what is wanted."""
    return next((f for f in FREQUENCIES if f >= 0.8 * wanted), FREQUENCIES[-1])
