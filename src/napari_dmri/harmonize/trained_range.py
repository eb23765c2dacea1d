r"""Keep the source where its signal is far from what a network was trained on.

Networks learn from white and grey matter. In other voxels, such as those of CSF, what they give is
extrapolated, and it can be farther from the target than the source was. The mean m of S/b0 over the
sphere, :math:`c_{00} / 2 \sqrt \pi`, tells: with :math:`q_p` its quantiles over the training
voxels, and :math:`s = e^{-b D}` that of free water, the prediction counts with the weight

.. math:: w = \mathrm{clip}\left(\frac{m - l}{f} + 1, 0, 1\right), \quad
    l = s + \tfrac34 (q_{0.001} - s), \quad f = \tfrac12 (q_{0.001} - s)

at the dark end, and the source's own fit with 1 - w: half of each midway between free water and the
darkest training voxels. That is where a network begins to lose: with SHResNet on a simulated person
at b = 1200 the error of the signal is a third of the source's just below the training range, at
S/b0 of 0.16, the same at 0.10, and six times as large at 0.04. At the bright end the prediction
fades out beyond :math:`q_{0.999}`, over the width of :math:`q_{0.999} - q_{0.99}`.
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

QUANTILES = (0.001, 0.99, 0.999)
FREE_WATER = 3.0e-3
"""Diffusivity of water at 37 degrees, in mm2/s."""
LEAST = 1e-3
"""Least width of the transition, for training voxels that are all alike."""


def training_range(store: Store, bvalue: float) -> dict[str, float]:
    """Return where the mean S/b0 of a store's samples ends, and how results fade beyond.

    Parameters
    ----------
    store
        The training voxels: coefficients of one shell.
    bvalue
        The shell's, in s/mm2.
    """
    rows = [held.first_row + store.voxels(n) for n, held in enumerate(store.subjects)]
    values = store.inputs().numpy()[np.concatenate(rows), 0] / (2 * math.sqrt(math.pi))
    darkest, below, high = (float(q) for q in np.quantile(values, QUANTILES))
    water = math.exp(-bvalue * FREE_WATER)
    gap = max(darkest - water, 0.0)
    return {
        "low": darkest - gap / 4,
        "high": high,
        "fade_low": max(gap / 2, LEAST),
        "fade_high": max(high - below, LEAST),
    }


def blend(
    known: Mapping[str, float], source: Array, predicted: Array, mask: Array
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
    Coefficients (X, Y, Z, C) float32, and the share of the source in each voxel (X, Y, Z): 0 where
    they are the network's alone.
    """
    mean = source[..., 0] / (2 * math.sqrt(math.pi))
    below = (known["low"] - mean) / known["fade_low"]
    above = (mean - known["high"]) / known["fade_high"]
    share = np.where(mask, np.clip(np.maximum(below, above), 0, 1), 0).astype(np.float32)
    faded = share > 0
    kept = share[faded, None]
    out = np.array(predicted, np.float32)
    out[faded] = (1 - kept) * predicted[faded] + kept * source[faded]
    return out, share
