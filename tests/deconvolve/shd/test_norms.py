"""Batch norms get the mean statistics of many batches; weights stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.norms import MOMENTUM, settle_norms
from napari_dmri.training.parts import Batch


class Drawn:
    """Batches of fixed numbers, as many as are asked for."""

    def __init__(self, shape, count=40):
        generator = torch.Generator().manual_seed(0)
        self.given = [2 + torch.randn(*shape, generator=generator) for _ in range(count)]
        self.sizes = []

    def batches(self, size, key=None, start=0):
        assert key is None
        self.sizes.append(size)
        for one in self.given[start:]:
            yield Batch((one,), 1.0)


def test_statistics_are_the_mean_over_the_batches():
    norm = nn.BatchNorm2d(3, momentum=MOMENTUM)
    drawn = Drawn((8, 3, 4, 5))
    settle_norms(norm, drawn, 1)
    means = torch.stack([x.mean((0, 2, 3)) for x in drawn.given]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in drawn.given]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-5)
    assert torch.allclose(norm.running_var, variances, atol=1e-5)
    assert norm.momentum == MOMENTUM and not norm.training and drawn.sizes == [4]


@pytest.mark.parametrize("layer", ["chebyshev", "spectral"])
def test_a_settled_network_forgets_what_it_saw_last(layer):
    made = Architecture(layer=layer, n_side=2, degree=4, depth=2, filters=4, patch=4, input_order=4)
    network = build_network(made, 2, 1, seed=0)
    weights = {k: v.clone() for k, v in network.named_parameters()}
    drawn = Drawn((2, 4, 4, 4, 2, 15), 10)
    settle_norms(network, drawn, 2)
    first = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad():
        network.train()(10 * drawn.given[0])
    assert any(not torch.equal(v, first[k]) for k, v in network.state_dict().items())
    settle_norms(network, drawn, 2)
    for name, value in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.allclose(value, first[name], atol=1e-6), name
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())


def test_a_network_without_norms_is_left_alone():
    network = nn.Linear(3, 2).train()
    settle_norms(network, Drawn((1, 3)), 1)
    assert network.training
