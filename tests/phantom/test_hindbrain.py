from __future__ import annotations

import numpy as np

from napari_dmri.phantom.anatomy import make_subject, tissue_at
from napari_dmri.phantom.cortex import Cortex
from napari_dmri.phantom.hindbrain import add_hindbrain, head_distance
from napari_dmri.phantom.shapes import Hull


def test_stem_is_white_and_cerebellum_has_a_grey_rim() -> None:
    points = np.float32([[0, -29, -50], [0, -60, -60], [20, -60, -42], [0, -60, -66]])
    found = tissue_at(make_subject(0, strength=0), points, 0.3).fractions
    assert found[:3].argmax(1).tolist() == [0, 1, 0]
    assert found[3].sum() == 0


def test_nothing_changes_above_it() -> None:
    points = np.random.default_rng(0).uniform(-70, 70, (500, 3)).astype(np.float32)
    points[:, 2] = np.abs(points[:, 2])
    shape = Cortex(Hull(), np.zeros((2, 28))).evaluate(points)
    before = shape.pia.copy()
    core = shape.pia + 3
    assert np.array_equal(add_hindbrain(shape, core.copy(), points), core)
    assert np.array_equal(shape.pia, before)
    assert np.array_equal(head_distance(points), Hull().distance(points)[0])
