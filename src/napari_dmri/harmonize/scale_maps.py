r"""Scale maps of LinearRISH: ratio, cap, rim.

For each SH order l, with the energy per order :math:`R_l = \sum_m c_{lm}^2` (RISH),

.. math:: s_l = \sqrt{\operatorname{mean}_i \frac{R_l^{target, i}}{R_l^{source, i} + \epsilon}}
          \quad\text{(travelling pairs)}, \qquad
          s_l = \sqrt{\frac{\operatorname{mean}_i R_l^{target, i}}
                           {\operatorname{mean}_j R_l^{source, j} + \epsilon}}
          \quad\text{(groups)}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CAP", "ScaleMaps", "finish", "ratio", "ring"]

Array = NDArray[Any]

CAP = (0.5, 2.0)
"""Scales beyond a factor of two come from misalignment or noise, not from scanners: energies of
the same tissue differ between protocols of one b-value by tens of percent."""

RING = 10.0
"""Width (mm) of the rim inside the brain's edge where high scales are looked at."""

EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class ScaleMaps:
    """Hold the scales (X, Y, Z, orders), where they are valid, and what was changed."""

    scales: NDArray[np.float32]
    mask: NDArray[np.bool_]
    capped: tuple[int, ...]
    rim: tuple[int, ...]


def ratio(target: Array, source: Array, valid: Array, cap: tuple[float, float]) -> Array:
    r"""Divide energies voxelwise, :math:`R^{target} / (R^{source} + \epsilon)`, NaN outside.

    One subject's ratio is held within four times the cap's square, so that a single voxel with
    hardly any energy does not rule the mean over subjects.
    """
    quotient = np.asarray(target, np.float64) / (np.asarray(source, np.float64) + EPSILON)
    limited = np.clip(quotient, (cap[0] / 2) ** 2, (cap[1] * 2) ** 2)
    return np.where(valid[..., None], limited, np.nan)


def finish(
    ratios: Array,
    mask: Array,
    voxel_size: Sequence[float] | Array,
    cap: tuple[float, float] = CAP,
    rim: float = RING,
    fwhm: float = 0.0,
) -> ScaleMaps:
    """Turn mean ratios (X, Y, Z, orders) into scale maps: smooth, root, rim, cap.

    Parameters
    ----------
    ratios
        Mean ratio of energies per order; not finite where unknown.
    mask
        Where the template is covered; its largest component is kept.
    voxel_size
        Millimetres (3,).
    cap
        Lowest and highest scale; what lies beyond is set to them and counted.
    rim
        Width in mm of the ring within which scales above their 95th percentile get the median
        of their surroundings (5 x 5 x 5); 0 leaves the rim alone.
    fwhm
        Smoothing in mm (within the mask) of the logarithm of the ratios; 0 for none.
    """
    sizes = np.asarray(voxel_size, np.float64)
    whole = largest_component(mask & np.isfinite(ratios).all(-1))
    edge = ring(whole, rim, sizes) if rim > 0 else np.zeros_like(whole)
    scales = np.ones(ratios.shape, np.float32)
    capped, mended = [], []
    for k in range(ratios.shape[-1]):
        values = np.where(whole, ratios[..., k], 1.0)
        if fwhm > 0:
            values = np.exp(_smooth_within(np.log(np.maximum(values, EPSILON)), whole, fwhm, sizes))
        scale = np.sqrt(np.maximum(values, 0))
        scale, count = _mend_rim(scale, whole, edge)
        mended.append(count)
        beyond = whole & ((scale < cap[0]) | (scale > cap[1]))
        capped.append(int(beyond.sum()))
        scales[..., k] = np.where(whole, np.clip(scale, *cap), 1.0)
    return ScaleMaps(scales, whole, tuple(capped), tuple(mended))


def largest_component(mask: Array) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask (faces, edges and corners connect)."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return np.asarray(mask, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def ring(mask: Array, width: float, voxel_size: Array) -> NDArray[np.bool_]:
    """Return the voxels of a mask within a width (mm) of its edge.

    The faces of the image are no edge: a slab's outer slices are not rim as a whole.
    """
    pads = [(int(np.ceil(width / size)) + 1,) * 2 for size in voxel_size]
    wide = np.pad(mask, pads, mode="edge")
    depth = ndimage.distance_transform_edt(wide, sampling=voxel_size)
    inner = tuple(slice(p[0], -p[1]) for p in pads)
    return np.asarray((depth[inner] <= width) & mask)


def extend(values: Array, mask: Array) -> Array:
    """Give voxels outside a mask the values of their nearest voxel inside it."""
    if not mask.any():
        return values
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def reach_beyond(
    values: Array, mask: Array, axes: Sequence[int], reach: int = 3
) -> tuple[Array, NDArray[np.bool_], NDArray[np.intp]]:
    """Let a slab's end slices serve a few voxels beyond its faces.

    Returns
    -------
    Values and mask on a grid that is wider by ``reach`` voxels on both sides along ``axes`` (the
    mask dilated along them, the values of the nearest voxel everywhere outside), and the widths
    (3,) by which the grid begins earlier.
    """
    widths = np.zeros(3, np.intp)
    widths[list(axes)] = reach
    pads = [(int(w), int(w)) for w in widths]
    wide = np.pad(values, [*pads, (0, 0)], mode="edge")
    inside = np.pad(mask, pads)
    near = inside
    for axis in axes:
        line = np.zeros((3, 3, 3), bool)
        line[tuple(slice(None) if a == axis else 1 for a in range(3))] = True
        near = ndimage.binary_dilation(near, line, iterations=reach)
    return extend(wide, inside), np.asarray(near), widths


def _smooth_within(values: Array, mask: Array, fwhm: float, voxel_size: Array) -> Array:
    sigma = fwhm / np.sqrt(8 * np.log(2)) / voxel_size
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    total = ndimage.gaussian_filter(np.where(mask, values, 0.0), sigma)
    return np.asarray(np.where(mask, total / np.maximum(weight, 1e-12), values))


def _mend_rim(scale: Array, mask: Array, edge: Array) -> tuple[Array, int]:
    """Replace high scales in the rim by the median of the mask's voxels around them."""
    if not edge.any():
        return scale, 0
    high = edge & (scale > np.percentile(scale[edge], 95))
    if not high.any():
        return scale, 0
    padded = np.pad(np.where(mask, scale, np.nan), 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5, 5))[high]
    mended = scale.copy()
    mended[high] = np.nanmedian(windows.reshape(len(windows), -1), axis=1)
    return mended, int(high.sum())
