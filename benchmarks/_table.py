"""Write figures as rows of a TSV file, each as soon as it is known."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    *("device", "threads", "part", "name", "seconds", "cpu_seconds", "added_gb", "scaled_seconds"),
    *("peer", "peer_seconds", "peer_gb", "ratio", "memory_ratio", "voxels", "rate", "f1"),
)


class Table:
    """Hold a file that rows are added to; without a path they are dropped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\t".join(COLUMNS) + "\n", encoding="utf-8")

    def add(self, **row: Any) -> None:
        """Add a row, with its ratios to a peer where both have figures."""
        if self.path is None:
            return
        taken = row.get("scaled_seconds") or row.get("seconds")
        for name, peer, value in (
            ("ratio", row.get("peer_seconds"), taken),
            ("memory_ratio", row.get("peer_gb"), row.get("added_gb")),
        ):
            if peer and value:
                row[name] = peer / value
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
            writer.writerow({name: _short(value) for name, value in row.items()})


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
