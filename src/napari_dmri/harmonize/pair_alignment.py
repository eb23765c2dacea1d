r"""Whether the two scans of a pair lie on each other: a cheap look, before anything is learned.

Pairs on one grid are trained on as they lie, and a scan that is a voxel off teaches the network the
motion in place of the sites. So the source is moved by a voxel either way along each axis and
turned by two degrees about each, again as long as that helps, and the correlation of FA and the
energy of order 0 with the target's is compared. A move counts when it is better by `GAIN` than
where the scan lies *and* than the opposite move: interpolation removes noise, which alone lifts the
correlation, of both moves alike.

Measured on simulated pairs (order 4, b=1200): those of one person that lie as they should correlate
by 0.91 to 0.98 at all sites, and any move lowers that; shifted by a voxel by 0.80 to 0.88, turned
by two degrees by 0.88 to 0.93, and the move back is better by 0.02 at least; those of two people
by 0.42 to 0.74.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.harmonize.alignment import agreement, register_rigid
from napari_dmri.harmonize.plans import ALIGN, MIN_PAIR_OVERLAP
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from napari_dmri.harmonize.alignment import Channels

__all__ = [
    "GAIN",
    "LOW",
    "TURN",
    "as_it_lies",
    "farthest",
    "look_alike",
    "moved_by",
    "register_here",
]

Array = NDArray[Any]

GAIN = 0.02
"""Rise of the correlation that a move must bring to count."""

LOW = 0.85
"""Correlation below which a pair is warned about: what one person's keep above, and two's below."""

TURN = 2.0
"""Degrees by which the source is turned on trial."""

MOST = 10
"""Moves after which the look ends: the figures it gives are rough by then."""


def as_it_lies(
    target: Channels, source: Channels, subject: str, progress: Progress | None = None
) -> list[str]:
    """Look at a pair on one grid, and say what is wrong: nothing, or the numbers and the remedy.

    Parameters
    ----------
    target, source
        What alignment sees of both scans.
    subject
        The pair's label.
    progress
        Told before each move.
    """
    motion, before, after = _climb(target, source, progress or silent)
    if after == before:
        return look_alike(before, subject)
    how = moved_by(motion, target)
    if after < LOW:
        return look_alike(after, subject, f" with the source {how} ({before:.2f} as they lie)")
    return [
        f"{subject}: source and target are on one grid and look misaligned: as they lie their FA "
        f"and L0 correlate by {before:.2f}, with the source {how} by {after:.2f}; {ALIGN}."
    ]


def register_here(
    static: Channels, moving: Channels, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Find the rigid motion (static points to moving ones, mm) of two scans on one grid.

    It starts where the trial moves end: from where the scans lie, the optimiser stops short in thin
    slabs (measured in 12 slices: 1.3 mm short of a shift by 2.4 mm, and 0.1 mm from there).
    """
    rough = _climb(static, moving, progress or silent)[0]
    near = replace(moving, affine=np.linalg.inv(rough) @ moving.affine)
    found: NDArray[np.float64] = rough @ register_rigid(static, near, progress=progress)
    return found


def look_alike(correlation: float, subject: str, when: str = "") -> list[str]:
    """Say so where two scans, aligned as well as may be, look too little alike for one person's."""
    if correlation >= LOW:
        return []
    return [
        f"{subject}: FA and L0 of source and target correlate by no more than {correlation:.2f}"
        f"{when}, and one person's by {LOW:.2f} or more where they are aligned and not very noisy; "
        "look at both scans: they may be of two people, misaligned or distorted, or their "
        "directions poorly spread."
    ]


def moved_by(motion: Array, target: Channels) -> str:
    """Say how a motion (target points to source ones, mm) moves the source, at the brain's middle.

    The shift is along right, anterior and superior.
    """
    centre = _centre(target)
    shift = centre - (motion[:3, :3] @ centre + motion[:3, 3])
    cosine = (np.trace(motion[:3, :3]) - 1) / 2
    turn = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    along = ", ".join(
        f"{letter} {v + 0.0:+.1f}" for letter, v in zip("RAS", shift.round(1), strict=True)
    )
    words = []
    if (length := float(np.linalg.norm(shift))) >= 0.05:
        words.append(f"moved by about {length:.1f} mm ({along})")
    if turn >= 0.1:
        words.append(f"turned by about {turn:.1f} degrees")
    return " and ".join(words) or "left where it is"


def farthest(motion: Array, target: Channels) -> float:
    """Return how far (mm) a motion moves any corner of the box around the target's brain."""
    inside = np.argwhere(target.mask)
    ends = np.stack([inside.min(0), inside.max(0)])
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2], 1] for i, j, k in np.ndindex(2, 2, 2)])
    world = corners @ target.affine.T
    return float(np.linalg.norm((world @ motion.T - world)[:, :3], axis=1).max())


def _climb(
    target: Channels, source: Channels, report: Progress
) -> tuple[NDArray[np.float64], float, float]:
    """Move the source as long as it helps; return the motion, the correlation before and after."""
    motion = np.eye(4)
    before = best = agreement(target, source, motion)[0]
    ways = [(_shift(target, axis), _turn(target, axis)) for axis in range(3)]
    for _ in range(MOST):
        better: list[tuple[float, Array]] = []
        for way in (way for both in ways for way in both):
            report(0.5, "alignment")
            tried = [motion @ step for step in (way, np.linalg.inv(way))]
            found = [_correlation(target, source, one) for one in tried]
            n = int(np.argmax(found))
            if found[n] > max(best, min(found)) + GAIN:
                better.append((found[n], tried[n]))
        if not better:
            break
        best, motion = max(better, key=lambda entry: entry[0])
    return motion, before, best


def _correlation(target: Channels, source: Channels, motion: Array) -> float:
    """Correlate where both brains are; 0 where too little of them is left to tell."""
    correlation, overlap = agreement(target, source, motion)
    return correlation if overlap >= MIN_PAIR_OVERLAP else 0.0


def _shift(target: Channels, axis: int) -> NDArray[np.float64]:
    """Return the motion by a voxel along an axis of the grid (mm)."""
    motion = np.eye(4)
    motion[:3, 3] = target.affine[:3, axis]
    return motion


def _turn(target: Channels, axis: int) -> NDArray[np.float64]:
    """Return the turn by `TURN` degrees about a scanner's axis, through the brain's middle."""
    angle, centre = np.radians(TURN), _centre(target)
    b, c = (axis + 1) % 3, (axis + 2) % 3
    motion = np.eye(4)
    motion[b, b] = motion[c, c] = np.cos(angle)
    motion[c, b], motion[b, c] = np.sin(angle), -np.sin(angle)
    motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion


def _centre(target: Channels) -> NDArray[np.float64]:
    middle = np.append(np.argwhere(target.mask).mean(0), 1.0)
    centre: NDArray[np.float64] = (target.affine @ middle)[:3]
    return centre
