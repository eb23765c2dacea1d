"""Show the body as clinics or laboratories do: planes, left and right, and letters for them.

Layers hold (…, S, A, R), so positive axes point to superior, anterior and right. Which way they
point on the screen is the camera's business: up for the vertical axis, and left (radiological) or
right (neurological) for the horizontal one. napari calls both settings "left-handed" because it
names axes in the order S, A, R; in the body both are unmirrored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components.overlays import TextOverlay

from napari_dmri.viewer.compare_state import shown_size
from napari_dmri.viewer.layers import kind_of, mask_on, scan_of

__all__ = [
    "CONVENTIONS",
    "PLANES",
    "bring_into_view",
    "convention_of",
    "edge_letters",
    "plane_of",
    "prepare",
    "set_convention",
    "set_plane",
    "show_letters",
]

CONVENTIONS = {"radiological": ("away", "up", "left"), "neurological": ("towards", "up", "right")}
"""Camera orientation (depth, vertical, horizontal) of each convention."""

PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Order of the last three axes (z, y, x): the first is the slider, the others the screen."""

ENDS = (("I", "S"), ("P", "A"), ("L", "R"))
"""What lies at the negative and the positive end of z, y and x."""

EDGES = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}


LETTER, SMALL_LETTER, NARROW = 12, 7, 200
"""Sizes of letters, and the width in pixels below which a panel has small ones."""


def set_convention(viewer: Any, convention: str) -> None:
    """Show the right side of the body on the left (radiological) or the right (neurological)."""
    viewer.scene.camera.orientation = CONVENTIONS[convention]
    show_letters(viewer)


def convention_of(viewer: Any) -> str | None:
    """Return the convention on show; None for any other camera orientation."""
    now = tuple(str(o) for o in viewer.scene.camera.orientation)
    return next((name for name, o in CONVENTIONS.items() if o == now), None)


def set_plane(viewer: Any, plane: str) -> None:
    """Show axial, coronal or sagittal slices; axes before the last three keep their order."""
    leading = viewer.dims.ndim - 3
    if leading < 0:
        return
    if viewer.dims.ndisplay != 2:
        viewer.dims.ndisplay = 2
    viewer.dims.order = (*range(leading), *(leading + i for i in PLANES[plane]))
    show_letters(viewer)
    viewer.fit_to_view()


def plane_of(viewer: Any) -> str | None:
    """Return the plane on show; None in 3D or for another order of axes."""
    leading = viewer.dims.ndim - 3
    if leading < 0 or viewer.dims.ndisplay != 2:
        return None
    order = tuple(axis - leading for axis in viewer.dims.order[leading:])
    return next((name for name, o in PLANES.items() if o == order), None)


def bring_into_view(viewer: Any, layer: Any) -> None:
    """Show one scan, at slices that it has, and hide the others with what was made of them.

    Two people must never be seen in one picture, nor one under the other's name. Masks on the
    scan's grid stay; a layout of panels is left alone.
    """
    scan = scan_of(layer)
    if scan is None or layer not in viewer.layers or viewer.canvas.grid.enabled:
        return
    others = [x for x in viewer.layers if kind_of(x) == "scan" and x is not layer]
    theirs = tuple(f"{other.name} | " for other in others)
    for other in viewer.layers:
        foreign = other in others or (theirs and other.name.startswith(theirs))
        if foreign and not other.name.startswith(f"{layer.name} | "):
            other.visible = other.visible and mask_on(other, scan) is not None
    layer.visible = True
    low, high = layer.extent.world
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    start = [float(b0[0]) if b0.size else 0.0, *((low + high) / 2)[1:]]
    dims, offset = viewer.dims, viewer.dims.ndim - layer.ndim
    moved = any(not np.allclose(x.extent.world[:, -3:], layer.extent.world[:, -3:]) for x in others)
    for axis in dims.not_displayed:
        own = axis - offset
        if own >= 0 and not low[own] <= dims.point[axis] <= high[own]:
            dims.set_point(axis, start[own])
            moved = True
    if moved:
        _fit_to(viewer, layer)


def _fit_to(viewer: Any, layer: Any) -> None:
    """Fit one layer to the canvas; napari's own fit takes hidden layers in, too."""
    size, centre = shown_size(viewer, layer)
    if viewer.dims.ndisplay == 2:
        viewer.scene.camera.center = (0.0, *centre)
        viewer.scene.camera.zoom = 0.9 * min(np.divide(viewer.canvas.size, size))


def edge_letters(viewer: Any) -> dict[str, str]:
    """Return which end of the body (R, L, A, P, S, I) is at each edge of the canvas.

    Empty in 3D, with fewer than three axes, and where an axis before the last three is shown.
    """
    leading = viewer.dims.ndim - 3
    shown = [axis - leading for axis in viewer.dims.order[-2:]]
    if leading < 0 or viewer.dims.ndisplay != 2 or min(shown) < 0:
        return {}
    _, vertical, horizontal = (str(o) for o in viewer.scene.camera.orientation)
    (low, high), (near, far) = ENDS[shown[0]], ENDS[shown[1]]
    top, bottom = (high, low) if vertical == "up" else (low, high)
    left, right = (far, near) if horizontal == "left" else (near, far)
    return {"top": top, "bottom": bottom, "left": left, "right": right}


def show_letters(viewer: Any) -> None:
    """Put the letters on the canvas and keep them right; they hide while no layer is open."""
    overlays = viewer.canvas.overlays
    if "dmri_top" in overlays:
        _update_letters(viewer)
        return
    for edge, position in EDGES.items():
        overlays[f"dmri_{edge}"] = TextOverlay(
            position=position, font_size=LETTER, box=True, gridded=True
        )

    def update(event: Any = None) -> None:
        _update_letters(viewer)

    for emitter in (
        viewer.dims.events.order,
        viewer.dims.events.ndisplay,
        viewer.dims.events.ndim,
        viewer.scene.camera.events.orientation,
        viewer.layers.events.inserted,
        viewer.layers.events.removed,
        viewer.canvas.grid.events,
        viewer.canvas.events.size,
    ):
        emitter.connect(update)
    _start_at_b0(viewer)
    update()


def _update_letters(viewer: Any) -> None:
    letters = edge_letters(viewer) if len(viewer.layers) else {}
    grid = viewer.canvas.grid
    columns = grid.actual_shape(viewer.layers)[1] if grid.enabled else 1
    narrow = viewer.canvas.size[1] / columns < NARROW
    for edge in EDGES:
        overlay = viewer.canvas.overlays[f"dmri_{edge}"]
        overlay.font_size = SMALL_LETTER if narrow else LETTER
        overlay.text = letters.get(edge, "")
        overlay.visible = bool(letters)


def _start_at_b0(viewer: Any) -> None:
    """Show a first scan from its first b0 volume; napari starts at the middle one."""

    def entered(event: Any) -> None:
        scan = scan_of(event.value)
        if scan is not None and len(viewer.layers) == 1 and viewer.dims.ndim == 4:
            b0 = np.flatnonzero(scan.gradients.b0_mask)
            viewer.dims.set_current_step(0, int(b0[0]) if b0.size else 0)

    viewer.layers.events.inserted.connect(entered, position="last")


def prepare(viewer: Any) -> None:
    """Turn a viewer that still has napari's own camera to the user's convention, once."""
    if "dmri_top" in viewer.canvas.overlays:
        return
    if convention_of(viewer) is None:
        from napari_dmri.viewer.preferences import convention

        set_convention(viewer, convention())
    else:
        show_letters(viewer)
