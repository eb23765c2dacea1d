import numpy as np
import pytest
from scipy import ndimage

from napari_dmri.harmonize import scale_maps

SIZE = np.array([2.0, 2.0, 2.0])


@pytest.fixture
def ball():
    grid = np.indices((24, 24, 24)) - 11.5
    return (grid**2).sum(0) < 100


def test_root_of_the_ratio(ball):
    ratios = np.stack([np.full(ball.shape, v) for v in (1.44, 0.81)], -1)
    maps = scale_maps.finish(ratios, ball, SIZE)
    np.testing.assert_allclose(maps.scales[ball], [[1.2, 0.9]] * ball.sum(), rtol=1e-6)
    assert (maps.scales[~ball] == 1).all()
    assert maps.capped == (0, 0) and maps.rim == (0, 0)


def test_capped_voxels_are_counted(ball):
    ratios = np.ones((*ball.shape, 1))
    ratios[10:12, 10, 10] = 9.0
    ratios[13, 12, 12] = 0.01
    maps = scale_maps.finish(ratios, ball, SIZE, cap=(0.5, 2.0))
    assert maps.capped == (3,)
    assert maps.scales.max() == 2 and maps.scales.min() == 0.5


def test_rim_gets_its_surroundings(ball):
    ratios = np.ones((*ball.shape, 1))
    edge = ball & ~ndimage.binary_erosion(ball)
    spots = np.argwhere(edge)[::40]
    ratios[tuple(spots.T)] = 3.0
    maps = scale_maps.finish(ratios, ball, SIZE, rim=6.0)
    assert maps.rim[0] == len(spots)
    np.testing.assert_allclose(maps.scales[ball], 1)
    kept = scale_maps.finish(ratios, ball, SIZE, rim=0.0)
    assert kept.scales[tuple(spots.T)].min() > 1.7


def test_slab_faces_are_no_rim():
    slab = np.zeros((20, 20, 5), bool)
    slab[4:16, 4:16] = True
    ring = scale_maps.ring(slab, 4.0, SIZE)
    assert ring[4:6, 4:16].all() and not ring[7:13, 7:13].any()


def test_only_the_largest_part_is_kept(ball):
    mask = ball.copy()
    mask[0, 0, 0] = True
    maps = scale_maps.finish(np.ones((*ball.shape, 1)), mask, SIZE)
    np.testing.assert_array_equal(maps.mask, ball)


def test_smoothing_stays_inside(ball):
    ratios = np.where(ball, 1.44, 100.0)[..., None]
    maps = scale_maps.finish(ratios, ball, SIZE, fwhm=6.0)
    np.testing.assert_allclose(maps.scales[ball], 1.2, rtol=1e-5)


def test_ratio_is_held_where_there_is_no_energy():
    source = np.array([[1.0], [0.0]])
    quotient = scale_maps.ratio(source + 1, source, np.array([True, True]), (0.5, 2.0))
    np.testing.assert_allclose(quotient[:, 0], [2.0, 16.0], rtol=1e-6)
    assert np.isnan(scale_maps.ratio(source, source, np.array([True, False]), (0.5, 2)))[1].all()


def test_extend_takes_the_nearest(ball):
    values = np.where(ball, 3.0, 0.0)[..., None] * np.ones(2)
    assert (scale_maps.extend(values, ball) == 3).all()
