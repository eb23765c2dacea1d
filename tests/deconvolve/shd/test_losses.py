"""The loss of a batch and its parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_dmri.deconvolve.shd.losses import FodLoss, LossWeights, masked_mean
from napari_dmri.deconvolve.shd.reconstruction import normalise
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix_half

ROOT = math.sqrt(4 * math.pi)
DEGREE, COUNT = 4, 15


class Given(torch.nn.Module):
    """Give what it holds, whatever goes in."""

    def __init__(self, fod: torch.Tensor, others: torch.Tensor) -> None:
        super().__init__()
        self.fod, self.others = torch.nn.Parameter(fod), torch.nn.Parameter(others)

    def forward(self, shells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fod, self.others


def random_batch(edge: int = 3, tissues: int = 1) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    lead = (2, edge, edge, edge)
    fod = torch.randn(*lead, COUNT, generator=rng) * 0.1
    fod[..., 0] = 0.3
    others = torch.rand(*lead, tissues, generator=rng) * 0.2
    tensors = [
        torch.zeros(*lead, 2, 45),
        torch.rand(*lead, 7, generator=rng),
        torch.rand(lead, generator=rng) + 0.5,
        torch.rand(lead, generator=rng) > 0.3,
        torch.rand(7, COUNT, generator=rng),
        torch.rand(7, tissues, generator=rng),
        torch.full((1 + tissues,), ROOT),
        torch.zeros(0),
    ]
    return Given(fod, others), tensors


ALL = LossWeights(1.0, 0.2, 1e-3, 1e-3, 0.5, "squared", 0.01, 0.3)


def test_every_part_is_its_formula_and_the_total_their_weighted_sum() -> None:
    network, tensors = random_batch()
    _, signal, b0, mask, wm, iso, kernel, _ = tensors
    tensors[7] = torch.rand(2, 3, 3, 3, COUNT)
    loss = FodLoss(ALL, DEGREE)
    total = loss(network, tuple(tensors)).detach()
    fod, others = normalise(network.fod.detach(), network.others.detach(), b0, kernel)
    f = fod @ torch.from_numpy(design_matrix(healpix_half(16), DEGREE)).float().T
    predicted = fod @ wm.T + others @ iso.T
    amounts = [float(v[mask].mean()) * ROOT for v in (fod[..., 0], others[..., 0])]
    expected = {
        "reconstruction": (predicted - signal)[mask].square().mean(),
        "non_negativity": f.clamp(max=0)[mask].square().mean(),
        "sparsity": 2 * torch.log(1 + f[mask].square() / 2e-3).mean(),
        "anti_collapse": torch.tensor(sum(1 / (v + 1e-3) for v in amounts)),
        "supervised": (fod - tensors[7])[mask].square().mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(loss.last[name], value, rtol=1e-4, atol=1e-7)
    weights = ALL.as_dict()
    weighted = sum(weights[name] * v for name, v in loss.last.items() if name != "total")
    torch.testing.assert_close(total, weighted)
    assert loss.terms(network, tuple(tensors)) == loss.last


def test_voxels_outside_the_mask_have_no_gradient() -> None:
    network, tensors = random_batch()
    FodLoss(LossWeights(spatial=0.5), DEGREE)(network, tuple(tensors)).backward()
    outside = ~tensors[3]
    assert not network.fod.grad[outside].any() and not network.others.grad[outside].any()
    assert network.fod.grad[tensors[3]].abs().sum() > 0


def test_only_the_middle_voxel_may_count() -> None:
    network, tensors = random_batch()
    tensors[3][:] = True
    FodLoss(LossWeights(spatial=0.5), DEGREE, centre_only=True)(network, tuple(tensors)).backward()
    own = network.others.grad.abs().sum(-1)
    assert (own[:, 1, 1, 1] > 0).all()
    own[:, 1, 1, 1] = 0
    assert own.max() < 1e-6
    moved = network.fod.grad.abs().sum(-1) > 0
    assert moved.sum() == 2 * 7
    with pytest.raises(InputError, match="4x4x4 voxels have no middle"):
        FodLoss(LossWeights(), DEGREE, centre_only=True)(*_edge(4))


def _edge(edge: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    network, tensors = random_batch(edge)
    return network, tuple(tensors)


@pytest.mark.parametrize("tissues", [0, 1, 2])
@pytest.mark.parametrize("form", ["squared", "tv"])
def test_zero_outputs_and_empty_masks_have_finite_gradients(tissues: int, form: str) -> None:
    weights = LossWeights(spatial=0.5, spatial_form=form, anti_collapse=0.1)
    for empty in (False, True):
        network, tensors = random_batch(3, tissues)
        with torch.no_grad():
            network.fod.zero_()
            network.others.zero_()
        tensors[2][0] = 0
        if empty:
            tensors[3][:] = False
        value = FodLoss(weights, DEGREE)(network, tuple(tensors))
        value.backward()
        assert torch.isfinite(value.detach())
        assert torch.isfinite(network.fod.grad).all()
        assert torch.isfinite(network.others.grad).all()


def test_autocast_does_not_reach_the_loss() -> None:
    network, tensors = _edge(3)
    loss = FodLoss(LossWeights(spatial=0.5), DEGREE)
    plain = loss(network, tensors).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(network, tensors).detach()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_turning_the_sphere_by_a_healpix_symmetry_changes_nothing() -> None:
    """A quarter turn about z and the mirror at y = 0 permute the vertices up to antipodes."""
    network, tensors = _edge(3)
    weights = LossWeights(0.0, 0.2, 1e-3, 1e-3, 0.5)
    plain = FodLoss(weights, DEGREE)(network, tensors).detach()
    directions = healpix_half(4)
    basis = design_matrix(directions, DEGREE)
    for turn in ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, -1, 0], [0, 0, 1]]):
        turned = design_matrix(directions @ np.array(turn), DEGREE)
        matrix = torch.from_numpy(np.linalg.pinv(basis) @ turned).float()
        other = Given(network.fod.detach() @ matrix.T, network.others.detach())
        torch.testing.assert_close(FodLoss(weights, DEGREE)(other, tensors).detach(), plain)


def test_true_fods_of_another_order_count_as_far_as_they_go() -> None:
    network, tensors = random_batch()
    only = FodLoss(LossWeights(0, 0, 0, supervised=1.0), DEGREE)
    fod, _ = normalise(network.fod.detach(), network.others.detach(), tensors[2], tensors[6])
    for shared in (6, 28):
        tensors[7] = torch.zeros(2, 3, 3, 3, shared)
        short = fod[..., : min(shared, COUNT)][tensors[3]].square().mean()
        torch.testing.assert_close(only(network, tuple(tensors)).detach(), short)
    tensors[7] = torch.zeros(0)
    with pytest.raises(InputError, match="batch has none"):
        only(network, tuple(tensors))


def test_smoothness_needs_inner_voxels() -> None:
    with pytest.raises(InputError, match="2x2x2 voxels have no inner voxel"):
        FodLoss(LossWeights(spatial=0.5), DEGREE)(*_edge(2))


def test_the_masked_mean() -> None:
    values = torch.tensor([1.0, 5.0, 9.0])
    assert float(masked_mean(values, torch.tensor([1.0, 0.0, 1.0]))) == 5
    assert float(masked_mean(values, torch.zeros(3))) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sparsity": -1}, "sparsity=-1"),
        ({"spatial": math.inf}, "spatial=inf"),
        ({"sparsity_scale": 0}, "sparsity_scale=0"),
        ({"reconstruction": 0, "non_negativity": 0, "sparsity": 0}, "at least one above 0"),
        ({"spatial_form": "l1"}, "Unknown spatial form 'l1'"),
    ],
)
def test_weights_out_of_range_are_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LossWeights(**given)
