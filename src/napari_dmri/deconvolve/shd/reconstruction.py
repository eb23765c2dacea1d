r"""From fODFs to the signal: b0 normalisation and spherical convolution, differentiable.

.. math::

    q = \frac{1}{S_0} \sum_t f_{t,00}\, r_{t,0}(b{=}0), \qquad f_t \leftarrow f_t / \sqrt{q^2 +
    10^{-16}}, \qquad
    s(g) = \sum_{lm} \sqrt{\tfrac{4\pi}{2l+1}}\, r_{bl} Y_{lm}(g) f_{lm} + \sum_t a_t f_{t,00} .

After it the predicted b0 is the measured one in every voxel (Elaldi, Gerig, Dey, NeurIPS 2024).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["fractions", "normalise", "reconstruct"]

FLOOR = 1e-16
"""Added to the squared ratio, so that a network that gives nothing has a finite gradient."""


def normalise(
    fod: torch.Tensor, others: torch.Tensor, b0: torch.Tensor, kernel: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Scale all tissues of a voxel so that together they predict its b0.

    .. math:: f_t \leftarrow f_t \, \frac{S_0}{\sqrt{p^2 + 10^{-16} S_0^2}}, \qquad
              p = \sum_t f_{t,00} r_{t,0}

    Parameters
    ----------
    fod
        White matter's fODF (..., C).
    others
        :math:`f_{00}` of the other tissues (..., T), T from 0.
    b0
        Measured mean b0 (...); where it is 0, all tissues become 0.
    kernel
        Each tissue's order 0 at b = 0 (1 + T,), white matter first.

    Returns
    -------
    The fODF (..., C) and the other tissues (..., T).

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024 (option ``normalize`` of their code).
    """
    predicted = fod[..., 0] * kernel[0]
    if others.shape[-1]:
        predicted = predicted + others @ kernel[1:]
    # The last term keeps the root away from 0 where b0 is 0 as well.
    size = (predicted.square() + FLOOR * b0.square() + 1e-30).sqrt()
    factor = (b0 / size)[..., None]
    return fod * factor, others * factor


def reconstruct(
    fod: torch.Tensor, others: torch.Tensor, forward: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Predict the signal of every volume.

    Parameters
    ----------
    fod
        White matter's fODF (..., C).
    others
        :math:`f_{00}` of the other tissues (..., T).
    forward
        Matrices (N, C') and (N, T) of `Prepared`; C' may be smaller than C, where the response's
        order is.

    Returns
    -------
    (..., N), in units of white matter's b0.
    """
    wm, isotropic = forward
    signal = fod[..., : wm.shape[1]] @ wm.T
    if others.shape[-1]:
        signal = signal + others @ isotropic.T
    return signal


def fractions(fod: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    r"""Return how much there is of each tissue, :math:`\sqrt{4\pi} f_{00}` (..., 1 + T).

    White matter's is in units of its own b0 (its apparent fibre density).
    """
    import torch

    return torch.cat([fod[..., :1], others], dim=-1) * math.sqrt(4 * math.pi)
