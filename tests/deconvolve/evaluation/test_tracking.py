from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_dmri.deconvolve.evaluation import studies
from napari_dmri.deconvolve.evaluation.tracking import (
    BundleScore,
    Rules,
    score_bundles,
    track,
    tracking_table,
)
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (30, 11, 11)


def straight() -> tuple[Any, ShImage]:
    """Two parallel bundles along x, with ends at x = 4 and x = 25, and fODFs along x."""
    white = np.zeros(SHAPE, np.float32)
    masks = {name: np.zeros(SHAPE, bool) for name in ("left", "right")}
    ends = np.zeros((*SHAPE, 2), np.uint8)
    for k, (name, y) in enumerate((("left", 2), ("right", 6))):
        masks[name][4:26, y : y + 3, 4:7] = True
        ends[2:7, y - 1 : y + 4, 3:8, k] = 1
        ends[23:28, y - 1 : y + 4, 3:8, k] = 2
    for mask in masks.values():
        white[mask] = 1
    truth = SimpleNamespace(
        tissue=np.stack([white, 1 - white, 0 * white], -1),
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        endpoint_labels=lambda margin: ScalarImage(ends, np.eye(4)),
        bundle_masks=lambda: masks,
    )
    fod = np.zeros((*SHAPE, 45), np.float32)
    fod[white > 0] = design_matrix(np.array([[1.0, 0, 0]]), 8)[0]
    return truth, ShImage(fod, truth.affine)


@pytest.mark.parametrize("kind", ["deterministic", "probabilistic"])
def test_straight_bundles_are_followed_from_end_to_end(kind: str) -> None:
    truth, fod = straight()
    rules = Rules(seeds=60, shortest=20, threshold=0.5)
    lines = track(fod, truth, kind, rules)
    score = score_bundles(lines, truth)
    assert score.streamlines == len(lines) > 30
    assert score.valid > (0.9 if kind == "deterministic" else 0.5)
    assert score.invalid == 0
    assert score.found == score.bundles == 2
    assert score.overlap > 0.5
    again = track(fod, truth, kind, rules)
    assert all(np.array_equal(a, b) for a, b in zip(lines, again, strict=True))
    assert tracking_table({("ours", kind): score})["ours"]["bundles found"] == "2 of 2"


def test_streamlines_that_join_the_wrong_ends_are_invalid() -> None:
    truth, _ = straight()
    x = np.linspace(5, 24, 40) * 2
    across = np.stack([x, np.linspace(3, 7, 40) * 2, 0 * x + 10], 1)
    along = np.stack([x, 0 * x + 6, 0 * x + 10], 1)
    short = along[:20]
    out = np.stack([np.linspace(0, 24, 40) * 2, 0 * x + 6, 0 * x + 10], 1)
    score = score_bundles([across, along, short, out], truth)
    assert score.streamlines == 3
    assert (score.valid, score.invalid, score.none) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (score.found, score.bundles) == (1, 2)
    assert score.overreach == 0


def test_what_cannot_be_tracked_is_said() -> None:
    truth, fod = straight()
    with pytest.raises(InputError, match="Unknown tracking 'fast'"):
        track(fod, truth, "fast")
    with pytest.raises(InputError, match="30, 11, 11"):
        track(replace(fod, coefficients=fod.coefficients[:5]), truth, "deterministic")
    with pytest.raises(InputError, match="no seed"):
        track(replace(fod, coefficients=0 * fod.coefficients), truth, "deterministic")


def test_several_subjects_give_their_mean_and_each() -> None:
    one = BundleScore(100, 0.5, 0.25, 0.25, 2, 4, 0.5, 0.1)
    other = BundleScore(201, 0.7, 0.2, 0.1, 3, 4, 0.7, 0.2)
    key = ("CSD", "deterministic")
    assert "subject" not in tracking_table({key: one}).columns
    table = tracking_table({key: one}, {key: other})
    assert [row["subject"] for row in table.rows] == ["mean of 2", "1", "2"]
    mean, first, second = table.rows
    assert (mean["valid (%)"], mean["overlap (%)"], mean["streamlines"]) == (60, 60, 150)
    assert mean["bundles found"] == "2.5 of 4"
    assert (first["valid (%)"], second["bundles found"]) == (50, "3 of 4")


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Make an evaluation that has CSD on `low`, and note what would take long instead of it."""
    done: list[tuple[str, int, str]] = []
    (tmp_path / "low_csd_0").mkdir()
    scores = {"chosen": {"order": 6}, "threshold": 0.2, "f1": 0.7}
    (tmp_path / "low_csd_0" / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "evaluation.json").write_text(json.dumps({"test": 2}))

    def case(protocol: str, index: int, size: Any) -> Any:
        truth = SimpleNamespace(number=index, fod=lambda order: "true-fod")
        return SimpleNamespace(truth=truth), truth

    def track(fod: str, truth: Any, kind: str, rules: Any) -> str:
        done.append((fod, truth.number, kind))
        return kind

    def score(kind: str, truth: Any) -> BundleScore:
        return BundleScore(100, truth.number / 10, 0.1, 0.1, 3, 4, 0.5, 0.1)

    for name, stand_in in {
        "_test_case": case,
        "_fod": lambda cell, case, device: "csd",
        "track": track,
        "score_bundles": score,
    }.items():
        monkeypatch.setattr(studies, name, stand_in)
    return done


def test_all_test_subjects_are_tracked_and_kept(
    tmp_path: Path, tracked: list[tuple[str, int, str]]
) -> None:
    table = studies.study_tracking(tmp_path, "low", ["csd"])
    both = ("deterministic", "probabilistic")
    assert tracked == [(f, n, kind) for n in (5, 6) for f in ("csd", "true-fod") for kind in both]
    assert [(r.name, r["subject"], r["valid (%)"]) for r in table.rows[:3]] == [
        ("CSD", "mean of 2", 55), ("CSD", "1", 50), ("CSD", "2", 60)]  # fmt: skip
    assert len(table.rows) == 12
    files = sorted(p.name for p in (tmp_path / "tracking").iterdir())
    assert files == ["low_csd.json", "low_csd_2.json", "low_true-fod.json", "low_true-fod_2.json"]
    # What is kept is not tracked again; what was chosen otherwise since, is.
    tracked.clear()
    (tmp_path / "tracking" / "low_csd_2.json").unlink()
    assert studies.study_tracking(tmp_path, "low", ["csd"]) == table
    assert tracked == [("csd", 6, kind) for kind in both]
    tracked.clear()
    scores = {"chosen": {"order": 8}, "threshold": 0.2, "f1": 0.7}
    (tmp_path / "low_csd_0" / "scores.json").write_text(json.dumps(scores))
    studies.study_tracking(tmp_path, "low", ["csd"])
    assert {(f, n) for f, n, _ in tracked} == {("csd", 5), ("csd", 6)}


def test_a_subject_that_was_tracked_before_there_were_more_is_taken_over(
    tmp_path: Path, tracked: list[tuple[str, int, str]]
) -> None:
    (tmp_path / "tracking").mkdir()
    before = BundleScore(7, 0.25, 0.5, 0.25, 1, 4, 0.5, 0.1)
    of = {"size": "medium", "rules": None, "chosen": {"order": 6}, "threshold": 0.2, "f1": 0.7}
    kept = {"of": of, "scores": {"deterministic": asdict(before), "probabilistic": asdict(before)}}
    (tmp_path / "tracking" / "low_csd.json").write_text(json.dumps(kept))
    (tmp_path / "evaluation.json").write_text(json.dumps({"test": 1}))
    table = studies.study_tracking(tmp_path, "low", ["csd"])
    assert table["CSD"]["streamlines"] == 7
    assert "subject" not in table.columns
    assert {f for f, _, _ in tracked} == {"true-fod"}
