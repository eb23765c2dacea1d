r"""Convolve voxels whose channels are SH coefficients: the CNN and, without neighbours, the MLP.

.. math:: y_o(p) = b_o + \sum_{i, d} w_{oid} \, x_i(p + d), \quad d \in \{-1, 0, 1\}^3

with zeros, or the nearest voxel, outside the volume. Coefficients of all shells and orders are
channels like any others, so nothing is known of rotations of the sphere; with a weight for each
neighbour, nothing of those of the grid either. In patches of 1 voxel it is a perceptron.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_dmri.deconvolve.shd.gains import Equaliser
from napari_dmri.deconvolve.shd.pooling import Pool, unpool_space
from napari_dmri.deconvolve.shd.unet import Layer, UNet

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.architecture import Architecture

__all__ = ["ConvolutionLayer", "ConvolutionMaker", "ConvolutionalNetwork"]


class ConvolutionLayer(Layer):
    """Convolve space, with features as channels.

    Parameters
    ----------
    fine, coarse
        Features of the level that go in, and of the level below (0: none), which is unpooled.
    outputs
        Features that come out.
    weights
        Weights of a pair of features: 27 neighbours, 4 distances, or 1 (the voxel itself).
    repeat
        Whether the nearest voxel stands for those outside; otherwise zeros.
    """

    rings: Tensor

    def __init__(
        self, fine: int, coarse: int, outputs: int, weights: int = 27, repeat: bool = False
    ) -> None:
        super().__init__()
        self.repeat = repeat
        edge = 1 if weights == 1 else 3
        place = torch.arange(edge**3).view(edge, edge, edge)
        if weights == 4:
            away = (torch.arange(3) - 1).abs()
            place = away[:, None, None] + away[:, None] + away
        self.register_buffer("rings", place, persistent=False)
        scale = math.sqrt(2 / ((fine + coarse) * edge**3))
        self.weight = nn.Parameter(scale * torch.randn(outputs, fine + coarse, weights))
        self.bias = nn.Parameter(torch.full((outputs,), 0.01))

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return y (1, B, X, Y, Z, Fout)."""
        return self._convolve(x, coarse, self.weight, self.bias)

    def infer(self, x: Tensor, coarse: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
        """Return relu(scale * y + shift)."""
        weight = self.weight * scale[:, None, None]
        return self._convolve(x, coarse, weight, shift + scale * self.bias).relu_()

    def _convolve(self, x: Tensor, coarse: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        if coarse is not None:
            x = torch.cat([unpool_space(coarse, tuple(x.shape[2:5])), x], -1)
        kernel = weight[:, :, self.rings]
        channels = x.flatten(0, 1).movedim(-1, 1)
        width = kernel.shape[-1] // 2
        if self.repeat and width:
            channels = functional.pad(channels, (width,) * 6, "replicate")
            width = 0
        y = functional.conv3d(channels, kernel, bias, padding=width)
        return y.movedim(1, -1).contiguous()[None]


class ConvolutionMaker:
    """Make the parts of a U-Net without a sphere.

    Parameters
    ----------
    architecture
        What the network is made of.
    weights
        Of `ConvolutionLayer`, at levels that filter space.
    """

    def __init__(self, architecture: Architecture, weights: int) -> None:
        self.architecture, self.weights = architecture, weights

    def layer(self, level: int, fine: int, coarse: int, outputs: int) -> ConvolutionLayer:
        """Make a layer that filters space where the level's patches have any."""
        weights = self.weights if self.architecture.spatial[level] else 1
        repeat = self.architecture.border == "repeat"
        return ConvolutionLayer(fine, coarse, outputs, weights, repeat)

    def head(self, features: int, outputs: int) -> nn.Module:
        """Make the last layer, which mixes features of a voxel."""
        return nn.Linear(features, outputs)

    def pool(self, level: int) -> nn.Module:
        """Make the pooling of a level's space."""
        return Pool(None, self.architecture.strides[level])


class ConvolutionalNetwork(nn.Module):
    r"""Deconvolve shells given as SH with a U-Net over voxels.

    The coefficients of all shells are the U-Net's features, and its outputs the coefficients of
    the fODF. :math:`f_{00}` of all tissues is :math:`\sqrt{4 \pi}` times a softplus, so that no
    amount is negative.

    Parameters
    ----------
    architecture
        What it is made of; of its layers, the sphere's settings do not matter.
    shells, others
        Shells that go in; tissues besides white matter.

    References
    ----------
    The CNN and MLP of Elaldi, Gerig, Dey, NeurIPS 2024.
    """

    def __init__(self, architecture: Architecture, shells: int, others: int) -> None:
        super().__init__()
        self.architecture, self.shells, self.others = architecture, shells, others
        self.equalise = Equaliser(architecture.gains, architecture.coefficients_in)
        self.unet = UNet(
            architecture,
            shells * architecture.coefficients_in,
            architecture.coefficients_out + others,
            ConvolutionMaker(architecture, self.weights()),
        )

    def weights(self) -> int:
        """Return the weights of a pair of features."""
        return 27

    def forward(self, shells: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients of the fODF and f_00 of the other tissues.

        Parameters
        ----------
        shells
            (B, X, Y, Z, S, C_in), b0 first.

        Returns
        -------
        fod
            (B, X, Y, Z, C).
        others
            (B, X, Y, Z, T).
        """
        self.architecture.check_tile(tuple(shells.shape[1:4]))
        y = self.unet(self.equalise(shells).flatten(-2)[None])[0]
        count = self.architecture.coefficients_out
        amounts = math.sqrt(4 * math.pi) * functional.softplus(
            torch.cat([y[..., :1], y[..., count:]], -1)
        )
        return torch.cat([amounts[..., :1], y[..., 1:count]], -1), amounts[..., 1:]
