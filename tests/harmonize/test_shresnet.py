"""SHResNet: the identity at the start, and the same function however it is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_dmri import InputError
from napari_dmri.errors import Cancelled
from napari_dmri.harmonize import networks, shresnet_tiles
from napari_dmri.sphere.harmonics import n_coefficients
from napari_dmri.training import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from napari_dmri.harmonize.shresnet import SHResNet

BLOCKS = (1, 2, 3, 6, 7, 9, 11)


def trained(order: int = 4, size: float = 0.02, **settings: object) -> SHResNet:
    """Return a network whose weights are far from those it starts with."""
    network = networks.build("shresnet", order, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(size * torch.randn(weights.shape, generator=generator))
    return network.eval()


def as_written(network: SHResNet, patches: torch.Tensor, padding: int) -> torch.Tensor:
    """Compute the network as the paper words it, one convolution after the other."""

    def conv(layer: torch.nn.Conv3d, x: torch.Tensor, pad: int = padding) -> torch.Tensor:
        return functional.conv3d(x, layer.weight, layer.bias, padding=pad, groups=layer.groups)

    def cut(x: torch.Tensor, margin: int) -> torch.Tensor:
        return x if padding else shresnet_tiles.crop(x, margin)

    p = conv(network.pre, patches)
    y = p
    for block in network.blocks:
        hidden = torch.relu(conv(block.second, torch.relu(conv(block.first, y))))
        residual = torch.cat(
            [
                functional.conv3d(
                    branch, block.third.weight[part], block.third.bias[part], padding=padding
                )
                for branch, part in zip(hidden.chunk(len(block.parts), 1), block.parts, strict=True)
            ],
            1,
        )
        y = cut(y, 3) - residual
    z = conv(network.post, y) - cut(p, 1 + 3 * len(network.blocks))
    if network.extra is not None:
        z = torch.relu(conv(network.extra, z))
    return conv(network.final, z, 0)


def volume(shape: tuple[int, int, int], order: int = 4, seed: int = 0) -> np.ndarray:
    """Return coefficients as large as those of S/b0: about 1.5, then about 0.15."""
    values = 0.15 * np.random.default_rng(seed).normal(size=(*shape, n_coefficients(order)))
    values[..., 0] += 1.5
    return values.astype(np.float32)


def some_patches(count: int, order: int = 4) -> torch.Tensor:
    return torch.from_numpy(volume((count, 3, 9), order)).reshape(count, 3, 3, 3, -1).movedim(-1, 1)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("order", [0, 2, 4, 6, 8])
def test_an_untrained_network_is_the_identity(order: int, blocks: int) -> None:
    network = networks.build("shresnet", order, blocks=blocks, seed=blocks)
    patches = torch.randn(3, n_coefficients(order), 3, 3, 3)
    assert torch.equal(network(patches), patches[:, :, 1, 1, 1])
    if blocks == 1 or (order == 4 and blocks == 2):
        tiles = networks.build("shresnet", order, blocks=blocks, mode="tiled")
        edge = networks.patch_size(tiles, 2)
        x = torch.randn(1, n_coefficients(order), edge, edge, edge)
        assert torch.equal(tiles(x), shresnet_tiles.crop(x, tiles.halo))


@pytest.mark.parametrize("mode", ["paper", "tiled"])
def test_two_final_layers_start_as_the_identity_and_are_computed_as_written(mode: str) -> None:
    settings = {"blocks": 1, "hidden": 6, "mode": mode, "final_layers": 2}
    network = networks.build("shresnet", 4, **settings)
    edge = networks.patch_size(network, 2)
    assert networks.halo(network) == (1 if mode == "paper" else 7)
    x = torch.randn(3, 15, edge, edge, edge)
    inner = shresnet_tiles.crop(x, network.halo)
    assert torch.equal(network(x), inner[..., 0, 0, 0] if mode == "paper" else inner)
    network = trained(**settings)
    padding = 1 if mode == "paper" else 0
    with torch.no_grad():
        expected = as_written(network.double(), x.double(), padding)
        found = network(x.double())
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=0, atol=1e-12)
    assert float((found - inner.reshape(found.shape)).abs().max()) > 0.01
    values = volume((9, 5, 4))
    tensors = networks.to_tensors(network.float())
    again = networks.from_tensors("shresnet", networks.settings(network), tensors)
    a, b = (networks.predict(n, values, device="cpu") for n in (network, again))
    np.testing.assert_array_equal(a, b)
    gradients = []
    for compute in (network, lambda v: as_written(network, v, padding)):
        network.zero_grad()
        (compute(x) ** 2).sum().backward()
        gradients.append(network.extra.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="3 final layers; SHResNet takes 1 or 2"):
        networks.build("shresnet", 4, final_layers=3)


def test_number_of_parameters() -> None:
    def count(**settings: int) -> int:
        network = networks.build("shresnet", settings.pop("order", 4), **settings)
        return sum(p.numel() for p in network.parameters())

    outer, block = 3 * (15 * 15 * 27 + 15), 7 * 15 * 15 * 27 + 2 * 45 + 15
    assert [count(blocks=n) for n in BLOCKS] == [outer + n * block for n in BLOCKS]
    assert count(blocks=1, hidden=20) == outer + 27 * (15 * 60 + 3 * 400 + 20 * 15) + 2 * 60 + 15
    assert count(order=0, blocks=1, hidden=4) == 3 * 28 + 27 * (4 + 16 + 4) + 9
    assert [
        networks.halo(networks.build("shresnet", 4, blocks=n, mode="tiled")) for n in (1, 2)
    ] == [6, 9]


@pytest.mark.parametrize(("order", "blocks"), [(0, 1), (2, 2), (4, 1), (4, 2), (4, 6), (8, 2)])
def test_patches_are_computed_as_written(order: int, blocks: int) -> None:
    network = trained(order, blocks=blocks, size=0.01 if blocks == 6 else 0.02)
    patches = some_patches(10, order)
    with torch.no_grad():
        found = network(patches)
        alone = torch.cat([network(patch[None]) for patch in patches])
        written = as_written(network, patches, padding=1)[:, :, 0, 0, 0]
        network, patches = network.double(), patches.double()
        expected = as_written(network, patches, padding=1)[:, :, 0, 0, 0]
        exact = network(patches)
    assert float((expected - patches[:, :, 1, 1, 1]).abs().max()) > 0.01
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-12)
    assert relative(found, alone) < 1e-6
    # Rounding alone: no farther from the sums in double precision than the network as written.
    assert relative(found, expected) < 2 * relative(written, expected) + 1e-7
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_gradients_are_those_of_the_network_as_written() -> None:
    patches = some_patches(8)
    gradients = []
    for compute in (lambda n: n(patches), lambda n: as_written(n, patches, 1)[:, :, 0, 0, 0]):
        network = trained()
        (compute(network) ** 2).mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 * float(theirs.abs().max() + 1))


def test_paper_mode_over_a_volume_equals_patch_by_patch() -> None:
    network = trained()
    values = volume((7, 6, 5))
    mask = np.random.default_rng(1).random((7, 6, 5)) > 0.4
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    found = networks.predict(network, values, mask, device="cpu")
    filled = np.pad(networks.replicate_outside(values, mask, 1), ((1, 1),) * 3 + ((0, 0),), "edge")
    alone = np.empty_like(found)
    with torch.no_grad():
        for x, y, z in np.argwhere(mask):
            patch = torch.from_numpy(filled[x : x + 3, y : y + 3, z : z + 3].copy())
            one = as_written(network, patch.permute(3, 0, 1, 2)[None], 1)
            alone[x, y, z] = one[0, :, 0, 0, 0]
    assert np.linalg.norm(found[mask] - alone[mask]) < 1e-6 * np.linalg.norm(alone[mask])
    np.testing.assert_allclose(found[mask], alone[mask], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[~mask], values[~mask])


def test_tiles_equal_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(mode="tiled", blocks=2)
    values, mask = volume((24, 11, 9)), np.ones((24, 11, 9), bool)
    mask[:3], mask[:, :2] = False, False
    whole = networks.predict(network, values, mask, device="cpu")
    filled = np.pad(networks.replicate_outside(values, mask), ((9, 9),) * 3 + ((0, 0),), "edge")
    with torch.no_grad():
        x = torch.from_numpy(filled).permute(3, 0, 1, 2)[None]
        written = as_written(network, x, 0)[0].permute(1, 2, 3, 0).numpy()
    np.testing.assert_allclose(whole[mask], written[mask], rtol=0, atol=1e-5)
    monkeypatch.setattr(shresnet_tiles, "TILE_BYTES", 2**20)
    told: list[str] = []
    tiled = networks.predict(
        network, values, mask, device="cpu", progress=lambda _, text: told.append(text)
    )
    assert any("of" in text for text in told) and len({t for t in told if "of" in t}) > 3
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(tiled[~mask], values[~mask])


MODES = ("paper", "tiled")


@pytest.mark.parametrize("mode", MODES)
def test_no_network_is_run_with_tf32(mode: str) -> None:
    seen = set()
    network = trained(mode=mode, blocks=1)

    def progress(fraction: float, text: str) -> None:
        seen.add(torch.backends.cudnn.conv.fp32_precision)

    networks.predict(network, volume((6, 5, 4)), device="cpu", progress=progress)
    assert seen == {"ieee"} and torch.backends.cudnn.conv.fp32_precision == "tf32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to compare with")
@pytest.mark.parametrize("mode", MODES)
def test_a_cuda_device_gives_what_the_cpu_gives(mode: str) -> None:
    network, values = trained(mode=mode, blocks=2), volume((24, 20, 16))
    mask = np.random.default_rng(1).random(values.shape[:3]) > 0.3
    cpu, cuda = (networks.predict(network, values, mask, device=d) for d in ("cpu", "cuda"))
    # TF32 would make this some 1e-4.
    assert np.linalg.norm(cuda[mask] - cpu[mask]) < 5e-6 * np.linalg.norm(cpu[mask])


def test_the_modes_differ_once_trained() -> None:
    values = volume((8, 8, 8))
    paper, tiled = (
        networks.predict(trained(mode=mode, blocks=1), values, device="cpu")
        for mode in ("paper", "tiled")
    )
    assert np.abs(paper - tiled).max() > 0.01


@pytest.mark.parametrize("mode", ["paper", "tiled"])
def test_what_lies_outside_the_mask_does_not_matter(mode: str) -> None:
    network = trained(mode=mode, blocks=1)
    values, mask = volume((9, 8, 7)), np.zeros((9, 8, 7), bool)
    mask[2:7, 2:6, 1:6] = True
    inside = networks.predict(network, values, mask, device="cpu")[mask]
    values[~mask] = np.nan
    np.testing.assert_array_equal(
        networks.predict(network, values, mask, device="cpu")[mask], inside
    )


def test_cancel_stops_soon_and_changes_nothing() -> None:
    network = trained(mode="tiled")
    values = volume((40, 30, 20))
    before = values.copy()
    calls: list[float] = []

    def stop(fraction: float, text: str) -> None:
        calls.append(fraction)
        if len(calls) == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        networks.predict(network, values, device="cpu", progress=stop)
    assert len(calls) == 8
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("mode", ["paper", "tiled"])
def test_saved_and_read_again_it_gives_the_same_bits(mode: str, tmp_path: Path) -> None:
    network = trained(mode=mode, blocks=1, hidden=6)
    card = {"kind": "harmonizer", "network": networks.settings(network)}
    path = save_checkpoint(tmp_path / "model", networks.to_tensors(network), card)
    tensors, card = load_checkpoint(path, kind="harmonizer")
    again = networks.from_tensors("shresnet", card["network"], tensors)
    assert networks.mode(again) == mode
    values = volume((6, 5, 4))
    first, second = (networks.predict(n, values, device="cpu") for n in (network, again))
    np.testing.assert_array_equal(first, second)


def test_a_seed_gives_the_same_weights() -> None:
    first, same, other = (
        networks.to_tensors(networks.build("shresnet", 4, seed=s)) for s in (3, 3, 4)
    )
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["blocks.0.first.weight"], other["blocks.0.first.weight"])


def test_bad_settings_are_refused_in_words() -> None:
    with pytest.raises(InputError, match="Unknown network 'unet'; choose one of shresnet, golkov"):
        networks.build("unet", 4)
    with pytest.raises(InputError, match="order is 3"):
        networks.build("shresnet", 3)
    with pytest.raises(InputError, match="order is 10; SHResNet takes 0 to 8"):
        networks.build("shresnet", 10)
    with pytest.raises(InputError, match="0 blocks with 15 hidden"):
        networks.build("shresnet", 4, blocks=0)
    with pytest.raises(InputError, match="Unknown mode 'whole'; choose one of paper, tiled"):
        networks.build("shresnet", 4, mode="whole")
    with pytest.raises(InputError, match="settings width do not fit SHResNet, which takes order"):
        networks.build("shresnet", 4, width=3)


def test_bad_data_are_refused_in_words() -> None:
    network, values = trained(blocks=1), volume((4, 4, 4))
    with pytest.raises(InputError, match=r"order 4 takes \(x, y, z, 15\)"):
        networks.predict(network, volume((4, 4, 4), order=2))
    with pytest.raises(InputError, match=r"mask has shape \(4, 4, 5\)"):
        networks.predict(network, values, np.ones((4, 4, 5)))
    with pytest.raises(InputError, match="mask holds no voxel"):
        networks.predict(network, values, np.zeros((4, 4, 4)))
    values[1, 1, 1, 3] = np.nan
    with pytest.raises(InputError, match="1 of 64 voxels"):
        networks.predict(network, values)
    tiled = trained(mode="tiled")
    with pytest.raises(InputError, match="more than twice its halo of 9"):
        tiled(torch.zeros(1, 15, 18, 20, 20))
    with pytest.raises(InputError, match=r"expected \(B, 15, 3, 3, 3\)"):
        network(torch.zeros(2, 15, 5, 5, 5))


def test_damaged_weights_are_refused_in_words() -> None:
    network = trained(blocks=1)
    given, tensors = networks.settings(network), networks.to_tensors(network)
    with pytest.raises(InputError, match=r"'pre.weight' should have shape \(15, 15, 3, 3, 3\)"):
        networks.from_tensors("shresnet", given, {**tensors, "pre.weight": np.zeros((3, 3))})
    missing = {name: value for name, value in tensors.items() if name != "post.bias"}
    with pytest.raises(InputError, match=r"'post.bias' should have shape .* holds nothing"):
        networks.from_tensors("shresnet", given, missing)
    with pytest.raises(InputError, match="15 values that are not finite"):
        networks.from_tensors("shresnet", given, {**tensors, "pre.bias": np.full(15, np.nan)})
