"""Folders for what a training keeps on disk only while it runs, and what killed ones left behind.

A process that is killed cannot clean up. Every such folder therefore holds a file that its process
keeps locked, and the system unlocks it when the process ends, however it ends: whoever makes the
next folder deletes those whose lock is free. Process numbers would not do, as containers that share
a temporary folder number their processes apart.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO

__all__ = ["PREFIX", "Scratch", "remove_stale"]

PREFIX = "napari-dmri-training-"
LOCK = "in-use.lock"

YOUNG = 60.0
"""Seconds in which a folder without a lock may still be getting one."""


class Scratch:
    """Make a temporary folder that goes when it is closed, forgotten, or its process ends.

    Parameters
    ----------
    parent
        Where to make it; None takes the system's temporary folder.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        remove_stale(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        stream = (self.folder / LOCK).open("wb")
        _lock(stream)
        self._finalizer = weakref.finalize(self, _remove, self.folder, stream)

    def close(self) -> None:
        """Delete the folder."""
        self._finalizer()


def remove_stale(parent: str | Path | None = None) -> int:
    """Delete the folders that killed processes left behind; return how many there were.

    Folders that cannot be read or deleted, such as another user's, are left alone.
    """
    removed = 0
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < YOUNG:
                continue
            with (folder / LOCK).open("r+b") as stream:
                free = _lock(stream)
        except OSError:
            continue
        if free:
            shutil.rmtree(folder, ignore_errors=True)
            removed += not folder.exists()
    return removed


def _remove(folder: Path, stream: IO[bytes]) -> None:
    stream.close()
    # Windows keeps files that are still mapped: the next folder's maker deletes them.
    shutil.rmtree(folder, ignore_errors=True)


def _lock(stream: IO[bytes]) -> bool:
    """Lock an open file until it is closed; tell whether nobody else has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
