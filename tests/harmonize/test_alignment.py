import numpy as np
import pytest
from scipy import ndimage

from napari_dmri import Cancelled, InputError
from napari_dmri.harmonize import alignment
from napari_dmri.harmonize.alignment import Channels, Warp, agreement, register_rigid
from napari_dmri.harmonize.syn import register_syn
from napari_dmri.harmonize.template import build_template, to_template

from .conftest import AFFINE, SHAPE, smooth_noise


def brain(seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), axis=-1)
    mask = (grid[..., 0] / 0.7) ** 2 + (grid[..., 1] / 0.75) ** 2 < 1
    images = tuple(
        (np.clip(1 + 0.4 * smooth_noise(rng, 1.8), 0, None) * mask).astype(np.float32)
        for _ in range(2)
    )
    return Channels(images, mask, AFFINE)


def motion(degrees=4.0, shift=(2.0, -1.5, 0.6)):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


def bent(channels, seed=1, amplitude=(1.6, 1.6, 0.4)):
    rng = np.random.default_rng(seed)
    at = np.stack(
        [
            i + a * smooth_noise(rng, 4) / 2
            for i, a in zip(np.indices(SHAPE), amplitude, strict=True)
        ]
    )
    images = [
        ndimage.map_coordinates(i, at, order=1, mode="nearest").astype(np.float32)
        for i in channels.images
    ]
    mask = ndimage.map_coordinates(channels.mask.astype(float), at, order=1, mode="nearest") > 0.5
    return Channels(tuple(i * mask for i in images), mask, channels.affine)


def test_same_head_on_the_same_grid_stays():
    one = brain()
    np.testing.assert_array_equal(register_rigid(one, one), np.eye(4))


def test_rigid_motion_of_the_frame_is_found():
    one, true = brain(), motion()
    other = Channels(one.images, one.mask, true @ one.affine)
    found = register_rigid(one, other)
    corners = np.array([[-20, -25, -10, 1], [20, 25, 10, 1], [-20, 25, 0, 1.0]])
    assert np.abs((found - true) @ corners.T).max() < 0.5
    assert agreement(one, other, found)[0] > 0.98


def test_far_frames_start_from_the_centres():
    one, true = brain(), motion(0, (90.0, -120.0, 60.0))
    other = Channels(one.images, one.mask, true @ one.affine)
    np.testing.assert_allclose(register_rigid(one, other), true, atol=0.3)


def test_syn_brings_both_channels_closer():
    one = brain()
    other = bent(one)
    plain = Warp(np.eye(4), one.shape, one.affine, other.shape, other.affine)
    warp = register_syn(one, other, np.eye(4), iterations=(20, 15))
    core = ndimage.binary_erosion(one.mask & other.mask, iterations=2, border_value=1)
    for mine, theirs in zip(one.images, other.images, strict=True):
        before, after = (
            np.corrcoef(mine[core], w.to_static(theirs)[core])[0, 1] for w in (plain, warp)
        )
        assert after > 0.95 and after > before + 0.01


def test_warp_and_its_inverse_agree():
    one = brain()
    other = bent(one)
    warp = register_syn(one, other, motion(1, (0.5, 0, 0)), iterations=(10, 8))
    points = np.moveaxis(np.indices(SHAPE), 0, -1)[6:16, 7:19, 4:8].reshape(-1, 3)
    world = points @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    back = warp.field.transform_points_inverse(warp.points(world))
    assert np.abs(back - world).max() < 0.3
    x = np.indices(other.shape)[0].astype(np.float32)
    seen = warp.to_static(x)[6:16, 7:19, 4:8].ravel()
    expected = (warp.points(world) - AFFINE[:3, 3]) / 2.4
    np.testing.assert_allclose(seen, expected[:, 0], atol=1e-3)


def test_an_affine_behind_a_warp_is_one_interpolation():
    one = brain()
    true = motion()
    third = Channels(one.images, one.mask, true @ one.affine)
    plain = Warp(np.eye(4), one.shape, one.affine, one.shape, one.affine)
    chain = plain.after(true, third.shape, third.affine)
    np.testing.assert_allclose(chain.to_static(third.images[0]), one.images[0], atol=1e-5)


def test_registration_stops_when_told():
    def progress(fraction, text):
        if calls.append(text) or len(calls) > 3:
            raise Cancelled

    one = brain()
    for action in (
        lambda: register_rigid(one, bent(one), progress=progress),
        lambda: register_syn(one, bent(one), np.eye(4), progress=progress),
    ):
        calls = []
        with pytest.raises(Cancelled):
            action()
        assert len(calls) == 4


def test_template_settles_and_is_repeatable():
    brains = [bent(brain(), seed) for seed in (1, 2)]
    made = [
        build_template(brains, "ab", rounds=3, tolerance=0.05, iterations=(12, 8)) for _ in range(2)
    ]
    assert made[0].settled and made[0].rounds <= 3
    assert made[0].changes[-1] < 0.05
    np.testing.assert_array_equal(made[0].channels.images[0], made[1].channels.images[0])
    core = ndimage.binary_erosion(made[0].channels.mask, iterations=3, border_value=1)
    for warp, one in zip(made[0].warps, brains, strict=True):
        seen = warp.to_static(one.normalised()[0])[core]
        assert np.corrcoef(seen, made[0].channels.images[0][core])[0, 1] > 0.9


def test_brains_that_do_not_belong_together():
    one = brain()
    part = one.mask.copy()
    part[:, 8:] = False
    with pytest.raises(InputError, match=r"other cannot be aligned with the template.*overlap by"):
        to_template(one, Channels(one.images, part & (np.indices(SHAPE)[2] < 4), AFFINE), "other")


def test_empty_masks_and_images():
    one = brain()
    with pytest.raises(InputError, match="mask to align is empty"):
        register_rigid(one, Channels(one.images, one.mask & False, AFFINE))
    dark = Channels((np.zeros(SHAPE, np.float32),) * 2, one.mask, AFFINE)
    with pytest.raises(InputError, match="zero or not finite"):
        register_rigid(one, dark)


def test_mean_of_affines():
    both = alignment.mean_affine([motion(6, (0, 0, 1)), motion(2, (0, 0, 3))])
    np.testing.assert_allclose(both, motion(4, (0, 0, 2)), atol=1e-9)
