from __future__ import annotations

import numpy as np

from napari_dmri.phantom.anatomy import Lesion, make_subject
from napari_dmri.phantom.composition import sample
from napari_dmri.phantom.travelling import TravellingSubject, field_of_view


def test_fractions_sum_to_one(traveller: TravellingSubject) -> None:
    held = traveller.truth.composition
    inside = held.tissue.sum(1)
    assert (held.tissue >= 0).all() and inside.max() < 1 + 1e-5
    eroded = traveller.truth.mask
    for axis in range(3):
        eroded = eroded & np.roll(eroded, 2, axis) & np.roll(eroded, -2, axis)
    assert np.allclose(traveller.truth.tissue[eroded].sum(-1), 1, atol=1e-5)
    white = held.tissue[:, 0] > 0
    assert np.allclose(held.fractions[white].sum(1), 1, atol=1e-5)
    assert (held.fractions[~white] == 0).all()


def test_populations_are_sorted_distinct_unit_vectors(traveller: TravellingSubject) -> None:
    held = traveller.truth.composition
    present = held.fractions > 0
    assert (np.diff(held.fractions, axis=1) <= 1e-6).all()
    assert np.allclose(np.linalg.norm(held.directions[present], axis=1), 1, atol=1e-5)
    both = present[:, 0] & present[:, 1]
    cosine = np.abs((held.directions[both, 0] * held.directions[both, 1]).sum(1))
    assert np.rad2deg(np.arccos(cosine.clip(0, 1))).min() > 10


def test_centrum_semiovale_has_crossings_of_two_and_three(traveller: TravellingSubject) -> None:
    held = traveller.truth.composition
    white = held.tissue[:, 0] > 0.9
    strong = (held.fractions[white] > 0.12).sum(1)
    assert (strong == 2).mean() > 0.15
    assert (strong >= 3).sum() > 200


def test_callosum_runs_sideways_and_the_cst_upwards(traveller: TravellingSubject) -> None:
    held = traveller.truth.composition
    names = traveller.truth.bundle_masks(0.6)
    first = traveller.truth.directions[..., 0, :]
    middle = names["cc_body"].copy()
    x = np.arange(middle.shape[0]) * 2.4 + traveller.truth.affine[0, 3]
    middle[np.abs(x) > 6] = False
    assert middle.sum() > 20
    assert np.abs(first[middle])[:, 0].mean() > 0.9
    assert np.abs(first[names["cst_left"]])[:, 2].mean() > 0.7
    assert np.abs(first[names["cingulum_right"]])[:, 1].mean() > 0.8
    assert held.grid.shape == (64, 76, 12)


def test_finer_sampling_agrees_on_average() -> None:
    subject = make_subject(1)
    grid = field_of_view((64, 76, 2)).grid(2.4)
    coarse, fine = sample(subject, grid), sample(subject, grid, splits=4)
    a, b = coarse.image("tissue"), fine.image("tissue")
    assert np.abs(a - b).mean() < 0.02
    assert np.allclose(a.sum((0, 1, 2)), b.sum((0, 1, 2)), rtol=0.02)


def test_a_lesion_changes_white_matter_only_inside_it() -> None:
    grid = field_of_view((64, 76, 6)).grid(2.4)
    healthy = make_subject(2)
    before = sample(healthy, grid).image("tissue")
    for kind, limit in (("oedema", 0.3), ("csf", 0.9)):
        after = sample(healthy.with_lesion(Lesion(kind)), grid).image("tissue")
        changed = np.abs(after - before).max(-1)
        assert changed.max() > limit
        assert 50 < (changed > 0.05).sum() < 400
        assert np.allclose(after.sum(-1), before.sum(-1), atol=1e-5)
