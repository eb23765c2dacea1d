"""Gradient tables: directions spread evenly over the sphere as axes, by electrostatic repulsion."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable

__all__ = ["electrostatic_directions", "make_table"]

Array = NDArray[Any]


@lru_cache(maxsize=64)
def _spread(count: int, seed: int) -> Array:
    rng = np.random.default_rng([seed, count, 4])
    x = rng.normal(size=(count, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    step = 0.3
    for turn in range(500):
        both = np.concatenate([x, -x])
        away = x[:, None] - both[None]
        distance = np.linalg.norm(away, axis=-1)
        distance[distance < 1e-9] = np.inf
        force = (away / distance[..., None] ** 3).sum(1)
        force -= (force * x).sum(1, keepdims=True) * x
        x = x + step * force / count * (1 - turn / 600)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    x.setflags(write=False)
    return x


def electrostatic_directions(count: int, seed: int = 0) -> Array:
    """Return unit vectors (count, 3) that repel each other and each other's antipodes.

    The minimised energy is that of Jones (1999); another seed gives another rotation and set.

    Raises
    ------
    InputError
        If the count is not positive.
    """
    if count < 1:
        raise InputError(f"{count} gradient directions asked for; at least 1 is needed.")
    return _spread(count, seed)


def make_table(shells: tuple[tuple[float, int], ...], b0: int, seed: int = 0) -> GradientTable:
    """Make a table: b0 volumes spread evenly among the shells' volumes.

    Parameters
    ----------
    shells
        b-value (s/mm²) and number of directions of each.
    b0
        Number of b0 volumes.
    seed
        Of the directions.

    Raises
    ------
    InputError
        If there is no b0 volume or no direction.
    """
    if b0 < 1 or not shells:
        raise InputError(
            f"A table of {b0} b0 volumes and {len(shells)} shells; at least 1 of each is needed."
        )
    values = np.concatenate([np.full(n, float(b)) for b, n in shells])
    vectors = np.concatenate(
        [electrostatic_directions(n, seed * 16 + i) for i, (_, n) in enumerate(shells)]
    )
    places = np.linspace(0, len(values), b0, endpoint=False).astype(int)
    bvalues = np.insert(values, places, 0.0)
    directions = np.insert(vectors, places, 0.0, axis=0)
    return GradientTable(bvalues, directions)
