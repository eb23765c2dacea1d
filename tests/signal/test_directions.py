"""Directions: angles, holes and balance of sets whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.signal.directions import (
    condition_numbers,
    distinct_axes,
    largest_hole,
    nearest_angles,
    one_sidedness,
)

AXES = np.eye(3)


def test_opposite_and_near_directions_are_one_axis():
    near = np.array([np.cos(0.01), np.sin(0.01), 0])
    assert len(distinct_axes(np.array([*AXES, *-AXES, near]))) == 3


def test_the_axes_are_at_right_angles_with_a_hole_in_each_octant():
    np.testing.assert_allclose(nearest_angles(AXES), 90)
    radius, centre = largest_hole(AXES)
    assert radius == pytest.approx(np.rad2deg(np.arccos(1 / np.sqrt(3))), abs=1.5)
    np.testing.assert_allclose(np.abs(centre), 1 / np.sqrt(3), atol=0.04)


def test_balance_is_the_length_of_the_mean_vector():
    assert one_sidedness(np.array([*AXES, *-AXES])) == 0
    assert one_sidedness(AXES) == pytest.approx(1 / np.sqrt(3))


def test_orders_beyond_the_directions_are_singular():
    numbers = condition_numbers(AXES)
    assert all(np.isinf(value) for value in numbers.values())
