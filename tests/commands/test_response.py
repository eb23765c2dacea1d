"""The verb response: its files, its words, the mean of several scans, and refusals."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri.cli import app
from napari_dmri.deconvolve.response_kernel import kernel_zonal
from napari_dmri.io import read_labels, write_scan
from napari_dmri.io.responses import read_responses
from napari_dmri.scan import GradientTable, Scan

runner = CliRunner()


def write(path: Path, scale: float = 100.0) -> Path:
    rng = np.random.default_rng(1)
    k = np.arange(40) + 0.5
    z, phi = k / 40, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    g = np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)
    table = GradientTable(np.r_[0, 0, np.full(40, 1000)], np.vstack([np.zeros((2, 3)), g]))
    fibres = rng.normal(size=(8, 8, 6, 3))
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    data = np.exp(-1e-3 * table.bvalues * (0.3 + 1.4 * (fibres @ table.directions.T) ** 2))
    data = scale * data + rng.normal(0, scale / 50, data.shape)
    write_scan(Scan(data.astype(np.float32), np.diag([2.0, 2, 2, 1]), table), path)
    return path


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    scan = write(tmp_path / "dwi.nii.gz")
    out, labels, plot = (tmp_path / n for n in ("r.txt", "voxels.nii.gz", "shape.png"))
    command = ["response", str(scan), "-o", str(out), "--voxels", str(labels), "--plot", str(plot)]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "no grey matter and no CSF was found" in result.stdout
    found = read_responses(out)
    assert list(found) == ["wm"]
    expected = 100 * kernel_zonal([1000.0], 0, 1.7, 0.3, 10)[0]
    np.testing.assert_allclose(found.wm.zonal[1], expected, atol=0.03 * expected[0])
    assert int((read_labels(labels).data == 1).sum()) == found.wm.voxels
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = runner.invoke(app, command)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert runner.invoke(app, [*command, "--overwrite", "-q"]).stdout == ""


def test_several_scans_give_their_mean(tmp_path: Path) -> None:
    scans = [str(write(tmp_path / f"{n}.nii.gz", scale)) for n, scale in (("a", 100), ("b", 110))]
    out = tmp_path / "mean_wm.txt"
    options = ["--algorithm", "fa", "--order", "6", "--json"]
    result = runner.invoke(app, ["response", *scans, "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert about["tissues"]["wm"]["bvalues"] == [0, 1000]
    assert read_responses(out).wm.zonal[0, 0] == pytest.approx(105 * np.sqrt(4 * np.pi), rel=0.01)
    assert read_responses(out).wm.order == 6
    refused = runner.invoke(
        app, ["response", *scans, "-o", str(tmp_path / "x.txt"), "--mask", scans[0]]
    )
    assert refused.exit_code == 2
    assert "belong to one scan and 2 are given" in refused.stderr


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    scan = str(write(tmp_path / "dwi.nii.gz"))
    out = tmp_path / "r.txt"
    (tmp_path / "r_gm.txt").write_text("1\n")
    for options, words in (
        (["-o", str(out)], "r_gm.txt exists already"),
        (["-o", str(tmp_path / "gm.txt")], "named as the gm response"),
        (["-o", str(tmp_path / "w.txt"), "--plot", "x.jpg"], "choose one of"),
        (["-o", str(tmp_path / "dwi.bval"), "--overwrite"], "choose one of .txt"),
        (["-o", str(tmp_path / "dwi.nii.gz"), "--overwrite"], "choose one of .txt"),
        (["-o", str(tmp_path / "w.txt"), "--algorithm", "best"], "best"),
    ):
        result = runner.invoke(app, ["response", scan, *options])
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("w*"))
