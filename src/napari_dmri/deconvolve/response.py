r"""Estimate the responses of white matter, grey matter and CSF from the scan itself.

A response holds, per shell, the zonal coefficients of the signal of one straight bundle of fibres,
or of isotropic tissue. Four algorithms find the voxels:

* ``"fa"``: the 300 voxels with the highest FA (Tournier et al. 2004, Neuroimage 23:1176).
* ``"tournier"``: voxels in which deconvolution finds one strong fibre and nothing else, by turns
  with the response made from them (Tournier et al. 2013, NMR Biomed 26:1775).
* ``"dhollander"``: the most linear voxels of white matter, and grey matter and CSF by how their
  signal decays (Dhollander et al. 2016, ISMRM Workshop on Breaking the Barriers of Diffusion
  MRI, 5).
* ``"auto"``: the same tissues; white matter from the upper fifth of its linear voxels, with the
  spread of fibres within voxels taken out (see `response_kernel`) and the mean signal of all white
  matter. The most anisotropic voxels alone are denser than white matter is, and no voxel's fibres
  are straight: on simulated brains that costs 5 to 25 % of the response.

In each, all voxels are fitted at once, turned to a common fibre direction (see `response_fit`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.response_average import average_responses
from napari_dmri.deconvolve.response_checks import (
    require_anisotropy,
    require_signal,
    warn_if_few,
)
from napari_dmri.deconvolve.response_fit import fit_zonal
from napari_dmri.deconvolve.response_kernel import Fibre, fit_fibre
from napari_dmri.deconvolve.response_signals import Signals, read_signals
from napari_dmri.deconvolve.response_voxels import (
    Voxels,
    find_tissues,
    read_voxels,
    receive_field,
    single_fibres,
)
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import TISSUES, Response, ResponseSet, ScalarImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.provenance import provenance
from napari_dmri.signal.noise import correct_rician, shell_snr

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = ["ALGORITHMS", "average_responses", "estimate_response"]

Array = NDArray[Any]

ALGORITHMS = {
    "auto": "white matter without the fibres' spread, grey matter and CSF where they are found",
    "tournier": "white matter where deconvolution finds one fibre",
    "fa": "white matter where FA is highest",
    "dhollander": "white matter, grey matter and CSF by their signal decay",
}
"""The algorithms and what each takes."""

CITATIONS = {
    "fa": "Tournier JD, Calamante F, Gadian DG, Connelly A. Direct estimation of the fiber "
    "orientation density function from diffusion-weighted MRI data using spherical deconvolution. "
    "Neuroimage 23:1176-1185, 2004.",
    "tournier": "Tournier JD, Calamante F, Connelly A. Determination of the appropriate b value "
    "and number of gradient directions for high-angular-resolution diffusion-weighted imaging. "
    "NMR Biomed 26:1775-1786, 2013.",
    "dhollander": "Dhollander T, Raffelt D, Connelly A. Unsupervised 3-tissue response function "
    "estimation from single-shell or multi-shell diffusion MR data without a co-registered T1 "
    "image. ISMRM Workshop on Breaking the Barriers of Diffusion MRI, 5, 2016.",
    "spread": "Kaden E, Kruggel F, Alexander DC. Quantitative mapping of the per-axon diffusion "
    "coefficients in brain white matter. Magn Reson Med 75:1752-1763, 2016.",
    "fit": "Smith RE, Dhollander T, Connelly A. Constrained linear least squares estimation of "
    "anisotropic response function for spherical deconvolution. ISMRM Workshop on Breaking the "
    "Barriers of Diffusion MRI, 23, 2016.",
}

ROOT = float(np.sqrt(4 * np.pi))
ORDER = 10
MOST_ORDER = 16
COUNT = 300
MOST_VOXELS = 4000
"""Voxels that enter one fit at most, evenly taken from those selected."""
MOST_SPREAD = 38.0
LEAST_SPREAD = 5.0
"""Degrees below which fibres count as straight, and the data are taken as they are."""
MOST_MISFIT = 0.06
"""Misfit of the fibre model above which its spread is not believed and kept."""


@dataclass(frozen=True)
class _Settings:
    algorithm: str
    order: int
    spread: str
    noise: bool


def estimate_response(
    scan: Scan,
    algorithm: str = "auto",
    *,
    order: int | None = None,
    mask: Array | None = None,
    spread: str | None = None,
    noise: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> ResponseSet:
    """Estimate the responses of a scan, one row a shell.

    Parameters
    ----------
    scan
        The scan; at least one b0 volume and one shell.
    algorithm
        ``"auto"``, ``"tournier"``, ``"fa"`` or ``"dhollander"`` (see the module). White matter
        alone from ``tournier`` and ``fa``.
    order
        Highest order of white matter's response, even, 2 to 16; None is 10.
    mask
        Where to look (X, Y, Z); None takes the scan's mask, else a brain mask made here, or all
        voxels of an image without air around it.
    spread
        ``"remove"`` gives the response of straight fibres, ``"keep"`` that of the voxels as they
        are; None removes it for ``auto`` and keeps it otherwise.
    noise
        Take the bias of Rician noise out of the response.
    device, progress
        Where deconvolution runs for ``tournier``; who is told.

    Returns
    -------
    White matter's response and, where they are found, grey matter's and CSF's, in the units of the
    scan's magnitudes; `ResponseSet.voxels` labels where they come from.

    Raises
    ------
    InputError
        If the algorithm or order is unknown, the mask is empty or on another grid, b0 or
        directions are missing, no voxel is anisotropic, a shell holds noise alone, or the response
        has no anisotropy.

    Warns
    -----
    DmriWarning
        With the number of voxels that could not be used; if white matter's response comes from
        fewer than 20; if ``dhollander`` finds no grey matter or CSF.
    """
    chosen = _check(algorithm, order, spread, noise)
    report = progress or silent
    report(0.0, "reading the scan")
    voxels = read_voxels(scan, mask, progress=part(progress, 0, 0.5))
    report(0.5, "finding tissues")
    tissues = find_tissues(voxels, scan.affine)
    notes: list[str] = []
    found: dict[str, Response] = {}
    used: dict[str, Array] = {}
    count = None if algorithm == "auto" else COUNT
    rows = single_fibres(voxels, count, by="fa" if algorithm in ("fa", "tournier") else "linear")
    wanted = [some[_some(some)] for some in (rows, *tissues.values())]
    if algorithm == "tournier":
        from napari_dmri.deconvolve.response_tournier import candidates_for_peaks, select_by_peaks

        wanted += [rows, candidates_for_peaks(voxels)]
    signals = read_signals(scan, voxels, wanted)
    sigma = _sigma(signals, tissues["wm"]) if noise else 0.0
    axes = voxels.axis[rows]
    if algorithm == "tournier":
        rows, axes, note = select_by_peaks(
            signals, voxels, rows, sigma, device, part(progress, 0.5, 0.85)
        )
        notes.append(note)
    report(0.85, "fitting white matter")
    zonal, fibre = _white(signals, voxels, rows, axes, tissues["wm"], chosen, sigma, notes)
    require_anisotropy(scan, signals.of(rows[_some(rows)]), zonal)
    warn_if_few(scan, len(rows))
    shells = tuple(s.bvalue for s in scan.gradients.shells)
    about = _provenance(scan, chosen, sigma, fibre)
    found["wm"], used["wm"] = Response(zonal, shells, "wm", len(rows), about), rows
    if algorithm in ("auto", "dhollander"):
        for tissue in ("gm", "csf"):
            if tissue not in tissues:
                continue
            report(0.95, f"fitting {tissue}")
            used[tissue] = tissues[tissue]
            level = _isotropic(
                signals, voxels, used[tissue], tissues["wm"], sigma, water=tissue == "csf"
            )
            found[tissue] = Response(level, shells, tissue, len(used[tissue]), about)
        notes += _say_tissues(scan, found, algorithm)
    if sigma > 0:
        notes.append(
            f"The bias of Rician noise was taken out: sigma {sigma:.4g}, SNR "
            f"{zonal[0, 0] / ROOT / sigma:.3g} at b=0 in white matter."
        )
    if voxels.brain_made:
        notes.append("No mask was given: a brain mask was made from the scan.")
    if voxels.skipped:
        notes.append(f"{voxels.skipped} voxels of the mask could not be used.")
    report(1.0, "responses")
    labels = np.zeros(scan.grid, np.int16)
    for number, tissue in enumerate(TISSUES, 1):
        if tissue in used:
            labels.reshape(-1)[voxels.where[used[tissue]]] = number
    image = ScalarImage(labels, scan.affine, f"{scan.name} response voxels", "", about)
    return ResponseSet(found, image, tuple(notes))


def _check(algorithm: str, order: int | None, spread: str | None, noise: bool) -> _Settings:
    if algorithm not in ALGORITHMS:
        raise InputError(
            f"Unknown response algorithm {algorithm!r}; choose one of {', '.join(ALGORITHMS)}."
        )
    order = ORDER if order is None else order
    if order % 2 or not 2 <= order <= MOST_ORDER:
        raise InputError(
            f"The response's order is {order}; it must be an even number from 2 to {MOST_ORDER}."
        )
    spread = ("remove" if algorithm == "auto" else "keep") if spread is None else spread
    if spread not in ("remove", "keep"):
        raise InputError(f"The fibres' spread is {spread!r}; choose 'remove' or 'keep'.")
    return _Settings(algorithm, order, spread, noise)


def _some(rows: Array) -> Array:
    """Return at most `MOST_VOXELS` rows, evenly taken."""
    if len(rows) <= MOST_VOXELS:
        return np.arange(len(rows))
    return np.linspace(0, len(rows) - 1, MOST_VOXELS).astype(np.intp)


def _sigma(signals: Signals, rows: Array) -> float:
    """Return the noise SD on which the shells agree.

    Movement and misfit add to a shell's, so those far above the smallest do not count.
    """
    shells = shell_snr(signals.as_scan(rows[_some(rows)]), np.ones((len(_some(rows)), 1, 1), bool))
    measured = [s.sigma for s in shells if s.source and s.sigma > 0]
    least = min(measured, default=0.0)
    return float(max((s for s in measured if s <= 1.15 * least), default=0.0))


def _fit_shells(scan: Scan, signal: Array, axes: Array, order: int, sigma: float) -> Array:
    """Return zonal coefficients (S, L/2 + 1), b0 first."""
    zonal = np.zeros((len(scan.gradients.shells), order // 2 + 1))
    for row, shell in zip(zonal, scan.gradients.shells, strict=True):
        top = 0 if shell.is_b0 else order
        cosines = axes.astype(np.float64) @ scan.gradients.directions[shell.indices].T
        row[: top // 2 + 1] = fit_zonal(signal[:, shell.indices], cosines, top, sigma=sigma)
    return zonal


def _white(
    signals: Signals,
    voxels: Voxels,
    rows: Array,
    axes: Array,
    all_white: Array,
    chosen: _Settings,
    sigma: float,
    notes: list[str],
) -> tuple[Array, Fibre | None]:
    """Return white matter's zonal coefficients, and the fibre model where it was used."""
    scan, some = signals.scan, _some(rows)
    zonal = _fit_shells(scan, signals.of(rows[some]), axes[some], chosen.order, sigma)
    require_signal(scan, zonal[:, 0], sigma)
    notes.append(
        f"White matter: {len(rows)} voxel{'s' * (len(rows) != 1)} with one fibre direction."
    )
    if chosen.spread == "keep":
        return zonal, None
    bvalues = np.array([s.bvalue for s in scan.gradients.weighted_shells])
    fibre = fit_fibre(bvalues, zonal[1:] * (ROOT / zonal[0, 0]))
    if fibre.misfit > MOST_MISFIT or fibre.degrees > MOST_SPREAD:
        notes.append(
            "The spread of fibres within voxels was left in: sticks and a tensor do not describe "
            f"the signal (misfit {100 * fibre.misfit:.1f} % of the mean, spread "
            f"{fibre.degrees:.0f} degrees)."
        )
        return zonal, None
    if fibre.degrees < LEAST_SPREAD:
        notes.append("Fibres do not spread within these voxels, so no spread was taken out.")
        return zonal, None
    notes.append(
        f"Fibres spread by {fibre.degrees:.0f} degrees within these voxels; the response is that "
        f"of straight ones (misfit of the model {100 * fibre.misfit:.1f} % of the mean signal)."
    )
    pure = all_white[_some(all_white)]
    means = _fit_shells(scan, signals.of(pure), voxels.axis[pure], 8, sigma)[:, 0]
    require_signal(scan, means, sigma)
    straight = fibre.with_mean(bvalues, means[1:] / means[0])
    result = np.zeros_like(zonal)
    result[0, 0] = means[0]
    result[1:] = straight.zonal(bvalues, chosen.order)
    result[1:] *= (means[1:] / result[1:, 0])[:, None]
    notes.append(f"Its mean signal is that of {len(all_white)} voxels of white matter.")
    return result, straight


def _isotropic(
    signals: Signals, voxels: Voxels, rows: Array, white: Array, sigma: float, water: bool
) -> Array:
    """Return r_0 of each shell (S, 1), as bright as in white matter's place.

    Free water decays as one exponential, which says what shells below the noise cannot.
    """
    scan = signals.scan
    signal = signals.of(rows[_some(rows)]).astype(np.float64)
    bvalues = np.array([s.bvalue for s in scan.gradients.shells])
    level = np.zeros(len(bvalues))
    for k, shell in enumerate(scan.gradients.shells):
        values = signal[:, shell.indices]
        level[k] = values.mean()
        if sigma > 0 and shell.count > 1 and not shell.is_b0:
            # Volumes of a shell differ by noise alone here.
            spread = float(np.sqrt(values.var(1, ddof=1).mean()))
            level[k], _ = correct_rician(float(level[k]), spread)
    seen = (level > sigma) & (np.arange(len(level)) > 0)
    seen[1] = level[1] > 0
    if water and seen.any() and not seen[1:].all():
        last = np.flatnonzero(seen)[-1]
        rate = np.log(level[0] / level[last]) / (bvalues[last] - bvalues[0])
        hidden = ~seen & (bvalues > bvalues[last])
        level[hidden] = level[0] * np.exp(-rate * (bvalues[hidden] - bvalues[0]))
    field = receive_field(voxels, white, scan.affine)[rows].mean()
    scaled: Array = level[:, None] * (ROOT / field)
    return scaled


def _say_tissues(scan: Scan, found: dict[str, Response], algorithm: str) -> list[str]:
    names = {"gm": "grey matter", "csf": "CSF"}
    notes = [
        f"{names[t].capitalize() if t == 'gm' else 'CSF'}: {found[t].voxels} voxels."
        for t in names
        if t in found
    ]
    missing = [names[t] for t in names if t not in found]
    if missing:
        sentence = (
            f"{scan.name}: no {' and no '.join(missing)} was found; there is no response for "
            f"{'them' if len(missing) > 1 else 'it'}."
        )
        notes.append(sentence)
        if algorithm == "dhollander":
            warnings.warn(sentence, DmriWarning, stacklevel=3)
    return notes


def _provenance(scan: Scan, chosen: _Settings, sigma: float, fibre: Fibre | None) -> dict[str, Any]:
    keys = [k for k in (chosen.algorithm,) if k in CITATIONS] or ["dhollander"]
    keys += ["fit", *(["spread"] if fibre else [])]
    more: dict[str, Any] = {}
    if fibre is not None:
        more["fibre"] = {
            "sticks": round(fibre.sticks, 4),
            "parallel_um2_ms": round(fibre.parallel, 4),
            "perpendicular_um2_ms": round(fibre.perpendicular, 4),
            "spread_degrees": round(fibre.degrees, 2),
            "misfit": round(fibre.misfit, 5),
        }
    return provenance(
        "response",
        {
            "algorithm": chosen.algorithm,
            "order": chosen.order,
            "spread": chosen.spread,
            "noise": chosen.noise,
        },
        {"scan": scan.name, "path": str(scan.path or "")},
        tuple(CITATIONS[k] for k in keys),
        scan.simulated,
        sigma=round(sigma, 6),
        **more,
    )
