r"""Measure the lobe of each peak: its integral and its spread.

On the axes of the search grid every axis belongs to the maximum that the steepest way up leads to.
With weights :math:`w_d` that integrate the function's orders exactly over the whole sphere,

.. math:: \mathrm{AFD}_k = \sum_{d \in k} w_d f(d)^+, \qquad
          \sigma_k = \sqrt{\frac{\sum_{d \in k} w_d f(d)^+ \angle(d, u_k)^2}{\mathrm{AFD}_k}} .

Apparent fibre density of lobes: Raffelt et al., NeuroImage 59:3976, 2012; segmentation as in
Smith et al., NeuroImage 67:298, 2013, appendix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from napari_dmri.deconvolve.peak_search import Search

__all__ = ["measure_lobes"]

IN_CACHE = 1024
"""Functions that are segmented at once."""

NEAR = 1.3
"""Angle from a lobe's highest axis to its peak at most, in chart radii."""


def measure_lobes(
    search: Search, coefficients: Tensor, directions: Tensor, amplitudes: Tensor
) -> tuple[Tensor, Tensor]:
    """Integrate the lobes of peaks.

    Parameters
    ----------
    search
        The search that found the peaks.
    coefficients
        The functions (N, C).
    directions, amplitudes
        Their peaks (N, K, 3) and (N, K), zero where there is none.

    Returns
    -------
    The integral over the sphere, both poles' lobes together, and the root mean square angle to
    the peak in degrees, each (N, K).
    """
    weights = quadrature(search)
    density, spread = torch.zeros_like(amplitudes), torch.zeros_like(amplitudes)
    for start in range(0, len(coefficients), IN_CACHE):
        part = slice(start, start + IN_CACHE)
        values = search.values @ coefficients[part].T
        root = roots(values, search.neighbours)
        cosine = (search.directions @ directions[part].transpose(1, 2)).abs_()
        cosine = cosine.masked_fill_((amplitudes[part] <= 0)[:, None], -1.0)
        near, owner = cosine.max(2)
        owner = owner.masked_fill_(near < torch.cos(torch.tensor(NEAR * search.radius)), -1)
        lobe = owner.gather(1, root.T)
        mass = values.T.clamp(min=0) * weights * (lobe >= 0)
        lobe = lobe.clamp_(min=0)
        angle = cosine.gather(2, lobe[..., None])[..., 0].clamp_(-1, 1).arccos_()
        density[part] = torch.zeros_like(density[part]).scatter_add_(1, lobe, mass)
        spread[part] = torch.zeros_like(density[part]).scatter_add_(1, lobe, mass * angle**2)
    spread = (spread / density.clamp(min=1e-30)).sqrt_().rad2deg_()
    return density, torch.where(density > 0, spread, 0.0)


def roots(values: Tensor, neighbours: Tensor) -> Tensor:
    """Return for each axis and function (D, N) the maximum that the steepest way up leads to."""
    best, parent = values, torch.arange(len(values), device=values.device)[:, None]
    parent = parent.expand_as(values)
    for neighbour in neighbours:
        other = values.index_select(0, neighbour)
        parent = torch.where(other > best, neighbour[:, None], parent)
        best = torch.maximum(best, other)
    while True:
        above = parent.gather(0, parent)
        if torch.equal(above, parent):
            return parent
        parent = above


def quadrature(search: Search) -> Tensor:
    """Return weights (D,) that integrate all orders of the search over the sphere."""
    basis = search.values.double().cpu()
    integral = torch.zeros(basis.shape[1], dtype=torch.float64)
    integral[0] = (4 * torch.pi) ** 0.5
    # Of all such weights, those closest to equal ones: small, positive, stable.
    equal = torch.full((len(basis),), 4 * torch.pi / len(basis), dtype=torch.float64)
    change = torch.linalg.lstsq(basis.T, (integral - basis.T @ equal)[:, None]).solution[:, 0]
    weights: Tensor = (equal + change).to(search.values)
    return weights
