"""What comes out of the maths: images with their affine, basis, units and provenance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients, order_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INTERNAL_BASIS", "ScalarImage", "ShImage", "TensorImage", "n_coefficients", "order_of"]

INTERNAL_BASIS = "tournier07"
"""The basis that all SH coefficients in memory are in: orthonormal, MRtrix3's own."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ScalarImage:
    """Hold one map (X, Y, Z) or a few (X, Y, Z, K), with units and a label for colour bars."""

    data: Array
    affine: NDArray[np.float64]
    name: str = "map"
    units: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.data.shape)


@dataclass(frozen=True, eq=False)
class ShImage:
    r"""Hold a function on the sphere in each voxel as real, even SH coefficients.

    .. math:: f(u) = \sum_{l = 0, 2, \dots, L} \sum_{m = -l}^{l} c_{lm} Y_{lm}(u)

    Parameters
    ----------
    coefficients
        Coefficients (X, Y, Z, C), float32, always in the internal basis (tournier07, not legacy:
        MRtrix3's), orders 0, 2, ... L, m = -l ... l; :math:`C = (L + 1)(L + 2) / 2`.
        Directions u are in the scanner's RAS frame.
    affine
        Voxel indices to scanner RAS millimetres (4, 4).
    mask
        Voxels that were fitted (X, Y, Z); None means all.
    bvalue
        The shell in s/mm²; None for fODFs.
    normalised
        Whether the function is S/b0 rather than S.
    name
        A short readable name.
    provenance
        How it was made: method, parameters, versions, inputs.
    """

    coefficients: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_] | None = None
    bvalue: float | None = None
    normalised: bool = True
    name: str = "SH"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 4:
            raise InputError(
                f"SH coefficients have shape {self.coefficients.shape}; expected (x, y, z, C)."
            )
        order_of(self.coefficients.shape[3])
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return f"ShImage({self.name!r}, {self.shape[:3]}, order {self.order})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z, C)."""
        return tuple(self.coefficients.shape)

    @property
    def order(self) -> int:
        """The maximum degree L."""
        return order_of(self.coefficients.shape[3])

    @property
    def basis(self) -> str:
        """The basis of the coefficients in memory."""
        return INTERNAL_BASIS

    def with_coefficients(self, coefficients: Array, **changes: Any) -> ShImage:
        """Return the image with other coefficients on the same grid."""
        return replace(self, coefficients=coefficients.astype(np.float32, copy=False), **changes)


@dataclass(frozen=True, eq=False)
class TensorImage:
    r"""Hold a diffusion tensor per voxel and what is derived from its eigenvalues.

    Parameters
    ----------
    tensor
        Dxx, Dxy, Dyy, Dxz, Dyz, Dzz in mm²/s (X, Y, Z, 6), scanner RAS frame.
    eigenvalues
        :math:`\lambda_1 \ge \lambda_2 \ge \lambda_3 \ge 0` in mm²/s (X, Y, Z, 3).
    principal
        Unit eigenvector of :math:`\lambda_1` (X, Y, Z, 3), scanner RAS; zero outside the mask.
    affine, mask, name, provenance
        As in `ShImage`.
    """

    tensor: NDArray[np.float32]
    eigenvalues: NDArray[np.float32]
    principal: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_] | None = None
    name: str = "tensor"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z, 6)."""
        return tuple(self.tensor.shape)

    @cached_property
    def fa(self) -> NDArray[np.float32]:
        r"""Fractional anisotropy in [0, 1].

        .. math:: \sqrt{\tfrac{3}{2}}\,
                  \frac{\lVert \lambda - \bar\lambda \rVert}{\lVert \lambda \rVert}
        """
        spread = self.eigenvalues - self.eigenvalues.mean(-1, keepdims=True)
        size = (self.eigenvalues**2).sum(-1)
        ratio = 1.5 * (spread**2).sum(-1) / np.where(size > 0, size, 1)
        anisotropy: NDArray[np.float32] = np.sqrt(np.clip(ratio, 0, 1)).astype(np.float32)
        return anisotropy

    @cached_property
    def md(self) -> NDArray[np.float32]:
        """Mean diffusivity (mm²/s)."""
        mean: NDArray[np.float32] = self.eigenvalues.mean(-1)
        return mean

    @property
    def ad(self) -> NDArray[np.float32]:
        """Axial diffusivity, the largest eigenvalue (mm²/s)."""
        largest: NDArray[np.float32] = self.eigenvalues[..., 0]
        return largest

    @cached_property
    def rd(self) -> NDArray[np.float32]:
        """Radial diffusivity, the mean of the two smaller eigenvalues (mm²/s)."""
        mean: NDArray[np.float32] = self.eigenvalues[..., 1:].mean(-1)
        return mean

    @cached_property
    def colour_fa(self) -> NDArray[np.float32]:
        """FA times the absolute principal direction (X, Y, Z, 3): red R-L, green A-P, blue S-I."""
        colours: NDArray[np.float32] = np.abs(self.principal) * self.fa[..., None]
        return colours
