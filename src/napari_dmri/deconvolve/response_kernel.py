r"""Tell the response of one straight fibre from the spread of fibres within voxels.

Fibres in a voxel are never parallel, so the signal about their mean direction is the straight
fibre's response smoothed by their spread. The mean over directions is not touched by that
(Lindemeyer et al. 2015; Kaden et al. 2016, Magn Reson Med 75:1752), the orders above it shrink,

.. math:: x_l(b) = r_l(b)\, w_l(\kappa), \qquad w_l(\kappa) = \langle P_l \rangle_{Watson}.

Two compartments describe the straight fibre: sticks (a fraction f of the signal) and a tensor
around them,

.. math:: A(t; b) = f e^{-b D_\parallel t^2}
          + (1 - f) e^{-b D_\perp - b (D_\parallel - D_\perp) t^2}.

:math:`f, D_\parallel, D_\perp, \kappa` are fitted to the coefficients of all shells together, each
weighted by 1 / (0.6 % of the shell's mean), with the priors :math:`D_\parallel = 1.7 \pm 0.08`
µm²/ms (Zhang et al. 2012, Neuroimage 61:1000, fix it there) and
:math:`D_\perp = (1 - f) D_\parallel \pm 0.08` (tortuosity; Szafer et al. 1995). Several shells
overrule the priors; a single one, which cannot tell a sharp response from a small spread, counts
half and leans on them. Undispersed data give :math:`\kappa \to \infty`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.response_fit import zonal_basis

__all__ = ["Fibre", "fit_fibre", "kernel_zonal", "watson_weights"]

Array = NDArray[Any]

NODES = 128
WEIGHTS = (0.012, 0.006)
"""Trusted misfit of one shell, and of each of several: one cannot tell shape from spread."""
PARALLEL = (1.7, 0.08)
TORTUOSITY = 0.08
LARGEST_ORDER = 6
"""Orders that enter the fit: above, the spread leaves little but noise."""


@dataclass(frozen=True)
class Fibre:
    """Describe straight fibres and how they spread.

    Parameters
    ----------
    sticks
        Fraction of the signal at b = 0 that is inside sticks.
    parallel, perpendicular
        Diffusivities in µm²/ms.
    spread
        1 / kappa of the Watson distribution; 0 for parallel fibres.
    misfit
        Root mean square of model minus data over the shells' means.
    """

    sticks: float
    parallel: float
    perpendicular: float
    spread: float
    misfit: float

    @property
    def degrees(self) -> float:
        """The root mean square angle to the mean direction."""
        second = float(watson_weights(self.spread, 2)[1])
        return float(np.rad2deg(np.arcsin(np.sqrt(max(1 - (2 * second + 1) / 3, 0)))))

    def zonal(self, bvalues: Array, order: int) -> NDArray[np.float64]:
        """Return the straight fibre's zonal coefficients (S, L/2 + 1) for a b0 signal of 1."""
        return kernel_zonal(bvalues, self.sticks, self.parallel, self.perpendicular, order)

    def with_mean(self, bvalues: Array, means: Array) -> Fibre:
        """Return the fibre whose mean signal over directions is nearest to that given.

        Sticks and tensor exchange signal, the tensor's radial diffusivity following the fraction
        as tortuosity says.

        Parameters
        ----------
        bvalues
            Shells (S,) in s/mm².
        means
            Mean signal over directions divided by the b0 signal (S,).
        """
        from dataclasses import replace

        from scipy.optimize import least_squares

        wanted = np.asarray(means, np.float64)

        def moved(f: float) -> Fibre:
            across = self.perpendicular + (self.sticks - f) * self.parallel
            return replace(self, sticks=f, perpendicular=float(np.clip(across, 0, self.parallel)))

        def error(p: Array) -> Array:
            mean = moved(float(p[0])).zonal(bvalues, 0)[:, 0] / np.sqrt(4 * np.pi)
            result: Array = mean / wanted - 1
            return result

        start = np.clip(self.sticks, 1e-3, 1 - 1e-3)
        found = least_squares(error, [start], bounds=([0], [1]))
        return moved(float(found.x[0]))


@lru_cache(maxsize=4)
def _quadrature(order: int) -> tuple[Array, Array, Array]:
    """Return cosines in [0, 1], weights, and Y_l0 there (n, L/2 + 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    t = (nodes + 1) / 2
    return t, weights / 2, zonal_basis(t, order)


def kernel_zonal(
    bvalues: Array, sticks: float, parallel: float, perpendicular: float, order: int
) -> NDArray[np.float64]:
    r"""Return :math:`r_l = 2\pi \int_{-1}^{1} A(t; b) Y_{l0}(t)\,dt` (S, L/2 + 1).

    b-values are in s/mm², diffusivities in µm²/ms.
    """
    t, weights, basis = _quadrature(order)
    b = 1e-3 * np.asarray(bvalues, np.float64)[:, None]
    signal = sticks * np.exp(-b * parallel * t**2)
    signal += (1 - sticks) * np.exp(-b * perpendicular - b * (parallel - perpendicular) * t**2)
    zonal: NDArray[np.float64] = 4 * np.pi * (signal * weights) @ basis
    return zonal


def watson_weights(spread: float, order: int) -> NDArray[np.float64]:
    r"""Return :math:`w_l = \langle P_l \rangle` of a Watson distribution of kappa = 1 / spread."""
    t, weights, basis = _quadrature(order)
    degrees = np.arange(0, order + 1, 2)
    if spread < 1e-4:
        return np.ones(len(degrees))
    density = np.exp((t**2 - 1) / spread) * weights
    polynomials = basis / np.sqrt((2 * degrees + 1) / (4 * np.pi))
    result: NDArray[np.float64] = density @ polynomials / density.sum()
    return result


def fit_fibre(bvalues: Array, zonal: Array) -> Fibre:
    """Fit the model to the zonal coefficients of voxels with one fibre direction (see module).

    Parameters
    ----------
    bvalues
        Weighted shells (S,) in s/mm².
    zonal
        Their coefficients (S, L/2 + 1) for a b0 signal of 1, that is divided by the mean b0.
    """
    from scipy.optimize import least_squares

    count = min(zonal.shape[1], LARGEST_ORDER // 2 + 1)
    data = np.asarray(zonal, np.float64)[:, :count]
    means = np.maximum(data[:, :1], 1e-6)

    weight = WEIGHTS[0] if len(data) == 1 else WEIGHTS[1]

    def misfit(p: Array) -> Array:
        model = kernel_zonal(bvalues, p[0], p[1], min(p[2], p[1]), 2 * (count - 1))
        difference: Array = (model * watson_weights(p[3], 2 * (count - 1)) - data) / means
        return difference

    def error(p: Array) -> Array:
        priors = [(p[1] - PARALLEL[0]) / PARALLEL[1], (p[2] - (1 - p[0]) * p[1]) / TORTUOSITY]
        return np.concatenate([misfit(p).ravel() / weight, priors])

    bounds = ([0, 0.8, 0, 1e-5], [1, 3.0, 1.5, 0.6])
    fits = [
        least_squares(error, [f, 1.7, 0.5, s], bounds=bounds, x_scale=[0.1, 0.1, 0.1, 0.05])
        for f in (0.2, 0.6)
        for s in (0.02, 0.12)
    ]
    best = min(fits, key=lambda fit: fit.cost).x
    size = float(np.sqrt((misfit(best) ** 2).mean()))
    f, along, across, spread = (float(v) for v in best)
    return Fibre(f, along, min(across, along), spread, size)
