"""Lobes thinner than a pixel: still drawn, about as large as they are, in their colours."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.images import ShImage
from napari_dmri.viewer.orientation import PLANES

from .conftest import field_of, fodf

pytestmark = pytest.mark.viewer


@pytest.fixture
def viewer(clean):
    """Return the viewer that this module's tests share, smaller: there are many pictures."""
    clean.window.resize(760, 560)
    return clean


@pytest.fixture
def pixels(viewer, qtbot):
    """Return a function that draws the canvas at once."""

    def shot():
        qtbot.wait(5)
        return viewer.window._qt_viewer.canvas._scene_canvas.render()

    return shot


SLANTED = np.array([1, 0.6, 0.4]) / np.linalg.norm([1, 0.6, 0.4])
FIBRES = {"x": np.eye(3)[0], "y": np.eye(3)[1], "z": np.eye(3)[2], "slanted": SLANTED}
LOST = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis that a view looks along."""


def within(picture, zoom, most=19):
    """Return the part of a picture that shows whole voxels around the middle (P, 3), 0 to 1."""
    height, width = picture.shape[:2]
    n = int(int(min(height / 2 - 4, width / 2 - 4, most * zoom) // zoom) * zoom)
    part = picture[height // 2 - n : height // 2 + n, width // 2 - n : width // 2 + n, :3]
    return part.reshape(-1, 3) / 255


def covered(part):
    return float((part.max(-1) > 0.08).mean())


@pytest.mark.parametrize("plane", PLANES)
def test_small_glyphs_cover_what_large_ones_do(viewer, draw, pixels, node_of, plane):
    """As a share of the area of a glyph drawn large and fine; end on it is a dot of a pixel."""
    for name, direction in FIBRES.items():
        layer = draw(field_of(direction, (40, 40, 40)), opacity=1)
        layer.restyle(lighting=0)
        viewer.dims.order = PLANES[plane]
        viewer.reset_view()
        end_on = np.abs(direction[LOST[plane]]) == 1
        viewer.scene.camera.zoom = 64
        layer.restyle(detail=16)
        area = covered(within(pixels(), 64))
        assert 0.01 < area < 0.25
        layer.restyle(detail=None)
        for zoom in (4, 6, 9, 16):
            viewer.scene.camera.zoom = zoom
            for coarse in (False, True) if zoom < 9 else (False,):
                layer.restyle(detail=2 if coarse else None)
                part = within(pixels(), zoom)
                case = f"{name} at {zoom} pixels, {node_of(layer).frequency}"
                most = max(4 * area, 2.5 / zoom**2)
                least = 0.3 * area if coarse else 0.55 * area
                assert least < covered(part) < most, case
                seen = part[part.max(-1) > 0.3].mean(0)
                colour = seen / np.linalg.norm(seen)
                assert colour @ np.abs(direction) > (0.8 if end_on or coarse else 0.93), case
        viewer.layers.remove(layer)


def test_nothing_stays_nothing_however_small(viewer, draw, pixels):
    """Zeros, NaN, and hidden negative lobes are not made thick; tiny amplitudes are no dots."""
    coefficients = np.tile(fodf((0, 1, 0))[0], (40, 40, 1, 1)).astype(np.float32)
    coefficients[:20] = 0
    coefficients[:10, 20:] = np.nan
    coefficients[10:20, 20:] = -1e-4 * fodf((0, 1, 0))[0]
    layer = draw(ShImage(coefficients, np.eye(4), name="half"))
    layer.restyle(lighting=0)
    for zoom in (4, 7, 12):
        viewer.scene.camera.zoom = zoom
        for negative in (True, False):
            layer.restyle(negative=negative)
            lit = pixels()[..., :3].max(-1) > 20
            middle = lit.shape[1] // 2
            # radiological: the first half of x lies on the right of the screen
            assert lit[:, : middle - zoom].any()
            assert not lit[:, middle + zoom :].any()
    layer.restyle(negative=False)
    only = np.zeros((5, 5, 1, 6), np.float32)
    only[..., 0] = -1
    viewer.layers.clear()
    draw(ShImage(only, np.eye(4), name="negative")).restyle(negative=False)
    viewer.scene.camera.zoom = 6
    assert pixels()[..., :3].max() == 0


def test_large_glyphs_are_not_thickened(viewer, draw, pixels, node_of):
    layer = draw(field_of((0, 1, 0), (6, 6, 1)))
    viewer.scene.camera.zoom = 8
    pixels()
    assert node_of(layer).thickened > 0.5
    viewer.scene.camera.zoom = 40
    pixels()
    assert node_of(layer).thickened == 0


def test_glyphs_in_3d_do_not_vanish_either(viewer, draw, pixels):
    layer = draw(field_of((0, 1, 0), (30, 30, 3)))
    layer.restyle(extent="slab", lighting=0)
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.scene.camera.angles = (0, 0, 0)
    for zoom in (5, 8):
        viewer.scene.camera.zoom = zoom
        green = pixels()[..., 1] > 100
        assert 0.05 < green.sum() / (30 * zoom) ** 2 < 0.5


@pytest.mark.parametrize("amplitude", [1e-30, 1e30])
def test_any_amplitude_is_thickened_alike(viewer, draw, pixels, amplitude):
    image = field_of((0, 1, 0), (30, 30, 1))
    counts = []
    for factor in (1.0, amplitude):
        layer = draw(image.with_coefficients(image.coefficients * np.float32(factor)))
        for outline in (False, True):
            layer.restyle(outline=outline)
            viewer.scene.camera.zoom = 9
            counts.append(covered(within(pixels(), 9, most=14)))
        viewer.layers.remove(layer)
    np.testing.assert_allclose(counts[2:], counts[:2], rtol=0.05)
