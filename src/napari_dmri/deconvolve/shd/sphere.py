r"""Hold what the layers need to know of one level's sphere, as buffers that no file keeps.

A function x (V, ...) on the vertices has modes :math:`\hat x = U^T x`, U the eigenvectors of the
scaled Laplacian. A filter that is a polynomial of the Laplacian multiplies every mode by a number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from napari_dmri.deconvolve.shd.modes import Modes
from napari_dmri.sphere.graph import (
    chebyshev,
    laplacian_basis,
    pooling_index,
    unpooling_index,
)
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix, healpix_half

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sphere"]

CHUNK = 2**20
"""Values that are transformed at once: they stay in the cache."""

LARGE = 192
"""Vertices from which sums and small products are faster than one product."""

QUICK = (torch.float32, torch.float64)


class Sphere(nn.Module):
    """Sample one level's sphere and change between vertices and modes.

    Parameters
    ----------
    n_side
        N of HEALPix.
    hemisphere
        Whether one vertex of each antipodal pair stands for both.

    Attributes
    ----------
    directions
        (V, 3) float64, NumPy, in the order of the vertices.
    """

    modes: Tensor
    coarse_modes: Tensor | None
    parts: Tensor | None
    parents: Tensor | None

    def __init__(self, n_side: int, hemisphere: bool = True) -> None:
        super().__init__()
        self.n_side, self.hemisphere = n_side, hemisphere
        self.directions: NDArray[np.float64] = (
            healpix_half(n_side) if hemisphere else healpix(n_side)
        )
        mirror, blocks, self.eigenvalues = laplacian_basis(n_side, hemisphere)
        modes = block_diag(*blocks).T @ mirror
        self._keep("modes", modes)
        if n_side > 1:
            parents = unpooling_index(n_side, hemisphere)
            spread = np.eye(len(parents) // 4)[parents]
            self._keep("coarse_modes", modes @ spread)
            self.register_buffer(
                "parts", torch.tensor(pooling_index(n_side, hemisphere)), persistent=False
            )
            self.register_buffer("parents", torch.tensor(parents), persistent=False)
        else:
            self.coarse_modes = self.parts = self.parents = None

    def _keep(self, name: str, matrix: NDArray[np.float64]) -> None:
        tensor = torch.tensor(matrix, dtype=torch.get_default_dtype())
        self.register_buffer(name, tensor, persistent=False)

    @property
    def vertices(self) -> int:
        """Number of vertices."""
        return len(self.directions)

    def polynomials(self, terms: int) -> NDArray[np.float64]:
        """Return Chebyshev polynomials of the modes' eigenvalues (V, K)."""
        return chebyshev(self.eigenvalues, terms).T

    def harmonics(self, order: int) -> NDArray[np.float64]:
        """Return the SH basis at the vertices (V, C)."""
        return design_matrix(self.directions, order)

    def to_modes(self, x: Tensor) -> Tensor:
        r"""Return :math:`U^T x` of x (V, ...)."""
        return _change(x, self, False)

    def from_modes(self, modes: Tensor) -> Tensor:
        r"""Return :math:`U \hat x` of modes (V, ...)."""
        return _change(modes, self, True)

    def coarse_to_modes(self, x: Tensor) -> Tensor:
        """Return the modes of x (V / 4, ...) after it has gone from N / 2 to N."""
        if self.coarse_modes is None:
            return self.to_modes(x)
        product = self.coarse_modes.to(x.dtype) @ x.flatten(1)
        return product.view(-1, *x.shape[1:])

    def to_modes_(self, x: Tensor) -> Tensor:
        """Do `to_modes` in place, a piece at a time; x is contiguous."""
        flat = x.view(len(x), -1)
        if quick := self.quick(x):
            quick.to_modes(flat, flat)
            return x
        matrix = self.modes.to(x.dtype)
        for first in range(0, flat.shape[1], _width(x)):
            piece = flat[:, first : first + _width(x)]
            piece.copy_(matrix @ piece)
        return x

    def from_modes_(self, modes: Tensor, shift: Tensor) -> Tensor:
        """Do `from_modes` in place, add a number to each feature (last axis) and clip at zero."""
        flat = modes.view(len(modes), -1)
        if quick := self.quick(modes):
            quick.from_modes(flat, flat, shift, rectify=True)
            return modes
        matrix = self.modes.T.to(modes.dtype)
        for first in range(0, flat.shape[1], _width(modes)):
            piece = flat[:, first : first + _width(modes)]
            result = matrix @ piece
            result.view(len(modes), -1, len(shift)).add_(shift)
            piece.copy_(result.relu_())
        return modes

    def quick(self, x: Tensor) -> Modes | None:
        """Return the way by sums and small products, where it is faster."""
        if x.device.type != "cpu" or self.vertices < LARGE or x.dtype not in QUICK:
            return None
        return _modes(self.n_side, self.hemisphere)


class _Change(torch.autograd.Function):
    """Change to modes or back; the modes are orthonormal, so each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sphere: Sphere, back: bool) -> Tensor:
        ctx.sphere, ctx.back = sphere, back
        quick = sphere.quick(x)
        flat = x.flatten(1)
        if quick is None:
            raise ValueError("there is no quick change of basis for these values")
        out = torch.empty_like(flat)
        return (quick.from_modes if back else quick.to_modes)(flat, out).view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _change(grad, ctx.sphere, not ctx.back), None, None


def _change(x: Tensor, sphere: Sphere, back: bool) -> Tensor:
    if sphere.quick(x) is None:
        matrix = sphere.modes.to(x.dtype)
        return ((matrix.T if back else matrix) @ x.flatten(1)).view(x.shape)
    changed: Tensor = _Change.apply(x, sphere, back)  # type: ignore[no-untyped-call]
    return changed


@lru_cache(maxsize=16)
def _modes(n_side: int, half: bool) -> Modes:
    return Modes(n_side, half)


def _width(x: Tensor) -> int:
    """Return how many columns of x (V, ..., F) are worked on at once, whole voxels."""
    most = CHUNK if x.device.type == "cpu" else 2**26
    return max(1, most // (len(x) * x.shape[-1])) * x.shape[-1]
