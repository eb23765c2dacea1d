"""The slice that a training shows is what the network makes of it; looking changes nothing."""

import warnings

import numpy as np
import pytest
import torch

from napari_dmri import DmriWarning
from napari_dmri.harmonize import networks
from napari_dmri.harmonize.learned import GolkovHarmonizer, SHResNetHarmonizer
from napari_dmri.harmonize.learned_preview import Slice
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.training import Stage, Store

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
    shown = Slice(held).predict(network.train(), 3, "cpu")
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
