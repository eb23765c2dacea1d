"""Terms on the fine sampling of the sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dmri.deconvolve.shd.amplitudes import (
    VERTICES,
    amplitude_basis,
    amplitude_terms,
    norm_factor,
)
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix


def random_fod(count: int, coefficients: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, coefficients, generator=generator) * 0.1


@pytest.mark.parametrize("degree", [8, 18])
def test_half_the_vertices_give_the_value_of_all(degree: int) -> None:
    full = torch.from_numpy(design_matrix(healpix(16), degree).astype(np.float32))
    half = torch.tensor(amplitude_basis(degree))
    assert len(full) == 2 * len(half) == VERTICES == 3072
    fod, weights = random_fod(300, full.shape[1]), (torch.arange(300) % 3 > 0).float()
    f = fod @ full.T
    negative = f.clamp(max=0).square().mean(1)
    sparse = 2 * torch.log(1 + f.square() / 2e-5).mean(1)
    share = weights / weights.sum()
    found = amplitude_terms(fod, weights, half, 1e-5, 0.1, 5e-5)
    torch.testing.assert_close(found[1], negative @ share, rtol=1e-5, atol=0)
    torch.testing.assert_close(found[2], sparse @ share, rtol=1e-5, atol=0)
    torch.testing.assert_close(found[0], (0.1 * negative + 5e-5 * sparse) @ share)


def test_a_constant_fod_by_hand() -> None:
    """f = -0.5 everywhere: N = 0.25, P = 2 log(1 + 0.25 / 0.2)."""
    fod = torch.tensor([[-0.5 * np.sqrt(4 * np.pi), 0, 0, 0, 0, 0]], dtype=torch.float32)
    basis = torch.tensor(amplitude_basis(2))
    total, negative, sparse = amplitude_terms(fod, torch.ones(1), basis, 0.1, 2.0, 3.0)
    assert float(negative) == pytest.approx(0.25, rel=1e-5)
    assert float(sparse) == pytest.approx(2 * np.log(2.25), rel=1e-5)
    assert float(total) == pytest.approx(0.5 + 6 * np.log(2.25), rel=1e-5)


def test_the_gradient_is_that_of_the_formula() -> None:
    basis = torch.tensor(amplitude_basis(6))
    weights = torch.tensor([1.0, 0.0, 1.0])
    fod = random_fod(3, 28).requires_grad_()
    amplitude_terms(fod, weights, basis, 1e-3, 0.3, 0.2)[0].mul(5).backward()
    same = fod.detach().clone().requires_grad_()
    f = same @ basis.T
    each = 0.3 * f.clamp(max=0).square().mean(1) + 0.4 * torch.log1p(f.square() / 2e-3).mean(1)
    (5 * (each * weights).sum() / 2).backward()
    torch.testing.assert_close(fod.grad, same.grad, rtol=1e-3, atol=1e-5)
    assert not fod.grad[1].any()


def test_zero_fods_and_no_voxel_have_finite_gradients() -> None:
    basis = torch.tensor(amplitude_basis(4))
    for weights in (torch.ones(2), torch.zeros(2)):
        fod = torch.zeros(2, 15, requires_grad=True)
        total, *_ = amplitude_terms(fod, weights, basis, 1e-5, 0.1, 5e-5)
        total.backward()
        assert float(total.detach()) == 0
        assert not fod.grad.any()


def test_the_factor_keeps_norms_on_the_vertices() -> None:
    full = design_matrix(healpix(16), 18)
    fod = random_fod(20, 190).numpy()
    on_vertices = np.linalg.norm(fod @ full.T, axis=1)
    np.testing.assert_allclose(
        np.linalg.norm(fod @ norm_factor(18).T, axis=1), on_vertices, rtol=1e-5
    )
