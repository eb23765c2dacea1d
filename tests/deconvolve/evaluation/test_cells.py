from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.deconvolve.shd.conftest import make_tiny

from napari_dmri.deconvolve.evaluation.cells import evaluate, read_cells, tissues_for
from napari_dmri.deconvolve.evaluation.plan import Settings
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, Protocol, make_case
from napari_dmri.deconvolve.evaluation.studies import study_lesions
from napari_dmri.deconvolve.evaluation.tables import write_results
from napari_dmri.deconvolve.shd import amortise, presets, teach
from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.deconvolve.shd.losses import LossWeights
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.presets import preset
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.training import loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCANS = (30, 30, 3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, quick_directions: None) -> None:
    """Fewer voxels of random crossings, with directions that are spread in fewer steps."""
    for name in PROTOCOLS:
        if not PROTOCOLS[name].site:
            monkeypatch.setitem(PROTOCOLS, name, Protocol(name, "few", voxels=(10, 8, 3)))


def test_what_methods_see_of_a_subject() -> None:
    case = make_case(PROTOCOLS["super"], "validation", 0, size=SCANS)
    assert [s.bvalue for s in case.scan.gradients.shells] == [0, 1000, 3000]
    assert [s.bvalue for s in case.seen.gradients.shells] == [0, 1000]
    assert case.seen.shape[3] == 6 + 30
    assert len(case.truth) == case.scored.sum() > 100
    assert (case.truth.count >= 1).all()
    assert set(tissues_for(case.responses, 2)) == {"wm", "csf"}
    assert make_case(PROTOCOLS["super"], "validation", 0, size=SCANS) is case


def test_an_unknown_subject_is_refused() -> None:
    with pytest.raises(InputError, match="no test subject 7"):
        make_case(PROTOCOLS["low"], "test", 7)


@pytest.mark.usefixtures("tiny")
def test_an_evaluation_keeps_what_is_done_and_goes_on(tmp_path: Path) -> None:
    settings = Settings(train=1, test=1)
    first = evaluate(tmp_path / "e", settings, protocols=["random"], methods=["csd"])
    assert [(c["method"], c["protocol"]) for c in first] == [("csd", "random")]
    assert 0.8 < first[0]["f1"] < 1
    assert first[0]["voxels"] == 240
    assert first[0]["validation_f1"] != first[0]["f1"]
    path = tmp_path / "e" / "random_csd_0" / "scores.json"
    before = path.stat().st_mtime_ns
    both = evaluate(tmp_path / "e", settings, protocols=["random"], methods=["csd", "msmt-csd"])
    assert len(both) == 2
    assert path.stat().st_mtime_ns == before
    files = write_results(tmp_path / "e", both)
    assert [f.name for f in files] == ["scores.tsv", "tables.md"]
    assert len(files[0].read_text().splitlines()) == 3
    assert "MSMT-CSD" in files[1].read_text()


@pytest.mark.usefixtures("tiny")
def test_a_training_that_collapses_is_told_of_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def collapse(*_: object, **named: object) -> None:
        trained.append(named["seed"])
        raise Collapsed("All voxels have the same fODF.")

    # `teach` has a name of its own for it, which would stay if it were first imported meanwhile.
    assert teach.train_model is amortise.train_model
    monkeypatch.setattr(amortise, "train_model", collapse)
    asked = {"protocols": ["random"], "methods": ["csd", "cnn-tv"]}
    done = evaluate(tmp_path / "e", Settings(train=1, test=1), **asked)
    assert [(c["method"], "f1" in c) for c in done] == [("cnn-tv", False), ("csd", True)]
    assert done[0]["collapsed"] == "All voxels have the same fODF."
    assert evaluate(tmp_path / "e", Settings(train=1, test=1), **asked) == done
    assert trained == [0]
    text = write_results(tmp_path / "e", done)[1].read_text()
    assert "seed 0: All voxels have the same fODF." in text
    with pytest.raises(InputError, match=r"cnn-tv has no network on random: All voxels .* delete"):
        study_lesions(tmp_path / "e", "random", ["cnn-tv"])


@pytest.mark.usefixtures("tiny")
def test_nothing_is_begun_after_the_time_is_over(tmp_path: Path) -> None:
    said: list[str] = []
    settings = Settings(test=1)
    assert not evaluate(
        tmp_path / "e",
        settings,
        protocols=["random"],
        minutes=0,
        progress=lambda _, text: said.append(text),
    )
    assert said == ["stopped after 0 minutes; the same command goes on"]
    for wrong in (-1, float("nan")):
        with pytest.raises(InputError, match=f"{wrong} minutes are given; give 0 or more"):
            evaluate(tmp_path / "e", settings, protocols=["random"], minutes=wrong)
    assert [p.name for p in (tmp_path / "e").iterdir()] == ["evaluation.json"]
    with pytest.raises(InputError, match="holds no scores"):
        read_cells(tmp_path)


@pytest.fixture
def short(tiny: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Train tiny networks for a few steps, each of which tells an event."""
    monkeypatch.setattr(presets, "preset", make_tiny)
    monkeypatch.setattr(loop, "PLOT_EVERY", 0.0)
    return {
        "settings": Settings(train=1, test=1, steps=8),
        "protocols": ["random"],
        "methods": ["mlp"],
        "device": "cpu",
    }


def test_a_network_separates_all_tissues_where_it_sees_one_shell_too(
    tmp_path: Path, short: dict[str, object]
) -> None:
    asked = {**short, "protocols": ["super"]}
    asked["settings"] = Settings(scans=SCANS, train=1, test=1, steps=8)
    (done,) = evaluate(tmp_path, **asked)
    model = ShdModel.load(tmp_path / "super_mlp_0" / "model.safetensors")
    assert model.bvalues == (0, 1000) and model.others == ("gm", "csf")
    assert 0 <= done["f1"] <= 1


def test_a_training_stops_when_time_is_over_and_goes_on_to_the_same(
    tmp_path: Path, short: dict[str, object]
) -> None:
    whole = evaluate(tmp_path / "whole", **short)
    said: list[str] = []
    calls = 0
    while not (parts := evaluate(
        tmp_path / "parts", minutes=1e-12, progress=lambda _, text: said.append(text), **short
    )):  # fmt: skip
        calls += 1
        assert said[-1].startswith("stopped after 1e-12 minutes; the same command goes on")
        assert calls < 20, "no call gets further than the one before"
    assert calls > 3
    cell = "random_mlp_0"
    # The last stop is between training and scoring, when the model is there already.
    assert not (tmp_path / "parts" / cell / "model.state.safetensors").exists()
    one, other = (ShdModel.load(tmp_path / f / cell / "model.safetensors") for f in
                  ("whole", "parts"))  # fmt: skip
    assert one.sha256 == other.sha256
    assert one.card["outcome"]["steps"] == other.card["outcome"]["steps"] == 8
    took = ("train_seconds", "test_seconds")
    assert [{k: v for k, v in scores[0].items() if k not in took} for scores in (whole, parts)] == [
        {k: v for k, v in whole[0].items() if k not in took}
    ] * 2


def test_whoever_stops_it_is_not_taken_for_the_clock(
    tmp_path: Path, short: dict[str, object]
) -> None:
    def stop(fraction: float, text: str) -> None:
        if "epoch 2" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluate(tmp_path / "e", minutes=10, progress=stop, **short)
    assert (tmp_path / "e" / "random_mlp_0" / "model.state.safetensors").is_file()


def test_the_networks_of_the_package_are_scored_as_they_are(tmp_path: Path) -> None:
    settings = Settings(train=1, test=1, scans=(20, 20, 3))
    given = {"protocols": ["low"], "methods": ["shipped"], "device": "cpu"}
    (scores,) = evaluate(tmp_path / "e", settings, **given)
    assert scores["chosen"] == {"model": "shd-s-tv-one-shell"}
    assert 0.5 < scores["f1"] < 1
    assert 0 < scores["threshold"] < 1
    assert scores["train_seconds"] == 0
    assert not (tmp_path / "e" / "low_shipped_0" / "model.safetensors").exists()
    files = write_results(tmp_path / "e", [scores])
    assert "| shipped (taught) | model shd-s-tv-one-shell |" in files[1].read_text()


@pytest.mark.usefixtures("tiny")
def test_test_subjects_are_not_those_of_training() -> None:
    cases = [make_case(PROTOCOLS["random"], role, 0) for role in ("train", "validation", "test")]
    data = [np.asarray(case.scan.data) for case in cases]
    assert not np.array_equal(data[0], data[1])
    assert not np.array_equal(data[0], data[2])
    assert not np.array_equal(data[1], data[2])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("changed", ["gains", "losses", "architecture"])
def test_a_network_of_other_settings_is_not_taken_for_the_method(
    tmp_path: Path, changed: str
) -> None:
    chosen = preset("mlp", "small")
    gains = replace(chosen.architecture, gains=((1.0,), (1.0, 2.0)))
    other = {
        "gains": chosen,
        "losses": replace(chosen, architecture=gains, losses=LossWeights()),
        "architecture": replace(chosen, architecture=replace(gains, filters=8)),
    }[changed]
    model = ShdModel.new(other, others=(), bvalues=(0.0, 3000.0))
    settings = Settings(train=1, test=1)
    assert not evaluate(tmp_path / "e", settings, protocols=["random"], methods=["mlp"], minutes=0)
    path = tmp_path / "e" / "random_mlp_0" / "model.safetensors"
    path.parent.mkdir(parents=True)
    model.save(path)
    with pytest.raises(InputError, match="another network than mlp is now; delete"):
        evaluate(tmp_path / "e", settings, protocols=["random"], methods=["mlp"])
