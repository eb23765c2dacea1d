"""A collapse is told apart from scans that are alike, round or pure by themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import make_responses, make_scan

from napari_dmri.deconvolve.shd.collapse import Facts, Watch, explain, facts_of
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore

USUAL = Facts(0.1, 0.5, 0.6)


def test_alike_and_round_are_measured():
    rng = np.random.default_rng(0)
    varied = np.c_[np.ones(500), rng.standard_normal((500, 5))]
    assert facts_of(varied).alike < 0.05 and facts_of(varied).energy == pytest.approx(5, rel=0.1)
    same = np.tile([2.0, 1, 0, 0, 0, 1], (20, 1))
    assert facts_of(same).alike == pytest.approx(1) and facts_of(same).energy == pytest.approx(0.5)
    fractions = facts_of(varied, np.r_[np.zeros(400), np.ones(100)])
    assert fractions.white == 0.2 and facts_of(varied).white is None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Facts(0.2, 1.0, 0.3), ""),
        (Facts(0.2, 1.0, 0.07), ""),
        (Facts(0.2, 1.0, 0.95), ""),
        (Facts(0.2, 1.0, None), ""),
        (Facts(0.2, 1e-5), "all fODFs are round"),
        (Facts(0.999, 1.0), "all voxels have the same fODF"),
        (Facts(0.2, 1.0, 0.0), "0 % of the voxels are mostly white matter"),
        (Facts(0.2, 1.0, 0.05), "5 % of the voxels are mostly white matter, where"),
        (Facts(0.2, 1.0, 0.97), "3 % of the voxels are mostly another tissue"),
        (Facts(0.2, 1.0, 1.0), "shells' means alone tell of 40 %"),
    ],
)
def test_what_collapsed_is_said(made, words):
    assert words in explain(made, USUAL) and bool(words) == bool(explain(made, USUAL))


def test_a_scan_that_is_like_that_is_no_collapse():
    assert explain(Facts(0.999, 1.0), Facts(0.99, 0.5)) == ""
    assert explain(Facts(0.2, 1e-5), Facts(0.2, 1e-4)) == ""
    assert explain(Facts(0.2, 1.0, 0.0), Facts(0.1, 0.5, 0.04)) == ""
    assert explain(Facts(0.2, 1.0, 1.0), Facts(0.1, 0.5, 0.96)) == ""
    assert explain(Facts(0.2, 1.0, 0.0), Facts(0.1, 0.5)) == ""


class Constant(torch.nn.Module):
    """Give every voxel the same answer, or one that follows its shells."""

    def __init__(self, white, water, follow=False):
        super().__init__()
        self.answer = torch.nn.Parameter(torch.tensor([white, 0.5 * white, 0.1]))
        self.water, self.follow = water, follow

    def forward(self, shells):
        fod = torch.zeros(*shells.shape[:4], 15)
        fod[..., :3] = self.answer
        if self.follow:
            fod[..., 1:6] = 5 * shells[..., -1, 1:6] * self.answer[0]
        return fod, torch.full((*shells.shape[:4], 1), self.water)


class Useful(Constant):
    """Follow the shells, and give much water where they are weak."""

    def forward(self, shells):
        fod, water = super().forward(shells)
        weak = shells[..., -1, 0] < 0.3
        return fod, torch.where(weak[..., None], 20 * water, water)


def watch_of(scan, warm=2):
    store = PatchStore(("csf",))
    store.add(prepare(scan, make_responses(), others=("csf",), degree=4))
    return Watch(next(iter(FodPatches(store.volumes, 3).batches(16))), warm)


def test_it_looks_after_a_while_and_waits_for_three_in_a_row():
    watch = watch_of(make_scan())
    assert watch.given.alike < 0.5 and 0.3 < watch.given.white < 0.9
    alike = Constant(1.0, 0.5)
    said = [watch.look(alike, epoch) for epoch in range(1, 6)]
    assert said == ["", "", "", "", "all voxels have the same fODF"]
    fine = Useful(1.0, 0.2, follow=True)
    assert not watch.look(fine, 6) and watch.memory["times"] == 0


def test_a_training_that_goes_on_after_each_epoch_is_watched_all_the_same():
    alike, memory, said = Constant(1.0, 0.5), {}, []
    for epoch in range(1, 10):
        watch = watch_of(make_scan())
        watch.memory = memory = json.loads(json.dumps(memory))
        said.append(watch.look(alike, epoch, 1.0))
    assert said == [*[""] * 4, *["all voxels have the same fODF"] * 5]


def test_a_loss_that_still_falls_is_given_time():
    watch = watch_of(make_scan())
    alike = Constant(1.0, 0.5)
    falling = [watch.look(alike, epoch, 0.9**epoch) for epoch in range(1, 10)]
    assert set(falling) == {""}
    still = [watch.look(alike, epoch, 0.9**9) for epoch in range(10, 14)]
    assert still == ["", "", "all voxels have the same fODF", "all voxels have the same fODF"]


@pytest.mark.parametrize(
    ("white", "water", "lost"),
    [
        (1e-6, 1.0, "white matter"),
        (0.1, 0.9, "white matter"),
        (1.0, 0.0, "another tissue"),
        (0.9, 0.2, "another tissue"),
    ],
)
def test_a_tissue_that_is_lost_is_seen(white, water, lost):
    """White matter was left with 2 % of most voxels of a measured scan, not with none."""
    watch = watch_of(make_scan(), warm=0)
    network = Constant(white, water, follow=True)
    said = [watch.look(network, epoch) for epoch in range(1, 4)]
    assert said[-1].startswith(f"0 % of the voxels are mostly {lost}, where the shells' means")
