r"""Keep the source where its signal is outside what a network was trained on.

Networks learn from white and grey matter. In other voxels, such as those of CSF, what they give is
extrapolated, and it can be farther from the target than the source was. The mean of S/b0 over the
sphere, :math:`c_{00} / 2 \sqrt \pi`, tells: with :math:`q_p` its quantiles over the training
voxels, the prediction counts with the weight

.. math:: w = \mathrm{clip}\left(1 - \frac{q_{0.001} - m}{q_{0.01} - q_{0.001}}, 0, 1\right)

below :math:`q_{0.001}`, the same above :math:`q_{0.999}`, and the source's own fit with 1 - w. All
but two in a thousand training voxels are the network's alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_dmri.training.store import Store

__all__ = ["blend", "training_range"]

Array = NDArray[Any]

QUANTILES = (0.001, 0.01, 0.99, 0.999)
LEAST = 1e-3
"""Least width of the transition, for training voxels that are all alike."""


def training_range(store: Store) -> dict[str, float]:
    """Return the range of the mean S/b0 of a store's samples, and how it fades at both ends."""
    rows = [held.first_row + store.voxels(n) for n, held in enumerate(store.subjects)]
    values = store.inputs().numpy()[np.concatenate(rows), 0] / (2 * math.sqrt(math.pi))
    low, above, below, high = (float(q) for q in np.quantile(values, QUANTILES))
    return {
        "low": low,
        "high": high,
        "fade_low": max(above - low, LEAST),
        "fade_high": max(high - below, LEAST),
    }


def blend(
    known: Mapping[str, float], source: Array, predicted: Array, mask: Array
) -> tuple[NDArray[np.float32], int]:
    """Return the prediction where the source is within the range, and fade to the source outside.

    Parameters
    ----------
    known
        What `training_range` returned.
    source, predicted
        Coefficients (X, Y, Z, C).
    mask
        The voxels that were predicted (X, Y, Z).

    Returns
    -------
    Coefficients (X, Y, Z, C) float32, and how many voxels are not the network's alone.
    """
    mean = source[..., 0] / (2 * math.sqrt(math.pi))
    below = (known["low"] - mean) / known["fade_low"]
    above = (mean - known["high"]) / known["fade_high"]
    outside = np.maximum(below, above)
    weight = np.clip(1 - outside, 0, 1)[..., None]
    faded = mask & (outside > 0)
    out = np.array(predicted, np.float32)
    out[faded] = (weight * predicted + (1 - weight) * source)[faded]
    return out, int(faded.sum())
