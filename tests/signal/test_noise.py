"""SNR per shell: recovered from simulated Rician noise, with fibres and drift in the way."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri import GradientTable, InputError, Scan
from napari_dmri.signal.noise import correct_rician, shell_snr


def simulate(
    snr: float, b0s: int = 6, shells: tuple[tuple[float, int], ...] = ((1200.0, 30),)
) -> Scan:
    """Return crossings and isotropic voxels (S0 = 100) with Rician noise of sigma 100 / snr."""
    rng = np.random.default_rng(7)
    vectors, bvalues = [np.zeros((b0s, 3))], [np.zeros(b0s)]
    for b, n in shells:
        z = 1 - (np.arange(n) + 0.5) / n
        phi = np.arange(n) * np.pi * (3 - np.sqrt(5))
        r = np.sqrt(1 - z**2)
        vectors.append(np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1))
        bvalues.append(np.full(n, b))
    g, b = np.concatenate(vectors), np.concatenate(bvalues)
    grid = (20, 20, 10)
    signal = np.zeros((*grid, len(b)))
    for _ in range(2):
        axis = rng.normal(size=(*grid, 3))
        axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
        signal += 50 * np.exp(-b * (0.3e-3 + 1.4e-3 * (axis @ g.T) ** 2))
    signal[::2] = 100 * np.exp(-b * 0.7e-3)
    sigma = 100 / snr
    noise = rng.normal(0, sigma, (2, *signal.shape))
    data = np.hypot(signal + noise[0], noise[1]).astype(np.float32)
    return Scan(data, np.eye(4), GradientTable(b, g), np.ones(grid, bool), "noisy")


@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_rician_noise_is_recovered(snr: float) -> None:
    found = shell_snr(simulate(snr, shells=((1200.0, 30), (3000.0, 64))))
    assert [(s.bvalue, s.count) for s in found] == [(0, 6), (1200, 30), (3000, 64)]
    assert found[0].snr == pytest.approx(snr, rel=0.1)
    for shell in found:
        assert shell.sigma == pytest.approx(100 / snr, rel=0.1)
        assert shell.snr == pytest.approx(shell.signal / shell.sigma)
    assert found[1].signal == pytest.approx(43, rel=0.1)


@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_a_single_b0_takes_the_noise_of_the_shell(snr: float) -> None:
    b0, shell = shell_snr(simulate(snr, b0s=1))
    assert b0.source == "b=1200 shell" and shell.source == "SH residual"
    assert b0.snr == pytest.approx(snr, rel=0.1)


def test_drift_of_the_gain_is_no_noise() -> None:
    scan = simulate(20.0)
    drift = np.linspace(1, 0.9, scan.shape[3])[:6]
    data = np.array(scan.data)
    data[..., :6] *= drift
    b0 = shell_snr(Scan(data, scan.affine, scan.gradients, scan.mask))[0]
    assert b0.snr == pytest.approx(20, rel=0.1)


def test_too_few_volumes_are_said_to_tell_nothing() -> None:
    b0, shell = shell_snr(simulate(20.0, b0s=1, shells=((1000.0, 6),)))
    assert np.isnan(b0.snr) and np.isnan(shell.sigma) and b0.source == ""
    assert b0.signal > shell.signal > 0


def test_noiseless_and_masked_scans() -> None:
    scan = simulate(1e9)
    assert all(np.isnan(s.snr) or s.snr > 100 for s in shell_snr(scan))
    scan = simulate(20.0)
    mask = np.zeros(scan.grid, bool)
    mask[::2] = True
    assert shell_snr(scan, mask)[1].signal == pytest.approx(100 * np.exp(-0.84), rel=0.02)
    assert shell_snr(scan.with_mask(None))[0].snr == pytest.approx(20, rel=0.1)
    with pytest.raises(InputError, match="mask has shape"):
        shell_snr(scan, np.ones((2, 2, 2), bool))
    with pytest.raises(InputError, match="no voxel of the mask"):
        shell_snr(Scan(np.zeros(scan.shape, np.float32), np.eye(4), scan.gradients, scan.mask))


def test_rician_correction_inverts_simulated_moments() -> None:
    rng = np.random.default_rng(0)
    for level in (2.0, 3.0, 5.0, 20.0):
        values = np.hypot(level + rng.normal(size=400000), rng.normal(size=400000))
        signal, sigma = correct_rician(float(values.mean()), float(values.std()))
        assert sigma == pytest.approx(1, rel=0.02) and signal == pytest.approx(level, rel=0.03)
    values = np.hypot(rng.normal(size=400000), rng.normal(size=400000))
    signal, sigma = correct_rician(float(values.mean()), float(values.std()))
    assert sigma == pytest.approx(1, rel=0.05) and signal < 0.6
