"""The straight fibre's model: its coefficients, dispersion, and finding both again."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.deconvolve.response_kernel import fit_fibre, kernel_zonal, watson_weights
from napari_dmri.phantom.tissue_signal import zonal_response
from napari_dmri.phantom.watson import watson_coefficients

ROOT = np.sqrt(4 * np.pi)


def test_coefficients_are_the_integrals() -> None:
    b = np.array([1000.0, 3000.0])
    expected = zonal_response(b, 0.55, 1.7e-3, 12)
    np.testing.assert_allclose(kernel_zonal(b, 0.55, 1.7, 0.45 * 1.7, 12), expected, atol=2e-6)
    assert kernel_zonal([0.0], 0.3, 1.7, 0.3, 4)[0] == pytest.approx([ROOT, 0, 0], abs=1e-12)


def test_the_spread_shrinks_orders_as_watsons_does() -> None:
    for kappa in (2.0, 9.0, 60.0):
        found = watson_weights(1 / kappa, 10)
        np.testing.assert_allclose(found, watson_coefficients(np.array(kappa), 10), atol=1e-5)
    np.testing.assert_array_equal(watson_weights(0.0, 4), 1)


@pytest.mark.parametrize("kappa", [6.0, 20.0, np.inf])
def test_two_shells_give_fibre_and_spread_back(kappa: float) -> None:
    b = np.array([1000.0, 3000.0])
    straight = kernel_zonal(b, 0.6, 1.72, 0.65, 8)
    spread = 0.0 if np.isinf(kappa) else 1 / kappa
    fibre = fit_fibre(b, straight * watson_weights(spread, 8))
    np.testing.assert_allclose(fibre.zonal(b, 8), straight, atol=0.01 * straight[:, :1].min())
    assert fibre.spread == pytest.approx(spread, abs=0.012)
    assert fibre.misfit < 0.002


def test_one_shell_leans_on_the_priors() -> None:
    b = np.array([1200.0])
    straight = kernel_zonal(b, 0.55, 1.75, 0.45 * 1.75, 8)
    fibre = fit_fibre(b, straight * watson_weights(1 / 8, 8))
    np.testing.assert_allclose(fibre.zonal(b, 8), straight, atol=0.025 * straight[0, 0])


def test_undispersed_tensors_have_no_spread() -> None:
    b = np.array([1200.0, 3000.0])
    assert fit_fibre(b, kernel_zonal(b, 0.0, 1.7, 0.3, 8)).degrees < 2


def test_the_mean_signal_can_be_asked_for() -> None:
    b = np.array([1000.0, 2000.0])
    fibre = fit_fibre(b, kernel_zonal(b, 0.7, 1.7, 0.51, 8) * watson_weights(0.1, 8))
    wanted = kernel_zonal(b, 0.55, 1.7, 0.765, 0)[:, 0] / ROOT
    other = fibre.with_mean(b, wanted)
    np.testing.assert_allclose(other.zonal(b, 0)[:, 0] / ROOT, wanted, rtol=0.01)
    assert other.sticks < fibre.sticks
    assert other.spread == fibre.spread
