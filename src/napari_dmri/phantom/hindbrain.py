"""Cerebellum and brainstem, which `full` and the lowest slices of `medium` show."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.phantom.shapes import Curve, Hull, ellipsoid, tube

if TYPE_CHECKING:
    from napari_dmri.phantom.cortex import CortexPoints

__all__ = ["add_hindbrain", "head_distance"]

Array = NDArray[Any]

CENTRE, RADII = (0.0, -60.0, -41.0), (47.0, 29.0, 22.0)
TOP = -8.0
"""Nothing of the hindbrain lies above this (template mm)."""


@lru_cache(maxsize=1)
def _stem() -> Curve:
    return Curve.through(
        [(0, -17, -10), (0, -22, -25), (0, -28, -44), (0, -34, -80)], (9.0, 13.0, 10.5, 8.0)
    )


def _bodies(points: Array) -> tuple[Array, Array]:
    """Return signed distances to cerebellum and brainstem (P,)."""
    return ellipsoid(points, CENTRE, RADII), tube(points, _stem(), np.array([1.1, 1, 1]), 30.0)


def head_distance(points: Array) -> Array:
    """Return the signed distance to the whole brain with its water (P,), mm."""
    distance = Hull().distance(points)[0]
    low = np.flatnonzero(points[:, 2] < TOP + 3)
    if low.size:
        cerebellum, stem = _bodies(points[low])
        distance[low] = np.minimum(distance[low], np.minimum(cerebellum, stem))
    return distance


def add_hindbrain(shape: CortexPoints, core: Array, points: Array) -> Array:
    """Join the hindbrain to the cerebrum's distances, in place, and return the white core's.

    The cerebellum pushes the cerebrum away along the tentorium; its white matter is a core with
    branches, as single folia are thinner than any voxel here. The brainstem is white matter.

    Parameters
    ----------
    shape
        Distances and normals of the cerebrum at the points.
    core
        Signed distance to its white matter (P,), mm.
    points
        Template positions (P, 3).
    """
    low = np.flatnonzero(points[:, 2] < TOP)
    if not low.size:
        return core
    at = points[low]
    cerebellum, stem = _bodies(at)
    pia = np.maximum(shape.pia[low], 1 - cerebellum)
    inner = np.maximum(core[low], 4 - cerebellum)
    turn = np.arctan2(at[:, 2] - CENTRE[2], at[:, 1] - CENTRE[1] - 12)
    branches = cerebellum + 8 + 3 * np.cos(11 * turn)
    shape.hull[low] = np.minimum(shape.hull[low], np.minimum(cerebellum, stem))
    shape.pia[low] = np.minimum(pia, np.minimum(cerebellum + 1.5, stem + 1))
    core[low] = np.minimum(inner, np.minimum(branches, stem + 1))
    normal = (at - np.array(CENTRE, np.float32)) / np.array(RADII, np.float32) ** 2
    normal /= np.sqrt((normal**2).sum(1, keepdims=True)) + np.float32(1e-6)
    inside = low[cerebellum < 0]
    shape.normal[inside] = shape.outward[inside] = normal[cerebellum < 0]
    upright = low[(stem < 0) & (cerebellum > -4)]
    shape.normal[upright] = np.array([1, 0, 0], np.float32)
    shape.outward[upright] = np.array([0, 0, 1], np.float32)
    return core
