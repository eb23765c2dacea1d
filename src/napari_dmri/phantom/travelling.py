"""Travelling subjects: the same simulated people scanned at several simulated sites.

In memory (`simulate_subject`), or as a BIDS-like folder with truth and a pairs table

"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.phantom.anatomy import Lesion, make_subject
from napari_dmri.phantom.composition import Grid, sample
from napari_dmri.phantom.dataset import make_travelling
from napari_dmri.phantom.presets import get_scanner
from napari_dmri.phantom.truth import Truth
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.scan import Scan

__all__ = [
    "SIZES",
    "Field",
    "TravellingSubject",
    "check_sites",
    "field_of_view",
    "make_travelling",
    "simulate_subject",
]


@dataclass(frozen=True)
class Field:
    """A field of view: its extent and centre in millimetres."""

    extent: tuple[float, float, float]
    centre: tuple[float, float, float]

    def grid(self, voxel_size: float) -> Grid:
        """Return the grid of cubic voxels that covers it."""
        if not voxel_size > 0 or min(self.extent) <= 0:
            raise InputError(
                f"A field of {self.extent} mm at voxels of {voxel_size:g} mm; all must be above 0."
            )
        x, y, z = (max(1, round(e / voxel_size)) for e in self.extent)
        affine = np.diag([voxel_size] * 3 + [1.0])
        affine[:3, 3] = np.array(self.centre) - voxel_size * (np.array([x, y, z]) - 1) / 2
        return Grid((x, y, z), affine)


SIZES: Mapping[str, Field] = MappingProxyType(
    {
        "small": Field((153.6, 182.4, 28.8), (0.0, -16.0, 24.0)),
        "medium": Field((192.0, 230.4, 96.0), (0.0, -16.0, 26.0)),
        "full": Field((192.0, 230.4, 144.0), (0.0, -16.0, 8.0)),
    }
)
"""Fields of view: ``small`` is 64 x 76 x 12 voxels of 2.4 mm, a slab through the centrum
semiovale; ``medium`` 80 x 96 x 40; ``full`` the whole head, 80 x 96 x 60."""


def field_of_view(size: str | tuple[int, int, int]) -> Field:
    """Return the field of a size's name, or of a count of 2.4 mm voxels along x, y and z.

    Raises
    ------
    InputError
        If the name is unknown or a count is not positive.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise InputError(f"Unknown size {size!r}; choose of {', '.join(SIZES)}.")
        return SIZES[size]
    if len(size) != 3 or min(size) < 1:
        raise InputError(f"A size of {tuple(size)} voxels; expected three counts of at least 1.")
    x, y, z = (2.4 * n for n in size)
    return Field((x, y, z), (0.0, -16.0, 24.0))


def check_sites(sites: Sequence[str]) -> None:
    """Refuse no sites, unknown ones and one that is given twice."""
    if isinstance(sites, str) or not sites or len(set(sites)) != len(sites):
        raise InputError(f"The sites are {sites!r}; at least one is needed, and each only once.")
    for name in sites:
        get_scanner(name)


@dataclass(frozen=True, eq=False)
class TravellingSubject:
    """Hold one simulated subject's scans.

    Parameters
    ----------
    subject
        Its label, ``sub-01``.
    scans, repeats
        One scan a site, and a second one with other noise: the floor of any method.
    truth
        The truth on the first site's grid.
    truths
        The truth on each site's grid; sites with the same voxel size share one.
    """

    subject: str
    scans: Mapping[str, Scan]
    repeats: Mapping[str, Scan]
    truth: Truth
    truths: Mapping[str, Truth]


def simulate_subject(
    index: int,
    *,
    sites: Sequence[str] = ("ge_st", "prisma_st"),
    size: str | tuple[int, int, int] = "small",
    seed: int = 7,
    lesion: Lesion | None = None,
    repeats: bool = True,
    progress: Progress | None = None,
) -> TravellingSubject:
    """Simulate one subject at some sites, in memory.

    Parameters
    ----------
    index
        Which subject, from 0 (``sub-01``).
    sites
        Names of presets.
    size
        ``small``, ``medium`` or ``full``, or a count of 2.4 mm voxels along each axis.
    seed
        The population; the same seed gives the same bytes.
    lesion
        A lesion that training subjects do not have.
    repeats
        Whether to make the repeat scans as well.
    progress
        Told between blocks of voxels.

    Raises
    ------
    InputError
        If a site or the size is unknown, no site is given, or one is given twice.
    """
    check_sites(sites)
    subject = make_subject(index, seed).with_lesion(lesion)
    view = field_of_view(size)
    scanners = [get_scanner(name) for name in sites]
    by_voxel: dict[float, Truth] = {}
    scans: dict[str, Scan] = {}
    again: dict[str, Scan] = {}
    truths: dict[str, Truth] = {}
    for i, site in enumerate(scanners):
        start, stop = i / len(scanners), (i + 1) / len(scanners)
        middle = start + 0.4 * (stop - start)
        prefix = f"{subject.label} {site.name}: "
        if site.voxel_size not in by_voxel:
            grid = view.grid(site.voxel_size)
            report = part(progress, start, middle, prefix)
            by_voxel[site.voxel_size] = Truth(subject, sample(subject, grid, progress=report))
        truth = truths[site.name] = by_voxel[site.voxel_size]
        report = part(progress, middle, stop, prefix)
        clean = site.noise_free(subject, truth.composition, progress=report)
        noise = [seed, index]
        scans[site.name] = site.scan(subject, truth.composition, seed=[*noise, 0], clean=clean)
        if repeats:
            again[site.name] = site.scan(subject, truth.composition, seed=[*noise, 1], clean=clean)
    return TravellingSubject(subject.label, scans, again, truths[sites[0]], truths)
