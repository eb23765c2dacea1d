r"""SHD-S: the U-Net of SHD on spherical harmonics, equivariant to any rotation of the sphere.

Between its layers this network holds coefficients, at level i those of a band :math:`L_i`. Pooling
keeps the coefficients of the lower band and averages voxels; unpooling repeats voxels, and a
skip's higher degrees find nothing beside them. All of this commutes with rotations exactly; only
rectifiers visit directions, on grids dense enough for the error to stay small.

The head makes the sharp lobes of the fODF, of a higher degree than the features' band: it mixes
features on a fine grid, direction by direction, which nonlinearities sharpen; a softplus makes
amplitudes positive, and their projection is the fODF.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from napari_dmri.deconvolve.shd.gains import Equaliser
from napari_dmri.deconvolve.shd.pooling import pool_space, unpool_space
from napari_dmri.deconvolve.shd.spectral import SpectralConv, SpectralLayer, grid_matrices
from napari_dmri.deconvolve.shd.spectral_steps import parts
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dmri.deconvolve.shd.architecture import Architecture

__all__ = ["BANDS", "SpectralBlock", "SpectralHead", "SpectralNetwork", "bands_of"]

BANDS = {8: 8, 4: 8, 2: 4, 1: 2}
"""SH order of a level's filters by its N_side, where an architecture names none.

At the top level orders 8, 10 and 12 were compared on simulated scans at b = 1000 and 3000 (small
SHD-S-TV, one seed each, a block of the validation subject): after 400 steps F1 is 0.882, 0.895 and
0.889, the angular error 9.4, 8.4 and 8.5 degrees, and a step costs 1, 1.4 and 1.7 times as much.
That is about what two seeds differ by, and order 8 comes to 0.897 and 8.3 degrees in 1,000 steps.
"""

SPARE = 23
"""Degrees that the head's quadrature has beyond twice its band, for what the softplus adds."""

KEPT = 1 << 24
"""Values on the head's grid that training keeps for the way back; more are made anew."""

Inputs = list[tuple[int, int]]


def bands_of(architecture: Architecture) -> tuple[int, ...]:
    """Return the SH order of every level's filters."""
    return architecture.bands or tuple(BANDS.get(side, 12) for side in architecture.sides)


class SpectralBlock(nn.Module):
    """Apply layers one after the other.

    Parameters
    ----------
    inputs
        (features, band) of what goes in.
    widths
        Features of each layer.
    band, spatial, repeat
        As of `SpectralConv`.
    """

    def __init__(
        self, inputs: Inputs, widths: list[int], band: int, spatial: bool, repeat: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(SpectralLayer(inputs, width, band, spatial=spatial, repeat=repeat))
            inputs = [(width, band)]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs (C, B, X, Y, Z, F) to (C', B, X, Y, Z, F')."""
        for layer in self.layers:
            inputs = (layer(*inputs),)
        return inputs[0]


class SpectralHead(nn.Module):
    r"""Turn features into positive amplitudes on a fine grid, and these into what a network gives.

    .. math:: p = \operatorname{softplus}(M_2 \max(M_1 \max(Y c, 0), 0)), \quad
              f_{lm} = \int p_0 Y_{lm} du, \quad f_{t,00} = \int p_t Y_{00} du

    Parameters
    ----------
    features, band
        Of the coefficients that come in.
    degree
        SH order of the fODF.
    others
        Tissues besides white matter; their amplitudes are averaged over the sphere, so that
        rotations cannot change them.
    """

    synthesis: Tensor
    analysis: Tensor

    def __init__(self, features: int, band: int, degree: int, others: int) -> None:
        super().__init__()
        self.conv = SpectralConv([(features, band)], features, band, spatial=False)
        self.hidden = nn.Linear(features, features)
        self.mix = nn.Linear(features, 1 + others)
        for linear in (self.hidden, self.mix):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / features))
            nn.init.zeros_(linear.bias)
        weights, enter, leave = grid_matrices(2 * max(degree, band) + SPARE, band, degree)
        self.register_buffer("synthesis", enter.float(), persistent=False)
        self.register_buffer("analysis", (leave.T * weights).float(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fODF (B, X, Y, Z, C) and the other tissues (B, X, Y, Z, T)."""
        columns = self.conv(x).flatten(1, -2)
        pieces = parts(columns, len(self.synthesis))
        step: Callable[[Tensor], tuple[Tensor, Tensor]] = self._project
        if torch.is_grad_enabled():
            if len(self.synthesis) * columns[0].numel() <= KEPT:
                pieces = [slice(None)]
            else:
                step = partial(checkpoint, self._project, use_reentrant=False)
        fods, others = zip(*(step(columns[:, piece]) for piece in pieces), strict=True)
        where = x.shape[1:-1]
        return torch.cat(fods).view(*where, -1), torch.cat(others).view(*where, -1)

    def _project(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Map (C, N, F) to (N, C') and (N, T)."""
        values = (self.synthesis @ columns.flatten(1)).view(-1, *columns.shape[1:]).relu_()
        values = self.hidden(values).relu_()
        amplitudes = functional.softplus(self.mix(values))
        fod = (self.analysis @ amplitudes[..., 0]).T
        return fod, torch.tensordot(self.analysis[0], amplitudes[..., 1:], 1)


class SpectralNetwork(nn.Module):
    """Deconvolve shells given as SH with a U-Net whose layers filter coefficients.

    Parameters
    ----------
    architecture
        What it is made of; ``bands`` are the SH orders of the levels.
    shells, others
        Shells that go in; tissues besides white matter.

    References
    ----------
    The U-Net is that of Elaldi, Gerig, Dey, NeurIPS 2024; its layers follow Esteves et al., ECCV
    2018.
    """

    def __init__(self, architecture: Architecture, shells: int, others: int) -> None:
        super().__init__()
        self.architecture, self.shells, self.others = architecture, shells, others
        self.bands = bands = bands_of(architecture)
        self.equalise = Equaliser(architecture.gains, architecture.coefficients_in)
        widths, spatial, last = architecture.features, architecture.spatial, architecture.depth - 1
        repeat = architecture.border == "repeat"

        def block(level: int, inputs: Inputs, end: int) -> SpectralBlock:
            ends = [widths[level]] * (architecture.block - 1) + [end]
            return SpectralBlock(inputs, ends, bands[level], spatial[level], repeat)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        inputs = [(shells, architecture.input_order)]
        for level in range(last):
            self.down.append(block(level, inputs, widths[level]))
            inputs = [(widths[level], min(bands[level : level + 2]))]
            both = [(widths[level], bands[level]), (widths[level], bands[level + 1])]
            self.up.append(block(level, both, widths[max(level - 1, 0)]))
        self.bottom = block(last, inputs, widths[max(last - 1, 0)])
        self.head = SpectralHead(widths[0], bands[0], architecture.degree, others)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it is: its time goes into steps that a compiler cannot join."""

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
        # In bfloat16 the orders above 0 change by some percent: autocast is left out.
        with torch.autocast(shells.device.type, enabled=False):
            return self._run(self.equalise(shells.to(self.head.analysis.dtype)))

    def _run(self, shells: Tensor) -> tuple[Tensor, Tensor]:
        x = shells.permute(5, 0, 1, 2, 3, 4).contiguous()
        kept: list[Tensor] = []
        for down, stride, band in zip(
            self.down, self.architecture.strides, self.bands[1:], strict=True
        ):
            kept.append(down(x))
            x = pool_space(kept[-1][: n_coefficients(band)], stride)
        x = self.bottom(x)
        for up in reversed(self.up):
            fine = kept.pop()
            x = up(fine, unpool_space(x, tuple(fine.shape[2:5])))
        fod, others = self.head(x)
        return fod, others
