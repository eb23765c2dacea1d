"""Right is where the convention says, and up is up: judged from the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.viewer import orientation
from napari_dmri.viewer.layers import scan_layer

pytestmark = pytest.mark.viewer


@pytest.fixture
def corners(viewer, small_scan):
    """Show a scan whose right, anterior and superior ends are bright in turn."""
    from dataclasses import replace

    def show(axis: int):
        data = np.zeros(small_scan.shape, np.float32)
        end = [slice(None)] * 3
        end[axis] = slice(-4, None)
        data[tuple(end)] = 100
        viewer.layers.clear()
        scan = replace(small_scan, data=data)
        array, kwargs, _ = scan_layer(scan, contrast_limits=(0, 100))
        viewer.add_image(array, **kwargs)

    return show


def bright_edge(picture: np.ndarray) -> str:
    grey = picture[..., :3].mean(-1).astype(float)
    rows, columns = np.nonzero(grey > 150)
    y, x = rows.mean() / grey.shape[0] - 0.5, columns.mean() / grey.shape[1] - 0.5
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"


CASES = [
    ("axial", 0, {"radiological": "left", "neurological": "right"}),
    ("axial", 1, {"radiological": "top", "neurological": "top"}),
    ("coronal", 0, {"radiological": "left", "neurological": "right"}),
    ("coronal", 2, {"radiological": "top", "neurological": "top"}),
    ("sagittal", 2, {"radiological": "top", "neurological": "top"}),
    ("sagittal", 1, {"radiological": "left", "neurological": "right"}),
]


@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_the_bright_end_and_its_letter_are_on_the_same_edge(viewer, corners, pixels, convention):
    for plane, axis, expected in CASES:
        corners(axis)
        orientation.set_convention(viewer, convention)
        orientation.set_plane(viewer, plane)
        for edge in orientation.EDGES:
            viewer.canvas.overlays[f"dmri_{edge}"].visible = False
        assert bright_edge(pixels()) == expected[convention], (plane, axis)
        assert orientation.edge_letters(viewer)[expected[convention]] == "RAS"[axis]
        assert orientation.plane_of(viewer) == plane
        assert orientation.convention_of(viewer) == convention


def test_letters_follow_the_view_and_hide_in_3d(viewer, corners, pixels):
    corners(0)
    before = pixels()
    orientation.prepare(viewer)
    overlays = viewer.canvas.overlays
    assert [overlays[f"dmri_{e}"].text for e in orientation.EDGES] == ["A", "P", "R", "L"]
    viewer.dims.order = (0, 2, 1, 3)
    assert overlays["dmri_top"].text == "S"
    assert (pixels() != before).any()
    viewer.dims.ndisplay = 3
    assert not overlays["dmri_top"].visible
    viewer.dims.ndisplay = 2
    viewer.layers.clear()
    assert not overlays["dmri_top"].visible


def test_extra_axes_keep_their_place(viewer):
    viewer.add_image(np.zeros((2, 3, 4, 5, 6)))
    orientation.set_plane(viewer, "sagittal")
    assert viewer.dims.order == (0, 1, 4, 2, 3)


def test_a_view_that_was_chosen_is_kept(viewer):
    viewer.scene.camera.orientation = orientation.CONVENTIONS["neurological"]
    orientation.prepare(viewer)
    assert orientation.convention_of(viewer) == "neurological"


def test_letters_are_seen_on_a_dark_image_in_the_light_theme(viewer, pixels):
    viewer.theme = "light"
    viewer.add_image(np.zeros((4, 400, 400)), contrast_limits=(0, 1))
    viewer.dims.order = (0, 1, 2)
    orientation.prepare(viewer)
    viewer.scene.camera.zoom = 10
    shot = pixels()[..., :3].astype(int)
    middle, edge = shot.shape[0] // 2, shot[:, :60]
    assert (edge[middle - 20 : middle + 20] > 150).any()
    assert (edge[:20] < 60).all()


def test_letters_are_small_in_narrow_panels(viewer):
    def sizes():
        overlays = viewer.canvas.overlays
        return {overlays[f"dmri_{edge}"].font_size for edge in orientation.EDGES}

    for _ in range(7):
        viewer.add_image(np.zeros((6, 6, 6)))
    orientation.show_letters(viewer)
    assert sizes() == {orientation.LETTER}
    viewer.canvas.grid.shape = (1, 2)
    viewer.canvas.grid.enabled = True
    assert sizes() == {orientation.LETTER}
    viewer.canvas.grid.shape = (1, 7)
    assert viewer.canvas.size[1] / 7 < orientation.NARROW
    assert sizes() == {orientation.SMALL_LETTER}
    viewer.canvas.grid.enabled = False
    assert sizes() == {orientation.LETTER}
