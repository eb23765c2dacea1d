r"""Find every maximum of many SH functions at once: on a grid, then between its axes.

An axis whose value is not below any neighbour's starts a climb. In the chart of that axis (see
`napari_dmri.deconvolve.peak_grid`) the function is a polynomial, and Newton's steps

.. math:: (x, y) \leftarrow (x, y) - H^{-1} g

lead to the maximum; who leaves the chart goes on in that of the nearest axis. Everything is a
matrix product or an elementwise operation over all seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_dmri.deconvolve.peak_grid import DEGREE, powers, search_grid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Climbed", "Search"]

IN_CACHE = 1024
"""Functions that are evaluated at once on a CPU: their values stay in its cache."""

FEW = 8
"""Seeds an axis below which each gets its own copy of the chart."""

STEPS = 3
"""Newton's steps in one chart; the error is squared by each."""

CONVERGED = 2e-3
"""Last step at most, in chart radii (5 degrees at order 8): the error is its square."""

LOWEST = [powers().index(p) for p in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0))]
"""Where the polynomials keep value, y, yy, x, xy and xx."""

CHARTS = 8
"""Charts that one climb may pass through."""

FLAT = 1e-5
"""Curvature at least, over the function's norm; flatter tops are rounding, or ridges."""

TINY = 1e-15
"""Curvature that is given to a flat function."""


@dataclass(frozen=True, eq=False)
class Climbed:
    """Hold the maxima that climbs ended at.

    Parameters
    ----------
    voxel
        Row of the function (S,).
    direction
        Unit vectors (S, 3).
    amplitude
        The function there (S,).
    """

    voxel: Tensor
    direction: Tensor
    amplitude: Tensor


class Search:
    """Search maxima of functions up to an order, on one device."""

    def __init__(self, order: int, device: torch.device) -> None:
        grid = search_grid(order)
        self.radius = grid.radius
        self.neighbours = torch.from_numpy(np.ascontiguousarray(grid.neighbours.T)).to(device)
        self.directions = torch.from_numpy(grid.directions).to(device, torch.float32)
        self.tangents = torch.from_numpy(grid.tangents).to(device, torch.float32)
        self.values = torch.from_numpy(grid.values).to(device)
        self.charts = torch.from_numpy(grid.charts).to(device)

    def __call__(self, coefficients: Tensor, threshold: float, minimum: float) -> Climbed:
        """Return the maxima of functions (N, C), in no particular order.

        Those that are certainly below ``threshold`` times the function's largest value, or below
        ``minimum``, may be left out; the rest of them are for the caller to remove. A climb that
        does not settle within `CHARTS` charts (on a ridge) ends in no peak.
        """
        axis, voxel = self.seeds(coefficients, threshold, minimum)
        norm = torch.linalg.vector_norm(coefficients, dim=1)
        found = []
        begin: tuple[Tensor, Tensor] | None = None
        for _ in range(CHARTS):
            polynomial = self.polynomials(coefficients, axis, voxel)
            x, y, top, bend, step = newton(polynomial, begin)
            inside = x * x + y * y <= 1
            done = inside & (step <= CONVERGED)
            place = self.place(axis, x, y)
            good = done & (bend < -FLAT * norm[voxel]) & (top > minimum)
            found.append((voxel[good], place[good], top[good]))
            left = (~done).nonzero().squeeze(1)
            if not len(left):
                break
            axis, voxel, begin = self.next_charts(axis[left], voxel[left], place[left])
        return Climbed(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def seeds(
        self, coefficients: Tensor, threshold: float = 0.0, minimum: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return axis and voxel (S,) of the maxima on the grid of functions (N, C), by axis."""
        count, axes = len(coefficients), len(self.values)
        size = min(count, IN_CACHE if coefficients.device.type == "cpu" else count)
        found = torch.empty(axes, count, dtype=torch.bool, device=coefficients.device)
        space = torch.empty(3, axes, size, device=coefficients.device)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            values, highest, other = space[..., : part.stop - start]
            torch.mm(self.values, coefficients[part].T, out=values)
            torch.index_select(values, 0, self.neighbours[0], out=highest)
            for neighbour in self.neighbours[1:]:
                torch.index_select(values, 0, neighbour, out=other)
                torch.maximum(highest, other, out=highest)
            # A top between the axes is at most a sixth above the value on the nearest of them.
            floor = (0.8 * threshold) * values.amax(0)
            torch.maximum(highest, floor.clamp_(min=0.8 * minimum), out=highest)
            torch.ge(values, highest, out=found[:, part])
        axis, voxel = found.nonzero(as_tuple=True)
        return axis, voxel

    def polynomials(self, coefficients: Tensor, axis: Tensor, voxel: Tensor) -> Tensor:
        """Return the polynomials (28, S) of seeds that are sorted by axis."""
        own = coefficients.index_select(0, voxel)
        if len(axis) < FEW * len(self.charts):
            return torch.bmm(own[:, None], self.charts[axis])[:, 0].T.contiguous()
        out = torch.empty(len(axis), self.charts.shape[2], device=own.device)
        counts = torch.bincount(axis, minlength=len(self.charts)).tolist()
        groups = zip(
            own.split_with_sizes(counts), self.charts, out.split_with_sizes(counts), strict=True
        )
        for group, chart, into in groups:
            torch.mm(group, chart, out=into)
        return out.T.contiguous()

    def place(self, axis: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the directions (S, 3) of points in charts."""
        frame = self.tangents.index_select(0, axis)
        point = self.directions.index_select(0, axis)
        point = point.addcmul(frame[:, 0], (self.radius * x)[:, None])
        point = point.addcmul_(frame[:, 1], (self.radius * y)[:, None])
        return torch.nn.functional.normalize(point, dim=1)

    def next_charts(
        self, axis: Tensor, voxel: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Return axis, voxel and chart coordinates of places seen from the nearest axis."""
        near = torch.cat([axis[:, None], self.neighbours[:, axis].T], 1)
        cosine = torch.einsum("skc,sc->sk", self.directions[near], place).abs()
        axis, order = near.gather(1, cosine.argmax(1, keepdim=True)).squeeze(1).sort(stable=True)
        voxel, place = voxel[order], place[order]
        along = (self.directions[axis] * place).sum(1)
        xy = torch.einsum("skc,sc->sk", self.tangents[axis], place) / (self.radius * along)[:, None]
        return axis, voxel, (xy[:, 0].contiguous(), xy[:, 1].contiguous())


def newton(
    polynomial: Tensor, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Take Newton's steps towards a maximum of polynomials (28, S), from their origin if None.

    Returns
    -------
    x, y, the value there, the largest curvature (negative at a maximum), the last step's length.
    """
    x, y = start or (torch.zeros_like(polynomial[0]),) * 2
    for count in range(STEPS):
        if count == 0 and start is None:
            f, fy, fyy, fx, fxy, fxx = (polynomial[k] for k in LOWEST)
            fxx, fyy = 2 * fxx, 2 * fyy
        else:
            f, fx, fy, fxx, fxy, fyy = derivatives(polynomial, x, y)
        mean, half = (fxx + fyy) / 2, (fxx - fyy) / 2
        half = torch.hypot(half, fxy)
        bend = mean + half
        # Where it does not curve down both ways, curve it: the step then leads uphill.
        lift = bend + (bend - 0.1 * (mean - half)).clamp_(min=TINY)
        lift = torch.where(bend < 0, 0.0, lift)
        fxx, fyy = fxx - lift, fyy - lift
        scale = 1 / (fxx * fyy - fxy * fxy)
        dx, dy = (fxy * fy - fyy * fx) * scale, (fxy * fx - fxx * fy) * scale
        step = torch.hypot(dx, dy)
        short = (1 / step).clamp_(max=1)
        x, y, top = x + short * dx, y + short * dy, f + 0.5 * (fx * dx + fy * dy)
    return x, y, top, bend, step


def derivatives(polynomial: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return value, first (x, y) and second (xx, xy, yy) derivatives by Horner's scheme."""
    rows, start = [], 0
    for i in range(DEGREE + 1):
        rows.append(polynomial[start : start + DEGREE + 1 - i])
        start += DEGREE + 1 - i
    q2 = q1 = rows[DEGREE]
    q = _horner(rows[DEGREE - 1], x, q1)
    q1 = _horner(q, x, q1)
    q = _horner(rows[DEGREE - 2], x, q)
    for row in reversed(rows[: DEGREE - 2]):
        q2 = _horner(q1, x, q2)
        q1 = _horner(q, x, q1)
        q = _horner(row, x, q)
    f, fy, fyy = _three(q, y)
    fx, fxy, _ = _three(q1, y)
    fxx, _, _ = _three(q2, y)
    return f, fx, fy, 2 * fxx, fxy, 2 * fyy


def _horner(row: Tensor, x: Tensor, q: Tensor) -> Tensor:
    out = row.clone()
    out[: len(q)].addcmul_(q, x)
    return out


def _three(q: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a polynomial's value, derivative and half its second derivative."""
    value, first, second = q[-1], torch.zeros_like(y), torch.zeros_like(y)
    for k in range(len(q) - 2, -1, -1):
        second = torch.addcmul(first, second, y)
        first = torch.addcmul(value, first, y)
        value = torch.addcmul(q[k], value, y)
    return value, first, second
