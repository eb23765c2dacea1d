r"""Find volumes and slices that do not fit the rest of their shell: dropouts, spikes, motion.

Every volume is predicted from the others of its shell (`prediction`), and two things are scored.

*Slices*: the mean signal of a slice is a linear function of its voxels, so its residual needs only
the slice means. With :math:`d_{iz} = (s_{iz} - \hat s_{iz}) / \max(\hat s_{iz}, \bar s_z / 2)`, the
change of the mean of slice z (-0.4: 40 % of the signal is lost), the score is signed and robust,

.. math:: z_{iz} = \frac{d_{iz} - \mathrm{med}_i\, d_{iz}}{\max(1.4826\,\mathrm{MAD}_i\,d_{iz},\;
          \tfrac12 \mathrm{med}_z\,\sigma_z,\; 0.005)}.

*Volumes*: the root mean square of the voxels' residuals in each slice, over the mean signal, its
median over slices (so that one lost slice is not a bad volume), compared on a log scale with the
shell's other volumes.

An outlier spoils the prediction of its neighbours on the sphere. What is found is therefore left
out and the rest predicted again, until nothing new is found.

References
----------
The idea of judging slices by the residual of a prediction is that of Andersson et al. 2016,
"Incorporating outlier detection and replacement into a non-parametric framework for movement and
distortion correction of diffusion MR images", NeuroImage 141 (there with a Gaussian process).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.progress import Progress, part, silent
from napari_dmri.signal.prediction import (
    bright_voxels,
    gather,
    predictable_shells,
    prediction_matrix,
    slice_axis,
)

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = ["Outliers", "find_outliers"]

Array = NDArray[Any]

THRESHOLD = 6.0
"""Scores beyond this many robust standard deviations are outliers."""

SUSPECT = 4.0
"""A slice beyond this does not predict others: outliers widen the spread they are judged by."""

LEAST_CHANGE = 0.08
"""A slice's mean must also be off by this fraction."""

LEAST_EXCESS = 1.25
"""A volume's residual must also be this many times the shell's median."""

MOST_BYTES = 384 * 2**20
"""Signal held in memory; larger masks are thinned to every second, third ... voxel."""

ROUNDS = 12


@dataclass(frozen=True, eq=False)
class Outliers:
    """What does not fit the rest of its shell; NaN where it could not be judged.

    Parameters
    ----------
    volume_scores
        Robust z-score of each volume's residual (N,); high is bad.
    slice_scores
        Signed robust z-score of each slice's mean signal (N, Z); negative is lost signal.
    volumes
        Volumes that are outliers as a whole.
    slices
        Outlying (volume, slice) pairs in volumes that are not outliers in most slices.
    slice_changes
        Change of each slice's mean from its prediction, as a fraction (N, Z); -0.4 is 40 % lost.
    axis
        The voxel axis that slices are counted along.
    unscored
        Volumes that have too few others to be predicted from.
    """

    volume_scores: NDArray[np.float32]
    slice_scores: NDArray[np.float32]
    volumes: tuple[int, ...]
    slices: tuple[tuple[int, int], ...]
    slice_changes: NDArray[np.float32]
    axis: int = 2
    unscored: tuple[int, ...] = ()

    @property
    def dropouts(self) -> tuple[tuple[int, int], ...]:
        """The outlying (volume, slice) pairs that lost signal."""
        return tuple(pair for pair in self.slices if self.slice_scores[pair] < 0)

    @property
    def spikes(self) -> tuple[tuple[int, int], ...]:
        """The outlying (volume, slice) pairs that gained signal."""
        return tuple(pair for pair in self.slices if self.slice_scores[pair] > 0)

    def interleaved(self) -> tuple[int, ...]:
        """Return volumes whose dropouts fall on every second slice: movement between passes.

        At least three dropouts, all on slices of one parity.
        """
        found = []
        for volume in sorted({v for v, _ in self.dropouts}):
            places = [z for v, z in self.dropouts if v == volume]
            if len(places) >= 3 and len({z % 2 for z in places}) == 1:
                found.append(volume)
        return tuple(found)

    def sentence(self) -> str:
        """Say what was found in one sentence."""
        judged = int(np.isfinite(self.volume_scores).sum())
        if not judged:
            return "Outliers could not be judged: no shell has 8 directions or 3 b0 volumes."
        tail = f" ({len(self.unscored)} volumes not judged)" if self.unscored else ""
        if not self.volumes and not self.slices:
            return f"No outlying volume or slice among {judged} volumes{tail}."
        words = [
            f"{len(items)} {one if len(items) == 1 else many}"
            for items, one, many in (
                (self.volumes, "outlying volume", "outlying volumes"),
                (self.dropouts, "slice dropout", "slice dropouts"),
                (self.spikes, "slice spike", "slice spikes"),
            )
            if items
        ]
        return f"{', '.join(words)} among {judged} volumes{tail}."


def find_outliers(
    scan: Scan,
    *,
    mask: Array | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Outliers:
    """Score every volume and slice against its prediction from the rest of the shell.

    Parameters
    ----------
    scan
        The scan; read once, one volume at a time. Memory: the masked voxels' signal as float32,
        384 MB at most.
    mask
        Voxels to look at (X, Y, Z); None takes the scan's mask, else the voxels bright at low b.
    device
        Where the predictions are computed.
    progress
        Told after each volume and round; may raise `Cancelled`.

    Raises
    ------
    InputError
        If the mask is on another grid or empty.
    """
    report = progress or silent
    axis = slice_axis(scan)
    voxels = bright_voxels(scan, mask)
    voxels = _thin(voxels, scan.shape[3])
    places = np.nonzero(voxels)[axis]
    planes = scan.grid[axis]
    signal = gather(scan, voxels, part(progress, 0, 0.7))
    count = scan.shape[3]
    scores = np.full(count, np.nan, np.float32)
    slice_scores = np.full((count, planes), np.nan, np.float32)
    changes = np.full((count, planes), np.nan, np.float32)
    sizes = np.bincount(places, minlength=planes)
    usable = sizes >= min(max(20, 0.05 * sizes.max()), sizes.max())
    shells = predictable_shells(scan.gradients)
    bad_volumes: list[int] = []
    pairs: list[tuple[int, int]] = []
    for done, (shell, order) in enumerate(shells):
        step = part(progress, 0.7 + 0.3 * done / len(shells), 0.7 + 0.3 * (done + 1) / len(shells))
        step(0.0, f"predicting b={shell.bvalue:g}")
        directions = scan.gradients.directions[shell.indices]
        rows = np.ascontiguousarray(signal.T[shell.indices])
        means = np.stack(
            [np.bincount(places, row, minlength=planes) / np.maximum(sizes, 1) for row in rows]
        )
        change, z = _score_slices(means[:, usable], directions, order, part(step, 0, 0.6))
        changes[np.ix_(shell.indices, usable)] = change
        slice_scores[np.ix_(shell.indices, usable)] = z
        flagged = (np.abs(z) > THRESHOLD) & (np.abs(change) >= LEAST_CHANGE)
        whole = _whole(change, flagged)
        volume_z, bad = _score_volumes(
            rows, places, usable, directions, order, ~whole, device, part(step, 0.6, 1)
        )
        scores[shell.indices] = volume_z
        planes_used = np.flatnonzero(usable)
        pairs += [
            (int(shell.indices[v]), int(planes_used[z]))
            for v, z in np.argwhere(flagged & ~whole[:, None])
        ]
        bad_volumes += [int(shell.indices[i]) for i in np.flatnonzero(bad | whole)]
    report(1.0, "outliers")
    unscored = tuple(int(v) for v in np.flatnonzero(~np.isfinite(scores)))
    return Outliers(
        scores,
        slice_scores,
        tuple(sorted(bad_volumes)),
        tuple(sorted(pairs)),
        changes,
        axis,
        unscored,
    )


def _thin(voxels: NDArray[np.bool_], volumes: int) -> NDArray[np.bool_]:
    every = -(-int(voxels.sum()) * volumes * 4 // MOST_BYTES)
    if every <= 1:
        return voxels
    kept = np.zeros(voxels.size, bool)
    kept[np.flatnonzero(voxels)[::every]] = True
    return kept.reshape(voxels.shape)


def _score_slices(
    means: NDArray[np.float64], directions: Array, order: int, report: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return change and signed score (V, S) of slice means (V, S), outliers left out in turn."""
    count, planes = means.shape
    change = np.zeros((count, planes))
    keep = np.ones((count, planes), bool)
    z = np.zeros((count, planes))
    changed = np.ones(planes, bool)
    for turn in range(ROUNDS):
        for plane in np.flatnonzero(changed):
            report((turn + plane / planes) / ROUNDS, "comparing slices")
            matrix = prediction_matrix(directions, order, keep[:, plane])
            predicted = matrix @ means[:, plane]
            level = np.maximum(predicted, 0.5 * means[:, plane].mean())
            change[:, plane] = (means[:, plane] - predicted) / np.where(level > 0, level, np.inf)
        z = _robust(change, keep)
        suspects = np.where(keep & (np.abs(change) >= LEAST_CHANGE), np.abs(z), 0)
        new = suspects > np.maximum(SUSPECT, 0.99 * suspects.max(0, initial=0))
        new &= _can_leave(keep, new)
        if not new.any():
            break
        keep &= ~new
        changed = new.any(0)
    return change, z


def _can_leave(keep: NDArray[np.bool_], new: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out at most a quarter of a shell's volumes (columns are judged apart)."""
    limit = len(keep) // 4
    allowed: NDArray[np.bool_] = (~keep | new).sum(0) <= max(limit, 1)
    return allowed


def _whole(change: NDArray[np.float64], flagged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which volumes are off in most slices, or by the median of their slices."""
    if not change.shape[1]:
        return np.zeros(len(change), bool)
    middle = np.median(change, 1)
    z = _robust(middle[:, None], np.ones((len(change), 1), bool))[:, 0]
    whole: NDArray[np.bool_] = (flagged.mean(1) > 0.5) | (
        (np.abs(z) > THRESHOLD) & (np.abs(middle) >= LEAST_CHANGE)
    )
    return whole


def _robust(change: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = np.where(keep, change, np.nan)
    centre = np.nanmedian(values, 0)
    spread = 1.4826 * np.nanmedian(np.abs(values - centre), 0)
    typical = np.median(spread) if spread.size else 0.0
    scores: NDArray[np.float64] = (change - centre) / np.maximum(
        np.maximum(spread, 0.5 * typical), 0.005
    )
    return scores


def _score_volumes(
    rows: NDArray[np.float32],
    places: Array,
    usable: NDArray[np.bool_],
    directions: Array,
    order: int,
    keep: NDArray[np.bool_],
    device: str,
    report: Progress,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the score (V,) of each volume's residual and which are outliers."""
    import torch

    from napari_dmri.device import choose_device

    chosen = choose_device(device).torch()
    signal = torch.from_numpy(rows).to(chosen)
    level = float(np.median(rows.mean(1))) or 1.0
    keep = keep.copy() if keep.sum() >= 0.75 * len(keep) else np.ones(len(keep), bool)
    z = np.zeros(len(rows))
    bad = np.zeros(len(rows), bool)
    sizes = np.maximum(np.bincount(places, minlength=len(usable)), 1)
    for turn in range(ROUNDS):
        report(turn / ROUNDS, "comparing volumes")
        matrix = prediction_matrix(directions, order, keep)
        factor = torch.from_numpy(matrix.astype(np.float32)).to(chosen)
        squares = ((signal - factor @ signal) ** 2).cpu().numpy()
        per_slice = np.stack([np.bincount(places, row, minlength=len(usable)) for row in squares])
        errors = np.sqrt(np.median((per_slice / sizes)[:, usable], 1)) / level
        logs = np.log(np.maximum(errors, 1e-6))
        centre = np.median(logs[keep])
        spread = 1.4826 * np.median(np.abs(logs[keep] - centre))
        z = (logs - centre) / max(spread, 0.04)
        bad = (z > THRESHOLD) & (logs - centre > np.log(LEAST_EXCESS))
        new = keep & bad & (z > 0.7 * z[keep].max())
        if not new.any() or (~keep | new).sum() > max(len(keep) // 4, 1):
            break
        keep &= ~new
    return z, bad
