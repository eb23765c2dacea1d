from __future__ import annotations

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.sims.voxel import multi_tensor

from napari_dmri.errors import InputError
from napari_dmri.phantom.anatomy import make_subject
from napari_dmri.phantom.gradients import make_table
from napari_dmri.phantom.tissue_signal import TISSUE, grey_signal, white_signal, zonal_response
from napari_dmri.phantom.watson import legendre

D = 1.7e-3


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    v = rng.normal(size=(*shape, 3))
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def test_undispersed_populations_agree_with_dipy() -> None:
    rng = np.random.default_rng(0)
    table = make_table(((1000.0, 20), (3000.0, 30)), 3)
    axes = _unit(rng, 1, 3)
    fractions = np.array([[0.5, 0.3, 0.2]])
    intra = np.full((1, 3), 0.6)
    ours = white_signal(
        table.bvalues, table.directions, axes, fractions, np.full((1, 3), np.inf), intra, D
    )[0]
    gtab = gradient_table(table.bvalues, bvecs=table.directions)
    across = D * 0.4
    tensors = np.array([[D, 0, 0], [D, across, across]] * 3)
    parts = np.repeat(fractions[0], 2) * np.array([0.6, 0.4] * 3) * 100
    angles = np.repeat(axes[0], 2, axis=0)
    theirs, _ = multi_tensor(gtab, tensors, S0=1.0, angles=angles, fractions=parts, snr=None)
    assert np.abs(ours - theirs).max() < 1e-6


def test_weak_dispersion_tends_to_none() -> None:
    rng = np.random.default_rng(1)
    table = make_table(((3000.0, 40),), 1)
    axes, one = _unit(rng, 4, 1), np.ones((4, 1))
    arguments = (table.bvalues, table.directions, axes, one)
    exact = white_signal(*arguments, np.full((4, 1), np.inf), 0.6 * one, D)
    close = white_signal(*arguments, np.full((4, 1), 1500.0), 0.6 * one, D)
    assert 0 < np.abs(exact - close).max() < 3e-3


def test_dispersion_is_the_average_over_the_watson_distribution() -> None:
    rng = np.random.default_rng(2)
    kappa, b = 6.0, 2000.0
    g = _unit(rng, 12)
    points = _unit(rng, 400_000)
    weights = np.exp(kappa * points[:, 2] ** 2)
    weights /= weights.sum()
    t2 = (points @ g.T) ** 2
    across = D * 0.45
    kernel = 0.55 * np.exp(-b * D * t2)
    kernel += 0.45 * np.exp(-b * across - b * (D - across) * t2)
    expected = weights @ kernel
    ours = white_signal(
        np.full(12, b),
        g,
        np.array([[[0.0, 0, 1]]]),
        np.ones((1, 1)),
        np.full((1, 1), kappa),
        np.full((1, 1), 0.55),
        D,
    )[0]
    assert np.abs(ours - expected).max() < 2e-3


def test_one_b_value_a_voxel_equals_one_for_all() -> None:
    rng = np.random.default_rng(3)
    table = make_table(((1200.0, 10),), 2)
    axes = _unit(rng, 5, 2)
    half, kappa, intra = np.full((5, 2), 0.5), np.full((5, 2), 8.0), np.full((5, 2), 0.6)
    same = white_signal(table.bvalues, table.directions, axes, half, kappa, intra, D)
    own = white_signal(
        np.tile(table.bvalues, (5, 1)),
        np.tile(table.directions, (5, 1, 1)),
        axes,
        half,
        kappa,
        intra,
        D,
    )
    assert np.allclose(same, own, atol=1e-12)
    subject = make_subject(0)
    grey = grey_signal(table.bvalues, table.directions, axes[:, 0], subject)
    tiled = (np.tile(table.bvalues, (5, 1)), np.tile(table.directions, (5, 1, 1)))
    assert np.allclose(grey, grey_signal(*tiled, axes[:, 0], subject), atol=1e-12)


def test_b_that_varies_within_a_shell_is_interpolated_closely() -> None:
    rng = np.random.default_rng(5)
    table = make_table(((1200.0, 6), (3000.0, 6)), 1)
    axes, one = _unit(rng, 40, 1), np.ones((40, 1))
    own = table.bvalues * rng.uniform(0.85, 1.15, (40, len(table)))
    gradients = np.tile(table.directions, (40, 1, 1))
    rest = (axes, one, 9 * one, 0.6 * one, D)
    quick = white_signal(own, gradients, *rest, nominal=table.bvalues)
    slow = [
        white_signal(own[i], table.directions, *(r[i : i + 1] for r in rest[:4]), D)[0]
        for i in range(40)
    ]
    assert np.abs(quick - np.stack(slow)).max() < 2e-5


def test_signals_are_one_at_b_zero() -> None:
    axes = np.array([[[0.0, 0.6, 0.8]]])
    one = np.ones((1, 1))
    white = white_signal(np.zeros(1), np.zeros((1, 3)), axes, one, 7 * one, 0.6 * one, D)
    assert white == pytest.approx(1, abs=1e-9)
    assert grey_signal(np.zeros(1), np.zeros((1, 3)), axes[0], make_subject(0)) == pytest.approx(1)


def test_response_is_the_single_fibre() -> None:
    t = np.linspace(-1, 1, 15)
    rows = zonal_response(np.array([0.0, 1200.0]), 0.6, D, 18)
    orders = np.arange(0, 19, 2)
    signal = (legendre(t, 18) * np.sqrt((2 * orders + 1) / (4 * np.pi))) @ rows[1]
    across = D * 0.4
    expected = 0.6 * np.exp(-1200 * D * t**2)
    expected += 0.4 * np.exp(-1200 * across - 1200 * (D - across) * t**2)
    assert np.abs(signal - expected).max() < 1e-6
    assert rows[0, 0] == pytest.approx(np.sqrt(4 * np.pi))


def test_longer_te_favours_csf() -> None:
    early = [t.weight(60, 8000) for t in TISSUE]
    late = [t.weight(120, 8000) for t in TISSUE]
    loss = np.array(late) / np.array(early)
    assert loss[0] < loss[1] < loss[2] < 1


def test_six_populations_are_refused() -> None:
    axes, some = np.ones((1, 6, 3)), np.ones((1, 6))
    with pytest.raises(InputError, match="6 fibre populations"):
        white_signal(np.zeros(1), np.zeros((1, 3)), axes, some, some, some, D)
