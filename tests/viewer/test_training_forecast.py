"""What a training is forecast to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_dmri.viewer.training import TrainOptions, forecast, in_words


def test_a_forecast_grows_with_what_is_trained():
    few, many = [20_000] * 4, [20_000] * 8
    options = TrainOptions(epochs=100)
    soonest, latest = forecast(options, few)
    # 3 pairs of 17,000 voxels at 124 microseconds, 16 and 105 epochs.
    assert soonest == pytest.approx(2 + 2.4 + 16 * 51_000 * 124e-6, rel=1e-6)
    assert latest == pytest.approx(2 + 2.4 + 105 * 51_000 * 124e-6, rel=1e-6)
    assert forecast(options, many)[0] > 2 * soonest
    assert forecast(replace(options, blocks=6), few)[0] > 2 * soonest
    assert forecast(replace(options, method="golkov"), few)[0] < soonest / 2
    assert forecast(options, few, order=8)[0] > 2 * soonest
    assert forecast(options, few, threads=4)[0] < soonest / 2
    assert forecast(replace(options, epochs=5), few)[0] < soonest
    assert forecast(replace(options, method="linear-rish"), few)[0] > 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (41, "40 s"), (300, "5 min"), (9000, "2.5 h")]
)
def test_a_time_is_told_as_exactly_as_it_is_known(seconds, words):
    assert in_words(seconds) == words
