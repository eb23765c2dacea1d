"""The voxel-wise network: its size, its start, and whole volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_dmri import InputError
from napari_dmri.harmonize import networks
from napari_dmri.training import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_three_layers_of_150() -> None:
    network = networks.build("golkov", 4)
    count = sum(p.numel() for p in network.parameters())
    assert count == 15 * 150 + 150 + 2 * (150 * 150 + 150) + 150 * 15 + 15
    assert networks.halo(network) == 0 and networks.patch_size(network) == 1
    assert networks.mode(network) == "voxel"


@pytest.mark.parametrize("order", [0, 2, 4, 8])
def test_residual_starts_as_the_identity_and_the_published_form_does_not(order: int) -> None:
    voxels = torch.randn(50, (order + 1) * (order + 2) // 2)
    residual = networks.build("golkov", order, residual=True).eval()
    assert torch.equal(residual(voxels), voxels)
    published = networks.build("golkov", order).eval()
    assert not torch.allclose(published(voxels), voxels, atol=0.1)


def test_dropout_acts_in_training_alone() -> None:
    network = networks.build("golkov", 4, dropout=0.5)
    voxels = torch.randn(20, 15)
    assert not torch.equal(network(voxels), network(voxels))
    volume = voxels.numpy().reshape(5, 2, 2, 15)
    first, second = (networks.predict(network, volume, device="cpu") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert network.training


def test_a_volume_is_its_voxels() -> None:
    network = networks.build("golkov", 2, seed=1).eval()
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 5, 4, 6)).astype(np.float32)
    mask = rng.random((6, 5, 4)) > 0.5
    found = networks.predict(network, np.asfortranarray(values), mask, device="cpu")
    with torch.no_grad():
        alone = torch.stack([network(v[None])[0] for v in torch.from_numpy(values[mask])])
    np.testing.assert_allclose(found[mask], alone, atol=1e-6)
    np.testing.assert_array_equal(found[~mask], values[~mask])


def test_saved_and_read_again_it_gives_the_same_bits(tmp_path: Path) -> None:
    network = networks.build("golkov", 4, hidden=20, residual=True, seed=5)
    with torch.no_grad():
        network.last.weight.normal_()
    card = {"kind": "harmonizer", "network": networks.settings(network)}
    path = save_checkpoint(tmp_path / "golkov", networks.to_tensors(network), card)
    tensors, card = load_checkpoint(path)
    again = networks.from_tensors("golkov", card["network"], tensors)
    values = np.random.default_rng(0).normal(size=(3, 3, 3, 15)).astype(np.float32)
    first, second = (networks.predict(n, values, device="cpu") for n in (network, again))
    np.testing.assert_array_equal(first, second)


def test_bad_settings_are_refused_in_words() -> None:
    for settings, words in (
        ({"dropout": 1.0}, "dropout is 1; it must be in"),
        ({"hidden": 0}, "0 units; at least 1"),
        ({"mode": "paper"}, "no mode 'paper'; it is voxel-wise"),
        ({"blocks": 2}, "settings blocks do not fit Golkov"),
    ):
        with pytest.raises(InputError, match=words):
            networks.build("golkov", 4, **settings)
    with pytest.raises(InputError, match="order is 12; these networks take 0 to 8"):
        networks.build("golkov", 12)
