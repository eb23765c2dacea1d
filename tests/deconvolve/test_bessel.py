"""The Bessel ratio against SciPy's exact functions."""

import numpy as np
import pytest
import torch
from scipy.special import ive

from napari_dmri import InputError
from napari_dmri.deconvolve.bessel import BesselRatio


@pytest.mark.parametrize(("order", "error"), [(1, 1e-6), (2, 1e-6), (5, 1e-6), (16, 3e-6)])
def test_agrees_with_scipy(order, error):
    x = np.logspace(-4, 3.9, 4000).astype(np.float32)
    given = torch.from_numpy(x)
    found = BesselRatio(order, torch.device("cpu"))(
        given, torch.empty_like(given), torch.empty_like(given)
    )
    exact = ive(order, x.astype(float)) / ive(order - 1, x.astype(float))
    assert np.abs(found.numpy() - exact).max() < error
    assert torch.equal(given, torch.from_numpy(x))


def test_is_zero_at_zero_and_tends_to_one():
    x = torch.logspace(4, 15, 200)
    found = BesselRatio(1, torch.device("cpu"))(x, torch.empty_like(x), torch.empty_like(x))
    assert (found - 1).abs().max() < 1e-4
    assert found[-1] == pytest.approx(1, abs=1e-6)
    zero = torch.zeros(1)
    assert BesselRatio(3, torch.device("cpu"))(zero, torch.empty(1), torch.empty(1)) == 0


@pytest.mark.parametrize("coils", [0, -1, 1.5, 100])
def test_refuses_coils(coils):
    with pytest.raises(InputError, match="coils"):
        BesselRatio(coils, torch.device("cpu"))
