from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_dmri.deconvolve.evaluation.tracking import (
    Rules,
    score_bundles,
    track,
    tracking_table,
)
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.sphere.harmonics import design_matrix

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
