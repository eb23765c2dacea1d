r"""The two simpler layers that figure 8 of the SHD paper compares with: one symmetry each.

The figure's text names them without formulae; this is the evident reading.

Concat-SO(3)
    A spherical convolution of each voxel, whose input features are those of the voxel and of its 26
    neighbours side by side:

    .. math:: y_o(v, p) = b_o + \sum_{i, d, k} a_{oidk} \, [T_k(L^+) x_i](v, p + d) .

    It commutes with rotations of the sphere; the grid's neighbours have weights of their own, so
    that rotations of the grid change the result.
E(3)-SH
    A convolution of space with SH coefficients as channels and one weight for each distance between
    voxels:

    .. math:: y_o(p) = b_o + \sum_{i, d} s_{o i r(d)} \, x_i(p + d) .

    It commutes with rotations of the grid; coefficients of all orders are mixed freely, so that
    rotations of the sphere change the result.

References
----------
Elaldi, Gerig, Dey, NeurIPS 2024, figure 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_dmri.deconvolve.shd.chebyshev import ChebyshevLayer
from napari_dmri.deconvolve.shd.convolutional import ConvolutionalNetwork
from napari_dmri.deconvolve.shd.network import ChebyshevMaker, SphereNetwork

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.sphere import Sphere
    from napari_dmri.deconvolve.shd.unet import Layer, Maker

__all__ = ["ConcatLayer", "ConcatNetwork", "HarmonicNetwork"]

NEIGHBOURS = 27


class ConcatLayer(ChebyshevLayer):
    """Filter the sphere, with the features of the 27 voxels around side by side.

    Parameters
    ----------
    sphere, fine, coarse, outputs, terms
        As of `ChebyshevLayer`.
    """

    def __init__(
        self, sphere: Sphere, fine: int, coarse: int, outputs: int, terms: int = 5
    ) -> None:
        super().__init__(sphere, fine, coarse, outputs, terms, rings=0)
        self.rings = NEIGHBOURS
        inputs = fine + coarse
        scale = math.sqrt(2 / (inputs * terms * NEIGHBOURS))
        self.a = nn.Parameter(scale * torch.randn(outputs, inputs, NEIGHBOURS, terms))

    def weights(self, scale: Tensor | None = None) -> Tensor:
        """Return W (V, 27, Fin, Fout), times a number for each output."""
        a = self.a if scale is None else self.a * scale[:, None, None, None]
        mixed: Tensor = torch.tensordot(self.polynomials, a.permute(3, 2, 1, 0), 1)
        return mixed


class ConcatMaker(ChebyshevMaker):
    """Make the parts of a U-Net of `ConcatLayer`."""

    def layer(self, level: int, fine: int, coarse: int, outputs: int) -> Layer:
        """Make a layer that sees the neighbours where the level's patches have any."""
        if not self.architecture.spatial[level]:
            return super().layer(level, fine, coarse, outputs)
        sphere: Sphere = self.spheres[level]  # type: ignore[assignment]
        return ConcatLayer(sphere, fine, coarse, outputs, self.architecture.terms)


class ConcatNetwork(SphereNetwork):
    """Deconvolve with the U-Net of SHD and Concat-SO(3) layers."""

    def maker(self) -> Maker:
        """Return what makes the U-Net's parts."""
        return ConcatMaker(self.architecture, self.spheres)


class HarmonicNetwork(ConvolutionalNetwork):
    """Deconvolve with the U-Net of the CNN and E(3)-SH layers."""

    def weights(self) -> int:
        """Return one weight for each of 4 distances."""
        return 4
