r"""Whether two methods differ in one scan: errors by blocks of voxels.

One scan says nothing about other subjects. What can be asked is whether a difference between two
methods holds throughout the scan or comes from a few places. The voxels of a tissue are divided
into cubes; with :math:`a_k, b_k` the sums of squared errors of two methods in cube k,

.. math:: \Delta = \frac{\sum_k a_k}{\sum_k b_k} - 1

is how much smaller or larger the error of a is. Its interval is the bootstrap's over cubes, its
p-value that of Wilcoxon's signed-rank test of :math:`a_k - b_k`. Cubes are taken as independent,
which neighbours are the less the smaller the cubes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.compare.statistics import bootstrap
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EDGE", "BlockTest", "compare_in_blocks", "cubes"]

Array = NDArray[Any]

EDGE = 12.0
"""Edge of a cube in millimetres: five voxels of 2.4 mm."""

FEWEST = 10
"""Cubes below which a test or an interval would mean little."""


@dataclass(frozen=True)
class BlockTest:
    """Say how the error of a compares with b's: change Δ with 95 % interval, p, number of cubes.

    Interval and p are NaN where there are too few cubes.
    """

    blocks: int
    change: float
    low: float
    high: float
    p: float


def cubes(
    grid: Sequence[int], voxel_size: Sequence[float] | Array, edge: float = EDGE
) -> NDArray[np.int64]:
    """Return the number of the cube that each voxel lies in (X, Y, Z).

    Parameters
    ----------
    grid
        Voxels along each axis.
    voxel_size, edge
        In millimetres; a cube is at least two voxels wide.

    Raises
    ------
    InputError
        If the edge is not positive.
    """
    if not edge > 0:
        raise InputError(f"The edge of a cube is {edge:g} mm; it must be above 0.")
    steps = [max(2, round(edge / float(size))) for size in voxel_size]
    places = [np.arange(n) // step for n, step in zip(grid, steps, strict=True)]
    counts = [int(place[-1]) + 1 for place in places]
    i, j, k = np.meshgrid(*places, indexing="ij")
    return np.asarray((i * counts[1] + j) * counts[2] + k, np.int64)


def compare_in_blocks(a: Array, b: Array, blocks: Array, where: Array, seed: int = 0) -> BlockTest:
    """Compare the squared errors of two methods in the voxels of a region.

    Parameters
    ----------
    a, b
        Squared error in each voxel (X, Y, Z).
    blocks
        The cube of each voxel; see `cubes`.
    where
        The region (X, Y, Z).
    seed
        Of the bootstrap.
    """
    from scipy.stats import wilcoxon

    chosen = np.asarray(where, bool) & np.isfinite(a) & np.isfinite(b)
    _, number = np.unique(blocks[chosen], return_inverse=True)
    x, y = (np.bincount(number, np.asarray(e[chosen], np.float64)) for e in (a, b))
    n = x.size
    total = y.sum()
    change = float(x.sum() / total - 1) if total > 0 else float("nan")
    if n < FEWEST or not total > 0:
        return BlockTest(n, change, float("nan"), float("nan"), float("nan"))
    low, high = bootstrap(lambda rows: x[rows].sum(-1) / y[rows].sum(-1) - 1, n, seed)
    p = 1.0 if np.array_equal(x, y) else float(wilcoxon(x, y).pvalue)
    return BlockTest(n, change, low, high, p)
