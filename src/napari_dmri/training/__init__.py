"""Training: stages, batches of many subjects, a loop that resumes, and files of trained models.

What trained models share on disk holds tensors and a card, never code. Everything here runs with
torch, NumPy, SciPy, nibabel and safetensors alone, and torch is imported when a training begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.training.checkpoint import load_checkpoint, save_checkpoint
    from napari_dmri.training.loop import train
    from napari_dmri.training.parts import Batch, Batches, Event, Fit, Switch
    from napari_dmri.training.patches import Patches, Tiles
    from napari_dmri.training.stages import Stage
    from napari_dmri.training.store import Store

_HOMES = {
    "Batch": "parts",
    "Batches": "parts",
    "Event": "parts",
    "Fit": "parts",
    "Patches": "patches",
    "Stage": "stages",
    "Store": "store",
    "Switch": "parts",
    "Tiles": "patches",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "train": "loop",
}

__all__ = [
    "Batch",
    "Batches",
    "Event",
    "Fit",
    "Patches",
    "Stage",
    "Store",
    "Switch",
    "Tiles",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
