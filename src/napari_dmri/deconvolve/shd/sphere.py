r"""Hold what the layers need to know of one level's sphere, as buffers that no file keeps.

A function x (V, ...) on the vertices has modes :math:`\hat x = U^T x`, U the eigenvectors of the
scaled Laplacian. A filter that is a polynomial of the Laplacian multiplies every mode by a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

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
        return _apply(self.modes, x)

    def from_modes(self, modes: Tensor) -> Tensor:
        r"""Return :math:`U \hat x` of modes (V, ...)."""
        return _apply(self.modes.T, modes)

    def coarse_to_modes(self, x: Tensor) -> Tensor:
        """Return the modes of x (V / 4, ...) after it has gone from N / 2 to N."""
        if self.coarse_modes is None:
            return self.to_modes(x)
        return _apply(self.coarse_modes, x)

    def to_modes_(self, x: Tensor) -> Tensor:
        """Do `to_modes` in place, a piece at a time; x is contiguous."""
        return _apply_(self.modes, x)

    def from_modes_(self, modes: Tensor, shift: Tensor, rectify: bool = True) -> Tensor:
        """Do `from_modes` in place, add a number to each feature (last axis) and clip at zero."""
        return _apply_(self.modes.T, modes, shift, rectify)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    product = matrix.to(x.dtype) @ x.flatten(1)
    return product.view(-1, *x.shape[1:])


def _apply_(
    matrix: Tensor, x: Tensor, shift: Tensor | None = None, rectify: bool = False
) -> Tensor:
    features = x.shape[-1]
    flat = x.view(len(x), -1)
    width = max(1, CHUNK // (len(x) * features)) * features
    if x.device.type == "cuda":
        width = max(width, 2**26 // (len(x) * features) * features)
    for first in range(0, flat.shape[1], width):
        piece = flat[:, first : first + width]
        result = matrix @ piece
        if shift is not None:
            result.view(len(x), -1, features).add_(shift)
        piece.copy_(result.relu_() if rectify else result)
    return x
