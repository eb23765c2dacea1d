"""What one glyph says in numbers: peaks, GFA and AFD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dmri.viewer.glyphs.basis import (
    PLAIN,
    Reading,
    ShSpace,
    reading_change,
    values_and_gradients,
)
from napari_dmri.viewer.glyphs.sphere import evaluation_matrix, template

__all__ = ["VoxelFacts", "describe"]

SEARCH_FREQUENCY = 8
SMALLEST_PEAK = 0.1
"""Peaks below this share of the largest are not listed."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VoxelFacts:
    """Hold what one glyph says.

    Parameters
    ----------
    peaks
        Unit vectors of the maxima in RAS, largest first (K, 3).
    amplitudes
        The function there (K,).
    gfa
        Generalized fractional anisotropy, spread over root mean square.
    afd
        Apparent fibre density: the integral over the sphere.
    """

    peaks: Array
    amplitudes: Array
    gfa: float
    afd: float

    def __str__(self) -> str:
        words = [
            f"({x:+.2f} {y:+.2f} {z:+.2f}) {a:.3g}"
            for (x, y, z), a in zip(self.peaks[:3], self.amplitudes[:3], strict=True)
        ]
        peaks = ", ".join(words) if words else "none"
        return f"peaks RAS {peaks} | GFA {self.gfa:.2f} | AFD {self.afd:.3g}"


def describe(
    coefficients: NDArray[np.float32],
    space: ShSpace,
    reading: Reading = PLAIN,
    count: int = 5,
) -> VoxelFacts:
    r"""Find the peaks, the GFA and the AFD of one function.

    .. math:: \mathrm{GFA} = \sqrt{1 - c_{00}^2 / \textstyle\sum_j c_j^2}, \qquad
              \mathrm{AFD} = \sqrt{4 \pi}\, c_{00}

    Parameters
    ----------
    coefficients
        (C,) with at least the coefficients of the space.
    space, reading
        What they are read as.
    count
        Peaks to find at most.
    """
    raw = np.asarray(coefficients[: space.count], dtype=np.float64)
    internal = raw @ reading_change(reading, space)
    energy = float((internal**2).sum())
    gfa = float(np.sqrt(max(0.0, 1 - internal[0] ** 2 / energy))) if energy else 0.0
    seeds = _seeds(raw, space, reading, count)
    directions, amplitudes = _climb(seeds, internal, space)
    keep: list[int] = []
    for i in np.argsort(-amplitudes):
        apart = np.abs(directions[keep] @ directions[i]) if not space.full else (
            directions[keep] @ directions[i]
        )  # fmt: skip
        large = amplitudes[i] > SMALLEST_PEAK * amplitudes.max() and amplitudes[i] > 0
        if large and not (apart > 0.985).any():
            keep.append(int(i))
    if space.order == 0:
        keep = []
    return VoxelFacts(
        directions[keep], amplitudes[keep], gfa, float(np.sqrt(4 * np.pi) * internal[0])
    )


def _seeds(raw: Array, space: ShSpace, reading: Reading, count: int) -> Array:
    """Return the directions of a sampling that are above all their neighbours."""
    sphere = template(SEARCH_FREQUENCY)
    radii = raw @ evaluation_matrix(SEARCH_FREQUENCY, space, reading, gradients=False)
    if not space.full:
        radii = np.concatenate([radii, radii])
    highest = np.full(len(radii), -np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        np.maximum.at(highest, sphere.faces[:, a], radii[sphere.faces[:, b]])
        np.maximum.at(highest, sphere.faces[:, b], radii[sphere.faces[:, a]])
    top = np.flatnonzero(radii >= highest - 1e-6 * np.abs(radii).max())
    if not space.full:
        top = top[top < sphere.half]
    top = top[np.argsort(-radii[top])][: 2 * count]
    return sphere.vertices[top]


def _climb(directions: Array, coefficients: Array, space: ShSpace) -> tuple[Array, Array]:
    """Refine maxima by Newton steps in the tangent plane, from differences of the gradient."""
    u, h = directions, 1e-3
    for _ in range(4 if len(u) else 0):
        reference = np.where(np.abs(u[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        one = np.cross(u, reference)
        one /= np.linalg.norm(one, axis=1, keepdims=True)
        frame = np.stack([one, np.cross(u, one)], 1)
        around = np.concatenate([u, *[u + s * h * frame[:, k] for k in (0, 1) for s in (1, -1)]])
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        slopes = np.einsum("vjk,j->vk", values_and_gradients(around, space)[1], coefficients)
        slopes = slopes.reshape(5, -1, 3)
        gradient = np.einsum("vik,vk->vi", frame, slopes[0])
        curvature = np.stack(
            [np.einsum("vik,vk->vi", frame, slopes[i] - slopes[i + 1]) / (2 * h) for i in (1, 3)], 1
        )
        curvature = (curvature + curvature.transpose(0, 2, 1)) / 2
        lowest = np.linalg.eigvalsh(curvature)[:, -1]
        good = lowest < -1e-12
        step = np.zeros_like(gradient)
        if good.any():
            step[good] = -np.linalg.solve(curvature[good], gradient[good][..., None])[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1, 0.1 / np.maximum(length, 1e-12))
        u = u + np.einsum("vi,vik->vk", step, frame)
        u /= np.linalg.norm(u, axis=1, keepdims=True)
    values = values_and_gradients(u, space)[0] @ coefficients if len(u) else np.zeros(0)
    return u, values
