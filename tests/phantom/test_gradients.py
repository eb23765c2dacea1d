from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.phantom.gradients import electrostatic_directions, make_table
from napari_dmri.sphere.harmonics import design_matrix


def test_directions_are_even() -> None:
    for count, order, limit in ((30, 4, 3), (64, 8, 10)):
        directions = electrostatic_directions(count, 3)
        assert np.allclose(np.linalg.norm(directions, axis=1), 1)
        cosines = np.abs(directions @ directions.T) - np.eye(count)
        assert np.rad2deg(np.arccos(cosines.max())) > 0.75 * np.rad2deg(np.sqrt(2 * np.pi / count))
        assert np.linalg.cond(design_matrix(directions, order)) < limit


def test_sets_differ_by_seed_and_repeat() -> None:
    assert np.array_equal(electrostatic_directions(12, 1), electrostatic_directions(12, 1))
    assert not np.allclose(electrostatic_directions(12, 1), electrostatic_directions(12, 2))


def test_table_has_what_was_asked() -> None:
    table = make_table(((1000.0, 30), (3000.0, 64)), 6)
    assert table.summary() == "6 b0 + 30 at b=1000 + 64 at b=3000"
    assert table.bvalues[0] == 0


def test_bad_tables_are_refused() -> None:
    with pytest.raises(InputError, match="0 gradient directions"):
        electrostatic_directions(0)
    with pytest.raises(InputError, match="0 b0"):
        make_table(((1000.0, 6),), 0)
