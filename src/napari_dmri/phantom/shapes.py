r"""Signed-distance functions of simple bodies, in millimetres.

Every function takes points (P, 3) and returns a distance that is negative inside (bodies) or the
distance to a sheet less its half-width. They are exact for spheres and first-order elsewhere,
:math:`d \approx (\rho - 1) / \lVert \nabla \rho \rVert`, which is all that a boundary needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Hull", "coverage", "ellipsoid", "nearest", "tube"]

Array = NDArray[Any]


def coverage(distance: Array, width: float) -> Array:
    r"""Return the part of a small cube that lies inside a surface (0 to 1).

    .. math:: \mathrm{clip}(1/2 - d / w, 0, 1)

    Parameters
    ----------
    distance
        Signed distance of the cube's centre to the surface (mm), negative inside.
    width
        Edge of the cube (mm).
    """
    return np.clip(0.5 - distance / np.float32(width), 0, 1)


def ellipsoid(points: Array, centre: Any, radii: Any) -> Array:
    """Return the first-order signed distance to an axis-aligned ellipsoid (P,)."""
    scaled = (points - np.asarray(centre, np.float32)) / np.asarray(radii, np.float32)
    rho = np.sqrt((scaled**2).sum(1)) + np.float32(1e-6)
    slope = np.sqrt(((scaled / np.asarray(radii, np.float32)) ** 2).sum(1)) / rho
    result: Array = (rho - 1) / np.maximum(slope, 1e-4)
    return result


@dataclass(frozen=True, eq=False)
class Curve:
    """Hold a smooth curve as dense points (n, 3), unit tangents (n, 3) and radii (n,), in mm."""

    points: NDArray[np.float32]
    tangents: NDArray[np.float32]
    radii: NDArray[np.float32]

    @classmethod
    def through(cls, knots: Any, radii: Any, step: float = 1.5) -> Curve:
        """Make the natural cubic spline through knots (k, 3), its radius linear in arc length.

        Parameters
        ----------
        knots
            Points that it passes (k, 3), k >= 2.
        radii
            Radius at each knot (k,), or one for all (mm).
        step
            Spacing of the dense points (mm).
        """
        from scipy.interpolate import CubicSpline

        anchors = np.asarray(knots, np.float64)
        lengths = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(lengths)])
        spline = CubicSpline(along, anchors, bc_type="natural")
        at = np.linspace(0, along[-1], max(3, int(np.ceil(along[-1] / step)) + 1))
        tangents = spline(at, 1)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        sizes = np.broadcast_to(np.asarray(radii, np.float64), along.shape)
        return cls(
            spline(at).astype(np.float32),
            tangents.astype(np.float32),
            np.interp(at, along, sizes).astype(np.float32),
        )

    def mirrored(self) -> Curve:
        """Return the curve on the other side of the midline (x to -x)."""
        flip = np.array([-1, 1, 1], np.float32)
        return Curve(self.points * flip, self.tangents * flip, self.radii)


def nearest(points: Array, curve: Curve, reach: float) -> tuple[Array, Array]:
    """Return distance (P,) to a curve's dense points and their index (n where beyond reach)."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(curve.points).query(points, distance_upper_bound=reach)
    return distance.astype(np.float32), index


def tube(points: Array, curve: Curve, stretch: Array, reach: float = 6.0) -> Array:
    """Return the signed distance to a tube of varying radius (P,), `reach` mm where far away.

    Parameters
    ----------
    points
        Where (P, 3).
    curve
        The centre line and its radii.
    stretch
        Factors (3,) by which the cross-section is longer along x, y and z.
    reach
        Distances are cut at this (mm).
    """
    factors = np.asarray(stretch, np.float32)
    limit = float(curve.radii.max()) + reach
    low = (curve.points / factors).min(0) - limit
    high = (curve.points / factors).max(0) + limit
    scaled = points / factors
    near = np.flatnonzero(((scaled > low) & (scaled < high)).all(1))
    result = np.full(len(points), reach, np.float32)
    if near.size:
        squeezed = Curve(curve.points / factors, curve.tangents, curve.radii)
        distance, index = nearest(scaled[near], squeezed, limit)
        hit = index < len(curve.radii)
        result[near[hit]] = np.minimum(distance[hit] - curve.radii[index[hit]], reach)
    return result


@dataclass(frozen=True)
class Hull:
    """The smooth outer shape of the cerebrum: a superellipsoid, narrower in front, flat below."""

    centre: tuple[float, float, float] = (0.0, -16.0, 0.0)
    half_width: float = 67.0
    half_length: float = 85.0
    height: float = 74.0
    depth: float = 48.0
    power: float = 2.3
    taper: float = 0.13

    def scaled(self, points: Array) -> tuple[Array, Array]:
        """Return coordinates in which the hull is a unit superball, and their scales (P, 3)."""
        shifted = points - np.asarray(self.centre, np.float32)
        scales = np.empty_like(shifted)
        front = shifted[:, 1] / np.float32(self.half_length)
        scales[:, 0] = (1 + np.float32(self.taper) * front) / np.float32(self.half_width)
        scales[:, 1] = 1 / np.float32(self.half_length)
        scales[:, 2] = 1 / np.where(
            shifted[:, 2] > 0, np.float32(self.height), np.float32(self.depth)
        )
        return shifted * scales, scales

    def distance(self, points: Array) -> tuple[Array, Array, Array]:
        """Return signed distance (P,), outward normal (P, 3) and unit-ball coordinates (P, 3)."""
        unit, scales = self.scaled(points)
        size = np.abs(unit) + np.float32(1e-6)
        powers = size ** np.float32(self.power - 1)
        rho = (powers * size).sum(1) ** np.float32(1 / self.power)
        gradient = np.sign(unit) * powers * scales
        gradient /= (rho ** np.float32(self.power - 1))[:, None]
        slope = np.sqrt((gradient**2).sum(1)) + np.float32(1e-6)
        return (rho - 1) / slope, gradient / slope[:, None], unit

    def at(self, y: float, angle: float, part: float = 0.95) -> tuple[float, float, float]:
        """Return the point of the right upper hull at a y (mm) and an angle from above (degrees).

        Parameters
        ----------
        y
            Coronal position (mm).
        angle
            0 is the vertex, 90 the side.
        part
            Fraction of the way from the axis to the hull.
        """
        front = (y - self.centre[1]) / self.half_length
        section = max(1 - min(abs(front), 0.97) ** self.power, 0.0) ** (1 / self.power)
        turn = np.deg2rad(angle)
        ring = (np.sin(turn) ** self.power + abs(np.cos(turn)) ** self.power) ** (-1 / self.power)
        size = section * ring * part
        height = self.height if angle <= 90 else self.depth
        return (
            float(size * np.sin(turn) * self.half_width / (1 + self.taper * front)),
            float(y),
            float(self.centre[2] + size * np.cos(turn) * height),
        )
