import pytest
import torch
from tests.deconvolve.shd.symmetry import crossings, error, rotation_matrix, settle

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.figure8 import ConcatLayer
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.sphere import Sphere

QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def network(layer):
    architecture = Architecture(layer=layer, n_side=4, depth=2, filters=4, degree=8, patch=4)
    return build_network(architecture, 2, 1, seed=0)


def errors(net, x):
    """Return the errors for a quarter turn of the grid, and of the sphere."""
    turn = torch.tensor(QUARTER)
    into, out = rotation_matrix(turn.numpy(), 8), rotation_matrix(turn.numpy(), 8)
    with torch.no_grad():
        plain = net(x)[0]
        grid = error(net(x.rot90(1, (1, 2)))[0], plain.rot90(1, (1, 2)))
        sphere = error(net(x @ into.T)[0], plain @ out.T)
    return grid, sphere


@pytest.mark.parametrize(
    ("layer", "grid", "sphere"), [("concat-so3", False, True), ("e3-sh", True, False)]
)
def test_each_layer_has_one_of_the_two_symmetries(layer, grid, sphere):
    x = crossings((1, 4, 4, 4))
    found = errors(settle(network(layer), x), x)
    for value, exact in zip(found, (grid, sphere), strict=True):
        assert (value < 1e-5) if exact else (value > 1e-3), found


def test_concatenated_features_are_those_of_the_neighbours():
    torch.manual_seed(0)
    sphere = Sphere(2)
    layer = ConcatLayer(sphere, 2, 0, 3, terms=3)
    x = torch.randn(sphere.vertices, 1, 3, 3, 3, 2)
    middle = layer(x)[:, 0, 1, 1, 1] - layer.bias
    neighbours = x[:, 0].flatten(1, 3)
    modes = sphere.to_modes(neighbours)
    weights = torch.einsum("vk,oidk->vdio", layer.polynomials, layer.a)
    expected = sphere.from_modes(torch.einsum("vdi,vdio->vo", modes, weights))
    assert torch.allclose(middle, expected, atol=1e-5)


@pytest.mark.parametrize("layer", ["concat-so3", "e3-sh"])
def test_gradients_reach_all_weights_and_weights_return(layer):
    x = crossings((2, 4, 4, 4))
    net = network(layer)
    fod, others = net(x)
    (fod.square().mean() + others.mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    settle(net, x)
    again = network(layer).eval()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(x)[0], again(x)[0])
