"""The docks work with the other Qt binding as well, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.viewer

SMOKE = """
import napari
from qtpy import API_NAME
from napari_dmri.viewer.driving import press, wait_for
from napari_dmri.viewer.launch import open_docks

viewer = napari.Viewer()
docks = open_docks(viewer)
viewer.open({path!r}, plugin="napari-dmri")
press(docks["SH fit"].run_bar)
names = [layer.name for layer in viewer.layers]
assert any(name.endswith("colour FA") for name in names), names
print(API_NAME, viewer.screenshot(canvas_only=False).shape)
viewer.close()
"""


def test_the_docks_work_with_pyside6(scan_files) -> None:
    pytest.importorskip("PySide6", reason="the other Qt binding is not installed here")
    code = SMOKE.format(path=str(scan_files / "sub-01_dwi.nii.gz"))
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "QT_API": "pyside6", "NAPARI_CONFIG": ""},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "PySide6" in answer.stdout
