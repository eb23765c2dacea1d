r"""Matrices of spherical harmonic fits, the orders that directions support, and the product.

The penalty of `fitting_matrix` is the Laplace-Beltrami operator of Descoteaux et al. 2007, eq. 13.
Everything is factorised once in float64; voxels are then one float32 matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable
from napari_dmri.sphere.harmonics import degrees, design_matrix, n_coefficients

if TYPE_CHECKING:
    import torch

__all__ = [
    "CHUNK",
    "as_tensor",
    "choose_order",
    "condition_number",
    "fit_sh_array",
    "fitting_matrix",
    "need_two",
]

MAX_CONDITION = 100.0
"""The default order's design has at most this condition number."""

SPARE_DIRECTIONS = 1.2
"""The default order has at most directions / 1.2 coefficients."""

CHUNK = 32768
"""Voxels that are normalised and multiplied at a time on a CPU: they fit the last cache."""

Array = NDArray[Any]


def fitting_matrix(directions: Array, order: int, smooth: float = 0.006) -> NDArray[np.float64]:
    r"""Return the matrix that turns a shell's signal into coefficients.

    .. math:: M = (B^T B + \lambda\,\mathrm{diag}(l^2 (l+1)^2))^{-1} B^T

    Parameters
    ----------
    directions
        Unit vectors (V, 3).
    order
        Maximum degree L.
    smooth
        Lambda, at least 0.

    Returns
    -------
    (C, V) float64.

    Raises
    ------
    InputError
        If lambda is negative or not finite.
    """
    if not np.isfinite(smooth) or smooth < 0:
        raise InputError(f"The smoothing lambda is {smooth}; it must be 0 or more (usual: 0.006).")
    design = design_matrix(directions, order)
    el = degrees(order).astype(np.float64)
    # Stacked least squares keeps the design's own condition number, not its square.
    stacked = np.concatenate([design, np.diag(np.sqrt(smooth) * el * (el + 1))])
    inverse: NDArray[np.float64] = np.linalg.pinv(stacked)[:, : len(design)]
    return inverse


def condition_number(directions: Array, order: int, smooth: float = 0.0) -> float:
    """Return the condition number (2-norm) of a design, of its regularised form if lambda > 0."""
    design = design_matrix(directions, order)
    if smooth > 0:
        el = degrees(order).astype(np.float64)
        design = np.concatenate([design, np.diag(np.sqrt(smooth) * el * (el + 1))])
    elif len(design) < design.shape[1]:
        return float("inf")
    return float(np.linalg.cond(design))


def choose_order(directions: Array) -> int:
    r"""Choose the largest order that the directions carry with some to spare.

    .. math:: \max L: \; (L+1)(L+2)/2 \le n / 1.2, \quad \mathrm{cond}(B) \le 100

    with n the number of distinct directions: antipodes and duplicates count once.

    Raises
    ------
    InputError
        If there are fewer than two distinct directions.
    """
    directions = np.asarray(directions, dtype=np.float64).reshape(-1, 3)
    distinct = _distinct(directions)
    need_two(distinct)
    order = 0
    while (
        n_coefficients(order + 2) <= distinct / SPARE_DIRECTIONS
        and condition_number(directions, order + 2) <= MAX_CONDITION
    ):
        order += 2
    return order


def _distinct(directions: Array) -> int:
    table = GradientTable(np.full(len(directions), 1000.0), directions)
    return table.distinct_directions()


def need_two(distinct: int) -> None:
    """Refuse fewer than two distinct directions."""
    if distinct < 2:
        raise InputError(
            f"The shell has {distinct} distinct direction; spherical harmonics need at least 2 "
            "(7 for order 2, 18 for order 4): choose another shell or check the bvec file."
        )


def fit_sh_array(signal: Array, matrix: Array, device: str = "cpu") -> NDArray[np.float32]:
    r"""Multiply each voxel's values by one matrix, :math:`c = M s`.

    Parameters
    ----------
    signal
        (..., V); float32 is used as it lies in memory.
    matrix
        (C, V), e.g. of `fitting_matrix`; or a design (V, C) on coefficients, to evaluate them.
    device
        Where the product runs.

    Returns
    -------
    (..., C) float32.
    """
    import torch

    chosen = choose_device(device)
    signal = np.asarray(signal, dtype=np.float32)
    lead, count = signal.shape[:-1], len(matrix)
    by_volume = signal.flags.f_contiguous and not signal.flags.c_contiguous
    flat = (
        signal.T.reshape(signal.shape[-1], -1).T
        if by_volume
        else signal.reshape(-1, signal.shape[-1])
    )
    factor = as_tensor(np.asarray(matrix, dtype=np.float32)).to(chosen.torch())
    out = (
        np.empty((count, *lead[::-1]), np.float32).T
        if by_volume
        else np.empty((*lead, count), np.float32)
    )
    target = out.T.reshape(count, -1).T if by_volume else out.reshape(-1, count)

    def multiply(part: slice) -> None:
        if chosen.name == "cpu":
            torch.mm(as_tensor(flat[part]), factor.T, out=torch.from_numpy(target[part]))
        else:
            target[part] = (as_tensor(flat[part]).to(factor.device) @ factor.T).cpu().numpy()

    each = 4 * (flat.shape[1] + count)
    most = CHUNK if chosen.name == "cpu" else 2**28 // each
    run_tiles(multiply, len(flat), each, chosen.name, most=max(1, most))
    return out


def as_tensor(array: Array) -> torch.Tensor:
    """Wrap an array without a copy where torch can (no negative strides, writable)."""
    import torch

    if not array.flags.writeable or any(s < 0 for s in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
