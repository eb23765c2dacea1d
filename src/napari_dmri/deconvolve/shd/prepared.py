"""A scan as a network takes it: a value that training, prediction and losses share."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.tiles import Box

__all__ = ["Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    r"""Hold a scan as a network of this family takes it, all in units of white matter's b0.

    Parameters
    ----------
    coefficients
        SH coefficients of each shell (X', Y', Z', S, C), b0 first, zero above a shell's order.
    signal
        The volumes to explain (X', Y', Z', N).
    b0
        Mean of the b0 volumes (X, Y, Z).
    mask
        Voxels that count (X, Y, Z).
    bvalues
        b-values of the network's shells (S,) in s/mm², as its card has them.
    scale
        :math:`n`, by which magnitudes were divided.
    forward
        From fODF coefficients (N, C) and from each other tissue's (N, 1) to the volumes.
    kernel
        Each tissue's order 0 at b = 0.
    tissues
        ``"wm"`` and the others, in the order of the network's outputs.
    volumes
        Indices (N,) into the scan of the volumes to explain.
    inputs
        Indices into the scan of the volumes that the network sees.
    affine, name
        As of the scan.
    notes
        What was done, in words.
    orders
        Order fitted to each shell.
    parameters
        What provenance keeps.
    part
        The part (X', Y', Z') of the grid that coefficients and signal are of: all that a network
        may be shown. None for the whole grid.
    """

    coefficients: NDArray[np.float32]
    signal: NDArray[np.float32]
    b0: NDArray[np.float32]
    mask: NDArray[np.bool_]
    bvalues: tuple[float, ...]
    scale: float
    forward: Mapping[str, NDArray[np.float32]]
    kernel: Mapping[str, float]
    tissues: tuple[str, ...]
    volumes: NDArray[np.intp]
    inputs: NDArray[np.intp]
    affine: NDArray[np.float64]
    name: str = "scan"
    notes: tuple[str, ...] = ()
    orders: tuple[int, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    part: Box | None = None

    def __post_init__(self) -> None:
        for name in ("forward", "kernel", "parameters"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        shells = ", ".join(f"{b:g}" for b in self.bvalues)
        return (
            f"Prepared({self.name!r}, {self.grid}, b = {shells}, {len(self.volumes)} volumes, "
            f"{' + '.join(self.tissues)})"
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shape (X, Y, Z)."""
        x, y, z = self.mask.shape
        return x, y, z

    @property
    def box(self) -> Box:
        """The part of the grid that coefficients and signal are of."""
        x, y, z = self.grid
        return (slice(0, x), slice(0, y), slice(0, z)) if self.part is None else self.part

    @property
    def others(self) -> tuple[str, ...]:
        """The tissues besides white matter."""
        return self.tissues[1:]

    @property
    def forward_others(self) -> NDArray[np.float32]:
        """The other tissues' columns side by side (N, T)."""
        columns = [self.forward[t] for t in self.others]
        return np.concatenate([np.zeros((len(self.volumes), 0), np.float32), *columns], axis=1)

    @property
    def kernels(self) -> NDArray[np.float32]:
        """The tissues' order 0 at b = 0 as an array (1 + T,)."""
        return np.array([self.kernel[t] for t in self.tissues], np.float32)
