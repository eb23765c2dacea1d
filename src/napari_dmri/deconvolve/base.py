"""What every deconvolution takes and gives: responses in, fODFs with maps and notes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.images import Response, ScalarImage, ShImage

__all__ = ["TISSUES", "Deconvolution", "ResponseSet"]

TISSUES = ("wm", "gm", "csf")
"""The tissues that may have a response, in the order in which they are listed and labelled."""


@dataclass(frozen=True, eq=False)
class ResponseSet(Mapping[str, "Response"]):
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
    """

    fod: ShImage
    maps: Mapping[str, ScalarImage] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    volumes: tuple[int, ...] = ()
    voxels: int = 0
    converged: int = 0

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        return self.fod.provenance
