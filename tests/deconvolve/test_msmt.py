"""Multi-shell multi-tissue deconvolution."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.deconvolve.sticks import (
    cosine,
    crossing_signal,
    flat,
    isotropic,
    response,
    scan_of,
    table,
    units,
)

from napari_dmri import msmt_csd
from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shells import forward_matrix
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import Response
from napari_dmri.scan import Scan
from napari_dmri.sphere.harmonics import degrees, design_matrix
from napari_dmri.sphere.sampling import half_sphere

if TYPE_CHECKING:
    from pathlib import Path

GRADIENTS = table()
GM, CSF = isotropic("gm", 0.8e-3), isotropic("csf", 3e-3)
ALL = ResponseSet({"wm": response(), "gm": GM, "csf": CSF})
QUIET = {"device": "cpu"}


def _mixture(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signal, fODFs (n, C) and tissue coefficients (n, 2) of lobes with GM and CSF."""
    rng = np.random.default_rng(seed)
    part = rng.dirichlet([4, 1, 1], count)
    decay = np.exp(-0.07 * degrees(8) * (degrees(8) + 1))
    fods = part[:, :1] * design_matrix(units(count, seed), 8) * decay
    tissue = part[:, 1:] / np.sqrt(4 * np.pi)
    volumes = np.arange(len(GRADIENTS))
    signal = fods @ forward_matrix(GRADIENTS, volumes, response(), 8).T
    for i, other in enumerate((GM, CSF)):
        signal += tissue[:, i : i + 1] * forward_matrix(GRADIENTS, volumes, other, 0)[:, 0]
    return signal, fods, tissue


def test_known_mixtures_are_recovered_without_noise() -> None:
    signal, fods, tissue = _mixture(40)
    found = msmt_csd(
        scan_of(signal, GRADIENTS),
        ALL,
        order=8,
        regulariser=1e-6,
        iterations=400,
        tolerance=0,
        **QUIET,
    )
    error = np.linalg.norm(flat(found.fod) - fods, axis=1) / np.linalg.norm(fods, axis=1)
    assert np.median(error) < 0.02
    for i, name in enumerate(("gm", "csf")):
        np.testing.assert_allclose(found.maps[name].data.ravel(), tissue[:, i], atol=0.01)
        assert (found.maps[name].data >= 0).all()
    assert found.maps["residual"].data.max() < 2e-3


@pytest.mark.parametrize(("directions", "limit"), [(None, 0.02), (1000, 0.005)])
def test_turning_gradients_and_fibres_together_turns_the_fod(
    directions: int | None, limit: float
) -> None:
    fibres = units(60, 2).reshape(30, 2, 3)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    signal = crossing_signal(GRADIENTS, fibres, np.tile([0.6, 0.4], (30, 1)))
    one = msmt_csd(scan_of(signal, GRADIENTS), ALL, order=8, directions=directions, **QUIET)
    two = msmt_csd(
        scan_of(signal, GRADIENTS.rotate(turn)), ALL, order=8, directions=directions, **QUIET
    )
    grid = half_sphere(400)
    a = flat(one.fod) @ design_matrix(grid, 8).T
    b = flat(two.fod) @ design_matrix(grid @ turn.T, 8).T
    error = np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)
    assert np.median(error) < limit


def test_a_hard_constraint_leaves_no_negative_amplitudes() -> None:
    signal, _, _ = _mixture(30, 4)
    noisy = np.abs(signal + np.random.default_rng(0).standard_normal(signal.shape) * 3)
    found = msmt_csd(
        scan_of(noisy, GRADIENTS),
        ALL,
        order=8,
        hardness=np.inf,
        iterations=500,
        tolerance=0,
        **QUIET,
    )
    amplitudes = flat(found.fod) @ design_matrix(half_sphere(300), 8).T
    assert amplitudes.min() > -2e-3 * amplitudes.max()


@pytest.mark.parametrize("tissues", [("wm",), ("wm", "csf"), ("csf", "wm", "gm")])
def test_any_tissues_may_be_used_with_white_matter(tissues: tuple[str, ...]) -> None:
    scan = scan_of(_mixture(5)[0], GRADIENTS)
    found = msmt_csd(scan, ALL, tissues=tissues, **QUIET)
    assert set(found.maps) == {"residual", *tissues} - {"wm"}
    assert found.notes[0].endswith("3 b0 volumes + 32 at b=1000 + 64 at b=3000: 99 volumes")
    assert found.provenance["parameters"]["tissues"] == [t for t in ALL if t in tissues]
    assert len(found.volumes) == 99


def test_a_response_alone_is_white_matter_alone() -> None:
    found = msmt_csd(scan_of(_mixture(5)[0], GRADIENTS), response(), **QUIET)
    assert set(found.maps) == {"residual"}


def test_layout_and_start_do_not_change_the_result() -> None:
    signal = _mixture(24)[0].astype(np.float32).reshape(2, 3, 4, -1)
    settings = {"iterations": 300, "tolerance": 0, **QUIET}
    one = msmt_csd(Scan(signal, np.eye(4), GRADIENTS), ALL, **settings)
    scan = Scan(np.asfortranarray(signal), np.eye(4), GRADIENTS)
    two = msmt_csd(scan, ALL, start=one.fod, noise="rician", sigma=1e-3, **settings)
    np.testing.assert_allclose(two.fod.coefficients, one.fod.coefficients, atol=5e-3)
    np.testing.assert_allclose(two.maps["csf"].data, one.maps["csf"].data, atol=1e-3)


def test_broken_voxels_are_counted_and_left_at_zero() -> None:
    signal = _mixture(5)[0]
    signal[1, 40] = np.nan
    signal[2, :3] = 0
    with pytest.warns(DmriWarning, match="1 voxels hold NaN or Inf and 1 voxels have b0 <= 0"):
        found = msmt_csd(scan_of(signal, GRADIENTS), ALL, **QUIET)
    assert found.voxels == 3
    assert (found.maps["gm"].data[1:3] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tissues": ("gm",)}, "ask for wm"),
        ({"tissues": ("wm", "fat")}, "ask for wm"),
        ({"order": 5}, "even number"),
        ({"regulariser": -1}, "must be positive"),
        ({"mask": np.zeros((3, 1, 1), bool)}, "holds no voxel"),
    ],
)
def test_bad_input_is_refused_in_words(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        msmt_csd(scan_of(_mixture(3)[0], GRADIENTS), ALL, **change, **QUIET)


def test_responses_that_do_not_belong_are_refused() -> None:
    scan = scan_of(_mixture(3)[0], GRADIENTS)
    other = isotropic("csf", 3e-3, (0.0, 700.0, 2000.0))
    with pytest.raises(InputError, match=r"csf response .* another set of shells"):
        msmt_csd(scan, ResponseSet({"wm": response(), "csf": other}), **QUIET)
    round_ = Response(response().zonal[:, :1], (0, 1000, 3000))
    with pytest.raises(InputError, match="same in all directions"):
        msmt_csd(scan, ResponseSet({"wm": round_, "csf": CSF}), **QUIET)
    single = GRADIENTS.select(np.r_[0:3, 35:99])
    few = scan_of(crossing_signal(single, units(3)[:, None], np.ones((3, 1))), single)
    with pytest.raises(InputError, match=r"3 tissues .* need 3 shells"):
        msmt_csd(few, ALL, **QUIET)
    assert msmt_csd(few, ALL, tissues=("wm", "csf"), **QUIET).voxels == 3


@pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not installed")
def test_it_agrees_with_mrtrix(tmp_path: Path) -> None:
    import nibabel as nib

    rng = np.random.default_rng(1)
    signal = np.abs(_mixture(60, 5)[0] + rng.standard_normal((60, 99)))
    data = signal.astype(np.float32).reshape(5, 4, 3, 99)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "dwi.nii")
    np.savetxt(tmp_path / "grad.b", np.c_[GRADIENTS.directions, GRADIENTS.bvalues])
    for name in ALL:
        np.savetxt(tmp_path / f"{name}.txt", ALL[name].zonal)
    words = "dwi2fod msmt_csd -quiet -lmax 8,0,0 -shells 0,1000,3000 -grad grad.b dwi.nii "
    words += "wm.txt wm.nii gm.txt gm.nii csf.txt csf.nii"
    subprocess.run(words.split(), cwd=tmp_path, check=True)
    theirs = {n: np.asarray(nib.load(tmp_path / f"{n}.nii").dataobj) for n in ALL}
    ours = msmt_csd(
        Scan(data, np.eye(4), GRADIENTS), ALL, order=8, hardness=np.inf, iterations=300, **QUIET
    )
    assert np.median(cosine(flat(ours.fod), theirs["wm"].reshape(60, -1))) > 0.99
    for name in ("gm", "csf"):
        difference = ours.maps[name].data.ravel() - theirs[name].ravel()
        assert np.abs(difference).max() < 0.01
