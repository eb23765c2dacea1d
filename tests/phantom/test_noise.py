from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gamma

from napari_dmri.errors import InputError
from napari_dmri.phantom.noise import add_noise


def test_sd_at_high_signal_and_rician_floor() -> None:
    rng = np.random.default_rng(0)
    sigma = np.full((50, 50, 20), 10.0)
    clean = np.stack([np.full(sigma.shape, 800.0), np.zeros(sigma.shape)], -1)
    noisy = add_noise(clean, sigma, 1, rng)
    assert noisy[..., 0].std() == pytest.approx(10, rel=0.02)
    assert noisy[..., 0].mean() == pytest.approx(np.sqrt(800**2 + 100), abs=0.2)
    assert noisy[..., 1].mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.01)


def test_non_central_chi_floor() -> None:
    n = 8
    floor = np.sqrt(2) * gamma(n + 0.5) / gamma(n)
    noisy = add_noise(np.zeros((40, 40, 20, 1)), np.ones((40, 40, 20)), n, np.random.default_rng(1))
    assert noisy.mean() == pytest.approx(floor, rel=0.01)


def test_bad_noise_is_refused() -> None:
    with pytest.raises(InputError, match="0 channels"):
        add_noise(np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1)), 0, np.random.default_rng())
    with pytest.raises(InputError, match="SD from -1"):
        add_noise(np.zeros((1, 1, 1, 1)), -np.ones((1, 1, 1)), 1, np.random.default_rng())
