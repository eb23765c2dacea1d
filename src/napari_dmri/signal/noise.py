r"""Estimate the signal-to-noise ratio of each shell from the scan itself.

Repeats tell noise from structure. b0 volumes are repeats of each other; the volumes of a shell are
after an unregularised SH fit, whose residual has V - C degrees of freedom (in the less anisotropic
half of the voxels, where the order follows all there is). In each voxel the residual variance
:math:`s^2 = \tfrac{1}{\nu} \sum_i r_i^2` is taken, and over voxels its median, divided by the
median of :math:`\chi^2_\nu / \nu`: edges and vessels are outliers and do not count.
Magnitudes at low SNR are Rician: mean m and deviation s become signal A and noise sigma by Koay
and Basser 2006 (J Magn Reson 179:317),

.. math::

    \theta^2 = \xi(\theta) (1 + m^2 / s^2) - 2, \quad
    \sigma^2 = s^2 / \xi(\theta), \quad A^2 = m^2 + s^2 - 2 \sigma^2 .

Head motion and pulsation between volumes count as noise, so b0 volumes far apart in time give a
larger sigma than a shell does; steady errors (ghosts, distortion) do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.signal.blocks import blocks, fitting_mask
from napari_dmri.signal.mask import brain_mask
from napari_dmri.signal.sh_fit import choose_order
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from napari_dmri.scan import Scan, Shell

__all__ = ["ShellSnr", "correct_rician", "shell_snr"]

SAMPLE = 20000
"""Voxels that are looked at, spread evenly over the mask: the median needs no more."""

Array = NDArray[Any]


@dataclass(frozen=True)
class ShellSnr:
    """Say how strong a shell is against its noise.

    Parameters
    ----------
    bvalue
        Mean b-value of the shell (s/mm²).
    count
        Number of volumes.
    signal
        Median over the mask of the mean signal, Rician bias removed (scanner units).
    sigma
        Standard deviation of the noise in one volume (scanner units).
    snr
        signal / sigma.
    source
        What sigma was estimated from: ``"repeats"``, ``"SH residual"``, ``"b=... shell"``.
    """

    bvalue: float
    count: int
    signal: float
    sigma: float
    snr: float
    source: str = ""


def shell_snr(scan: Scan, mask: Array | None = None) -> tuple[ShellSnr, ...]:
    """Estimate the SNR of every shell, b0 first.

    Parameters
    ----------
    scan
        The scan.
    mask
        Where to look (X, Y, Z); None takes the scan's mask, else `brain_mask` of the scan, else
        every voxel with signal.

    Returns
    -------
    One `ShellSnr` a shell. A shell without enough volumes to tell noise from signal (a single b0,
    directions that only just carry an SH fit) takes sigma from the nearest b-value that has them;
    where none has, sigma and snr are NaN.

    Raises
    ------
    InputError
        If the mask is on another grid or empty, or no voxel in it has signal.
    """
    signal = _sample(scan, _where(scan, mask))
    shells = scan.gradients.shells
    rows: list[tuple[Shell, float, float, str]] = []
    for shell in shells:
        values = signal[:, shell.indices]
        mean = float(np.median(values.mean(1)))
        spread, source = _spread(values, scan.gradients.directions[shell.indices], shell.is_b0)
        rows.append((shell, mean, spread, source))
    known = [(shell, *correct_rician(m, s)) for shell, m, s, source in rows if source]
    result = []
    for shell, mean, spread, source in rows:
        if source:
            level, sigma = correct_rician(mean, spread)
        elif known:
            nearest, _, sigma = min(known, key=lambda k: abs(k[0].bvalue - shell.bvalue))
            level = float(np.sqrt(max(mean**2 - sigma**2, 0)))
            source = f"b={nearest.bvalue:g} shell"
        else:
            level, sigma = mean, float("nan")
        snr = level / sigma if sigma > 0 else float("nan")
        result.append(ShellSnr(shell.bvalue, shell.count, level, sigma, snr, source))
    return tuple(result)


def correct_rician(mean: float, deviation: float) -> tuple[float, float]:
    r"""Return signal A and noise sigma from mean and deviation of magnitudes.

    .. math:: \sigma^2 = s^2 / \xi(\theta), \quad A^2 = m^2 + s^2 - 2 \sigma^2

    with :math:`\xi(\theta) = 2 + \theta^2 - \tfrac{\pi}{8} e^{-\theta^2/2} [(2 + \theta^2)
    I_0(\theta^2/4) + \theta^2 I_1(\theta^2/4)]^2` and theta = A / sigma by fixed point (Koay and
    Basser 2006, eqs. 11 to 18). Below the Rayleigh limit (m / s <= 1.913) A is 0.
    """
    from scipy.special import ive

    if deviation <= 0:
        return mean, max(deviation, 0.0)
    ratio = 1 + (mean / deviation) ** 2
    theta, factor = mean / deviation, 1.0
    for _ in range(200):
        t = theta**2
        # exp(-t/4) twice is in the scaled Bessel functions.
        bessel = (2 + t) * ive(0, t / 4) + t * ive(1, t / 4)
        factor = float(2 + t - np.pi / 8 * bessel**2)
        new = float(np.sqrt(max(factor * ratio - 2, 0)))
        if abs(new - theta) < 1e-8 * (1 + theta):
            break
        theta = new
    sigma = deviation / float(np.sqrt(factor))
    return float(np.sqrt(max(mean**2 + deviation**2 - 2 * sigma**2, 0))), sigma


def _where(scan: Scan, mask: Array | None) -> NDArray[np.bool_] | None:
    chosen = fitting_mask(scan, mask)
    if chosen is None:
        try:
            chosen = brain_mask(scan)
        except InputError:
            return None
    return chosen


def _sample(scan: Scan, mask: NDArray[np.bool_] | None) -> Array:
    """Return the signal (n, N) of up to `SAMPLE` voxels that hold a positive, finite one."""
    some = np.ones(scan.grid, bool) if mask is None else mask.copy(order="C")
    inside = np.flatnonzero(some)
    step = max(1, len(inside) // SAMPLE)
    some.reshape(-1)[np.delete(inside, np.s_[::step])] = False
    read = blocks(scan, np.arange(scan.shape[3]), some)
    signal: Array = np.concatenate([np.asarray(b.signal, np.float64) for b in read])
    signal = signal[np.isfinite(signal).all(1) & (signal > 0).any(1)]
    if not len(signal):
        raise InputError(f"{scan.name}: no voxel of the mask has finite, positive signal.")
    return signal


def _spread(values: Array, directions: Array, is_b0: bool) -> tuple[float, str]:
    """Return the deviation of one volume's noise and where it comes from, "" if it cannot be."""
    from scipy.stats import chi2

    count = values.shape[1]
    if is_b0:
        if count < 2:
            return 0.0, ""
        design, source = np.ones((count, 1)), "repeats"
        # Drift of the scanner's gain is no noise.
        level = np.median(values, axis=0)
        values = values * (level.mean() / np.where(level > 0, level, level.mean()))
    else:
        try:
            order = choose_order(directions)
        except InputError:
            return 0.0, ""
        if order < 2:
            return 0.0, ""
        design, source = design_matrix(directions, order), "SH residual"
    freedom = count - design.shape[1]
    if freedom < 1:
        return 0.0, ""
    coefficients = values @ np.linalg.pinv(design).T
    residual = values - coefficients @ design.T
    if not is_b0:
        # What an order cannot follow is in anisotropic voxels; the choice is made on the fit, which
        # is independent of the residual, so it does not bias the variance.
        energy = (coefficients[:, 1:] ** 2).sum(1) / np.maximum(coefficients[:, 0] ** 2, 1e-30)
        residual = residual[energy <= np.median(energy)]
    variance = np.median((residual**2).sum(1)) / chi2.median(freedom)
    return float(np.sqrt(variance)), source
