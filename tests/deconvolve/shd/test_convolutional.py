import math

import pytest
import torch
from tests.deconvolve.shd.symmetry import crossings, settle, shape_error
from torch.nn import functional

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.convolutional import ConvolutionLayer
from napari_dmri.deconvolve.shd.network import build_network


def network(patch, **settings):
    small = {"layer": "convolution", "depth": 2, "filters": 6, "degree": 6, "patch": patch}
    return build_network(Architecture(**{**small, **settings}), 2, 1, seed=0)


@pytest.mark.parametrize("weights", [1, 4, 27])
def test_layer_sums_over_the_neighbours(weights):
    layer = ConvolutionLayer(1, 0, 1, weights)
    x = torch.zeros(1, 1, 5, 5, 5, 1)
    x[0, 0, 2, 2, 2, 0] = 1
    y = (layer(x) - layer.bias)[0, 0, ..., 0]
    assert int((y != 0).sum()) == (1 if weights == 1 else 27)
    middle = y[1:4, 1:4, 1:4]
    assert len(middle[middle != 0].unique()) == weights
    if weights == 27:
        assert torch.allclose(middle.flip((0, 1, 2)).flatten(), layer.weight[0, 0])


def test_repeated_voxels_stand_for_those_outside():
    torch.manual_seed(0)
    repeated = ConvolutionLayer(2, 0, 3, 4, repeat=True)
    plain = ConvolutionLayer(2, 0, 3, 4)
    plain.load_state_dict(repeated.state_dict())
    x = torch.randn(1, 1, 3, 1, 2, 2)
    padded = x[0].movedim(-1, 1)
    padded = functional.pad(padded, (1,) * 6, "replicate").movedim(1, -1)[None]
    inner = (slice(None), slice(None), *(slice(1, -1),) * 3)
    assert torch.allclose(repeated(x), plain(padded)[inner], atol=1e-6)


@pytest.mark.parametrize("patch", [1, 3, 4])
def test_shapes_positive_amounts_and_gradients(patch):
    net = network(patch)
    fod, others = net(crossings((2, patch, patch, patch)))
    assert fod.shape == (2, patch, patch, patch, 28)
    assert others.shape == (2, patch, patch, patch, 1)
    assert (fod[..., 0] > 0).all() and (others > 0).all()
    (fod.square().mean() + others.mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_multilayer_perceptron_sees_one_voxel():
    x = crossings((1, 2, 2, 2))
    net = settle(network(1), crossings((64, 1, 1, 1)))
    single = x.view(8, 1, 1, 1, 2, 45)
    with torch.no_grad():
        together, alone = net(single)[0], torch.cat([net(v[None])[0] for v in single])
    assert torch.allclose(together, alone, atol=1e-5)


def test_cnn_does_not_commute_with_quarter_turns():
    x = crossings((1, 4, 4, 4))
    net = settle(network(4), x)
    with torch.no_grad():
        assert shape_error(net(x.rot90(1, (1, 2)))[0], net(x)[0].rot90(1, (1, 2))) > 0.01


def test_evaluation_without_gradients_is_the_same_and_leaves_its_input():
    x = crossings((1, 4, 4, 4))
    net, kept = settle(network(4), x), x.clone()
    with torch.no_grad():
        plain = net(x)
    assert torch.equal(x, kept)
    for mine, theirs in zip(plain, net(x), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_weights_start_at_the_variance_of_he():
    torch.manual_seed(0)
    layer = ConvolutionLayer(32, 32, 32)
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 27)), rel=0.05)
