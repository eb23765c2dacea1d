"""Everything of napari that is not public, in one place, for the versions it was tried with.

A plugin cannot register a layer type of its own by public means, so the glyph layer needs a few
private names. Where they are missing or the graphics system lacks what instancing needs,
``why_no_glyphs`` says it in a sentence and peaks are drawn as vectors instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any

import napari
from napari.layers import Layer

__all__ = [
    "PROBLEM",
    "add_to_context_menu",
    "delete_in_own_context",
    "register_layer",
    "renderer",
    "why_no_glyphs",
]

SUPPORTED = ((0, 9), (0, 10))

PROBLEM = ""
"""Why the private names cannot be used; empty where they can."""


def version_problem(version: str) -> str:
    """Say why a version of napari is not supported, or nothing."""
    parts = version.split(".")
    try:
        number = (int(parts[0]), int(parts[1]))
    except (IndexError, ValueError):
        return f"The version of napari, {version!r}, is not understood."
    if SUPPORTED[0] <= number < SUPPORTED[1]:
        return ""
    low, high = (".".join(map(str, v)) for v in SUPPORTED)
    return f"SH glyphs need napari {low} or later and before {high}; this is {version}."


PROBLEM = version_problem(napari.__version__)
if not PROBLEM:
    try:
        from napari._qt.layer_controls.dynamic.buttons.qt_vectors_buttons import (
            QtVectorsButtons,
        )
    except ImportError:
        QtVectorsButtons = None
    try:
        from napari._qt.layer_controls.qt_layer_controls_base import QtLayerControls
        from napari._qt.layer_controls.qt_layer_controls_container import layer_to_controls
        from napari._vispy.layers.base import VispyBaseLayer
        from napari._vispy.utils.gl import get_gl_extensions
        from napari._vispy.utils.visual import layer_to_visual
        from napari.layers.base.base import _LayerSlicingState as LayerSlicingState

        __all__ += ["LayerSlicingState", "QtLayerControls", "VispyBaseLayer"]
    except ImportError as error:
        PROBLEM = f"SH glyphs cannot be added to napari {napari.__version__}: {error}."


def why_no_glyphs() -> str:
    """Say in one sentence why glyphs cannot be drawn here; nothing where they can."""
    if PROBLEM:
        return PROBLEM
    from vispy.gloo import gl

    if not hasattr(gl.current_backend, "glVertexAttribDivisor"):
        return (
            "SH glyphs need instanced drawing, which vispy offers with its gl+ backend only, and "
            f"{gl.current_backend.__name__.rsplit('.', 1)[-1]} is in use."
        )
    offered = get_gl_extensions() or ""
    missing = [
        words
        for words, names in (
            ("instanced drawing", ("_instanced_arrays",)),
            ("float textures", ("_texture_float", "_color_buffer_float")),
        )
        if not any(name in offered for name in names)
    ]
    if missing:
        return f"SH glyphs need {' and '.join(missing)}, which this graphics system does not offer."
    return ""


def renderer() -> str:
    """Return the name of what draws, e.g. of the graphics card; empty where it is not known."""
    from vispy.gloo import gl

    with suppress(Exception):
        from napari._vispy.utils.gl import _opengl_context

        with _opengl_context():
            return str(gl.glGetParameter(gl.GL_RENDERER))
    return ""


def delete_in_own_context() -> None:
    """Make napari's canvas delete a removed layer's buffers in its own OpenGL context.

    napari 0.9.2 sends the deletions at once, into whichever context is current: within an event
    that is often the window's, and the next drawing may then crash the process.
    """
    with suppress(ImportError, AttributeError):
        from napari._vispy.canvas import VispyCanvas

        clean = VispyCanvas._clean_and_update_scenegraph
        if getattr(clean, "in_own_context", False):
            return

        @wraps(clean)
        def clean_in_own_context(self: Any) -> None:
            with suppress(RuntimeError):
                self._scene_canvas.set_current()
            clean(self)

        clean_in_own_context.in_own_context = True  # type: ignore[attr-defined]
        VispyCanvas._clean_and_update_scenegraph = clean_in_own_context


def register_layer(layer: type[Layer], visual: type[Any], controls: type[Any]) -> None:
    """Make a layer type known to napari: drawn, with controls, and able to be duplicated."""
    delete_in_own_context()
    layer_to_visual[layer] = visual
    layer_to_controls[layer] = controls
    name = layer.__name__.lower()
    napari.layers.NAMES.add(name)
    setattr(napari.layers, name.title(), layer)
    if QtVectorsButtons is not None:
        from napari._qt.layer_controls.dynamic.qt_dynamic_layer_controls import buttons_dict

        buttons_dict[layer] = QtVectorsButtons


def add_to_context_menu(
    layer: type[Layer], actions: Iterable[tuple[str, str, Callable[[], object]]]
) -> None:
    """Offer actions (id, title, function) in the layer list's menu of a layer type, once an app.

    A manifest cannot add to that menu in napari 0.9; where this way is closed too, the actions
    are in the menu bar and in the palette all the same.
    """
    with suppress(ImportError, AttributeError, TypeError, ValueError):
        from app_model.types import Action
        from napari._app_model import get_app_model
        from napari._app_model.constants import MenuGroup, MenuId

        app = get_app_model()
        rule = {
            "id": MenuId.LAYERLIST_CONTEXT,
            "group": MenuGroup.NAVIGATION,
            "when": f"active_layer_type == '{layer.__name__.lower()}'",
        }
        for name, title, call in actions:
            if name not in app.commands:
                app.register_action(
                    Action(id=name, title=title, callback=call, menus=[rule], palette=False)
                )
