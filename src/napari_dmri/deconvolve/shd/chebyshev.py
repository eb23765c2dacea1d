r"""Convolve space and sphere at once: isotropic kernels in space, polynomials of the Laplacian.

.. math::

    y_o(v, p) = b_o + \sum_{i, k, d} a_{oik} \, s_{o i r(d)} \, [T_k(L^+) x_i](v, p + d),
    \qquad d \in \{-1, 0, 1\}^3, \quad r(d) = |d|^2,

with zeros, or the nearest voxel, outside the volume. It is evaluated in the modes of the Laplacian
(eigenvectors, see `sphere`), where the polynomials are numbers, and with the sums over the 1, 6, 12
and 8 neighbours at each distance, which every pair of features shares:

.. math::

    \hat y_o(\lambda, p) = \sum_{i, r} W_{i r o}(\lambda)
        \sum_{r(d) = r} \hat x_i(\lambda, p + d), \qquad
    W_{i r o}(\lambda) = s_{oir} \sum_k a_{oik} T_k(\lambda) .

This is the same function as the paper's, with 4 Fin Fout multiplications a mode and voxel in place
of 27 K Fin Fout.

References
----------
Elaldi, Gerig, Dey, NeurIPS 2024.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_dmri.deconvolve.shd.pooling import unpool_space
from napari_dmri.deconvolve.shd.unet import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.deconvolve.shd.sphere import Sphere

__all__ = ["ChebyshevLayer", "Mixing", "neighbour_sums"]

CACHE = 2**17
"""Values of one ring that are worked on at once on a CPU."""

ALL = 2**26
"""Values of one ring that are worked on at once on a GPU."""


class ChebyshevLayer(Layer):
    r"""Filter the sphere and, with a spatial kernel, the neighbourhood of each voxel.

    Parameters
    ----------
    sphere
        The level's sphere.
    fine, coarse
        Features of the level that go in, and of the level below (0: none), which is unpooled.
        Weights take the coarse ones first.
    outputs
        Features that come out.
    terms
        K, Chebyshev polynomials.
    rings
        Spatial weights a pair of features: 4 distances, 27 voxels, 1 (the voxel itself), or 0 for
        a filter on the sphere alone.
    repeat
        Whether the nearest voxel stands for those outside, for 4 distances.
    """

    polynomials: Tensor

    def __init__(
        self,
        sphere: Sphere,
        fine: int,
        coarse: int,
        outputs: int,
        terms: int = 5,
        rings: int = 4,
        repeat: bool = False,
    ) -> None:
        super().__init__()
        self.sphere, self.coarse, self.rings, self.repeat = sphere, coarse, rings, repeat
        inputs = fine + coarse
        self.a = nn.Parameter(torch.empty(outputs, inputs, terms))
        self.s = nn.Parameter(torch.empty(outputs, inputs, rings)) if rings else None
        self.bias = nn.Parameter(torch.full((outputs,), 0.01))
        polynomials = torch.tensor(sphere.polynomials(terms), dtype=torch.get_default_dtype())
        self.register_buffer("polynomials", polynomials, persistent=False)
        nn.init.normal_(self.a, std=math.sqrt(2 / (inputs * terms)))
        if self.s is not None:
            nn.init.normal_(self.s, std=math.sqrt(2 / (inputs * (27 if rings > 1 else 1))))

    def weights(self, scale: Tensor | None = None) -> Tensor:
        """Return W (V, R, Fin, Fout), times a number for each output."""
        a = self.a if scale is None else self.a * scale[:, None, None]
        outputs, inputs, terms = a.shape
        mixed = self.polynomials @ a.permute(2, 1, 0).reshape(terms, -1)
        mixed = mixed.view(-1, 1, inputs, outputs)
        return mixed if self.s is None else mixed * self.s.permute(2, 1, 0)

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return y (V, B, X, Y, Z, Fout)."""
        weights = self.weights()
        y = mix(self.sphere.to_modes(x), weights[:, :, self.coarse :], self.repeat)
        if coarse is not None:
            below = unpool_space(self.sphere.coarse_to_modes(coarse), x.shape[2:5])
            y = y + mix(below, weights[:, :, : self.coarse], self.repeat)
        return self.sphere.from_modes(y) + self.bias

    def infer(self, x: Tensor, coarse: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
        """Return relu(scale * y + shift), in the memory of x where it fits."""
        weights = self.weights(scale)
        modes = self.sphere.to_modes_(x)
        outputs = len(self.bias)
        out = modes if x.shape[-1] == outputs else x.new_empty(*x.shape[:-1], outputs)
        below = None if coarse is None else self.sphere.coarse_to_modes(coarse)
        for part in _parts(modes):
            y = _mix(modes[part], weights[part, :, self.coarse :], self.repeat)
            if below is not None:
                spread = unpool_space(below[part], x.shape[2:5])
                _mix(spread, weights[part, :, : self.coarse], self.repeat, y)
            out[part] = y
        return self.sphere.from_modes_(out, shift + scale * self.bias)


class Mixing(torch.autograd.Function):
    r"""Sum rings of neighbours with weights of their own for every mode.

    .. math:: y = \sum_r (R_r x) W_r, \quad
        \bar x = \sum_r (R_r^T \bar y) W_r^T, \quad \bar W_r = x^T (R_r^T \bar y)

    Only x and W are kept: the backward pass needs no rings but those of :math:`\bar y`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, repeat: bool) -> Tensor:
        """Return y (V, B, X, Y, Z, Fout) of x (V, B, X, Y, Z, Fin) and W (V, R, Fin, Fout)."""
        ctx.save_for_backward(x, weights)
        ctx.repeat = repeat
        out = x.new_empty(*x.shape[:-1], weights.shape[-1])
        for part in _parts(x):
            out[part] = _mix(x[part], weights[part], repeat)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of x and W."""
        x, weights = ctx.saved_tensors
        need_x, need_w, _ = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if need_x else None
        grad_w = torch.zeros_like(weights) if need_w else None
        for part in _parts(x if x.shape[-1] > grad.shape[-1] else grad):
            count = weights.shape[1]
            rings = neighbour_sums(grad[part], count, ctx.repeat)[:: _order(count)]
            values = x[part].flatten(1, -2)
            total = None
            for r, ring in enumerate(rings):
                if ring is None:
                    continue
                flat = ring.flatten(1, -2)
                if grad_w is not None:
                    grad_w[part, r] = values.transpose(1, 2) @ flat
                if grad_x is not None:
                    total = _product(flat, weights[part, r].transpose(1, 2), total)
            if grad_x is not None and total is not None:
                grad_x[part] = total.view(grad_x[part].shape)
        return grad_x, grad_w, None


def mix(x: Tensor, weights: Tensor, repeat: bool) -> Tensor:
    """Return `Mixing` of modes x and weights, in the number type of x."""
    y: Tensor = Mixing.apply(x, weights.to(x.dtype), repeat)  # type: ignore[no-untyped-call]
    return y


def neighbour_sums(x: Tensor, rings: int, repeat: bool = False) -> Sequence[Tensor | None]:
    r"""Return sums over the neighbours of each ring; None where all are outside and zeros.

    With :math:`A_j` the sum of both neighbours along axis j, the four rings are the elementary
    symmetric polynomials of :math:`A_1, A_2, A_3`, which are symmetric matrices, also where an
    outermost voxel is its own neighbour.

    Parameters
    ----------
    x
        (..., X, Y, Z, F).
    rings
        4: by distance 0, 1, sqrt 2, sqrt 3. 27: each neighbour alone, x slowest. 1 or 0: x alone.
    repeat
        Whether the nearest voxel stands for those outside, for 4 rings; otherwise zeros.
    """
    if rings <= 1:
        return [x]
    if rings == 27:
        return [
            _shift(x, (dx, dy, dz)) for dx in (-1, 0, 1) for dy in (-1, 0, 1) for dz in (-1, 0, 1)
        ]
    sums: list[Tensor | None] = [x, None, None, None]
    for axis in (-2, -3, -4):
        if x.shape[axis] == 1 and not repeat:
            continue
        for r in (3, 2, 1):
            before, inner = sums[r], sums[r - 1]
            if inner is not None:
                sums[r] = _add_neighbours(inner, axis, before, repeat)
    return sums


def _add_neighbours(x: Tensor, axis: int, out: Tensor | None, repeat: bool) -> Tensor:
    count = x.shape[axis]
    if count == 1:
        return 2 * x if out is None else out.add_(x, alpha=2)
    out = _add_inner(x, axis, out)
    if repeat:
        for end in (0, -1):
            out.select(axis, end).add_(x.select(axis, end))
    return out


def _add_inner(x: Tensor, axis: int, out: Tensor | None) -> Tensor:
    count = x.shape[axis]
    if out is None:
        out = torch.empty_like(x)
        out.select(axis, 0).copy_(x.select(axis, 1))
        out.select(axis, -1).copy_(x.select(axis, -2))
        if count > 2:
            left, right = x.narrow(axis, 0, count - 2), x.narrow(axis, 2, count - 2)
            torch.add(left, right, out=out.narrow(axis, 1, count - 2))
        return out
    out.narrow(axis, 0, count - 1).add_(x.narrow(axis, 1, count - 1))
    out.narrow(axis, 1, count - 1).add_(x.narrow(axis, 0, count - 1))
    return out


def _shift(x: Tensor, by: tuple[int, int, int]) -> Tensor | None:
    """Return x at p + d for every voxel p."""
    if any(abs(step) >= edge for step, edge in zip(by, x.shape[-4:-1], strict=True)):
        return None
    out = torch.zeros_like(x)
    source, target = x, out
    for axis, step in zip((-4, -3, -2), by, strict=True):
        count = x.shape[axis] - abs(step)
        source = source.narrow(axis, max(step, 0), count)
        target = target.narrow(axis, max(-step, 0), count)
    target.copy_(source)
    return out


def _order(rings: int) -> int:
    """Return the step through the rings that gives the transposed ones."""
    return -1 if rings == 27 else 1


def _mix(x: Tensor, weights: Tensor, repeat: bool, out: Tensor | None = None) -> Tensor:
    """Return the weighted sum of rings of a few modes, added to ``out`` where it is given."""
    total = None if out is None else out.flatten(1, -2)
    for r, ring in enumerate(neighbour_sums(x, weights.shape[1], repeat)):
        if ring is not None:
            total = _product(ring.flatten(1, -2), weights[:, r], total)
    if total is None:
        raise ValueError("no ring has a neighbour")
    return total.view(*x.shape[:-1], weights.shape[-1])


def _product(x: Tensor, weights: Tensor, total: Tensor | None) -> Tensor:
    return torch.bmm(x, weights) if total is None else total.baddbmm_(x, weights)


def _parts(x: Tensor) -> list[slice]:
    """Return slices of the modes whose rings stay in the cache."""
    most = CACHE if x.device.type == "cpu" else ALL
    step = max(1, most // max(1, x[0].numel()))
    return [slice(first, first + step) for first in range(0, len(x), step)]
