"""The solver of many small constrained least-squares problems."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.special import ive

from napari_dmri.deconvolve.admm import check_solver, magnitude_free, make_plan, solve
from napari_dmri.errors import InputError


def _problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    forward = rng.standard_normal((20, 6))
    amounts = rng.standard_normal((50, 6)) + 0.5
    return forward, np.eye(6), amounts @ forward.T + 0.3 * rng.standard_normal((50, 20))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def test_with_an_identity_constraint_it_is_non_negative_least_squares() -> None:
    forward, constraints, signal = _problem()
    plan = make_plan(forward, constraints, np.full(6, 1e-9), rho=1.0)
    x, converged = solve(plan, _tensor(signal), iterations=300, tolerance=1e-5)
    expected = np.stack([nnls(forward, y)[0] for y in signal])
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-4)
    assert converged.all()


def test_general_inequalities_meet_the_conditions_of_optimality() -> None:
    rng = np.random.default_rng(1)
    forward, signal = rng.standard_normal((20, 6)), rng.standard_normal((30, 20))
    constraints = rng.standard_normal((9, 6))
    penalty = np.full(6, 0.1)
    plan = make_plan(forward, constraints, penalty, rho=1.0)
    x, _ = solve(plan, _tensor(signal), iterations=3000, tolerance=0)
    x = x.numpy().astype(float)
    slack = x @ constraints.T
    assert slack.min() > -1e-3
    gradient = x @ (forward.T @ forward) + penalty * x - signal @ forward
    for g, s in zip(gradient, slack, strict=True):
        # The gradient is a non-negative combination of the active constraints.
        _, error = nnls(constraints[s < 1e-3].T, g) if (s < 1e-3).any() else (0, np.abs(g).max())
        assert error < 0.02


def test_rho_and_relaxation_change_the_way_but_not_the_solution() -> None:
    forward, constraints, signal = _problem()
    found = [
        solve(
            make_plan(forward, constraints, np.full(6, 0.1), rho=rho, relax=relax),
            _tensor(signal),
            iterations=600,
            tolerance=0,
        )[0]
        for rho, relax in ((0.3, 1.0), (2.0, 1.9))
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_voxels_that_leave_the_tile_early_have_the_solution_of_those_that_stay() -> None:
    forward, constraints, signal = _problem()
    easy = _tensor(np.abs(np.random.default_rng(2).random((200, 6))) @ forward.T)
    both = torch.cat([easy, _tensor(signal)])
    plan = make_plan(forward, constraints, np.full(6, 1e-6), rho=1.0)
    early, converged = solve(plan, both, iterations=500, tolerance=1e-5)
    late, _ = solve(plan, both, iterations=500, tolerance=0)
    assert converged.float().mean() > 0.95
    torch.testing.assert_close(early, late, atol=1e-3, rtol=0)


def test_a_start_near_the_solution_is_nearer_after_a_few_iterations() -> None:
    forward, constraints, signal = _problem()
    plan = make_plan(forward, constraints, np.full(6, 0.1), rho=0.1)
    solution, _ = solve(plan, _tensor(signal), iterations=2000, tolerance=0)
    warm, _ = solve(plan, _tensor(signal), iterations=5, tolerance=0, start=solution)
    cold, _ = solve(plan, _tensor(signal), iterations=5, tolerance=0)
    assert (warm - solution).norm() < 0.25 * (cold - solution).norm()


def test_a_soft_constraint_minimises_the_quadratic_penalty() -> None:
    forward, constraints, signal = _problem()
    kappa = 0.5
    unit = np.trace(forward.T @ forward) / 6
    plan = make_plan(forward, constraints, np.zeros(6), rho=1.0, hardness=kappa)
    x, _ = solve(plan, _tensor(signal), iterations=500, tolerance=0)
    x = x.numpy().astype(float)
    gradient = x @ (forward.T @ forward) - signal @ forward + kappa * unit * np.minimum(x, 0)
    assert np.abs(gradient).max() < 1e-3
    assert x.min() < -0.01


def test_the_bias_of_magnitudes_is_taken_off() -> None:
    y, nu, sigma = np.array([0.05, 0.5, 2.0]), np.array([0.1, 0.5, 2.0]), 0.2
    a = y * nu / sigma**2
    found = magnitude_free(_tensor(y[None]), _tensor(nu[None]), sigma)
    np.testing.assert_allclose(found[0].numpy(), y * ive(1, a) / ive(0, a), rtol=1e-5)


def test_the_rician_likelihood_has_less_bias_at_low_signal() -> None:
    rng = np.random.default_rng(3)
    truth, sigma = 1.5, 1.0
    noise = rng.standard_normal((2, 4000, 40)) * sigma
    signal = _tensor(np.hypot(truth + noise[0], noise[1]))
    plan = make_plan(np.ones((40, 1)), np.eye(1), np.zeros(1), rho=1.0)
    plain = solve(plan, signal, iterations=300, tolerance=0)[0].mean()
    rician = solve(plan, signal, iterations=300, tolerance=0, sigma=sigma)[0].mean()
    assert plain > truth + 0.25
    assert abs(rician - truth) < 0.03
    stopped = solve(plan, signal, iterations=300, tolerance=1e-3, sigma=sigma)[0]
    assert torch.isfinite(stopped).all()
    assert abs(stopped.mean() - rician) < 0.03


@pytest.mark.parametrize(("rho", "relax"), [(0.0, 1.6), (-1.0, 1.6), (1.0, 2.0), (1.0, 0.0)])
def test_weights_out_of_range_are_refused(rho: float, relax: float) -> None:
    forward, constraints, _ = _problem()
    with pytest.raises(InputError, match="rho must be positive"):
        make_plan(forward, constraints, np.ones(6), rho=rho, relax=relax)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"regulariser": 0.0}, "must be positive"),
        ({"regulariser": -1.0}, "must be positive"),
        ({"regulariser": float("nan")}, "must be positive"),
        ({"directions": 30}, "order 8 with 45 coefficients"),
        ({"iterations": 0}, "at least 1 iteration"),
        ({"tolerance": -1.0}, "tolerance of 0 or more"),
        ({"hardness": 0.0}, "hardness"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, float], words: str) -> None:
    usual = {"regulariser": 1e-3, "directions": 300, "iterations": 10, "tolerance": 1e-3}
    with pytest.raises(InputError, match=words):
        check_solver(**{**usual, "order": 8, **change})
