"""The U-Net and what goes in and out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dmri.deconvolve.shd import Architecture, build_network
from napari_dmri.deconvolve.shd.network import on_half_spheres
from napari_dmri.errors import InputError
from napari_dmri.sphere.graph import healpix_laplacian
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix

SMALL = {"n_side": 4, "degree": 8, "input_order": 4, "depth": 3, "filters": 4}


def _network(**settings):
    """A small network with statistics of random numbers, whose output varies as it would."""
    network = build_network(Architecture(**{**SMALL, **settings}), 2, 1, seed=0)
    with torch.no_grad(), torch.random.fork_rng():
        network.unet.head.a.mul_(10)
        torch.manual_seed(1)
        edge = network.architecture.patch
        for module in network.modules():
            if hasattr(module, "momentum"):
                module.momentum = 0.1
        for _ in range(20):
            network(torch.randn(4, edge, edge, edge, 2, 15))
    return network.eval()


def _shells(*shape: int) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(*shape, 2, 15)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"patch": 1}, 761_698),
        ({"patch": 3}, 843_938),
        ({"patch": 4}, 843_938),
        ({"patch": 8}, 1_106_082),
        ({"patch": 16}, 1_368_226),
        ({"patch": 3, "full_head": True}, 1_368_674),
    ],
)
def test_numbers_of_parameters_are_the_papers(settings, count) -> None:
    network = build_network(Architecture(**settings), 2, 1)
    assert sum(p.numel() for p in network.parameters()) == count
    saved = sum(t.numel() for n, t in network.state_dict().items() if "running" not in n)
    assert saved - len([n for n in network.state_dict() if "tracked" in n]) == count


@pytest.mark.parametrize("patch", [1, 3, 4])
def test_shapes_and_the_same_result_with_and_without_gradients(patch: int) -> None:
    network = _network(patch=patch)
    edge = {1: 2, 3: 3, 4: 8}[patch]
    shells = _shells(1, edge, edge, edge)
    fod, others = network(shells)
    assert fod.shape == (1, edge, edge, edge, 45)
    assert others.shape == (1, edge, edge, edge, 1)
    assert (others > 0).all()
    before = shells.clone()
    with torch.no_grad():
        again = network(shells)
    assert torch.equal(shells, before)
    assert _relative(again[0], fod) < 1e-5
    assert _relative(again[1], others) < 1e-5


def test_half_a_sphere_gives_what_the_full_one_gives() -> None:
    half, full = _network(patch=4), _network(patch=4, hemisphere=False)
    full.load_state_dict(half.state_dict())
    shells = _shells(1, 4, 4, 4)
    with torch.no_grad():
        for one, other in zip(half(shells), full(shells), strict=True):
            assert _relative(one, other) < 1e-5


@pytest.mark.parametrize("patch", [1, 3])
def test_whole_spheres_are_halved_with_the_same_weights(patch: int) -> None:
    gains = ((1.0, 2.0, 3.0), (2.0, 4.0, 8.0))
    whole = _network(patch=patch, hemisphere=False, full_head=True, gains=gains)
    edge = max(2, patch)
    shells = _shells(2, edge, edge, edge)
    half, architecture = on_half_spheres(whole, whole.architecture)
    assert architecture == replace(whole.architecture, hemisphere=True)
    assert half.training == whole.training
    with torch.no_grad():
        for one, other in zip(half(shells), whole(shells), strict=True):
            assert _relative(one, other) < 1e-5
        again, same = on_half_spheres(half, architecture)
        assert same == architecture and again is not half
        assert torch.equal(again(shells)[0], half(shells)[0])


def _turn(shells: torch.Tensor, planes: tuple[int, int]) -> torch.Tensor:
    return torch.rot90(shells, 1, planes)


@pytest.mark.parametrize("planes", [(1, 2), (2, 3)])
def test_quarter_turns_of_the_grid_commute(planes: tuple[int, int]) -> None:
    network = _network(patch=4)
    shells = _shells(1, 4, 8, 8)
    if planes == (1, 2):
        shells = shells.transpose(1, 3)
    with torch.no_grad():
        for one, other in zip(network(_turn(shells, planes)), network(shells), strict=True):
            assert _relative(one, _turn(other, planes)) < 1e-5


def test_the_papers_patches_do_not_quite_commute_with_turns_of_the_grid() -> None:
    network = _network(patch=3)
    shells = _shells(1, 3, 3, 3)
    with torch.no_grad():
        turned = network(_turn(shells, (1, 2)))[0]
        straight = _turn(network(shells)[0], (1, 2))
    # Nearest values from 2 to 3 voxels take the first one twice.
    assert 1e-3 < _relative(turned[..., 1:], straight[..., 1:]) < 0.5


def test_a_quarter_turn_of_the_sphere_commutes() -> None:
    network = _network(patch=4)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    u = healpix(4)

    def rotation(order: int) -> torch.Tensor:
        wigner = np.linalg.pinv(design_matrix(u, order)) @ design_matrix(u @ turn, order)
        return torch.tensor(wigner.T, dtype=torch.float32)

    shells = _shells(1, 4, 4, 4)
    with torch.no_grad():
        turned = network(shells @ rotation(4))
        straight = network(shells)
    assert _relative(turned[0], straight[0] @ rotation(8)) < 1e-5
    assert _relative(turned[1], straight[1]) < 1e-5


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    first = build_network(Architecture(**SMALL), 2, 0, seed=3).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    second = build_network(Architecture(**SMALL), 2, 0, seed=3).state_dict()
    third = build_network(Architecture(**SMALL), 2, 0, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_autocast_does_not_change_the_result() -> None:
    network = _network(patch=4)
    shells = _shells(1, 4, 4, 4)
    with torch.no_grad():
        wanted = network(shells)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(shells)[0], wanted)


def test_white_matter_alone_and_other_kernels() -> None:
    network = build_network(Architecture(**SMALL, isotropic=False), 3, 0, seed=0)
    fod, others = network(torch.randn(2, 3, 3, 3, 3, 15))
    assert fod.shape == (2, 3, 3, 3, 45)
    assert others.shape == (2, 3, 3, 3, 0)


def test_tiles_and_numbers_that_do_not_fit_are_refused() -> None:
    network = build_network(Architecture(**SMALL), 2, 1)
    with pytest.raises(InputError, match="takes 3 voxels an edge"):
        network(_shells(1, 4, 4, 4))
    with pytest.raises(InputError, match="cannot be made"):
        build_network(Architecture(**SMALL), 0, 1)


def test_every_parameter_learns() -> None:
    network = build_network(Architecture(**SMALL), 2, 1, seed=0)
    fod, others = network(_shells(4, 3, 3, 3))
    (fod.square().mean() + others.square().mean()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # Batch norm takes away what a bias adds before it.
    assert all(name.endswith("layer.bias") for name in still)


def test_the_laplacian_of_the_network_is_the_graphs() -> None:
    network = build_network(Architecture(**SMALL), 2, 0)
    sphere = build_network(Architecture(**SMALL, hemisphere=False), 2, 0).spheres[0]
    u, values = sphere.modes.double().numpy(), sphere.eigenvalues
    laplacian = healpix_laplacian(4)
    largest = np.linalg.eigvalsh(laplacian)[-1]
    assert len(network.spheres[0].eigenvalues) == 96
    np.testing.assert_allclose((u.T * values) @ u, 2 / largest * laplacian - np.eye(192), atol=1e-6)
