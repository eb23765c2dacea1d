r"""Magnitude noise: Rician for one channel, non-central chi for the sum of squares of n.

.. math:: M = \sqrt{(S + \sigma z_1)^2 + \sigma^2 \sum_{i=2}^{2n} z_i^2}, \quad z_i \sim N(0, 1)

Where S = 0 its mean is the noise floor, :math:`\sigma \sqrt{\pi/2}` for n = 1
(Gudbjartsson 1995; Constantinides 1997).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

__all__ = ["add_noise"]

Array = NDArray[Any]


def add_noise(
    signal: Array, sigma: Array, coils: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return noisy magnitudes of a signal.

    Parameters
    ----------
    signal
        Noise-free magnitudes (X, Y, Z, N).
    sigma
        SD per channel (X, Y, Z).
    coils
        Channels n.
    rng
        Source of randomness; drawn volume by volume.

    Raises
    ------
    InputError
        If there is no channel or an SD is negative.
    """
    if coils < 1 or (np.asarray(sigma) < 0).any():
        raise InputError(
            f"Noise of {coils} channels with SD from {np.min(sigma):g}; expected at least 1 "
            "channel and SDs of 0 or more."
        )
    spread = np.asarray(sigma, np.float32)
    noisy = np.empty(signal.shape, np.float32)
    for n in range(signal.shape[-1]):
        real = rng.standard_normal(spread.shape, np.float32) * spread + signal[..., n]
        if coils == 1:
            other = (rng.standard_normal(spread.shape, np.float32) * spread) ** 2
        else:
            other = rng.chisquare(2 * coils - 1, spread.shape).astype(np.float32) * spread**2
        noisy[..., n] = np.sqrt(real**2 + other)
    return noisy
