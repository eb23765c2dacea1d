"""Stack layers to a U-Net over directions and voxels, whatever the layers are.

Tensors are (V, B, X, Y, Z, F); a network without a sphere has V = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from napari_dmri.deconvolve.shd.norms import MOMENTUM

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.architecture import Architecture

__all__ = ["Layer", "Maker", "UNet", "Unit"]


class Layer(nn.Module):
    """Map features at one level; the base of all layers.

    A layer that takes a coarser level's features as well (``coarse``) unpools them itself.
    """

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return y (V, B, X, Y, Z, Fout)."""
        raise NotImplementedError

    def infer(self, x: Tensor, coarse: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
        """Return relu(scale * y + shift) without gradients; x and ``coarse`` may be overwritten."""
        y: Tensor = self(x, coarse)
        return y.mul_(scale).add_(shift).relu_()


class Maker(Protocol):
    """What makes the parts of a U-Net."""

    def layer(self, level: int, fine: int, coarse: int, outputs: int) -> Layer:
        """Make a layer of a level; ``coarse`` features come from the level below (0: none)."""

    def head(self, features: int, outputs: int) -> nn.Module:
        """Make the last layer, at level 0."""

    def pool(self, level: int) -> nn.Module:
        """Make what goes from a level to the next."""


class Unit(nn.Module):
    """Apply a layer, batch norm over all but the features, and a rectifier.

    Statistics are common to batch, vertices and voxels, so that rotations do not change them.
    Without training and gradients, batch norm becomes part of the layer.
    """

    def __init__(self, layer: Layer, features: int) -> None:
        super().__init__()
        self.layer: Layer = layer
        self.norm = nn.BatchNorm2d(features, momentum=MOMENTUM)

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return the unit's features; without gradients x and ``coarse`` may be overwritten."""
        if not (self.training or torch.is_grad_enabled()):
            y: Tensor = self.layer.infer(x, coarse, *self.folded())
            return y
        y = self.layer(x, coarse)
        rows = y.reshape(1, -1, 1, y.shape[-1]).permute(0, 3, 1, 2)
        normed: Tensor = self.norm(rows)
        return normed.relu_().permute(0, 2, 3, 1).reshape(y.shape)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return what frozen batch norm multiplies by and adds."""
        norm = self.norm
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("batch norm keeps no statistics")
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return scale, norm.bias - norm.running_mean * scale


class Block(nn.Module):
    """Apply units one after the other; the first takes the level below as well."""

    def __init__(self, units: list[Unit]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return the last unit's features."""
        for unit in self.units:
            x, coarse = unit(x, coarse), None
        return x


class UNet(nn.Module):
    """Go down the levels, and up again with what each level had.

    With f features at level 0, level i goes from f 2^(i-1) to f 2^i; the deepest returns to its
    input's features; on the way up, a level takes its own and the unpooled features and returns
    those of the level above.

    Parameters
    ----------
    architecture
        Depth, filters and layers a block.
    inputs, outputs
        Features in and out.
    maker
        Makes layers, the head and the pooling.

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024, figure 4.
    """

    def __init__(self, architecture: Architecture, inputs: int, outputs: int, maker: Maker) -> None:
        super().__init__()
        widths, last = architecture.features, architecture.depth - 1

        def block(level: int, fine: int, coarse: int, middle: int, end: int) -> Block:
            ends = [middle] * (architecture.block - 1) + [end]
            units = []
            for width in ends:
                units.append(Unit(maker.layer(level, fine, coarse, width), width))
                fine, coarse = width, 0
            return Block(units)

        self.down, self.up, self.pools = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in range(last):
            start = inputs if level == 0 else widths[level - 1]
            self.down.append(block(level, start, 0, widths[level], widths[level]))
            self.pools.append(maker.pool(level))
            end = widths[max(level - 1, 0)]
            self.up.append(block(level, widths[level], widths[level], widths[level], end))
        start = inputs if last == 0 else widths[last - 1]
        self.bottom = block(last, start, 0, widths[last], widths[max(last - 1, 0)])
        self.head = maker.head(widths[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (V, B, X, Y, Z, outputs); without gradients x may be overwritten."""
        kept: list[Tensor] = []
        for down, pool in zip(self.down, self.pools, strict=True):
            kept.append(down(x))
            x = pool(kept[-1])
        x = self.bottom(x)
        for up in reversed(self.up):
            x = up(kept.pop(), x)
        y: Tensor = self.head(x)
        return y
