r"""SHResNet (Koppers et al., CDMRI 2018): SH coefficients of one scanner from those of another.

With x a neighbourhood of coefficients and every layer a 3 x 3 x 3 convolution,

.. math::

    p = \mathrm{pre}(x), \quad y_0 = p, \quad y_i = y_{i-1} - F_i(y_{i-1}), \quad
    z = \mathrm{post}(y_n) - p, \quad \hat c = \mathrm{final}(z).

F has one branch for each SH order l: two convolutions of ``hidden`` channels with rectified linear
units, and a third, linear one that gives the 2l + 1 coefficients of its order. The signs are the
paper's. What it leaves open is read as follows: pre, post and final are single linear convolutions
that keep the number of coefficients, and final is the one that takes the neighbourhood together.

With ``final_layers = 2`` another padded convolution with rectified linear units stands before the
last one, :math:`\hat c = \mathrm{final}(\max(0, \mathrm{extra}(z)))`, of twice as many channels,
so that it can pass on both signs: coefficients are signed.

Before training the network is the identity, exactly: pre copies, the last convolutions of the
branches and post are zero, and final is minus the centre (extra copies z and -z, and final takes
their difference).

There are two modes, and they are different functions once trained:

``paper``
    Takes 3 x 3 x 3 patches. All convolutions but the last pad the patch with zeros, so that what
    lies beyond the nearest neighbours never counts. Computed as in `shresnet_patch`.
``tiled``
    Takes patches of any size and pads nothing: each convolution cuts off a margin of one voxel,
    3 n + 3 in all, or 3 n + 4 with two final layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import nn

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    import numpy as np

    from napari_dmri.progress import Progress

__all__ = ["MODES", "SHResNet", "SHResNetConfig"]

Array = NDArray[Any]

MODES = ("paper", "tiled")
"""What a network can be trained and run on: single 3 x 3 x 3 patches, or larger patches."""


@dataclass(frozen=True)
class SHResNetConfig:
    """Say what an SHResNet is made of.

    Parameters
    ----------
    order
        SH order in and out, 0 to 8; one branch for each even order up to it.
    blocks
        Number of residual blocks n; the paper compares 1, 2, 3, 6, 7, 9 and 11 and takes 2.
    hidden
        Channels of a branch's first two convolutions (the paper does not state them).
    mode
        ``"paper"`` or ``"tiled"``.
    final_layers
        1, or 2 for a convolution with rectified linear units before the last (the paper says
        "convolutions" and no more).
    """

    order: int = 4
    blocks: int = 2
    hidden: int = 15
    mode: str = "paper"
    final_layers: int = 1

    def __post_init__(self) -> None:
        n_coefficients(self.order)
        if self.order > 8:
            raise InputError(f"The SH order is {self.order}; SHResNet takes 0 to 8.")
        if not 1 <= self.blocks <= 32 or self.hidden < 1:
            raise InputError(
                f"{self.blocks} blocks with {self.hidden} hidden channels; SHResNet takes 1 to 32 "
                "blocks and at least 1 channel."
            )
        if self.mode not in MODES:
            raise InputError(f"Unknown mode {self.mode!r}; choose one of {', '.join(MODES)}.")
        if self.final_layers not in (1, 2):
            raise InputError(f"{self.final_layers} final layers; SHResNet takes 1 or 2.")

    @property
    def channels(self) -> int:
        """Coefficients a voxel."""
        return n_coefficients(self.order)

    @property
    def parts(self) -> tuple[slice, ...]:
        """Which coefficients each branch gives."""
        orders = range(0, self.order + 1, 2)
        return tuple(slice(n_coefficients(el) - 2 * el - 1, n_coefficients(el)) for el in orders)


class Block(nn.Module):
    """Hold a residual block's weights: the branches' convolutions, side by side.

    ``first`` sees the whole input; ``second`` is a group for each branch; row c of ``third``
    reads the branch that gives coefficient c. `shresnet_patch` and `shresnet_tiles` compute them.
    """

    def __init__(self, config: SHResNetConfig) -> None:
        super().__init__()
        channels, hidden, branches = config.channels, config.hidden, len(config.parts)
        self.parts = config.parts
        self.first = nn.Conv3d(channels, branches * hidden, 3)
        self.second = nn.Conv3d(branches * hidden, branches * hidden, 3, groups=branches)
        self.third = nn.Conv3d(hidden, channels, 3)
        _zero(self.third)


class SHResNet(nn.Module):
    """Map neighbourhoods of SH coefficients to the centre voxel's at another site.

    Parameters
    ----------
    config
        What it is made of.
    seed
        Of the initial weights.
    """

    Config = SHResNetConfig

    def __init__(self, config: SHResNetConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config or SHResNetConfig()
        channels = self.config.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pre = nn.Conv3d(channels, channels, 3)
            self.blocks = nn.ModuleList(Block(self.config) for _ in range(self.config.blocks))
            self.post = nn.Conv3d(channels, channels, 3)
            two = self.config.final_layers == 2
            self.extra = nn.Conv3d(channels, 2 * channels, 3) if two else None
            self.final = nn.Conv3d(2 * channels if two else channels, channels, 3)
        for layer in (self.pre, self.post, self.extra, self.final):
            if layer is not None:
                _zero(layer)
        nn.init.dirac_(self.pre.weight)
        with torch.no_grad():
            nn.init.dirac_(self.final.weight[:, :channels]).neg_()
            if self.extra is not None:
                nn.init.dirac_(self.extra.weight[:channels])
                nn.init.dirac_(self.extra.weight[channels:]).neg_()
                nn.init.dirac_(self.final.weight[:, channels:])

    @property
    def halo(self) -> int:
        """Voxels on each side that a prediction needs beyond its own."""
        config = self.config
        return 1 if config.mode == "paper" else 2 + 3 * config.blocks + config.final_layers

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return coefficients at the target site.

        Parameters
        ----------
        patches
            Paper mode: (B, C, 3, 3, 3). Tiled mode: (B, C, d + 2h, d' + 2h, d'' + 2h), h the halo.

        Returns
        -------
        Paper mode: (B, C). Tiled mode: (B, C, d, d', d'').
        """
        from napari_dmri.harmonize import shresnet_patch, shresnet_tiles

        shape, edges = tuple(patches.shape), tuple(patches.shape[2:])
        channels, paper = self.config.channels, self.config.mode == "paper"
        if len(shape) != 5 or shape[1] != channels or (paper and edges != (3, 3, 3)):
            wanted = "3, 3, 3" if paper else "x, y, z"
            raise InputError(
                f"The patches have shape {shape}; in {self.config.mode} mode this network of SH "
                f"order {self.config.order} expected (B, {channels}, {wanted})."
            )
        if paper:
            return shresnet_patch.run(shresnet_patch.fold(self), patches)
        if min(edges) <= 2 * self.halo:
            raise InputError(
                f"Patches of {edges} voxels; this network needs more than twice its halo of "
                f"{self.halo} along each axis."
            )
        return shresnet_tiles.run(self, patches)

    def predict(
        self,
        coefficients: Array,
        mask: Array,
        *,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Run on a volume (X, Y, Z, C) inside a mask; see `networks.predict`."""
        from napari_dmri.harmonize import shresnet_patch, shresnet_tiles

        paper = self.config.mode == "paper"
        run = shresnet_patch.predict if paper else shresnet_tiles.predict
        return run(self, coefficients, mask, device=device, progress=progress)


def _zero(layer: nn.Conv3d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
