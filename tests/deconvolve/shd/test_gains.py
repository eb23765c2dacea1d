"""Gains bring the orders of every shell to one size, stay with the model, commute with turns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import make_responses, make_scan, make_tiny

from napari_dmri.deconvolve.shd import presets
from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.fit import fit_to_scan
from napari_dmri.deconvolve.shd.gains import MOST, SHARE, Equaliser, gains_of
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.samples import PatchStore
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import degrees

SMALL = {"n_side": 2, "degree": 4, "depth": 2, "filters": 2, "patch": 4, "input_order": 4}


@pytest.fixture(scope="module")
def volumes():
    """Prepare two scans of different schemes: orders 4 and 2 at b = 1000."""
    store = PatchStore(("csf",))
    for seed, counts in enumerate([(3, 16, 30), (3, 9, 16)]):
        scan = make_scan((6, 5, 4), seed=seed, counts=counts)
        store.add(prepare(scan, make_responses(), others=("csf",), input_order=4, degree=4))
    return store.volumes


def test_orders_are_as_large_as_half_of_order_0(volumes):
    gains = gains_of(volumes)
    assert len(gains) == 3 and gains[0] == (1, 1, 1)
    shells = torch.cat([v.shells[torch.from_numpy(v.voxels)] for v in volumes])
    even = Equaliser(gains, 15)(shells).double().square().mean(0).numpy()
    for row, own in zip(even[1:], gains[1:], strict=True):
        first = np.sqrt(row[0])
        for order, gain in zip((2, 4), own[1:], strict=True):
            size = np.sqrt(row[degrees(4) == order].mean())
            assert gain == MOST or abs(size / first - SHARE) < 0.01, (order, gain, size / first)
    # A network of one scan alone has its own; what it never saw is left as it is.
    assert gains_of(volumes[1:])[1][2] == 1 and gains_of(volumes[:1])[1][2] > 1


@pytest.mark.parametrize("layer", ["chebyshev", "spectral", "convolution", "e3-sh", "concat-so3"])
def test_every_network_takes_gains_and_1_changes_nothing(layer):
    shells = torch.rand(1, 4, 4, 4, 2, 15)
    plain = build_network(Architecture(layer=layer, **SMALL), 2, 1, seed=0).eval()
    made = {}
    for name, own in {"one": (1.0, 1.0, 1.0), "more": (1.0, 3.0, 9.0)}.items():
        architecture = Architecture(layer=layer, **SMALL, gains=((1.0, 1.0, 1.0), own))
        network = build_network(architecture, 2, 1, seed=0).eval()
        assert network.state_dict().keys() == plain.state_dict().keys()
        made[name] = network(shells)
    given = plain(shells)
    assert all(torch.equal(a, b) for a, b in zip(given, made["one"], strict=True))
    grown = shells * Equaliser(architecture.gains, 15).factor
    for a, b in zip(plain(grown), made["more"], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_gain_is_of_a_whole_order_so_that_turns_commute():
    factor = Equaliser(((1, 2, 3), (1, 4, 5)), 45).factor
    for order in range(0, 9, 2):
        own = factor[:, degrees(8) == order]
        assert (own == own[:, :1]).all()
    assert factor[:, -1].tolist() == [1, 1]  # orders without a gain
    assert Equaliser((), 45).factor is None


def test_they_are_on_the_card_and_a_model_that_is_tuned_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "preset", lambda *a: replace(make_tiny(*a), equalise=True))
    scan = make_scan((6, 5, 4))
    model = fit_to_scan(scan, make_responses(), steps=3, device="cpu").model
    gains = model.architecture.gains
    assert len(gains) == 3 and max(max(row) for row in gains) > 2
    again = ShdModel.load(model.save(tmp_path / "model"))
    assert again.architecture == model.architecture
    assert again.card["architecture"]["gains"] == [list(row) for row in gains]
    x = torch.rand(1, 4, 4, 4, 3, model.architecture.coefficients_in)
    for a, b in zip(model.network.eval()(x), again.network.eval()(x), strict=True):
        assert torch.equal(a, b)
    other = make_scan((6, 5, 4), seed=8)
    tuned = fit_to_scan(other, make_responses(), start=again, steps=3, device="cpu").model
    assert tuned.architecture.gains == gains


def test_gains_must_be_positive():
    with pytest.raises(InputError, match="not all positive"):
        Architecture(gains=((1.0, -2.0),))
