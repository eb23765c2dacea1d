"""The two steps of a layer on spherical harmonics, with gradients that keep little.

Tensors hold coefficients first and features last, (C, B, X, Y, Z, F). Both steps work a block at a
time, so that what they hold in between stays in the cache; neither keeps values on the sphere for
the way back, which makes them anew.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_dmri.deconvolve.shd.chebyshev import neighbour_sums
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNIT", "AddConstant", "FilterDegrees", "Rectify", "parts", "rectify_"]

UNIT = math.sqrt(4 * math.pi)
"""Coefficient 0 of the function that is 1."""

BLOCK = 1 << 17
"""Numbers of a block of work on a CPU: what a core's own cache holds."""

ALL = 1 << 26
"""Numbers of a block of work on a GPU."""


class FilterDegrees(torch.autograd.Function):
    r"""Filter each degree of some inputs, and add them up.

    .. math:: y_{lm} = \sum_n \sum_r (R_r x^{(n)}_{lm}) W^{(n)}_{l,r}, \quad
        \bar x_{lm} = \sum_r (R_r \bar y_{lm}) W_{l,r}^T, \quad
        \bar W_{l,r} = \sum_m x_{lm}^T (R_r \bar y_{lm})

    with the sums :math:`R_r` over voxels at a distance (`neighbour_sums`), which are symmetric.
    Takes the band of the output, whether voxels outside repeat, the number N of inputs, N inputs
    (C, B, X, Y, Z, F) and N kernels (K, R, F, F'), K the number of degrees that pass.
    """

    @staticmethod
    def forward(ctx: Any, band: int, repeat: bool, count: int, *tensors: Tensor) -> Tensor:
        """Return y (C', B, X, Y, Z, F')."""
        ctx.types = [tensor.dtype for tensor in tensors]
        ctx.count, ctx.repeat = count, repeat
        with torch.autocast(tensors[0].device.type, enabled=False):
            typed = _working(tensors)
            ctx.save_for_backward(*typed)
            inputs, kernels = typed[:count], typed[count:]
            shape = (n_coefficients(band), *inputs[0].shape[1:-1], kernels[0].shape[-1])
            out = inputs[0].new_empty(shape)
            reach = max(len(kernel) for kernel in kernels)
            out[n_coefficients(2 * reach - 2) :].zero_()
            for degree, piece in _pieces(reach, (out, *inputs)):
                flat, add = out[piece].flatten(0, -2), False
                for x, kernel in zip(inputs, kernels, strict=True):
                    if degree >= len(kernel):
                        continue
                    for ring, matrix in _rings(x[piece], kernel[degree], repeat):
                        if add:
                            flat.addmm_(ring, matrix)
                        else:
                            torch.mm(ring, matrix, out=flat)
                        add = True
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs and the kernels."""
        saved, count = ctx.saved_tensors, ctx.count
        results: list[Tensor | None] = [None] * (2 * count)
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient.to(saved[0].dtype)
            for i, (x, kernel) in enumerate(zip(saved[:count], saved[count:], strict=True)):
                to_input = torch.zeros_like(x) if ctx.needs_input_grad[3 + i] else None
                to_kernel = torch.zeros_like(kernel)
                for degree, piece in _pieces(len(kernel), (gradient, x)):
                    values = x[piece].flatten(0, -2).T
                    matrices = kernel[degree].transpose(1, 2)
                    rings = _rings(gradient[piece], matrices, ctx.repeat)
                    for r, (ring, matrix) in enumerate(rings):
                        to_kernel[degree, r].addmm_(values, ring)
                        if to_input is not None:
                            to_input[piece].flatten(0, -2).addmm_(ring, matrix)
                results[i], results[count + i] = to_input, to_kernel
        typed = (None if r is None else r.to(t) for r, t in zip(results, ctx.types, strict=True))
        return None, None, None, *typed


class AddConstant(torch.autograd.Function):
    """Add a constant (F,) to coefficient 0, in place."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, constant: Tensor) -> Tensor:
        """Return the coefficients themselves."""
        ctx.type = constant.dtype
        ctx.mark_dirty(coefficients)
        coefficients[0] += constant.to(coefficients.dtype)
        return coefficients

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of both."""
        return gradient, gradient[0].float().sum((0, 1, 2, 3)).to(ctx.type)


class Rectify(torch.autograd.Function):
    r"""Rectify a function on directions, and return coefficients.

    .. math:: c' = A \max(S (a c) + b, 0)

    Takes c (C, B, X, Y, Z, F), a and b (F,), S (V, C), A (C, V).
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        """Return c' (C, B, X, Y, Z, F)."""
        ctx.types = [tensor.dtype for tensor in tensors]
        with torch.autocast(tensors[0].device.type, enabled=False):
            c, factor, offset, synthesis, analysis = _working(tensors)
            ctx.save_for_backward(c, factor, offset, synthesis, analysis)
            out = torch.empty_like(c)
            rectify_(c, factor, offset, synthesis, analysis, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of c, a and b."""
        c, factor, offset, synthesis, analysis = ctx.saved_tensors
        to_c, to_factor = torch.empty_like(c), torch.zeros_like(factor)
        to_offset = torch.zeros_like(offset)
        with torch.autocast(c.device.type, enabled=False):
            columns, back, made = (t.flatten(1, -2) for t in (c, gradient.to(c.dtype), to_c))
            for part in parts(columns, len(synthesis)):
                x = columns[:, part]
                scaled = x * factor
                scaled[0].add_(offset, alpha=UNIT)
                values = synthesis @ scaled.flatten(1)
                below = analysis.T @ back[:, part].flatten(1)
                below.masked_fill_(values <= 0, 0)
                grown = (synthesis.T @ below).view_as(x)
                to_factor += (grown * x).sum((0, 1))
                to_offset.add_(grown[0].sum(0), alpha=UNIT)
                torch.mul(grown, factor, out=made[:, part])
        kinds = ctx.types
        return to_c.to(kinds[0]), to_factor.to(kinds[1]), to_offset.to(kinds[2]), None, None


def rectify_(
    c: Tensor,
    factor: Tensor | None,
    offset: Tensor | None,
    synthesis: Tensor,
    analysis: Tensor,
    out: Tensor,
) -> None:
    """Write what `Rectify` returns to ``out``, which may be ``c`` itself."""
    columns, made = c.flatten(1, -2), out.flatten(1, -2)
    for part in parts(columns, len(synthesis)):
        x = columns[:, part]
        if factor is not None:
            x = x * factor
        if offset is not None:
            x[0].add_(offset, alpha=UNIT)
        values = synthesis @ x.flatten(1)
        made[:, part] = (analysis @ values.relu_()).view(len(made), -1, made.shape[-1])


def parts(columns: Tensor, vertices: int) -> list[slice]:
    """Cut voxels (C, N, F) into parts whose values on the sphere fit the memory at hand."""
    most = 4 * BLOCK if columns.device.type == "cpu" else ALL
    size = max(1, most // (vertices * columns.shape[2]))
    return [slice(first, first + size) for first in range(0, columns.shape[1], size)]


def _working(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors in the type of the first."""
    return [tensor.to(tensors[0].dtype) for tensor in tensors]


def _pieces(count: int, tensors: Sequence[Tensor]) -> list[tuple[int, slice]]:
    """Cut ``count`` degrees into (number of the degree, coefficients) that memory holds."""
    most = BLOCK if tensors[0].device.type == "cpu" else ALL
    size = max(1, most // max(tensor[0].numel() for tensor in tensors))
    found = []
    for number in range(count):
        stop = n_coefficients(2 * number)
        for first in range(stop - 4 * number - 1, stop, size):
            found.append((number, slice(first, min(first + size, stop))))
    return found


def _rings(x: Tensor, matrices: Tensor, repeat: bool) -> list[tuple[Tensor, Tensor]]:
    """Return the sums over each ring as rows, with the ring's matrix, where there are any."""
    rings = neighbour_sums(x, len(matrices), repeat)
    found = []
    for ring, matrix in zip(rings, matrices, strict=True):
        if ring is not None:
            found.append((ring.flatten(0, -2), matrix))
    return found
