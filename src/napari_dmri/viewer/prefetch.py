"""Unpack a compressed scan in the background, so that moving through its volumes never waits."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np

from napari_dmri.device import free_memory
from napari_dmri.errors import InputError
from napari_dmri.scan import Scan

__all__ = ["prefetch"]


def prefetch(scan: Scan) -> threading.Thread | None:
    """Touch one voxel of every volume in order, where the whole scan fits a quarter of memory.

    Returns the thread at work, or None where there is nothing to do.
    """
    if not hasattr(scan.data, "nbytes") or isinstance(scan.data, np.ndarray):
        return None
    if scan.data.nbytes > free_memory() / 4:
        return None
    thread = threading.Thread(target=_touch, args=(scan,), daemon=True, name="dmri prefetch")
    thread.start()
    return thread


def _touch(scan: Scan) -> None:
    with suppress(InputError, OSError):
        for volume in range(scan.shape[3]):
            scan.data[0, 0, 0, volume]
