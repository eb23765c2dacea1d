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

A soft constraint parts close fibres, a hard one keeps noise out; `choose_hardness` says which is
taken where none is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.admm import check_solver, constraint_count, make_plan, tile_solver
from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.magnitudes import choose_sigma, noise_notes
from napari_dmri.deconvolve.shells import (
    Shells,
    check_order,
    default_order,
    forward_matrix,
    order_notes,
    require_anisotropy,
    select_shells,
)
from napari_dmri.deconvolve.voxels import check_start, solve_voxels
from napari_dmri.device import choose_device
from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.provenance import provenance
from napari_dmri.signal.blocks import blocks, fitting_mask
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients
from napari_dmri.sphere.sampling import half_sphere

if TYPE_CHECKING:
    from napari_dmri.images import Response
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan

__all__ = ["SHARPEST", "choose_hardness", "csd"]

CITATION = (
    "Tournier J-D, Calamante F, Connelly A. Robust determination of the fibre orientation "
    "distribution in diffusion MRI: non-negativity constrained super-resolved spherical "
    "deconvolution. NeuroImage 35:1459-1472, 2007."
)

SHARPEST: dict[str, Any] = {
    "order": 16,
    "shell": "all",
    "noise": "rician",
    "hardness": float("inf"),
    "rho": 0.3,
    "iterations": 100,
    "tolerance": 0.01,
}
"""Settings with the best peaks on simulated crossings: ``csd(scan, response, **SHARPEST)``."""

SOFT, FIRM = 0.4, 3.0
"""Hardness up to order 8 where fibres stand out of the noise, and where they do not."""

CLEAR = 20.0
"""Contrast from which on fibres stand out (see `choose_hardness`)."""

SAMPLE = 2000
"""Voxels from which the contrast is taken."""

Array = NDArray[Any]


def csd(
    scan: Scan,
    response: Response | ResponseSet,
    *,
    shell: float | str | None = None,
    order: int | None = None,
    mask: Array | None = None,
    regulariser: float = 1e-3,
    hardness: float | None = None,
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
        alone determines the fODF, and a note says so. None chooses by the distinct directions
        used (see `shells.default_order`).
    mask
        Voxels to deconvolve (X, Y, Z); None takes the scan's mask, else all voxels with b0 > 0.
    regulariser
        Lambda, positive: weight of the norm of f in units of :math:`\mathrm{tr}(A^T A) / n`.
    hardness
        Kappa, the cost of negative amplitudes; infinite for the hard constraint. A finite one
        converges faster, depends less on the constraint's directions and parts close fibres
        better, at the price of small negative amplitudes. None takes `choose_hardness`.
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
    shells = select_shells(scan, shell, wm)
    asked = order is not None
    order = default_order(shells.directions) if order is None else check_order(order)
    directions = constraint_count(order) if directions is None else directions
    check_solver(
        regulariser, directions, iterations, tolerance, order, 1.0 if hardness is None else hardness
    )
    require_anisotropy(shells.rows, shells.bvalues)
    begin = check_start(scan, start, order)
    level = choose_sigma(scan, noise, sigma, mask)
    where = choose_device(device)

    forward = forward_matrix(scan.gradients, shells.volumes, wm, order)
    scale = float(np.abs(shells.rows[:, 0]).max())
    forward /= scale
    constraints = design_matrix(half_sphere(directions), order)
    energy = float(np.trace(forward.T @ forward))
    if hardness is None:
        contrast = _contrast(scan, shells, mask, level) if order <= 8 else 0.0
        hardness = choose_hardness(order, contrast)
    penalty = np.full(forward.shape[1], regulariser * energy / forward.shape[1])
    plan = make_plan(
        forward, constraints, penalty, rho=rho, hardness=hardness, device=where.torch()
    )

    tile = tile_solver(
        plan, scale, forward.shape[1], iterations=iterations, tolerance=tolerance, sigma=level
    )
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
        *order_notes(order, wm, shells, chosen=not asked),
        f"negative amplitudes cost {hardness:g} (hardness)"
        if np.isfinite(hardness)
        else "no negative amplitudes (hard constraint)",
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


def choose_hardness(order: int, contrast: float = 0.0) -> float:
    r"""Return the hardness of an fODF that none is asked for.

    Infinite (the hard constraint) from order 14 on, 8 at order 12, 4 at order 10; up to order 8,
    0.4 where the contrast is 20 or more, else 3. The contrast is

    .. math:: \sqrt{V}\, \sqrt{\max(s^2 - \sigma^2, 0)} / \sigma

    of the V volumes of the highest shell used, with the median over voxels of the variance
    :math:`s^2` over directions.

    Chosen by F1 on simulated crossings (seeds 20260920 and 20261120; b = 3000 s/mm², 64
    directions). Order 8: 0.949 with 0.4 and 0.942 with 2 at SNR 30 (contrast 23), but 0.919 and
    0.926 at SNR 20 (contrast 14); dispersed, with grey matter, CSF and an estimated response, 0.907
    with 0.4 and 0.920 with 3 at SNR 30 (contrast 17). Order 10: 0.958 and 0.938 with 4 at SNR 30
    and 20, 0.960 and 0.933 with 2. Order 12: 0.968 and 0.943 with 8, 0.970 and 0.937 with 4; 20 is
    as good and slower. Order 16 over all shells: 0.981 and 0.962 with the hard constraint, 0.981
    and 0.959 with 20.

    Parameters
    ----------
    order
        L of the fODF.
    contrast
        How far the signal's variation over directions stands out of the noise; 0 if not known.
    """
    if order >= 14:
        return float("inf")
    if order >= 10:
        return 8.0 if order == 12 else 4.0
    return SOFT if contrast >= CLEAR else FIRM


def _contrast(scan: Scan, shells: Shells, mask: Array | None, level: float | None) -> float:
    """Return how far the highest shell used stands out of the noise, 0 if that is not known."""
    try:
        sigma = level or choose_sigma(scan, "rician", None, mask)
    except InputError:
        return 0.0
    inside = fitting_mask(scan, mask)
    inside = scan.mean_b0() > 0 if inside is None and scan.gradients.b0_mask.any() else inside
    some = np.zeros(scan.grid, bool)
    flat = np.arange(some.size) if inside is None else np.flatnonzero(inside)
    some.reshape(-1)[flat[:: max(1, len(flat) // SAMPLE)]] = True
    volumes = scan.gradients.shell(shells.bvalues[-1]).indices
    read = blocks(scan, volumes, some)
    spread = np.concatenate([np.asarray(b.signal, np.float64).var(1, ddof=1) for b in read])
    spread = spread[np.isfinite(spread)]
    if not sigma or not len(spread):
        return 0.0
    above = max(float(np.median(spread)) - sigma**2, 0.0)
    return float(np.sqrt(len(volumes) * above) / sigma)
