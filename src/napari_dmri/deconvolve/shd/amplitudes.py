r"""Non-negativity and sparsity of fODFs on a fine sampling of the sphere, in one pass.

With the amplitudes :math:`f = B c` on V vertices,

.. math::

    N = \frac1V \sum_v \min(f_v, 0)^2, \qquad
    P = \frac1V \sum_v 2 \log\Big(1 + \frac{f_v^2}{2 \sigma}\Big) .

Their gradients are known in closed form, so they are taken with the values, block by block: no
array of amplitudes is kept for the way back, and each is multiplied by B once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix_half

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VERTICES", "amplitude_basis", "amplitude_terms", "norm_factor"]

N_SIDE = 16
VERTICES = 12 * N_SIDE**2
"""Vertices of the whole sphere, over which the losses are means."""

BLOCK = 128
"""Rows that a CPU handles at a time: three arrays of their amplitudes fit its cache."""


@lru_cache(maxsize=8)
def amplitude_basis(degree: int) -> NDArray[np.float32]:
    """Return the SH basis (V / 2, C) on one vertex of each antipodal pair of N_side 16."""
    basis = design_matrix(healpix_half(N_SIDE), degree).astype(np.float32)
    basis.setflags(write=False)
    return basis


@lru_cache(maxsize=8)
def norm_factor(degree: int) -> NDArray[np.float32]:
    r"""Return R (C, C) with :math:`\lVert R c \rVert^2 = \sum_v (B c)_v^2` over all V vertices.

    The Cholesky factor of :math:`B^T B`: distances between fODFs on the vertices are those between
    vectors of C numbers instead of V.
    """
    basis = design_matrix(healpix_half(N_SIDE), degree)
    factor = np.linalg.cholesky(2 * basis.T @ basis).T.astype(np.float32)
    factor.setflags(write=False)
    return np.ascontiguousarray(factor)


def amplitude_terms(
    fod: torch.Tensor,
    weights: torch.Tensor,
    basis: torch.Tensor,
    scale: float,
    non_negativity: float,
    sparsity: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return the weighted sum of both terms, and each alone (without gradients).

    .. math:: \frac{\sum_n w_n (a N_n + b P_n)}{\max(1, \sum_n w_n)}

    Parameters
    ----------
    fod
        Coefficients (n, C), float32.
    weights
        What a row counts, 0 or 1 (n,).
    basis
        Of `amplitude_basis` (V / 2, C).
    scale
        :math:`\sigma`.
    non_negativity, sparsity
        a and b.
    """
    total, negative, sparse = _Terms.apply(  # type: ignore[no-untyped-call]
        fod, weights, basis, float(scale), float(non_negativity), float(sparsity)
    )
    return total, negative, sparse


class _Terms(torch.autograd.Function):
    """Both terms; the gradient for the sum is made on the way forth."""

    @staticmethod
    def forward(
        ctx: Any,
        fod: torch.Tensor,
        weights: torch.Tensor,
        basis: torch.Tensor,
        scale: float,
        non_negativity: float,
        sparsity: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count, vertices = len(fod), len(basis)
        block = BLOCK if fod.device.type == "cpu" else 2**15
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(fod) if wanted else None
        negative = torch.zeros((), device=fod.device)
        sparse = torch.zeros((), device=fod.device)
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            f = fod[rows] @ basis.T
            below = f.clamp(max=0)
            squared = f * f
            if wanted:
                slope = squared + 2 * scale
                torch.div(f, slope, out=slope)
                slope.mul_(4 * sparsity).add_(below, alpha=2 * non_negativity)
                torch.mm(slope, basis, out=gradient[rows])  # type: ignore[index]
            own = weights[rows]
            sparse += own @ squared.div_(2 * scale).log1p_().sum(1)
            negative += own @ below.square_().sum(1)
        share = 1 / (vertices * weights.sum().clamp(min=1))
        negative *= share
        sparse *= 2 * share
        if gradient is not None:
            gradient *= (weights * share)[:, None]
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(negative, sparse)
        return non_negativity * negative + sparsity * sparse, negative, sparse

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None, None
