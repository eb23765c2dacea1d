"""Fibre scores: an independent Hungarian reference, known answers, the precision-recall curve."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from napari_dmri import PeakImage
from napari_dmri.compare.fibres import (
    FibreTruth,
    best_score,
    fibre_table,
    pair_fibres,
    score_curve,
    score_peaks,
)
from napari_dmri.errors import InputError


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def turned(u: np.ndarray, degrees: float) -> np.ndarray:
    side = unit(np.cross(u, [0.3, 0.5, 0.8]))
    a = np.deg2rad(degrees)
    return np.cos(a) * u + np.sin(a) * side


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, FibreTruth]:
    """Return peaks (N, 7, 3) near, and not so near, the true fibres, among others."""
    rng = np.random.default_rng(0)
    n = 600
    true = unit(rng.standard_normal((n, 3, 3)))
    count = rng.integers(1, 4, n)
    true[np.arange(3) >= count[:, None]] = 0
    vectors = np.zeros((n, 7, 3))
    vectors[:, :3] = true + 0.35 * rng.standard_normal(true.shape) * (rng.random((n, 3, 1)) < 0.9)
    vectors[:, 3:] = 0.5 * rng.standard_normal((n, 4, 3)) * (rng.random((n, 4, 1)) < 0.4)
    vectors[:20] = 0
    vectors[20:30, 2] = np.nan
    shuffled = rng.permuted(np.arange(7)[None].repeat(n, 0), axis=1)
    return np.take_along_axis(vectors, shuffled[..., None], 1), FibreTruth.of(true)


def reference(vectors: np.ndarray, truth: FibreTruth, threshold: float) -> dict[str, float]:
    """Score voxel by voxel with the Hungarian algorithm of SciPy."""
    hits = missed = extra = 0
    sums, successes = [], []
    for peaks, true, count in zip(
        np.nan_to_num(vectors), truth.directions, truth.count, strict=True
    ):
        size = np.linalg.norm(peaks, axis=1)
        order = np.argsort(-size)
        size, peaks = size[order], peaks[order]
        kept = (size > 0) & (size >= threshold * size.max())
        found = unit(peaks[kept])[:5]
        if not len(found):
            missed += count
            successes.append(False)
            continue
        angle = np.rad2deg(np.arccos(np.abs(true[:count] @ found.T).clip(0, 1)))
        rows, columns = linear_sum_assignment(np.where(angle <= 25, angle, 1e3))
        good = angle[rows, columns][angle[rows, columns] <= 25]
        sums += list(good)
        hits += len(good)
        missed += count - len(good)
        extra += len(found) - len(good)
        successes.append(len(good) == count == len(found))
    return {
        "f1": 2 * hits / (2 * hits + extra + missed),
        "error": float(np.mean(sums)),
        "extra": extra / len(truth),
        "missed": missed / len(truth),
        "success": float(np.mean(successes)),
    }


def test_scores_equal_the_hungarian_reference(noisy: tuple[np.ndarray, FibreTruth]) -> None:
    vectors, truth = noisy
    for score in score_peaks(vectors, truth):
        expected = reference(vectors, truth, score.threshold)
        assert score.f1 == expected["f1"]
        assert score.extra == expected["extra"] and score.missed == expected["missed"]
        assert score.success == expected["success"]
        assert score.error == pytest.approx(expected["error"], rel=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (3, 2), (3, 10), (4, 4), (5, 3)])
def test_pairs_are_optimal(rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    angle = 60 * rng.random((80, rows, columns))
    true, found = rng.integers(0, rows + 1, 80), rng.integers(0, columns + 1, 80)
    pair = pair_fibres(angle, true, found)
    for i in range(80):
        cost = np.where(angle[i] <= 25, angle[i], 1e3)
        r, c = linear_sum_assignment(cost[: true[i], : found[i]])
        own = np.flatnonzero(pair[i] >= 0)
        assert len(own) == min(true[i], found[i]) == len(set(pair[i, own]))
        assert cost[own, pair[i, own]].sum() == pytest.approx(cost[r, c].sum(), rel=1e-12)


def test_known_answers() -> None:
    true = np.zeros((4, 2, 3))
    true[:, 0], true[1:, 1] = [1, 0, 0], [0, 1, 0]
    truth = FibreTruth.of(true)
    assert truth.count.tolist() == [1, 2, 2, 2]
    assert np.isnan(truth.angle[0]) and np.allclose(truth.angle[1:], 90)
    vectors = np.zeros((4, 3, 3))
    vectors[0, 0] = -turned(true[0, 0], 10)  # a fibre has no sign
    vectors[1, :2] = [true[1, 1], 0.5 * turned(true[1, 0], 4)]
    vectors[2, 0] = true[2, 0]  # one is missed
    vectors[3] = [true[3, 0], true[3, 1], [0, 0, 0.2]]  # one is extra
    low, high = score_peaks(vectors, truth, thresholds=(0.1, 0.3))
    assert (low.missed, low.extra) == (0.25, 0.25) and high.extra == 0
    assert low.f1 == pytest.approx(12 / 14)
    assert low.success == 0.5 and low.successes == {1: 1.0, 2: pytest.approx(1 / 3)}
    assert low.errors[1] == pytest.approx(10) and low.errors[2] == pytest.approx(2 / 3, rel=1e-5)
    assert low.error == pytest.approx(14 / 6, rel=1e-5)
    assert best_score((low, high)) is high


def test_success_by_angle() -> None:
    a = np.deg2rad(35)
    true = np.array([[[1, 0, 0], [np.cos(a), np.sin(a), 0]]] * 2)
    vectors = true.copy()
    vectors[1, 1] = 0
    score = score_peaks(vectors, FibreTruth.of(true))[0]
    assert score.by_angle[30, 40] == 0.5
    assert np.isnan(score.by_angle[40, 50])


def test_peak_images_and_vectors_score_alike(noisy: tuple[np.ndarray, FibreTruth]) -> None:
    vectors, truth = np.nan_to_num(noisy[0]).astype(np.float32), noisy[1]
    size = np.linalg.norm(vectors, axis=-1)
    u = np.divide(vectors, size[..., None], where=size[..., None] > 0, out=np.zeros_like(vectors))
    image = PeakImage(u.reshape(30, 20, 1, 7, 3), size.reshape(30, 20, 1, 7), np.eye(4))
    a, b = score_peaks(image, truth), score_peaks(vectors, truth)
    assert [s.f1 for s in a] == pytest.approx([s.f1 for s in b], abs=1e-4)


def test_the_curve(noisy: tuple[np.ndarray, FibreTruth]) -> None:
    vectors, truth = noisy
    curve = score_curve(vectors, truth)
    assert len(curve.thresholds) == 19 and 0 < curve.auc < 1
    k = curve.thresholds.index(curve.threshold)
    p, r = curve.precision[k], curve.recall[k]
    assert curve.f1 == pytest.approx(2 * p * r / (p + r))
    assert (curve.missed, curve.extra) == (1 - r, 1 - p)
    found, angles, hits = 0, [], 0
    for peaks, true, count in zip(
        np.nan_to_num(vectors), truth.directions, truth.count, strict=True
    ):
        size = np.linalg.norm(peaks, axis=1)
        kept = peaks[(size > 0) & (size >= curve.threshold * size.max())]
        if not len(kept):
            angles += [90.0] * count
            continue
        angle = np.rad2deg(np.arccos(np.abs(true[:count] @ unit(kept).T).clip(0, 1)))
        angles += list(angle.min(1))
        found += len(kept)
        for i in range(count):
            j = angle[i].argmin()
            hits += angle[:, j].argmin() == i and angle[i, j] < 25
    assert p == hits / found and r == hits / truth.count.sum()
    assert curve.error == pytest.approx(np.mean(angles))


def test_perfect_and_empty_curves() -> None:
    true = unit(np.random.default_rng(1).standard_normal((50, 1, 3)))
    truth = FibreTruth.of(true)
    perfect = score_curve(true, truth)
    assert perfect.f1 == 1 and perfect.auc == pytest.approx(1)
    assert perfect.missed == perfect.extra == 0
    nothing = score_curve(np.zeros((50, 3, 3)), truth)
    assert nothing.f1 == 0 and nothing.error == 90


def test_the_table(noisy: tuple[np.ndarray, FibreTruth]) -> None:
    scores = score_peaks(*noisy)
    table = fibre_table({"a": scores[0], "b": scores[1]}, "Crossings")
    assert table["a"]["threshold"] == 0.1 and "30-40" in table.columns
    assert table.to_tsv().startswith("method\tthreshold\tF1\t")
    with pytest.raises(InputError, match="no score"):
        fibre_table({})


def test_truth_files(tmp_path: Path) -> None:
    true = unit(np.random.default_rng(2).standard_normal((6, 2, 3)))
    truth = FibreTruth.of(true, np.array([1, 2, 2, 1, 2, 0]))
    path = tmp_path / "truth.npz"
    np.savez(path, dirs=truth.directions, n=truth.count, angle=truth.angle)
    again = FibreTruth.load(path)
    assert len(again) == 6 and (again.count == truth.count).all()
    np.savez(path, dirs=true)
    with pytest.raises(InputError, match="lacks n, angle"):
        FibreTruth.load(path)


def test_refusals() -> None:
    truth = FibreTruth.of(np.eye(3)[None])
    with pytest.raises(InputError, match="2 voxels"):
        score_peaks(np.zeros((2, 3, 3)), truth)
    with pytest.raises(InputError, match="expected vectors"):
        score_peaks(np.zeros((1, 4)), truth)
    with pytest.raises(InputError, match="at least one threshold"):
        score_curve(np.zeros((1, 3, 3)), truth, thresholds=())
    with pytest.raises(InputError, match="directions for 3"):
        FibreTruth(np.zeros((1, 3, 3)), np.array([4]), np.zeros(1))
