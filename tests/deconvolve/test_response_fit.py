"""The zonal fit: known coefficients, constraints, the noise's bias, and MRtrix3's amp2response."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dmri.deconvolve.response_fit import (
    fit_zonal,
    rician_mean,
    zonal_basis,
    zonal_slope,
)
from napari_dmri.deconvolve.response_kernel import kernel_zonal
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from pathlib import Path


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    v = rng.normal(size=(*shape, 3))
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def stick_signal(cosines: np.ndarray, b: float = 3.0) -> np.ndarray:
    return 0.6 * np.exp(-1.7 * b * cosines**2) + 0.4 * np.exp(-b * (0.5 + 1.2 * cosines**2))


def test_the_zonal_basis_is_that_of_the_package() -> None:
    t = np.linspace(-1, 1, 9)
    u = np.stack([np.sqrt(1 - t**2), 0 * t, t], 1)
    columns = [0, 3, 10, 21]
    np.testing.assert_allclose(zonal_basis(t, 6), design_matrix(u, 6)[:, columns], atol=1e-12)
    step = 1e-6
    inner = t[1:-1]
    numeric = (zonal_basis(inner + step, 10) - zonal_basis(inner - step, 10)) / (2 * step)
    np.testing.assert_allclose(zonal_slope(inner, 10), numeric, atol=1e-6)


def test_noise_free_signals_give_the_analytic_coefficients() -> None:
    rng = np.random.default_rng(0)
    cosines = unit(rng, 100) @ unit(rng, 60).T
    expected = kernel_zonal([3000.0], 0.6, 1.7, 0.5, 16)[0]
    found = fit_zonal(stick_signal(cosines), cosines, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected[0])


def test_the_constraints_hold_and_change_nothing_where_they_are_not_needed() -> None:
    rng = np.random.default_rng(1)
    cosines = unit(rng, 20) @ unit(rng, 15).T
    signal = stick_signal(cosines)
    free = fit_zonal(signal, cosines, 8, constrained=False)
    np.testing.assert_allclose(fit_zonal(signal, cosines, 8), free, atol=0.01 * free[0])
    noisy = signal + rng.normal(0, 0.5, signal.shape)
    grid = np.linspace(0, 1, 201)
    bad = zonal_basis(grid, 8) @ fit_zonal(noisy, cosines, 8, constrained=False)
    good = zonal_basis(grid, 8) @ fit_zonal(noisy, cosines, 8)
    assert bad.min() < 0 or np.diff(bad).max() > 0
    assert good.min() > -1e-9
    assert np.diff(good).max() < 1e-5


def test_the_noise_floor_is_taken_out() -> None:
    rng = np.random.default_rng(2)
    cosines = unit(rng, 400) @ unit(rng, 64).T
    signal = stick_signal(cosines)
    sigma = 1 / 12
    noisy = np.hypot(
        signal + rng.normal(0, sigma, signal.shape), rng.normal(0, sigma, signal.shape)
    )
    truth = kernel_zonal([3000.0], 0.6, 1.7, 0.5, 8)[0]
    biased = fit_zonal(noisy, cosines, 8) - truth
    found = fit_zonal(noisy, cosines, 8, sigma=sigma) - truth
    assert np.abs(biased).max() > 0.08 * truth[0]
    assert np.abs(found).max() < 0.012 * truth[0]


def test_order_zero_is_the_mean() -> None:
    values = np.full((3, 4), 7.0)
    assert fit_zonal(values, values, 0)[0] == pytest.approx(7 * np.sqrt(4 * np.pi))
    level = rician_mean(np.array([2.0]), 1.5)[0]
    found = fit_zonal(np.full((3, 4), level), values, 0, sigma=1.5)[0]
    assert found == pytest.approx(2 * np.sqrt(4 * np.pi), rel=1e-6)
    assert fit_zonal(np.full((3, 4), 1.0), values, 0, sigma=1.5)[0] == 0


def test_the_rician_mean_is_that_of_samples() -> None:
    rng = np.random.default_rng(3)
    for a in (0.0, 1.0, 5.0):
        samples = np.hypot(a + rng.normal(size=400_000), rng.normal(size=400_000))
        assert rician_mean(np.array([a]), 1.0)[0] == pytest.approx(samples.mean(), abs=5e-3)
    np.testing.assert_array_equal(rician_mean(np.array([1.0, 2.0]), 0.0), [1.0, 2.0])
    assert rician_mean(np.array([1000.0]), 1.0)[0] == pytest.approx(1000.0005, abs=1e-4)


@pytest.mark.skipif(shutil.which("amp2response") is None, reason="MRtrix3 is not installed")
def test_the_same_voxels_give_what_amp2response_gives(tmp_path: Path) -> None:
    import nibabel as nib

    rng = np.random.default_rng(4)
    fibres, g = unit(rng, 64), unit(rng, 45)
    signal = 500 * np.concatenate([np.ones((64, 3)), stick_signal(fibres @ g.T)], 1)
    signal = signal + rng.normal(0, 20, signal.shape)
    table = np.column_stack([np.vstack([np.zeros((3, 3)), g]), [0, 0, 0, *[3000] * 45]])
    np.savetxt(tmp_path / "grad.b", table)
    for name, data in (
        ("dwi", signal.reshape(4, 4, 4, -1)),
        ("dirs", fibres.reshape(4, 4, 4, 3)),
        ("mask", np.ones((4, 4, 4))),
    ):
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    for command in (
        "mrconvert dwi.nii -grad grad.b dwi.mif -quiet",
        "amp2response dwi.mif mask.nii dirs.nii out.txt -lmax 0,8 -quiet",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    theirs = np.loadtxt(tmp_path / "out.txt")
    ours = fit_zonal(signal[:, 3:], fibres @ g.T, 8)
    np.testing.assert_allclose(ours, theirs[1], atol=2e-3 * theirs[1, 0])
    assert theirs[0, 0] == pytest.approx(fit_zonal(signal[:, :3], signal[:, :3], 0)[0], rel=1e-4)
