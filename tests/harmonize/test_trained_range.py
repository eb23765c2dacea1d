"""Outside the signal that a network was trained on, the source is kept."""

import math

import numpy as np
import pytest

from napari_dmri.harmonize.trained_range import blend, training_range
from napari_dmri.training import Store

ROOT = 2 * math.sqrt(math.pi)


def test_the_range_is_of_the_samples_alone(tmp_path):
    with Store(1, 3, tmp_path) as store:
        for n, label in enumerate("ab"):
            values = np.zeros((100, 10, 2, 1))
            where = np.zeros((100, 10, 2), bool)
            where[..., 0] = True
            values[..., 0, 0] = ROOT * np.linspace(0.1 + 0.3 * n, 0.4 + 0.3 * n, 1000).reshape(
                100, 10
            )
            store.add(label, values, where, np.zeros((1000, 3)), np.ones((3, 1)))
        known = training_range(store, 1000.0)
    darkest, water = 0.1006, math.exp(-3.0)
    assert known["low"] == pytest.approx(water + 0.75 * (darkest - water), abs=2e-4)
    assert known["fade_low"] == pytest.approx(0.5 * (darkest - water), abs=2e-4)
    assert known["high"] == pytest.approx(0.6994, abs=2e-4)
    assert known["fade_high"] == pytest.approx(0.0054, abs=1e-4)


def test_free_water_is_the_source_s_and_midway_both_count_half(tmp_path):
    with Store(1, 3, tmp_path) as store:
        where = np.ones((20, 10, 1), bool)
        values = np.full((20, 10, 1, 1), ROOT * 0.2)
        store.add("a", values, where, np.zeros((200, 3)), np.ones((3, 1)))
        known = training_range(store, 1000.0)
    water = math.exp(-3.0)
    source = np.zeros((3, 1, 1, 1))
    source[:, 0, 0, 0] = ROOT * np.array([water, (0.2 + water) / 2, 0.2])
    found, _ = blend(known, source, source + 1, np.ones((3, 1, 1), bool))
    assert np.allclose((found - source)[:, 0, 0, 0], [0, 0.5, 1], atol=1e-5)


def test_training_voxels_darker_than_free_water_leave_a_narrow_border(tmp_path):
    with Store(1, 3, tmp_path) as store:
        where = np.ones((20, 10, 1), bool)
        store.add(
            "a", np.full((20, 10, 1, 1), ROOT * 0.2), where, np.zeros((200, 3)), np.ones((3, 1))
        )
        known = training_range(store, 100.0)
    assert known["low"] == pytest.approx(0.2) and known["fade_low"] == pytest.approx(1e-3)


def test_the_source_fades_in_beyond_the_range():
    known = {"low": 0.1, "high": 0.5, "fade_low": 0.02, "fade_high": 0.04}
    means = np.array([0.05, 0.08, 0.09, 0.1, 0.3, 0.5, 0.52, 0.54, 0.9, 0.05])
    source = np.zeros((10, 1, 1, 6))
    source[:, 0, 0, 0] = ROOT * means
    mask = np.ones((10, 1, 1), bool)
    mask[-1] = False
    found, share = blend(known, source, source + 1, mask)
    weight = [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 1]  # the last is outside the mask: left as it is
    assert np.allclose(found[:, 0, 0] - source[:, 0, 0], np.array(weight)[:, None], atol=1e-6)
    assert np.allclose(share[:9, 0, 0], 1 - np.array(weight[:9]), atol=1e-6) and share[-1] == 0
    assert found.dtype == share.dtype == np.float32
