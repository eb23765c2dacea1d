"""Errors of two methods in blocks of one scan."""

import numpy as np
import pytest

from napari_dmri import InputError
from napari_dmri.compare.blocks import compare_in_blocks, cubes


def test_cubes_are_of_the_edge_asked_for_and_cover_the_grid():
    blocks = cubes((10, 7, 4), (2.4, 2.4, 6.0), 12.0)
    assert blocks.shape == (10, 7, 4)
    assert np.unique(blocks).tolist() == list(range(2 * 2 * 2))
    assert len({*blocks[:5, :5, :2].ravel()}) == 1 and blocks[5, 0, 0] != blocks[4, 0, 0]
    with pytest.raises(InputError, match="above 0"):
        cubes((4, 4, 4), (2, 2, 2), 0.0)


def test_a_change_everywhere_is_found_and_a_change_in_one_place_is_not_significant():
    rng = np.random.default_rng(0)
    b = rng.chisquare(4, (20, 20, 20))
    blocks, where = cubes(b.shape, (2.4, 2.4, 2.4)), np.ones(b.shape, bool)
    found = compare_in_blocks(0.8 * b, b, blocks, where)
    assert found.blocks == 64 and found.change == pytest.approx(-0.2)
    assert found.low == pytest.approx(-0.2) == found.high and found.p < 1e-8
    one_place = np.where(blocks == 7, 0.01 * b, b + rng.normal(0, 0.3, b.shape))
    local = compare_in_blocks(one_place, b, blocks, where)
    assert local.change < 0 and local.p > 0.01 and local.low < local.change < local.high


def test_few_blocks_give_no_interval_and_no_p():
    error = np.ones((6, 6, 6))
    found = compare_in_blocks(2 * error, error, cubes((6, 6, 6), (3, 3, 3)), error > 0)
    assert found.change == 1 and found.blocks == 8
    assert np.isnan([found.low, found.high, found.p]).all()
