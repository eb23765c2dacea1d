"""Simulated sites, modelled on the harmonization challenge's protocols, and kinds of gap.

The protocols (voxel size, directions, b-values, TE) are those of the 2017/2018 challenge data; how
far the sites lie apart is tuned to what scanner studies report, and measured in the docs.
"""

from __future__ import annotations

from dataclasses import replace

from napari_dmri.errors import InputError
from napari_dmri.phantom.scanner import Scanner

__all__ = ["GAPS", "SITES", "get_scanner"]

_GE = Scanner(
    "ge_st",
    directions=1,
    te=89,
    tr=11500,
    bvalue_scale=1.02,
    nonlinearity=0.04,
    psf=(2.5, 2.9, 1.9),
    bias=0.25,
    gain=1.6,
    snr=15.5,
    noise_variation=0.35,
)
_PRISMA = Scanner(
    "prisma_st",
    directions=2,
    te=89,
    tr=3800,
    bvalue_scale=1.0,
    nonlinearity=0.01,
    psf=(0.7, 1.0, 0.5),
    bias=0.35,
    gain=1.0,
    snr=13.5,
    noise_variation=0.5,
)
_CONNECTOM = Scanner(
    "connectom_st",
    directions=3,
    te=89,
    tr=4500,
    bvalue_scale=1.01,
    nonlinearity=-0.10,
    psf=(0.7, 1.0, 0.5),
    bias=0.45,
    gain=1.2,
    snr=16,
    noise_variation=0.6,
)
_ADVANCED = replace(
    _CONNECTOM,
    name="connectom_sa",
    voxel_size=1.2,
    shells=((1200.0, 60),),
    directions=4,
    te=68,
    tr=5400,
    psf=(0.5, 0.7, 0.3),
    snr=11,
)
_TISSUE = ("point spread", "TE and TR", "noise")

GAPS: dict[str, tuple[str, ...]] = {
    "gap_global": ("b-value scale",),
    "gap_tissue": _TISSUE,
    "gap_spatial": ("gradient non-linearity",),
}
"""Sites that differ from ``prisma_st`` by one kind of cause only."""

_FAR = replace(
    _GE, bvalue_scale=0.93, nonlinearity=-0.14, te=105, tr=11500, psf=(3.0, 3.4, 2.2), snr=9
)

SITES: dict[str, Scanner] = {
    "ge_st": _GE,
    "prisma_st": _PRISMA,
    "connectom_st": _CONNECTOM,
    "connectom_sa": _ADVANCED,
    "research_hr": replace(
        _PRISMA,
        name="research_hr",
        voxel_size=2.0,
        shells=((1000.0, 30), (3000.0, 64)),
        b0=6,
        directions=5,
        te=80,
        snr=18,
    ),
    "clinical": replace(
        _GE,
        name="clinical",
        voxel_size=2.0,
        shells=((1200.0, 30),),
        b0=4,
        directions=6,
        te=89,
        snr=13,
    ),
    **{name: _PRISMA.with_effects_of(_FAR, *effects, name=name) for name, effects in GAPS.items()},
}
"""Every preset by its name; the three ``_st`` and ``_sa`` sites take a ``+b3000`` suffix."""


def get_scanner(name: str) -> Scanner:
    """Return a preset by its name.

    ``ge_st+b3000`` adds a shell of as many directions at b = 3000 s/mm².

    Raises
    ------
    InputError
        If no preset has the name.
    """
    base, plus, shell = name.partition("+")
    if base not in SITES or (plus and shell != "b3000"):
        raise InputError(
            f"Unknown site {name!r}; choose of {', '.join(SITES)}, with +b3000 for a second shell."
        )
    found = SITES[base]
    if not plus:
        return found
    if any(b == 3000 for b, _ in found.shells):
        raise InputError(f"Site {base!r} has a shell at b=3000 already; leave out +b3000.")
    return replace(found, name=name, shells=(*found.shells, (3000.0, found.shells[0][1])))
