r"""Estimate how the head moved from volume to volume.

Every volume is registered rigidly to the mean of its shell, on a coarse grid and without
distortions, because a QC plot needs to be quick:

1. volumes are reduced by block means to about 5 mm and smoothed;
2. the target f is the mean of the shell's volumes, scaled to one brightness and resampled with
   the motion found so far;
3. Gauss-Newton steps with the target's analytic gradients find six parameters, together with
   an intensity scale and offset that are left free,

   .. math:: \min_{R, t, a, c} \sum_x w(x)\,
             \bigl(g(R (x - x_0) + x_0 + t) - a f(x) - c\bigr)^2,

   where g is the volume and :math:`x_0` the image centre. The weight w is the inverse variance
   of the voxel over the shell, so that fibres, which change with the direction of the gradient,
   count less than outlines, fluid and grey matter; places outside the image or mask count nothing;
4. targets are made again with the new motion, four rounds in all;
5. shells have different contrast, and mutual information on such coarse images moves them by a
   degree where nothing moved. They are placed so that motion is continuous instead: the median
   step between volumes of different shells that follow each other is zero. What happened between
   a lone b0 and the first weighted volume is therefore not seen.

**Frame.** The result says where the head is at volume i relative to volume 0, in the scanner's RAS
frame: tissue at x in volume 0 is found at :math:`R (x - x_0) + x_0 + t` in volume i. The
translation (2, 0, 0) is 2 mm towards the patient's right (+x of RAS); rotations are right-handed,
about the fixed axes x, y, z in this order.

DIPY's affine registration optimises each pair from scratch; here all volumes of a shell share the
target's gradients (inverse-compositional scheme), which takes some ten milliseconds a volume.
Distortions (eddy currents, susceptibility) are not modelled: in raw data a part of what they do
shows as translation along the phase-encoding axis.

References
----------
Baker & Matthews 2004, "Lucas-Kanade 20 years on", IJCV 56 (inverse-compositional Gauss-Newton).
Power et al. 2012, NeuroImage 59 (framewise displacement: rotations as arcs on a sphere of 50 mm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.progress import Progress, part, silent
from napari_dmri.signal.blocks import fitting_mask

if TYPE_CHECKING:
    from napari_dmri.scan import Scan, Shell

__all__ = ["Motion", "estimate_motion", "framewise_displacement"]

Array = NDArray[Any]

COARSE = 5.0
"""Voxel size aimed at (mm)."""

LEAST_PLANES = 12
"""An axis is not reduced below this many planes."""

ROUNDS = 4
STEPS = 4
"""Rounds of prediction, and Gauss-Newton steps in each."""

SETTLED = 0.003
"""A step that moves the head's edge by less (mm) ends the steps."""

THIN = 60.0
"""An image with a shorter edge (mm) does not determine all parameters: noise passes for motion."""

RADIUS = 50.0
"""Radius of the head (mm) in the framewise displacement."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Hold the head's position at every volume relative to volume 0.

    Parameters
    ----------
    translations
        Millimetres along the scanner's R, A, S axes (N, 3), of the image centre.
    rotations
        Degrees about the scanner's fixed x, y, z axes through the image centre (N, 3).
    displacement
        Framewise displacement (N,) in mm relative to the previous volume; 0 for the first.
    centre
        The image centre (3,), scanner RAS mm.
    extent
        Edge lengths of the image (3,) in mm; thin slabs leave motion undetermined (see `judged`).
    """

    translations: NDArray[np.float64]
    rotations: NDArray[np.float64]
    displacement: NDArray[np.float64]
    centre: NDArray[np.float64]
    extent: NDArray[np.float64]

    def matrix(self, volume: int) -> NDArray[np.float64]:
        """Return the rigid matrix (4, 4): places (RAS mm) in volume 0 to places in a volume."""
        return _matrix(self.rotations[volume], self.translations[volume], self.centre)

    @property
    def judged(self) -> bool:
        """Whether the image is thick enough for its numbers to mean motion."""
        return bool(self.extent.min() >= THIN)

    def sentence(self) -> str:
        """Say how much the head moved, in one sentence."""
        if len(self.displacement) < 2:
            return "Head motion: one volume, nothing to compare it with."
        if not self.judged:
            return (
                f"Head motion cannot be judged: the image is only {self.extent.min():.0f} mm "
                f"thick, and from less than {THIN:.0f} mm a rigid motion is not determined."
            )
        worst = int(np.argmax(self.displacement))
        return (
            f"Head motion: mean {self.displacement[1:].mean():.2f} mm from volume to volume, "
            f"largest {self.displacement[worst]:.2f} mm at volume {worst}; "
            f"{np.linalg.norm(self.translations, axis=1).max():.1f} mm and "
            f"{np.abs(self.rotations).max():.1f} degrees from volume 0 at most."
        )


def framewise_displacement(translations: Array, rotations: Array) -> NDArray[np.float64]:
    r"""Sum the changes of all six parameters, rotations as arcs at 50 mm (Power et al. 2012).

    .. math:: FD_i = \sum_k |t_{ik} - t_{i-1,k}|
              + 50\,\mathrm{mm} \sum_k |\theta_{ik} - \theta_{i-1,k}|

    Parameters
    ----------
    translations, rotations
        (N, 3) in mm and (N, 3) in degrees.
    """
    steps = np.abs(np.diff(translations, axis=0)).sum(1)
    steps = steps + RADIUS * np.abs(np.diff(np.deg2rad(rotations), axis=0)).sum(1)
    displacement: NDArray[np.float64] = np.concatenate([np.zeros(1), steps])
    return displacement


def estimate_motion(
    scan: Scan, *, mask: Array | None = None, progress: Progress | None = None
) -> Motion:
    """Estimate the head's rigid motion from volume to volume.

    Parameters
    ----------
    scan
        The scan; read once, one volume at a time.
    mask
        Where to compare (X, Y, Z), widened by a coarse voxel; None takes the scan's mask, else
        the whole image.
    progress
        Told after each volume; may raise `Cancelled`.

    Raises
    ------
    InputError
        If the mask is on another grid or empty.
    """
    report = progress or silent
    chosen = fitting_mask(scan, mask)
    coarse, affine, weights = _reduce(scan, chosen, part(progress, 0, 0.3))
    centre = (np.array(scan.grid) - 1) / 2 @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    count = scan.shape[3]
    moves = np.tile(np.eye(4), (count, 1, 1))
    grid = _Grid(affine, coarse.shape[1:], centre, weights)
    shells = scan.gradients.shells
    total = max(count * ROUNDS, 1)
    done = 0
    for shell in shells:
        turns = ROUNDS if shell.count > 1 else 0
        for turn in range(turns):
            text = f"motion, round {turn + 1} of {ROUNDS}"
            resampled = []
            for volume in shell.indices:
                report(0.3 + 0.7 * done / total, text)
                resampled.append(grid.sample(coarse[volume], moves[volume]))
            still = np.stack(resampled)
            target = grid.target(still)
            for volume in shell.indices:
                report(0.3 + 0.7 * done / total, text)
                moves[volume] = target.register(coarse[volume], moves[volume])
                done += 1
        done += (ROUNDS - turns) * shell.count
    _join_shells(shells, moves, centre)
    first = np.linalg.inv(moves[0])
    translations, rotations = _parameters(moves @ first, centre)
    report(1.0, "motion")
    return Motion(
        translations,
        rotations,
        framewise_displacement(translations, rotations),
        centre,
        scan.voxel_size * np.array(scan.grid),
    )


def _reduce(
    scan: Scan, mask: NDArray[np.bool_] | None, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    """Return coarse, smoothed volumes (N, x, y, z) as cubic splines, affine and weights."""
    from scipy.ndimage import binary_dilation, gaussian_filter, spline_filter

    factors = [
        max(1, min(round(COARSE / size), n // LEAST_PLANES))
        for size, n in zip(scan.voxel_size, scan.grid, strict=True)
    ]
    affine = scan.affine.copy()
    affine[:3, :3] = scan.affine[:3, :3] * factors
    affine[:3, 3] += scan.affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    sigma = 0.8 * COARSE / sizes
    count = scan.shape[3]
    volumes = []
    for volume in range(count):
        progress(volume / count, f"reading volume {volume + 1} of {count}")
        data = np.nan_to_num(scan.volumes(volume), nan=0.0, posinf=0.0, neginf=0.0)
        smooth = gaussian_filter(_blocks(data, factors), sigma, mode="nearest")
        volumes.append(spline_filter(smooth, order=3, mode="mirror", output=np.float32))
    shape = volumes[0].shape
    weights = np.ones(shape, np.float32)
    if mask is not None:
        kept = _blocks(mask.astype(np.float32), factors) > 0
        weights = binary_dilation(kept, iterations=1).astype(np.float32)
    return np.stack(volumes), affine, weights


def _blocks(data: Array, factors: list[int]) -> NDArray[np.float32]:
    """Average blocks of voxels; what does not fill a block at the far end is left out."""
    reduced = data
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        count = reduced.shape[axis] // factor
        front = np.take(reduced, np.arange(count * factor), axis)
        shape = (*front.shape[:axis], count, factor, *front.shape[axis + 1 :])
        reduced = front.reshape(shape).mean(axis + 1)
    return np.ascontiguousarray(reduced, dtype=np.float32)


class _Grid:
    """The coarse grid that all volumes share: resampling and registration on it."""

    def __init__(
        self, affine: Array, shape: tuple[int, ...], centre: Array, weights: NDArray[np.float32]
    ) -> None:
        self.affine, self.inverse = affine, np.linalg.inv(affine)
        self.shape, self.centre, self.weights = shape, centre, weights
        self.voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
        self.places = affine[:3, :3] @ self.voxels + affine[:3, 3:]

    def sample(self, volume: Array, move: Array) -> NDArray[np.float32]:
        """Return a volume (spline coefficients) at the moved places; mirrored beyond its edges."""
        return self.sample_at(volume, self.coordinates(move))

    def coordinates(self, move: Array) -> NDArray[np.float64]:
        both = self.inverse @ move
        found: NDArray[np.float64] = both[:3, :3] @ self.places + both[:3, 3:]
        return found

    def sample_at(self, volume: Array, coordinates: Array) -> NDArray[np.float32]:
        from scipy.ndimage import map_coordinates

        values = map_coordinates(volume, coordinates, order=3, mode="mirror", prefilter=False)
        sampled: NDArray[np.float32] = values.reshape(self.shape)
        return sampled

    def target(self, still: NDArray[np.float32]) -> _Target:
        """Return the mean of aligned volumes (V, x, y, z), trusted where they agree."""
        levels = np.maximum(still.mean((1, 2, 3), keepdims=True), 1e-6)
        still = still / levels * levels.mean()
        mean = still.mean(0)
        spread = still.var(0)
        floor = 0.3 * np.median(spread[self.weights > 0]) + 1e-6 * float((mean**2).mean()) + 1e-30
        return _Target(self, mean, (self.weights / (spread + floor)).reshape(-1))


class _Target:
    """What the volumes of a shell are registered to, with everything that is the same for all."""

    def __init__(self, grid: _Grid, mean: NDArray[np.float32], weights: Array) -> None:
        self.grid, self.weights = grid, weights / max(float(weights.max()), 1e-30)
        self.columns = self._jacobian(mean)
        self.upper = np.array(grid.shape)[:, None] - 1

    def register(self, volume: Array, move: Array) -> Array:
        """Refine a move (4, 4) so that the volume at moved places looks like the target."""
        columns, grid = self.columns, self.grid
        for _ in range(STEPS):
            coordinates = grid.coordinates(move)
            inside = ((coordinates >= 0) & (coordinates <= self.upper)).all(0) * self.weights
            if inside.sum() < 0.2 * self.weights.sum():
                break
            values = grid.sample_at(volume, coordinates).reshape(-1)
            weighted = columns * inside
            normal = weighted @ columns.T
            ridge = np.diag(1e-6 * np.diag(normal) + 1e-12 * np.trace(normal) + 1e-30)
            solution = np.linalg.solve(normal + ridge, weighted @ values)
            scale = solution[6]
            if not np.isfinite(solution).all() or abs(scale) < 1e-3:
                break
            step = np.clip(solution[:6] / scale, -10, 10)
            back = _matrix(np.rad2deg(step[3:] / RADIUS), step[:3], grid.centre)
            move = move @ np.linalg.inv(back)
            if np.abs(step).max() < SETTLED:
                break
        return move

    def _jacobian(self, mean: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return rows (8, n): change by translations (mm), arcs (mm), scale and offset.

        For a small motion (t, theta) about the centre,
        f(x + t + theta x (x - x0)) = f + grad f . t + theta . ((x - x0) x grad f).
        """
        grid = self.grid
        along = [np.asarray(np.gradient(mean.astype(np.float64), axis=k)) for k in range(3)]
        slopes = grid.inverse[:3, :3].T @ np.stack(along).reshape(3, -1)
        arms = grid.places - grid.centre[:, None]
        turns = np.cross(arms, slopes, axis=0) / RADIUS
        flat = mean.reshape(-1).astype(np.float64)
        rows: NDArray[np.float64] = np.concatenate(
            [slopes, turns, flat[None], np.full((1, len(flat)), max(flat.std(), 1e-6))]
        )
        return rows


def _join_shells(shells: tuple[Shell, ...], moves: Array, centre: Array) -> None:
    """Place the shells relative to each other so that motion is continuous where they meet."""
    joined = [shell for shell in shells if 0 in shell.indices]
    waiting = [shell for shell in shells if 0 not in shell.indices]
    while waiting:
        known = np.concatenate([shell.indices for shell in joined])
        gaps = [np.abs(known[:, None] - shell.indices).min() for shell in waiting]
        shell = waiting.pop(int(np.argmin(gaps)))
        gap = np.abs(known[:, None] - shell.indices)
        seams = np.argwhere(gap == gap.min())
        steps = np.stack(
            [np.linalg.inv(moves[shell.indices[v]]) @ moves[known[u]] for u, v in seams]
        )
        translations, rotations = _parameters(steps, centre)
        step = _matrix(np.median(rotations, 0), np.median(translations, 0), centre)
        for volume in shell.indices:
            moves[volume] = moves[volume] @ step
        joined.append(shell)


def _matrix(degrees: Array, translation: Array, centre: Array) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = centre + translation - matrix[:3, :3] @ centre
    return matrix


def _parameters(moves: Array, centre: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.spatial.transform import Rotation

    rotations = Rotation.from_matrix(moves[:, :3, :3]).as_euler("xyz", degrees=True)
    translations = moves[:, :3, :3] @ centre + moves[:, :3, 3] - centre
    return translations, rotations
