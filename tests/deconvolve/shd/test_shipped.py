"""The models of the package: small, labelled, and of use on people that they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri import find_peaks
from napari_dmri.compare.fibres import score_curve
from napari_dmri.deconvolve import deconvolve, estimate_response
from napari_dmri.deconvolve.evaluation.protocols import true_fibres
from napari_dmri.deconvolve.shd.shipped import shipped_models
from napari_dmri.phantom.travelling import simulate_subject

CASES = [("shd-s-tv-one-shell", "ge_st"), ("shd-s-tv-two-shells", "research_hr")]


def test_they_are_small_and_say_what_they_are():
    models = {model.name: model for model in shipped_models()}
    assert set(models) == {name for name, _ in CASES}
    for model in models.values():
        assert model.path.stat().st_size < 4e6
        assert model.card["simulated"] is True
        assert all("-of-31415" in entry["subject"] for entry in model.card["training"])


@pytest.mark.parametrize(("name", "site"), CASES)
def test_single_fibres_of_another_person_are_found(name, site):
    subject = simulate_subject(3, sites=(site,), size=(28, 28, 6), repeats=False)
    scan = subject.scans[site]
    responses = estimate_response(scan)
    found = deconvolve(scan, "shd-s-tv", responses, model=name, device="cpu")
    truth, scored = true_fibres(subject.truth, scan.mask)
    peaks = find_peaks(found.fod, most=1, mask=scored).directions[scored][:, 0]
    alone = truth.count == 1
    assert alone.sum() > 200
    cosine = np.abs((peaks * truth.directions[:, 0]).sum(1))[alone].clip(0, 1)
    assert np.rad2deg(np.median(np.arccos(cosine))) < 10
    assert any("simulated" in note for note in found.notes)


def test_crossings_at_clinical_resolution_are_found_better_than_by_csd():
    subject = simulate_subject(3, sites=("ge_st",), size=(28, 28, 6), repeats=False)
    scan = subject.scans["ge_st"]
    responses = estimate_response(scan)
    truth, scored = true_fibres(subject.truth, scan.mask)
    curves = []
    for method, given in (("shd-s-tv", {"model": "shd-s-tv-one-shell"}), ("csd", {"order": 6})):
        fod = deconvolve(scan, method, responses, device="cpu", mask=scored, **given).fod
        found = find_peaks(fod, most=10, mask=scored)
        curves.append(score_curve((found.directions * found.amplitudes[..., None])[scored], truth))
    network, csd = curves
    assert network.f1 > csd.f1 + 0.02 and network.error < 0.95 * csd.error
