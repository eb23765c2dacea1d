"""Fixtures that several test modules share."""

from __future__ import annotations

import atexit
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SLOW = ("viewer", "harmonize", "phantom", "deconvolve")
"""Folders whose files take longest. They go first: two processes that share the files of tests
then end together, with many short files to even them out."""


def pytest_configure() -> None:
    """Give each process of tests but the first a virtual screen of its own.

    Windows on one screen share its clipboard, pointer and focus.
    """
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if first or os.environ.get("ON_SCREEN") != "virtual":
        return
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # registered before Qt is imported, so that it ends after Qt has let go of the screen
    atexit.register(server.terminate)
    os.close(writing)
    with os.fdopen(reading) as stream:
        os.environ["DISPLAY"] = f":{stream.readline().strip()}"
    os.environ.pop("XAUTHORITY", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow folders first."""

    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return SLOW.index(folder) if folder in SLOW else len(SLOW)

    items.sort(key=turn)


@pytest.fixture
def quick_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread simulated crossings' directions in fewer steps, which takes most of their time."""
    from dipy.core import sphere

    spread = sphere.disperse_charges
    monkeypatch.setattr(sphere, "disperse_charges", lambda start, _: spread(start, 30))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real scans, or skip where it is absent."""
    folder = Path(os.environ.get("NAPARI_DMRI_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real scans not found at {folder}; set NAPARI_DMRI_DATA")
    return folder
