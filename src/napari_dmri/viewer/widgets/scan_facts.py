"""A scan's facts as a small table in rich text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_dmri.scan import Scan

__all__ = ["facts_html", "obliquity", "one_line", "voxel_words"]


def voxel_words(scan: Scan) -> str:
    """Write a scan's voxel size."""
    return " × ".join(f"{size:.3g}" for size in scan.voxel_size) + " mm"


def one_line(scan: Scan) -> str:
    """Say what a scan holds in one line: shells, voxel size, and whether it is simulated."""
    words = [scan.gradients.summary(), voxel_words(scan)]
    return " | ".join([*words, "simulated"] if scan.simulated else words)


def obliquity(affine: np.ndarray) -> float:
    """Return the largest angle (degrees) between a voxel axis and the scanner axis next to it."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.rad2deg(np.arccos(np.clip(np.abs(axes).max(0), -1, 1))).max())


def facts_html(scan: Scan | None, snr: Sequence[Any] = ()) -> str:
    """Say what a scan holds: grid, orientation, and a row a shell with its SNR where known."""
    if scan is None:
        return (
            "Open a diffusion scan to begin: type its path, press Open…, drop it on the window, "
            "or take one from File &gt; Open Sample."
        )
    lines = [f"{' × '.join(str(n) for n in scan.grid)} voxels"]
    where = voxel_words(scan)
    if "orientation" in scan.metadata:
        where += f", stored as {scan.metadata['orientation']}"
    lines.append(where)
    angle = obliquity(scan.affine)
    if angle > 0.5:
        lines.append(f"oblique by {angle:.0f}°, shown unrotated")
    who = [str(scan.metadata[key]) for key in ("subject", "site") if scan.metadata.get(key)]
    if scan.simulated:
        who.append("simulated")
    lines += [" | ".join(who)] if who else []
    known = {round(s.bvalue): s for s in snr}
    rows = ["<tr><th align='left'>Shell</th><th>Volumes</th><th>Directions</th><th>SNR</th></tr>"]
    for shell in scan.gradients.shells:
        count = "" if shell.is_b0 else str(scan.gradients.distinct_directions(shell.indices))
        estimate = known.get(round(shell.bvalue))
        ratio = f"{estimate.snr:.1f}" if estimate is not None else "–"
        name = f"b={shell.bvalue:g}" if not shell.is_b0 else "b0"
        cells = "".join(f"<td align='center'>{v}</td>" for v in (shell.count, count, ratio))
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    table = f"<table cellpadding='2' width='100%'>{''.join(rows)}</table>"
    return "<br>".join(lines) + table
