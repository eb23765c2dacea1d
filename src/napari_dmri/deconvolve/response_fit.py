r"""Fit the zonal coefficients of a response to all voxels of a tissue at once.

Sample i of voxel v has the cosine :math:`t_{vi} = g_i \cdot n_v` with the voxel's fibre direction.
Over all samples of a shell

.. math:: r = \arg\min_r \sum_{vi} \bigl(S_{vi} - m(\textstyle\sum_l r_l Y_{l0}(t_{vi}),
              \sigma)\bigr)^2
          \quad\text{with}\quad A(t) \ge 0,\; A'(t) \le 0 \text{ on } [0, 1]

where :math:`A(t) = \sum_l r_l Y_{l0}(t)`: the signal is not negative and falls towards the fibre
(Smith et al. 2017, ISMRM 25:1795, use the same constraints), and :math:`m(A, \sigma)` is the mean
of a Rician magnitude (Koay and Basser 2006, J Magn Reson 179:317), so that a noise floor does not
enter the response. Without noise m(A) = A, and the minimum is a quadratic programme over a cone,
which a non-negative least-squares problem in the dual solves exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_zonal", "held_out_share", "rician_mean", "zonal_basis", "zonal_slope"]

Array = NDArray[Any]

GRID = 201
"""Cosines at which the noise's bias and the constraints are evaluated."""

ITERATIONS = 200
TOLERANCE = 1e-5


def zonal_basis(t: Array, order: int) -> NDArray[np.float64]:
    r"""Return :math:`Y_{l0}(t) = \sqrt{(2l + 1) / 4\pi}\, P_l(t)`, t.shape + (L/2 + 1,).

    Examples
    --------
    >>> zonal_basis(np.array([1.0]), 2).round(4)
    array([[0.2821, 0.6308]])
    """
    t = np.asarray(t, np.float64)
    out = np.empty((*t.shape, order // 2 + 1))
    before, now = np.ones_like(t), t
    out[..., 0] = np.sqrt(0.25 / np.pi)
    for el in range(2, order + 1):
        before, now = now, ((2 * el - 1) * t * now - (el - 1) * before) / el
        if el % 2 == 0:
            out[..., el // 2] = np.sqrt((2 * el + 1) / (4 * np.pi)) * now
    return out


def zonal_slope(t: Array, order: int) -> NDArray[np.float64]:
    r"""Return :math:`dY_{l0}/dt`, t.shape + (L/2 + 1,)."""
    t = np.asarray(t, np.float64)
    out = np.zeros((*t.shape, order // 2 + 1))
    values = [np.ones_like(t), t]
    slopes = [np.zeros_like(t), np.ones_like(t)]
    for el in range(2, order + 1):
        values.append(((2 * el - 1) * t * values[-1] - (el - 1) * values[-2]) / el)
        slopes.append((2 * el - 1) * values[-2] + slopes[-2])
        if el % 2 == 0:
            out[..., el // 2] = np.sqrt((2 * el + 1) / (4 * np.pi)) * slopes[-1]
    return out


def rician_mean(signal: Array, sigma: float) -> NDArray[np.float64]:
    r"""Return the mean magnitude of a signal A with Rician noise.

    .. math:: m = \sigma \sqrt{\pi/2}\; e^{-x} \bigl[(1 + 2x) I_0(x) + 2x I_1(x)\bigr],
              \quad x = A^2 / 4\sigma^2
    """
    a = np.asarray(signal, np.float64)
    if not sigma > 0:
        return a
    from scipy.special import ive

    x = (a / sigma) ** 2 / 4
    mean: NDArray[np.float64] = (
        sigma * np.sqrt(np.pi / 2) * ((1 + 2 * x) * ive(0, x) + 2 * x * ive(1, x))
    )
    return mean


def fit_zonal(
    signal: Array,
    cosines: Array,
    order: int,
    *,
    sigma: float = 0.0,
    constrained: bool = True,
) -> NDArray[np.float64]:
    """Fit the zonal coefficients of one shell (see the module).

    Parameters
    ----------
    signal
        Magnitudes of the shell's volumes (V, N).
    cosines
        Between each voxel's fibre and each gradient, same shape; not read at order 0.
    order
        L, even.
    sigma
        Standard deviation of the Rician noise in the signal's units; 0 fits the magnitudes
        themselves.
    constrained
        Keep the response non-negative and monotone.

    Returns
    -------
    r_l (L/2 + 1,) float64.
    """
    s = np.asarray(signal, np.float64).reshape(-1)
    if order == 0:
        root = np.sqrt(4 * np.pi)
        return np.array([_unbias(float(s.mean()), sigma) * root])
    t = np.abs(np.asarray(cosines, np.float64).reshape(-1)).clip(0, 1)
    # The signal depends on the samples through sums on a fine grid of t only.
    place = t * (GRID - 1)
    low = np.minimum(place.astype(np.int64), GRID - 2)
    upper = place - low
    basis = zonal_basis(t, order)
    normal = basis.T @ basis
    scale = np.trace(normal) / len(normal)
    normal += 1e-10 * scale * np.eye(len(normal))
    right = basis.T @ s
    spread = np.zeros((basis.shape[1], GRID))
    for k in range(basis.shape[1]):
        spread[k] = np.bincount(low, basis[:, k] * (1 - upper), GRID)
        spread[k] += np.bincount(low + 1, basis[:, k] * upper, GRID)
    grid = np.linspace(0, 1, GRID)
    on_grid = zonal_basis(grid, order)
    cone = np.concatenate([on_grid, -zonal_slope(grid, order)]) if constrained else None
    r = _solve(normal, right, cone)
    if not sigma > 0:
        return r
    for _ in range(ITERATIONS):
        a = np.maximum(on_grid @ r, 0)
        bias = rician_mean(a, sigma) - a
        new = _solve(normal, right - spread @ bias, cone)
        change = np.abs(new - r).max()
        r = new
        if change < TOLERANCE * abs(r[0]):
            break
    return r


def held_out_share(signal: Array, directions: Array) -> float:
    r"""Return how much of the anisotropy along a voxel's axis other volumes confirm, about 0 to 1.

    The axis of least signal, from a quadratic form in one half of the directions, has an l = 2
    coefficient in that half and in the other one; noise alone has it in the first only.

    Parameters
    ----------
    signal
        One shell (V, N), N of at least 12; with fewer the answer is 1.
    directions
        (N, 3).
    """
    if signal.shape[1] < 12:
        return 1.0
    inside = outside = 0.0
    for start in (0, 1):
        half = np.arange(signal.shape[1]) % 2 == start
        x, y, z = directions[half].T
        design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], 1)
        form = signal[:, half] @ np.linalg.pinv(design, rcond=1e-3).T
        matrices = form[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3)
        axes = np.linalg.eigh(matrices)[1][:, :, 0]
        for part in (half, ~half):
            cosines = axes @ directions[part].T
            zonal = fit_zonal(signal[:, part], cosines, 2, constrained=False)
            share = float(zonal[1] / zonal[0])
            if part is half:
                inside += share
            else:
                outside += share
    return outside / inside if inside < 0 else 0.0


def _solve(normal: Array, right: Array, cone: Array | None) -> NDArray[np.float64]:
    r"""Minimise :math:`\tfrac12 r^T N r - q^T r` subject to :math:`G r \ge 0`.

    With :math:`N = R^T R` and y = R r this projects :math:`y_0 = R^{-T} q` onto a cone, which is
    :math:`y_0 + M^T u`, :math:`M = G R^{-1}`, for the :math:`u \ge 0` that makes it shortest
    (Moreau).
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls

    upper = cholesky(normal)
    y = solve_triangular(upper, right, trans="T")
    if cone is not None:
        m = solve_triangular(upper, cone.T, trans="T")
        lengths = np.linalg.norm(m, axis=0)
        m = m[:, lengths > 1e-12 * lengths.max()] / lengths[lengths > 1e-12 * lengths.max()]
        u, _ = nnls(m, -y)
        y = y + m @ u
    found: NDArray[np.float64] = solve_triangular(upper, y)
    return found


def _unbias(mean: float, sigma: float) -> float:
    """Return the signal whose Rician mean is given; 0 at or below the noise floor."""
    from scipy.optimize import brentq

    if not sigma > 0:
        return mean
    if mean <= rician_mean(np.zeros(1), sigma)[0]:
        return 0.0
    return float(brentq(lambda a: rician_mean(np.array([a]), sigma)[0] - mean, 0, mean))
