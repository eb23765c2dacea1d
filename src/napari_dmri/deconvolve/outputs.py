r"""Maps of a deconvolution for looking at: fibre density and number of peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.images import PeakImage, ScalarImage, ShImage

if TYPE_CHECKING:
    from napari_dmri.deconvolve.base import Deconvolution

__all__ = ["PEAK_SHARE", "fibre_density", "peak_count", "peaks_of"]

PEAK_SHARE = 0.1
"""Maxima below this share of a voxel's largest are not counted as fibres in maps and tables."""


def fibre_density(fod: ShImage) -> ScalarImage:
    r"""Return the total apparent fibre density (X, Y, Z), in units of the response.

    .. math:: \int f(u)\, du = \sqrt{4 \pi}\, f_{00}

    Raffelt et al., NeuroImage 59:3976-3994, 2012.
    """
    density = np.sqrt(4 * np.pi, dtype=np.float32) * fod.coefficients[..., 0]
    return ScalarImage(density, fod.affine, f"{fod.name} | AFD", "", fod.provenance)


def peaks_of(
    result: Deconvolution, share: float = PEAK_SHARE, most: int = 10, **where: object
) -> PeakImage:
    """Find the peaks of a deconvolution's fODF that reach a share of the voxel's largest."""
    from napari_dmri.deconvolve.peaks import find_peaks

    return find_peaks(result.fod, threshold=share, most=most, **where)  # type: ignore[arg-type]


def peak_count(peaks: PeakImage) -> ScalarImage:
    """Return the number of peaks in each voxel (X, Y, Z)."""
    return ScalarImage(peaks.count, peaks.affine, f"{peaks.name} | peaks", "", peaks.provenance)
