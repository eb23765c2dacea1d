r"""Deconvolve by RUMBA-SD: robust and unbiased model-based spherical deconvolution.

Compartments f >= 0 - fibres along a few hundred axes, grey matter, CSF - maximise the likelihood of
S/b0 under the noise of magnitude images (Rician, or non-central chi where n coils are combined as
a sum of squares), by Richardson-Lucy steps (Canales-Rodriguez et al. 2015; see `rumba_steps`, and
`rumba_tv` for total variation). The noise of each voxel is estimated on the way. The fODF is the
sum of its fibres,

.. math:: f(u) = \sum_j f_j\, \delta(u - v_j), \qquad
          f_{lm} = \frac{\bar S_0}{R} \sum_j f_j Y_{lm}(v_j),

cut off at an order: non-negative before the cut, so orders 10 to 14 ring little. R is white
matter's own b0 signal; :math:`\sqrt{4\pi} f_{00}` is the fibre density in units of the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.rumba_kernel import Dictionary, make_dictionary
from napari_dmri.deconvolve.rumba_output import Output
from napari_dmri.deconvolve.rumba_steps import Effort, iterate, make_plan
from napari_dmri.deconvolve.shells import check_order
from napari_dmri.deconvolve.voxels import Found, solve_voxels
from napari_dmri.deconvolve.workers import Pulse, workers
from napari_dmri.device import choose_device
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.provenance import provenance
from napari_dmri.sphere.graph import geodesic_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_dmri.images import Response
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan

__all__ = ["rumba"]

FREQUENCY = 8
"""Of the geodesic half sphere: 321 axes, 8 degrees apart, that all 60 rotations of the
icosahedron carry into themselves."""

PART = 512
"""Voxels that one thread deconvolves at a time: their state stays in its cache."""

CITATION = (
    "Canales-Rodríguez EJ, Daducci A, Sotiropoulos SN, et al. Spherical deconvolution of "
    "multichannel diffusion MRI data with non-Gaussian noise models and spatial regularization. "
    "PLoS ONE 10:e0138910, 2015."
)

Array = NDArray[Any]


def rumba(
    scan: Scan,
    responses: Response | ResponseSet,
    *,
    shell: float | str | None = None,
    iterations: int = 600,
    total_variation: bool = False,
    accelerate: bool = False,
    order: int = 12,
    coils: int = 1,
    noise: float | tuple[float, float] = (1 / 80, 1 / 8),
    smoothing: float = 1.0,
    tolerance: float = 1e-5,
    axes: Array | None = None,
    clip: bool = True,
    keep_vertices: bool = False,
    mask: Array | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Deconvolution:
    r"""Estimate fODFs, grey matter and CSF by RUMBA-SD, or RUMBA-TV with total variation.

    .. math:: f \leftarrow f \circ \frac{H^T \big[ S \circ \tfrac{I_n}{I_{n-1}}
              (S \circ H f / \sigma^2) \big]}{H^T H f}

    Parameters
    ----------
    scan
        The scan; its data are read block by block and divided by the mean b0.
    responses
        White matter's response and, where known, grey matter's and CSF's.
    shell
        None or ``"all"`` uses all volumes; a b-value in s/mm² uses one shell, without b0.
    iterations
        Richardson-Lucy steps; more sharpen the fODF and, late, fit the noise. 600 is usual; 1200
        to 1600 found most crossings in simulations at SNR 20 to 30.
    total_variation
        Smooth each compartment along space as well; keeps all voxels' compartments in memory.
    accelerate
        Do the work of these iterations in about :math:`\sqrt{7 k}` extrapolated steps.
    order
        L of the fODF that is written, even, 2 to 16.
    coils
        n: 1 for Rician noise (one coil, or coils combined by a spatial matched filter); the number
        of coils where they are combined as a sum of squares.
    noise
        Least and largest sigma in units of b0, between which it is estimated; one number fixes it.
    smoothing
        Factor of the weight of total variation, which follows the noise.
    tolerance
        A voxel has converged when a step changes its compartments by less than this share; a tile
        whose voxels all have ends early. 0 for never.
    axes
        Fibre axes (D, 3), none twice nor antipodal; None takes 321 of a geodesic half sphere.
    clip
        Whether S/b0 is clipped at 1 from above; it always is at 0 from below.
    keep_vertices
        Add the map ``"vertices"`` (X, Y, Z, D): fibre density along each axis, before it becomes
        SH; the axes are in ``Deconvolution.axes``.
    mask
        Voxels to deconvolve (X, Y, Z); None takes the scan's mask, else all voxels with b0 > 0.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    The fODF, and the maps ``"residual"``, ``"noise"`` (sigma over the mean b0), for isotropic
    tissues ``"gm"`` and ``"csf"`` (coefficients of order 0), and ``"vertices"`` if asked for.

    Raises
    ------
    InputError
        If the scan has no b0, a response has no row for a shell or no anisotropy, a setting is out
        of range, or the mask is empty.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    order = check_order(order)
    limits = _check(iterations, tolerance, noise, smoothing)
    along = geodesic_axes(FREQUENCY) if axes is None else _check_axes(axes)
    where = choose_device(device)
    dictionary = make_dictionary(scan, responses, along, "all" if shell is None else shell)
    plan = make_plan(dictionary.matrix, coils, limits, where.torch())
    output = Output(dictionary, plan, order, keep_vertices, where.torch())
    pulse = Pulse(progress)
    effort = Effort(iterations, accelerate, tolerance)

    if total_variation:
        from napari_dmri.deconvolve.rumba_volume import solve_volume

        found = solve_volume(
            scan,
            dictionary,
            plan,
            output,
            effort,
            mask=mask,
            clip=clip,
            smoothing=smoothing,
            where=where,
            progress=pulse,
            beat=pulse.beat,
        )
    else:
        with workers(where.torch().type) as threads:

            def tile(
                signal: torch.Tensor, _: torch.Tensor | None
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                normal, mean = dictionary.normalise(signal, clip)
                share = -(-len(normal) // threads.count)
                if where.torch().type == "cpu":
                    share = min(share, PART)
                solved: dict[int, tuple[torch.Tensor, ...]] = {}

                def work(k: int, alive: Callable[[], None]) -> None:
                    for i in range(k * share, len(normal), share * threads.count):
                        part = normal[i : i + share]
                        f, sigma, done = iterate(plan, part, effort, alive)
                        solved[i] = output(f, sigma, part, mean[i : i + share], done)

                threads.run(work, pulse.beat)
                parts = zip(*(solved[i] for i in sorted(solved)), strict=True)
                import torch

                values, converged, error = (torch.cat(p) for p in parts)
                return values, converged, error

            found = solve_voxels(
                scan,
                dictionary.volumes,
                tile,
                output.widths,
                mask=mask,
                where=where,
                working=6 * plan.columns + 8 * plan.rows + 5 * len(plan.right) + sum(output.widths),
                progress=pulse,
                text="RUMBA-SD",
            )
    name = "rumba-tv" if total_variation else "rumba"
    parameters = {
        "iterations": iterations,
        "accelerate": accelerate,
        "tolerance": tolerance,
        "shell": "all" if shell is None else shell,
        "steps": effort.steps,
        "order": order,
        "coils": coils,
        "noise": list(limits),
        "axes": len(along),
        "clip_upper": clip,
        **({"smoothing": smoothing} if total_variation else {}),
    }
    return _result(scan, responses, dictionary, output, found, name, parameters, where.name)


def _check(
    iterations: int, tolerance: float, noise: float | tuple[float, float], smoothing: float
) -> tuple[float, float]:
    """Refuse settings that make no sense; return the limits of the noise."""
    if iterations != int(iterations) or iterations < 1:
        raise InputError(f"{iterations} iterations are asked for; choose a whole number from 1.")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"The tolerance is {tolerance}; it must be 0 or more.")
    if not (np.isfinite(smoothing) and smoothing >= 0):
        raise InputError(f"The weight of total variation is {smoothing}; it must be 0 or more.")
    limits = np.atleast_1d(np.asarray(noise, dtype=np.float64))
    if limits.size == 1:
        limits = np.repeat(limits, 2)
    if limits.size != 2 or not np.isfinite(limits).all() or not 0 < limits[0] <= limits[1]:
        raise InputError(
            f"The noise is {noise}; give a positive sigma in units of b0 (1/30 for SNR 30), or the "
            "least and the largest one."
        )
    return float(limits[0]), float(limits[1])


def _check_axes(axes: Array) -> NDArray[np.float64]:
    """Return fibre axes as unit vectors, refusing those that cannot be a dictionary."""
    given = np.asarray(axes, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 3 or len(given) < 6 or not np.isfinite(given).all():
        raise InputError(
            f"The fibre axes have shape {given.shape}; expected (D, 3) finite numbers, D >= 6."
        )
    norms = np.linalg.norm(given, axis=1, keepdims=True)
    if (norms == 0).any():
        raise InputError("A fibre axis is the zero vector; give unit vectors.")
    unit = given / norms
    same = np.abs(np.triu(unit @ unit.T, 1)) > 1 - 1e-9
    if same.any():
        i, j = np.argwhere(same)[0]
        raise InputError(
            f"Fibre axes {i} and {j} are the same or antipodal; give the axes of a half sphere."
        )
    return np.ascontiguousarray(unit)


def _result(
    scan: Scan,
    responses: Response | ResponseSet,
    dictionary: Dictionary,
    output: Output,
    found: Found,
    name: str,
    parameters: dict[str, Any],
    device: str,
) -> Deconvolution:
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    label = "RUMBA-TV" if name == "rumba-tv" else "RUMBA-SD"
    shells = dictionary.shells
    made = provenance(
        name,
        parameters,
        inputs={
            "scan": scan.name,
            "path": str(scan.path or ""),
            "responses": {
                tissue: {"bvalues": response.bvalues, "zonal": response.zonal.tolist()}
                for tissue, response in responses.items()
            },
        },
        citations=(CITATION,),
        simulated=scan.simulated,
        volumes=shells.volumes.tolist(),
        voxels={"deconvolved": found.voxels, "converged": found.converged, **found.counts},
        rank=int(output.plan.right.shape[0]),
        device=device,
    )
    fod = ShImage(
        found.parts[0],
        scan.affine,
        mask=found.fitted,
        normalised=False,
        name=f"{scan.name} {label} order {parameters['order']}",
        provenance=made,
    )

    def image(data: Array, what: str, units: str = "") -> ScalarImage:
        data = data[..., 0] if data.shape[3] == 1 else data
        return ScalarImage(data, scan.affine, f"{scan.name} {what}", units, made)

    maps = {"residual": found.residual, "noise": image(found.parts[1], "noise", "of b0")}
    for tissue, part in zip(dictionary.tissues, found.parts[2:], strict=False):
        maps[tissue] = image(part, tissue.upper())
    if output.keep:
        maps["vertices"] = image(found.parts[-1], "fibre density along axes")
    steps = f"{parameters['iterations']} iterations"
    if parameters["accelerate"]:
        steps = f"{parameters['steps']} accelerated steps, for {steps}"
    notes = (
        f"{label} used {shells}" + (" (b0 volumes as their mean)" if dictionary.has_b0 else ""),
        f"{steps}; {len(dictionary.axes)} fibre axes; {_tissues(dictionary)}",
        found.note
        if found.converged
        else f"{found.voxels} voxels deconvolved; all steps were taken, as is usual",
    )
    return Deconvolution(
        fod,
        maps,
        notes,
        tuple(int(v) for v in shells.volumes),
        found.voxels,
        found.converged,
        dictionary.axes if output.keep else None,
    )


def _tissues(dictionary: Dictionary) -> str:
    if not dictionary.tissues:
        return "white matter alone"
    return "white matter with " + " and ".join(t.upper() for t in dictionary.tissues)
