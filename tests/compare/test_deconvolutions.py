"""The table of several deconvolutions: known angles, medians and counts."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare.deconvolutions import MethodRun, first_peak_angles, method_table
from napari_dmri.compare.methods_text import methods_text
from napari_dmri.deconvolve.base import Deconvolution
from napari_dmri.errors import InputError
from napari_dmri.images import PeakImage, ScalarImage, ShImage
from napari_dmri.provenance import provenance

GRID = (4, 2, 1)


def peaks(degrees: float, count: int = 1) -> PeakImage:
    """Give each voxel a first peak turned away from x, and `count - 1` more along z."""
    directions = np.zeros((*GRID, 3, 3), np.float32)
    angle = np.deg2rad(degrees)
    directions[..., 0, :] = [-np.cos(angle), -np.sin(angle), 0]
    directions[..., 1:count, :] = [0, 0, 1]
    amplitudes = np.zeros((*GRID, 3), np.float32)
    amplitudes[..., :count] = 1
    return PeakImage(directions, amplitudes, np.eye(4))


def run(label: str, degrees: float, residual: float, count: int = 1) -> MethodRun:
    coefficients = np.ones((*GRID, 6), np.float32)
    coefficients[2:, ..., 0] = 2
    fod = ShImage(coefficients, np.eye(4), name=f"sub-01 | {label}")
    image = ScalarImage(np.full(GRID, residual, np.float32), np.eye(4))
    result = Deconvolution(fod, {"residual": image}, volumes=(1, 2, 3), voxels=8)
    return MethodRun(label, result, peaks(degrees, count), 1.5)


def test_angles_are_between_axes():
    assert np.allclose(first_peak_angles(peaks(10), peaks(40)), 30, atol=1e-4)
    assert np.allclose(first_peak_angles(peaks(0), peaks(170)), 10, atol=1e-4)
    none = PeakImage(
        np.zeros((*GRID, 1, 3), np.float32), np.zeros((*GRID, 1), np.float32), np.eye(4)
    )
    assert np.isnan(first_peak_angles(peaks(0), none)).all()
    other = PeakImage(np.zeros((1, 1, 1, 1, 3)), np.zeros((1, 1, 1, 1)), np.eye(4))
    with pytest.raises(InputError, match="voxels"):
        first_peak_angles(peaks(0), other)


def test_the_table_tells_each_method_by_its_numbers():
    table = method_table([run("CSD", 0, 0.02), run("RUMBA-SD", 25, 0.01, count=2)])
    assert table.title == "Deconvolutions of sub-01"
    first, second = table["CSD"], table["RUMBA-SD"]
    assert first["angle to CSD (°)"] is None
    assert second["angle to CSD (°)"] == pytest.approx(25, abs=1e-3)
    assert (first["peaks per voxel"], second["peaks per voxel"]) == (1, 2)
    assert second["residual"] == pytest.approx(0.01)
    assert (second["seconds"], second["voxels"], second["volumes"]) == (1.5, 8, 3)
    assert table.to_tsv().startswith("method\tresidual\tpeaks per voxel\tangle to CSD (°)")


def test_methods_text_tells_how_fibres_were_found():
    records = [
        provenance("response", {"algorithm": "auto", "order": 10, "noise": True},
                   citations=("Dhollander T. 2016.",), fibre={"sticks": 0.5}),
        provenance("csd", {"order": 8, "shell": 3000.0, "regulariser": 1e-3, "directions": 180},
                   citations=("Tournier J-D. 2007.",), volumes=list(range(64))),
        provenance("msmt-csd", {"order": 8, "regulariser": 1e-3}, volumes=[1, 2]),
        provenance("rumba-tv", {"iterations": 600, "order": 12, "accelerate": True}),
        provenance("peaks", {"threshold": 0.1, "most": 10, "separation": 5.0}),
    ]  # fmt: skip
    text = methods_text(records)
    assert "estimated unsupervised from the scan, up to order 10" in text
    assert "the spread of fibres within voxels and the bias of Rician noise taken out [1]" in text
    assert "shell at b = 3000 s/mm² (64 volumes), non-negative in 180 directions" in text
    assert "regulariser of 0.001 [2]" in text
    assert "amounts of grey matter and CSF" in text
    assert "total variation along space (RUMBA-TV) in 600 accelerated iterations" in text
    assert "at least 5 degrees apart and of at least 10 % of the largest" in text
    assert "[1] Dhollander" in text and "[2] Tournier" in text
