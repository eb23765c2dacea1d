"""Volumes, response rows and the forward matrix of a deconvolution."""

from __future__ import annotations

import numpy as np
import pytest
from tests.deconvolve.sticks import crossing_signal, response, scan_of, table, units

from napari_dmri.deconvolve.shells import (
    check_order,
    forward_matrix,
    match_rows,
    order_notes,
    require_anisotropy,
    select_shells,
    supported_order,
)
from napari_dmri.errors import InputError
from napari_dmri.images import Response
from napari_dmri.sphere.harmonics import design_matrix

GRADIENTS = table()
SCAN = scan_of(np.ones((1, 99)), GRADIENTS)


def test_the_highest_shell_is_the_default() -> None:
    shells = select_shells(SCAN, None, response())
    assert shells.bvalues == (3000,)
    np.testing.assert_array_equal(shells.volumes, np.arange(35, 99))
    np.testing.assert_array_equal(shells.rows, response().zonal[2:])
    assert str(shells) == "64 volumes at b=3000"


def test_a_shell_may_be_named_and_all_take_every_row() -> None:
    assert select_shells(SCAN, 1000, response()).bvalues == (1000,)
    both = select_shells(SCAN, "all", response())
    assert both.bvalues == (1000, 3000)
    assert len(both.volumes) == 96
    with_b0 = select_shells(SCAN, "all", response(), b0=True)
    assert str(with_b0) == "3 b0 volumes + 32 at b=1000 + 64 at b=3000: 99 volumes"


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(InputError, match="has b=1000, 3000"):
        select_shells(SCAN, 2000, response())
    with pytest.raises(InputError, match="'every'"):
        select_shells(SCAN, "every", response())


def test_rows_are_matched_by_b_value_within_100() -> None:
    near = Response(response().zonal, (0, 1040, 2950), "wm")
    np.testing.assert_array_equal(match_rows(near, (1000, 3000)), near.zonal[1:])


def test_a_response_of_other_shells_is_refused_with_both_sets() -> None:
    other = Response(response().zonal, (0, 700, 2000), "wm")
    with pytest.raises(InputError, match=r"b = 0, 700, 2000 and no row for b = 1000, 3000"):
        select_shells(SCAN, "all", other)
    no_b0 = Response(response().zonal[1:], (60, 3000), "wm")
    with pytest.raises(InputError, match="no row for b = 0"):
        match_rows(no_b0, (0,))


@pytest.mark.parametrize(("rows", "expected"), [(slice(0, 3), 2), (slice(1, 3), 1)])
def test_rows_without_b_values_are_matched_by_their_number(rows: slice, expected: int) -> None:
    plain = Response(response().zonal[rows], None, "wm")
    chosen = select_shells(SCAN, None, plain)
    np.testing.assert_array_equal(chosen.rows, plain.zonal[expected : expected + 1])


def test_a_single_row_belongs_to_the_shell_that_is_asked_for() -> None:
    one = Response(response().zonal[2:], None, "wm")
    np.testing.assert_array_equal(select_shells(SCAN, 3000, one).rows, one.zonal)
    with pytest.raises(InputError, match="1 rows without b-values"):
        select_shells(SCAN, "all", one)


def test_too_many_rows_without_b_values_are_refused() -> None:
    four = Response(np.ones((4, 3)), None, "wm")
    with pytest.raises(InputError, match="4 rows without b-values"):
        select_shells(SCAN, None, four)


def test_the_forward_matrix_of_a_delta_is_the_signal_of_its_fibre() -> None:
    fibres = units(5)[:, None]
    truth = crossing_signal(GRADIENTS, fibres, np.ones((5, 1)))
    forward = forward_matrix(GRADIENTS, np.arange(99), response(16), 16)
    predicted = design_matrix(fibres[:, 0], 16) @ forward.T
    np.testing.assert_allclose(predicted, truth, atol=0.01)


def test_orders_above_the_response_are_unseen_and_b0_sees_order_0_alone() -> None:
    forward = forward_matrix(GRADIENTS, np.arange(99), response(4), 8)
    assert (forward[:, 15:] == 0).all()
    assert (forward[:3, 1:] == 0).all()
    np.testing.assert_allclose(forward[:3, 0], response().zonal[0, 0])
    assert forward_matrix(GRADIENTS, np.arange(99), response(4), 0).shape == (99, 1)


@pytest.mark.parametrize("order", [7, 0, -2, 18])
def test_an_order_that_is_odd_or_out_of_range_is_refused(order: int) -> None:
    with pytest.raises(InputError, match="even number from 2 to 16"):
        check_order(order)


def test_a_response_without_anisotropy_or_signal_is_refused() -> None:
    with pytest.raises(InputError, match="same in all directions"):
        require_anisotropy(np.array([[100.0, 0.0, 0.0]]), (3000,))
    with pytest.raises(InputError, match="same in all directions"):
        require_anisotropy(np.array([[100.0]]), (3000,))
    with pytest.raises(InputError, match="must be positive"):
        require_anisotropy(np.array([[0.0, -3.0]]), (3000,))


def test_notes_say_where_constraints_decide() -> None:
    shells = select_shells(SCAN, None, response())
    assert supported_order(64) == 8
    assert order_notes(8, response(), shells) == ()
    notes = order_notes(12, response(), shells)
    assert "64 distinct directions determine order 8" in notes[0]
    assert "the response has order 8" in notes[1]
