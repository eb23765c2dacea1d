"""Simulated subjects with ground truth that travel between simulated scanners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.phantom.anatomy import Lesion, Subject, make_subject
    from napari_dmri.phantom.presets import SITES, get_scanner
    from napari_dmri.phantom.scanner import Scanner
    from napari_dmri.phantom.travelling import (
        SIZES,
        TravellingSubject,
        make_travelling,
        simulate_subject,
    )
    from napari_dmri.phantom.truth import Truth

_HOMES = {
    "SITES": "presets",
    "SIZES": "travelling",
    "Lesion": "anatomy",
    "Scanner": "scanner",
    "Subject": "anatomy",
    "TravellingSubject": "travelling",
    "Truth": "truth",
    "make_subject": "anatomy",
    "make_travelling": "dataset",
    "get_scanner": "presets",
    "simulate_subject": "travelling",
}

__all__ = [
    "SITES",
    "SIZES",
    "Lesion",
    "Scanner",
    "Subject",
    "TravellingSubject",
    "Truth",
    "get_scanner",
    "make_subject",
    "make_travelling",
    "simulate_subject",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
