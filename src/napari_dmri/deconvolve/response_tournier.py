r"""Choose single-fibre voxels by deconvolution, by turns with the response made from them.

Deconvolve, find the two largest peaks of each fODF, keep the voxels with the largest

.. math:: \sqrt{p_1}\,(1 - p_2 / p_1)^2,

make the response from them along their first peak, and go on until the same voxels are chosen
(Tournier et al. 2013, NMR Biomed 26:1775). Peaks are divided by the voxel's brightness at b = 0
here, as voxels near the coil would be preferred otherwise. The first response is that of the voxels
with the highest FA; each round but the first looks at the ten times as many voxels that ranked
highest.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.response_checks import require_signal
from napari_dmri.deconvolve.response_fit import fit_zonal
from napari_dmri.deconvolve.response_voxels import ANISOTROPIC, Voxels
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import Response
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from napari_dmri.deconvolve.response_signals import Signals
    from napari_dmri.scan import Shell

__all__ = ["candidates_for_peaks", "select_by_peaks"]

Array = NDArray[Any]

COUNT = 300
CANDIDATES = 10 * COUNT
FIRST_CANDIDATES = 6000
ROUNDS = 10
FOD_ORDER = 8


def candidates_for_peaks(voxels: Voxels) -> Array:
    """Return the rows, those of the highest FA, among which the first round chooses."""
    candidates = np.flatnonzero((voxels.fa > ANISOTROPIC) & voxels.inner)
    return candidates[np.argsort(-voxels.fa[candidates], kind="stable")[:FIRST_CANDIDATES]]


def select_by_peaks(
    signals: Signals,
    voxels: Voxels,
    rows: Array,
    sigma: float,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Array, Array, str]:
    """Return the chosen rows (n,), their first peaks (n, 3), and what was done in words.

    Parameters
    ----------
    signals
        The signal of ``rows`` and `candidates_for_peaks`; the highest shell is deconvolved.
    voxels
        Its voxels.
    rows
        Voxels of the first response.
    sigma
        Noise, taken out of the responses on the way.
    device, progress
        Where it runs; who is told.

    Raises
    ------
    InputError
        If no voxel shows a peak, or the shell holds noise alone.
    """
    scan = signals.scan
    shell = scan.gradients.weighted_shells[-1]
    candidates = candidates_for_peaks(voxels)
    chosen, axes = rows, voxels.axis[rows]
    seen: set[bytes] = set()
    done = 0
    for done in range(1, ROUNDS + 1):
        step = part(progress, (done - 1) / ROUNDS, done / ROUNDS, f"round {done}: ")
        response = _response(signals, chosen, axes, shell, sigma)
        first, second, directions = _peaks(signals, candidates, response, shell, device, step)
        held = first > 0
        if not held.any():
            raise InputError(
                f"{scan.name}: none of {len(candidates)} anisotropic voxels shows a fibre peak; "
                "use the algorithm 'fa', or check the b-vectors."
            )
        bright = voxels.means[candidates, 0] / np.median(voxels.means[candidates, 0])
        score = np.sqrt(first / bright) * (1 - second / np.where(held, first, 1)) ** 2
        ranking = np.argsort(-score, kind="stable")
        best = ranking[:COUNT][held[ranking[:COUNT]]]
        best = best[np.argsort(candidates[best])]
        chosen, axes = candidates[best], directions[best]
        mark = chosen.tobytes()
        if mark in seen:
            break
        seen.add(mark)
        candidates = np.sort(candidates[ranking[:CANDIDATES]])
    words = f"{done} rounds of deconvolution at b={shell.bvalue:g} chose its voxels"
    note = f"Tournier's selection: {words}{'' if done < ROUNDS else ' and were not settled'}."
    return chosen, axes.astype(np.float32), note


def _response(signals: Signals, rows: Array, axes: Array, shell: Shell, sigma: float) -> Response:
    signal = signals.of(rows)[:, shell.indices]
    cosines = axes.astype(np.float64) @ signals.scan.gradients.directions[shell.indices].T
    zonal = fit_zonal(signal, cosines, FOD_ORDER, sigma=sigma)
    require_signal(signals.scan, zonal[:1], sigma, [shell.bvalue])
    return Response(zonal[None], (shell.bvalue,), "wm", len(rows))


def _peaks(
    signals: Signals,
    rows: Array,
    response: Response,
    shell: Shell,
    device: str,
    progress: Progress,
) -> tuple[Array, Array, Array]:
    """Return the two largest peaks' amplitudes (n,) and the first one's direction (n, 3)."""
    from napari_dmri.deconvolve.csd import csd
    from napari_dmri.deconvolve.peaks import find_peaks

    b0 = np.flatnonzero(signals.scan.gradients.b0_mask)
    small = signals.as_scan(rows, np.concatenate([b0, shell.indices]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        fod = csd(
            small,
            response,
            shell=shell.bvalue,
            order=FOD_ORDER,
            device=device,
            progress=part(progress, 0, 0.8),
        ).fod
        peaks = find_peaks(fod, most=2, device=device, progress=part(progress, 0.8, 1))
    amplitudes = np.zeros((len(rows), 2))
    found = peaks.amplitudes.reshape(len(rows), -1)[:, :2]
    amplitudes[:, : found.shape[1]] = found
    directions = peaks.directions.reshape(len(rows), -1, 3)
    return amplitudes[:, 0], amplitudes[:, 1], directions[:, 0]
