"""What trained models share: files that hold tensors and a card, never code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.training.checkpoint import load_checkpoint, save_checkpoint

_HOMES = {"load_checkpoint": "checkpoint", "save_checkpoint": "checkpoint"}

__all__ = ["load_checkpoint", "save_checkpoint"]

__getattr__, __dir__ = exports(__name__, _HOMES)
