"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SLOW = ("viewer", "harmonize", "phantom", "deconvolve")
"""Folders whose files take longest. They go first: two processes that share the files of tests
then end together, with many short files to even them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow folders first."""

    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return SLOW.index(folder) if folder in SLOW else len(SLOW)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real scans, or skip where it is absent."""
    folder = Path(os.environ.get("NAPARI_DMRI_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real scans not found at {folder}; set NAPARI_DMRI_DATA")
    return folder
