"""Open napari with files and docks, ready to work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["DOCKS", "open_dock", "open_docks", "view_files"]

PLUGIN = "napari-dmri"
DOCKS = ("Scan", "SH fit", "Harmonize", "Deconvolve", "Compare", "Train")
"""The docks in the order of the work."""


def open_dock(viewer: Any, name: str) -> Any:
    """Open one dock as a tab on the right, or bring it to the front, and return its widget."""
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock.show()
    dock.raise_()
    _whole_titles(dock)
    return widget


def open_docks(viewer: Any) -> dict[str, Any]:
    """Open all docks as tabs on the right, in the order of the work, with the first in front."""
    from napari_dmri.viewer.orientation import prepare

    prepare(viewer)
    opened, widgets = {}, {}
    for name in DOCKS:
        opened[name], widgets[name] = viewer.window.add_plugin_dock_widget(
            PLUGIN, name, tabify=True
        )
    opened[DOCKS[0]].show()
    opened[DOCKS[0]].raise_()
    _whole_titles(opened[DOCKS[0]])
    return widgets


def _whole_titles(dock: Any) -> None:
    """Show the docks' tabs with their whole titles, closer together; arrows come where narrow."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QMainWindow, QTabBar

    window = dock.window()
    if not isinstance(window, QMainWindow):
        return

    direct = Qt.FindChildOption.FindDirectChildrenOnly
    for bar in window.findChildren(QTabBar, options=direct):
        bar.setElideMode(Qt.TextElideMode.ElideNone)
        bar.setUsesScrollButtons(True)
        if not bar.styleSheet():
            bar.setStyleSheet("QTabBar::tab { padding: 3px 5px; min-width: 0px; }")


def view_files(
    paths: Iterable[str | Path],
    *,
    basis: str | None = None,
    side_by_side: bool = False,
    gradients: tuple[str | Path, str | Path] | None = None,
    block: bool = True,
) -> Any:
    """Open napari with files and docks.

    Parameters
    ----------
    paths
        Scans, maps, masks, SH images or streamlines.
    basis
        Of SH files that do not name it; 4D files without gradients are then SH files.
    side_by_side
        Show the glyphs of several SH files next to each other, with one camera, each over the
        maps among the files.
    gradients
        The bval and bvec files of the 4D image among the files; None finds them beside it.
    block
        Whether to run until the window is closed; otherwise the viewer is returned at once.
    """
    import napari

    from napari_dmri.viewer.reader import reading_gradients_from, reading_sh_as

    viewer = napari.Viewer(title="Diffusion MRI")
    open_docks(viewer)
    with reading_sh_as(basis), reading_gradients_from(gradients):
        for path in paths:
            viewer.open(str(path), plugin=PLUGIN)
    if side_by_side:
        from qtpy.QtWidgets import QApplication

        from napari_dmri.viewer.glyphs.side_by_side import toggle

        # glyph layers follow their files with the next turn of the event loop
        for _ in range(3):
            QApplication.processEvents()
        toggle(viewer)
    if block:
        napari.run()
    return viewer
