"""Check a scan's gradient table and header, and say in words what is good and what is not.

Only numbers that are already in memory are looked at: a check takes milliseconds and never reads
the volumes. What needs the data has its own modules: `orientation`, `outliers`, `motion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.signal.directions import (
    ORDERS,
    SAME_DEGREES,
    condition_numbers,
    distinct_axes,
    duplicates,
    largest_hole,
    nearest_angles,
    one_sidedness,
)
from napari_dmri.signal.sh_fit import choose_order
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.scan import GradientTable, Scan, Shell

__all__ = ["Finding", "check_scan"]

Array = NDArray[Any]

LEVELS = ("ok", "note", "warning", "error")

MAX_CONDITION = 100.0
SINGULAR = 1e6
FEW_DIRECTIONS = 6
"""A tensor has six unknowns."""

ONE_SIDED = 0.35
"""A mean b-vector longer than this says that directions lie on one half of the sphere."""

UNEVEN_GAP = 1.8
"""Radius of the largest hole, over that of an even set, from which directions are uneven."""

SPREAD = 0.05
"""b-values within a shell that differ by more than this fraction are told."""

ANISOTROPY = 1.5
HIGH_B = 20_000.0


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that a check found.

    Parameters
    ----------
    level
        ``"ok"``, ``"note"``, ``"warning"`` or ``"error"`` (the scan cannot be used as it is).
    title
        A few words.
    detail
        One or two sentences with the numbers and what to do.
    volumes
        The volumes concerned.
    fix
        The name of a correction that can be applied, where there is one.
    """

    level: str
    title: str
    detail: str
    volumes: tuple[int, ...] = ()
    fix: str | None = None


def check_scan(scan: Scan) -> tuple[Finding, ...]:
    """Check shells, b0 volumes, directions and voxels; the worst findings come first.

    What the reader noticed (``scan.metadata["warnings"]``: vectors that were normalised, voxels
    that are not finite, suspicious b-values) is passed on as warnings.
    """
    table = scan.gradients
    found = [_shells(table), *_b0(table), *_bvalues(table)]
    for shell in table.weighted_shells:
        found += _directions(table, shell)
    found += [*_voxels(scan), *_size(scan)]
    found += [Finding("warning", _headline(text), str(text)) for text in _warnings(scan)]
    if scan.simulated:
        found.append(
            Finding(
                "note",
                "Simulated scan",
                "It was computed by a simulator and not measured: nobody was scanned.",
            )
        )
    return tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level)))


def _shells(table: GradientTable) -> Finding:
    shells = table.weighted_shells
    if not shells:
        return Finding(
            "error",
            "No diffusion weighting",
            f"All {len(table)} volumes have b <= 50 s/mm²: check the bval file.",
        )
    parts = [
        f"{shell.count} at b={shell.bvalue:g} ({table.distinct_directions(shell.indices)} distinct)"
        for shell in shells
    ]
    plural = "shell" if len(shells) == 1 else "shells"
    return Finding("ok", f"{len(shells)} {plural}", f"{'; '.join(parts)}.")


def _b0(table: GradientTable) -> list[Finding]:
    volumes = tuple(int(i) for i in np.flatnonzero(table.b0_mask))
    weighted = len(table) - len(volumes)
    if not volumes:
        return [
            Finding(
                "error",
                "No b0 volume",
                f"The lowest b-value is {table.bvalues.min():g} s/mm² (b0 means b <= 50): S/b0, "
                "the tensor and harmonization need one; add a b0 volume.",
            )
        ]
    if weighted > 10 * len(volumes):
        return [
            Finding(
                "note",
                f"Few b0 volumes ({len(volumes)})",
                f"{len(volumes)} b0 for {weighted} weighted volumes; noise in b0 enters every "
                "S/b0, and one for about 10 is usual.",
                volumes,
            )
        ]
    return [Finding("ok", f"{len(volumes)} b0 volumes", f"{len(volumes)} b0, {weighted} weighted.")]


def _bvalues(table: GradientTable) -> list[Finding]:
    found = []
    highest = float(table.bvalues.max(initial=0))
    if 0 < highest <= 50 and np.ptp(table.bvalues) > 0:
        found.append(
            Finding(
                "error",
                "b-values look like ms/µm²",
                f"The highest b-value is {highest:g}; in s/mm² it would be {highest * 1000:g}: "
                "multiply the bval file by 1000.",
                fix="scale b-values",
            )
        )
    high = np.flatnonzero(table.bvalues > HIGH_B)
    if high.size:
        found.append(
            Finding(
                "warning",
                "Very high b-values",
                f"{high.size} volumes have b up to {highest:g} s/mm²; b-values are expected in "
                "s/mm².",
                tuple(int(i) for i in high),
            )
        )
    between = np.flatnonzero((table.bvalues > 0) & table.b0_mask)
    if between.size:
        found.append(
            Finding(
                "note",
                "b0 volumes with some weighting",
                f"{between.size} b0 volumes have b up to {table.bvalues[between].max():g} s/mm²; "
                "they count as b0 (b <= 50).",
                tuple(int(i) for i in between),
            )
        )
    for shell in table.shells:
        values = table.bvalues[shell.indices]
        if not shell.is_b0 and np.ptp(values) > SPREAD * shell.bvalue:
            found.append(
                Finding(
                    "note",
                    f"b-values vary in the b={shell.bvalue:g} shell",
                    f"{values.min():g} to {values.max():g} s/mm² (SD {values.std():.0f}) are "
                    "treated as one shell.",
                    tuple(int(i) for i in shell.indices),
                )
            )
    return found


def _directions(table: GradientTable, shell: Shell) -> list[Finding]:
    name = f"b={shell.bvalue:g}"
    directions = table.directions[shell.indices]
    distinct = table.distinct_directions(shell.indices)
    found: list[Finding] = []
    groups = duplicates(table, shell)
    if groups:
        found.append(_repeats(name, groups, distinct))
    if distinct < FEW_DIRECTIONS:
        found.append(
            Finding(
                "warning",
                f"Few directions at {name}",
                f"{distinct} distinct directions; a tensor needs {FEW_DIRECTIONS}, SH order 2 "
                "needs 8: only means over directions can be used.",
                tuple(int(i) for i in shell.indices),
            )
        )
        return found
    found.append(_orders(name, directions, distinct))
    found += _evenness(name, directions)
    balance = one_sidedness(directions)
    if balance > ONE_SIDED:
        found.append(
            Finding(
                "note",
                f"Directions at {name} lie on one half of the sphere",
                f"The mean vector has length {balance:.2f} (0 balances, 0.5 is a half sphere). "
                "SH and tensor fits do not mind; eddy-current correction works better when "
                "directions cover the whole sphere.",
            )
        )
    return found


def _repeats(name: str, groups: Sequence[tuple[int, ...]], distinct: int) -> Finding:
    repeated = sum(len(group) - 1 for group in groups)
    sizes = {len(group) for group in groups}
    volumes = tuple(sorted(v for group in groups for v in group))
    if len(sizes) == 1 and len(groups) == distinct:
        return Finding(
            "ok",
            f"Every direction at {name} measured {sizes.pop()} times",
            f"{distinct} distinct directions, all repeated alike: averages, not duplicates.",
        )
    shown = "; ".join(" = ".join(str(v) for v in group) for group in groups[:6])
    more = f" and {len(groups) - 6} more" if len(groups) > 6 else ""
    return Finding(
        "warning",
        f"{repeated} duplicate {'direction' if repeated == 1 else 'directions'} at {name}",
        f"Volumes {shown}{more} have the same direction or its opposite (within "
        f"{SAME_DEGREES:g} degree); {distinct} directions are distinct.",
        volumes,
    )


def _orders(name: str, directions: Array, distinct: int) -> Finding:
    numbers = condition_numbers(directions)
    order = choose_order(directions)
    tempting = [
        el
        for el in ORDERS
        if el > order
        and n_coefficients(el) <= len(directions)
        and MAX_CONDITION < numbers[el] < SINGULAR
    ]
    detail = (
        f"{distinct} distinct directions support SH order {order} ({n_coefficients(order)} "
        f"coefficients). Condition number per order: {_listed(numbers)}."
    )
    if tempting:
        return Finding(
            "warning",
            f"Ill-conditioned above order {order} at {name}",
            f"{detail} Order {tempting[0]} has fewer coefficients than volumes but a condition "
            f"number over {MAX_CONDITION:g}: stay at {order} or regularise.",
        )
    return Finding("ok", f"SH order up to {order} at {name}", detail)


def _evenness(name: str, directions: Array) -> list[Finding]:
    """Compare the largest hole between directions with that of an even set of the same size."""
    hole, where = largest_hole(directions)
    even = np.rad2deg(np.arccos(1 - 1 / len(distinct_axes(directions)))) * 1.2
    nearest = nearest_angles(distinct_axes(directions))
    ratio = hole / even
    energy = nearest.min() / np.median(nearest)
    if ratio < UNEVEN_GAP and energy > 0.5:
        return []
    return [
        Finding(
            "warning",
            f"Uneven directions at {name}",
            f"The largest hole has a radius of {hole:.0f} degrees (about {even:.0f} when even), "
            f"around ({where[0]:.2f}, {where[1]:.2f}, {where[2]:.2f}); nearest neighbours are "
            f"{nearest.min():.0f} to {nearest.max():.0f} degrees apart. Condition number per SH "
            f"order: {_listed(condition_numbers(directions))}.",
        )
    ]


def _voxels(scan: Scan) -> list[Finding]:
    sizes = scan.voxel_size
    text = " x ".join(f"{size:.2f}" for size in sizes)
    if sizes.max() > ANISOTROPY * sizes.min():
        return [
            Finding(
                "note",
                "Anisotropic voxels",
                f"{text} mm: the longest edge is {sizes.max() / sizes.min():.1f} times the "
                "shortest; fibres are blurred along it.",
            )
        ]
    found = [Finding("ok", "Voxel size", f"{text} mm.")]
    columns = scan.affine[:3, :3] / sizes
    skew = max(abs(float(columns[:, i] @ columns[:, j])) for i, j in combinations(range(3), 2))
    if skew > 0.01:
        found.append(
            Finding(
                "note",
                "Sheared voxels",
                f"The voxel axes are {np.rad2deg(np.arccos(skew)):.1f} degrees apart, not 90 "
                "(gantry tilt, or an affine registration in the header).",
            )
        )
    return found


def _size(scan: Scan) -> list[Finding]:
    found = []
    if scan.shape[3] < 7:
        found.append(
            Finding(
                "warning",
                f"Only {scan.shape[3]} {'volume' if scan.shape[3] == 1 else 'volumes'}",
                "A tensor needs at least 7 volumes: one b0 and six directions.",
            )
        )
    if min(scan.grid) < 5:
        found.append(
            Finding(
                "note",
                "Thin image",
                f"{' x '.join(map(str, scan.grid))} voxels: brain masks and motion estimates "
                "need more planes.",
            )
        )
    return found


def _warnings(scan: Scan) -> Sequence[Any]:
    given = scan.metadata.get("warnings") or ()
    return (given,) if isinstance(given, str) else tuple(given)


def _headline(text: Any) -> str:
    """Shorten a reader's sentence to a title."""
    words = str(text).lower()
    for key, title in (
        ("normalis", "b-vectors were normalised"),
        ("unit", "b-vectors were not of unit length"),
        ("nan", "Values that are not finite"),
        ("finite", "Values that are not finite"),
        ("b-value", "b-values"),
        ("mask", "Mask"),
    ):
        if key in words:
            return title
    return "Noticed while reading"


def _listed(numbers: dict[int, float]) -> str:
    return ", ".join(f"{order}: {_number(value)}" for order, value in numbers.items())


def _number(value: float) -> str:
    if value > SINGULAR:
        return "singular"
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
