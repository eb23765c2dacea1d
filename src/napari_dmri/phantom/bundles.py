"""The white matter's bundles: families of curves with varying radius, from end to end.

Positions are in template millimetres (x right, y anterior, z superior, origin near the anterior
commissure). Where families run through each other, populations cross: callosal fibres, corona
radiata and superior longitudinal fasciculus meet three-way in the centrum semiovale. The corona
radiata and both forceps fan; the fornix's two sides kiss under the callosum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.phantom.shapes import Curve, Hull

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bundle", "all_bundles", "bundle_names"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Hold one named bundle.

    Parameters
    ----------
    name
        Such as ``cst_left``.
    curves
        The family, each from the bundle's first end to its second.
    weight
        Density of its fibres against other bundles' where they share white matter.
    dispersion
        Factor on the subject's intrinsic fibre dispersion angle.
    intra
        Factor on the subject's intra-axonal fraction.
    fade
        Part of the density that is lost half-way from the middle of the curves to their ends.
    """

    name: str
    curves: tuple[Curve, ...]
    weight: float = 1.0
    dispersion: float = 1.0
    intra: float = 1.0
    fade: float = 0.0

    @property
    def points(self) -> NDArray[np.float32]:
        """All dense points (n, 3) in mm."""
        return np.concatenate([c.points for c in self.curves])

    @property
    def tangents(self) -> NDArray[np.float32]:
        """Unit tangents at the dense points (n, 3)."""
        return np.concatenate([c.tangents for c in self.curves])

    @property
    def radii(self) -> NDArray[np.float32]:
        """Radius at the dense points (n,) in mm."""
        return np.concatenate([c.radii for c in self.curves])

    @property
    def along(self) -> NDArray[np.float32]:
        """Position from one end (0) to the other (1) at the dense points (n,)."""
        return np.concatenate(
            [np.linspace(0, 1, len(c.radii), dtype=np.float32) for c in self.curves]
        )


def bundle_names() -> tuple[str, ...]:
    """Return the names of all bundles, in the order of every per-bundle array."""
    return tuple(b.name for b in all_bundles())


@lru_cache(maxsize=1)
def all_bundles() -> tuple[Bundle, ...]:
    """Return every bundle of the template."""
    hull = Hull()
    found = list(_callosum(hull))
    for bundle in _one_side(hull):
        found.append(
            Bundle(
                f"{bundle.name}_left",
                tuple(c.mirrored() for c in bundle.curves),
                bundle.weight,
                bundle.dispersion,
                bundle.intra,
                bundle.fade,
            )
        )
        found.append(
            Bundle(
                f"{bundle.name}_right",
                bundle.curves,
                bundle.weight,
                bundle.dispersion,
                bundle.intra,
                bundle.fade,
            )
        )
    return tuple(found)


def _midline(turn: float) -> tuple[float, float]:
    """Return y and z of the callosum's midline arc; 0 degrees is in front, 90 on top."""
    a = np.deg2rad(turn)
    return -5 + 36.0 * np.cos(a), 2 + 26.5 * np.sin(a)


def _callosum(hull: Hull) -> Iterator[Bundle]:
    """Yield genu, body and splenium, each curve from the left cortex to the right."""
    parts: dict[str, list[Curve]] = {"genu": [], "body": [], "splenium": []}
    for turn in np.arange(-22, 46, 6.0):
        y, z = _midline(turn)
        rise = (turn + 22) / 68
        for side in (0.25, 0.6, 1.0):
            target = (
                10 + 28 * side,
                66 - 16 * side - 8 * rise,
                -6 + 50 * rise * (1.1 - 0.5 * side),
            )
            half = [
                (8, y + 3.0, z + 0.5),
                (13 + 9 * side, y + 15 - 4 * side, z + 4 * rise),
                target,
            ]
            parts["genu"].append(_across((0, y, z), half, (4.2, 5.0, 5.5, 6.5)))
    for turn in np.arange(46, 146, 5.0):
        y, z = _midline(turn)
        far = y + 0.75 * (y + 5)
        for angle in (8, 22, 36, 50, 66):
            wide = angle / 66
            target = hull.at(far, angle, 0.93)
            half = [
                (7, y, z + 1.4),
                (15 + 5 * wide, 0.9 * y + 0.1 * far, z + 7.5 - 1.5 * wide),
                (
                    0.45 * target[0] + 12,
                    0.5 * (y + far),
                    0.5 * z + 0.5 * target[2] + 3,
                ),
                target,
            ]
            parts["body"].append(_across((0, y, z), half, (3.2, 3.6, 5.0, 5.5, 6.0)))
    for turn in np.arange(146, 204, 6.0):
        y, z = _midline(turn)
        fall = (turn - 146) / 58
        for side in (0.2, 0.55, 1.0):
            target = (
                10 + 32 * side,
                -92 + 22 * side + 6 * (1 - fall),
                46 - 44 * fall - 8 * side,
            )
            half = [
                (8, y - 3.5, z + 1.0),
                (18 + 10 * side, y - 18 + 3 * side, z + 3 + 5 * (1 - fall)),
                target,
            ]
            parts["splenium"].append(_across((0, y, z), half, (4.6, 5.0, 5.5, 6.5)))
    for name, curves in parts.items():
        yield Bundle(f"cc_{name}", tuple(curves), 1.7, 0.7 if name != "body" else 0.75, 1.12, 0.7)


def _across(middle: tuple[float, float, float], half: list[Any], radii: tuple[float, ...]) -> Curve:
    """Return a curve over the midline from one half (inside to out)."""
    right = [np.asarray(p, float) for p in half]
    left = [p * np.array([-1, 1, 1]) for p in right]
    knots = [*left[::-1], np.asarray(middle, float), *right]
    return Curve.through(knots, [*radii[:0:-1], *radii])


def _one_side(hull: Hull) -> Iterator[Bundle]:
    """Yield the bundles of the right side."""
    stem = [(7, -30, -58), (8.5, -26, -36), (13, -20, -14)]
    cst = []
    for y_end in (-36, -27, -18, -9):
        for angle in (4, 14, 25, 37, 50, 64):
            knots = [
                *stem,
                (22.5, -13 + 0.1 * (y_end + 18), 8),
                (24.5 + 0.06 * angle, -15 + 0.35 * (y_end + 18), 25),
                hull.at(y_end, angle, 0.93),
            ]
            cst.append(Curve.through(knots, (3.6, 4.0, 4.2, 4.2, 4.6, 5.5)))
    yield Bundle("cst", tuple(cst), 1.5, 0.85, 1.06)

    front = []
    for y_end in (0, 14, 28, 40, 50):
        for angle in (6, 22, 38, 54, 72, 90):
            knots = [
                (9, -16, 3),
                (16.5, 4, 5),
                (20 + 0.04 * angle, 5 + 0.4 * y_end, 14 - 0.05 * angle),
                (23.5 + 0.08 * angle, 1 + 0.62 * y_end, 29 - 0.2 * angle),
                hull.at(y_end, angle, 0.93),
            ]
            front.append(Curve.through(knots, (4, 4, 4.8, 5.2, 6.5)))
    yield Bundle("corona_anterior", tuple(front), 1.5, 0.95, 0.99)

    back = []
    for y_end in (-42, -54, -66, -78):
        for angle in (6, 20, 34, 48, 64, 80):
            knots = [
                (14, -22, 6),
                (26, -27, 11),
                (26 + 0.05 * angle, -31 + 0.35 * (y_end + 38), 28 - 0.16 * angle),
                hull.at(y_end, angle, 0.93),
            ]
            back.append(Curve.through(knots, (4, 4.5, 5.5, 7)))
    yield Bundle("corona_posterior", tuple(back), 1.5, 0.95, 0.99)

    slf = []
    for dx, dz in ((0, 0), (3.5, 3), (-2.5, 5), (2.5, -4)):
        slf.append(
            Curve.through(
                [
                    (36 + dx, 42, 24 + dz),
                    (35.5 + dx, 20, 30 + dz),
                    (36 + dx, -6, 33.5 + dz),
                    (37 + dx, -30, 33 + dz),
                    (38 + dx, -48, 31 + dz),
                    (40 + dx, -68, 30 + dz),
                ],
                (4.5, 5.0, 5.0, 5.0, 5.0, 5.5),
            )
        )
    yield Bundle("slf", tuple(slf), 2.4, 0.9)

    arcuate = []
    for shift in (0.0, 3.5):
        arcuate.append(
            Curve.through(
                [
                    (46, 20, 14 + shift),
                    (42, 4, 22 + shift),
                    (40 - 0.5 * shift, -16, 25 + shift),
                    (40 - 0.5 * shift, -36, 22 + shift),
                    (42, -46 - shift, 10),
                    (47, -42 - shift, -4),
                    (51, -24, -12),
                    (50, -4, -20),
                ],
                (4.0, 4.4, 4.6, 4.6, 4.6, 4.6, 4.4, 4.0),
            )
        )
    yield Bundle("arcuate", tuple(arcuate), 1.4)

    arc: list[tuple[float, float, float]] = []
    for turn in np.arange(-30, 196, 15.0):
        a = np.deg2rad(turn)
        arc.append((8.0, -5 + 43.5 * np.cos(a), 2.5 + 34.5 * np.sin(a)))
    arc += [(17, -45, -9), (22, -30, -16), (24, -14, -20)]
    cingulum = Curve.through(arc, np.interp(np.arange(len(arc)), [0, 8, 17], [3.2, 4.0, 3.0]))
    yield Bundle("cingulum", (cingulum,), 2.2, 0.85)

    fornix = Curve.through(
        [
            (3.5, 2, -12),
            (2.6, 3, 2),
            (2.1, -4, 13),
            (2.4, -16, 18.5),
            (6, -28, 16),
            (15, -37, 6),
            (25, -32, -8),
            (28, -20, -14),
        ],
        (2.0, 2.2, 2.4, 2.6, 2.5, 2.3, 2.2, 2.0),
    )
    yield Bundle("fornix", (fornix,), 2.0, 0.85)

    uncinate = [
        Curve.through(
            [
                (20 + d, 50, -6 + d),
                (24 + d, 30, -9),
                (31 + d, 12, -9),
                (37 + d, 3, -17),
                (40 + d, 6, -28),
                (40, 14, -36),
            ],
            (5.0, 4.2, 3.6, 3.8, 4.2, 5.0),
        )
        for d in (-2.0, 2.0)
    ]
    yield Bundle("uncinate", tuple(uncinate), 1.5)

    ifof = [
        Curve.through(
            [
                (24 + d, 54, 4 + up),
                (28 + d, 34, 0 + 0.6 * up),
                (32.5 + 0.4 * d, 10, -4),
                (35 + 0.4 * d, -18, -3),
                (36 + 0.5 * d, -42, 2 + 0.5 * up),
                (28 + d, -66, 3 + up),
                (16 + 2 * d, -92, 2 + 1.6 * up),
            ],
            (6.0, 4.6, 3.4, 3.8, 4.4, 5.0, 6.0),
        )
        for d, up in ((0.0, 0.0), (3.0, 6.0), (-3.0, -5.0))
    ]
    yield Bundle("ifof", tuple(ifof), 1.2)

    optic = [
        Curve.through(
            [
                (21, -26, -2),
                (31, -24, 0 + d),
                (34.5, -40, 6 + d),
                (30, -60, 8 + d),
                (13, -90, 3 + 1.5 * d),
            ],
            (3.0, 3.4, 3.8, 4.4, 5.0),
        )
        for d in (-4.0, 0.0, 5.0)
    ]
    yield Bundle("optic_radiation", tuple(optic), 1.3)

    ilf = [
        Curve.through(
            [
                (18, -90, -4),
                (34, -66, -8),
                (42, -40, -12),
                (43, -14, -22),
                (38, 8, -32),
            ],
            (5.0, 4.8, 4.6, 4.6, 5.0),
        )
    ]
    yield Bundle("ilf", tuple(ilf), 1.3)
