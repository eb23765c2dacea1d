"""Peaks: the light alternative to glyphs as a Vectors layer, and how far two images' differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Vectors
from scipy.linalg import polar

from napari_dmri.errors import InputError
from napari_dmri.images import PeakImage, ShImage
from napari_dmri.progress import Progress
from napari_dmri.progress import part as part_of
from napari_dmri.viewer.glyphs.basis import PLAIN, Reading, ShSpace
from napari_dmri.viewer.glyphs.field import blocks
from napari_dmri.viewer.glyphs.sphere import evaluation_matrix, template
from napari_dmri.viewer.layers import KEY, spatial

__all__ = [
    "first_peak_angles",
    "first_peaks",
    "peak_image_layer",
    "peaks_layer",
    "sampled_peaks",
]

FREQUENCY, FINE = 8, 16


def sampled_peaks(
    coefficients: np.ndarray, space: ShSpace, count: int = 3, share: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest maxima of functions among 321 axes (642 directions for full ones).

    Parameters
    ----------
    coefficients
        (N, C) in the internal basis.
    space
        What they span.
    count, share
        How many peaks a voxel, and the smallest as a share of its largest.

    Returns
    -------
    Directions in RAS (N, count, 3) and amplitudes (N, count), zero where there is no peak.
    """
    sphere = template(FREQUENCY)
    half = len(sphere.vertices) if space.full else sphere.half
    pairs = np.concatenate([sphere.faces[:, [0, 1]], sphere.faces[:, [1, 0]]]) % half
    neighbours = [np.unique(pairs[pairs[:, 0] == v, 1]) for v in range(half)]
    table = np.array([np.resize(n, 6) for n in neighbours])
    matrix = evaluation_matrix(FREQUENCY, space, gradients=False)
    directions = np.zeros((len(coefficients), count, 3), np.float32)
    amplitudes = np.zeros((len(coefficients), count), np.float32)
    for part in blocks(len(coefficients), 2048):
        radii = coefficients[part, : space.count] @ matrix
        highest = radii[:, table[:, 0]]
        for k in range(1, 6):
            np.maximum(highest, radii[:, table[:, k]], out=highest)
        found = np.where((radii >= highest) & (radii > 0), radii, 0)
        best = np.argsort(-found, axis=1)[:, :count]
        tops = np.take_along_axis(found, best, 1)
        tops[tops < share * tops[:, :1]] = 0
        amplitudes[part] = tops
        directions[part] = sphere.vertices[best] * (tops > 0)[..., None]
    return directions, amplitudes


def first_peaks(
    coefficients: np.ndarray,
    space: ShSpace,
    reading: Reading = PLAIN,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the direction of each function's largest value (N, 3), to about a degree.

    The largest of 1281 axes is moved to the top of the parabola that value and gradient of the
    neighbours describe: one step along the gradient, as long as the curvature of a lobe of the
    highest degree asks for.
    """
    sphere = template(FINE)
    values = evaluation_matrix(FINE, space, reading, gradients=False)
    both = evaluation_matrix(FINE, space, reading)
    axes = sphere.vertices if space.full else sphere.vertices[: sphere.half]
    found = np.zeros((len(coefficients), 3))
    for block in blocks(len(coefficients), 2048):
        if progress is not None:
            progress(block.start / len(coefficients), "finding peaks")
        c = coefficients[block, : space.count]
        best = (c @ values).argmax(1)
        here = np.einsum("nc,cnk->nk", c, both[:, best])
        curvature = np.maximum(np.abs(here[:, :1]) * space.order * (space.order + 1) / 4, 1e-30)
        moved = axes[best] + np.clip(here[:, 1:] / curvature, -0.03, 0.03)
        found[block] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


def first_peak_angles(
    first: ShImage, second: ShImage, progress: Progress | None = None
) -> np.ndarray:
    """Return the angle between the first peaks of two images in degrees (X, Y, Z).

    NaN where one of them has no glyph.

    Raises
    ------
    InputError
        If they are on different grids.
    """
    if first.shape[:3] != second.shape[:3] or not np.allclose(
        first.affine, second.affine, atol=1e-3
    ):
        raise InputError(
            f"{first.name} {first.shape[:3]} and {second.name} {second.shape[:3]} are not on one "
            "grid; resample one of them first."
        )
    there = [
        np.isfinite(i.coefficients).all(-1)
        & (i.coefficients != 0).any(-1)
        & (True if i.mask is None else i.mask)
        for i in (first, second)
    ]
    both = there[0] & there[1]
    peaks = [
        first_peaks(
            i.coefficients[both], ShSpace.of(i.shape[3]), progress=part_of(progress, *share)
        )
        for i, share in ((first, (0, 0.5)), (second, (0.5, 1)))
    ]
    cosine = np.abs(np.einsum("nk,nk->n", *peaks))
    angles = np.full(first.shape[:3], np.nan, np.float32)
    angles[both] = np.rad2deg(np.arccos(np.clip(cosine, 0, 1)))
    return angles


def peaks_layer(image: ShImage, count: int = 3, **changes: Any) -> Vectors:
    """Make a Vectors layer of an SH image's peaks, coloured by direction.

    Sticks run through the voxel centre, as long as their amplitude, the 95th percentile one voxel
    long.
    """
    space = ShSpace.of(image.shape[3])
    shown = np.isfinite(image.coefficients).all(-1) & (image.coefficients != 0).any(-1)
    if image.mask is not None:
        shown &= image.mask
    voxels = np.argwhere(shown)
    directions, amplitudes = sampled_peaks(image.coefficients[shown], space, count)
    return _sticks(image, voxels, directions, amplitudes, f"{image.name} peaks", changes)


def peak_image_layer(peaks: PeakImage, count: int = 3, **changes: Any) -> Vectors:
    """Make a Vectors layer of the largest few peaks of each voxel, coloured by direction."""
    shown = peaks.amplitudes[..., 0] > 0
    directions, amplitudes = peaks.directions[shown][:, :count], peaks.amplitudes[shown][:, :count]
    return _sticks(peaks, np.argwhere(shown), directions, amplitudes, peaks.name, changes)


def _sticks(
    image: ShImage | PeakImage,
    voxels: np.ndarray,
    directions: np.ndarray,
    amplitudes: np.ndarray,
    name: str,
    changes: dict[str, Any],
) -> Vectors:
    """Lay sticks of directions (N, K, 3) and amplitudes (N, K) through the centres of voxels."""
    size = np.linalg.norm(image.affine[:3, :3], axis=0)
    rotation, _ = polar(image.affine[:3, :3] / size)
    at, which = np.nonzero(amplitudes)
    amplitude = amplitudes[at, which]
    top = float(np.percentile(amplitude, 95)) if amplitude.size else 1.0
    length = np.minimum(amplitude / top, 2) * size.min()
    ras = directions[at, which]
    step = (ras @ rotation) * length[:, None] / size
    vectors = np.stack([voxels[at] - step / 2, step], 1)[..., ::-1]
    colours = np.column_stack([np.abs(ras), np.ones(len(ras))])
    facts = {"kind": "peaks", "object": image, "affine": image.affine,
             "provenance": dict(image.provenance)}  # fmt: skip
    kwargs = {
        "name": name,
        "ndim": 3,
        "edge_color": colours if len(colours) else "white",
        "edge_width": 0.12,
        "length": 1.0,
        "vector_style": "line",
        "metadata": {KEY: facts},
        **spatial(image.affine, image.shape[:3]),
        **changes,
    }
    return Vectors(vectors if len(vectors) else np.zeros((0, 2, 3)), **kwargs)
