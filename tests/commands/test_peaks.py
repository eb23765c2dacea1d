"""The verb `peaks`: what it writes, both bases, lobes, and refusals."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri import ShImage, read_peaks, write_sh
from napari_dmri.cli import app
from napari_dmri.io import read_map
from napari_dmri.sphere.harmonics import degrees, design_matrix

runner = CliRunner()
AXES = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])


@pytest.fixture
def fod() -> ShImage:
    """Return two lobes, 0.7 and 0.3, in every voxel but the first plane's."""
    lobes = design_matrix(AXES, 8) * np.exp(-(degrees(8) ** 2) / 30)
    coefficients = np.tile([0.7, 0.3] @ lobes, (4, 3, 2, 1)).astype(np.float32)
    coefficients[0] = 0
    return ShImage(coefficients, np.diag([2.0, 2, 2, 1]), name="fod")


def run(*words: object) -> str:
    result = runner.invoke(app, ["peaks", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "basis"), [("fod.mif", "tournier07"), ("fod.nii.gz", "descoteaux07_legacy")]
)
def test_peaks_are_written(tmp_path: Path, fod: ShImage, name: str, basis: str) -> None:
    write_sh(fod, tmp_path / name, basis=basis)
    out = tmp_path / "peaks.nii.gz"
    text = run(tmp_path / name, "-o", out, "--threshold", "0.2", "--max", "4")
    assert "36 peaks in 18 of 24 voxels, 2.00 a voxel" in text
    found = read_peaks(out)
    assert found.shape == (4, 3, 2, 4)
    assert not found.amplitudes[0].any()
    assert np.allclose(np.abs(found.directions[1:, ..., :2, :] @ AXES.T), np.eye(2), atol=2e-3)


def test_lobes_and_json(tmp_path: Path, fod: ShImage) -> None:
    write_sh(fod, tmp_path / "fod.mif")
    out, afd, spread = (tmp_path / n for n in ("p.mif", "afd.nii.gz", "spread.nii.gz"))
    text = run(tmp_path / "fod.mif", "-o", out, "--afd", afd, "--dispersion", spread,
               "--threshold", "0.2", "--json")  # fmt: skip
    said = json.loads(text)
    assert (said["peaks"], said["voxels"]) == (36, 18)
    assert all((tmp_path / n).exists() for n in said["written"])
    density = read_map(afd).data[1, 0, 0]
    assert density[:2] == pytest.approx([0.7, 0.3], rel=0.15)
    assert read_map(spread).units == "degrees"


def test_refusals(tmp_path: Path, fod: ShImage) -> None:
    write_sh(fod, tmp_path / "fod.mif")

    def refused(*words: object) -> str:
        result = runner.invoke(app, ["peaks", str(tmp_path / "fod.mif"), *map(str, words)])
        assert result.exit_code == 2
        return result.output

    assert "ends with .txt" in refused("-o", tmp_path / "p.txt")
    assert "share of the voxel" in refused("-o", tmp_path / "p.nii", "--threshold", 3)
    assert "files of one name" in refused("-o", tmp_path / "p.nii", "--afd", tmp_path / "p.nii.gz")
    assert not (tmp_path / "p.nii").exists()
    assert "take the place" in refused("-o", tmp_path / "fod.nii.gz")
    run(tmp_path / "fod.mif", "-o", tmp_path / "p.nii", "--quiet")
    assert "exists already" in refused("-o", tmp_path / "p.nii")
