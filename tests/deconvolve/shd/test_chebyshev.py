"""The convolution against the paper's dense form, its gradients and its symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_dmri.deconvolve.shd.chebyshev import ChebyshevLayer, Mixing, neighbour_sums
from napari_dmri.deconvolve.shd.pooling import Unpool
from napari_dmri.deconvolve.shd.sphere import Sphere
from napari_dmri.sphere.graph import scaled_laplacian


def _paper(layer: ChebyshevLayer, x: torch.Tensor) -> torch.Tensor:
    """Dense polynomials of the Laplacian, then one 3D convolution shared by all vertices."""
    terms = layer.a.shape[2]
    scaled = torch.tensor(scaled_laplacian(layer.sphere.n_side, layer.sphere.hemisphere)).to(x)
    polynomials = [torch.eye(len(scaled)).to(x), scaled]
    while len(polynomials) < terms:
        polynomials.append(2 * scaled @ polynomials[-1] - polynomials[-2])
    stacked = torch.stack(polynomials[:terms])
    inputs = torch.einsum("kvw,wbxyzi->vbikxyz", stacked, x).flatten(0, 1).flatten(1, 2)
    a = layer.a
    if layer.s is None:
        kernel = a.flatten(1)[..., None, None, None]
    else:
        if layer.s.shape[2] == 4:
            d = np.abs(np.mgrid[-1:2, -1:2, -1:2]).sum(0)
            s = layer.s[:, :, torch.tensor(d)]
        else:
            s = layer.s.unflatten(2, (3, 3, 3))
        kernel = (a[..., None, None, None] * s[:, :, None]).flatten(1, 2)
    width = kernel.shape[-1] // 2
    mode = "replicate" if layer.repeat else "constant"
    y = functional.conv3d(functional.pad(inputs, (width,) * 6, mode), kernel, layer.bias)
    return y.unflatten(0, x.shape[:2]).movedim(2, -1)


def _layer(
    rings: int, fine: int = 3, coarse: int = 0, half: bool = True, repeat: bool = False
) -> ChebyshevLayer:
    torch.manual_seed(0)
    layer = ChebyshevLayer(Sphere(2, half), fine, coarse, 2, 5, rings, repeat)
    return layer.double()


@pytest.mark.parametrize(("rings", "repeat"), [(0, False), (4, False), (27, False), (4, True)])
@pytest.mark.parametrize("space", [(4, 3, 5), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 3, 2)])
def test_the_layer_is_the_papers(rings: int, repeat: bool, space: tuple[int, int, int]) -> None:
    layer = _layer(rings, repeat=repeat)
    x = torch.randn(24, 2, *space, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), _paper(layer, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("repeat", [False, True])
def test_gradients_are_the_papers(repeat: bool) -> None:
    layer = _layer(4, repeat=repeat)
    x = torch.randn(24, 2, 3, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    wanted = torch.autograd.grad(_paper(layer, x).square().sum(), [x, *layer.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(("rings", "repeat"), [(1, False), (4, False), (27, False), (4, True)])
def test_gradients_of_the_mixing_are_its_derivatives(rings: int, repeat: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 1, 3, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, rings, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Mixing.apply, (x, weights, repeat))


def test_rings_count_the_neighbours_within_the_volume() -> None:
    one = torch.ones(1, 3, 3, 3, 1)
    middle = [ring[0, 1, 1, 1, 0].item() for ring in neighbour_sums(one, 4)]
    corner = [ring[0, 0, 0, 0, 0].item() for ring in neighbour_sums(one, 4)]
    assert middle == [1, 6, 12, 8]
    assert corner == [1, 3, 3, 1]
    assert neighbour_sums(torch.ones(1, 1, 1, 1, 1), 4)[1:] == [None] * 3


@pytest.mark.parametrize("space", [(3, 2, 4), (1, 1, 1), (1, 5, 2)])
def test_repeated_voxels_count_as_neighbours(space: tuple[int, int, int]) -> None:
    rings = neighbour_sums(torch.ones(1, *space, 1), 4, repeat=True)
    for ring, count in zip(rings, (1, 6, 12, 8), strict=True):
        assert ring is not None and (ring == count).all()


def test_coarse_features_come_first_and_are_unpooled() -> None:
    layer = _layer(4, fine=2, coarse=3)
    x = torch.randn(24, 1, 4, 4, 4, 2, dtype=torch.float64)
    below = torch.randn(6, 1, 2, 2, 2, 3, dtype=torch.float64)
    both = torch.cat([Unpool(layer.sphere)(below, (4, 4, 4)), x], -1)
    torch.testing.assert_close(layer(x, below), _paper(layer, both), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coarse", [0, 3])
@pytest.mark.parametrize("fine", [2, 3])
def test_inference_is_the_layer_scaled_shifted_and_rectified(fine: int, coarse: int) -> None:
    layer = _layer(4, fine=fine, coarse=coarse).float()
    x = torch.randn(24, 1, 3, 3, 3, fine)
    below = torch.randn(6, 1, 2, 2, 2, 3) if coarse else None
    scale, shift = torch.randn(2), torch.randn(2)
    with torch.no_grad():
        wanted = (layer(x, below) * scale + shift).relu()
        found = layer.infer(x.clone(), below, scale, shift)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rings", [0, 4])
def test_half_a_sphere_gives_what_the_full_one_gives(rings: int) -> None:
    from napari_dmri.sphere.sampling import fold_to_half

    half, full = _layer(rings), _layer(rings, half=False)
    full.load_state_dict(half.state_dict())
    x = torch.randn(24, 1, 2, 2, 2, 3, dtype=torch.float64)
    fold = torch.tensor(fold_to_half(2))
    torch.testing.assert_close(full(x[fold]), half(x)[fold], rtol=1e-5, atol=1e-6)
