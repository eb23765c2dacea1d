"""Spatio-hemispherical deconvolution: networks that map shells of a scan to fODFs.

Names are looked up when they are first used, so that importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "Architecture": "architecture",
    "FodLoss": "losses",
    "LossWeights": "losses",
    "Plan": "presets",
    "Prepared": "prepared",
    "Preset": "presets",
    "ShdModel": "model",
    "SphereNetwork": "network",
    "build_network": "network",
    "choose_subset": "shell_choice",
    "prepare": "inputs",
    "preset": "presets",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
