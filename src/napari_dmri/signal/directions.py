"""Measure how directions lie on the sphere: repeats, holes, balance and conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.signal.sh_fit import condition_number

if TYPE_CHECKING:
    from napari_dmri.scan import GradientTable, Shell

__all__ = [
    "ORDERS",
    "SAME_DEGREES",
    "condition_numbers",
    "distinct_axes",
    "duplicates",
    "largest_hole",
    "nearest_angles",
    "one_sidedness",
]

Array = NDArray[Any]

ORDERS = (2, 4, 6, 8)

SAME_DEGREES = 1.0
"""Directions closer than this, as axes, are one."""


def condition_numbers(directions: Array) -> dict[int, float]:
    """Return the condition number of the SH design for orders 2, 4, 6 and 8.

    Infinite where there are fewer directions than coefficients.
    """
    return {order: condition_number(directions, order) for order in ORDERS}


def duplicates(table: GradientTable, shell: Shell) -> tuple[tuple[int, ...], ...]:
    """Group the volumes of a shell that repeat a direction, as axes, within 1 degree."""
    directions = table.directions[shell.indices]
    near = np.abs(directions @ directions.T) > np.cos(np.deg2rad(SAME_DEGREES))
    groups, seen = [], set[int]()
    for i in range(len(directions)):
        if i in seen:
            continue
        group = [j for j in np.flatnonzero(near[i]).tolist() if j not in seen]
        seen.update(group)
        if len(group) > 1:
            groups.append(tuple(int(shell.indices[j]) for j in group))
    return tuple(groups)


def one_sidedness(directions: Array) -> float:
    r"""Measure how much vectors lie on one half of the sphere, :math:`\lVert \bar g \rVert`.

    0 for vectors that balance, 0.5 for ones spread evenly over a hemisphere.
    """
    return float(np.linalg.norm(np.asarray(directions).mean(0)))


def distinct_axes(directions: Array) -> Array:
    """Return the directions (n, 3) that differ from all before them, as axes, by over 1 degree."""
    kept: list[Array] = []
    for direction in directions:
        if all(abs(k @ direction) < np.cos(np.deg2rad(SAME_DEGREES)) for k in kept):
            kept.append(direction)
    return np.array(kept)


def nearest_angles(directions: Array) -> Array:
    """Return the angle (degrees) from each direction to the nearest other one, as axes."""
    cosines = np.abs(directions @ directions.T)
    np.fill_diagonal(cosines, 0)
    angles: Array = np.rad2deg(np.arccos(np.clip(cosines.max(1), 0, 1)))
    return angles


def largest_hole(directions: Array) -> tuple[float, Array]:
    """Return the radius (degrees) and centre of the largest cap that holds no direction."""
    count = 2000
    i = np.arange(count) + 0.5
    z = i / count
    phi = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    probes = np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)
    nearest = np.abs(probes @ directions.T).max(1)
    worst = int(np.argmin(nearest))
    return float(np.rad2deg(np.arccos(np.clip(nearest[worst], 0, 1)))), probes[worst]
