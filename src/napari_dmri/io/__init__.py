"""Read and write scans, maps, SH images, masks and streamlines; one file a format.

Frames and units are converted here, both ways, so that nothing above knows about any but the
scanner's RAS frame, s/mm² and millimetres. Names are looked up on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.io.detect import classify, what_is_missing
    from napari_dmri.io.maps import read_labels, read_map, read_mask, write_map
    from napari_dmri.io.peaks import read_peaks, write_peaks
    from napari_dmri.io.responses import read_response, read_responses, write_response
    from napari_dmri.io.scans import read_scan, write_scan
    from napari_dmri.io.sh_images import open_sh, read_sh, write_sh
    from napari_dmri.io.streamlines import read_streamlines

_HOMES = {
    "classify": "detect",
    "open_sh": "sh_images",
    "read_labels": "maps",
    "read_map": "maps",
    "read_mask": "maps",
    "read_peaks": "peaks",
    "read_response": "responses",
    "read_responses": "responses",
    "read_scan": "scans",
    "read_sh": "sh_images",
    "read_streamlines": "streamlines",
    "what_is_missing": "detect",
    "write_map": "maps",
    "write_peaks": "peaks",
    "write_response": "responses",
    "write_scan": "scans",
    "write_sh": "sh_images",
}

__all__ = [
    "classify",
    "open_sh",
    "read_labels",
    "read_map",
    "read_mask",
    "read_peaks",
    "read_response",
    "read_responses",
    "read_scan",
    "read_sh",
    "read_streamlines",
    "what_is_missing",
    "write_map",
    "write_peaks",
    "write_response",
    "write_scan",
    "write_sh",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
