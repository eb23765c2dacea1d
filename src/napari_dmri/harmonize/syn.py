r"""Register diffeomorphically on several channels at once, with DIPY's SyN.

SyN (Avants 2008) moves both images halfway towards each other by steps along the gradient of a
similarity. Here that is the sum over channels k of the local cross-correlation

.. math:: \mathrm{CC} = \sum_k \sum_x
          \frac{\langle I_k - \bar I_k, J_k - \bar J_k \rangle_x^2}
               {\lVert I_k - \bar I_k \rVert_x^2 \, \lVert J_k - \bar J_k \rVert_x^2}

in windows of 5 x 5 x 5 voxels. DIPY's optimiser carries one image; its metric is told the current
transformation at every iteration, and warps the other channels' own scale spaces with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_dmri.harmonize.alignment import Channels, Warp
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ITERATIONS", "register_syn"]

Array = NDArray[Any]

ITERATIONS = (30, 20, 8)
"""Iterations at a quarter, half and full resolution."""

RADIUS = 2
"""Half-width (voxels) of the window of the local cross-correlation."""

PAD = 4
"""Voxels added on both sides of an axis whose faces the mask comes near to."""

SIGMA = 2.0
"""Gaussian smoothing (voxels) of each step: the stiffness of the deformation."""


def register_syn(
    static: Channels,
    moving: Channels,
    affine: Array,
    *,
    iterations: Sequence[int] = ITERATIONS,
    progress: Progress | None = None,
) -> Warp:
    """Register with SyN after an affine; stops within one iteration when progress raises.

    Parameters
    ----------
    static, moving
        Images to align, the same number of channels in each.
    affine
        Static to moving points (mm), where it starts.
    iterations
        Iterations per level, coarse to fine; levels that would leave an axis with fewer than
        five voxels are left out.
    progress
        Told at each iteration.

    Returns
    -------
    The map; with no iterations the affine alone.
    """
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration

    affine = np.asarray(affine, np.float64)
    ends = (affine, static.shape, static.affine, moving.shape, moving.affine)
    if not any(iterations):
        return Warp(*ends)
    first, grid_first = _padded(static)
    second, grid_second = _padded(moving)
    smallest = min(min(first[0].shape), min(second[0].shape))
    levels = len(iterations)
    while levels > 1 and smallest / 2 ** (levels - 1) < 2 * RADIUS + 1:
        levels -= 1
    chosen = list(iterations[-levels:])
    report, total = progress or silent, max(sum(chosen), 1)
    done = 0

    def each(optimiser: Any, stage: Any) -> None:
        nonlocal done
        if stage == _iteration_end():
            done += 1
        report(min(done / total, 1.0), "nonlinear alignment")

    metric = _channels_metric(first[1:], second[1:], grid_first, grid_second, levels)
    register = SymmetricDiffeomorphicRegistration(
        metric, level_iters=chosen, step_length=0.25, inv_iter=10, callback=each
    )
    register.verbosity = 0
    field = register.optimize(
        first[0],
        second[0],
        static_grid2world=grid_first,
        moving_grid2world=grid_second,
        prealign=affine,
    )
    return Warp(*ends, field=field)


def _iteration_end() -> Any:
    from dipy.align.imwarp import RegistrationStages

    return RegistrationStages.ITER_END


def _padded(channels: Channels) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
    """Repeat the outer slices of axes whose faces the mask comes near to; shift the affine."""
    widths = [PAD if channels.touches(axis, 3) else 0 for axis in range(3)]
    images = [
        np.pad(image, [(w, w) for w in widths], mode="edge") for image in channels.normalised()
    ]
    grid = channels.affine.copy()
    grid[:3, 3] -= channels.affine[:3, :3] @ np.array(widths, np.float64)
    return images, grid


def _channels_metric(
    static: Sequence[Array],
    moving: Sequence[Array],
    static_grid: Array,
    moving_grid: Array,
    levels: int,
) -> Any:
    """Make a DIPY metric that adds the other channels' cross-correlation to the first one's."""
    from dipy.align.metrics import CCMetric
    from dipy.align.scalespace import ScaleSpace

    def space(image: Array, grid: Array) -> Any:
        spacing = np.linalg.norm(grid[:3, :3], axis=0)
        return ScaleSpace(image, levels, image_grid2world=grid, input_spacing=spacing)

    class ChannelsMetric(CCMetric):  # type: ignore[misc]
        """Local cross-correlation of all channels."""

        def __init__(self) -> None:
            super().__init__(3, sigma_diff=SIGMA, radius=RADIUS)
            self.spaces = [
                (space(a, static_grid), space(b, moving_grid))
                for a, b in zip(static, moving, strict=True)
            ]
            self.extras = [CCMetric(3, sigma_diff=SIGMA, radius=RADIUS) for _ in self.spaces]
            self.value = 0.0

        def _warped(self, which: int, transformation: Any, shape: Any, grid: Array) -> list[Array]:
            level = int(self.levels_above)
            return [
                np.asarray(
                    transformation.transform(
                        pair[which].get_image(level),
                        interpolation="linear",
                        out_shape=np.array(shape, np.int32),
                        out_grid2world=grid,
                    )
                )
                for pair in self.spaces
            ]

        def use_static_image_dynamics(self, original: Array, transformation: Any) -> None:
            shape, grid = self.static_image.shape, self.static_affine
            images = self._warped(0, transformation, shape, grid)
            for metric, image in zip(self.extras, images, strict=True):
                metric.set_static_image(image, grid, self.static_spacing, self.static_direction)

        def use_moving_image_dynamics(self, original: Array, transformation: Any) -> None:
            shape, grid = self.moving_image.shape, self.moving_affine
            images = self._warped(1, transformation, shape, grid)
            for metric, image in zip(self.extras, images, strict=True):
                metric.set_moving_image(image, grid, self.moving_spacing, self.moving_direction)

        def initialize_iteration(self) -> None:
            super().initialize_iteration()
            for metric in self.extras:
                metric.initialize_iteration()

        def free_iteration(self) -> None:
            super().free_iteration()
            for metric in self.extras:
                metric.free_iteration()

        def compute_forward(self) -> Array:
            steps = [
                m.compute_forward_step(m.gradient_static, m.factors, RADIUS)
                for m in (self, *self.extras)
            ]
            self.energy = sum(energy for _, energy in steps)
            return _smooth(steps)

        def compute_backward(self) -> Array:
            steps = [
                m.compute_backward_step(m.gradient_moving, m.factors, RADIUS)
                for m in (self, *self.extras)
            ]
            return _smooth(steps)

    return ChannelsMetric()


def _smooth(steps: Sequence[tuple[Array, float]]) -> Array:
    total = np.sum([np.asarray(step) for step, _ in steps], axis=0)
    for axis in range(3):
        total[..., axis] = ndimage.gaussian_filter(total[..., axis], SIGMA)
    return np.asarray(total)
