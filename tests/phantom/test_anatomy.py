from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.phantom.anatomy import Lesion, make_subject, tissue_at
from napari_dmri.phantom.bundles import all_bundles, bundle_names


def test_known_places_hold_their_tissue() -> None:
    subject = make_subject(0, strength=0)
    places = {
        (8.0, 5.0, 18.0): 2,  # lateral ventricle
        (0.0, 50.0, 40.0): 2,  # interhemispheric fissure
        (27.5, 0.0, 1.0): 1,  # putamen
        (24.0, -14.0, 34.0): 0,  # centrum semiovale
        (0.0, -5.0, 28.5): 0,  # callosum
    }
    points = np.array(list(places), np.float32)
    found = tissue_at(subject, points, 0.3).fractions
    assert found.argmax(1).tolist() == list(places.values())
    outside = tissue_at(subject, np.float32([[90, 0, 0]]), 0.3).fractions
    assert outside.sum() == 0


def test_subjects_differ_and_repeat() -> None:
    a, again, b = make_subject(0), make_subject(0), make_subject(1)
    assert np.array_equal(a.bundle_radii, again.bundle_radii) and a.intra == again.intra
    assert not np.array_equal(a.bundle_radii, b.bundle_radii) and a.intra != b.intra
    assert a.label == "sub-01" and b.label == "sub-02"
    assert make_subject(0, seed=8).diffusivity != a.diffusivity


def test_at_least_ten_named_bundles() -> None:
    names = bundle_names()
    assert len(names) >= 10 and len(set(names)) == len(names)
    wanted = ["cc_genu", "cc_body", "cc_splenium", "cst_left", "slf_right", "cingulum_left"]
    wanted += ["uncinate_left", "arcuate_right", "fornix_left"]
    assert set(wanted) <= set(names)
    for bundle in all_bundles():
        assert np.isfinite(bundle.points).all() and (bundle.radii > 0).all()


def test_fornix_sides_kiss_without_crossing() -> None:
    by_name = dict(zip(bundle_names(), all_bundles(), strict=True))
    left, right = by_name["fornix_left"], by_name["fornix_right"]
    apart = np.linalg.norm(left.points - right.points, axis=1)
    assert apart.min() < left.radii.max() + right.radii.max()
    assert (left.points[:, 0] < 0).all() and (right.points[:, 0] > 0).all()
    assert apart[-1] > 30


def test_an_oedema_may_surround_a_cavity() -> None:
    centre = (27.0, 12.0, 30.0)
    points = np.array(centre, np.float32) + np.array([[0, 0, 0], [0, 6, 0]], np.float32)

    def white(lesion: Lesion | None) -> np.ndarray:
        return tissue_at(make_subject(0).with_lesion(lesion), points, 1.0).fractions[:, 0]

    healthy = white(None)
    assert (healthy > 0.9).all()
    oedema = Lesion("oedema", centre, radius=12, water=0.4)
    np.testing.assert_allclose(white(oedema), 0.6 * healthy, rtol=1e-5)
    around = white(Lesion("oedema", centre, radius=12, water=0.4, cavity=4))
    np.testing.assert_allclose(around, [0, 0.6 * healthy[1]], rtol=1e-5, atol=1e-6)


def test_bad_subjects_and_lesions_are_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        make_subject(-1)
    with pytest.raises(InputError, match="oedema or csf"):
        Lesion("tumour")
    with pytest.raises(InputError, match="radius 0 mm"):
        Lesion(radius=0)
    with pytest.raises(InputError, match=r"radius 9 mm and a cavity of 9 mm"):
        Lesion(cavity=9)
