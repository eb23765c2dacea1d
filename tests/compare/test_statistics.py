"""Paired tests against SciPy and by hand; box plots of what was given."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, wilcoxon

from napari_dmri import InputError
from napari_dmri.compare.boxes import box_figure
from napari_dmri.compare.statistics import bootstrap, holm, paired_test


def test_the_test_is_scipys_and_the_effect_is_the_difference_of_rank_sums():
    rng = np.random.default_rng(0)
    a, b = rng.random(10), rng.random(10)
    found = paired_test(a, b)
    assert found.p == wilcoxon(a, b).pvalue
    ranks = np.argsort(np.argsort(np.abs(a - b))) + 1
    plus, minus = ranks[a > b].sum(), ranks[a < b].sum()
    assert found.effect == pytest.approx((plus - minus) / (plus + minus))
    assert found.mean == pytest.approx((a - b).mean()) and found.n == 10
    assert found.low < found.mean < found.high
    assert -1 <= found.effect_low <= found.effect <= found.effect_high <= 1
    assert found == paired_test(a, b)


def test_ten_subjects_on_one_side_give_the_smallest_p():
    a = np.arange(10.0)
    found = paired_test(a, a + 1 + 0.01 * a)
    assert found.p == pytest.approx(2 / 2**10)
    assert found.effect == found.effect_low == found.effect_high == -1
    assert paired_test(a, a).p == 1 and paired_test(a, a).effect == 0
    # Of the differences 0, 1 and -2 the last two count, with ranks 1 and 2.
    assert paired_test([0, 1, 0], [0, 0, 2]).effect == pytest.approx((1 - 2) / 3)


def test_holm_corrects_a_family():
    # Worked by hand: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    p = np.random.default_rng(1).random(7)
    assert (np.array(holm(p)) >= false_discovery_control(p)).all()


def test_the_bootstrap_of_a_mean_is_near_its_normal_interval():
    values = np.random.default_rng(2).normal(3, 1, 200)
    low, high = bootstrap(lambda rows: values[rows].mean(-1), 200)
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(InputError, match="was given 3 and 2"):
        paired_test([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="at least 2"):
        paired_test([1], [2])
    with pytest.raises(InputError, match="1 of 2 subjects"):
        paired_test([1, np.nan], [1, 2])


def test_boxes_show_median_and_extremes(tmp_path):
    panels = {"WM": {"a": [1, 2, 4], "b": [2, 3, np.nan]}, "GM": {"a": [5, 6, 7]}}
    figure = box_figure(panels, "NMSE of signal", note="simulated")
    left, right = figure.axes
    assert [t.get_text() for t in left.get_xticklabels()] == ["a", "b"]
    assert (left.get_title(), right.get_title()) == ("WM", "GM")
    heights = {float(y) for line in left.lines for y in line.get_ydata()}
    assert {1.0, 2.0, 4.0, 2.5} <= heights
    figure.savefig(tmp_path / "boxes.png")
    with pytest.raises(InputError, match="none is finite"):
        box_figure({"WM": {"a": [np.nan]}}, "x")
