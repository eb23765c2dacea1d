"""What a card tells of a network is what it is applied with, and what its results tell again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.deconvolve.shd.conftest import make_responses, make_scan, make_tiny
from tests.deconvolve.sticks import table, units

from napari_dmri.compare.methods_text import methods_text
from napari_dmri.deconvolve.shd.amortise import Subject, train_model
from napari_dmri.deconvolve.shd.apply import shd
from napari_dmri.deconvolve.shd.fit import fit_to_scan
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.order_rule import shell_matrix
from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.io.atomic import to_json
from napari_dmri.scan import GradientTable

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:Directions.*fewer than in training"),
]

B3000 = slice(19, 49)


def make_uneven(kind, seed=0):
    """Return a scan with directions that come twice, or that lie on part of the sphere."""
    plain = table((3, 16, 30))
    directions = plain.directions.copy()
    if kind == "twice":
        directions[34:49] = -directions[19:34]
    else:
        near = units(300, 1)
        directions[B3000] = near[np.abs(near[:, 2]) > 0.5][:30]
    made = make_scan(seed=seed, counts=(3, 16, 30), metadata={"simulated": True})
    return replace(made, gradients=GradientTable(plain.bvalues, directions))


def run(scan, **more):
    given = {"others": ("csf",), "device": "cpu", "steps": 2, **more}
    return fit_to_scan(scan, make_responses(), "shd-s-tv", **given)


@pytest.mark.parametrize("kind", ["twice", "on a part"])
def test_a_network_is_applied_with_the_rule_that_it_learned_with(tmp_path, kind):
    scan = make_uneven(kind)
    directions = scan.gradients.directions[B3000]
    safe, paper = (shell_matrix(directions, rule=rule) for rule in ("safe", "paper"))
    assert safe[2] != paper[2] and (safe[1] != paper[1]) == (kind == "twice")
    fitted = run(scan, rule="paper")
    assert fitted.model.card["rule"] == "paper" and run(scan).model.card["rule"] == "safe"
    model = ShdModel.load(fitted.model.save(tmp_path / "model"))
    given = {"method": "shd-s-tv", "device": "cpu"}
    again = shd(scan, make_responses(), model=model, **given)
    assert again.provenance["parameters"]["rule"] == "paper"
    known = fitted.deconvolution.fod.coefficients
    np.testing.assert_allclose(again.fod.coefficients, known, rtol=1e-4, atol=1e-6)
    # With the other rule the same weights give other fODFs.
    model.card["rule"] = "safe"
    other = shd(scan, make_responses(), model=model, **given).fod.coefficients
    assert np.abs(other - known)[scan.mask].max() > 1e-3 * np.abs(known).max()
    # A fit that begins from it goes on with its rule, unless it is told another.
    tuned = run(scan, start=fitted.model, steps=1)
    assert tuned.model.card["rule"] == "paper"
    assert run(scan, start=fitted.model, steps=1, rule="safe").model.card["rule"] == "safe"
    with pytest.raises(InputError, match="Unknown rule 'best'"):
        run(scan, rule="best")


def test_cards_without_a_rule_are_applied_safely():
    scan = make_uneven("twice")
    model = run(scan).model
    card = {k: v for k, v in model.card.items() if k != "rule"}
    old = ShdModel(model.architecture, model.others, model.bvalues, model.network, card)
    given = {"method": "shd-s-tv", "device": "cpu"}
    found = [shd(scan, make_responses(), model=one, **given) for one in (model, old)]
    assert found[1].provenance["parameters"]["rule"] == "safe"
    assert np.array_equal(found[0].fod.coefficients, found[1].fod.coefficients)


def test_subjects_are_prepared_by_the_rule_too():
    subjects = [Subject("sub-0", make_uneven("twice"), make_responses())]
    found = {}
    for rule in ("safe", "paper"):
        model = train_model(subjects, "shd-s-tv", others=("csf",), rule=rule, device="cpu", steps=2)
        assert model.card["rule"] == rule
        found[rule] = model.card["training"][0]["learned"]
    assert found["safe"] != found["paper"]


def test_a_check_counts_directions_as_the_rule_does():
    scan = make_uneven("twice")
    model = run(scan, rule="paper").model

    def said():
        return " ".join(check.sentence for check in model.check(scan, make_responses()))

    assert "30 at b=3000 (order 6)" in said()
    model.card["rule"] = "safe"
    assert "15 at b=3000 (order 2)" in said()


def test_the_provenance_of_a_fit_is_enough_to_repeat_it():
    scan = make_scan()
    fitted = run(scan, seed=4, weights={"sparsity": 1e-3}, rule="paper", inputs=range(25))
    record = json.loads(to_json(fitted.deconvolution.provenance))
    given, model, card = record["parameters"], record["inputs"]["model"], fitted.model.card
    assert given["losses"] == card["losses"] and given["losses"]["sparsity"] == 1e-3
    assert given["plan"] == card["plan"] and given["seed"] == 4
    assert "started_from" not in given and model["known_fods"] is False
    assert model["outcome"]["steps"] == card["outcome"]["steps"] == 2
    assert model["outcome"]["best_epoch"] == card["outcome"]["best_epoch"]
    assert model["outcome"]["seconds"] > 0
    assert len(record["volumes"]) == 35 and record["seen"] == list(range(25))
    again = run(
        scan,
        others=given["tissues"][1:],
        size=given["size"],
        mode=given["mode"],
        rule=given["rule"],
        weights=given["losses"],
        steps=given["plan"]["epochs"] * given["plan"]["steps"],
        seed=given["seed"],
        inputs=record["seen"],
    )
    assert again.model.sha256 == model["sha256"]
    assert np.array_equal(
        again.deconvolution.fod.coefficients, fitted.deconvolution.fod.coefficients
    )
    tuned = run(scan, start=fitted.model, steps=1).deconvolution.provenance
    assert tuned["parameters"]["started_from"] == model["sha256"]


def test_models_from_before_tell_what_they_know():
    made = make_tiny("shd-s-tv")
    plain = ShdModel.new(made, others=("csf",), bvalues=(0, 1000, 3000), simulated=True)
    plain.card.pop("seed")
    scan = make_scan(metadata={"simulated": True})
    found = shd(scan, make_responses(), method="shd-s-tv", model=plain, device="cpu").provenance
    assert found["inputs"]["model"]["outcome"] == {} and "seed" not in found["parameters"]
    assert "SHD-S-TV in tiled mode, a network trained on" in methods_text([found])


def test_methods_tell_how_a_network_was_trained():
    scan = make_scan(metadata={"simulated": True})
    fitted = run(scan, steps=8)
    text = methods_text([fitted.deconvolution.provenance])
    epoch = fitted.model.card["outcome"]["best_epoch"]
    assert (
        "Fibre orientation distributions of white matter (order 4) and the amount of CSF were "
        "estimated by SHD-S-TV in tiled mode, a network fitted to this scan without known fODFs "
        "(8 steps of 2 patches of 4 x 4 x 4 voxels; seed 0; weights of epoch "
        f"{epoch} of 4 were kept) [1]."
    ) in text
    fod = np.zeros((*scan.grid, 15), np.float32)
    fod[..., 0] = 0.28
    target = ShImage(fod, scan.affine, normalised=False)
    scans = [make_scan(seed=n, metadata={"simulated": True}) for n in range(2)]
    subjects = [Subject(f"sub-{n}", s, make_responses(), target) for n, s in enumerate(scans)]
    more = {"others": ("csf",), "device": "cpu", "steps": 4}
    told = train_model(subjects, "shd-s-tv", **more)
    taught = train_model(subjects, "shd-s-tv", start=told, supervised=0.0, seed=3, **more)
    alone = train_model(subjects, "shd-s-tv", supervised=0.0, **more)

    def text_of(model):
        given = {"method": "shd-s-tv", "model": model, "device": "cpu"}
        return methods_text([shd(scan, make_responses(), **given).provenance])

    assert "trained on 2 simulated subjects, with their true fODFs (4 steps" in text_of(told)
    said = text_of(taught)
    assert "2 simulated subjects, with their true fODFs first and then without (4 steps" in said
    assert "seed 3" in said
    assert "trained on 2 simulated subjects without known fODFs (4 steps" in text_of(alone)
    tuned = run(scan, start=taught, steps=1).deconvolution.provenance
    assert (
        "fitted to this scan without known fODFs, beginning from a trained model that had learned "
        "from true fODFs first (1 step"
    ) in methods_text([tuned])
    voxels = fit_to_scan(scan, make_responses(), "esd", others=(), device="cpu", steps=2)
    assert "distributions of order 4 were estimated by ESD in paper mode" in methods_text(
        [voxels.deconvolution.provenance]
    )
