"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real scans, or skip where it is absent."""
    folder = Path(os.environ.get("NAPARI_DMRI_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real scans not found at {folder}; set NAPARI_DMRI_DATA")
    return folder
