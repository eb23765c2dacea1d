"""What trained models share: files that hold tensors and a card, never code."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dmri.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["load_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'napari_dmri.training' has no attribute {name!r}")
    return getattr(importlib.import_module("napari_dmri.training.checkpoint"), name)
