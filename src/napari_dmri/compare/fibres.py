r"""Score fibre directions against known ones.

Two conventions, both over relative amplitude thresholds and with a tolerance of 25 degrees:

- `score_peaks` pairs true and found fibres one to one, optimally (least sum of angles, pairs
  within the tolerance first), as crossing-fibre benchmarks do;
- `score_curve` counts mutually nearest pairs and draws the precision-recall curve, the protocol
  of spherical deconvolution by rotation-equivariant networks.

.. math:: F_1 = \frac{2\,TP}{2\,TP + FP + FN}

Everything is computed for all voxels at once; the optimal pairing is by dynamic programming over
the subsets of a voxel's true fibres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.compare.fibre_truth import FibreTruth
from napari_dmri.compare.tables import Row, Table
from napari_dmri.errors import InputError
from napari_dmri.images import PeakImage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CurveScore",
    "FibreTruth",
    "PeakScore",
    "best_score",
    "fibre_table",
    "pair_fibres",
    "score_curve",
    "score_peaks",
]

TOLERANCE = 25.0
"""Degrees within which a found fibre is the true one."""

SWEEP = (0.1, 0.2, 0.3, 0.4, 0.5)
CURVE = tuple(round(0.05 * k, 2) for k in range(1, 20))

UNPAIRED = 1e3
"""Cost of a pair beyond the tolerance: above any sum of angles within it."""

Array = NDArray[Any]


@dataclass(frozen=True)
class PeakScore:
    """Hold how well found fibres agree with the true ones at one threshold.

    Parameters
    ----------
    threshold
        Relative amplitude below which peaks were left out.
    f1
        Harmonic mean of precision and recall.
    error
        Mean angle of the pairs in degrees.
    errors
        Mean over voxels of their mean angle, by number of true fibres.
    extra, missed
        False positives and false negatives a voxel.
    success
        Share of voxels with all fibres found and no other.
    successes
        The same by number of true fibres.
    by_angle
        The same for two fibres, by the angle between them: (30, 40), (40, 50) ... degrees.
    """

    threshold: float
    f1: float
    error: float
    errors: Mapping[int, float]
    extra: float
    missed: float
    success: float
    successes: Mapping[int, float]
    by_angle: Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class CurveScore:
    """Hold a precision-recall curve and its best point.

    Parameters
    ----------
    thresholds, precision, recall
        The curve.
    auc
        Area below it, with the points (recall 0, precision 1) and (1, 0) added.
    threshold, f1
        Where F1 is largest, and its value.
    error
        There: mean over true fibres of the angle to the nearest peak in degrees, 90 in voxels
        without any.
    missed, extra
        There: share of the true fibres that are not found (FNR), and of the found ones that are
        not true (FPR).
    """

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    auc: float
    threshold: float
    f1: float
    error: float
    missed: float
    extra: float


def score_peaks(
    peaks: PeakImage | Array,
    truth: FibreTruth,
    *,
    thresholds: Sequence[float] = SWEEP,
    tolerance: float = TOLERANCE,
    most: int = 5,
) -> tuple[PeakScore, ...]:
    """Score peaks with optimal one-to-one pairs, at each threshold.

    Parameters
    ----------
    peaks
        A `PeakImage`, or vectors (..., K, 3) as long as their amplitude.
    truth
        As many voxels as the peaks have, in C order.
    thresholds
        Relative to each voxel's largest amplitude.
    tolerance
        Degrees.
    most
        Largest peaks that count.

    Raises
    ------
    InputError
        If there are not as many voxels as in the truth.
    """
    directions, amplitudes = _sorted_peaks(peaks, truth)
    cosine = np.abs(truth.directions @ directions[:, :most].transpose(0, 2, 1))
    angle = np.rad2deg(np.arccos(cosine.clip(0, 1)))
    scores = []
    for threshold in thresholds:
        found = _above(amplitudes, threshold).sum(1).clip(max=most)
        pair = pair_fibres(angle, truth.count, found, tolerance)
        scores.append(_peak_score(float(threshold), angle, pair, truth, found, tolerance))
    return tuple(scores)


def best_score(scores: Sequence[PeakScore]) -> PeakScore:
    """Return the score with the largest F1, the first of equals."""
    return max(scores, key=lambda score: score.f1)


def pair_fibres(
    angle: Array, true: Array, found: Array, tolerance: float = TOLERANCE
) -> NDArray[np.int64]:
    """Pair true and found fibres one to one, as many as there can be, with the least cost.

    A pair costs its angle, or 1000 beyond the tolerance: the assignment that the Hungarian
    algorithm finds, for all voxels at once. For each found fibre in turn, the least cost of every
    subset of the true ones that may be taken by then is known from the one before.

    Parameters
    ----------
    angle
        Degrees between true and found fibres (N, T, K).
    true, found
        How many of them there are in each voxel (N,).
    tolerance
        Degrees.

    Returns
    -------
    The found fibre of each true one (N, T), -1 for none.
    """
    voxels, rows, columns = angle.shape
    cost = np.where(angle <= tolerance, angle, UNPAIRED)
    cost[np.arange(rows) >= true[:, None]] = np.inf
    cost[np.broadcast_to((np.arange(columns) >= found[:, None])[:, None], cost.shape)] = np.inf
    subsets = 2**rows
    least = np.full((subsets, voxels), np.inf)
    least[0] = 0
    taken = np.full((columns, subsets, voxels), -1, np.int8)
    for k in range(columns):
        before = least.copy()
        for subset in range(1, subsets):
            for row in range(rows):
                if subset >> row & 1:
                    total = before[subset ^ 1 << row] + cost[:, row, k]
                    better = total < least[subset]
                    least[subset, better] = total[better]
                    taken[k, subset, better] = row
    size = np.array([bin(subset).count("1") for subset in range(subsets)])
    least[size[:, None] != np.minimum(true, found)] = np.inf
    subset = least.argmin(0)
    pair = np.full((voxels, rows), -1, np.int64)
    every = np.arange(voxels)
    for k in range(columns - 1, -1, -1):
        row = taken[k, subset, every].astype(np.int64)
        own = np.flatnonzero(row >= 0)
        pair[own, row[own]] = k
        subset[own] ^= 1 << row[own]
    return pair


def _peak_score(
    threshold: float, angle: Array, pair: Array, truth: FibreTruth, found: Array, tolerance: float
) -> PeakScore:
    own = np.take_along_axis(angle, pair.clip(0)[..., None], 2)[..., 0]
    good = (pair >= 0) & (own <= tolerance)
    matched = good.sum(1)
    true_positive = int(matched.sum())
    missed, extra = int((truth.count - matched).sum()), int((found - matched).sum())
    sums = np.zeros(len(truth))
    for row in range(own.shape[1]):
        sums += np.where(good[:, row], own[:, row], 0)
    error = np.divide(sums, matched, out=np.full(len(truth), np.nan), where=matched > 0)
    success = (matched == truth.count) & (matched == found) & (found > 0)
    counts = [int(n) for n in np.unique(truth.count) if n > 0]
    two = truth.count == 2
    tens = [(low, low + 10) for low in range(30, 90, 10)]
    return PeakScore(
        threshold,
        2 * true_positive / max(2 * true_positive + extra + missed, 1),
        _mean(own[good]),
        {n: _mean(error[(truth.count == n) & (matched > 0)]) for n in counts},
        extra / max(len(truth), 1),
        missed / max(len(truth), 1),
        _mean(success),
        {n: _mean(success[truth.count == n]) for n in counts},
        {
            (low, high): _mean(success[two & (truth.angle >= low) & (truth.angle < high)])
            for low, high in tens
        },
    )


def score_curve(
    peaks: PeakImage | Array,
    truth: FibreTruth,
    *,
    thresholds: Sequence[float] = CURVE,
    tolerance: float = TOLERANCE,
    most: int = 10,
) -> CurveScore:
    """Score peaks by mutually nearest pairs, and draw the precision-recall curve.

    Parameters
    ----------
    peaks, truth, thresholds, tolerance, most
        As for `score_peaks`.

    Raises
    ------
    InputError
        If there are not as many voxels as in the truth, or no threshold.
    """
    if not len(thresholds):
        raise InputError("A curve needs at least one threshold; give some in (0, 1).")
    directions, amplitudes = _sorted_peaks(peaks, truth)
    directions, amplitudes = directions[:, :most], amplitudes[:, :most]
    cosine = np.abs(truth.directions @ directions.transpose(0, 2, 1))
    cosine[np.arange(truth.directions.shape[1]) >= truth.count[:, None]] = -1
    points = [
        _mutual(cosine, truth.count, _above(amplitudes, threshold), tolerance)
        for threshold in thresholds
    ]
    f1 = [p[0] for p in points]
    best = int(np.argmax(f1))
    precision, recall = [p[1] for p in points], [p[2] for p in points]
    order = np.argsort([0.0, *recall, 1.0], kind="stable")
    x, y = np.array([0.0, *recall, 1.0])[order], np.array([1.0, *precision, 0.0])[order]
    return CurveScore(
        tuple(float(t) for t in thresholds),
        tuple(precision),
        tuple(recall),
        float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum()),
        float(thresholds[best]),
        f1[best],
        points[best][3],
        1 - recall[best],
        1 - precision[best],
    )


def _mutual(
    cosine: Array, true: Array, kept: Array, tolerance: float
) -> tuple[float, float, float, float]:
    """Return F1, precision, recall and the mean angle to the nearest peak."""
    cosine = np.where(kept[:, None], cosine, -1.0)
    nearest, back = cosine.argmax(2), cosine.argmax(1)
    rows = np.arange(cosine.shape[1])
    angle = np.rad2deg(np.arccos(cosine.max(2).clip(0, 1)))
    mutual = np.take_along_axis(back, nearest, 1) == rows
    there: Array = rows < true[:, None]
    positive = int((mutual & there & kept.any(1, keepdims=True) & (angle < tolerance)).sum())
    fibres, found = int(true.sum()), int(kept.sum())
    precision = positive / found if found else 1.0
    recall = positive / fibres if fibres else 1.0
    return 2 * positive / max(fibres + found, 1), precision, recall, _mean(angle[there])


def fibre_table(
    scores: Mapping[str, PeakScore], title: str = "Fibres", notes: tuple[str, ...] = ()
) -> Table:
    """Put scores in a table, one row a method.

    Errors are in degrees, successes in percent.
    """
    rows = []
    for name, score in scores.items():
        values: dict[str, float | int | str | None] = {
            "threshold": score.threshold,
            "F1": round(score.f1, 4),
            "error": round(score.error, 3),
        }
        values |= {f"error {n}": round(v, 3) for n, v in score.errors.items()}
        values |= {"extra": round(score.extra, 3), "missed": round(score.missed, 3)}
        values["success"] = round(100 * score.success, 1)
        values |= {f"success {n}": round(100 * v, 1) for n, v in score.successes.items()}
        values |= {f"{low}-{high}": round(100 * v, 1) for (low, high), v in score.by_angle.items()}
        rows.append(Row(name, values))
    if not rows:
        raise InputError("There is no score to put in a table; score at least one method.")
    columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
    return Table(title, columns, tuple(rows), "method", notes)


def _sorted_peaks(peaks: PeakImage | Array, truth: FibreTruth) -> tuple[Array, Array]:
    """Return unit vectors (N, K, 3) and amplitudes (N, K), largest first."""
    if isinstance(peaks, PeakImage):
        vectors = peaks.directions * peaks.amplitudes[..., None]
    else:
        vectors = np.asarray(peaks)
    if vectors.ndim < 2 or vectors.shape[-1] != 3:
        raise InputError(f"Peaks have shape {vectors.shape}; expected vectors (..., K, 3).")
    vectors = np.nan_to_num(vectors.astype(np.float64).reshape(-1, *vectors.shape[-2:]))
    if len(vectors) != len(truth):
        raise InputError(
            f"There are peaks for {len(vectors)} voxels and the truth of {len(truth)}; they must "
            "be of the same voxels."
        )
    amplitudes = np.linalg.norm(vectors, axis=-1)
    order = np.argsort(-amplitudes, axis=1)
    vectors = np.take_along_axis(vectors, order[..., None], 1)
    amplitudes = np.take_along_axis(amplitudes, order, 1)
    return vectors / np.maximum(amplitudes, 1e-12)[..., None], amplitudes


def _above(amplitudes: Array, threshold: float) -> NDArray[np.bool_]:
    largest = amplitudes.max(1, keepdims=True, initial=0)
    above: NDArray[np.bool_] = (amplitudes > 0) & (amplitudes >= threshold * largest)
    return above


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
