"""What is kept of a scan around its mask is all that a network is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import make_scan, make_tiny

from napari_dmri.deconvolve.shd import tiles
from napari_dmri.deconvolve.shd.apply import shd
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.predict import predict_network
from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore, surround
from napari_dmri.deconvolve.shd.tiles import around, reach
from napari_dmri.errors import InputError

GRID = (30, 27, 8)

PRESETS = {
    "tiles": make_tiny("shd-s-tv"),
    "tiles of 8": replace(
        make_tiny("shd-s-tv"),
        architecture=replace(make_tiny("shd-s-tv").architecture, patch=8, depth=3),
    ),
    "windows": replace(
        make_tiny("shd-s-tv"),
        architecture=replace(make_tiny("shd-s-tv").architecture, patch=8, border="zeros"),
    ),
    "patches": make_tiny("shd-tv"),
    "voxels": make_tiny("esd"),
}


@pytest.fixture(scope="module")
def wide():
    """A scan with a small mask, near one border of a wide field of view and far from others."""
    mask = np.zeros(GRID, bool)
    mask[13:19, 2:7, 1:7] = True
    mask[14, 3, 2] = mask[13, 2:4] = False
    return make_scan(GRID, mask=mask)


def both(scan, responses, chosen, margin=None):
    made = chosen.architecture
    margin = reach(made) if margin is None else margin
    given = {"others": ("csf",), "degree": made.degree}
    return [prepare(scan, responses, margin=m, **given) for m in (None, margin)]


def test_a_box_holds_a_mask_and_its_margin():
    mask = np.zeros((9, 5, 4), bool)
    mask[3:5, 1, 3] = True
    assert around(mask, 0) == (slice(3, 5), slice(1, 2), slice(3, 4))
    assert around(mask, 2) == (slice(1, 7), slice(0, 4), slice(1, 4))


def test_memory_is_that_of_the_masks_box(wide, responses, monkeypatch):
    from napari_dmri import device

    whole, part = both(wide, responses, PRESETS["patches"])
    assert part.grid == whole.grid == GRID and part.box == around(wide.mask, 3)
    assert part.coefficients.shape[:3] == part.signal.shape[:3] == (12, 10, 8)
    assert whole.coefficients.shape[:3] == GRID
    assert np.array_equal(part.mask, whole.mask) and part.notes == whole.notes
    for name in ("coefficients", "signal"):
        given = getattr(whole, name)[part.box]
        np.testing.assert_allclose(getattr(part, name), given, rtol=1e-5, atol=1e-6)
    # A machine with room for the box alone takes the scan, if it knows the mask.
    free = part.coefficients.nbytes + part.signal.nbytes
    monkeypatch.setattr(device, "free_memory", lambda *_: free)
    prepare(wide, responses, others=("csf",), degree=4, margin=3)
    with pytest.raises(InputError, match=r"all voxels \(30 x 27 x 8\).*give a mask of the brain"):
        prepare(wide.with_mask(None), responses, others=("csf",), degree=4, margin=3)
    with pytest.raises(InputError, match=r"the voxels around its mask.*close other programs"):
        prepare(wide, responses, others=("csf",), degree=4, margin=9)


@pytest.mark.parametrize("kind", PRESETS)
def test_predictions_are_those_of_the_whole_field_of_view(wide, responses, kind):
    chosen = PRESETS[kind]
    network = build_network(chosen.architecture, 3, 1, seed=3).eval()

    def predicted(prepared, **more):
        return predict_network(
            network,
            chosen.architecture,
            surround(prepared),
            ("csf",),
            mode=chosen.mode,
            device="cpu",
            **more,
        )

    prepared = both(wide, responses, chosen)
    for more in ({}, {"region": (slice(None), slice(None), slice(4, 5)), "core": 8}):
        whole, part = (predicted(one, **more) for one in prepared)
        assert whole.coefficients.shape == part.coefficients.shape
        assert np.abs(whole.coefficients).max() > 0.1
        np.testing.assert_allclose(part.coefficients, whole.coefficients, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(part.others, whole.others, rtol=1e-4, atol=1e-5)
    if kind == "tiles of 8":
        # What is around the mask matters: without any of it fODFs are others.
        bare = predicted(both(wide, responses, chosen, margin=0)[1])
        whole = predicted(prepared[0])
        assert np.abs(bare.coefficients - whole.coefficients).max() > 1e-4


@pytest.mark.parametrize("edge", [1, 3, 4, 8])
def test_batches_are_those_of_the_whole_field_of_view(wide, responses, edge):
    chosen = PRESETS["tiles"]
    made = replace(chosen.architecture, patch=edge)
    stores = [PatchStore(("csf",)) for _ in range(2)]
    target = np.random.default_rng(0).random((*GRID, 15), np.float32)
    cut = both(wide, responses, replace(chosen, architecture=made))
    for store, one in zip(stores, cut, strict=True):
        store.add(surround(one), target=target)
    many = [list(FodPatches(s.volumes, edge, 6).batches(9, [4, 2])) for s in stores]
    assert stores[1].volumes[0].nbytes < stores[0].volumes[0].nbytes
    for a, b in zip(*many, strict=True):
        assert a.weight == b.weight > 0
        for x, y in zip(a.tensors, b.tensors, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_files_of_either_order_are_cut_alike(wide, responses, order):
    from napari_dmri.scan import Scan

    data = np.array(wide.data, order=order)
    scan = Scan(data, wide.affine, wide.gradients, mask=wide.mask, name="sub-01")
    whole, part = both(scan, responses, PRESETS["tiles"])
    np.testing.assert_allclose(part.signal, whole.signal[part.box], rtol=1e-6)
    np.testing.assert_allclose(part.b0[part.box], whole.b0[part.box], rtol=1e-6)


def test_a_model_gives_the_same_fods_maps_and_warnings(wide, responses, monkeypatch):
    model = ShdModel.new(PRESETS["tiles of 8"], others=("csf",), bvalues=(0, 1000, 3000))
    data = np.array(wide.data)
    data[0, 0, 0, 3] = data[16, 4, 3, 2] = np.nan
    broken = replace(wide, data=data)
    given = {"method": "shd-s-tv", "model": model, "device": "cpu"}
    with pytest.warns(match="1 voxels hold NaN or Inf"):
        part = shd(broken, responses, **given)
    monkeypatch.setattr(tiles, "reach", lambda made: 1000)
    with pytest.warns(match="1 voxels hold NaN or Inf"):
        whole = shd(broken, responses, **given)
    assert part.fod.shape == (*GRID, 15) and part.voxels == whole.voxels == wide.mask.sum() - 1
    np.testing.assert_allclose(part.fod.coefficients, whole.fod.coefficients, rtol=1e-4, atol=1e-5)
    for name in ("residual", "csf"):
        np.testing.assert_allclose(
            part.maps[name].data, whole.maps[name].data, rtol=1e-4, atol=1e-5
        )
    some = np.zeros(GRID, bool)
    some[15:17, 3:5, 3:6] = True
    few = shd(wide, responses, mask=some, **given)
    assert few.voxels == 12 and few.maps["residual"].data[some].all()


def test_a_fit_learns_the_same(wide, responses, monkeypatch):
    from napari_dmri.deconvolve.shd import presets
    from napari_dmri.deconvolve.shd.fit import fit_to_scan

    monkeypatch.setattr(presets, "preset", make_tiny)
    shown = []
    more = {"others": ("csf",), "device": "cpu", "on_preview": shown.append, "preview_every": 0.0}
    part = fit_to_scan(wide, responses, **more)
    monkeypatch.setattr(tiles, "reach", lambda made: 1000)
    whole = fit_to_scan(wide, responses, **more)
    np.testing.assert_allclose(
        part.deconvolution.fod.coefficients,
        whole.deconvolution.fod.coefficients,
        rtol=1e-2,
        atol=1e-3,
    )
    losses = [[e["train"] for e in one.curves[1:]] for one in (part, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    for preview in shown:
        assert preview.coefficients.shape[:2] == (30, 27)


def test_tiles_are_as_large_as_memory_allows() -> None:
    small = PRESETS["tiles of 8"].architecture
    each, step = tiles.voxel_bytes(small), small.multiple
    cube = (200, 200, 200)
    for edge in (8, 16, 24):
        budget = each * (edge + 16) ** 3
        assert tiles.largest_edge(small, cube, 8, budget, 24) == edge
        assert tiles.largest_edge(small, cube, 8, budget - 1, 24) == max(step, edge - step)
    assert tiles.largest_edge(small, cube, 8, 1.0, 24) == step
    # A slab of 8 slices is all seen in a tile of any width.
    slab = each * (24 + 16) ** 2 * (8 + step)
    assert tiles.largest_edge(small, (200, 200, 8), 8, slab, 24) == 24
    assert tiles.largest_edge(small, cube, 8, slab, 24) < 24
