"""SH fits: known functions, DIPY's numbers in all its bases, layouts, and every bad input."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from napari_dmri import (
    DmriWarning,
    GradientTable,
    InputError,
    Scan,
    ShImage,
    evaluate_sh,
    fit_sh,
)
from napari_dmri.errors import Cancelled
from napari_dmri.signal.sh_fit import (
    choose_order,
    condition_number,
    fit_sh_array,
    fitting_matrix,
    residual_map,
)
from napari_dmri.sphere.harmonics import convert_basis, design_matrix, n_coefficients


def spiral(n: int) -> np.ndarray:
    """Return n even directions on the upper hemisphere (generalised spiral)."""
    z = 1 - (np.arange(n) + 0.5) / n
    phi = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def make_scan(
    n: int = 30, order: int = 4, grid: tuple[int, int, int] = (5, 6, 7), b0s: int = 2, seed: int = 0
) -> tuple[Scan, np.ndarray]:
    """Return a noise-free scan whose S/b0 is band-limited, and its coefficients."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(0, 0.02, (*grid, n_coefficients(order)))
    coefficients[..., 0] = rng.uniform(1.3, 1.7, grid)
    directions = spiral(n)
    level = rng.uniform(500, 1500, grid)
    signal = coefficients @ design_matrix(directions, order).T
    assert signal.min() > 0 and signal.max() < 1
    data = np.concatenate([np.ones((*grid, b0s)), signal], axis=-1) * level[..., None]
    table = GradientTable(
        np.r_[np.zeros(b0s), np.full(n, 1200.0)], np.concatenate([np.zeros((b0s, 3)), directions])
    )
    return Scan(data.astype(np.float32), np.diag([2.0, 2, 2, 1]), table, name="test"), coefficients


def with_data(scan: Scan, data: np.ndarray) -> Scan:
    return replace(scan, data=data)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_band_limited_signal_is_recovered(layout: str) -> None:
    scan, truth = make_scan()
    image = fit_sh(with_data(scan, np.asarray(scan.data, order=layout)), smooth=0)
    assert image.order == 4 and image.bvalue == 1200 and image.normalised
    assert image.coefficients.dtype == np.float32
    assert image.mask is not None and image.mask.all()
    np.testing.assert_allclose(image.coefficients, truth, atol=2e-6)


def test_the_penalty_is_that_of_the_formula() -> None:
    g, lam = spiral(40), 0.006
    b = design_matrix(g, 6)
    el = np.repeat([0, 2, 4, 6], [1, 5, 9, 13])
    expected = np.linalg.solve(b.T @ b + lam * np.diag((el * (el + 1.0)) ** 2), b.T)
    np.testing.assert_allclose(fitting_matrix(g, 6, lam), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("basis", "legacy", "smooth"),
    [
        *product(["tournier07", "descoteaux07"], [False], [0.0, 0.006]),
        ("descoteaux07", True, 0.0),
        ("descoteaux07", True, 0.006),
        # Not orthonormal: there the same lambda is another penalty, so only the plain fit compares.
        ("tournier07", True, 0.0),
    ],
)
def test_coefficients_agree_with_dipy_in_every_basis(
    basis: str, legacy: bool, smooth: float
) -> None:
    from dipy.core.sphere import Sphere
    from dipy.reconst.shm import sf_to_sh

    g = spiral(64)
    signal = np.random.default_rng(1).uniform(0, 1, (200, 64)).astype(np.float32)
    ours = fit_sh_array(signal, fitting_matrix(g, 8, smooth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sf_to_sh(
            signal, Sphere(xyz=g), sh_order_max=8, basis_type=basis, smooth=smooth, legacy=legacy
        )
    converted = convert_basis(ours, "tournier07", basis + "_legacy" * legacy)
    assert np.abs(converted - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_scans_agree_with_dipys_qball_model() -> None:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.shm import QballModel
    from scipy.special import eval_legendre

    scan, _ = make_scan(n=45, order=6)
    table = scan.gradients
    gtab = gradient_table(table.bvalues, bvecs=table.directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = QballModel(gtab, 6, smooth=0.006).fit(np.asarray(scan.data)).shm_coeff
    # Q-ball multiplies each order of the fit by P_l(0) (Funk-Radon).
    el = np.repeat([0, 2, 4, 6], [1, 5, 9, 13])
    ours = fit_sh(scan, order=6).coefficients
    ours = convert_basis(ours, "tournier07", "descoteaux07_legacy") * eval_legendre(el, 0)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_orders_and_shells_that_are_chosen() -> None:
    assert choose_order(spiral(30)) == 4
    assert [choose_order(spiral(n)) for n in (7, 8, 17, 18, 33, 34, 54)] == [0, 2, 2, 4, 4, 6, 8]
    doubled = np.concatenate([spiral(20), -spiral(20)])
    assert choose_order(doubled) == 4
    cone = np.stack([np.cos(np.arange(40)), np.sin(np.arange(40)), np.full(40, 1.0)], 1)
    assert choose_order(cone / np.sqrt(2)) < 6
    scan, _ = make_scan()
    image = fit_sh(scan)
    assert image.provenance["parameters"]["order_chosen_automatically"]
    assert "order 4" in image.name and "b=1200" in image.name
    assert image.provenance["distinct_directions"] == 30


def test_the_highest_of_equally_large_shells_is_fitted() -> None:
    scan, _ = make_scan()
    table = GradientTable(
        np.r_[0, 0, np.tile([1000.0, 3000.0], 15)], np.r_[np.zeros((2, 3)), spiral(30)]
    )
    image = fit_sh(replace(scan, gradients=table), order=2)
    assert image.bvalue == 3000
    assert fit_sh(replace(scan, gradients=table), order=2, shell=990.0).bvalue == 1000
    with pytest.raises(InputError, match=r"b=2000.*1000, 3000"):
        fit_sh(replace(scan, gradients=table), shell=2000.0)


def test_condition_number_grows_with_order_and_falls_with_smoothing() -> None:
    g = spiral(30)
    assert 1 <= condition_number(g, 2) < condition_number(g, 4) < condition_number(g, 6)
    assert condition_number(g, 8) == np.inf
    assert condition_number(g, 6, 0.006) < condition_number(g, 6) * 20


def test_mask_and_layout_do_not_change_values() -> None:
    scan, _ = make_scan(grid=(9, 8, 7))
    whole = fit_sh(scan).coefficients
    mask = np.random.default_rng(2).random(scan.grid) > 0.6
    for layout in "CF":
        image = fit_sh(with_data(scan, np.asarray(scan.data, order=layout)), mask=mask)
        np.testing.assert_array_equal(image.mask, mask)
        np.testing.assert_allclose(image.coefficients[mask], whole[mask], atol=1e-6)
        assert not image.coefficients[~mask].any()
    np.testing.assert_array_equal(fit_sh(scan.with_mask(mask)).mask, mask)


def test_flipped_and_integer_views_are_read() -> None:
    scan, _ = make_scan(grid=(9, 8, 7))
    data = np.asarray(np.asarray(scan.data)[::-1, :, ::-1], order="F").astype(np.int16)
    data.setflags(write=False)
    flipped = data[::-1, :, ::-1]
    straight = np.array(flipped, dtype=np.float32)
    expected = fit_sh(with_data(scan, straight)).coefficients
    np.testing.assert_allclose(fit_sh(with_data(scan, flipped)).coefficients, expected, atol=1e-6)


def test_data_that_are_not_arrays_are_sliced() -> None:
    class Lazy:
        def __init__(self, data: np.ndarray) -> None:
            self.held, self.shape, self.dtype, self.reads = data, data.shape, data.dtype, 0

        def __getitem__(self, key: object) -> np.ndarray:
            self.reads += 1
            return self.held[key]

    scan, _ = make_scan()
    lazy = Lazy(np.asarray(scan.data, order="F"))
    image = fit_sh(with_data(scan, lazy))
    np.testing.assert_allclose(image.coefficients, fit_sh(scan).coefficients, atol=1e-6)
    assert lazy.reads == 1


def test_clipping() -> None:
    scan, _ = make_scan()
    data = np.array(scan.data)
    data[0, 0, 0, 5], data[1, 1, 1, 6] = 1e6, -1e6
    clipped, free = (fit_sh(with_data(scan, data), clip=clip) for clip in (True, False))
    assert clipped.provenance["voxels"]["clipped_at_1"] == 1
    assert np.abs(free.coefficients[0, 0, 0]).max() > 10
    assert np.abs(clipped.coefficients).max() < 4
    raw = fit_sh(scan, normalise=False)
    assert not raw.normalised and np.median(raw.coefficients[..., 0]) > 500


def test_evaluation_inverts_the_fit() -> None:
    scan, _ = make_scan()
    image = fit_sh(scan, smooth=0)
    level = np.asarray(scan.data)[..., :1]
    values = evaluate_sh(image, scan.gradients.directions[2:])
    np.testing.assert_allclose(values * level, np.asarray(scan.data)[..., 2:], rtol=2e-5)
    mask = np.zeros(scan.grid, bool)
    mask[1:3] = True
    masked = evaluate_sh(image, scan.gradients.directions[2:], mask=mask)
    np.testing.assert_allclose(masked[mask], values[mask], atol=1e-6)
    assert not masked[~mask].any()
    one = evaluate_sh(image.coefficients[0, 0, 0], scan.gradients.directions[2:])
    np.testing.assert_allclose(one, values[0, 0, 0], atol=1e-6)
    with pytest.raises(InputError, match="one grid"):
        evaluate_sh(image, spiral(4), mask=np.ones((2, 2, 2), bool))


@pytest.mark.parametrize("layout", ["C", "F"])
def test_residual_is_the_noise_that_was_added(layout: str) -> None:
    scan, _ = make_scan(n=60, grid=(12, 12, 12))
    assert residual_map(scan, fit_sh(scan, order=4, smooth=0)).max() < 1e-5
    data = np.array(scan.data)
    data[..., 2:] += 0.02 * data[..., :1] * np.random.default_rng(3).normal(size=(12, 12, 12, 60))
    noisy = with_data(scan, np.asarray(data, order=layout))
    residual = residual_map(noisy, fit_sh(noisy, order=4, smooth=0))
    assert np.median(residual) == pytest.approx(0.02 * np.sqrt(45 / 60), rel=0.03)
    with pytest.raises(InputError, match="the scan that was fitted"):
        residual_map(noisy, ShImage(np.zeros((2, 2, 2, 15), np.float32), np.eye(4), bvalue=1200))
    with pytest.raises(InputError, match="no b-value"):
        residual_map(noisy, ShImage(np.zeros((12, 12, 12, 15), np.float32), np.eye(4)))


@pytest.mark.parametrize("layout", ["C", "F"])
def test_voxels_that_are_not_finite_are_counted_and_left_out(layout: str) -> None:
    scan, _ = make_scan()
    data = np.array(scan.data, order=layout)
    data[0, 0, 0, 7], data[1, 0, 0, 0], data[2, 0, 0, 3] = np.nan, np.inf, -np.inf
    with pytest.warns(DmriWarning, match="3 voxels hold NaN or Inf"):
        image = fit_sh(with_data(scan, data))
    assert np.isfinite(image.coefficients).all() and not image.coefficients[:3, 0, 0].any()
    assert image.mask is not None and image.mask.sum() == np.prod(scan.grid) - 3


def test_voxels_without_b0_are_counted_and_left_out() -> None:
    scan, _ = make_scan()
    data = np.array(scan.data)
    data[0, 0, 0, :2] = 0
    data[0, 0, 1, :2] = -5
    data[1] = 0
    with pytest.warns(DmriWarning, match="2 voxels have b0 <= 0"):
        image = fit_sh(with_data(scan, data))
    assert image.provenance["voxels"]["zero_in_all_volumes"] == 42
    assert image.mask is not None and not image.mask[1].any() and not image.mask[0, 0, :2].any()
    with pytest.warns(DmriWarning, match="44 voxels of the mask have b0 <= 0"):
        fit_sh(with_data(scan, data), mask=np.ones(scan.grid, bool))


def test_what_cannot_be_fitted_is_refused() -> None:
    scan, _ = make_scan(n=12, order=2)
    with pytest.raises(InputError, match=r"order 4 has 15 coefficients.*12 distinct"):
        fit_sh(scan, order=4)
    with pytest.raises(InputError, match="even number"):
        fit_sh(scan, order=3)
    with pytest.raises(InputError, match=r"lambda is -1"):
        fit_sh(scan, smooth=-1)
    with pytest.raises(InputError, match="lambda is nan"):
        fit_sh(scan, smooth=float("nan"))
    with pytest.raises(InputError, match=r"mask has shape \(2, 2, 2\)"):
        fit_sh(scan, mask=np.ones((2, 2, 2), bool))
    with pytest.raises(InputError, match="no voxel"):
        fit_sh(scan, mask=np.zeros(scan.grid, bool))
    with pytest.raises(InputError, match="210 are zero in every volume"):
        fit_sh(with_data(scan, np.zeros_like(scan.data)))
    with pytest.raises(InputError, match="no b0 volume"):
        fit_sh(scan.select(np.arange(2, 14)))
    with pytest.raises(InputError, match="1 distinct direction"):
        fit_sh(scan.select([0, 1, 2, 2]))
    with pytest.raises(InputError, match="at least one diffusion-weighted shell"):
        fit_sh(scan.select([0, 1]))
    with pytest.raises(InputError, match="not available"):
        fit_sh(scan, device="cuda:99" if not _has_cuda() else "nowhere")
    with pytest.raises(InputError, match="0 distinct"):
        choose_order(np.zeros((0, 3)))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_duplicate_directions_count_once() -> None:
    scan, _ = make_scan(n=12, order=2)
    twice = scan.select([0, 1, *range(2, 14), *range(2, 14)])
    with pytest.raises(InputError, match=r"12 distinct"):
        fit_sh(twice, order=4)
    np.testing.assert_allclose(
        fit_sh(twice, order=2, smooth=0).coefficients,
        fit_sh(scan, order=2, smooth=0).coefficients,
        atol=1e-6,
    )


def test_progress_ends_at_one_and_can_cancel() -> None:
    scan, _ = make_scan()
    seen: list[float] = []
    fit_sh(scan, progress=lambda f, text: seen.append(f))
    assert seen[0] == 0 and seen[-1] == 1 and seen == sorted(seen)

    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_sh(scan, progress=stop)
