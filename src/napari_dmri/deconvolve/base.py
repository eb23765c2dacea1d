"""What every deconvolution takes and gives: responses in, fODFs with maps and notes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_dmri.images import TISSUES, ResponseSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_dmri.images import ScalarImage, ShImage

__all__ = ["TISSUES", "Deconvolution", "ResponseSet"]


@dataclass(frozen=True, eq=False)
class Deconvolution:
    r"""Hold what a deconvolution found.

    Parameters
    ----------
    fod
        White matter's fODF, in MRtrix3's convention: :math:`\sqrt{4\pi} f_{00}` is the fibre
        density in units of the response.
    maps
        Maps by name: ``"residual"`` (root mean square of measured minus predicted signal over the
        mean b0) and, with more tissues, ``"gm"`` and ``"csf"`` (the coefficient :math:`f_{00}`, as
        MRtrix3 writes them).
    notes
        What was used and what was found, in words; the first says which volumes were used.
    volumes
        Indices of the volumes that were used.
    voxels, converged
        How many voxels were deconvolved, and how many of them reached the tolerance.
    axes
        Fibre axes (D, 3) of the map ``"vertices"``, where a method keeps it.
    """

    fod: ShImage
    maps: Mapping[str, ScalarImage] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    volumes: tuple[int, ...] = ()
    voxels: int = 0
    converged: int = 0
    axes: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        maps = f", maps {', '.join(self.maps)}" if self.maps else ""
        return f"Deconvolution({self.fod!r}{maps}; {self.voxels} voxels)"

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        return self.fod.provenance
