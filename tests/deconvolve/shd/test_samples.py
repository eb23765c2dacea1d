"""Patches: every voxel is reached, any step can be the first, borders repeat outside the mask."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import GRID, make_responses, make_scan

from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore, patch_rows, surround
from napari_dmri.errors import InputError


def prepared_of(**more):
    scan = make_scan(**more)
    return prepare(scan, make_responses(), others=("gm", "csf"), degree=4)


@pytest.fixture(scope="module")
def prepared():
    return prepared_of()


def store_of(*many, **more) -> PatchStore:
    store = PatchStore(("gm", "csf"), **more)
    for n, one in enumerate(many):
        store.add(one, label=f"sub-{n}")
    return store


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))


def test_a_batch_holds_what_the_loss_takes(prepared):
    store = store_of(prepared)
    batch = next(iter(FodPatches(store.volumes, 3).batches(5, [1, 2])))
    shells, signal, b0, mask, wm, others, kernel, target = batch.tensors
    assert shells.shape == (5, 3, 3, 3, 3, 45) and signal.shape == (5, 3, 3, 3, 35)
    assert b0.shape == mask.shape == (5, 3, 3, 3) and mask.dtype == torch.bool
    assert wm.shape == (35, 15) and others.shape == (35, 2) and kernel.shape == (3,)
    assert target.shape == (0,) and batch.weight == float(mask.sum())
    assert mask[:, 1, 1, 1].all()  # the middle voxel is the sample
    assert torch.allclose(others, torch.from_numpy(prepared.forward_others))


@pytest.mark.parametrize("edge", [1, 3])
def test_an_epoch_of_odd_patches_shows_each_voxel_once(prepared, edge):
    store = store_of(prepared)
    patches = FodPatches(store.volumes, edge)
    count = patches.count(4)
    seen = []
    for step in range(count):
        _, corners = patches.samples(4, [3], step)
        seen += [tuple(c + edge // 2) for c in corners]
    total = int(prepared.mask.sum())
    assert len(set(seen[:total])) == total and all(prepared.mask[v] for v in seen)


def test_even_patches_reach_every_voxel_and_stay_near_the_image(prepared):
    store = store_of(prepared)
    patches = FodPatches(store.volumes, 4, steps=120)
    seen = np.zeros(GRID, bool)
    for step in range(120):
        _, corners = patches.samples(2, [5], step)
        assert (corners >= -2).all() and (corners + 2 <= np.array(GRID)).all()
        rows, inside = patch_rows(GRID, corners, (4, 4, 4))
        seen.reshape(-1)[rows[inside]] = True
        assert prepared.mask.reshape(-1)[rows[inside]].any()
    assert seen[prepared.mask].all()


@pytest.mark.parametrize("edge", [3, 4])
def test_batches_are_the_same_for_a_key_and_from_any_step_on(prepared, edge):
    volumes = store_of(prepared, prepared_of(seed=1)).volumes
    whole = list(islice(FodPatches(volumes, edge, steps=70).batches(3, [7, 0, 1]), 70))
    rest = list(FodPatches(volumes, edge, steps=70).batches(3, [7, 0, 1], start=61))
    assert len(rest) == 9 and all(same(a, b) for a, b in zip(whole[61:], rest, strict=True))
    other = next(iter(FodPatches(volumes, edge, steps=70).batches(3, [7, 0, 2])))
    assert not same(whole[0], other)
    fixed = [next(iter(FodPatches(volumes, edge).batches(3))) for _ in range(2)]
    assert same(*fixed)


def test_subjects_take_turns(prepared):
    volumes = store_of(prepared, prepared_of(seed=1), prepared_of(grid=(5, 5, 4))).volumes
    patches = FodPatches(volumes, 3, steps=30)
    turns = np.array([patches.samples(2, [0], step)[0] for step in range(30)]).reshape(-1, 3)
    assert (np.sort(turns, 1) == [0, 1, 2]).all() and len(np.unique(turns, axis=0)) > 1


def test_beyond_the_image_its_border_repeats_outside_the_mask(prepared):
    store = store_of(prepared)
    batch = FodPatches(store.volumes, 3).draw(0, np.array([[-1, -1, -1]]))
    shells, _, _, mask, *_ = batch.tensors
    assert torch.equal(shells[0, 0, 0, 0], torch.from_numpy(prepared.coefficients[0, 0, 0]))
    assert not mask[0, 0].any() and not mask[0, :, 0].any() and not mask[0, :, :, 0].any()
    assert mask[0, 1:, 1:, 1:].all()


def test_subjects_on_disk_give_the_batches_of_memory(prepared, tmp_path):
    with store_of(prepared, on_disk=True, folder=tmp_path) as disk:
        assert len(list(tmp_path.iterdir())) == 4
        here, there = store_of(prepared).volumes, disk.volumes
        for edge in (3, 4):
            pairs = zip(
                FodPatches(here, edge, 6).batches(3, [1]),
                FodPatches(there, edge, 6).batches(3, [1]),
                strict=True,
            )
            assert all(same(a, b) for a, b in pairs)


def test_known_fods_go_along(prepared):
    target = np.random.default_rng(0).random((*GRID, 15)).astype(np.float32)
    store = PatchStore(("gm", "csf"))
    store.add(prepared, target=target)
    batch = FodPatches(store.volumes, 1).draw(0, np.array([[3, 2, 1]]))
    assert np.allclose(batch.tensors[7][0, 0, 0, 0], target[3, 2, 1])


def test_voxels_around_the_mask_look_like_the_nearest_inside(prepared):
    around = surround(prepared)
    assert np.array_equal(around.coefficients[prepared.mask], prepared.coefficients[prepared.mask])
    assert np.array_equal(around.coefficients[-1, -1, 2], prepared.coefficients[-2, -1, 2]) or (
        np.array_equal(around.coefficients[-1, -1, 2], prepared.coefficients[-1, -2, 2])
    )


def test_bad_input_is_refused_in_words(prepared):
    from dataclasses import replace

    store = PatchStore(("gm", "csf"))
    with pytest.raises(InputError, match="mask holds no voxel"):
        store.add(replace(prepared, mask=np.zeros(GRID, bool)))
    with pytest.raises(InputError, match="no response for csf"):
        store.add(replace(prepared, forward={"wm": prepared.forward["wm"],
                                             "gm": prepared.forward["gm"]}))  # fmt: skip
    with pytest.raises(InputError, match=r"expected \(7, 6, 5, 15\)"):
        store.add(prepared, target=np.zeros((*GRID, 6), np.float32))
    assert FodPatches([], 3).count(4) == 0
