"""Crossing-fibre voxels: their distribution, DIPY's signal, dispersion and isotropic shares."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.phantom.crossings import (
    crossing_response,
    isotropic_response,
    simulate_crossings,
)
from napari_dmri.sphere.harmonics import design_matrix, orders_and_phases

CLEAN = 10**7
SHAPE = (10, 10, 5)


def test_the_fibres_are_distributed_as_stated() -> None:
    data = simulate_crossings((20, 20, 5), seed=1, snr=(30,))
    truth = data.truth
    shares = np.bincount(truth.count, minlength=4)[1:] / len(truth)
    assert shares == pytest.approx([0.25, 0.55, 0.2], abs=0.04)
    several = truth.count > 1
    assert truth.angle[several].min() >= 30 and np.isnan(truth.angle[~several]).all()
    assert np.allclose(data.fractions.sum(1), 1)
    assert data.fractions[truth.count == 3].min() >= 0.2
    assert np.bincount(data.scans[30].gradients.bvalues.astype(int)).max() == 64


@pytest.mark.usefixtures("quick_directions")
def test_dipy_simulates_the_same_signal() -> None:
    from dipy.core.gradients import gradient_table
    from dipy.sims.voxel import multi_tensor

    data = simulate_crossings((3, 3, 3), seed=2, snr=(CLEAN,))
    scan = data.scans[CLEAN]
    table = gradient_table(scan.gradients.bvalues, bvecs=scan.gradients.directions)
    signal = np.asarray(scan.data).reshape(27, -1)
    for i in range(27):
        n = data.truth.count[i]
        u = data.truth.directions[i, :n]
        angles = np.rad2deg(np.stack([np.arccos(u[:, 2]), np.arctan2(u[:, 1], u[:, 0])], 1))
        expected, _ = multi_tensor(
            table,
            np.tile([1.7e-3, 0.3e-3, 0.3e-3], (n, 1)),
            S0=100,
            angles=[tuple(a) for a in angles],
            fractions=100 * data.fractions[i, :n],
            snr=None,
        )
        assert np.allclose(signal[i], expected, atol=1e-3)


@pytest.mark.usefixtures("quick_directions")
def test_seeds_repeat_and_extras_keep_the_directions() -> None:
    a, b = (simulate_crossings(SHAPE, seed=3, snr=(30,)) for _ in range(2))
    assert np.array_equal(a.scans[30].data, b.scans[30].data)
    more = simulate_crossings(SHAPE, seed=3, snr=(30,), dispersion=15, isotropic=0.3)
    assert np.array_equal(a.truth.directions, more.truth.directions)
    assert more.tissue[:, 1:].sum(1).max() < 0.3
    assert np.allclose(more.tissue.sum(1), 1)
    assert not np.array_equal(a.scans[30].data, more.scans[30].data)


@pytest.mark.usefixtures("quick_directions")
def test_noise_is_rician() -> None:
    data = simulate_crossings(SHAPE, seed=4, snr=(20, CLEAN))
    noisy, clean = (np.asarray(data.scans[s].data, float) for s in (20, CLEAN))
    assert np.mean(noisy**2 - clean**2) == pytest.approx(2 * 5.0**2, rel=0.1)


@pytest.mark.usefixtures("quick_directions")
def test_dispersion_lowers_the_contrast_as_watsons_moment_says() -> None:
    plain = simulate_crossings((4, 4, 4), seed=5, snr=(CLEAN,))
    spread = simulate_crossings((4, 4, 4), seed=5, snr=(CLEAN,), dispersion=15)
    one = plain.truth.count == 1
    g = plain.scans[CLEAN].gradients
    low = g.bvalues == 1200
    t = plain.truth.directions[one, 0] @ g.directions[low].T

    def second(data: np.ndarray) -> float:
        signal = np.asarray(data).reshape(64, -1)[one][:, low]
        basis = np.stack([t**0, (3 * t**2 - 1) / 2, (35 * t**4 - 30 * t**2 + 3) / 8], -1)
        fits = [np.linalg.lstsq(b, s, rcond=None)[0][1] for b, s in zip(basis, signal, strict=True)]
        return float(np.mean(fits))

    ratio = second(spread.scans[CLEAN].data) / second(plain.scans[CLEAN].data)
    assert ratio == pytest.approx((3 * np.cos(np.deg2rad(15)) ** 2 - 1) / 2, rel=0.02)


@pytest.mark.usefixtures("quick_directions")
def test_blocks_hold_one_configuration() -> None:
    data = simulate_crossings((4, 4, 4), seed=6, snr=(30,), blocks=2)
    u = data.truth.directions.reshape(4, 4, 4, 9)
    assert len(np.unique(u.reshape(64, 9), axis=0)) == 8
    assert np.array_equal(u[0, 0, 0], u[1, 1, 1]) and not np.array_equal(u[0, 0, 0], u[0, 0, 2])


@pytest.mark.usefixtures("quick_directions")
def test_responses_are_the_fibres_signal() -> None:
    response = crossing_response(16)
    el, m = orders_and_phases(16)
    g = np.array([[0.0, 0, 1], [1, 0, 0], [0.6, 0, 0.8]])
    signal = design_matrix(g, 16)[:, m == 0] @ response.zonal.T
    cosine = g[:, 2:]
    expected = 100 * np.exp(-np.array([0, 1200, 3000]) * (0.3e-3 + 1.4e-3 * cosine**2))
    assert np.allclose(signal, expected, rtol=1e-3)
    assert len(el[m == 0]) == response.zonal.shape[1]
    csf = isotropic_response("csf").zonal[:, 0] / np.sqrt(4 * np.pi)
    assert np.allclose(csf, 100 * np.exp(-np.array([0, 1200, 3000]) * 3e-3))


@pytest.mark.parametrize("bad", [{"dispersion": 50.0}, {"isotropic": 1.0}, {"blocks": 0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected degrees"):
        simulate_crossings(SHAPE, **bad)  # type: ignore[arg-type]
