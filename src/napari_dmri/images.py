"""What comes out of the maths: images with their affine, basis, units and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients, order_of

__all__ = [
    "INTERNAL_BASIS",
    "TISSUES",
    "PeakImage",
    "Response",
    "ResponseSet",
    "ScalarImage",
    "ShImage",
    "TensorImage",
    "n_coefficients",
    "order_of",
]

INTERNAL_BASIS = "tournier07"
"""The basis that all SH coefficients in memory are in: orthonormal, MRtrix3's own."""

TISSUES = ("wm", "gm", "csf")
"""The tissues that may have a response, in the order in which they are listed and labelled."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ScalarImage:
    """Hold one map (X, Y, Z) or a few (X, Y, Z, K), with units and a label for colour bars."""

    data: Array
    affine: NDArray[np.float64]
    name: str = "map"
    units: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        units = f", {self.units}" if self.units else ""
        return f"ScalarImage({self.name!r}, {self.shape}{units})"

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

    def __repr__(self) -> str:
        return f"TensorImage({self.name!r}, {self.shape[:3]})"

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


@dataclass(frozen=True, eq=False)
class PeakImage:
    """Hold the maxima of a function on the sphere in each voxel, largest first.

    Parameters
    ----------
    directions
        Unit vectors (X, Y, Z, N, 3), scanner RAS; zero where there is no peak.
    amplitudes
        The function at the peaks (X, Y, Z, N); zero where there is none.
    affine, mask, name, provenance
        As in `ShImage`.
    afd
        Apparent fibre density of each peak's lobe, its integral (X, Y, Z, N); None if not asked
        for.
    dispersion
        Spread of each peak's lobe in degrees (X, Y, Z, N); None if not asked for.
    """

    directions: NDArray[np.float32]
    amplitudes: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_] | None = None
    afd: NDArray[np.float32] | None = None
    dispersion: NDArray[np.float32] | None = None
    name: str = "peaks"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.directions.ndim != 5 or self.directions.shape[-1] != 3:
            raise InputError(
                f"Peak directions have shape {self.directions.shape}; expected (x, y, z, N, 3)."
            )
        if self.amplitudes.shape != self.directions.shape[:-1]:
            raise InputError(
                f"Peak amplitudes have shape {self.amplitudes.shape}; the directions need "
                f"{self.directions.shape[:-1]}."
            )
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return f"PeakImage({self.name!r}, {self.shape[:3]}, up to {self.shape[3]} a voxel)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (X, Y, Z, N)."""
        return tuple(self.amplitudes.shape)

    @property
    def count(self) -> NDArray[np.int16]:
        """Number of peaks in each voxel (X, Y, Z)."""
        count: NDArray[np.int16] = (self.amplitudes > 0).sum(-1).astype(np.int16)
        return count


@dataclass(frozen=True, eq=False)
class Response:
    r"""Hold the signal of one tissue along a single fibre, as zonal SH coefficients per shell.

    .. math:: S_b(u) = \sum_l r_{bl} Y_{l0}(u), \quad \text{fibre along } z

    Convolved with an fODF, :math:`s_{blm} = \sqrt{4 \pi / (2l + 1)}\; r_{bl} f_{lm}` (MRtrix3's
    convention). Units are those of the scan's magnitudes.

    Parameters
    ----------
    zonal
        :math:`r_{bl}` (S, L/2 + 1), float64: a row a shell by rising b-value, b0 first where it
        is known; columns are l = 0, 2, ... L. One column for isotropic tissue.
    bvalues
        The shells in s/mm² (S,); None where a file does not say.
    tissue
        ``"wm"``, ``"gm"`` or ``"csf"``.
    voxels
        How many voxels it was taken from; 0 if not known.
    provenance
        How it was made.
    """

    zonal: NDArray[np.float64]
    bvalues: tuple[float, ...] | None = None
    tissue: str = "wm"
    voxels: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        zonal = np.array(self.zonal, dtype=np.float64, ndmin=2)
        if zonal.ndim != 2 or not zonal.size or not np.isfinite(zonal).all():
            raise InputError(
                f"The {self.tissue} response holds shape {zonal.shape} with "
                f"{int((~np.isfinite(zonal)).sum())} values that are not finite; expected one row "
                "of numbers a shell."
            )
        if self.bvalues is not None and len(self.bvalues) != len(zonal):
            raise InputError(
                f"The {self.tissue} response has {len(zonal)} rows and {len(self.bvalues)} "
                "b-values; it needs one row a shell."
            )
        zonal.setflags(write=False)
        object.__setattr__(self, "zonal", zonal)
        if self.bvalues is not None:
            object.__setattr__(self, "bvalues", tuple(float(b) for b in self.bvalues))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        shells = "?" if self.bvalues is None else ", ".join(f"{b:g}" for b in self.bvalues)
        return f"Response({self.tissue!r}, b = {shells}, order {self.order})"

    @property
    def order(self) -> int:
        """The highest degree l; 0 for isotropic tissue."""
        return 2 * (int(self.zonal.shape[1]) - 1)


@dataclass(frozen=True, eq=False)
class ResponseSet(Mapping[str, Response]):
    """Hold the responses of one scan or group: a mapping from tissue to `Response`.

    Parameters
    ----------
    tissues
        ``"wm"`` and, where known, ``"gm"`` and ``"csf"``.
    voxels
        Where they were taken from, labels 1 WM, 2 GM, 3 CSF; None where that is not known.
    notes
        What was done, in words.
    """

    tissues: Mapping[str, Response]
    voxels: ScalarImage | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.tissues if name not in TISSUES]
        if unknown or "wm" not in self.tissues:
            raise InputError(
                f"Responses are given for {', '.join(self.tissues) or 'no tissue'}; expected wm "
                "and, optionally, gm and csf."
            )
        ordered = {name: self.tissues[name] for name in TISSUES if name in self.tissues}
        object.__setattr__(self, "tissues", MappingProxyType(ordered))

    def __repr__(self) -> str:
        return f"ResponseSet({', '.join(repr(response) for response in self.tissues.values())})"

    def __getitem__(self, tissue: str) -> Response:
        return self.tissues[tissue]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tissues)

    def __len__(self) -> int:
        return len(self.tissues)

    @property
    def wm(self) -> Response:
        """White matter's response."""
        return self.tissues["wm"]
