"""What the Deconvolve dock does with networks as commands, for the palette and the menus."""

from __future__ import annotations

from typing import Any

import napari
from napari.utils.notifications import show_info

from napari_dmri.viewer.launch import open_dock

__all__ = [
    "finish_fit",
    "fit_network",
    "network_beside_csd",
    "open_network",
    "pause_fit",
    "save_fitted_network",
]

USUAL = "shd-s-tv"
"""The network that is fitted where none is chosen."""


def fit_network() -> None:
    """Fit a network to the selected scan: the one chosen in the Deconvolve dock, else SHD-S-TV."""
    dock = _dock()
    dock.scans.choose(dock.viewer.layers.selection.active)
    if dock.scans.layer is None:
        show_info("No scan is open; open one first (File > Open File, or the Scan dock).")
    elif dock.run_bar.running:
        show_info("A run is at work; cancel it first.")
    else:
        dock.choose_fit(USUAL)
        words = dock.run_bar.press()
        if words:
            show_info(words)


def pause_fit() -> None:
    """Pause the fit that is at work; again, go on."""
    _at_work(lambda dock: dock.fit.toggle_pause())


def finish_fit() -> None:
    """End the fit that is at work, and make the result of the best so far."""
    _at_work(lambda dock: dock.fit.finish_now())


def save_fitted_network() -> None:
    """Choose a file and save the network that was fitted last."""
    dock = _dock()
    if dock.fit.model is None:
        show_info("No network was fitted yet; fit one with the Deconvolve dock first.")
    else:
        dock.fit.save_button.click()


def open_network() -> None:
    """Choose the file of a network that deconvolves."""
    _dock().models.open_button.click()


def network_beside_csd() -> None:
    """Show the fODFs of the network and of (MSMT-)CSD side by side."""
    _dock().beside_classical()


def _at_work(do: Any) -> None:
    dock = _dock()
    if dock.fit.at_work:
        do(dock)
    else:
        show_info("No fit is at work.")


def _dock() -> Any:
    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("No napari window is open.")
    return open_dock(viewer, "Deconvolve")
