"""Go from a level to the next and back: means over 4 directions and 8 voxels, nearest values.

All tensors are (V, B, X, Y, Z, F).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.sphere import Sphere

__all__ = ["Pool", "Unpool", "pool_space", "unpool_space"]

SPACE = (2, 3, 4)


class Pool(nn.Module):
    """Average the sphere's 4 parts of a direction and the 8 voxels of a block.

    Parameters
    ----------
    sphere
        The finer level's sphere; None where there is none. At N_side 1 only space is pooled.
    stride
        Distance between blocks: 2, 1 (an odd patch loses one voxel an edge), or 0 for no pooling.
    """

    def __init__(self, sphere: Sphere | None, stride: int) -> None:
        super().__init__()
        self.sphere, self.stride = sphere, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the coarser level of x (V, B, X, Y, Z, F)."""
        x = pool_space(x, self.stride)
        if self.sphere is None or self.sphere.parts is None:
            return x
        parts = self.sphere.parts
        return x.index_select(0, parts.reshape(-1)).view(*parts.shape, *x.shape[1:]).mean(1)


class Unpool(nn.Module):
    """Give every direction and voxel the value of the block that it is in.

    Parameters
    ----------
    sphere
        The finer level's sphere; None where there is none.
    """

    def __init__(self, sphere: Sphere | None) -> None:
        super().__init__()
        self.sphere = sphere

    def forward(self, coarse: Tensor, space: tuple[int, ...]) -> Tensor:
        """Return the finer level, with voxels ``space`` (X, Y, Z)."""
        if self.sphere is not None and self.sphere.parents is not None:
            coarse = coarse.index_select(0, self.sphere.parents)
        return unpool_space(coarse, space)


def pool_space(x: Tensor, stride: int) -> Tensor:
    """Return means over 2 x 2 x 2 voxels, 2 apart or 1 apart; x itself for stride 0."""
    if stride == 0:
        return x
    for axis in SPACE:
        if stride == 2:
            pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
            x = pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)
        else:
            count = x.shape[axis] - 1
            x = x.narrow(axis, 0, count) + x.narrow(axis, 1, count)
    return x * 0.125


def unpool_space(x: Tensor, space: tuple[int, ...]) -> Tensor:
    """Return nearest values on a grid (X, Y, Z), as torch's ``interpolate`` takes them."""
    old = x.shape[2:5]
    if tuple(old) == tuple(space):
        return x
    if all(new == 2 * edge for edge, new in zip(old, space, strict=True)):
        a, b, c = old
        x = x[:, :, :, None, :, None, :, None]
        return x.expand(-1, -1, a, 2, b, 2, c, 2, -1).reshape(*x.shape[:2], *space, x.shape[-1])
    for axis, new in zip(SPACE, space, strict=True):
        index = torch.arange(new, device=x.device) * x.shape[axis] // new
        x = x.index_select(axis, index)
    return x
