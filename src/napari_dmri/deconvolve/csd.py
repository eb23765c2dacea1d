r"""Deconvolve one fODF from a shell, or from all, with non-negative amplitudes.

With A the forward matrix of the response (see `shells`), C the SH basis on m directions of the
half sphere, and :math:`\mu = \lambda\,\mathrm{tr}(A^T A) / n`,

.. math:: \min_f \tfrac12 \lVert A f - s \rVert^2 + \tfrac{\mu}{2} \lVert f \rVert^2
          + \tfrac{\kappa}{2} \frac{\mathrm{tr}(A^T A)}{\mathrm{tr}(C^T C)}
          \lVert \min(C f, 0) \rVert^2

(Tournier et al. 2007). The hardness :math:`\kappa` sets how much negative amplitudes cost; an
infinite one is the hard constraint :math:`C f \ge 0`. Measured without noise at order 8, kappa = 3
agrees with DIPY's CSD (cosine similarity 0.9998), and 0.3 with MRtrix3's (0.9998). Orders above
those that the directions support are determined by the constraint: super-resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.admm import check_solver, constraint_count, make_plan, solve
from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.magnitudes import choose_sigma, noise_notes
from napari_dmri.deconvolve.shells import (
    check_order,
    forward_matrix,
    order_notes,
    require_anisotropy,
    select_shells,
)
from napari_dmri.deconvolve.voxels import check_start, solve_voxels
from napari_dmri.device import choose_device
from napari_dmri.images import ShImage
from napari_dmri.provenance import provenance
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients
from napari_dmri.sphere.sampling import half_sphere

if TYPE_CHECKING:
    import torch

    from napari_dmri.images import Response
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan

__all__ = ["SHARPEST", "csd"]

CITATION = (
    "Tournier J-D, Calamante F, Connelly A. Robust determination of the fibre orientation "
    "distribution in diffusion MRI: non-negativity constrained super-resolved spherical "
    "deconvolution. NeuroImage 35:1459-1472, 2007."
)

ORDER = 12
"""The order of an fODF that is not asked for: the best peaks for its time (see benchmarks)."""

SHARPEST: dict[str, Any] = {
    "order": 14,
    "shell": "all",
    "noise": "rician",
    "hardness": 20.0,
    "rho": 0.3,
    "iterations": 50,
    "tolerance": 0.01,
}
"""Settings with the best peaks on simulated crossings: ``csd(scan, response, **SHARPEST)``."""

Array = NDArray[Any]


def csd(
    scan: Scan,
    response: Response | ResponseSet,
    *,
    shell: float | str | None = None,
    order: int | None = None,
    mask: Array | None = None,
    regulariser: float = 1e-3,
    hardness: float = 4.0,
    noise: str = "gaussian",
    sigma: float | None = None,
    directions: int | None = None,
    iterations: int = 100,
    tolerance: float = 1e-3,
    rho: float = 0.5,
    start: ShImage | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Deconvolution:
    r"""Estimate fODFs by constrained spherical deconvolution.

    .. math:: \min_f \tfrac12 \lVert A f - s \rVert^2
              + \tfrac{\lambda\,\mathrm{tr}(A^T A)}{2 n} \lVert f \rVert^2
              + \tfrac{\kappa\,\mathrm{tr}(A^T A)}{2\,\mathrm{tr}(C^T C)}
              \lVert \min(C f, 0) \rVert^2

    Parameters
    ----------
    scan
        The scan; magnitudes as they are (not divided by b0), read block by block.
    response
        White matter's response, or a set that holds it.
    shell
        b-value in s/mm²; None takes the highest; ``"all"`` fits all weighted shells with one fODF.
    order
        L of the fODF, even, 2 to 16. Above the order that the directions support the constraint
        alone determines the fODF, and a note says so. None takes 12.
    mask
        Voxels to deconvolve (X, Y, Z); None takes the scan's mask, else all voxels with b0 > 0.
    regulariser
        Lambda, positive: weight of the norm of f in units of :math:`\mathrm{tr}(A^T A) / n`.
    hardness
        Kappa, the cost of negative amplitudes; infinite for the hard constraint. A finite one
        converges faster, depends less on the constraint's directions and parts close fibres
        better, at the price of small negative amplitudes.
    noise
        ``"gaussian"``, or ``"rician"``: the data term is the likelihood of magnitudes, maximised
        by expectation-maximisation (see `admm.magnitude_free`): no bias from the noise floor.
    sigma
        Standard deviation of Rician noise in the scan's units; None estimates it.
    directions
        How many directions of the half sphere carry the constraint; None takes two for each
        coefficient, 240 at least.
    iterations, tolerance, rho
        Of the solver (see `admm`).
    start
        An fODF of this scan to start from: fewer iterations where it is close.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    The fODF, and the map ``"residual"``.

    Raises
    ------
    InputError
        If the order is odd or out of range, the response has no row for a shell or no anisotropy,
        the regulariser is not positive, or the mask is empty.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    wm = response.wm if isinstance(response, ResponseSet) else response
    order = check_order(ORDER if order is None else order)
    directions = constraint_count(order) if directions is None else directions
    check_solver(regulariser, directions, iterations, tolerance, order, hardness)
    shells = select_shells(scan, shell, wm)
    require_anisotropy(shells.rows, shells.bvalues)
    begin = check_start(scan, start, order)
    level = choose_sigma(scan, noise, sigma, mask)
    where = choose_device(device)

    forward = forward_matrix(scan.gradients, shells.volumes, wm, order)
    scale = float(np.abs(shells.rows[:, 0]).max())
    forward /= scale
    constraints = design_matrix(half_sphere(directions), order)
    penalty = np.full(forward.shape[1], regulariser * np.trace(forward.T @ forward))
    penalty /= forward.shape[1]
    plan = make_plan(
        forward, constraints, penalty, rho=rho, hardness=hardness, device=where.torch()
    )

    def tile(
        signal: torch.Tensor, guess: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        signal /= scale
        x, converged = solve(
            plan,
            signal,
            iterations=iterations,
            tolerance=tolerance,
            start=guess,
            sigma=None if level is None else level / scale,
        )
        error = signal.sub_(x @ plan.forward).square_().mean(1).sqrt_()
        return x, converged, error * scale

    found = solve_voxels(
        scan,
        shells.volumes,
        tile,
        (n_coefficients(order),),
        mask=mask,
        where=where,
        working=len(shells.volumes) * 2 + directions * 3 + forward.shape[1] * 4,
        start=begin,
        progress=progress,
        text=f"CSD order {order}",
    )
    made = provenance(
        "csd",
        {
            "order": order,
            "shell": "all" if shell == "all" else shells.bvalues[0],
            "regulariser": regulariser,
            "hardness": str(hardness) if np.isinf(hardness) else hardness,
            "noise": noise,
            "sigma": level,
            "directions": directions,
            "iterations": iterations,
            "tolerance": tolerance,
            "rho": rho,
            "started_from": "" if start is None else start.name,
        },
        inputs={
            "scan": scan.name,
            "path": str(scan.path or ""),
            "response": {"bvalues": list(shells.bvalues), "zonal": shells.rows.tolist()},
        },
        citations=(CITATION,),
        simulated=scan.simulated,
        volumes=shells.volumes.tolist(),
        voxels={"deconvolved": found.voxels, "converged": found.converged, **found.counts},
        device=where.name,
    )
    fod = ShImage(
        found.parts[0],
        scan.affine,
        mask=found.fitted,
        normalised=False,
        name=f"{scan.name} CSD order {order}",
        provenance=made,
    )
    notes = (
        f"CSD used {shells}",
        *order_notes(order, wm, shells),
        *noise_notes(level, sigma),
        found.note,
    )
    return Deconvolution(
        fod,
        {"residual": found.residual},
        notes,
        tuple(int(v) for v in shells.volumes),
        found.voxels,
        found.converged,
    )
