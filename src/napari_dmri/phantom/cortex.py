r"""The folded cortical surface: where the pia lies, and which way it faces.

Sulci are narrow sheets that go inward from the hull. Their lines on it are the zeros of a
band-limited random field :math:`G(u) = \sum_i \cos(k_i \cdot u + \phi_i)` over directions u, whose
zero set winds like gyri do; :math:`|G| / \lVert \nabla G \rVert` is the distance to the sheet.
The interhemispheric and Sylvian fissures are sheets of their own, with folds on the medial wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_dmri.phantom.shapes import Hull

__all__ = ["Cortex", "CortexPoints"]

Array = NDArray[Any]

PATTERN_SEED = 20261121
"""Seed of the folding pattern that all subjects share; each one shifts its phases."""


_WIGGLE = np.array(
    [[0.16, 0.21, -0.13], [-0.19, 0.11, 0.22], [0.23, -0.15, 0.17]], dtype=np.float32
)
"""Waves (rad/mm) by which sulci wander from straight lines."""


@dataclass(frozen=True, eq=False)
class CortexPoints:
    """Distances at points: to the hull and to the pia (P,), mm, negative inside; normal (P, 3)."""

    hull: Array
    pia: Array
    normal: Array
    outward: Array


@dataclass(frozen=True, eq=False)
class Cortex:
    """Hold the shape of one cortex.

    Parameters
    ----------
    hull
        The smooth outer surface.
    phases
        Shifts of the folding waves (2, 28), radians; zero is the template.
    rim
        Width of the subarachnoid space under the hull (mm).
    opening
        Half-width of a sulcus at its mouth (mm).
    depth
        Mean depth of sulci (mm).
    """

    hull: Hull
    phases: Array
    rim: float = 2.0
    opening: float = 0.5
    depth: float = 19.0

    def evaluate(self, points: Array) -> CortexPoints:
        """Return distances and normals at points (P, 3)."""
        hull, outward, unit = self.hull.distance(points)
        pia = hull + np.float32(self.rim)
        normal = outward.copy()
        outer = np.flatnonzero((hull > -30) & (hull < 4))
        if outer.size:
            fold, across = self._lateral(points[outer], unit[outer], -hull[outer])
            _carve(pia, normal, outer, fold, across)
        middle = np.flatnonzero((np.abs(points[:, 0]) < 22) & (hull < 4))
        if middle.size:
            _carve(pia, normal, middle, *self._midline(points[middle]))
            _carve(pia, normal, middle, *self._medial_folds(points[middle]))
        sylvian = np.flatnonzero(
            (np.abs(points[:, 0]) > 26)
            & (np.abs(points[:, 1] + 9) < 46)
            & (np.abs(points[:, 2] - 4) < 40)
        )
        if sylvian.size:
            _carve(pia, normal, sylvian, *self._sylvian(points[sylvian]))
        return CortexPoints(hull, pia, normal, outward)

    def _lateral(self, points: Array, unit: Array, below: Array) -> tuple[Array, Array]:
        """Distance to the sulci of the convexity."""
        length = np.sqrt((unit**2).sum(1, keepdims=True)) + np.float32(1e-6)
        u = unit / length + np.float32(0.03) * np.sin(points @ _WIGGLE.T)
        waves = _waves(0)
        # A twist with depth keeps sulci from being exactly radial.
        turn = np.float32(0.5) * (1 - length[:, 0])
        value, slope = _field(u, waves, self.phases[0], turn)
        radius = np.float32(70.0)
        slope -= (slope * u).sum(1, keepdims=True) * u
        steep = np.sqrt((slope**2).sum(1)) / radius + np.float32(0.012)
        deep = np.float32(self.depth) * (1 + np.float32(0.35) * np.sin(5 * u[:, 0] + 7 * u[:, 1]))
        half = np.float32(self.opening) * np.clip(1.25 - below / deep, 0.4, 1.3)
        beyond = np.maximum(below - deep, 0)
        distance = np.sqrt((value / steep) ** 2 + beyond**2) - half
        across = np.sign(value)[:, None] * slope
        return distance, _unit(across)

    def _midline(self, points: Array) -> tuple[Array, Array]:
        """Distance to the interhemispheric fissure, which ends at the corpus callosum."""
        y, z = (points[:, 1] + 5) / np.float32(41), (points[:, 2] - 2) / np.float32(31.5)
        radius = np.sqrt(y**2 + z**2) + np.float32(1e-6)
        inside = np.maximum((1 - radius) * np.float32(35), 0)
        # Below the callosum the fissure is open in front and behind only.
        stem = (points[:, 2] < 0) & (points[:, 1] > -48) & (points[:, 1] < 22)
        inside = np.where(stem, np.float32(40), inside)
        distance = np.sqrt(points[:, 0] ** 2 + inside**2) - np.float32(self.opening)
        normal = np.zeros_like(points)
        normal[:, 0] = -np.sign(points[:, 0])
        return distance, normal

    def _medial_folds(self, points: Array) -> tuple[Array, Array]:
        """Distance to the sulci of the medial wall (cingulate sulcus and its like)."""
        y, z = (points[:, 1] + 5) / np.float32(41), (points[:, 2] - 2) / np.float32(31.5)
        radius = np.sqrt(y**2 + z**2)
        value, slope = _field(points / np.float32(70.0), _waves(1), self.phases[1], None)
        steep = np.sqrt((slope**2).sum(1)) / np.float32(70.0) + np.float32(0.012)
        deep = np.float32(0.55 * self.depth)
        side = np.abs(points[:, 0])
        beyond = np.maximum(side - deep, 0)
        # The callosum and the cingulum above it are left whole.
        beyond = np.maximum(beyond, np.maximum((1.38 - radius) * 35, 0))
        half = np.float32(self.opening) * np.clip(1.1 - side / deep, 0.35, 1.1)
        distance = np.sqrt((value / steep) ** 2 + beyond**2) - half
        return distance, _unit(np.sign(value)[:, None] * slope)

    def _sylvian(self, points: Array) -> tuple[Array, Array]:
        """Distance to the Sylvian fissure and the insula at its floor."""
        x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        level = z - (np.float32(-1.5) - np.float32(0.42) * (y + 8))
        middle = (y + 9) / np.float32(30)
        ends = np.maximum(np.abs(y + 9) - np.float32(26), 0)
        floor = np.float32(38.5) + 3 * middle**2
        slit = np.sqrt((0.92 * level) ** 2 + np.maximum(floor - x, 0) ** 2 + ends**2)
        wall = np.maximum(np.abs(level) - 11 * np.sqrt(np.clip(1 - middle**2, 0, 1)), 0)
        insula = np.sqrt((x - floor) ** 2 + wall**2 + ends**2)
        distance = np.minimum(slit, insula) - np.float32(self.opening + 0.1)
        normal = np.zeros_like(points)
        on_floor = insula < slit
        normal[:, 0] = np.where(on_floor, np.sign(points[:, 0]), 0)
        normal[:, 2] = np.where(on_floor, 0, np.sign(level))
        normal[normal.any(1) == 0, 2] = 1
        return distance, normal


def _carve(pia: Array, normal: Array, where: Array, distance: Array, across: Array) -> None:
    """Take a sheet's neighbourhood out of the inside: pia = max(pia, -distance), in place."""
    deeper = -distance > pia[where]
    chosen = where[deeper]
    pia[chosen] = -distance[deeper]
    normal[chosen] = across[deeper]


def _unit(vectors: Array) -> Array:
    result: Array = vectors / (np.sqrt((vectors**2).sum(1, keepdims=True)) + np.float32(1e-6))
    return result


def _waves(kind: int) -> Array:
    """Return wave vectors (28, 3) of the shared pattern: 0 lateral, 1 medial (little along x)."""
    rng = np.random.default_rng([PATTERN_SEED, kind])
    directions = rng.normal(size=(28, 3))
    if kind == 1:
        directions[:, 0] *= 0.25
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sizes = (21.0 - 2.0 * kind) * rng.uniform(0.85, 1.15, size=(28, 1))
    return (directions * sizes).astype(np.float32)


def _field(u: Array, waves: Array, phases: Array, turn: Array | None) -> tuple[Array, Array]:
    """Return the folding field (P,) and its gradient in u (P, 3)."""
    rng = np.random.default_rng([PATTERN_SEED, 9])
    base = rng.uniform(0, 2 * np.pi, len(waves)).astype(np.float32)
    argument = u @ waves.T + (base + np.asarray(phases, np.float32))
    if turn is not None:
        argument += turn[:, None] * np.linspace(-1, 1, len(waves), dtype=np.float32)
    scale = np.float32(np.sqrt(2 / len(waves)))
    return np.cos(argument).sum(1) * scale, -(np.sin(argument) @ waves) * scale
