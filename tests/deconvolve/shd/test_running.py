"""What a fit is told to do: size, preset and rule, also where it begins from a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.presets import preset
from napari_dmri.deconvolve.shd.running import choose_preset, choose_rule
from napari_dmri.deconvolve.shd.shipped import find_model
from napari_dmri.errors import InputError


def voxels(chosen) -> int:
    return chosen.plan.batch * chosen.architecture.patch**3


def begun(chosen, patch, **more):
    """Return a model of a method, with patches of its own."""
    made = replace(chosen.architecture, patch=patch, n_side=2, filters=2, degree=4)
    return ShdModel.new(
        replace(chosen, architecture=made), others=("csf",), bvalues=(0, 1000), **more
    )


@pytest.mark.parametrize("name", ["shd-s-tv-one-shell", "shd-s-tv-two-shells"])
def test_a_step_takes_as_many_voxels_from_a_shipped_model_on(name):
    start = ShdModel.load(find_model(name))
    plain = choose_preset("shd-s-tv", "small", None, "cpu")[1]
    size, tuned = choose_preset("shd-s-tv", None, start, "cpu")
    assert size == "small" and tuned.architecture == start.architecture
    assert voxels(tuned) == voxels(plain)
    assert tuned.plan.lr == pytest.approx(0.2 * plain.plan.lr)


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize(
    ("method", "mode", "patch"),
    [("shd-s-tv", None, 4), ("shd-s-tv", None, 8), ("shd-tv", "tiled", 8), ("shd-tv", None, 5)],
)
def test_a_step_takes_as_many_voxels_whatever_the_patches(method, mode, patch, size):
    given = preset(method, "small", mode)
    start = begun(given, patch)
    tuned = choose_preset(method, size, start, "cpu")[1]
    wanted = voxels(preset(method, size))
    assert tuned.architecture.patch == patch and tuned.mode == given.mode
    # A step has whole patches, at least one.
    assert abs(voxels(tuned) - wanted) <= max(patch**3 / 2, patch**3 - wanted)


def test_voxels_alone_stay_as_many():
    given = preset("esd", "small")
    tuned = choose_preset("esd", None, begun(given, 1), "cpu")[1]
    assert tuned.plan.batch == given.plan.batch


def test_the_rule_is_the_one_asked_for_or_that_of_the_model_to_begin_from():
    start = begun(preset("shd-s-tv", "small"), 4, rule="paper")
    assert choose_rule(None, None) == choose_rule("safe", start) == "safe"
    assert choose_rule(None, start) == choose_rule("paper", None) == "paper"
    with pytest.raises(InputError, match="whose network shd-tv does not have"):
        choose_preset("shd-tv", None, start, "cpu")
