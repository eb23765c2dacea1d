import math

import pytest
import torch
from tests.deconvolve.shd.symmetry import random_rotation, rotation_matrix
from torch.nn import functional

from napari_dmri.deconvolve.shd.spectral import (
    RINGS,
    Rectifier,
    SpectralConv,
    SpectralLayer,
    SpectralNorm,
    grid_degree,
)
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import degrees, design_matrix, n_coefficients
from napari_dmri.sphere.quadrature import half_quadrature


def coefficients(order, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_coefficients(order), *shape, generator=generator)


def dense(conv, inputs):
    """Filter with one dense kernel a coefficient."""
    away = (torch.arange(3) - 1).abs()
    place = away[:, None, None] + away[:, None] + away
    rows = []
    for c, degree in enumerate(degrees(conv.band)):
        total = 0
        for x, weight in zip(inputs, conv.weight, strict=True):
            if degree // 2 < len(weight):
                matrices = weight[degree // 2]
                if len(matrices) == 4:
                    kernel = (matrices / torch.tensor(RINGS)[:, None, None])[place]
                else:
                    kernel = matrices[0].expand(1, 1, 1, -1, -1)
                kernel = kernel.permute(4, 3, 0, 1, 2)
                mode = "replicate" if conv.repeat else "constant"
                padded = functional.pad(x[c].movedim(-1, 1), (kernel.shape[-1] // 2,) * 6, mode)
                total = total + functional.conv3d(padded, kernel)
        rows.append(total.movedim(1, -1))
    rows[0] = rows[0] + conv.bias * math.sqrt(4 * math.pi)
    return torch.stack(rows)


@pytest.mark.parametrize(("spatial", "repeat"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("space", [(3, 4, 2), (3, 1, 2), (1, 1, 1)])
def test_filter_and_its_gradients_are_those_of_dense_kernels(spatial, repeat, space):
    torch.manual_seed(0)
    conv = SpectralConv([(3, 4), (2, 2)], 5, 4, spatial=spatial, repeat=repeat)
    inputs = [coefficients(4, 2, *space, 3), coefficients(2, 2, *space, 2)]
    leaves = [x.requires_grad_() for x in inputs] + list(conv.parameters())
    found, expected = conv(*inputs), dense(conv, inputs)
    assert torch.allclose(found, expected, atol=1e-5)
    seed = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves, seed),
        torch.autograd.grad(expected, leaves, seed),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("band", [0, 2, 4, 8, 12])
def test_filter_commutes_with_any_rotation(band):
    torch.manual_seed(1)
    conv = SpectralConv([(3, band), (2, band)], 4, band)
    inputs = [coefficients(band, 1, 3, 4, 2, f, seed=f) for f in (3, 2)]
    for seed in range(2):
        turn = rotation_matrix(random_rotation(seed), band)
        found = conv(*(torch.tensordot(turn, x, 1) for x in inputs))
        expected = torch.tensordot(turn, conv(*inputs), 1)
        assert (found - expected).norm() / expected.norm() < 1e-5


def test_filter_commutes_with_quarter_turns_of_the_grid():
    torch.manual_seed(1)
    conv = SpectralConv([(3, 4)], 4, 4)
    x = coefficients(4, 1, 4, 4, 4, 3)
    for axes in ((2, 3), (3, 4), (2, 4)):
        found, expected = conv(x.rot90(1, axes)), conv(x).rot90(1, axes)
        assert torch.allclose(found, expected, atol=1e-5)


def test_degrees_beyond_all_inputs_are_zero():
    y = SpectralConv([(2, 2)], 3, 6)(coefficients(2, 1, 2, 2, 2, 2))
    assert y.shape == (28, 1, 2, 2, 2, 3)
    assert not y[6:].any()


def test_scaled_filter_is_the_filter_scaled():
    conv = SpectralConv([(2, 4)], 3, 4)
    x, factor, offset = coefficients(4, 1, 3, 3, 3, 2), torch.rand(3), torch.rand(3)
    expected = conv(x) * factor
    expected[0] += offset * math.sqrt(4 * math.pi)
    assert torch.allclose(conv.scaled([x], factor, offset), expected, atol=1e-5)


def test_norm_has_the_mean_and_variance_of_the_function():
    norm = SpectralNorm(3)
    c = coefficients(6, 2, 3, 2, 2, 3)
    factor, offset = norm(c)
    points, weights = half_quadrature(12)
    basis = torch.tensor(design_matrix(points, 6), dtype=torch.float32)
    share = torch.tensor(weights / weights.sum(), dtype=torch.float32)
    values = torch.tensordot(basis, c, 1) * factor + offset
    means = torch.tensordot(share, values, 1).mean((0, 1, 2, 3))
    squares = torch.tensordot(share, values.square(), 1).mean((0, 1, 2, 3))
    assert torch.allclose(means, torch.zeros(3), atol=1e-5)
    assert torch.allclose(squares, torch.ones(3), atol=1e-3)
    assert not torch.equal(norm.running_mean, torch.zeros(3))


def test_norm_does_not_see_rotations():
    c = coefficients(6, 2, 3, 2, 2, 3)
    turned = torch.tensordot(rotation_matrix(random_rotation(0), 6), c, 1)
    for mine, theirs in zip(SpectralNorm(3)(c), SpectralNorm(3)(turned), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5)


def test_rectifier_keeps_positive_functions_and_drops_negative_ones():
    rectifier = Rectifier(4)
    c = 0.05 * coefficients(4, 1, 1, 1, 1, 2)
    c[0] = torch.tensor([3.0, -3.0])
    found = rectifier(c)
    assert torch.allclose(found[..., 0], c[..., 0], atol=1e-5)
    assert torch.allclose(found[..., 1], torch.zeros(()), atol=1e-5)


def test_rectifier_gradients_are_those_of_plain_steps():
    rectifier = Rectifier(4)
    c = coefficients(4, 1, 2, 2, 2, 3).requires_grad_()
    factor, offset = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)

    def plain(c, factor, offset):
        values = torch.tensordot(rectifier.synthesis, c * factor, 1) + offset
        return torch.tensordot(rectifier.analysis, values.relu(), 1)

    found, expected = rectifier(c, factor, offset), plain(c, factor, offset)
    assert torch.allclose(found, expected, atol=1e-5)
    seed = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, (c, factor, offset), seed),
        torch.autograd.grad(expected, (c, factor, offset), seed),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_rectifier_of_a_denser_grid_is_nearer_to_equivariance():
    c = coefficients(8, 1, 2, 2, 2, 4)
    turn = rotation_matrix(random_rotation(0), 8)
    errors = []
    for degree in (17, 29, 53):
        rectifier = Rectifier(8, degree)
        expected = torch.tensordot(turn, rectifier(c), 1)
        found = rectifier(torch.tensordot(turn, c, 1))
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[1] < 0.06


def test_rectifier_refuses_a_grid_that_cannot_hold_its_band():
    assert grid_degree(8) >= 16
    with pytest.raises(InputError, match="give 16 or more"):
        Rectifier(8, 11)


def test_layer_without_gradients_is_the_same():
    torch.manual_seed(0)
    layer = SpectralLayer([(2, 4), (3, 2)], 4, 4)
    inputs = [coefficients(4, 1, 4, 2, 2, 2), coefficients(2, 1, 4, 2, 2, 3)]
    layer(*inputs)
    layer.eval()
    kept = [x.clone() for x in inputs]
    with torch.no_grad():
        folded = layer(*inputs)
    assert torch.allclose(folded, layer(*inputs), atol=1e-5)
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True))
