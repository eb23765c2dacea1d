"""The slice that a training shows is what the network makes of it; looking changes nothing."""

import warnings

import numpy as np
import pytest
import torch

from napari_dmri import DmriWarning
from napari_dmri.harmonize import networks
from napari_dmri.harmonize.learned import GolkovHarmonizer, SHResNetHarmonizer
from napari_dmri.harmonize.learned_preview import Slices, previewing
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.training import Stage, Store
from napari_dmri.training.parts import Event

from .conftest import DIRECTIONS, subject_pair

ORDER, GRID = 4, (9, 8, 7)


@pytest.fixture
def store():
    rng = np.random.default_rng(3)
    where = np.zeros(GRID, bool)
    where[2:7, 1:6, 4] = where[3:5, 3, 2] = True
    values = rng.normal(0, 0.1, (*GRID, 15)).astype(np.float32)
    design = design_matrix(DIRECTIONS, ORDER).astype(np.float32)
    with Store(15, 34) as held:
        held.add("sub-01", values, where, values[where] @ design.T + 0.1, design)
        yield held, values, where, design


def shaken(name, **settings):
    """Return a network with random weights: at its beginning SHResNet changes nothing."""
    network = networks.build(name, ORDER, seed=1, **settings)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return network


@pytest.mark.parametrize(
    ("name", "settings"),
    [("shresnet", {"mode": "paper"}), ("shresnet", {"mode": "tiled"}), ("golkov", {})],
)
def test_the_slice_is_that_of_the_whole_volume(store, name, settings):
    held, values, where, design = store
    network = shaken(name, **settings)
    shown = Slices(held).predict(network.train(), 3, "cpu")
    assert network.training, "a training goes on in its own mode"
    assert (shown.index, shown.epoch, shown.subject) == (4, 3, "sub-01")
    whole = networks.predict(network.eval(), values, device="cpu")[:, :, 4] @ design.T
    inside = where[:, :, 4]
    np.testing.assert_allclose(shown.prediction[inside], whole[inside].mean(1), atol=1e-5)
    assert np.isnan(shown.prediction[~inside]).all()
    target = values[:, :, 4] @ design.T + 0.1
    np.testing.assert_allclose(shown.target[inside], target[inside].mean(1), atol=1e-6)
    error = np.sqrt(((whole - target)[inside] ** 2).mean())
    np.testing.assert_allclose(shown.errors, (0.1, error), rtol=1e-4)


def test_it_goes_to_the_slice_that_is_asked_for(store):
    held, values, where, design = store
    # 2 mm voxels, the first at (-10, 5, 30): what is asked for is in millimetres.
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-10, 5, 30)
    shown = Slices(held, affine)
    assert (shown.axis, shown.index) == (2, 4) and not shown.move(None)
    assert not shown.move((2, 30 + 2 * 4.3))
    assert shown.move((2, 30 + 2 * 1.2)) and shown.index == 2, "the nearest that is learned from"
    assert shown.move((1, 5 + 2 * 3)) and (shown.axis, shown.index) == (1, 3)
    network = shaken("shresnet", mode="tiled")
    made = shown.predict(network, 2, "cpu", whole=False)
    assert (made.axis, made.spacing, made.whole) == (1, (2.0, 2.0), False)
    whole = networks.predict(network.eval(), values, device="cpu")[:, 3] @ design.T
    inside = where[:, 3]
    np.testing.assert_allclose(made.prediction[inside], whole[inside].mean(1), atol=1e-5)
    target = values[:, 3] @ design.T + 0.1
    np.testing.assert_allclose(made.target[inside], target[inside].mean(1), atol=1e-6)


def test_within_an_epoch_it_is_shown_only_when_another_slice_is_asked_for(store):
    held, *_ = store
    wanted, seen = [(2, 4.0)], []
    listen = previewing(
        held, shaken("golkov"), "cpu", seen.append, None, affine=None, at=lambda: wanted[0]
    )
    for kind, epoch in (("start", 0), ("step", 1), ("step", 1), ("epoch", 1)):
        listen(Event(kind, 1, epoch, 1, 9))
        wanted[0] = (0, 3.0) if kind == "step" else wanted[0]
    assert [(p.axis, p.epoch, p.whole) for p in seen] == [(2, 0, True), (0, 1, False), (0, 1, True)]


def test_a_slice_that_is_asked_for_while_it_waits_is_shown_once(store):
    held, *_ = store
    wanted, seen = [(2, 4.0)], []
    listen = previewing(
        held, shaken("golkov"), "cpu", seen.append, None, affine=None, at=lambda: wanted[0]
    )
    for place in ((2, 4.0), (0, 3.0), (0, 3.0), (2, 4.0)):
        wanted[0] = place
        listen(Event("pause", 1, 1, 1, 9))
    assert [p.axis for p in seen] == [0, 2]


@pytest.mark.parametrize("kind", [GolkovHarmonizer, SHResNetHarmonizer])
def test_looking_changes_no_bit_of_what_is_learned(kind):
    stages = [Stage("adam", 1e-3, 256, 1)]
    seen, models = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        for look in (seen.append, None):
            model = kind(stages=stages).fit([subject_pair(1)], device="cpu", on_preview=look)
            models.append(networks.to_tensors(model.network))
    assert [preview.epoch for preview in seen] == [0, 1]
    for name, weights in models[0].items():
        np.testing.assert_array_equal(weights, models[1][name])
