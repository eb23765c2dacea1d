import pytest
import torch
from tests.deconvolve.shd.symmetry import (
    crossings,
    error,
    random_rotation,
    rotation_matrix,
    settle,
    shape_error,
)

from napari_dmri.deconvolve.shd import spectral_unet
from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.spectral_unet import bands_of
from napari_dmri.errors import InputError

SMALL = {"n_side": 4, "depth": 3, "filters": 8, "degree": 8, "patch": 4}


def network(layer="spectral", others=1, seed=0, **settings):
    architecture = Architecture(layer=layer, **{**SMALL, **settings})
    return build_network(architecture, 2, others, seed=seed)


def sphere_error(net, x, seed=0):
    turn = random_rotation(seed)
    into = rotation_matrix(turn, 8)
    out = rotation_matrix(turn, net.architecture.degree)
    with torch.no_grad():
        plain, others = net(x.clone())
        turned, turned_others = net(x @ into.T)
    change = float((turned_others - others).norm() / others.norm())
    return error(turned, plain @ out.T), change


@pytest.mark.parametrize("bands", [(), (6, 4, 2), (10, 8, 4), (2, 4, 0)])
@pytest.mark.parametrize("patch", [1, 3, 4])
def test_shapes_over_bands_and_patches(bands, patch):
    net = network(bands=bands, patch=patch)
    fod, others = net(crossings((2, patch, patch, patch)))
    assert fod.shape == (2, patch, patch, patch, 45)
    assert others.shape == (2, patch, patch, patch, 1)
    assert torch.isfinite(fod).all() and (others > 0).all()


@pytest.mark.parametrize(("degree", "order", "others"), [(8, 4, 0), (12, 6, 2)])
def test_degrees_orders_and_tissues(degree, order, others):
    net = network(degree=degree, input_order=order, others=others)
    fod, found = net(crossings((1, 4, 8, 4), order=order))
    assert fod.shape == (1, 4, 8, 4, net.architecture.coefficients_out)
    assert found.shape == (1, 4, 8, 4, others)


def test_bands_follow_the_sampling_unless_given():
    assert len(bands_of(Architecture(layer="spectral"))) == 4
    assert bands_of(Architecture(layer="spectral", bands=(10, 6, 4, 0))) == (10, 6, 4, 0)


def test_a_tile_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="multiples of 4"):
        network()(crossings((1, 4, 4, 6)))


def test_whole_network_commutes_with_any_rotation_better_than_shd():
    seen, x = crossings((4, 4, 4, 4)), crossings((1, 4, 4, 4), seed=7)
    spectral, chebyshev = (settle(network(layer), seen) for layer in ("spectral", "chebyshev"))
    for seed in range(2):
        own, invariant = sphere_error(spectral, x, seed)
        assert own <= 0.02
        assert invariant <= 0.02
        assert own < sphere_error(chebyshev, x, seed)[0]


@pytest.mark.parametrize("axes", [(1, 2), (2, 3)])
def test_quarter_turns_of_the_grid_commute(axes):
    x = crossings((1, 4, 4, 4))
    net = settle(network(), x)
    with torch.no_grad():
        expected, others = (y.rot90(1, axes) for y in net(x))
        found, found_others = net(x.rot90(1, axes))
    assert error(found, expected) < 1e-5
    assert torch.allclose(found_others, others, rtol=1e-5)


def test_forward_without_gradients_is_the_same_and_leaves_its_input():
    x = crossings((1, 4, 4, 4))
    net, kept = settle(network(), x), x.clone()
    with torch.no_grad():
        plain = net(x)
    assert torch.equal(x, kept)
    for mine, theirs in zip(plain, net(x), strict=True):
        assert error(mine, theirs.detach()) < 1e-4


def test_gradients_reach_all_weights():
    net = network()
    fod, others = net(crossings((1, 4, 4, 4)))
    (fod.square().mean() + others.mean()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_gradients_made_anew_in_parts_are_the_same(monkeypatch):
    x = crossings((1, 4, 4, 4))
    found = []
    for kept in (spectral_unet.KEPT, 0):
        monkeypatch.setattr(spectral_unet, "KEPT", kept)
        net = network()
        fod, others = net(x)
        (fod.square().mean() + others.mean()).backward()
        found.append([p.grad for p in net.parameters()])
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_same_seed_gives_the_same_weights_and_another_one_others():
    first, same, other = (network(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_saved_weights_give_the_same_output_and_hold_no_tables():
    x = crossings((1, 4, 4, 4))
    net = settle(network(), x)
    again = network(seed=9).eval()
    again.load_state_dict({k: v.clone() for k, v in net.state_dict().items()})
    with torch.no_grad():
        for mine, theirs in zip(net(x), again(x), strict=True):
            assert torch.equal(mine, theirs)
    assert not any("synthesis" in name or "analysis" in name for name in net.state_dict())


def test_half_precision_is_left_out():
    x = crossings((1, 4, 4, 4))
    net = settle(network(), x)
    exact, _ = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = net(x)
    found.square().mean().backward()
    assert found.dtype == torch.float32
    assert error(found.detach(), exact.detach()) < 1e-6
    assert shape_error(found.detach(), exact.detach()) < 1e-6


def test_compiling_leaves_the_network_as_it_is():
    x = crossings((1, 4, 4, 4))
    net = settle(network(), x)
    with torch.no_grad():
        expected, _ = net(x)
        net.compile()
        assert torch.equal(net(x)[0], expected)
    assert net._compiled_call_impl is None
