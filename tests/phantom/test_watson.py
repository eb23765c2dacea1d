from __future__ import annotations

import numpy as np
from scipy.special import dawsn, eval_legendre

from napari_dmri.phantom.watson import (
    concentration_of,
    kernel_coefficients,
    legendre,
    watson_coefficients,
)


def test_series_gives_the_exponential_back() -> None:
    x = np.linspace(0, 6, 37)
    t = np.linspace(-1, 1, 41)
    series = kernel_coefficients(x) @ legendre(t).T
    assert np.abs(series - np.exp(-x[:, None] * t**2)).max() < 1e-6


def test_legendre_agrees_with_scipy() -> None:
    t = np.linspace(-1, 1, 21)
    expected = np.stack([eval_legendre(el, t) for el in range(0, 25, 2)], -1)
    assert np.allclose(legendre(t), expected, atol=1e-12)


def test_second_moment_of_watson_is_the_closed_form() -> None:
    kappa = np.array([0.1, 1.0, 4.0, 16.0, 64.0])
    moment = 1 / (2 * np.sqrt(kappa) * dawsn(np.sqrt(kappa))) - 1 / (2 * kappa)
    assert np.allclose(watson_coefficients(kappa)[:, 1], (3 * moment - 1) / 2, atol=2e-6)


def test_concentration_is_the_inverse() -> None:
    kappa = np.array([0.5, 2.0, 9.0, 40.0])
    found = concentration_of(watson_coefficients(kappa)[:, 1])
    assert np.allclose(found, kappa, rtol=1e-3)


def test_no_dispersion_and_full_dispersion() -> None:
    ends = watson_coefficients(np.array([np.inf, 0.0]))
    assert (ends[0] == 1).all()
    assert abs(ends[1, 0] - 1) < 1e-12 and np.abs(ends[1, 1:]).max() < 1e-3
