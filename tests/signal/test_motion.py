"""Motion: rigid movements that were applied to an analytic head are recovered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri.errors import Cancelled, InputError
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.signal.motion import estimate_motion, framewise_displacement

SHAPE = (44, 50, 40)
AFFINE = np.array(
    [[3.0, 0.1, -0.2, -64.0], [-0.1, 3.0, 0.3, -70.0], [0.2, -0.3, 3.0, -61.0], [0, 0, 0, 1]]
)
CENTRE = AFFINE[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + AFFINE[:3, 3]


def spiral(count):
    i = np.arange(count) + 0.5
    z = i / count
    phi = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)


BLOBS = np.random.default_rng(5).uniform((-34, -46, -30), (34, 46, 30), size=(36, 3))
FIBRES = np.random.default_rng(6).normal(size=(36, 3))
FIBRES /= np.linalg.norm(FIBRES, axis=1, keepdims=True)


def head(places, bvalue, direction):
    """Signal of the head at places (3, n) relative to the centre (mm), smooth everywhere.

    Grey matter, with blobs of fluid (bright at b0, dark after), of other T2 (at all b) and of
    fibres (dark along their direction).
    """
    radius = np.sqrt(((places / np.array([[46.0], [60], [40]])) ** 2).sum(0))
    inside = 1 / (1 + np.exp((radius - 1) * 16))
    grey = np.exp(-bvalue * 0.8e-3)
    signal = 600 * grey * inside
    for k, (centre, fibre) in enumerate(zip(BLOBS, FIBRES, strict=True)):
        near = np.exp(-((places - centre[:, None]) ** 2).sum(0) / (2 * 8.0**2))
        if k % 3 == 0:
            change = 1200 * np.exp(-bvalue * 2.8e-3) - 600 * grey
        elif k % 3 == 1:
            change = (300 if k % 2 else -300) * grey
        else:
            change = 500 * np.exp(-bvalue * (0.4e-3 + 1.2e-3 * (fibre @ direction) ** 2))
            change -= 600 * grey
        signal += change * near * inside
    return np.maximum(signal, 0)


def simulate(translations, rotations, bvalues, directions, noise=10.0, **kwargs):
    """The head moved in the scanner: tissue at x goes to R (x - centre) + centre + t."""
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).reshape(3, -1)
    places = AFFINE[:3, :3] @ voxels + AFFINE[:3, 3:] - CENTRE[:, None]
    rng = np.random.default_rng(1)
    data = np.empty((*SHAPE, len(bvalues)), np.float32)
    for i in range(len(bvalues)):
        turn = Rotation.from_euler("xyz", rotations[i], degrees=True).as_matrix()
        origin = turn.T @ (places - np.asarray(translations[i])[:, None])
        signal = head(origin, bvalues[i], directions[i])
        signal = np.hypot(
            signal + noise * rng.normal(size=signal.shape), noise * rng.normal(size=signal.shape)
        )
        data[..., i] = signal.reshape(SHAPE)
    return Scan(data, AFFINE, GradientTable(bvalues, directions), **kwargs)


def moves(count, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    translations = np.cumsum(rng.normal(size=(count, 3)) * 0.4, 0) * size
    rotations = np.cumsum(rng.normal(size=(count, 3)) * 0.4, 0) * size
    return translations - translations[0], rotations - rotations[0]


@pytest.fixture(scope="module")
def table():
    bvalues = np.r_[0, 0, np.full(16, 1000.0)]
    return bvalues, np.concatenate([np.zeros((2, 3)), spiral(16)])


@pytest.fixture(scope="module")
def moving(table):
    translations, rotations = moves(18)
    translations[2:] += translations[1] - translations[2]
    rotations[2:] += rotations[1] - rotations[2]
    translations[10:] += (3.0, -2.0, 1.0)
    rotations[14:] += (0.0, 2.0, -3.0)
    return simulate(translations, rotations, *table), translations, rotations


def test_applied_movements_are_recovered(moving):
    scan, translations, rotations = moving
    found = estimate_motion(scan)
    np.testing.assert_allclose(found.translations, translations, atol=0.3)
    np.testing.assert_allclose(found.rotations, rotations, atol=0.3)
    expected = framewise_displacement(translations, rotations)
    assert found.displacement[0] == 0
    np.testing.assert_allclose(found.displacement, expected, atol=0.8)
    assert {int(i) for i in np.argsort(-found.displacement)[:2]} == {10, 14}
    np.testing.assert_allclose(found.centre, CENTRE)
    assert "volume" in found.sentence()


def test_a_matrix_takes_places_of_volume_0_to_the_volume(moving):
    scan, _, _ = moving
    found = estimate_motion(scan)
    moved = found.matrix(12) @ np.append(CENTRE, 1)
    np.testing.assert_allclose(moved[:3] - CENTRE, found.translations[12], atol=1e-9)
    np.testing.assert_allclose(found.matrix(0), np.eye(4), atol=1e-9)


def test_a_head_at_rest_stays_at_rest(table):
    scan = simulate(np.zeros((18, 3)), np.zeros((18, 3)), *table)
    found = estimate_motion(scan)
    assert np.abs(found.translations).max() < 0.25
    assert np.abs(found.rotations).max() < 0.5


def test_brightness_is_no_motion_and_nan_is_survived(moving):
    scan, translations, _ = moving
    data = scan.volumes().copy()
    data *= np.linspace(0.7, 1.3, data.shape[3], dtype=np.float32)
    data[20, 20, 20, 3] = np.nan
    found = estimate_motion(replace(scan, data=data))
    np.testing.assert_allclose(found.translations, translations, atol=0.4)


def test_power_displacement_adds_arcs_at_50_mm():
    translations = np.array([[0, 0, 0], [1.0, -2, 0], [1, -2, 0.5]])
    rotations = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 1.0]])
    np.testing.assert_allclose(
        framewise_displacement(translations, rotations), [0, 3 + 50 * np.pi / 180, 0.5]
    )


def test_an_empty_scan_does_not_move():
    table = GradientTable(np.r_[0, np.full(9, 1000.0)], np.r_[np.zeros((1, 3)), spiral(9)])
    found = estimate_motion(Scan(np.zeros((12, 12, 6, 10), np.float32), np.eye(4), table))
    assert (found.displacement == 0).all()
    one = estimate_motion(
        Scan(np.ones((6, 6, 4, 1), np.float32), np.eye(4), GradientTable([0], [[0, 0, 0]]))
    )
    assert one.displacement.shape == (1,)
    assert "one volume" in one.sentence()


def test_a_thin_slab_is_not_judged(moving):
    scan, _, _ = moving
    whole = estimate_motion(scan)
    assert whole.judged and "mean" in whole.sentence()
    thin = replace(whole, extent=np.array([120.0, 140.0, 28.8]))
    assert not thin.judged
    assert "cannot be judged: the image is only 29 mm thick" in thin.sentence()
    assert "mean" not in thin.sentence()


def test_interleaved_b0_volumes_follow_their_neighbours():
    bvalues = np.full(18, 1000.0)
    bvalues[[0, 6, 12]] = 0
    translations, rotations = np.zeros((18, 3)), np.zeros((18, 3))
    translations[6:] = (0.0, 1.5, 0.0)
    rotations[12:] = (2.0, 0.0, 0.0)
    scan = simulate(translations, rotations, bvalues, spiral(18) * (bvalues > 0)[:, None])
    found = estimate_motion(scan)
    np.testing.assert_allclose(found.translations, translations, atol=0.5)
    np.testing.assert_allclose(found.rotations, rotations, atol=0.5)
    assert {int(i) for i in np.argsort(-found.displacement)[:2]} == {6, 12}


def test_a_mask_of_another_grid_is_refused(moving):
    with pytest.raises(InputError, match="shape"):
        estimate_motion(moving[0], mask=np.ones((2, 2, 2), bool))


def test_cancel_passes_through_and_progress_rises(moving):
    seen = []

    def watch(fraction, _text):
        seen.append(fraction)
        if fraction > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        estimate_motion(moving[0], progress=watch)
    assert all(a <= b for a, b in pairwise(seen))
