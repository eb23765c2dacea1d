"""Models: saved, loaded, checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path  # noqa: TC003

import numpy as np
import pytest
import torch
from tests.deconvolve.sticks import isotropic, response, table

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.presets import PRESETS, Preset, preset
from napari_dmri.errors import InputError
from napari_dmri.images import ResponseSet
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.training.checkpoint import load_checkpoint, save_checkpoint

LAYERS = {"shd": 3, "shd-s": 4, "cnn": 3, "e3-sh": 3, "concat-so3": 3, "mlp": 1, "rt-esd": 3}
RESPONSES = ResponseSet({"wm": response(), "csf": isotropic("csf", 3e-3)})


def tiny(name: str) -> Preset:
    chosen = preset(name, "small")
    made = replace(
        chosen.architecture, n_side=2, filters=2, depth=2, degree=4, patch=LAYERS[name], bands=()
    )
    return replace(chosen, architecture=made)


def a_model(name: str = "shd", **more: object) -> ShdModel:
    return ShdModel.new(tiny(name), others=("csf",), bvalues=(0, 1000, 3000), seed=3, **more)


def stirred(model: ShdModel) -> ShdModel:
    """Give the model random weights and statistics, as training would."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
            else:
                value.fill_(7)
    return model


def a_scan(gradients: GradientTable | None = None, size: float = 2.0, **meta: object) -> Scan:
    gradients = table() if gradients is None else gradients
    data = np.ones((2, 2, 2, len(gradients)), np.float32)
    return Scan(data, np.diag([size, size, size, 1]), gradients, metadata=meta)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_model_that_was_loaded_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model = stirred(a_model(name, curves=[{"epoch": 1, "train": 0.5}]))
    edge = LAYERS[name]
    shells = torch.rand(2, edge, edge, edge, 3, 45, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model.network(shells)
    path = model.save(tmp_path / "model")
    again = ShdModel.load(path)
    with torch.no_grad():
        after = again.network(shells)
    for a, b in zip(before, after, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)
    assert again.architecture == model.architecture
    assert (again.others, again.bvalues) == (("csf",), (0.0, 1000.0, 3000.0))
    assert not again.network.training
    assert again.card.pop("sha256") == model.sha256 == again.sha256
    assert again.card == json.loads(json.dumps(model.card))
    assert path.stat().st_size < 200_000


def test_the_card_says_what_the_model_is() -> None:
    card = a_model(simulated=True, training=[{"subject": "sub-01"}], voxel_size=[2, 2, 2]).card
    assert card["kind"] == "deconvolve" and card["method"] == "shd" and card["mode"] == "paper"
    assert card["tissues"] == ["wm", "csf"] and card["bvalues"] == [0, 1000, 3000]
    assert card["simulated"] and card["training"] == [{"subject": "sub-01"}]
    assert card["parameters"] == a_model().parameters
    assert {"losses", "plan", "seed", "versions", "licence", "curves", "rule"} <= set(card)
    assert Architecture.from_dict(card["architecture"]) == a_model().architecture


def test_the_same_seed_gives_the_same_weights() -> None:
    assert a_model().sha256 == a_model().sha256
    other = ShdModel.new(tiny("shd"), others=("csf",), bvalues=(0, 1000, 3000), seed=4)
    assert other.sha256 != a_model().sha256


def test_files_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    path = a_model().save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="exists"):
        a_model().save(path)
    assert a_model().save(path, overwrite=True) == path


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = a_model().save(tmp_path / "m.safetensors")
    tensors, card = load_checkpoint(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        ShdModel.load(cut)
    turned = bytearray(path.read_bytes())
    turned[-3] ^= 255
    cut.write_bytes(turned)
    with pytest.raises(InputError, match="not those that were saved"):
        ShdModel.load(cut)
    with pytest.raises(InputError, match="No model file"):
        ShdModel.load(tmp_path / "none.safetensors")
    foreign = save_checkpoint(tmp_path / "f", tensors, {**card, "kind": "harmonizer"})
    with pytest.raises(InputError, match="holds a 'harmonizer'"):
        ShdModel.load(foreign)


def test_models_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    tensors, card = load_checkpoint(a_model().save(tmp_path / "m"))
    name = sorted(tensors)[0]
    lost = {k: v for k, v in tensors.items() if k != name}
    with pytest.raises(InputError, match="the file holds nothing"):
        ShdModel.from_checkpoint(lost, card)
    with pytest.raises(InputError, match="should have shape"):
        ShdModel.from_checkpoint({**tensors, name: tensors[name][..., :1][:1]}, card)
    with pytest.raises(InputError, match="does not have"):
        ShdModel.from_checkpoint({**tensors, "network/more": tensors[name]}, card)
    with pytest.raises(InputError, match="values that are not finite"):
        ShdModel.from_checkpoint({**tensors, name: tensors[name] * np.nan}, card)
    with pytest.raises(InputError, match="lacks 'bvalues'"):
        ShdModel.from_checkpoint(tensors, {k: v for k, v in card.items() if k != "bvalues"})
    with pytest.raises(InputError, match="lacks mode"):
        ShdModel.from_checkpoint(tensors, {k: v for k, v in card.items() if k != "mode"})
    with pytest.raises(InputError, match="expected wm first"):
        ShdModel.from_checkpoint(tensors, {**card, "tissues": ["csf", "wm"]})
    with pytest.raises(InputError, match="rule 'best'"):
        ShdModel.from_checkpoint(tensors, {**card, "rule": "best"})
    with pytest.raises(InputError, match="Unknown settings of a network: colour"):
        shape = {**card["architecture"], "colour": 3}
        ShdModel.from_checkpoint(tensors, {**card, "architecture": shape})


@pytest.mark.parametrize("bvalues", [(1000, 3000), (0,), (0, 3000, 1000)])
def test_shells_begin_with_b0_and_ascend(bvalues: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected b0 and then"):
        ShdModel.new(tiny("shd"), others=(), bvalues=bvalues)


def levels(model: ShdModel, scan: Scan, responses: object = RESPONSES) -> dict[str, str]:
    return {c.sentence: c.level for c in model.check(scan, responses)}


def test_a_scan_that_fits_is_ok_in_every_respect() -> None:
    model = a_model(voxel_size=[2, 2, 2], orders=[0, 6, 8])
    found = levels(model, a_scan())
    assert set(found.values()) == {"ok"}
    words = " ".join(found)
    assert "b = 0, 1000, 3000" in words and "32 at b=1000 (order 6)" in words
    assert "WM, CSF" in words and "2 x 2 x 2 mm" in words and "paper mode" in words


def one(found: dict[str, str], level: str) -> str:
    (sentence,) = [s for s, held in found.items() if held == level]
    return sentence


def test_what_does_not_fit_is_said_in_words() -> None:
    model = a_model(voxel_size=[2, 2, 2], orders=[0, 6, 8])
    b = table().bvalues
    low = GradientTable(np.where(b == 1000, 1200, b), table().directions)
    assert "b=1200 takes the place of b=1000 s/mm² in training (+20%)" in one(
        levels(model, a_scan(low)), "warning"
    )
    few = table().select([*range(35), *range(35, 99, 2)])
    assert "fewer than in training (orders 6, 8)" in one(levels(model, a_scan(few)), "warning")
    assert "trained at 2 x 2 x 2 mm" in one(levels(model, a_scan(size=3)), "warning")
    assert "no response of CSF" in one(levels(model, a_scan(), response()), "error")
    single = a_scan(table().select(np.flatnonzero(b != 1000)))
    assert "has b = 0, 3000: nothing within 25% of 1000" in one(levels(model, single), "error")
    none = a_scan(table().select(np.arange(3, 99)))
    assert "no b0 volume" in one(levels(model, none), "error")
    rare = a_scan(table().select([0, 3, 4, 5, 40, 41]))
    assert "7 of a shell are needed" in one(levels(model, rare), "error")


def test_voxel_size_and_directions_are_known_from_the_training_scans() -> None:
    entry = {"subject": "a", "voxel_size": [2, 2, 2], "shells": {"0": 3, "1010": 30, "3000": 64}}
    model = a_model(training=[entry])
    assert set(levels(model, a_scan()).values()) == {"ok"}
    few = table().select([*range(20), *range(35, 99)])
    assert "(orders 6, 8)" in one(levels(model, a_scan(few)), "warning")
    assert "trained at 2 x 2 x 2" in one(levels(model, a_scan(size=1.4)), "warning")


def test_extra_shells_tissues_and_origin() -> None:
    some = ShdModel.new(
        tiny("shd"),
        others=("gm", "csf"),
        bvalues=(0, 3000),
        simulated=True,
        training=[{"subject": "sub-01"}],
    )
    extra = {s: v for s, v in levels(some, a_scan(simulated=True), None).items() if v != "ok"}
    assert "32 at b=1000 s/mm²; these volumes are left out" in one(extra, "warning")
    single = a_scan(table().select(np.flatnonzero(table().bvalues != 1000)), simulated=True)
    assert "WM, GM, CSF from 2 b-values, told apart by shape" in one(
        {s: v for s, v in levels(some, single, None).items() if s.startswith("Tissues")}, "ok"
    )
    assert any("simulated scans" in s for s in levels(some, a_scan(), None))
    own = levels(some, a_scan(subject="01"), None)
    assert any("01 is one of them" in s for s in own)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "SHD, in paper mode: trained on 2 scans."),
        ({"known_fods": True}, "SHD, taught, in paper mode: trained on 2 scans with known fODFs."),
        (
            {"known_fods": True, "simulated": True},
            "SHD, taught, in paper mode: trained on simulated scans and their true fODFs (2",
        ),
        (
            {"known_fods": True, "trained_from": "scan"},
            "fitted to 2 scans, beginning from a model that was taught known fODFs.",
        ),
    ],
)
def test_a_taught_model_says_so(more, words) -> None:
    entries = [{"subject": "sub-01"}, {"subject": "sub-02"}]
    model = ShdModel.new(tiny("shd"), others=(), bvalues=(0, 1000, 3000), training=entries, **more)
    found = levels(model, a_scan(subject="sub-09"), None)
    assert any(words in s for s in found), found


def test_every_preset_makes_a_model() -> None:
    for name in PRESETS:
        model = ShdModel.new(preset(name, "small"), others=(), bvalues=(0, 1000))
        assert model.tissues == ("wm",)
        assert model.parameters == model.card["parameters"] > 0
