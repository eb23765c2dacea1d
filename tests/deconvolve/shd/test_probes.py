"""What is looked at for a collapse holds the tissues of the whole mask, whatever the patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import make_responses, make_scan
from tests.deconvolve.shd.test_collapse import Constant

import napari_dmri
from napari_dmri.deconvolve.shd.collapse import SOME, Watch, given_facts
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.probes import VOXELS, choose_probe
from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore, surround

EDGES = (1, 3, 4, 8)


def store_of(*prepared) -> PatchStore:
    store = PatchStore(("csf",))
    for one in prepared:
        store.add(one)
    return store


@pytest.fixture(scope="module")
def subject() -> PatchStore:
    """Return a simulated subject with a whole brain's slab of tissues."""
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.io import read_scan

    name = Path(napari_dmri.__file__).parent / "sample_data" / "sub-01_ses-prismast"
    scan = read_scan(f"{name}_dwi.nii.gz", mask=f"{name}_mask.nii.gz")
    made = prepare(scan, estimate_response(scan), others=("csf",), degree=4)
    return store_of(surround(made))


def test_shares_of_tissues_do_not_depend_on_the_patches(subject):
    alone = FodPatches(subject.volumes, 1, 1)
    whole = given_facts(next(iter(alone.batches(len(subject.volumes[0].voxels)))))
    assert 0.8 < whole.white < 0.9
    for edge in EDGES:
        probe = choose_probe(FodPatches(subject.volumes, edge, 60))
        assert probe.tensors[0].shape[:2] == (-(-VOXELS // edge**3), edge)
        found = given_facts(probe)
        assert found.white == pytest.approx(whole.white, abs=0.04)
        assert found.alike < 0.1 and found.energy == pytest.approx(whole.energy, rel=0.4)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    ("white", "water", "lost"), [(1e-6, 1.0, "white matter"), (1.0, 0.0, "another tissue")]
)
def test_a_collapse_to_one_tissue_is_seen_with_all_patches(subject, edge, white, water, lost):
    watch = Watch(choose_probe(FodPatches(subject.volumes, edge, 60)), warm=0)
    assert 2 * SOME < watch.given.white < 1 - 2 * SOME
    network = Constant(white, water, follow=True)
    said = [watch.look(network, epoch) for epoch in range(1, 4)]
    assert said[-1].startswith(f"0 % of the voxels are mostly {lost}, where the shells' means")


def test_places_lie_all_along_the_mask_and_are_always_the_same(subject):
    volume = subject.volumes[0]
    numbered = replace(volume, b0=torch.arange(len(volume.b0), dtype=torch.float32))
    patches = FodPatches([numbered], 4, 60)
    first, again = (choose_probe(patches) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    b0, mask = first.tensors[2:4]
    rows = [int(own[inside][0]) for own, inside in zip(b0, mask, strict=True)]
    along = np.unravel_index(rows, volume.grid)[0]
    span = np.unravel_index(volume.voxels, volume.grid)[0]
    assert np.ptp(along) > 0.7 * np.ptp(span)
    assert len(np.unique(along // 8)) >= 6


def test_of_several_subjects_one_is_looked_at(responses):
    made = [prepare(make_scan(seed=n), responses, others=("csf",), degree=4) for n in range(2)]
    probe = choose_probe(FodPatches(store_of(*made).volumes, 3, 5), voxels=200)
    assert len(probe.tensors[0]) == 8 and probe.weight > 0


def test_a_scan_with_fewer_voxels_is_looked_at_whole():
    scan = make_scan((1, 2, 1), mask=np.ones((1, 2, 1), bool))
    prepared = prepare(scan, make_responses(), others=("csf",), degree=4)
    for edge in EDGES:
        probe = choose_probe(FodPatches(store_of(prepared).volumes, edge, 5))
        assert probe.weight > 0


@pytest.mark.parametrize("edge", [1, 8])
def test_a_network_is_asked_for_few_voxels_at_once(subject, edge):
    """Memory that is enough for a step of training is enough for a look."""
    sizes = []

    class Counted(Constant):
        def forward(self, shells):
            sizes.append(shells[..., 0, 0].numel())
            return super().forward(shells)

        def __deepcopy__(self, _):
            return self

    Watch(choose_probe(FodPatches(subject.volumes, edge, 60)), warm=0).look(Counted(1.0, 0.5), 1)
    assert max(sizes) <= 512 and sum(sizes) == VOXELS
