r"""Run RUMBA-SD's steps on some voxels: multiplicative updates with the noise of magnitudes.

With signal S, dictionary H and compartments f >= 0, predicted signal :math:`\bar S = H f`, and n
coils (Canales-Rodriguez et al. 2015),

.. math::

    f &\leftarrow f \circ \frac{H^T (S \circ \rho)}{H^T H f}, \qquad
    \rho = \frac{I_n(S \circ \bar S / \sigma^2)}{I_{n-1}(S \circ \bar S / \sigma^2)} \\
    \sigma^2 &\leftarrow \frac{1}{n N} \left[ \tfrac12 (S^T S + \bar S^T \bar S)
        - \bar S^T (S \circ \rho) \right] .

With :math:`H = A B` all products run through the short side of A, and the noise needs none of its
own. The accelerated form takes each step from a point ahead, :math:`y = f_k + \beta_k (f_k -
f_{k-1})` with Nesterov's :math:`\beta_k = (k - 1) / (k + 2)`, held above a tenth of :math:`f_k`
so that it stays positive: k of these do the work of about :math:`k^2 / 7` plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.bessel import BesselRatio
from napari_dmri.deconvolve.rumba_kernel import factorise

if TYPE_CHECKING:
    import torch

__all__ = ["Effort", "Plan", "Steps", "accelerated_steps", "iterate", "make_plan", "momentum"]

FIRST_NOISE = 1 / 15
"""Noise to begin with, in units of b0, as in the paper."""

FLOOR = 1e-18
"""Compartments do not fall below this: denormal numbers are slow."""

KEPT = 0.1
"""A point ahead keeps at least this share of a compartment."""

GAIN = 7.0
"""k accelerated steps count as k² / GAIN plain ones (measured by likelihood and by F1)."""

EVERY = 20
"""Steps between two looks at convergence."""

Array = NDArray[Any]
Beat = Callable[[], None]


def accelerated_steps(iterations: int) -> int:
    """Return how many accelerated steps do the work of some plain iterations.

    Examples
    --------
    >>> accelerated_steps(600), accelerated_steps(1500)
    (65, 103)
    """
    return min(iterations, math.ceil(math.sqrt(GAIN * iterations)))


def momentum(step: int) -> float:
    """Return how far ahead the next step looks, after ``step`` of them."""
    return (step - 1) / (step + 2)


@dataclass(frozen=True)
class Effort:
    """Say how long to iterate, and how.

    Parameters
    ----------
    iterations
        Plain steps, or what the accelerated ones shall do the work of.
    accelerate
        Whether to step from points ahead.
    tolerance
        A voxel has converged when a step changes it by at most this share of its sum; all voxels
        having converged ends the work.
    """

    iterations: int = 600
    accelerate: bool = False
    tolerance: float = 0.0

    @property
    def steps(self) -> int:
        """Steps that are taken at most."""
        return accelerated_steps(self.iterations) if self.accelerate else self.iterations

    def looks(self, step: int) -> bool:
        """Whether to look at convergence after a step."""
        return step == self.steps or step % EVERY == 0


@dataclass(frozen=True, eq=False)
class Plan:
    r"""Hold the dictionary and the settings on a device.

    Parameters
    ----------
    left, left_t
        A (N, K) and its transpose; None where H is not factorised (then K = N and B = H).
    right, right_t
        B (K, M) and its transpose.
    gram
        :math:`A^T A` (K, K); None where H is not factorised.
    ratio
        The Bessel ratio.
    coils
        n.
    noise
        Least and largest :math:`\sigma`, in units of b0.
    rows
        N.
    """

    left: torch.Tensor | None
    left_t: torch.Tensor | None
    right: torch.Tensor
    right_t: torch.Tensor
    gram: torch.Tensor | None
    ratio: BesselRatio
    coils: int
    noise: tuple[float, float]
    rows: int

    @property
    def columns(self) -> int:
        """M."""
        return int(self.right.shape[1])


def make_plan(matrix: Array, coils: int, noise: tuple[float, float], device: torch.device) -> Plan:
    """Factorise a dictionary (N, M) in float64 and put it on a device."""
    import torch

    def put(array: Array) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)

    factors = factorise(matrix)
    ratio = BesselRatio(coils, device)
    rows = len(matrix)
    if factors is None:
        return Plan(None, None, put(matrix), put(matrix.T), None, ratio, coils, noise, rows)
    left, right = factors
    return Plan(
        put(left),
        put(left.T),
        put(right),
        put(right.T),
        put(left.T @ left),
        ratio,
        coils,
        noise,
        rows,
    )


class Steps:
    """Compute the factors of one step for up to ``most`` voxels, in buffers that are kept."""

    def __init__(self, plan: Plan, most: int, device: torch.device) -> None:
        import torch

        self.plan, self.most = plan, most
        short, rows, columns = plan.right.shape[0], plan.rows, plan.columns

        def empty(count: int, width: int) -> torch.Tensor:
            return torch.empty(count, width, device=device)

        self.short, self.weighted = empty(most, short), empty(most, short)
        self.both, self.factors = empty(2 * most, short), empty(2 * most, columns)
        self.x, self.rho, self.work = empty(most, rows), empty(most, rows), empty(most, rows)
        self.predicted = empty(most, rows)

    def factor(
        self, f: torch.Tensor, signal: torch.Tensor, energy: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return numerator and denominator (n, M) of the update of f (n, M); renew the variance.

        Parameters
        ----------
        f
            Compartments.
        signal
            S/b0 (n, N).
        energy
            Half the sum of its squares (n, 1).
        variance
            :math:`\sigma^2` (n, 1), renewed in place.
        """
        import torch

        plan, n = self.plan, len(f)
        short = self.short[:n]
        both, factors = self.both[: 2 * n], self.factors[: 2 * n]
        upper, lower = both[:n], both[n:]
        torch.mm(f, plan.right_t, out=short)
        if plan.left_t is None or plan.left is None or plan.gram is None:
            predicted, rho = short, upper
            lower.copy_(short)
        else:
            predicted = torch.mm(short, plan.left_t, out=self.predicted[:n])
            torch.mm(short, plan.gram, out=lower)
            rho = self.rho[:n]
        x = torch.div(signal, variance, out=self.x[:n]).mul_(predicted)
        plan.ratio(x, rho, self.work[:n]).mul_(signal)
        if plan.left is not None:
            torch.mm(rho, plan.left, out=upper)
        misfit = torch.sub(lower, upper, alpha=2, out=self.weighted[:n]).mul_(short)
        least, most = plan.noise
        torch.sum(misfit, 1, keepdim=True, out=variance)
        variance.mul_(0.5).add_(energy).div_(plan.coils * plan.rows).clamp_(least**2, most**2)
        torch.mm(both, plan.right, out=factors)
        return factors[:n], factors[n:]


def iterate(
    plan: Plan,
    signal: torch.Tensor,
    effort: Effort,
    beat: Beat | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Deconvolve the signal of some voxels, each for itself.

    Parameters
    ----------
    plan
        The dictionary and the settings.
    signal
        S/b0 (n, N), float32.
    effort
        How long, and how.
    beat
        Called once a step; may raise.

    Returns
    -------
    Compartments (n, M), noise sigma (n,) in units of b0, which converged (n,).
    """
    import torch

    n, device = len(signal), signal.device
    steps = Steps(plan, n, device)
    f = torch.full((n, plan.columns), 1 / plan.columns, device=device)
    ahead, after = f, f
    if effort.accelerate:
        ahead, after = f.clone(), torch.empty_like(f)
    energy = signal.square().sum(1, keepdim=True).mul_(0.5)
    variance = torch.full((n, 1), FIRST_NOISE**2, device=device)
    converged = torch.zeros(n, dtype=torch.bool, device=device)
    for step in range(1, effort.steps + 1):
        if beat is not None:
            beat()
        numerator, denominator = steps.factor(ahead, signal, energy, variance)
        numerator.div_(denominator)
        look = effort.looks(step)
        if look:
            change = numerator.sub(1).abs_().mul_(ahead).sum(1)
            converged = change <= effort.tolerance * ahead.sum(1)
        if not effort.accelerate:
            f.mul_(numerator).clamp_(min=FLOOR)
        else:
            torch.mul(ahead, numerator, out=after).clamp_(min=FLOOR)
            # f holds the step before; the point ahead takes its place in memory.
            torch.lerp(f, after, 1 + momentum(step), out=ahead)
            torch.maximum(ahead, torch.mul(after, KEPT, out=f), out=ahead)
            f, after = after, f
        if look and bool(converged.all()):
            break
    return f, variance.sqrt().squeeze(1), converged
