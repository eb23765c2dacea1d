"""What looking at every voxel finds."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri import GradientTable, Scan
from napari_dmri.signal.voxels import check_voxels


@pytest.fixture
def parts():
    bvalues = np.r_[0, np.full(6, 1000.0)]
    directions = np.vstack([np.zeros(3), np.eye(3), np.roll(np.eye(3), 1, 0)])
    data = np.full((4, 5, 6, 7), 100, np.float32)
    return data, np.eye(4), GradientTable(bvalues, directions)


def test_a_whole_scan_is_ok(parts):
    (finding,) = check_voxels(Scan(*parts))
    assert (finding.level, finding.detail) == ("ok", "120 voxels, all finite.")


def test_what_cannot_be_fitted_is_counted(parts):
    data = parts[0]
    data[0, 0, 0, 2] = np.nan
    data[0, 0, 1, 3] = -np.inf
    data[1, 1, 1, 3] = -5
    data[..., 5] = 0
    broken, empty, negative = check_voxels(Scan(*parts))
    assert "2 of 120 voxels hold NaN or Inf, in volumes 2, 3;" in broken.detail
    assert broken.volumes == (2, 3)
    assert "zeros in volume 5;" in empty.detail and empty.level == "warning"
    assert "1 values are below zero, in volume 3;" in negative.detail


def test_only_the_mask_counts(parts):
    parts[0][0, 0, 0, 2] = np.nan
    mask = np.ones((4, 5, 6), bool)
    mask[0, 0, 0] = False
    (finding,) = check_voxels(Scan(*parts, mask=mask))
    assert finding.detail == "119 voxels, all finite."


@pytest.mark.parametrize("value", [0, np.nan, -np.inf])
def test_no_signal_is_an_error(parts, value):
    parts[0][...] = value
    (finding,) = check_voxels(Scan(*parts))
    assert (finding.level, finding.title) == ("error", "No signal")
    assert "All 120 voxels are zero, NaN or Inf" in finding.detail
