"""The manifest is valid, everything it names exists, and no dock loads torch."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_dmri
from napari_dmri.viewer.launch import DOCKS

MANIFEST = Path(napari_dmri.__file__).with_name("napari.yaml")
COMMANDS = PluginManifest.from_file(MANIFEST).contributions.commands


def test_it_validates():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.display_name == "Diffusion MRI"


def test_the_top_level_links_lead_to_the_package():
    root = Path(__file__).resolve().parents[2]
    assert (root / "napari.yaml").resolve() == MANIFEST.resolve()
    assert (root / "sample_data").resolve() == (MANIFEST.parent / "sample_data").resolve()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.id)
def test_every_command_exists(command):
    module, name = command.python_name.split(":")
    assert callable(getattr(import_module(module), name))


def test_docks_are_tabs_on_the_right_in_the_order_of_the_work():
    widgets = PluginManifest.from_file(MANIFEST).contributions.widgets
    assert [w.display_name for w in widgets] == list(DOCKS)
    assert all(w.tabify and w.default_dock_area == "right" for w in widgets)


@pytest.mark.viewer
def test_opening_docks_does_not_load_torch(tmp_path, scan_files):
    code = (
        "import sys, napari\n"
        "viewer = napari.Viewer(show=False)\n"
        f"viewer.open({str(scan_files / 'sub-01_dwi.nii.gz')!r}, plugin='napari-dmri')\n"
        f"for dock in {DOCKS!r}:\n"
        "    viewer.window.add_plugin_dock_widget('napari-dmri', dock, tabify=True)\n"
        "    print(dock, [m for m in ('torch', 'dipy') if m in sys.modules])\n"
        "viewer.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, cwd=tmp_path
    )
    expected = [f"{dock} []" for dock in DOCKS]
    assert done.stdout.splitlines()[-len(DOCKS) :] == expected, done.stdout + done.stderr[-2000:]
