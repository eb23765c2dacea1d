"""A subject's anatomy: which tissue is where, and how subjects differ, free of any resolution.

Everything is a function of a point in millimetres; grids enter only when a scanner samples it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.phantom.bundles import all_bundles
from napari_dmri.phantom.cortex import Cortex
from napari_dmri.phantom.deformation import Deformation
from napari_dmri.phantom.hindbrain import add_hindbrain
from napari_dmri.phantom.shapes import Curve, Hull, coverage, ellipsoid, tube

__all__ = ["Lesion", "PointTissue", "Subject", "make_subject", "texture_at", "tissue_at"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Lesion:
    """A sphere of changed white matter, given in template millimetres.

    Parameters
    ----------
    kind
        ``"oedema"`` (free water mixes in) or ``"csf"`` (a cavity).
    centre, radius
        Where, and how large (mm).
    water
        Fraction of the tissue that free water replaces.
    cavity
        Radius of a cavity in the middle of an oedema (mm), such as surgery leaves; 0 for none.
    """

    kind: str = "oedema"
    centre: tuple[float, float, float] = (27.0, 12.0, 30.0)
    radius: float = 9.0
    water: float = 0.45
    cavity: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("oedema", "csf"):
            raise InputError(f"Unknown lesion {self.kind!r}; choose oedema or csf.")
        if not 0 < self.radius <= 40 or not 0 < self.water <= 1:
            raise InputError(
                f"The lesion has radius {self.radius:g} mm and water fraction {self.water:g}; "
                "expected a radius in (0, 40] and a fraction in (0, 1]."
            )
        if not 0 <= self.cavity < self.radius:
            raise InputError(
                f"The lesion has radius {self.radius:g} mm and a cavity of {self.cavity:g} mm; "
                "expected a cavity of 0 or more and less than the lesion."
            )


@dataclass(frozen=True, eq=False)
class Subject:
    """Hold all that makes one subject: shape, sizes and microstructure.

    Parameters
    ----------
    label
        Such as ``sub-01``.
    deformation
        Scanner space to template space.
    phases
        Shifts of the cortical folding waves (2, 28), rad.
    ventricles
        Factor on the ventricles' radius.
    ribbon, rim
        Thickness of the cortex and of the subarachnoid space (mm).
    bundle_radii
        Factor on each bundle's radius (K,).
    bundle_intra
        Factor on each bundle's intra-axonal fraction (K,).
    diffusivity
        Parallel diffusivity in white matter (mm²/s).
    intra
        Intra-axonal signal fraction.
    texture
        SD of the smooth variation of that fraction from place to place, as a part of it.
    concentration
        Watson concentration of a bundle's own dispersion; infinite for none.
    grey_diffusivity
        Parallel and radial diffusivity of grey matter's zeppelin (mm²/s).
    grey_concentration, dot
        Its dispersion, and the fraction of still water.
    free_diffusivity
        Diffusivity of free water (mm²/s).
    lesion
        None in training subjects.
    """

    label: str
    deformation: Deformation
    phases: Array
    bundle_radii: Array
    bundle_intra: Array
    ventricles: float = 1.0
    ribbon: float = 3.0
    rim: float = 2.0
    diffusivity: float = 1.75e-3
    intra: float = 0.55
    texture: float = 0.08
    concentration: float = 7.0
    grey_diffusivity: tuple[float, float] = (1.24e-3, 0.60e-3)
    grey_concentration: float = 2.5
    dot: float = 0.04
    free_diffusivity: float = 3.0e-3
    lesion: Lesion | None = None

    def rotated(self, rotation: Array) -> Subject:
        """Return the subject turned about the scanner's origin."""
        return replace(self, deformation=self.deformation.rotated(rotation))

    def with_lesion(self, lesion: Lesion | None) -> Subject:
        """Return the subject with a lesion."""
        return replace(self, lesion=lesion)


def make_subject(index: int, seed: int = 7, strength: float = 1.0) -> Subject:
    """Draw subject number ``index`` of the population that a seed gives.

    Parameters
    ----------
    index
        From 0; ``sub-01`` has index 0.
    seed
        The population.
    strength
        Factor on how much subjects differ; 0 gives the template.

    Raises
    ------
    InputError
        If the index or the seed is negative.
    """
    if index < 0 or seed < 0:
        raise InputError(f"Subject index {index} and seed {seed}; both must be 0 or more.")
    rng = np.random.default_rng([seed, index, 1])
    n = len(all_bundles())
    deformation = Deformation.random(rng, strength) if strength else Deformation.identity()

    def draw(mean: float, sd: float) -> float:
        return float(mean + strength * sd * np.clip(rng.normal(), -2, 2))

    return Subject(
        label=f"sub-{index + 1:02d}",
        deformation=deformation,
        phases=strength * rng.normal(0, 0.35, (2, 28)),
        bundle_radii=1 + strength * rng.normal(0, 0.07, n).clip(-0.15, 0.15),
        bundle_intra=1 + strength * rng.normal(0, 0.025, n).clip(-0.06, 0.06),
        ventricles=draw(1.0, 0.10),
        ribbon=draw(3.0, 0.12),
        rim=draw(2.2, 0.35),
        diffusivity=draw(1.75e-3, 0.03e-3),
        intra=draw(0.55, 0.015),
        concentration=draw(7.0, 0.6),
        grey_diffusivity=(draw(1.24e-3, 0.03e-3), draw(0.60e-3, 0.015e-3)),
        grey_concentration=draw(2.5, 0.2),
        dot=draw(0.04, 0.005),
    )


@dataclass(frozen=True, eq=False)
class PointTissue:
    """What is at points.

    Parameters
    ----------
    fractions
        WM, GM and CSF (P, 3).
    grey_normal
        Normal of the cortex (P, 3).
    fill
        Direction of short fibres, along the gyrus' blade of white matter to its crown (P, 3).
    fill_weight
        Their density against bundles': high just under the cortex (P,).
    """

    fractions: Array
    grey_normal: Array
    fill: Array
    fill_weight: Array


def tissue_at(subject: Subject, points: Array, width: float) -> PointTissue:
    """Return what is at template points.

    Parameters
    ----------
    subject
        Whose anatomy.
    points
        Template positions (P, 3) in mm, float32.
    width
        Edge of the cube that each point stands for (mm); boundaries are this soft.
    """
    cortex = Cortex(Hull(), subject.phases, rim=subject.rim)
    shape = cortex.evaluate(points)
    white_edge = add_hindbrain(shape, shape.pia + np.float32(subject.ribbon), points)
    head = coverage(shape.hull, width)
    inner = np.minimum(coverage(shape.pia, width), head)
    core = np.minimum(coverage(white_edge, width), inner)
    nuclei = _nuclei(points, width)
    holes = _ventricles(subject, points, width)
    white = core * (1 - nuclei)
    grey = inner - core + core * nuclei
    water = head - inner
    fractions = np.stack([white, grey, water], 1)
    fractions *= (1 - holes)[:, None]
    fractions[:, 2] += holes * head
    if subject.lesion is not None:
        lesion = subject.lesion
        amount = coverage(ellipsoid(points, lesion.centre, [lesion.radius] * 3), width)
        amount = amount * (lesion.water if lesion.kind == "oedema" else 1.0)
        if lesion.cavity:
            hole = coverage(ellipsoid(points, lesion.centre, [lesion.cavity] * 3), width)
            amount = np.maximum(amount, hole)
        fractions[:, 2] += fractions[:, 0] * amount
        fractions[:, 0] *= 1 - amount
    normal, outward = shape.normal, shape.outward
    blade = outward - 0.95 * (outward * normal).sum(1, keepdims=True) * normal
    blade += 0.06 * outward
    blade /= np.sqrt((blade**2).sum(1, keepdims=True)) + np.float32(1e-6)
    weight = np.float32(0.05) + np.float32(0.9) * np.clip(1 + white_edge / 5, 0, 1)
    return PointTissue(fractions.astype(np.float32), normal, blade, weight)


def texture_at(subject: Subject, points: Array) -> Array:
    """Return the factor on the intra-axonal fraction at template points (P,), mean 1."""
    rng = np.random.default_rng(20261121)
    waves = rng.normal(size=(24, 3))
    waves *= 2 * np.pi / rng.uniform(10, 40, (24, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, 24) + 3 * subject.phases[0, :24]
    field = np.cos(points @ waves.T + phases).sum(1) * np.sqrt(2 / 24)
    result: Array = 1 + subject.texture * np.clip(field, -2, 2)
    return result


@lru_cache(maxsize=1)
def _ventricle_curves() -> tuple[Curve, ...]:
    lateral = Curve.through(
        [
            (6.0, 33, 3),
            (7.2, 26, 10),
            (7.0, 12, 17.0),
            (7.6, -4, 19.0),
            (11, -20, 18.5),
            (20, -36, 15),
            (24, -44, 10),
            (25, -56, 7),
            (23, -70, 5),
        ],
        (1.5, 4.8, 5.3, 5.2, 5.0, 5.6, 6.2, 4.0, 1.5),
    )
    temporal = Curve.through(
        [(24, -42, 9), (31, -34, -4), (33, -22, -12), (31, -10, -17)], (5, 3, 2.4, 2.0)
    )
    return lateral, temporal, lateral.mirrored(), temporal.mirrored()


def _ventricles(subject: Subject, points: Array, width: float) -> Array:
    """Return how much of each point is ventricle (P,)."""
    distance = np.full(len(points), 6, np.float32)
    for curve in _ventricle_curves():
        scaled = Curve(curve.points, curve.tangents, curve.radii * np.float32(subject.ventricles))
        distance = np.minimum(distance, tube(points, scaled, np.array([0.95, 1, 1.15])))
    third = ellipsoid(points, (0, -12, 1), (1.9 * subject.ventricles, 15, 9))
    fourth = ellipsoid(points, (0, -40, -32), (5, 5, 9))
    cistern = ellipsoid(points, (0, -38, 1), (9, 6, 8))
    rest = np.minimum(np.minimum(third, fourth), cistern)
    result: Array = coverage(np.minimum(distance, rest), width)
    return result


@lru_cache(maxsize=1)
def _caudate() -> Curve:
    return Curve.through(
        [
            (12, 20, 0),
            (14, 17, 8),
            (16.5, 8, 15),
            (19, -6, 20),
            (22.5, -20, 21),
            (28, -32, 16),
        ],
        (5.0, 5.4, 4.6, 3.4, 2.6, 1.6),
    )


def _nuclei(points: Array, width: float) -> Array:
    """Return the grey part of deep nuclei at each point (P,)."""
    amount = np.zeros(len(points), np.float32)
    near = np.flatnonzero(
        (np.abs(points[:, 0]) < 45) & (np.abs(points[:, 1] + 8) < 42) & (points[:, 2] < 32)
    )
    if not near.size:
        return amount
    at = points[near].copy()
    at[:, 0] = np.abs(at[:, 0])
    bodies = (
        (tube(at, _caudate(), np.ones(3)), 0.95),
        (ellipsoid(at, (27.5, 1, 1), (5.2, 16, 10)), 0.95),
        (ellipsoid(at, (20.5, -4, -1), (4.2, 9, 6)), 0.55),
        (ellipsoid(at, (11.0, -18, 7), (7.5, 13, 8.5)), 0.72),
        (ellipsoid(at, (25, -6, -19), (6, 7, 6)), 0.9),
        (ellipsoid(at, (28, -24, -14), (4.5, 14, 4.5)), 0.9),
        (ellipsoid(at, (35.0, 1, 0), (0.9, 17, 13)), 0.7),
    )
    for distance, part in bodies:
        amount[near] = np.maximum(amount[near], part * coverage(distance, width))
    return amount
