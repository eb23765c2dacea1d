from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare.fibre_truth import FibreTruth
from napari_dmri.deconvolve.evaluation.scoring import joined, score_at, validation_score
from napari_dmri.deconvolve.evaluation.tables import confidence, result_tables, scores_table


def truth_of(count: int = 12) -> FibreTruth:
    rng = np.random.default_rng(3)
    u = rng.standard_normal((count, 2, 3))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    u[: count // 2, 1] = 0
    return FibreTruth.of(u)


def test_true_peaks_score_fully_and_small_false_ones_fall_to_the_threshold() -> None:
    truth = truth_of()
    false = np.cross(truth.directions[:, 0], [0.0, 0.0, 1.0])[:, None]
    false *= 0.3 / np.linalg.norm(false, axis=-1, keepdims=True)
    peaks = np.concatenate([truth.directions, false], axis=1)
    threshold, f1 = validation_score(peaks, truth)
    assert threshold > 0.3
    assert f1 == 1
    scores = score_at(peaks, truth, threshold)
    assert scores["f1"] == 1
    assert scores["fnr"] == scores["fpr"] == 0
    assert scores["error"] == pytest.approx(0, abs=1e-4)
    below = score_at(peaks, truth, 0.2)
    assert below["fpr"] == pytest.approx(12 / 30)


def test_errors_are_told_apart_by_the_number_of_fibres() -> None:
    truth = truth_of()
    peaks = truth.directions.copy()
    peaks[truth.count == 2] = 0
    scores = score_at(peaks, truth, 0.1)
    assert scores["error_1"] == pytest.approx(0, abs=1e-4)
    assert scores["error_crossing"] == pytest.approx(90)
    assert scores["error"] == pytest.approx(60)


def test_truths_of_several_scans_are_joined_in_order() -> None:
    one = FibreTruth.of(np.eye(3)[None, :1])
    both = joined([one, truth_of()])
    assert len(both) == 13
    assert both.count[0] == 1
    assert np.allclose(both.directions[1:], truth_of().directions)


def cell(seed: int, f1: float) -> dict[str, object]:
    scores = dict.fromkeys(("auc", "error", "fnr", "fpr", "error_1", "error_crossing"), 0.5)
    return {
        "protocol": "low", "method": "shd-tv", "seed": seed, "chosen": {}, "threshold": 0.3,
        "validation_f1": f1, "f1": f1, **scores, "voxels": 10, "train_seconds": 60.0,
        "test_seconds": 1.0,
    }  # fmt: skip


def test_tables_give_the_mean_and_its_confidence() -> None:
    mean, half = confidence([0.80, 0.82, 0.84])
    assert mean == pytest.approx(0.82)
    assert half == pytest.approx(4.302653 * 0.02 / np.sqrt(3), rel=1e-5)
    assert confidence([1.0]) == (1.0, None)
    tables = result_tables([cell(0, 0.80), cell(1, 0.82), cell(2, 0.84)])
    assert list(tables) == ["low"]
    assert tables["low"]["SHD-TV"]["F1"] == "0.8200 ± 0.0497"
    assert tables["low"]["SHD-TV"]["seeds"] == 3
    assert len(scores_table([cell(1, 0.8), cell(0, 0.8)]).rows) == 2


def test_a_training_that_collapsed_is_told_of_and_counts_in_no_mean() -> None:
    lost = {"protocol": "low", "method": "shd-tv", "chosen": {}, "collapsed": "All voxels alike."}
    table = result_tables([cell(0, 0.80), cell(1, 0.82), {**lost, "seed": 2}])["low"]
    assert table["SHD-TV"]["seeds"] == 2 and table["SHD-TV"]["F1"].startswith("0.8100 ±")
    assert table.notes[-1] == "SHD-TV, seed 2: All voxels alike."
    alone = result_tables([{**lost, "seed": 0}])["low"]
    assert alone["SHD-TV"]["seeds"] == 0 and alone["SHD-TV"]["F1"] is None
    assert scores_table([{**lost, "seed": 0}]).rows[0]["chosen"] == "collapsed"


def test_shipped_networks_have_a_row_of_their_own_that_says_what_they_know() -> None:
    shipped = {**cell(0, 0.9), "method": "shipped", "chosen": {"model": "net"}}
    table = result_tables([shipped, cell(0, 0.8)])["low"]
    assert [row.name for row in table.rows] == ["SHD-TV", "shipped (taught)"]
    assert table["shipped (taught)"]["chosen"] == "model net"
    assert "true fODFs of other simulated people" in table.notes[-1]
    assert len(result_tables([cell(0, 0.8)])["low"].notes) == 2
