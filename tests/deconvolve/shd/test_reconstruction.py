"""The differentiable forward model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from tests.deconvolve.sticks import crossing_signal, isotropic, response, scan_of, table, units

from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.reconstruction import fractions, normalise, reconstruct
from napari_dmri.images import ResponseSet
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.prepared import Prepared

GRADIENTS = table()
FIBRES = units(5, seed=3)
SIGNAL = crossing_signal(GRADIENTS, FIBRES[:, None], np.ones((5, 1)))
RESPONSES = ResponseSet(
    {"wm": response(), "gm": isotropic("gm", 0.8e-3), "csf": isotropic("csf", 3e-3)}
)


def prepared(others: tuple[str, ...] = (), degree: int = 18) -> Prepared:
    return prepare(scan_of(SIGNAL, GRADIENTS), RESPONSES, others=others, degree=degree)


def forward(p: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(p.forward["wm"]), torch.from_numpy(p.forward_others)


@pytest.mark.parametrize("degree", [8, 12, 18])
def test_a_delta_gives_the_response(degree: int) -> None:
    """A delta along u has f_lm = Y_lm(u); its signal is the response turned to u."""
    p = prepared(degree=degree)
    delta = torch.from_numpy(design_matrix(FIBRES, degree).astype(np.float32))
    found = reconstruct(delta, torch.zeros(5, 0), forward(p)).numpy() * p.scale
    rows = response().zonal[np.searchsorted([0, 1000, 3000], GRADIENTS.bvalues)]
    cosine = FIBRES @ GRADIENTS.directions.T
    el = np.arange(0, 9, 2)
    legendre = np.stack([eval_legendre(n, cosine) for n in el], -1)
    legendre[:, GRADIENTS.b0_mask] = legendre[:, GRADIENTS.b0_mask][..., :1]
    direct = legendre * rows * np.sqrt((2 * el + 1) / (4 * np.pi))
    direct[:, GRADIENTS.b0_mask, 1:] = 0
    np.testing.assert_allclose(found, direct.sum(-1), atol=1e-4 * 100)
    np.testing.assert_allclose(found, SIGNAL, atol=0.5)


def test_the_predicted_b0_is_the_measured_one() -> None:
    p = prepared(("gm", "csf"))
    rng = torch.Generator().manual_seed(0)
    fod = torch.randn(4, 5, 190, generator=rng).abs() * 0.1
    others = torch.rand(4, 5, 2, generator=rng)
    b0 = torch.rand(4, 5, generator=rng) * 3 + 0.01
    scaled = normalise(fod, others, b0, torch.from_numpy(p.kernels))
    signal = reconstruct(*scaled, forward(p))
    for volume in np.flatnonzero(GRADIENTS.b0_mask):
        torch.testing.assert_close(signal[..., volume], b0, rtol=1e-5, atol=0)


def test_normalising_keeps_shapes_and_shares() -> None:
    fod, others = torch.rand(3, 6), torch.rand(3, 2)
    kernel = torch.tensor([3.5, 3.0, 8.0])
    a, b = normalise(fod, others, torch.ones(3), kernel)
    torch.testing.assert_close(a / a[:, :1], fod / fod[:, :1])
    torch.testing.assert_close(b / a[:, :1], others / fod[:, :1])
    again = normalise(a, b, torch.ones(3), kernel)
    torch.testing.assert_close(again, (a, b))


def test_zero_b0_and_zero_output_have_finite_gradients() -> None:
    fod = torch.zeros(3, 6, requires_grad=True)
    others = torch.zeros(3, 1, requires_grad=True)
    b0 = torch.tensor([0.0, 1.0, 0.0])
    a, b = normalise(fod, others, b0, torch.ones(2))
    assert not a.any() and not b.any()
    (a.sum() + b.sum()).backward()
    assert torch.isfinite(fod.grad).all() and torch.isfinite(others.grad).all()


def test_white_matter_alone_and_short_matrices() -> None:
    p = prepared(degree=12)
    wm, none = forward(p)
    assert none.shape == (99, 0)
    fod = torch.rand(5, 91)
    whole = reconstruct(fod, torch.zeros(5, 0), (wm, none))
    torch.testing.assert_close(reconstruct(fod, torch.zeros(5, 0), (wm[:, :45], none)), whole)
    fod, others = normalise(fod, torch.zeros(5, 0), torch.ones(5), torch.from_numpy(p.kernels))
    torch.testing.assert_close(fractions(fod, others), torch.ones(5, 1))
