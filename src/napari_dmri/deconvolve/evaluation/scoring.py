"""Score fODFs of simulated scans: thresholds from validation, figures from test scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.fibre_truth import FibreTruth
from napari_dmri.compare.fibres import CURVE, score_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.evaluation.protocols import Case
    from napari_dmri.images import ShImage

__all__ = ["joined", "peaks_of", "score_at", "validation_score"]

MOST = 10
"""Peaks of a voxel that are looked at."""


def peaks_of(fod: ShImage, case: Case) -> NDArray[np.float32]:
    """Return the peaks of the scored voxels as vectors (N, 10, 3) as long as their amplitude."""
    from napari_dmri.deconvolve.peaks import find_peaks

    found = find_peaks(fod, most=MOST, mask=case.scored)
    vectors: NDArray[np.float32] = (found.directions * found.amplitudes[..., None])[case.scored]
    return vectors


def joined(truths: Sequence[FibreTruth]) -> FibreTruth:
    """Return the truth of the voxels of several scans, one after the other."""
    most = max(truth.directions.shape[1] for truth in truths)
    padded = [
        np.pad(t.directions, ((0, 0), (0, most - t.directions.shape[1]), (0, 0))) for t in truths
    ]
    return FibreTruth(
        np.concatenate(padded),
        np.concatenate([t.count for t in truths]),
        np.concatenate([t.angle for t in truths]),
    )


def validation_score(peaks: NDArray[Any], truth: FibreTruth) -> tuple[float, float]:
    """Return the relative threshold with the largest F1 on validation voxels, and that F1."""
    curve = score_curve(peaks, truth)
    return curve.threshold, curve.f1


def score_at(peaks: NDArray[Any], truth: FibreTruth, threshold: float) -> dict[str, float]:
    """Score test voxels at the threshold that validation chose.

    Returns
    -------
    ``auc`` of the whole precision-recall curve; ``f1``, ``error`` (degrees, over all true fibres),
    ``fnr`` and ``fpr`` at the threshold; ``error_1`` and ``error_crossing``, the error in voxels
    with one fibre and with more.
    """
    curve = score_curve(peaks, truth, thresholds=CURVE)
    at = score_curve(peaks, truth, thresholds=(threshold,))
    scores = {"auc": curve.auc, "f1": at.f1, "error": at.error, "fnr": at.missed, "fpr": at.extra}
    for name, chosen in (("error_1", truth.count == 1), ("error_crossing", truth.count > 1)):
        part = FibreTruth(truth.directions[chosen], truth.count[chosen], truth.angle[chosen])
        scores[name] = (
            score_curve(peaks[chosen], part, thresholds=(threshold,)).error
            if chosen.any()
            else float("nan")
        )
    return scores
