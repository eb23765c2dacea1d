"""Map shells of a scan to fODFs: what goes into and comes out of every network of the family."""

from __future__ import annotations

import copy
import importlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_dmri.deconvolve.shd.chebyshev import ChebyshevLayer
from napari_dmri.deconvolve.shd.gains import Equaliser
from napari_dmri.deconvolve.shd.pooling import Pool
from napari_dmri.deconvolve.shd.sphere import Sphere
from napari_dmri.deconvolve.shd.unet import Layer, UNet
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.architecture import Architecture
    from napari_dmri.deconvolve.shd.unet import Maker

__all__ = [
    "NETWORKS",
    "ChebyshevMaker",
    "Head",
    "SphereNetwork",
    "build_network",
    "on_half_spheres",
]

NETWORKS = {
    "chebyshev": "network:SphereNetwork",
    "spectral": "spectral_unet:SpectralNetwork",
    "concat-so3": "figure8:ConcatNetwork",
    "e3-sh": "figure8:HarmonicNetwork",
    "convolution": "convolutional:ConvolutionalNetwork",
}
"""Where the network of each kind of layer is: called with (architecture, shells, others)."""


BLIND = 0.1
"""Directions in the space of coefficients that the vertices see with less than this part of the
largest singular value are left out: at N_side 4 and degree 12 there are 4, at most 0.011, which
would turn a smooth positive lobe into noise of several times its height; all others are from 0.44,
and at N_side 8 and degree 18 from 0.85."""


def build_network(
    architecture: Architecture, shells: int, others: int = 0, *, seed: int | None = None
) -> nn.Module:
    """Make an untrained network.

    Parameters
    ----------
    architecture
        What it is made of.
    shells
        Shells that go in, b0 included.
    others
        Number of tissues besides white matter.
    seed
        Of the initial weights; None leaves torch's generator in charge.

    Returns
    -------
    A module with ``forward(shells (B, X, Y, Z, S, C_in)) -> (fod (B, X, Y, Z, C), others (B, X, Y,
    Z, T))``.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    if shells < 1 or others < 0:
        raise InputError(
            f"A network for {shells} shells and {others} tissues besides white matter cannot be "
            "made; give at least one shell, and no or more tissues."
        )
    module, name = NETWORKS[architecture.layer].split(":")
    kind = getattr(importlib.import_module(f"napari_dmri.deconvolve.shd.{module}"), name)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network: nn.Module = kind(architecture, shells, others)
    return network


def on_half_spheres(
    network: nn.Module, architecture: Architecture
) -> tuple[nn.Module, Architecture]:
    """Return a copy that computes the same on half of each sphere, and its architecture.

    Signals are even, f(-u) = f(u), and filters, pooling and non-linearity keep them so: half of the
    vertices tell the other half, and the weights are the same (Elaldi et al., NeurIPS 2024).

    Parameters
    ----------
    network
        Any of the family; one without whole spheres is copied as it is.
    architecture
        What it is made of.
    """
    if architecture.hemisphere or not isinstance(network, SphereNetwork):
        return copy.deepcopy(network), architecture
    half = replace(architecture, hemisphere=True)
    made = type(network)(half, network.shells, network.others)
    made.load_state_dict(network.state_dict())
    made.train(network.training)
    return made.to(network.evaluate), half


class Head(Layer):
    """Mix features of each direction and voxel alone, with the factors that its layers have."""

    def __init__(self, features: int, outputs: int, spatial: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(outputs, features, 1))
        self.s = nn.Parameter(torch.empty(outputs, features, 1)) if spatial else None
        self.bias = nn.Parameter(torch.full((outputs,), 0.01))
        nn.init.normal_(self.a, std=math.sqrt(2 / features))
        if self.s is not None:
            nn.init.normal_(self.s, std=math.sqrt(2 / features))

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return y (V, B, X, Y, Z, Fout)."""
        weights = self.a if self.s is None else self.a * self.s
        return functional.linear(x, weights[..., 0], self.bias)


class ChebyshevMaker:
    """Make the parts of SHD, RT-ESD and ESD."""

    def __init__(self, architecture: Architecture, spheres: nn.ModuleList) -> None:
        self.architecture, self.spheres = architecture, spheres

    def layer(self, level: int, fine: int, coarse: int, outputs: int) -> Layer:
        """Make a layer that filters space where the level's patches have any."""
        architecture = self.architecture
        rings = (4 if architecture.isotropic else 27) if architecture.spatial[level] else 0
        sphere: Sphere = self.spheres[level]  # type: ignore[assignment]
        return ChebyshevLayer(
            sphere,
            fine,
            coarse,
            outputs,
            architecture.terms,
            rings,
            architecture.border == "repeat",
        )

    def head(self, features: int, outputs: int) -> Layer:
        """Make the last layer, which filters as the others do for RT-ESD alone."""
        if self.architecture.full_head:
            return self.layer(0, features, 0, outputs)
        return Head(features, outputs, self.architecture.spatial[0])

    def pool(self, level: int) -> nn.Module:
        """Make the pooling of a level's sphere and space."""
        sphere: Sphere = self.spheres[level]  # type: ignore[assignment]
        return Pool(sphere, self.architecture.strides[level])


class SphereNetwork(nn.Module):
    r"""Deconvolve shells given as SH with a U-Net on the sphere's vertices.

    The shells become values at the vertices, features of the U-Net; a softplus makes its outputs
    positive; white matter's goes back to SH by least squares, the other tissues' become
    :math:`f_{00} = \sqrt{4 \pi} \max_v`.

    Parameters
    ----------
    architecture
        What it is made of.
    shells, others
        Shells that go in; tissues besides white matter.
    """

    evaluate: Tensor
    project: Tensor

    def __init__(self, architecture: Architecture, shells: int, others: int) -> None:
        super().__init__()
        self.architecture, self.shells, self.others = architecture, shells, others
        self.spheres = nn.ModuleList(
            Sphere(side, architecture.hemisphere) for side in architecture.sides
        )
        top: Sphere = self.spheres[0]  # type: ignore[assignment]
        back = np.linalg.pinv(top.harmonics(architecture.degree), rcond=BLIND)
        for name, matrix in (
            ("evaluate", top.harmonics(architecture.input_order)),
            ("project", back),
        ):
            tensor = torch.tensor(matrix, dtype=torch.get_default_dtype())
            self.register_buffer(name, tensor, persistent=False)
        self.equalise = Equaliser(architecture.gains, architecture.coefficients_in)
        self.unet = UNet(architecture, shells, 1 + others, self.maker())

    def maker(self) -> Maker:
        """Return what makes the U-Net's parts."""
        return ChebyshevMaker(self.architecture, self.spheres)

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
        where = shells.shape[:-1]
        # Modes in bfloat16 change the fODF by 2 to 4 %: autocast is left out.
        with torch.autocast(shells.device.type, enabled=False):
            flat = self.equalise(shells).reshape(-1, shells.shape[-1]).to(self.evaluate.dtype)
            x = (self.evaluate @ flat.T).view(-1, *where)
            y = functional.softplus(self.unet(x))
            fod = (self.project @ y[..., 0].flatten(1)).T.reshape(*where[:-1], -1)
            return fod, math.sqrt(4 * math.pi) * y[..., 1:].amax(0)
