"""Estimate fibre orientation distributions: responses, deconvolution and peaks.

Methods are listed in `METHODS`; `deconvolve` runs any of them by its name.
"""

from __future__ import annotations

# Not looked up lazily: ``csd`` and ``rumba`` are functions here and modules beneath, and whichever
# is set last has the name.
from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.csd import csd
from napari_dmri.deconvolve.msmt import msmt_csd
from napari_dmri.deconvolve.peaks import find_peaks
from napari_dmri.deconvolve.registry import METHODS, Method, deconvolve
from napari_dmri.deconvolve.response import average_responses, estimate_response
from napari_dmri.deconvolve.rumba import rumba

__all__ = [
    "METHODS",
    "Deconvolution",
    "Method",
    "ResponseSet",
    "average_responses",
    "csd",
    "deconvolve",
    "estimate_response",
    "find_peaks",
    "msmt_csd",
    "rumba",
]
