"""Every action of the docks as a command, so that the palette and the menus find it."""

from __future__ import annotations

from typing import Any

import napari
from napari.utils.notifications import show_info

from napari_dmri.viewer import orientation

__all__ = [
    "axial",
    "check_quality",
    "compare_harmonizers",
    "coronal",
    "dock_named",
    "load",
    "make_mask",
    "neurological",
    "open_all_docks",
    "press",
    "radiological",
    "run_deconvolution",
    "run_fit",
    "sagittal",
    "select_scan",
    "show_colour_fa",
]


def _viewer() -> Any:
    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("No napari window is open.")
    return viewer


def axial() -> None:
    """Show axial slices."""
    orientation.set_plane(_viewer(), "axial")


def coronal() -> None:
    """Show coronal slices."""
    orientation.set_plane(_viewer(), "coronal")


def sagittal() -> None:
    """Show sagittal slices."""
    orientation.set_plane(_viewer(), "sagittal")


def radiological() -> None:
    """Show the right side of the body on the left of the window."""
    orientation.set_convention(_viewer(), "radiological")


def neurological() -> None:
    """Show the right side of the body on the right of the window."""
    orientation.set_convention(_viewer(), "neurological")


def open_all_docks() -> None:
    """Open the docks as tabs on the right."""
    from napari_dmri.viewer.launch import open_docks

    open_docks(_viewer())


def load() -> None:
    """Choose a file and open it, with the Scan dock beside it."""
    dock_named("Scan").browse()


def check_quality() -> None:
    """Run the checks of the Scan dock on the selected scan."""
    dock = dock_named("Scan")
    if select_scan(dock.scans):
        press(dock.run_bar)


def make_mask() -> None:
    """Make a brain mask of the selected scan."""
    dock = dock_named("Scan")
    if select_scan(dock.scans):
        press(dock.mask_row)


def show_colour_fa() -> None:
    """Show colour FA of the selected scan, for a look at its orientation."""
    dock = dock_named("Scan")
    if select_scan(dock.scans):
        dock.colour_button.click()


def run_fit() -> None:
    """Fit SH and tensor to the selected scan with the settings of the SH fit dock."""
    dock = dock_named("SH fit")
    if select_scan(dock.scans):
        press(dock.run_bar)


def run_deconvolution() -> None:
    """Estimate the fibre orientations of the selected scan as the Deconvolve dock is set."""
    dock = dock_named("Deconvolve")
    if select_scan(dock.scans):
        press(dock.run_bar)


def compare_harmonizers() -> None:
    """Compare harmonization methods on the selected scan, as the Harmonize dock is set."""
    dock = dock_named("Harmonize")
    dock.compare.expand()
    dock.ensureWidgetVisible(dock.compare)
    if select_scan(dock.scan_picker):
        press(dock.compare.run_bar)


def dock_named(name: str) -> Any:
    """Open a dock of the current window, and return it."""
    from napari_dmri.viewer.launch import open_dock

    return open_dock(_viewer(), name)


def press(button: Any) -> None:
    """Start what a button starts, or say why not; never cancel what is at work."""
    words = button.press()
    if words:
        show_info(words)


def select_scan(picker: Any) -> bool:
    """Put the active layer into a picker where it fits; tell whether any layer is chosen."""
    picker.choose(_viewer().layers.selection.active)
    if picker.layer is None:
        show_info("No scan is open; open one first (File > Open File, or the Scan dock).")
    return picker.layer is not None
