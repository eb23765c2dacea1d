r"""Solve many small least-squares problems under one set of inequalities, as matrix products.

For each voxel,

.. math:: \min_x \tfrac12 \lVert A x - y \rVert^2 + \tfrac12 x^T P x
          \quad\text{subject to}\quad C x \ge 0,

by the alternating direction method of multipliers with over-relaxation (Boyd et al. 2011, sections
3.1 and 3.4.3). All voxels share :math:`A, P, C`, so :math:`M = (A^T A + P + \rho C^T C)^{-1}` is
made once, in float64. With :math:`t = Cx + u` before its projection, the split variable is
:math:`z = \max(t, 0)`, the scaled multiplier :math:`u = \min(t, 0)`, their difference
:math:`z - u = |t|`, and one iteration with relaxation :math:`\alpha` is two products and two passes
over :math:`t`, in place:

.. math::

    x = M A^T y + |t|\,\rho\, C M, \qquad
    t \leftarrow (1 - \tfrac{\alpha}{2})\, t + \alpha\, C x - \tfrac{\alpha}{2} |t| .

A soft constraint, the penalty :math:`\tfrac{\kappa}{2} \lVert \min(Cx, 0) \rVert^2` instead of
:math:`Cx \ge 0`, changes the projection alone: :math:`z = s t` where t is negative, with
:math:`s = \rho / (\rho + \kappa)`, and :math:`z - u = \max(t, (2s - 1) t)`.

A voxel has converged when :math:`\lVert Cx - z \rVert` and :math:`\lVert z - z_\text{before}
\rVert` are below the tolerance times :math:`\lVert z \rVert`; converged voxels leave the tile once
enough of them have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    import torch

    from napari_dmri.deconvolve.voxels import Tile

__all__ = [
    "Plan",
    "check_solver",
    "constraint_count",
    "magnitude_free",
    "make_plan",
    "solve",
    "tile_solver",
]

EVERY = 10
"""Iterations between two looks at the residuals; the first is after twice as many."""

FIRST, RENEW = 30, 15
"""Iterations before the Rician likelihood is first taken up, and between its renewals."""

BEGIN = 0.02
"""Part of rho with which the solution is regularised where the iteration begins."""

LEAVE = 0.75
"""The tile shrinks when at most this fraction of it is still iterating."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """Hold the matrices that all voxels share, on one device.

    Parameters
    ----------
    project
        (V, n): from measurements to the solution without constraints, regularised by them.
    begin
        (V, n): the same with little of them, where the iteration begins.
    gather
        (m, n): rho C M.
    spread
        (n, m): C transposed.
    forward
        (n, V): A transposed, for residuals.
    relax
        Over-relaxation alpha.
    give
        s (m,): what is left of a negative amplitude; None where all constraints are hard.
    price
        (n, m): from the gradient of the data term to scaled multipliers, for a warm start.
    curve
        (n, n): A'A + P.
    """

    project: torch.Tensor
    begin: torch.Tensor
    gather: torch.Tensor
    spread: torch.Tensor
    forward: torch.Tensor
    price: torch.Tensor
    curve: torch.Tensor
    relax: float
    give: torch.Tensor | None


def make_plan(
    forward: Array,
    constraints: Array,
    penalty: Array,
    *,
    rho: float = 0.5,
    relax: float = 1.6,
    hardness: float | Array = float("inf"),
    device: torch.device | str = "cpu",
) -> Plan:
    r"""Factorise what voxels share.

    Parameters
    ----------
    forward
        A (V, n).
    constraints
        C (m, n).
    penalty
        P: its diagonal (n,), or the matrix (n, n).
    rho
        Weight of the split in units of :math:`\mathrm{tr}(A^T A) / \mathrm{tr}(C^T C)`: it changes
        how fast, not where to, the iteration converges.
    relax
        Over-relaxation alpha in (0, 2).
    hardness
        Kappa, the weight of negative amplitudes, in the same units as rho, one for all or one for
        each constraint (m,); infinite for a hard constraint.
    device
        Where voxels will be solved.

    Raises
    ------
    InputError
        If rho or alpha are out of range, or the problem is singular.
    """
    import torch

    if not rho > 0 or not 0 < relax < 2:
        raise InputError(
            f"rho is {rho} and the relaxation {relax}; rho must be positive and the relaxation "
            "between 0 and 2 (usual: 1.6)."
        )
    normal = forward.T @ forward
    curve = normal + (np.diag(penalty) if penalty.ndim == 1 else penalty)
    frame = constraints.T @ constraints
    weight = rho * np.trace(normal) / np.trace(frame)
    give = np.broadcast_to(rho / (rho + np.asarray(hardness, np.float64)), len(constraints))
    inverse = np.linalg.inv(curve + weight * frame)
    if not np.isfinite(inverse).all():
        raise InputError("The deconvolution is singular; use a larger regulariser.")

    def tensor(values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    return Plan(
        project=tensor(forward @ inverse),
        begin=tensor(forward @ np.linalg.inv(curve + BEGIN * weight * frame)),
        gather=tensor(weight * constraints @ inverse),
        spread=tensor(constraints.T),
        forward=tensor(forward.T),
        price=tensor(np.linalg.pinv(frame) @ constraints.T / -weight),
        curve=tensor(curve),
        relax=float(relax),
        give=tensor(give) if give.any() else None,
    )


def solve(
    plan: Plan,
    signal: torch.Tensor,
    *,
    iterations: int = 200,
    tolerance: float = 1e-3,
    start: torch.Tensor | None = None,
    sigma: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve a tile of voxels.

    Parameters
    ----------
    plan
        What voxels share.
    signal
        Measurements (N, V), float32, on the plan's device.
    iterations
        How many at most.
    tolerance
        Relative primal and dual residual at which a voxel stops; 0 runs all iterations.
    start
        Solutions to start from (N, n).
    sigma
        Noise of magnitudes, in the signal's units, for the Rician likelihood; None for Gaussian.

    Returns
    -------
    Solutions (N, n), and which voxels converged (N,).
    """
    import torch

    free = signal @ plan.project
    if start is None:
        t = (signal @ plan.begin) @ plan.spread
    else:
        t = torch.clamp(start @ plan.spread, min=0)
        gradient = start @ plan.curve - signal @ plan.forward.T
        t += torch.clamp(gradient @ plan.price, max=0).mul_(t <= 0)
    w, x = torch.empty_like(t), torch.empty_like(free)
    solution = torch.empty_like(free)
    converged = torch.zeros(len(signal), dtype=torch.bool, device=signal.device)
    left: torch.Tensor | None = None
    half = plan.relax / 2
    slope = None if plan.give is None else 2 * plan.give - 1
    for iteration in range(1, iterations + 1):
        if sigma is not None and iteration > FIRST and (iteration - FIRST) % RENEW == 1:
            free = magnitude_free(signal, x @ plan.forward, sigma) @ plan.project
        look = tolerance > 0 and iteration % EVERY == 0 and EVERY < iteration < iterations
        look = look and (sigma is None or iteration > FIRST + RENEW)
        before = _amplitudes(plan, t) if look or iteration == iterations else None
        if slope is None:
            torch.abs(t, out=w)
        else:
            torch.mul(t, slope, out=w)
            torch.maximum(t, w, out=w)
        torch.addmm(free, w, plan.gather, out=x)
        t.addmm_(x, plan.spread, beta=1 - half, alpha=plan.relax)
        t.sub_(w, alpha=half)
        if before is None:
            continue
        done = _settled(_amplitudes(plan, t), before, x @ plan.spread, tolerance)
        if iteration == iterations:
            _store(solution, converged, left, x, done)
            return solution, converged
        waiting = torch.nonzero(~done).squeeze(1)
        if len(waiting) > LEAVE * len(done):
            continue
        _store(solution, converged, left, x, done)
        if not len(waiting):
            break
        left = waiting if left is None else left[waiting]
        t, free, x = t[waiting], free[waiting], x[waiting]
        signal = signal[waiting] if sigma is not None else signal
        w = torch.empty_like(t)
    return solution, converged


def magnitude_free(signal: torch.Tensor, predicted: torch.Tensor, sigma: float) -> torch.Tensor:
    r"""Return what the signal would be without the bias of magnitudes, given a prediction.

    .. math:: \tilde y = y\, \frac{I_1(y \nu / \sigma^2)}{I_0(y \nu / \sigma^2)}

    Least squares to it is one step of expectation-maximisation of the Rician likelihood with
    noise :math:`\sigma` and prediction :math:`\nu \ge 0`.
    """
    import torch

    argument = predicted.clamp_(min=0).mul_(signal).mul_(1 / sigma**2)
    ratio: torch.Tensor = torch.special.i1e(argument).div_(torch.special.i0e(argument))
    return ratio.mul_(signal)


def constraint_count(order: int) -> int:
    """Return how many directions carry the constraint where none are asked for.

    Two for each coefficient, 240 at least: with more, peaks do not change measurably.
    """
    return max(240, 2 * n_coefficients(order))


def tile_solver(
    plan: Plan, scale: float, free: int, *, iterations: int, tolerance: float, sigma: float | None
) -> Tile:
    """Return what solves tiles of magnitudes for `voxels.solve_voxels`.

    Parameters
    ----------
    plan
        What voxels share; its forward matrix was divided by ``scale``.
    scale
        What magnitudes are divided by.
    free
        How many of the first unknowns may be negative (the fODF's coefficients); the rest, amounts
        of tissue, end at 0 or more. Solutions to start from hold the first alone.
    iterations, tolerance
        As for `solve`.
    sigma
        Noise in the units of the magnitudes; None for the Gaussian likelihood.
    """
    others = plan.forward.shape[0] - free

    def tile(
        signal: torch.Tensor, guess: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        signal /= scale
        if guess is not None and others:
            guess = torch.nn.functional.pad(guess, (0, others))
        x, converged = solve(
            plan,
            signal,
            iterations=iterations,
            tolerance=tolerance,
            start=guess,
            sigma=None if sigma is None else sigma / scale,
        )
        x[:, free:].clamp_(min=0)
        error = signal.sub_(x @ plan.forward).square_().mean(1).sqrt_()
        return x, converged, error * scale

    return tile


def check_solver(
    regulariser: float,
    directions: int,
    iterations: int,
    tolerance: float,
    order: int,
    hardness: float = float("inf"),
) -> None:
    """Refuse settings that the solver cannot use."""
    if not hardness > 0:
        raise InputError(f"The hardness is {hardness}; it must be positive, infinite for hard.")
    if not (np.isfinite(regulariser) and regulariser > 0):
        raise InputError(
            f"The regulariser is {regulariser}; it must be positive (usual: 0.001): with 0, orders "
            "above those that the directions support would not be determined."
        )
    least = n_coefficients(order)
    if directions < least:
        raise InputError(
            f"{directions} constraint directions cannot hold an fODF of order {order} with {least} "
            f"coefficients; choose {2 * least} or more."
        )
    if iterations < 1 or not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(
            f"{iterations} iterations and a tolerance of {tolerance}; expected at least 1 "
            "iteration and a tolerance of 0 or more."
        )


def _amplitudes(plan: Plan, t: torch.Tensor) -> torch.Tensor:
    """Return z, the amplitudes that obey the constraint."""
    import torch

    z = torch.clamp(t, min=0)
    return z if plan.give is None else z.add_(t.clamp(max=0).mul_(plan.give))


def _settled(
    z: torch.Tensor, before: torch.Tensor, spread: torch.Tensor, tolerance: float
) -> torch.Tensor:
    """Tell which voxels' primal and dual residuals are below the tolerance."""
    import torch

    size = torch.linalg.vector_norm(z, dim=1) * tolerance + 1e-12
    primal = torch.linalg.vector_norm(spread.sub_(z), dim=1)
    dual = torch.linalg.vector_norm(z.sub_(before), dim=1)
    settled: torch.Tensor = (primal <= size) & (dual <= size)
    return settled


def _store(
    solution: torch.Tensor,
    converged: torch.Tensor,
    left: torch.Tensor | None,
    x: torch.Tensor,
    done: torch.Tensor,
) -> None:
    """Write the current state of the voxels that are still in the tile."""
    if left is None:
        solution.copy_(x)
        converged.copy_(done)
    else:
        solution[left] = x
        converged[left] = done
