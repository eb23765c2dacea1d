"""Glyph actions for the palette, the menus and the docks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import napari
from napari.utils.notifications import show_error, show_info

from napari_dmri.errors import InputError
from napari_dmri.viewer.layers import kind_of

if TYPE_CHECKING:
    from napari_dmri.images import ScalarImage, ShImage
    from napari_dmri.progress import Progress

__all__ = [
    "compare_sh_glyphs",
    "inspect_by_click",
    "menu_actions",
    "save_glyph_layer",
    "show_glyphs_after_opening",
    "show_sh_glyphs",
    "show_sh_peaks",
    "show_side_by_side",
]


def show_sh_glyphs() -> None:
    """Show the selected SH image as glyphs."""
    from napari_dmri.viewer.glyphs.show import sh_behind, show_glyphs

    layer = _chosen("sh")
    if layer is not None:
        show_glyphs(_viewer(), sh_behind(layer))


def show_sh_peaks() -> None:
    """Show the peaks of the selected SH image as vectors."""
    from napari_dmri.viewer.glyphs.peaks import peaks_layer
    from napari_dmri.viewer.glyphs.show import sh_of

    layer = _chosen("sh", "glyphs")
    if layer is None:
        return
    try:
        _viewer().add_layer(peaks_layer(sh_of(layer)))
    except InputError as error:
        show_error(str(error))


def compare_sh_glyphs() -> None:
    """Colour one glyph layer by the angle of its first peaks to another's; draw that as outlines.

    The two are those selected, or the two newest; the upper one is A, over which B is drawn. The
    angles are computed in the background.
    """
    from napari_dmri.viewer.glyphs.show import image_of
    from napari_dmri.viewer.jobs import Job

    viewer = _viewer()
    glyphs = [layer for layer in reversed(viewer.layers) if kind_of(layer) == "glyphs"]
    chosen = [layer for layer in glyphs if layer in viewer.layers.selection]
    pair = chosen if len(chosen) == 2 else glyphs[:2]
    if len(pair) < 2:
        show_info("Show two SH images as glyphs first.")
        return
    a, b = pair
    try:
        images = image_of(a), image_of(b)
    except InputError as error:
        show_error(str(error))
        return
    name = f"angle {a.name} | {b.name}"
    job = Job(name, _angles, *images, name)

    def show(outcome: Any) -> None:
        _jobs.discard(job)
        if outcome.error is not None:
            show_error(outcome.error)
        elif not outcome.cancelled:
            _show_angles(viewer, a, b, outcome.result)

    job.finished.connect(show)
    _jobs.add(job)
    job.start()


_jobs: set[Any] = set()
"""Jobs at work; nothing else holds them until they end."""


def _angles(first: ShImage, second: ShImage, name: str, progress: Progress) -> ScalarImage:
    """Map the angles between first peaks; 0 where there is none."""
    import numpy as np

    from napari_dmri.images import ScalarImage
    from napari_dmri.viewer.glyphs.peaks import first_peak_angles

    angles = first_peak_angles(first, second, progress)
    return ScalarImage(np.nan_to_num(angles), first.affine, name, "degrees")


def _show_angles(viewer: Any, a: Any, b: Any, angles: ScalarImage) -> None:
    """Add the map of angles, colour A by it and draw B over A, where both are still there."""
    from napari_dmri.viewer.layers import map_layer

    if a not in viewer.layers or b not in viewer.layers:
        show_info("The glyphs were removed meanwhile; their angles are not shown.")
        return
    data, kwargs, _ = map_layer(angles)
    look = {"colormap": "plasma", "contrast_limits": (0.0, 45.0), "visible": False}
    angle_layer = viewer.add_image(data, **{**kwargs, **look})
    a.restyle(colour="map", colour_layer=angle_layer)
    b.restyle(colour="uniform", uniform=(1.0, 1.0, 1.0), outline=True)
    viewer.layers.move(viewer.layers.index(b), viewer.layers.index(a) + 1)


def show_side_by_side() -> None:
    """Show the visible glyph layers side by side with one camera; again, put everything back."""
    from napari_dmri.viewer.glyphs.side_by_side import toggle

    toggle(_viewer())


def inspect_by_click() -> None:
    """Open the glyph under the next clicks large, with its numbers; again, stop that."""
    layer = _chosen("glyphs")
    if layer is not None:
        layer.inspecting = not layer.inspecting


def menu_actions() -> list[tuple[str, str, Callable[[], None]]]:
    """Return what the layer list's menu offers for glyph layers: id, title, function."""
    return [
        ("napari-dmri.context.save", "Save as SH image…", save_glyph_layer),
        ("napari-dmri.context.inspect", "Inspect glyphs by clicking", inspect_by_click),
        ("napari-dmri.context.peaks", "Show peaks as vectors", show_sh_peaks),
        ("napari-dmri.context.side", "Show glyphs side by side", show_side_by_side),
    ]


def save_glyph_layer() -> None:
    """Save the selected glyph layer as an SH image."""
    layer = _chosen("glyphs")
    if layer is not None:
        from napari_dmri.viewer.glyphs.controls import ask_and_save

        ask_and_save(layer)


def show_glyphs_after_opening(viewer: Any, image: Any, layer: Any = None) -> None:
    """Show an SH image that was just opened as glyphs, and hide its layer of coefficients."""
    from napari_dmri.viewer.glyphs.show import show_glyphs

    try:
        show_glyphs(viewer, image)
    except InputError as error:
        show_error(str(error))
        return
    if layer is not None:
        layer.visible = False


def _viewer() -> Any:
    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("No napari window is open.")
    return getattr(viewer, "__wrapped__", viewer)


def _chosen(*kinds: str) -> Any:
    """Return the active layer where it fits, else the newest that does; say so if there is none."""
    viewer = _viewer()
    active = viewer.layers.selection.active
    for layer in [active, *reversed(viewer.layers)]:
        if layer is not None and kind_of(layer) in kinds:
            return layer
    show_info("No SH image is open; open one, or make one with the SH fit dock.")
    return None
