r"""Bring brains together: rigid, affine and SyN through DIPY, on two channels.

Every map here goes from points x (mm) of a *static* space to points of a *moving* one, so that an
image J of the moving space is seen in the static one as :math:`J(\varphi(x))`.

- Rigid and affine steps maximise mutual information (Mattes) of one composite image, the mean of
  the channels (FA and the RISH map of order 0), each divided by its own 99th percentile.
- SyN maximises the *sum of the channels' local cross-correlations*: DIPY drives one image, and
  a metric of ours (`syn.py`) warps the others along with it at each iteration. Local correlation
  does not depend on the intensities' scale, so the channels weigh alike without tuning.

Slabs: the images are padded along thin axes by repeating their outer slices, so that SyN, which
fixes its boundary, may move tissue through the slab's faces by no more than smoothness allows;
where the extent is below `SLAB` millimetres the affine is a rigid motion with one scale, as a
slab does not determine more. Nothing here is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Channels",
    "Warp",
    "agreement",
    "mean_affine",
    "register_affine",
    "register_rigid",
    "resample",
]

Array = NDArray[Any]

SLAB = 60.0
"""Extent (mm) along any axis below which the affine is rigid with one scale."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Hold what registration looks at: images (each (X, Y, Z), float32), mask and affine."""

    images: tuple[NDArray[np.float32], ...]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z)."""
        return tuple(self.mask.shape)

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel (3,) in millimetres."""
        sizes: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return sizes

    @property
    def extent(self) -> NDArray[np.float64]:
        """Edge lengths of the image (3,) in millimetres."""
        extent: NDArray[np.float64] = self.voxel_size * np.array(self.shape)
        return extent

    def touches(self, axis: int, margin: int = 1) -> bool:
        """Tell whether the mask comes within a margin (voxels) of a face across an axis."""
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(self.mask.any(axis=others))
        return bool(used.size and (used[0] < margin or used[-1] >= self.shape[axis] - margin))

    def normalised(self) -> tuple[NDArray[np.float32], ...]:
        """Return the images divided by their 99th percentile in the mask, zero outside it."""
        return tuple(_normalise(image, self.mask) for image in self.images)

    def composite(self) -> NDArray[np.float32]:
        """Return the mean of the normalised images."""
        mean: NDArray[np.float32] = np.mean(self.normalised(), axis=0, dtype=np.float32)
        return mean


def _normalise(image: Array, mask: Array) -> NDArray[np.float32]:
    inside = image[mask]
    top = float(np.percentile(inside, 99)) if inside.size else 0.0
    if not np.isfinite(top) or top <= 0:
        raise InputError(
            f"An image to align is zero or not finite in its mask of {int(mask.sum())} voxels "
            f"(99th percentile {top:g}); check the scan and its mask."
        )
    scaled: NDArray[np.float32] = np.where(mask, np.clip(image / top, 0, 1.5), 0)
    return scaled.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Warp:
    """Hold the map from a static space to a moving one: an affine, or SyN after an affine.

    ``affine`` takes static points (mm) to moving ones; ``field`` is DIPY's diffeomorphic map,
    which holds the affine already; ``shape`` and ``grid`` are the static image's.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    grid: NDArray[np.float64]
    moving_shape: tuple[int, ...]
    moving_grid: NDArray[np.float64]
    field: Any = None

    def to_static(self, image: Array, order: int = 1) -> NDArray[np.float32]:
        """Show an image (X, Y, Z) or (X, Y, Z, K) of the moving space on the static grid."""
        return self._each(image, self._pull, order)

    def to_moving(self, image: Array, order: int = 1) -> NDArray[np.float32]:
        """Show an image of the static space on the moving grid."""
        return self._each(image, self._push, order)

    def _each(
        self, image: Array, one: Callable[[Array, int], Array], order: int
    ) -> NDArray[np.float32]:
        if image.ndim == 3:
            return one(image, order).astype(np.float32, copy=False)
        parts = [one(image[..., k], order) for k in range(image.shape[3])]
        return np.stack(parts, axis=-1).astype(np.float32, copy=False)

    def _pull(self, image: Array, order: int) -> Array:
        if self.field is None:
            return resample(image, self.moving_grid, self.shape, self.grid, self.affine, order)
        warped: Array = self.field.transform(
            np.ascontiguousarray(image, dtype=np.float32),
            interpolation="linear" if order else "nearest",
            image_world2grid=np.linalg.inv(self.moving_grid),
            out_shape=np.array(self.shape, np.int32),
            out_grid2world=self.grid,
        )
        return np.asarray(warped)

    def _push(self, image: Array, order: int) -> Array:
        if self.field is None:
            inverse = np.linalg.inv(self.affine)
            return resample(image, self.grid, self.moving_shape, self.moving_grid, inverse, order)
        warped: Array = self.field.transform_inverse(
            np.ascontiguousarray(image, dtype=np.float32),
            interpolation="linear" if order else "nearest",
            image_world2grid=np.linalg.inv(self.grid),
            out_shape=np.array(self.moving_shape, np.int32),
            out_grid2world=self.moving_grid,
        )
        return np.asarray(warped)

    def points(self, world: Array) -> NDArray[np.float64]:
        """Map static points (n, 3) in mm to moving ones."""
        if self.field is None:
            moved = world @ self.affine[:3, :3].T + self.affine[:3, 3]
        else:
            moved = self.field.transform_points(np.ascontiguousarray(world, dtype=np.float64))
        return np.asarray(moved, np.float64)

    def after(self, rigid: Array, moving_shape: Sequence[int], moving_grid: Array) -> Chain:
        """Return this map followed by an affine into a third space (an image on its own grid)."""
        return Chain(self, np.asarray(rigid, np.float64), tuple(moving_shape), moving_grid)


@dataclass(frozen=True, eq=False)
class Chain:
    """Hold a warp followed by an affine, so that an image is interpolated once."""

    warp: Warp
    affine: NDArray[np.float64]
    moving_shape: tuple[int, ...]
    moving_grid: NDArray[np.float64]

    def to_static(self, image: Array, order: int = 1) -> NDArray[np.float32]:
        """Show an image of the third space on the first one's grid."""
        # An affine behind a warp only re-labels the image's voxels: world2grid absorbs it.
        relabelled = np.linalg.inv(self.affine) @ self.moving_grid
        warp = self.warp
        onto = Warp(warp.affine, warp.shape, warp.grid, self.moving_shape, relabelled, warp.field)
        return onto.to_static(image, order)


def resample(
    image: Array,
    grid: Array,
    out_shape: Sequence[int],
    out_grid: Array,
    affine: Array | None = None,
    order: int = 1,
) -> Array:
    """Sample an image (X, Y, Z) on another grid through an affine (output to input, mm)."""
    through = np.eye(4) if affine is None else affine
    matrix = np.linalg.inv(grid) @ through @ out_grid
    if np.allclose(matrix, np.eye(4), atol=1e-6) and tuple(out_shape) == image.shape:
        return image.astype(np.float32)
    return np.asarray(
        ndimage.affine_transform(
            image.astype(np.float32),
            matrix[:3, :3],
            matrix[:3, 3],
            output_shape=tuple(int(n) for n in out_shape),
            order=order,
            mode="constant",
            cval=0.0,
        )
    )


def agreement(static: Channels, moving: Channels, affine: Array) -> tuple[float, float]:
    """Measure an alignment: correlation of the composites and Dice overlap of the masks.

    The correlation is taken where both masks are, on the static grid.
    """
    shape, grid = static.shape, static.affine
    other = resample(moving.mask.astype(np.float32), moving.affine, shape, grid, affine) > 0.5
    both = int((other & static.mask).sum())
    dice = 2 * both / max(int(other.sum()) + int(static.mask.sum()), 1)
    where = other & static.mask
    if both < 10:
        return 0.0, dice
    a = static.composite()[where]
    b = resample(moving.composite(), moving.affine, shape, grid, affine)[where]
    spread = float(a.std() * b.std())
    if spread == 0:
        return 0.0, dice
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread), dice


def register_rigid(
    static: Channels, moving: Channels, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Find the rigid motion (4, 4) that takes static points to moving ones (mm).

    It starts from the scanner's frame or from the centres of mass, whichever agrees better, and
    is kept only if it agrees better than where it started.
    """
    from dipy.align.transforms import RigidTransform3D

    start = _start(static, moving)
    found = _optimise(static, moving, (RigidTransform3D(),), start, progress)
    return _better(static, moving, start, found)


def register_affine(
    static: Channels, moving: Channels, *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Find the affine (4, 4) that takes static points to moving ones (mm).

    In slabs (an extent below 60 mm) it is a rigid motion with one scale. A result that scales any
    axis by less than 0.7 or more than 1.4 is refused for the rigid one.
    """
    from dipy.align.transforms import (
        AffineTransform3D,
        RigidIsoScalingTransform3D,
        RigidTransform3D,
    )

    slab = min(static.extent.min(), moving.extent.min()) < SLAB
    last = RigidIsoScalingTransform3D() if slab else AffineTransform3D()
    start = _start(static, moving)
    rigid = _better(
        static, moving, start, _optimise(static, moving, (RigidTransform3D(),), start, progress)
    )
    full = _optimise(static, moving, (last,), rigid, progress)
    scales = np.linalg.svd(full[:3, :3], compute_uv=False)
    if scales.min() < 0.7 or scales.max() > 1.4:
        return rigid
    return _better(static, moving, rigid, full)


def _start(static: Channels, moving: Channels) -> NDArray[np.float64]:
    shift = np.eye(4)
    shift[:3, 3] = _centre(moving) - _centre(static)
    scores = {0: agreement(static, moving, np.eye(4)), 1: agreement(static, moving, shift)}
    return np.eye(4) if sum(scores[0]) >= sum(scores[1]) else shift


def _centre(channels: Channels) -> Array:
    if not channels.mask.any():
        raise InputError("A mask to align is empty; make a new brain mask.")
    voxel = np.array(ndimage.center_of_mass(channels.mask))
    return np.asarray(channels.affine[:3, :3] @ voxel + channels.affine[:3, 3])


def _better(static: Channels, moving: Channels, before: Array, after: Array) -> Array:
    gain = agreement(static, moving, after)[0] - agreement(static, moving, before)[0]
    return after if gain > 1e-4 else before


def _optimise(
    static: Channels,
    moving: Channels,
    transforms: Sequence[Any],
    start: Array,
    progress: Progress | None,
) -> NDArray[np.float64]:
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric

    report = progress or silent

    class Reporting(MutualInformationMetric):  # type: ignore[misc]
        """Tell the progress at each evaluation, so that a job stops within one."""

        def distance_and_gradient(self, params: Array) -> tuple[float, Array]:
            report(0.5, "affine alignment")
            value, gradient = super().distance_and_gradient(params)
            return value, gradient

    thin = min(min(static.shape), min(moving.shape))
    factors, sigmas, iterations = ([4, 2, 1], [3.0, 1.0, 0.0], [60, 40, 15])
    if thin < 24:
        factors, sigmas, iterations = factors[1:], sigmas[1:], iterations[1:]
    if thin < 10:
        factors, sigmas, iterations = [1], [0.5], [40]
    current = start
    for transform in transforms:
        register = AffineRegistration(
            metric=Reporting(nbins=32, sampling_proportion=None),
            level_iters=iterations,
            sigmas=sigmas,
            factors=factors,
            verbosity=0,
        )
        found = register.optimize(
            static.composite(),
            moving.composite(),
            transform,
            None,
            static_grid2world=static.affine,
            moving_grid2world=moving.affine,
            starting_affine=current,
        )
        current = np.asarray(found.affine, np.float64)
    return current


def mean_affine(matrices: Sequence[Array]) -> NDArray[np.float64]:
    r"""Average affines in the log-Euclidean sense, :math:`\exp(\tfrac1n \sum \log A_i)`."""
    from scipy.linalg import expm, logm

    logs = [np.real(logm(np.asarray(m, np.float64))) for m in matrices]
    return np.asarray(np.real(expm(np.mean(logs, axis=0))), np.float64)
