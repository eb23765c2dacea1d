"""Known answers of the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare import metrics
from napari_dmri.errors import InputError


def test_nmse_is_the_squared_relative_error_of_a_scaled_image():
    r = np.random.default_rng(0).uniform(1, 2, (4, 5, 6))
    assert metrics.nmse(1.1 * r, r) == pytest.approx(0.01)
    assert metrics.nmse(r, r) == 0


def test_nmse_uses_the_mask_and_skips_values_that_are_not_finite():
    r, a = np.ones((3, 3, 3)), np.ones((3, 3, 3))
    a[0] = 5
    a[1, 1, 1] = np.nan
    mask = np.zeros((3, 3, 3), bool)
    mask[1:] = True
    assert metrics.nmse(a, r, mask) == 0
    assert metrics.nmse(a, r) == pytest.approx(9 * 16 / 26)


def test_nmse_of_a_zero_reference_is_nan():
    assert np.isnan(metrics.nmse(np.ones(3), np.zeros(3)))


def test_psnr_and_rmse_of_a_constant_error():
    r = np.linspace(0, 1, 11)
    assert metrics.rmse(r + 0.1, r) == pytest.approx(0.1)
    assert metrics.psnr(r + 0.1, r) == pytest.approx(20)
    assert metrics.psnr(r + 0.1, r, peak=10) == pytest.approx(40)
    assert metrics.psnr(r, r) == np.inf


def test_correlation_does_not_depend_on_scale_and_offset():
    r = np.random.default_rng(1).normal(size=100)
    assert metrics.correlation(3 * r + 7, r) == pytest.approx(1)
    assert metrics.correlation(-r, r) == pytest.approx(-1)
    assert np.isnan(metrics.correlation(np.ones(100), r))


def test_mean_and_sd():
    mean, sd = metrics.mean_sd(np.array([1.0, 2.0, 3.0]))
    assert (mean, sd) == (2.0, 1.0)
    assert np.isnan(metrics.mean_sd(np.array([1.0]))[1])


def test_agreement_has_the_limits_of_bland_and_altman():
    b = np.zeros(5)
    a = np.array([-2.0, -1, 0, 1, 7])
    found = metrics.agreement(a, b)
    sd = np.std(a, ddof=1)
    assert found.n == 5
    assert found.bias == pytest.approx(1)
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * sd)


def test_angular_error_of_known_axes_ignores_sign_and_length():
    u = np.array([[[[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]]])
    angle = np.deg2rad(30)
    v = np.array([[[[-2.0, 0, 0], [0, 1, 0], [np.cos(angle), np.sin(angle), 0], [1, 0, 0]]]])
    error = metrics.angular_error(u, v)
    np.testing.assert_allclose(error[0, 0, :3], [0, 90, 30], atol=1e-4)
    assert np.isnan(error[0, 0, 3])
    assert np.isnan(metrics.angular_error(u, v, np.zeros((1, 1, 4), bool))).all()


@pytest.mark.parametrize(
    ("a", "b", "mask", "words"),
    [
        (np.ones(3), np.ones(4), None, r"shapes \(3,\) and \(4,\)"),
        (np.ones(3), np.ones(3), np.ones(4, bool), r"mask has shape \(4,\)"),
        (np.ones(3), np.ones(3), np.zeros(3, bool), "No voxel"),
        (np.full(3, np.nan), np.ones(3), None, "none is finite"),
    ],
)
def test_bad_input_is_refused_in_words(a, b, mask, words):
    with pytest.raises(InputError, match=words):
        metrics.nmse(a, b, mask)


def test_angular_error_refuses_other_shapes():
    with pytest.raises(InputError, match="direction fields"):
        metrics.angular_error(np.ones((2, 2, 2, 3)), np.ones((2, 2, 3, 3)))
    with pytest.raises(InputError, match="mask"):
        metrics.angular_error(np.ones((2, 2, 2, 3)), np.ones((2, 2, 2, 3)), np.ones((2, 2, 3)))
