r"""Filter directions and space together in spherical harmonics, exactly equivariant.

Tensors hold coefficients first and features last, (C, B, X, Y, Z, F), C coefficients of a band L.
A filter that is isotropic on the sphere keeps orders apart and acts on all :math:`2 l + 1`
coefficients of a degree alike; one that is isotropic in space gives equal weight to the voxels at
equal distance r in :math:`\{0, 1, \sqrt 2, \sqrt 3\}`:

.. math:: y_{lm,o}(v) = \sum_i \sum_r w_{l,r,i,o} \, \frac{1}{n_r}
          \sum_{|d| = r} x_{lm,i}(v + d) + \sqrt{4 \pi} \, b_o \, \delta_{l0}

with :math:`n_r = 1, 6, 12, 8` voxels at a distance; beyond the volume its outermost voxels repeat,
or there are zeros. It commutes with
any rotation of the sphere, and with all symmetries of the grid of voxels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_dmri.deconvolve.shd.norms import MOMENTUM
from napari_dmri.deconvolve.shd.spectral_steps import (
    UNIT,
    AddConstant,
    FilterDegrees,
    Rectify,
    rectify_,
)
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.quadrature import half_quadrature

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Rectifier",
    "SpectralConv",
    "SpectralLayer",
    "SpectralNorm",
    "grid_degree",
    "grid_matrices",
]

RINGS = (1, 6, 12, 8)
"""Voxels of a 3^3 neighbourhood at the distances 0, 1, sqrt 2 and sqrt 3."""

INNER = 36
"""Least degree of a rectifier's quadrature, for the low bands of inner levels."""


class SpectralConv(nn.Module):
    r"""Filter coefficients by degree and by distance between voxels.

    .. math:: y_{lm} = \sum_r (S_r x_{lm}) W_{l,r}

    Products have the shape :math:`(C_l B X Y Z, F) (F, F')`, one a degree and distance. Several
    inputs, each of its own features and band, are as one that holds them side by side.

    Parameters
    ----------
    inputs
        (features, band) of every input.
    features
        Features F' of the output.
    band
        SH order of the output; degrees beyond an input's band come from the others.
    spatial
        Whether voxels see their neighbours; otherwise only r = 0 is there.
    bias
        Whether a constant is learned for each feature of the output.
    repeat
        Whether the nearest voxel stands for those beyond the volume; otherwise zeros.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, int]],
        features: int,
        band: int,
        *,
        spatial: bool = True,
        bias: bool = True,
        repeat: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.features, self.band = tuple(inputs), features, band
        self.repeat = repeat
        self.rings = len(RINGS) if spatial else 1
        terms = self.rings * sum(count for count, _ in inputs)
        self.weight = nn.ParameterList(
            torch.randn(min(order, band) // 2 + 1, self.rings, count, features)
            * math.sqrt(2 / terms)
            for count, order in inputs
        )
        self.bias = nn.Parameter(torch.full((features,), 0.01)) if bias else None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs (C, B, X, Y, Z, F) to (C', B, X, Y, Z, F')."""
        return self.scaled(inputs, None, None)

    def scaled(
        self, inputs: Sequence[Tensor], factor: Tensor | None, offset: Tensor | None
    ) -> Tensor:
        """Filter, with the output's features times a factor, plus an offset, (F',) each."""
        kernels = [self._kernel(weight, factor) for weight in self.weight]
        result: Tensor = FilterDegrees.apply(  # type: ignore[no-untyped-call]
            self.band, self.repeat, len(inputs), *inputs, *kernels
        )
        constant = offset
        if self.bias is not None:
            constant = self.bias if factor is None else self.bias * factor
            constant = constant if offset is None else constant + offset
        if constant is not None:
            result = AddConstant.apply(result, constant * UNIT)  # type: ignore[no-untyped-call]
        return result

    def _kernel(self, weight: Tensor, factor: Tensor | None) -> Tensor:
        """Return (K, R, F, F'): weights of sums over rings from those of means."""
        kernel = weight / weight.new_tensor(RINGS[: self.rings])[:, None, None]
        return kernel if factor is None else kernel * factor


class SpectralNorm(nn.Module):
    r"""Learn and apply batch norm over voxels and the sphere, from coefficients.

    .. math:: \mu = \frac{\langle c_{00} \rangle}{\sqrt{4 \pi}}, \quad
              \sigma^2 = \frac{\sum_{lm} \langle c_{lm}^2 \rangle}{4 \pi} - \mu^2

    are mean and variance of the function itself, and invariant to rotations.

    Parameters
    ----------
    features
        Features F.
    momentum, eps
        As of `torch.nn.BatchNorm3d`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, *, momentum: float = MOMENTUM, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.momentum, self.eps = momentum, eps

    def forward(self, coefficients: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return factor and offset (F,) that normalise a function; None: the learned statistics."""
        if coefficients is None or not self.training:
            mean, variance = self.running_mean, self.running_var
        else:
            c = coefficients.float()
            voxels = math.prod(c.shape[1:-1])
            mean = c[0].mean((0, 1, 2, 3)) / UNIT
            energy = torch.linalg.vector_norm(c.flatten(0, -2), dim=0).square()
            variance = (energy / (4 * math.pi * voxels) - mean.square()).clamp_min(0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance, self.momentum)
        factor = self.weight * torch.rsqrt(variance + self.eps)
        return factor, self.bias - mean * factor


class Rectifier(nn.Module):
    r"""Apply ReLU to the function that coefficients hold, and return coefficients.

    .. math:: c' = Y^T \operatorname{diag}(w) \, \max(Y (a c) + b, 0)

    on directions whose quadrature is exact far beyond twice the band, so that little of what the
    kink throws beyond comes back as an error that depends on orientation.

    Parameters
    ----------
    band
        SH order of the coefficients that come in.
    degree
        Degree of the quadrature, None for `grid_degree`.
    """

    synthesis: Tensor
    analysis: Tensor

    def __init__(self, band: int, degree: int | None = None) -> None:
        super().__init__()
        self.band = band
        degree = grid_degree(band) if degree is None else degree
        if degree < 2 * band:
            raise InputError(
                f"A quadrature of degree {degree} cannot hold a product of two functions of order "
                f"{band}; give {2 * band} or more."
            )
        weights, basis = grid_matrices(degree, band)
        self.register_buffer("synthesis", basis.float(), persistent=False)
        self.register_buffer("analysis", (basis.T * weights).float(), persistent=False)

    def forward(
        self, coefficients: Tensor, factor: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Map (C, B, X, Y, Z, F) to the same, with factor a and offset b (F,) before the kink."""
        if factor is None:
            factor = coefficients.new_ones(coefficients.shape[-1])
        if offset is None:
            offset = torch.zeros_like(factor)
        return Rectify.apply(coefficients, factor, offset, self.synthesis, self.analysis)  # type: ignore[no-any-return,no-untyped-call]

    def overwrite(self, coefficients: Tensor) -> Tensor:
        """Do the same to the coefficients themselves, without gradients; return them."""
        rectify_(coefficients, None, None, self.synthesis, self.analysis, coefficients)
        return coefficients


class SpectralLayer(nn.Module):
    """Filter, normalise and rectify: one layer of the network.

    Parameters
    ----------
    inputs, features, band, spatial, repeat
        As of `SpectralConv`.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, int]],
        features: int,
        band: int,
        *,
        spatial: bool = True,
        degree: int | None = None,
        repeat: bool = False,
    ) -> None:
        super().__init__()
        self.conv = SpectralConv(inputs, features, band, spatial=spatial, bias=False, repeat=repeat)
        self.norm = SpectralNorm(features)
        self.rectifier = Rectifier(band, degree)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs (C, B, X, Y, Z, F) to (C', B, X, Y, Z, F')."""
        if torch.is_grad_enabled() or self.training:
            filtered = self.conv(*inputs)
            return self.rectifier(filtered, *self.norm(filtered))  # type: ignore[no-any-return]
        return self.rectifier.overwrite(self.conv.scaled(inputs, *self.norm(None)))


def grid_degree(band: int) -> int:
    """Return the degree of the quadrature on which functions of a band are rectified.

    After a rotation, the fODFs of a small network trained on crossings (L = 8) were off by 6.6 % at
    3 L - 1 (97 directions), 2.9 % at 3 L + 5 (151), 1.9 % at 3 L + 8 (217) and 1.4 % at 3 L + 18
    (385); at 3 L + 12 there are 295. Half of what was left came from the inner levels, whose bands
    are low and whose voxels are few: on 36 at least, networks with random weights are off by 1.6 %
    in the mean, where they were by 2.4 % at 3 L + 12 alone.
    """
    return max(3 * band + 12, INNER)


@lru_cache(maxsize=32)
def grid_matrices(degree: int, *bands: int) -> tuple[Tensor, ...]:
    """Return directions' weights (V,) and the SH basis of each band (V, C), float64.

    The quadrature is exact to ``degree``.
    """
    points, weights = half_quadrature(degree)
    bases = (torch.from_numpy(design_matrix(points, band)) for band in bands)
    return torch.tensor(weights), *bases
