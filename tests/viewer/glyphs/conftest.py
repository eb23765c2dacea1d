"""A viewer with glyph layers, and fODFs that are known."""

from __future__ import annotations

import gc
from unittest.mock import patch

import numpy as np
import pytest

from napari_dmri.images import ShImage
from napari_dmri.sphere.harmonics import degrees, design_matrix


def fodf(directions, order=8, sharpness=0.02):
    """Return smoothed deltas along directions (N, 3) as SH (N, C)."""
    el = degrees(order)
    return design_matrix(np.atleast_2d(directions), order) * np.exp(-el * (el + 1) * sharpness)


def field_of(direction, shape=(5, 5, 5), affine=None, order=8):
    """Return an SH image whose every voxel has one fibre along a direction in RAS."""
    coefficients = np.broadcast_to(fodf(direction, order)[0], (*shape, len(degrees(order))))
    affine = np.eye(4) if affine is None else affine
    return ShImage(coefficients.astype(np.float32), affine, name="fod")


@pytest.fixture(scope="module")
def window(qapp):
    """Return one viewer for a whole module: opening and closing one takes a second."""
    import napari
    from app_model import Application
    from napari._app_model._app import NapariApplication
    from napari._qt._qapp_model.qactions import init_qactions
    from napari._qt.threads.status_checker import StatusChecker
    from napari.plugins import _initialize_plugins

    # as napari's own make_napari_viewer does: an application model of its own, no status thread
    app = NapariApplication("glyphs")
    _initialize_plugins.cache_clear()
    init_qactions.cache_clear()
    with (
        patch.object(NapariApplication, "get_app_model", return_value=app),
        patch.object(StatusChecker, "start", lambda self: None),
    ):
        viewer = napari.Viewer(show=True, show_welcome_screen=False)
        yield viewer
        with patch.object(viewer.window._qt_window, "_save_current_window_settings"):
            viewer.close()
    Application.destroy("glyphs")
    _initialize_plugins.cache_clear()
    init_qactions.cache_clear()
    gc.collect()


@pytest.fixture
def clean(window, qtbot):
    """Return the module's viewer as it was when it was new."""
    window.window.resize(1200, 800)
    window.canvas.grid.enabled = False
    window.dims.ndisplay = 2
    yield window
    window.layers.clear()
    window.canvas.grid.enabled = False
    window.canvas.grid.shape = (-1, -1)
    window.dims.ndisplay = 2
    window.dims.order = tuple(range(window.dims.ndim))
    window.scene.camera.angles = (0, 0, 90)
    window.theme = "dark"


@pytest.fixture
def draw(viewer, qtbot):
    """Return a function that shows glyphs of an image alone and returns the layer."""
    from napari_dmri.viewer.glyphs.show import show_glyphs
    from napari_dmri.viewer.orientation import CONVENTIONS

    def show(image, **changes):
        viewer.scene.camera.orientation = CONVENTIONS["radiological"]
        layer = show_glyphs(viewer, image, **changes)
        # the first layer's controls make the canvas narrower
        qtbot.wait(20)
        viewer.reset_view()
        return layer

    return show


@pytest.fixture
def node_of(viewer):
    """Return a function from a layer to its visual."""
    return lambda layer: viewer.window._qt_viewer.canvas.layer_to_visual[layer].node


def spread(picture, colour=None):
    """Return the mean colour (0 to 1), and the standard deviations down and across, of a glyph."""
    rgb = picture[..., :3].astype(float) / 255
    lit = rgb.sum(-1) > 0.15
    rows, columns = np.nonzero(lit)
    return rgb[lit].mean(0), rows.std(), columns.std()
