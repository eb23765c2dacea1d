"""Training a harmonizer that diverges: it begins again, says so, and loses nothing learned."""

import json
import warnings

import numpy as np
import pytest
import torch

from napari_dmri import DmriWarning
from napari_dmri.harmonize import GolkovHarmonizer
from napari_dmri.training import Stage, losses
from napari_dmri.training.parts import Diverged

from .conftest import subject_pair

ADAM = Stage("adam", 3e-3, 512, 1)
HOPELESS = Stage("sgd", 1e30, 512, 1)


@pytest.fixture(scope="module")
def pairs():
    return [subject_pair(n) for n in (1, 2, 3)]


def fit(pairs, stages, **more):
    """Train; return the model and what was warned of."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", DmriWarning)
        model = GolkovHarmonizer(stages=stages).fit(pairs, device="cpu", **more)
    return model, [str(w.message) for w in seen]


def finite(model):
    return all(bool(v.isfinite().all()) for v in model.network.state_dict().values())


def test_a_harmonizer_that_diverged_begins_again_and_its_card_says_so(pairs, monkeypatch):
    calls = []

    def once(weight):
        def loss(model, tensors):
            calls.extend([1] * torch.is_grad_enabled())
            value = losses.signal_loss(model, tensors)
            return value * np.nan if len(calls) == 1 else value

        return loss

    monkeypatch.setattr(losses, "loss_with_energy", once)
    told = []
    model, warned = fit(pairs, [ADAM], on_event=told.append)
    (words,) = [event.words for event in told if event.kind == "again"]
    assert "loss is nan in epoch 1" in words and "at a learning rate of 0.001." in words
    assert words in model.card["notes"] and words in warned
    assert finite(model) and len(model.curves) == 2
    json.dumps(model.card)


def test_what_a_hopeless_training_learned_before_is_kept_and_taken(pairs, tmp_path):
    before, _ = fit(pairs, [ADAM])
    state = tmp_path / "model.training.safetensors"
    with pytest.raises(Diverged) as caught:
        fit(pairs, [ADAM, HOPELESS], state=state)
    for words in (
        "The best weights before are those of epoch 1",
        "model.training.safetensors keeps them",
        "On the command line the same command goes on",
        "--learning-rate lowers the rate",
        "in the Train dock Go on does, and Begin anew with another seed",
    ):
        assert words in str(caught.value)
    # What the words advise.
    model, warned = fit(pairs, [ADAM, HOPELESS], state=state)
    found, expected = (m.network.state_dict() for m in (model, before))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any("had begun again 2 times" in note for note in model.card["notes"])
    assert any("had begun again 2 times" in words for words in warned)


def test_a_training_that_learned_nothing_leaves_nothing(pairs, tmp_path):
    with pytest.raises(Diverged, match="No epoch was better than none: lower the learning rate"):
        fit(pairs, [HOPELESS], state=tmp_path / "model.training.safetensors")
    assert list(tmp_path.iterdir()) == []
