"""The verb `deconvolve apply`: files that MRtrix3 reads, what it says, and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path  # noqa: TC003

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri.cli import app
from napari_dmri.io import read_map, read_sh
from napari_dmri.io.bids import sidecar_path
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import half_sphere

runner = CliRunner()
SHAPE = (12, 8, 6)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2.0, 0, -7], [0, 0, 2.5, -6], [0, 0, 0, 1]])


def write(folder: Path, *bvalues: float, name: str = "sub-01_dwi") -> Path:
    """Write fibres along scanner x, beside isotropic tissue and water, left-handed on disk."""
    axes = half_sphere(30)
    b = np.r_[0, 0, np.repeat(bvalues, 30)]
    g = np.r_[np.zeros((2, 3)), np.tile(axes, (len(bvalues), 1))]
    fibre = 600 * np.exp(-b / 1000 * (0.25 + 1.45 * g[:, 0] ** 2))
    data = np.zeros((*SHAPE, len(b)))
    data[:8] = fibre
    data[8:10] = 750 * np.exp(-0.9 * b / 1000)
    data[10:] = 1500 * np.exp(-3 * b / 1000)
    data += np.random.default_rng(3).normal(0, 8, data.shape)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(np.abs(data).astype(np.float32), AFFINE), path)
    np.savetxt(folder / f"{name}.bval", b[None], fmt="%g")
    # The determinant is negative: FSL's vectors are in voxel axes as they are.
    np.savetxt(folder / f"{name}.bvec", (g * [-1, 1, 1]).T, fmt="%.6f")
    return path


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("in"), 1000, 2500)


@pytest.fixture(scope="module")
def response(scan, tmp_path_factory) -> Path:
    """Write responses of the three tissues as they were put in."""
    from numpy.polynomial.legendre import leggauss, legval

    from napari_dmri.images import Response, ResponseSet
    from napari_dmri.io.responses import write_responses

    t, w = leggauss(48)
    b = np.array([0.0, 1000, 2500])
    wm = np.zeros((3, 5))
    for row, value in zip(wm, b, strict=True):
        signal = 600 * np.exp(-value / 1000 * (0.25 + 1.45 * t**2))
        for i, n in enumerate((0, 2, 4, 6, 8)):
            row[i] = 2 * np.pi * (w * signal * np.sqrt((2 * n + 1) / 4 / np.pi)
                                  * legval(t, [0] * n + [1])).sum()  # fmt: skip
    tissues = {
        "wm": Response(wm, tuple(b), "wm"),
        "gm": Response(np.sqrt(4 * np.pi) * 750 * np.exp(-0.9 * b / 1000)[:, None], tuple(b), "gm"),
        "csf": Response(
            np.sqrt(4 * np.pi) * 1500 * np.exp(-3 * b / 1000)[:, None], tuple(b), "csf"
        ),
    }
    path = tmp_path_factory.mktemp("responses") / "resp_wm.txt"
    write_responses(ResponseSet(tissues), path)
    return path


def run(*args, code: int = 0):
    result = runner.invoke(app, ["deconvolve", "apply", *[str(a) for a in args]])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refused(*args, words: str) -> None:
    result = run(*args, code=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and words in lines[0], result.stderr
    assert result.stdout == ""


def first_axis(path: Path) -> np.ndarray:
    """Return the direction of the largest amplitude in the middle of the fibres."""
    image = read_sh(path)
    axes = half_sphere(500)
    middle = image.coefficients[tuple(n // 2 + d for n, d in zip(SHAPE, (2, 0, 0), strict=True))]
    return axes[(design_matrix(axes, image.order) @ middle).argmax()]


def test_csd_finds_the_fibre_and_says_which_volumes(scan, response, tmp_path):
    out = tmp_path / "fod.mif"
    shown = run(
        scan, "--method", "csd", "--response", response, "-o", out, "--device", "cpu"
    ).stdout
    assert "CSD: order" in shown and "30 volumes at b=2500" in shown
    assert "response from resp_wm.txt: wm order 8" in shown
    assert "no mask was given" in shown
    assert abs(first_axis(out)[0]) > 0.98
    about = json.loads(sidecar_path(out).read_text())
    assert about["Provenance"]["method"] == "csd"
    assert about["SphericalHarmonicBasis"] == "tournier07"


def test_a_shell_or_all_of_them(scan, response, tmp_path):
    for shell, volumes in (("1000", 30), ("all", 60)):
        out = tmp_path / f"fod_{shell}.nii.gz"
        told = run(scan, "--method", "csd", "--response", response, "--shell", shell, "--order", 6,
                   "-o", out, "--json", "--device", "cpu")  # fmt: skip
        about = json.loads(told.stdout)
        assert len(about["volumes"]) == volumes and about["order"] == 6
        assert about["files"] == [str(out), str(tmp_path / f"fod_{shell}.json")]
    for word in ("high", "nan", "inf"):
        refused(scan, "--method", "csd", "--response", response, "--shell", word, "-o",
                tmp_path / "no.mif", words="give a b-value in s/mm², or all")  # fmt: skip


def test_the_sharpest_preset_and_the_hardness(scan, response, tmp_path):
    given = (scan, "--method", "csd", "--response", response, "--json", "--device", "cpu")
    told = run(*given, "--preset", "sharpest", "-o", tmp_path / "sharp.mif").stdout
    about = json.loads(told)
    assert about["order"] == 16 and len(about["volumes"]) == 60
    made = json.loads(sidecar_path(tmp_path / "sharp.mif").read_text())["Provenance"]
    assert made["parameters"]["noise"] == "rician" and made["parameters"]["hardness"] == "inf"
    told = run(*given, "--hardness", 3, "-o", tmp_path / "firm.mif").stdout
    assert json.loads(told)["order"] == 8
    refused(*given, "--preset", "best", "-o", tmp_path / "no.mif", words="standard, sharpest")


def test_several_shells_take_msmt_with_all_tissues(scan, response, tmp_path):
    names = ("gm", "csf", "residual", "afd")
    maps = [x for n in names for x in (f"--{n}", tmp_path / f"{n}.nii.gz")]
    shown = run(scan, "--response", response, "-o", tmp_path / "fod.nii.gz", *maps).stdout
    assert "MSMT-CSD (by the number of shells)" in shown
    gm, csf, residual, afd = (read_map(tmp_path / f"{n}.nii.gz").data for n in names)
    # Closest canonical turns the left-handed axis round: water is first.
    root = np.sqrt(4 * np.pi)
    assert np.median(root * csf[:2]) == pytest.approx(1, abs=0.1)
    assert np.median(root * gm[2:4]) == pytest.approx(1, abs=0.15)
    assert np.median(afd[4:]) == pytest.approx(1, abs=0.1)
    assert 0 < np.median(residual) < 0.05


def test_responses_are_estimated_where_none_are_given(tmp_path):
    scan = write(tmp_path / "single", 2000)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:-1, 1:-1, 1:-1] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "mask.nii.gz")
    told = run(scan, "--mask", tmp_path / "mask.nii.gz", "-o", tmp_path / "fod.mif", "--json")
    about = json.loads(told.stdout)
    assert about["method"] == "csd" and about["response"] == "estimated from the scan"
    assert about["response_voxels"]["wm"] > 0 and about["voxels"] == int(mask.sum())
    assert abs(first_axis(tmp_path / "fod.mif")[0]) > 0.97


def test_refusals_come_before_any_work(scan, response, tmp_path):
    out = tmp_path / "fod.mif"
    given = (scan, "--response", response, "-o", out)
    refused(*given, "--method", "best", words="Unknown method 'best'; choose one of csd")
    refused(*given, "--method", "csd", "--iterations", 5, words="CSD does not take iterations")
    refused(*given, "--method", "csd", "--order", 5, words="order = 5 of CSD")
    refused(*given, "--method", "csd", "--gm", tmp_path / "gm.mif", words="CSD gives no gm map")
    refused(
        *given,
        "--method",
        "csd",
        "--residual",
        out,
        words="Two results would go to files of one name",
    )
    refused(scan, "-o", tmp_path / "fod.txt", words="ends with .txt")
    single = write(tmp_path / "single", 2000)
    refused(single, "--method", "msmt-csd", "-o", out, words="this scan has 2 (0, 2000 s/mm²)")
    refused(single, "--method", "csd", "--response", response, "-o", out, "--shell", 2000,
            words="no row for b = 2000")  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["single"]
    out.write_bytes(b"mine")
    refused(*given, "--method", "csd", words="is not overwritten")
    assert out.read_bytes() == b"mine"


@pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3 is not installed")
def test_mrtrix_reads_the_fod_and_tracks_along_it(scan, response, tmp_path):
    fod = tmp_path / "fod.mif"
    run(scan, "--method", "csd", "--response", response, "-o", fod)
    size = subprocess.run(
        ["mrinfo", "-size", str(fod)], capture_output=True, text=True, check=True
    ).stdout.split()
    order = read_sh(fod).order
    assert [int(n) for n in size] == [*SHAPE, (order + 1) * (order + 2) // 2]
    tracks = tmp_path / "tracks.tck"
    subprocess.run(
        ["tckgen", str(fod), str(tracks), "-seed_sphere", "1,0,0,3", "-select", "20",
         "-minlength", "4", "-cutoff", "0.1", "-nthreads", "0", "-quiet"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    lines = nib.streamlines.load(tracks).streamlines
    assert len(lines) == 20
    ends = np.array([line[-1] - line[0] for line in lines])
    along = np.abs(ends[:, 0]) / np.linalg.norm(ends, axis=1)
    assert np.median(along) > 0.97
