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

__all__ = ["Plan", "check_solver", "make_plan", "solve"]

EVERY = 10
"""Iterations between two looks at the residuals."""

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
    gather
        (m, n): rho C M.
    spread
        (n, m): C transposed.
    forward
        (n, V): A transposed, for residuals.
    relax
        Over-relaxation alpha.
    price
        (n, m): from the gradient of the data term to scaled multipliers, for a warm start.
    curve
        (n, n): A'A + P.
    """

    project: torch.Tensor
    gather: torch.Tensor
    spread: torch.Tensor
    forward: torch.Tensor
    price: torch.Tensor
    curve: torch.Tensor
    relax: float


def make_plan(
    forward: Array,
    constraints: Array,
    penalty: Array,
    *,
    rho: float = 0.05,
    relax: float = 1.9,
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
            "between 0 and 2 (usual: 1.9)."
        )
    normal = forward.T @ forward
    curve = normal + (np.diag(penalty) if penalty.ndim == 1 else penalty)
    frame = constraints.T @ constraints
    weight = rho * np.trace(normal) / np.trace(frame)
    inverse = np.linalg.inv(curve + weight * frame)
    if not np.isfinite(inverse).all():
        raise InputError("The deconvolution is singular; use a larger regulariser.")

    def tensor(values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    return Plan(
        project=tensor(forward @ inverse),
        gather=tensor(weight * constraints @ inverse),
        spread=tensor(constraints.T),
        forward=tensor(forward.T),
        price=tensor(np.linalg.pinv(frame) @ constraints.T / -weight),
        curve=tensor(curve),
        relax=float(relax),
    )


def solve(
    plan: Plan,
    signal: torch.Tensor,
    *,
    iterations: int = 200,
    tolerance: float = 1e-3,
    start: torch.Tensor | None = None,
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

    Returns
    -------
    Solutions (N, n), and which voxels converged (N,).
    """
    import torch

    free = signal @ plan.project
    if start is None:
        t = free @ plan.spread
    else:
        t = torch.clamp(start @ plan.spread, min=0)
        slope = start @ plan.curve - signal @ plan.forward.T
        t += torch.clamp(slope @ plan.price, max=0).mul_(t <= 0)
    w, x = torch.empty_like(t), torch.empty_like(free)
    solution = torch.empty_like(free)
    converged = torch.zeros(len(signal), dtype=torch.bool, device=signal.device)
    left: torch.Tensor | None = None
    half = plan.relax / 2
    for iteration in range(1, iterations + 1):
        look = tolerance > 0 and (iteration % EVERY == 0) and iteration < iterations
        before = torch.clamp(t, min=0) if look or iteration == iterations else None
        torch.abs(t, out=w)
        torch.addmm(free, w, plan.gather, out=x)
        t.addmm_(x, plan.spread, beta=1 - half, alpha=plan.relax)
        t.sub_(w, alpha=half)
        if before is None:
            continue
        done = _settled(t, before, x @ plan.spread, tolerance)
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
        t, free = t[waiting], free[waiting]
        w, x = torch.empty_like(t), torch.empty_like(free)
    return solution, converged


def check_solver(
    regulariser: float, directions: int, iterations: int, tolerance: float, order: int
) -> None:
    """Refuse settings that the solver cannot use."""
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


def _settled(
    t: torch.Tensor, before: torch.Tensor, spread: torch.Tensor, tolerance: float
) -> torch.Tensor:
    """Tell which voxels' primal and dual residuals are below the tolerance."""
    import torch

    z = torch.clamp(t, min=0)
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
