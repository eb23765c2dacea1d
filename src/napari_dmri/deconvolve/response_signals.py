"""Keep the signal of the voxels that responses are made from, read from the scan once.

A compressed file is unpacked from its start each time it is read, and a response looks at the same
few thousand voxels many times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.scan import Scan
from napari_dmri.signal.blocks import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_dmri.deconvolve.response_voxels import Voxels

__all__ = ["Signals", "read_signals"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Signals:
    """Hold the signal of some of a scan's voxels.

    Parameters
    ----------
    scan
        The scan.
    rows
        Rows (n,) of its `Voxels`, rising.
    values
        Their signal (n, N).
    """

    scan: Scan
    rows: NDArray[np.intp]
    values: NDArray[np.float32]

    def of(self, rows: Array) -> NDArray[np.float32]:
        """Return the signal (m, N) of rows that are among those held, in the order given."""
        found: NDArray[np.float32] = self.values[np.searchsorted(self.rows, rows)]
        return found

    def as_scan(self, rows: Array, volumes: Array | None = None) -> Scan:
        """Return rows as a scan of one line of voxels, of all volumes or of some."""
        use = np.arange(self.values.shape[1]) if volumes is None else volumes
        signal = np.ascontiguousarray(self.of(rows)[:, use])[:, None, None]
        return Scan(signal, np.eye(4), self.scan.gradients.select(use), name=self.scan.name)


def read_signals(scan: Scan, voxels: Voxels, several: Iterable[Array]) -> Signals:
    """Read the signal of several sets of rows of the scan's voxels at once."""
    rows = np.unique(np.concatenate([np.asarray(rows, np.intp) for rows in several]))
    place = np.full(scan.grid, -1, np.int64)
    place.reshape(-1)[voxels.where[rows]] = np.arange(len(rows))
    values = np.empty((len(rows), scan.shape[3]), np.float32)
    for block in blocks(scan, np.arange(scan.shape[3]), place >= 0):
        planes = place[block.planes] if block.by_voxel else place[:, :, block.planes].T
        values[planes.reshape(-1)[block.inside]] = block.signal
    return Signals(scan, rows, values)
