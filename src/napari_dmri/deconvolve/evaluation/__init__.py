"""Compare deconvolution methods on simulated subjects whose fibres are known.

`evaluate` scores fibre directions, `track_bundles` what tractography makes of them, and
`probe_lesion` what happens in a lesion that no training subject has. Nothing here is needed to
deconvolve a scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.deconvolve.evaluation.cells import evaluate, read_cells
    from napari_dmri.deconvolve.evaluation.lesion import probe_lesion
    from napari_dmri.deconvolve.evaluation.plan import Settings
    from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS
    from napari_dmri.deconvolve.evaluation.tables import result_tables, write_results
    from napari_dmri.deconvolve.evaluation.tracking import track_bundles

_HOMES = {
    "PROTOCOLS": "protocols",
    "Settings": "plan",
    "evaluate": "cells",
    "probe_lesion": "lesion",
    "read_cells": "cells",
    "result_tables": "tables",
    "track_bundles": "tracking",
    "write_results": "tables",
}

__all__ = [
    "PROTOCOLS",
    "Settings",
    "evaluate",
    "probe_lesion",
    "read_cells",
    "result_tables",
    "track_bundles",
    "write_results",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
