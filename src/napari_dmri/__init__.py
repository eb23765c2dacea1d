"""Open diffusion MRI, make scanners comparable, and see what each step did.

Everything that the viewer does is a function here or in a subpackage. Names are looked up on
first use, so that importing the package loads neither torch nor Qt.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri import deconvolve, harmonize
    from napari_dmri.deconvolve.csd import csd
    from napari_dmri.deconvolve.msmt import msmt_csd
    from napari_dmri.deconvolve.peaks import find_peaks
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.deconvolve.rumba import rumba
    from napari_dmri.errors import Cancelled, DmriWarning, InputError
    from napari_dmri.images import PeakImage, Response, ScalarImage, ShImage, TensorImage
    from napari_dmri.io import (
        read_peaks,
        read_response,
        read_scan,
        read_sh,
        write_map,
        write_peaks,
        write_response,
        write_scan,
        write_sh,
    )
    from napari_dmri.scan import GradientTable, Scan, Shell
    from napari_dmri.signal.mask import brain_mask
    from napari_dmri.signal.rish import gfa, rish
    from napari_dmri.signal.sh_fit import evaluate_sh, fit_sh
    from napari_dmri.signal.tensor import fit_tensor

try:
    __version__ = version("napari-dmri")
except PackageNotFoundError:
    __version__ = "0+unknown"

_HOMES = {
    "Cancelled": "errors",
    "DmriWarning": "errors",
    "GradientTable": "scan",
    "InputError": "errors",
    "PeakImage": "images",
    "Response": "images",
    "ScalarImage": "images",
    "Scan": "scan",
    "ShImage": "images",
    "Shell": "scan",
    "TensorImage": "images",
    "brain_mask": "signal.mask",
    "csd": "deconvolve.csd",
    "deconvolve": "",
    "estimate_response": "deconvolve.response",
    "evaluate_sh": "signal.sh_fit",
    "find_peaks": "deconvolve.peaks",
    "fit_sh": "signal.sh_fit",
    "fit_tensor": "signal.tensor",
    "gfa": "signal.rish",
    "harmonize": "",
    "msmt_csd": "deconvolve.msmt",
    "read_peaks": "io",
    "read_response": "io",
    "read_scan": "io",
    "read_sh": "io",
    "rish": "signal.rish",
    "rumba": "deconvolve.rumba",
    "write_map": "io",
    "write_peaks": "io",
    "write_response": "io",
    "write_scan": "io",
    "write_sh": "io",
}

__all__ = [
    "Cancelled",
    "DmriWarning",
    "GradientTable",
    "InputError",
    "PeakImage",
    "Response",
    "ScalarImage",
    "Scan",
    "ShImage",
    "Shell",
    "TensorImage",
    "brain_mask",
    "csd",
    "deconvolve",
    "estimate_response",
    "evaluate_sh",
    "find_peaks",
    "fit_sh",
    "fit_tensor",
    "gfa",
    "harmonize",
    "msmt_csd",
    "read_peaks",
    "read_response",
    "read_scan",
    "read_sh",
    "rish",
    "rumba",
    "write_map",
    "write_peaks",
    "write_response",
    "write_scan",
    "write_sh",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
