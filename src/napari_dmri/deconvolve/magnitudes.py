"""Choose the likelihood of the data term: Gaussian, or Rician with the noise of the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.signal.blocks import fitting_mask
from napari_dmri.signal.noise import shell_snr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.scan import Scan

__all__ = ["NOISES", "choose_sigma", "noise_notes"]

NOISES = ("gaussian", "rician")
"""Likelihoods of the data term."""

SAMPLE = 5000
"""Voxels from which the noise is estimated, spread evenly over those that are deconvolved."""


def choose_sigma(
    scan: Scan, noise: str, sigma: float | None, mask: NDArray[Any] | None = None
) -> float | None:
    """Return the noise that the likelihood takes, in scanner units; None for Gaussian noise.

    Parameters
    ----------
    scan
        The scan.
    noise
        One of `NOISES`.
    sigma
        Standard deviation of the noise; None estimates it (see `signal.noise`) from the highest
        shell that can tell noise from signal, else from the b0 volumes.
    mask
        Voxels that are deconvolved; None takes the scan's mask, else those with b0 > 0.

    Raises
    ------
    InputError
        If the likelihood is unknown, sigma is not positive or not wanted, or it cannot be
        estimated.
    """
    if noise not in NOISES:
        raise InputError(f"The noise is {noise!r}; choose one of {', '.join(NOISES)}.")
    if noise == "gaussian":
        if sigma is not None:
            raise InputError(
                f"sigma = {sigma:g} is given with Gaussian noise, which does not need it; choose "
                'noise="rician", or leave sigma out.'
            )
        return None
    if sigma is not None:
        if not (np.isfinite(sigma) and sigma > 0):
            raise InputError(
                f"sigma is {sigma}; the noise must be positive, in the scanner's units."
            )
        return float(sigma)
    inside = fitting_mask(scan, mask)
    if inside is None:
        inside = scan.mean_b0() > 0
    some = np.zeros(scan.grid, bool)
    flat = np.flatnonzero(inside.reshape(-1))
    some.reshape(-1)[flat[:: max(1, len(flat) // SAMPLE)]] = True
    rows = [row for row in shell_snr(scan, some) if row.sigma > 0]
    own = [row for row in rows if row.source == "SH residual"] or rows
    if not own:
        raise InputError(
            f"{scan.name}: the noise cannot be estimated (too few volumes of each shell, or none "
            "to see); give sigma in the scanner's units."
        )
    return own[-1].sigma


def noise_notes(level: float | None, given: float | None) -> tuple[str, ...]:
    """Say which noise a Rician likelihood took, and where from."""
    if level is None:
        return ()
    return (f"Rician noise of {level:.4g}, {'estimated' if given is None else 'as given'}",)
