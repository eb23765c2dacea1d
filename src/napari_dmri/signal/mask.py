r"""Find the brain in a scan from its own volumes.

Water that diffuses freely is bright at b = 0 and dark at high b, tissue the other way round, scalp
and noise are dim in both. The geometric mean over shells of the mean signal,

.. math:: G = \exp\Bigl(\tfrac{1}{K} \sum_k \ln \bar S_k\Bigr),

is therefore nearly even inside the skull. A threshold on its compressed histogram (Otsu 1979, IEEE
Trans Syst Man Cybern 9:62) finds heads; an opening as wide as the skull allows cuts eyes, neck and
scalp off, the largest piece that is left grows back to its own border, and holes are filled.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.progress import Progress, silent
from napari_dmri.signal.blocks import blocks, empty_like_scan

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = ["brain_mask", "otsu_threshold", "shell_means"]

OPENING_MM = 5.0
"""Bridges thinner than twice this (mm) are cut: optic nerves, vessels, scalp, muscles."""

Array = NDArray[Any]


def brain_mask(scan: Scan, *, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Find the brain, cerebrospinal fluid inside the skull included.

    Parameters
    ----------
    scan
        The scan; each volume is read once.
    progress
        Who is told.

    Returns
    -------
    (X, Y, Z) bool.

    Raises
    ------
    InputError
        If the image holds no signal or is the same everywhere, or no connected brain-like region
        is found.
    """
    report = progress or silent
    means = shell_means(scan, progress)
    if not any(mean.any() for mean in means.values()):
        raise InputError(
            f"{scan.name}: all {np.prod(scan.grid)} voxels are zero, NaN or Inf in every shell, so "
            "no brain can be found; check the image file."
        )
    report(0.6, "finding the brain")
    combined = _combine(means)
    head = _threshold(combined, scan.name)
    report(0.7, "cutting eyes and neck off")
    brain = _open(head, scan.voxel_size)
    if not brain.any():
        raise InputError(
            f"{scan.name}: no connected region thicker than {2 * OPENING_MM:g} mm stands out from "
            "the background; draw a mask or read one."
        )
    report(0.9, "filling holes")
    brain = _fill(brain, scan.voxel_size)
    report(1.0, "brain mask")
    return brain


def shell_means(scan: Scan, progress: Progress | None = None) -> dict[float, NDArray[np.float32]]:
    """Return the mean volume (X, Y, Z) of each shell by b-value, b0 first; NaN and Inf as 0.

    Warns
    -----
    DmriWarning
        With the number of voxels that hold NaN or Inf.
    """
    report = progress or silent
    shells = scan.gradients.shells
    means = {s.bvalue: empty_like_scan(scan, 1)[..., 0] for s in shells}
    broken = 0
    for block in blocks(scan, np.arange(scan.shape[3]), None):
        broken += int((~np.isfinite(block.signal.sum(1))).sum())
        for shell in shells:
            values = block.signal[:, shell.indices].mean(1)
            block.put(means[shell.bvalue], np.nan_to_num(values, posinf=0, neginf=0))
        report(0.6 * block.done, "reading volumes")
    if broken:
        warnings.warn(
            f"{scan.name}: {broken} voxels hold NaN or Inf; they count as dark here.",
            DmriWarning,
            stacklevel=3,
        )
    return means


def otsu_threshold(values: Array, bins: int = 256) -> float:
    r"""Return the threshold that best splits values in two, :math:`\max_t w_0 w_1 (m_0 - m_1)^2`.

    Raises
    ------
    InputError
        If all values are equal.
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    low, high = values.min(), values.max()
    if not high > low:
        raise InputError(f"All {values.size} values are {low:g}; there is nothing to tell apart.")
    counts, edges = np.histogram(values, bins, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        between = np.nan_to_num(below * above * gap**2)
    # Between two far groups every threshold is as good: take the middle of the plateau.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())


def _combine(means: dict[float, Array]) -> Array:
    """Return the lightly smoothed geometric mean of the shells, 1 at the typical bright voxel."""
    from scipy import ndimage

    weighted = [b for b in means if b > 50]
    # Above about 3000 s/mm² means are noise in fluid and in the bias field's dim parts.
    used = [b for b in means if b <= 50] + ([b for b in weighted if b <= 3000] or weighted)
    total = np.zeros(next(iter(means.values())).shape, np.float32)
    for b in used:
        image = ndimage.gaussian_filter(np.maximum(means[b], 0), 0.6)
        positive = image[image > 0]
        top = float(np.percentile(positive, 90)) if positive.size else 1.0
        total += np.log(np.maximum(image / top, 1e-4))
    combined: Array = np.exp(total / len(used))
    return combined


def _threshold(combined: Array, name: str) -> NDArray[np.bool_]:
    """Split head from background on the square root of the signal, which evens out bias fields."""
    compressed = np.sqrt(np.minimum(combined, np.percentile(combined, 99)))
    try:
        limit = otsu_threshold(compressed)
    except InputError:
        raise InputError(
            f"{name}: the image is the same everywhere, so no brain can be found; check the file."
        ) from None
    found: NDArray[np.bool_] = compressed > limit
    return found


def _open(head: Array, voxel_size: Array) -> NDArray[np.bool_]:
    """Keep the largest piece that survives an erosion, grown back inside the head."""
    from scipy import ndimage

    # Beyond the image's edge the head goes on, so that a crop is not eroded from its cut faces.
    depth = ndimage.distance_transform_edt(head, sampling=voxel_size)
    if head.all():
        return head
    radius = OPENING_MM
    while True:
        core = _largest(depth > radius)
        # A core that holds little of the head means the opening was too wide for this brain.
        if core.sum() >= 0.1 * head.sum() or radius < 1:
            break
        radius /= 1.5
    if not core.any():
        return np.zeros_like(head)
    reach = ndimage.distance_transform_edt(~core, sampling=voxel_size)
    grown: NDArray[np.bool_] = head & (reach <= radius + 0.5 * float(np.min(voxel_size)))
    return grown


def _largest(mask: Array) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    largest: NDArray[np.bool_] = labels == 1 + np.argmax(np.bincount(labels.reshape(-1))[1:])
    return largest


def _fill(brain: Array, voxel_size: Array) -> NDArray[np.bool_]:
    """Close narrow gaps (sulci, vessels), fill holes in every plane, keep one piece."""
    from scipy import ndimage

    width = 1.5 * float(np.max(voxel_size))
    pad = int(np.ceil(width / np.min(voxel_size))) + 1
    padded = np.pad(brain, pad, mode="edge")
    away = ndimage.distance_transform_edt(~padded, sampling=voxel_size) > width
    closed = ndimage.distance_transform_edt(~away, sampling=voxel_size) > width
    inner = tuple(slice(pad, -pad) for _ in range(3))
    filled = ndimage.binary_fill_holes(closed[inner] | brain)
    for z in range(filled.shape[2]):
        filled[:, :, z] = ndimage.binary_fill_holes(filled[:, :, z])
    return _largest(filled)
