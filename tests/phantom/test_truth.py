from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_dmri.phantom.anatomy import make_subject
from napari_dmri.phantom.composition import sample
from napari_dmri.phantom.presets import get_scanner
from napari_dmri.phantom.scanner import SIGNAL_SCALE
from napari_dmri.phantom.tissue_signal import TISSUE
from napari_dmri.phantom.travelling import TravellingSubject, field_of_view, simulate_subject
from napari_dmri.phantom.truth import Truth, responses
from napari_dmri.sphere.harmonics import degrees, design_matrix


def test_fod_convolved_with_the_response_is_the_signal() -> None:
    subject = make_subject(0)
    held = sample(subject, field_of_view((64, 76, 3)).grid(2.4))
    # White matter alone, and one response: each population has the subject's own fraction.
    alone = held.tissue * np.array([1, 0, 0], np.float32)
    held = replace(held, tissue=alone, intra=np.full_like(held.intra, subject.intra))
    truth = Truth(subject, held)
    machine = get_scanner("prisma_st+b3000").ideal()
    clean = machine.noise_free(subject, held)
    white = truth.tissue[..., 0] > 0.2
    assert white.sum() > 3000
    b0 = SIGNAL_SCALE * TISSUE[0].weight(machine.te, machine.tr)
    for order, limit in ((18, 3e-6), (8, 2e-3)):
        fod = truth.fod(order).coefficients[white].astype(np.float64)
        rows = responses(subject, machine, order)["wm"]
        factor = np.sqrt(4 * np.pi / (2 * np.arange(0, order + 1, 2) + 1))
        for row, b in enumerate((0.0, 1200.0, 3000.0)):
            volumes = machine.gradients.bvalues == b
            zonal = (rows[row] * factor)[degrees(order) // 2]
            basis = np.ones((1, 3)) if b == 0 else machine.gradients.directions[volumes]
            predicted = (fod * zonal) @ design_matrix(basis, order).T
            assert np.abs(predicted - clean[white][:, volumes]).max() / b0 < limit


def test_fod_integral_is_the_white_matter_fraction(traveller: TravellingSubject) -> None:
    fod = traveller.truth.fod(8)
    integral = fod.coefficients[..., 0] * np.sqrt(4 * np.pi)
    assert np.allclose(integral, traveller.truth.tissue[..., 0], atol=1e-4)


def test_another_scanner_leaves_the_truth_identical(traveller: TravellingSubject) -> None:
    other = simulate_subject(0, sites=("connectom_st",), repeats=False)
    for name in ("tissue", "directions", "fractions", "concentrations", "labels"):
        assert np.array_equal(getattr(traveller.truth, name), getattr(other.truth, name)), name
    assert traveller.truths["ge_st"] is traveller.truths["prisma_st"]


def test_responses_have_mrtrix_rows(traveller: TravellingSubject) -> None:
    machine = get_scanner("research_hr")
    found = responses(traveller.truth.subject, machine)
    assert found["wm"].shape == (3, 6) and found["gm"].shape == (3, 1) == found["csf"].shape
    assert (np.diff(found["wm"][:, 0]) < 0).all()
    assert (found["wm"][1:, 1] < 0).all()
    assert found["csf"][0, 0] > found["gm"][0, 0] > found["wm"][0, 0]


def test_bundles_and_their_ends(traveller: TravellingSubject) -> None:
    masks = traveller.truth.bundle_masks()
    assert masks["cc_body"].sum() > 300 and masks["cst_left"].sum() > 50
    ends = traveller.truth.endpoint_labels()
    assert ends.data.shape == (*traveller.truth.mask.shape, len(masks))
    assert set(np.unique(ends.data)) == {0, 1, 2}
