"""Teach a network by known fODFs, then without them: two parts, one card, exact resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import AFFINE, make_responses, make_scan

from napari_dmri.deconvolve.shd.amortise import Subject, train_model
from napari_dmri.deconvolve.shd.apply import shd
from napari_dmri.deconvolve.shd.fit import fit_to_scan
from napari_dmri.deconvolve.shd.teach import teach_model
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.images import ShImage

pytestmark = pytest.mark.usefixtures("tiny")

STEPS = 40


@pytest.fixture(scope="module")
def subjects():
    rng = np.random.default_rng(0)
    made = []
    for n in range(2):
        scan = make_scan((6, 5, 4), seed=n, name=f"sub-{n}")
        fod = rng.random((*scan.grid, 15)).astype(np.float32)
        target = ShImage(fod, AFFINE, normalised=False)
        made.append(Subject(f"sub-{n}", scan, make_responses(), target))
    return made


def run(subjects, **more):
    return teach_model(subjects, "shd-s-tv", steps=STEPS, device="cpu", **more)


def same(a, b) -> bool:
    pairs = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_is_a_supervised_training_and_then_one_without(subjects):
    model = run(subjects)
    first = train_model(subjects, "shd-s-tv", supervised=1.0, steps=28, device="cpu")
    then = train_model(subjects, "shd-s-tv", start=first, supervised=0.0, steps=12, device="cpu")
    assert same(model, then) and not same(model, first)
    assert first.card["known_fods"] and first.card["losses"]["supervised"] == 1
    card = model.card
    assert card["known_fods"] and card["losses"]["supervised"] == 0
    assert card["started_from"] == first.sha256
    # What went before is kept on the card.
    before = card["taught"]
    assert before["steps"] == first.card["outcome"]["steps"] == 28
    assert all(before[name] == first.card[name] for name in ("losses", "plan", "curves"))
    assert before["outcome"]["best_loss"] == first.card["outcome"]["best_loss"]
    assert "taught" not in then.card
    assert not train_model(subjects, "shd-s-tv", supervised=0.0, device="cpu").card["known_fods"]


def test_what_it_saw_is_told_wherever_it_goes(subjects):
    model = run(subjects)
    scan = make_scan(seed=5, name="another")
    found = shd(scan, make_responses(), model=model, method="shd-s-tv", device="cpu")
    assert "2 subjects with known fODFs" in found.notes[0]
    fitted = fit_to_scan(scan, make_responses(), start=model, steps=3, device="cpu")
    assert fitted.model.card["known_fods"]


@pytest.mark.parametrize("part", ["known fODFs", "signals alone"])
def test_it_goes_on_in_either_part_to_the_same_bits(tmp_path, subjects, part):
    state = tmp_path / "state.safetensors"
    left = [4]

    def stop(fraction, text):
        left[0] -= text.startswith(f"{part}: epoch")
        if left[0] < 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(subjects, state=state, progress=stop)
    taught = tmp_path / "state.taught.safetensors"
    assert taught.is_file() == (part == "signals alone")
    model = run(subjects, state=state)
    assert same(model, run(subjects)) and not taught.is_file()


def test_known_fods_are_needed_of_all(subjects):
    one = subjects[1]
    bare = Subject(one.subject, one.scan, one.responses)
    words = r"1 of 2 subjects have known fODFs.*; sub-1 have none.*the column fod"
    with pytest.raises(InputError, match=words):
        run([subjects[0], bare])
    with pytest.raises(InputError, match="2 of 3 subjects have known fODFs"):
        run(subjects, validation=[bare])


def test_the_plan_says_how_many_steps_where_none_are_given(subjects):
    model = teach_model(subjects, "shd-s-tv", device="cpu", size="small")
    # 70 and 30 % of the tiny plan of 4 epochs of 3 steps.
    assert (model.card["taught"]["steps"], model.card["outcome"]["steps"]) == (8, 4)


def test_a_first_part_of_other_settings_is_refused(tmp_path, subjects):
    state = tmp_path / "state.safetensors"

    def stop(fraction, text):
        if text.startswith("signals alone: epoch"):
            raise Cancelled

    with pytest.raises(Cancelled):
        run(subjects, state=state, progress=stop)
    state.unlink()  # as if it was stopped before the second part's first step
    with pytest.raises(InputError, match=r"taught.safetensors .*seed: None then, 3 now"):
        run(subjects, state=state, seed=3)
    assert (tmp_path / "state.taught.safetensors").is_file()
