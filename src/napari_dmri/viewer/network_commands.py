"""What the Deconvolve dock does with networks as commands, for the palette and the menus."""

from __future__ import annotations

from typing import Any

from napari.utils.notifications import show_info

from napari_dmri.viewer.commands import dock_named, press, select_scan

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
    if not select_scan(dock.scans):
        return
    # What is at work keeps its method on show; the bar says that it must be cancelled first.
    if not dock.run_bar.running:
        dock.choose_fit(USUAL)
    press(dock.run_bar)


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
    return dock_named("Deconvolve")
