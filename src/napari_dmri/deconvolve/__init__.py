"""Estimate fibre orientation distributions: responses, deconvolution and peaks.

Methods are listed in `METHODS`; `deconvolve` runs any of them by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
    from napari_dmri.deconvolve.csd import csd
    from napari_dmri.deconvolve.msmt import msmt_csd
    from napari_dmri.deconvolve.peaks import find_peaks
    from napari_dmri.deconvolve.registry import METHODS, Method, deconvolve
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.deconvolve.rumba import rumba

_HOMES = {
    "METHODS": "registry",
    "Deconvolution": "base",
    "Method": "registry",
    "ResponseSet": "base",
    "csd": "csd",
    "deconvolve": "registry",
    "estimate_response": "response",
    "find_peaks": "peaks",
    "msmt_csd": "msmt",
    "rumba": "rumba",
}

__all__ = [
    "METHODS",
    "Deconvolution",
    "Method",
    "ResponseSet",
    "csd",
    "deconvolve",
    "estimate_response",
    "find_peaks",
    "msmt_csd",
    "rumba",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
