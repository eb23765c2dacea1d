"""Open diffusion MRI, make scanners comparable, and see what each step did.

Everything that the viewer does is a function here or in a subpackage. Names are looked up on
first use, so that importing the package loads neither torch nor Qt.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri import harmonize
    from napari_dmri.errors import Cancelled, DmriWarning, InputError
    from napari_dmri.images import ScalarImage, ShImage, TensorImage
    from napari_dmri.io import (
        read_scan,
        read_sh,
        write_map,
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
    "Scan": "scan",
    "ScalarImage": "images",
    "ShImage": "images",
    "Shell": "scan",
    "TensorImage": "images",
    "brain_mask": "signal.mask",
    "evaluate_sh": "signal.sh_fit",
    "fit_sh": "signal.sh_fit",
    "fit_tensor": "signal.tensor",
    "gfa": "signal.rish",
    "harmonize": "",
    "read_scan": "io",
    "read_sh": "io",
    "rish": "signal.rish",
    "write_map": "io",
    "write_scan": "io",
    "write_sh": "io",
}

__all__ = [
    "Cancelled",
    "DmriWarning",
    "GradientTable",
    "InputError",
    "ScalarImage",
    "Scan",
    "ShImage",
    "Shell",
    "TensorImage",
    "brain_mask",
    "evaluate_sh",
    "fit_sh",
    "fit_tensor",
    "gfa",
    "harmonize",
    "read_scan",
    "read_sh",
    "rish",
    "write_map",
    "write_scan",
    "write_sh",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
