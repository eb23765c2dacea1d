"""Methods by name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.losses import LossWeights
from napari_dmri.deconvolve.shd.plan import Plan
from napari_dmri.deconvolve.shd.presets import PRESETS, SIZES, preset
from napari_dmri.errors import InputError

NAMES = {
    *("shd", "shd-tv", "rt-esd", "esd", "cnn", "cnn-tv", "mlp", "shd-s", "shd-s-tv"),
    *("concat-so3", "e3-sh"),
}


def test_every_method_has_words_and_a_card() -> None:
    assert set(PRESETS) == NAMES
    for name in PRESETS:
        for size in SIZES:
            one = preset(name, size)
            assert one.name == name and one.size == size
            assert one.label and one.summary.endswith(".") and "20" in one.reference
            card = json.loads(json.dumps(one.as_dict()))
            assert Architecture.from_dict(card["architecture"]) == one.architecture
            assert LossWeights(**card["losses"]) == one.losses
            assert one.smooth == name.endswith("-tv")


def test_the_papers_sizes() -> None:
    shd = preset("shd")
    assert shd.architecture == Architecture(
        "chebyshev", n_side=8, degree=18, depth=4, filters=32, block=2, terms=5, patch=3
    )
    assert shd.losses == LossWeights(1.0, 0.1, 5e-5, 1e-5)
    assert shd.plan == Plan(1.7e-3, 16, 50, 900, (30, 40, 45), 0.1)
    assert shd.plan.total_steps == 45_000
    tv = preset("shd-tv").losses
    assert (tv.spatial, tv.spatial_form) == (0.5, "squared")
    assert not preset("rt-esd").architecture.hemisphere
    assert preset("esd").architecture.patch == preset("mlp").architecture.patch == 1
    assert preset("cnn").architecture.filters == preset("mlp").architecture.filters == 128


def test_tiled_methods_train_on_tiles_with_as_many_voxels_a_step() -> None:
    spectral = preset("shd-s-tv")
    assert spectral.mode == "tiled" and spectral.architecture.tiled
    assert spectral.architecture.patch == 8
    tiled = preset("shd-tv", mode="tiled")
    assert tiled.architecture.tiled and tiled.mode == "tiled" and tiled.losses.spatial == 0.5
    assert tiled.architecture.border == spectral.architecture.border == "repeat"
    assert preset("concat-so3", mode="tiled").architecture.border == "zeros"
    assert preset("shd-tv").architecture.border == "zeros"
    assert tiled.plan.batch * 8**3 == pytest.approx(16 * 27, rel=0.2)
    assert preset("shd", mode="paper") == preset("shd")
    assert not preset("shd").architecture.tiled
    small = preset("shd-tv", "small", mode="tiled")
    assert small.architecture.tiled and small.architecture.patch == 4
    assert small.plan.batch * 4**3 == tiled.plan.batch * 8**3


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_small_size_is_small(name: str) -> None:
    small = preset(name, "small")
    made = small.architecture
    assert (made.n_side, made.depth, made.degree) == (4, 3, 12)
    assert made.filters == (64 if made.layer == "convolution" else 16)
    assert small.plan.total_steps == pytest.approx(3000, rel=0.1)
    assert made.patch == (PRESETS[name].architecture.patch if small.mode == "paper" else 4)
    assert small.plan.lr == 1e-2
    # All small networks are weighed alike, and only they and SHD-S bring orders to one size.
    paper = PRESETS[name]
    assert (small.losses.non_negativity, small.losses.sparsity) == (1.0, 2e-4)
    assert small.losses.spatial == (5.0 if paper.smooth else 0.0)
    assert small.equalise and paper.equalise == (paper.architecture.layer == "spectral")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="'hsd'; choose one of shd-s-tv"):
        preset("hsd")
    with pytest.raises(InputError, match="'huge'"):
        preset("shd", "huge")
    with pytest.raises(InputError, match="'whole'"):
        preset("shd", mode="whole")
    with pytest.raises(InputError, match="SHD-S runs in tiled mode alone"):
        preset("shd-s", mode="paper")
    with pytest.raises(InputError, match="voxels are independent"):
        preset("esd", mode="tiled")


def test_presets_load_no_torch() -> None:
    code = "import sys, napari_dmri.deconvolve.shd.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
