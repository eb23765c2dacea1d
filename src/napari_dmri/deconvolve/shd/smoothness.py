r"""Spatial smoothness of the shapes of fODFs.

The shape of a voxel's fODF is its amplitudes on the V = 3072 vertices of N_side 16 over their norm,
:math:`u_p = f_p / \lVert f_p \rVert`; how much white matter there is does not count. Only pairs of
neighbours that are both in the mask do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.deconvolve.shd.amplitudes import VERTICES

if TYPE_CHECKING:
    import torch

__all__ = ["FORMS", "shapes", "smoothness"]

FORMS = ("squared", "tv")

FAINT = VERTICES * (0.01 / (4 * 3.141592653589793)) ** 2
"""Squared norm of an even fODF of a hundredth of white matter: shapes of less fade to zero."""

EDGE = 1e-6
"""Added to squared jumps below a root, whose slope at none is infinite otherwise."""


def shapes(fod: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    r"""Return the shapes of fODFs, :math:`u = R c / \sqrt{\lVert R c \rVert^2 + \epsilon}`.

    Parameters
    ----------
    fod
        Coefficients (..., C).
    factor
        R of `norm_factor` (C, C), which keeps the norms on the vertices.

    Returns
    -------
    (..., C); zero for an fODF of zero.
    """
    h = fod @ factor.T
    scaled: torch.Tensor = h * (h.square().sum(-1, keepdim=True) + FAINT).rsqrt()
    return scaled


def smoothness(
    shape: torch.Tensor, mask: torch.Tensor, counted: torch.Tensor, form: str = "squared"
) -> torch.Tensor:
    r"""Return how much shapes differ between neighbours.

    ``"squared"``, the paper's, is the mean of six terms, forth and back along three axes, each the
    mean over inner voxels p of a patch (those with both neighbours)

    .. math:: \frac1V \lVert u_p - u_{p \pm e} \rVert^2 ;

    ``"tv"`` is total variation, which leaves edges as sharp as they are, the mean over voxels of

    .. math:: \frac1V \Big( \frac12 \sum_{e, \pm} \lVert u_p - u_{p \pm e} \rVert^2 \Big)^{1/2} .

    Parameters
    ----------
    shape
        Of `shapes` (B, X, Y, Z, C).
    mask
        Voxels that may be neighbours (B, X, Y, Z), bool.
    counted
        Voxels p that are averaged over, within the mask.
    form
        ``"squared"`` or ``"tv"``.

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024. The paper's code asks only p to be in the mask.
    """
    import torch

    total: torch.Tensor = torch.zeros((), device=shape.device)
    around = torch.zeros(mask.shape, device=shape.device)
    for axis in (1, 2, 3):
        n = shape.shape[axis]
        first, second = slice_of(axis, 0, n - 1), slice_of(axis, 1, n)
        jump = (shape[second] - shape[first]).square().sum(-1)
        pair = mask[first] & mask[second]
        if form == "tv":
            jump = torch.where(pair, jump, 0.0) / 2
            around = around + _placed(jump, axis, 0) + _placed(jump, axis, 1)
            continue
        # The edge i joins i and i + 1: its inner end is i on the way forth, i + 1 on the way back.
        for edges, centres in (((1, n - 1), first), ((0, n - 2), second)):
            part = slice_of(axis, *edges)
            weight = (pair & counted[centres])[part].to(jump.dtype)
            total = total + (jump[part] * weight).sum() / weight.sum().clamp(min=1)
    if form == "tv":
        weight = counted.to(around.dtype)
        root = (around + EDGE).sqrt() - EDGE**0.5
        total = (root * weight).sum() / weight.sum().clamp(min=1)
        return total / VERTICES
    return total / (6 * VERTICES)


def slice_of(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """Return the index of a range along an axis."""
    return (*[slice(None)] * axis, slice(start, stop))


def _placed(jump: torch.Tensor, axis: int, after: int) -> torch.Tensor:
    """Add a slab of zeros after (0) or before (1) along an axis."""
    from torch.nn.functional import pad

    widths = [0, 0] * (jump.ndim - 1 - axis) + ([1, 0] if after else [0, 1])
    return pad(jump, widths)
