"""Prediction: voxel by voxel and by tiles, borders, small volumes, memory, cancelling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import GRID, make_responses, make_scan

from napari_dmri.deconvolve.shd import predict as module
from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.predict import predict_network
from napari_dmri.errors import Cancelled, InputError

SMALL = {"n_side": 2, "degree": 4, "depth": 2, "filters": 4}
PATCHES = Architecture(patch=3, **SMALL)
WHOLE = replace(PATCHES, hemisphere=False, full_head=True)
TILES = Architecture(layer="spectral", patch=4, **SMALL)
CONVOLVED = Architecture(layer="convolution", patch=4, **SMALL)
REPEATED = Architecture(layer="spectral", patch=4, border="repeat", **SMALL)


@pytest.fixture(scope="module")
def prepared():
    return prepare(make_scan(), make_responses(), others=("csf",), degree=4)


@pytest.fixture(scope="module")
def large():
    return prepare(make_scan((20, 18, 6)), make_responses(), others=("csf",), degree=4)


def network_of(architecture: Architecture):
    """Make a network that has seen something, so that its batch norm does something."""
    network = build_network(architecture, 3, 1, seed=1).train()
    edge = architecture.patch
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        network(torch.randn(4, edge, edge, edge, 3, 45, generator=generator))
    return network


def run(architecture, prepared, mode, **more):
    network = network_of(architecture)
    return predict_network(network, architecture, prepared, ("csf",), mode=mode, device="cpu",
                           **more)  # fmt: skip


def test_each_voxel_of_the_mask_is_predicted_at_the_borders_too(prepared):
    for made, mode in ((PATCHES, "paper"), (TILES, "tiled")):
        found = run(made, prepared, mode)
        assert found.coefficients.shape == (*GRID, 15) and found.others.shape == (*GRID, 1)
        assert found.coefficients.dtype == found.others.dtype == np.float32
        there = (found.coefficients != 0).any(-1)
        assert np.array_equal(there, prepared.mask)
        assert np.isfinite(found.coefficients).all() and (found.others >= 0).all()


def test_predicted_b0_is_the_measured_one(prepared):
    found = run(TILES, prepared, "tiled")
    kernel = prepared.kernel
    b0 = found.coefficients[..., 0] * kernel["wm"] + found.others[..., 0] * kernel["csf"]
    assert np.allclose(b0[prepared.mask], prepared.b0[prepared.mask], rtol=1e-4)


@pytest.mark.parametrize("made", [PATCHES, WHOLE])
def test_patches_keep_their_middle_voxel(prepared, made):
    network = network_of(made)
    found = predict_network(network, made, prepared, ("csf",), mode="paper", device="cpu")
    block = prepared.coefficients[2:5, 1:4, 1:4][None]
    with torch.inference_mode():
        fod, _ = network.eval()(torch.from_numpy(np.ascontiguousarray(block)))
    ours, theirs = found.coefficients[3, 2, 2], fod[0, 1, 1, 1].numpy()
    assert np.allclose(ours / ours[0], theirs / theirs[0], atol=1e-4)


@pytest.mark.parametrize("made", [TILES, REPEATED])
def test_tiles_agree_with_one_piece_where_the_halo_is_wide_and_nearly_else(large, made):
    network = network_of(made)
    args = (network, made, large, ("csf",))
    whole = predict_network(*args, mode="tiled", device="cpu", tile=64).coefficients
    assert whole.any()
    wide = predict_network(*args, mode="tiled", device="cpu", tile=8, halo=24).coefficients
    assert np.allclose(wide, whole, atol=1e-5)
    narrow = predict_network(*args, mode="tiled", device="cpu", tile=8, halo=8).coefficients
    error = np.linalg.norm(narrow - whole, axis=-1)[large.mask]
    assert np.median(error) <= 0.02 * np.median(np.linalg.norm(whole, axis=-1)[large.mask])


def test_with_zeros_beyond_tiles_those_of_training_are_used_and_their_inner_half_kept(large):
    network = network_of(TILES)
    found = predict_network(network, TILES, large, ("csf",), mode="tiled", device="cpu")
    block = large.coefficients[3:7, 5:9, 1:5][None]
    with torch.inference_mode():
        fod, _ = network.eval()(torch.from_numpy(np.ascontiguousarray(block)))
    ours, theirs = found.coefficients[4:6, 6:8, 2:4], fod[0, 1:3, 1:3, 1:3].numpy()
    assert np.allclose(ours / ours[..., :1], theirs / theirs[..., :1], atol=1e-4)
    # All of each is kept where speed counts more.
    quick = predict_network(network, TILES, large, ("csf",), mode="tiled", device="cpu", core=4)
    assert ((quick.coefficients != 0).any(-1) == large.mask).all()


def test_where_voxels_repeat_the_usual_tiles_are_large_ones(large):
    network = network_of(REPEATED)
    args = (network, REPEATED, large, ("csf",))
    usual = predict_network(*args, mode="tiled", device="cpu").coefficients
    piece = predict_network(*args, mode="tiled", device="cpu", tile=64).coefficients
    assert np.allclose(usual, piece, atol=1e-5)


def test_a_region_is_that_part_of_the_whole(large):
    box = (slice(4, 9), slice(None), slice(2, 3))
    for made, mode, more in (
        (PATCHES, "paper", {}),
        (TILES, "tiled", {}),
        (TILES, "tiled", {"halo": 24}),
    ):
        whole = run(made, large, mode, **more)
        part = run(made, large, mode, region=box, **more)
        assert part.coefficients.shape == (5, 18, 1, 15)
        assert np.allclose(part.coefficients, whole.coefficients[box], atol=1e-5)
        assert np.allclose(part.others, whole.others[box], atol=1e-5)


def test_a_prediction_is_repeatable_and_leaves_the_network_alone(prepared):
    network = network_of(TILES)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    before = torch.get_rng_state()
    runs = [
        predict_network(network, TILES, prepared, ("csf",), mode="tiled", device="cpu")
        for _ in range(2)
    ]
    assert np.array_equal(runs[0].coefficients, runs[1].coefficients)
    assert network.training and torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_a_volume_smaller_than_a_tile_is_padded():
    tiny = prepare(make_scan((2, 1, 1)), make_responses(), others=("csf",), degree=4,
                   mask=np.ones((2, 1, 1), bool))  # fmt: skip
    for made, mode in ((PATCHES, "paper"), (TILES, "tiled")):
        assert (run(made, tiny, mode).coefficients[..., 0] > 0).all()


def test_tiles_without_mask_are_skipped_and_others_trimmed(large):
    mask = np.zeros_like(large.mask)
    mask[2, 3, 1] = mask[17, 16, 4] = True
    shapes = []

    class Spy(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            shapes.append(tuple(x.shape[1:4]))
            return self.inner(x)

    network = Spy(network_of(TILES))
    predict_network(network, TILES, replace(large, mask=mask), ("csf",), mode="tiled",
                    device="cpu", tile=8, halo=2)  # fmt: skip
    assert len(shapes) == 2 and all(max(s) <= 8 for s in shapes)


class Small(torch.nn.Module):
    """Run out of memory above so many voxels."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x):
        if int(np.prod(x.shape[:4])) > self.most:
            raise MemoryError("can't allocate")
        return self.inner(x)


def test_memory_that_runs_out_halves_the_tile_and_says_so(large):
    network = network_of(TILES)
    args = (TILES, large, ("csf",))
    expected = predict_network(network, *args, mode="tiled", device="cpu", halo=24)
    found = predict_network(Small(network, 1500), *args, mode="tiled", device="cpu", halo=4)
    assert any("Memory ran out on cpu" in note and "halved" in note for note in found.notes)
    error = np.abs(found.coefficients - expected.coefficients)
    assert np.median(error) < 0.02 * np.abs(expected.coefficients[..., 0]).max()
    with pytest.raises(InputError, match=r"Out of memory on cpu: the smallest tile needs"):
        predict_network(Small(network, 1), *args, mode="tiled", device="cpu", halo=4)
    usual = predict_network(network, *args, mode="tiled", device="cpu")
    halved = predict_network(Small(network, 64 * 5), *args, mode="tiled", device="cpu")
    assert np.allclose(usual.coefficients, halved.coefficients, atol=1e-5)
    assert any("Memory ran out on cpu for 64 tiles at once" in note for note in halved.notes)
    with pytest.raises(InputError, match="Out of memory on cpu"):
        predict_network(Small(network, 1), *args, mode="tiled", device="cpu")
    patches = predict_network(
        Small(network_of(PATCHES), 27 * 8), PATCHES, large, ("csf",), mode="paper", device="cpu"
    )
    assert ((patches.coefficients != 0).any(-1) == large.mask).all()


def test_cancelling_takes_effect_between_layers(prepared, monkeypatch):
    monkeypatch.setattr(module, "CHECK", 0.0)
    calls = []

    def progress(fraction, text):
        calls.append(text)
        if len(calls) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(TILES, prepared, "tiled", progress=progress)
    assert len(set(calls)) == 1  # the first tile was not over yet


def test_no_network_is_run_with_tf32(prepared):
    seen = set()

    def progress(fraction, text):
        seen.add((text, torch.backends.cudnn.conv.fp32_precision))

    run(TILES, prepared, "tiled", progress=progress)
    at_work = {precision for text, precision in seen if text != "predicted"}
    assert at_work == {"ieee"} and torch.backends.cudnn.conv.fp32_precision == "tf32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to compare with")
@pytest.mark.parametrize(
    ("architecture", "mode"), [(PATCHES, "paper"), (TILES, "tiled"), (CONVOLVED, "tiled")]
)
def test_a_cuda_device_gives_what_the_cpu_gives(prepared, architecture, mode):
    network = network_of(architecture)
    cpu, cuda = (
        predict_network(network, architecture, prepared, ("csf",), mode=mode, device=device)
        for device in ("cpu", "cuda")
    )
    # TF32 would make this some 1e-4 and more.
    for name in ("coefficients", "others"):
        a, b = getattr(cpu, name), getattr(cuda, name)
        assert np.linalg.norm(b - a) < 1e-5 * np.linalg.norm(a)


def test_modes_that_do_not_fit_a_network_are_refused(prepared):
    with pytest.raises(InputError, match="runs in paper mode only"):
        run(PATCHES, prepared, "tiled")
    with pytest.raises(InputError, match="runs in tiled mode only"):
        run(TILES, prepared, "paper")
    with pytest.raises(InputError, match="Unknown mode 'fast'"):
        run(TILES, prepared, "fast")
    with pytest.raises(InputError, match="is not a block of a grid of 7x6x5"):
        run(TILES, prepared, "tiled", region=(slice(9, 10), slice(None), slice(None)))
