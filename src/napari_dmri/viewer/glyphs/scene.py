"""Between the glyph layer and its visual: what napari calls when data, camera or style change."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from vispy.scene.visuals import create_visual_node

from napari_dmri.viewer._napari_compat import VispyBaseLayer, renderer
from napari_dmri.viewer.compare_parts import single_shot
from napari_dmri.viewer.glyphs.detail import HARDWARE, SOFTWARE
from napari_dmri.viewer.glyphs.layer import SHGlyphs
from napari_dmri.viewer.glyphs.visual import SOFTWARE_RENDERERS, SHGlyphVisual

__all__ = ["VispySHGlyphs"]

_Node = create_visual_node(SHGlyphVisual)


SETTLE = 150
"""Milliseconds after which glyphs that were drawn coarsely are drawn again."""


class SHGlyphNode(_Node):
    """The visual as a node of napari's scene."""

    def __init__(self, *, font_info: Any) -> None:
        self.font_info = font_info
        super().__init__()


class VispySHGlyphs(VispyBaseLayer):
    """Draw a glyph layer."""

    def __init__(self, layer: SHGlyphs, font_info: Any) -> None:
        super().__init__(layer, SHGlyphNode(font_info=font_info), font_info=font_info)
        name = renderer().lower()
        if name:
            software = any(word in name for word in SOFTWARE_RENDERERS)
            self.node.budget = SOFTWARE if software else HARDWARE
            layer.volume_budget = self.node.budget.volume
        self._drawn_field: Any = None
        self._settling = single_shot(SETTLE, self._settle)
        self.node.moving = _mouse_is_down
        self.node.settle = self._settling.start
        layer.events.look.connect(self._on_look)
        self.reset()
        self._on_data_change()

    def _on_data_change(self) -> None:
        layer = self.layer
        glyphs, gains, colours = layer.shown()
        displayed = layer._slice_input.displayed
        centres = glyphs.voxels[:, displayed][:, ::-1]
        if len(displayed) == 2:
            centres = np.pad(centres, ((0, 0), (0, 1)))
        if self._drawn_field is not layer.field:
            self.node.forget()
            self._drawn_field = layer.field
        self.node.set_glyphs(
            centres,
            glyphs.coefficients,
            gains,
            colours,
            space=layer.space,
            reading=layer.reading,
            radius=layer.style.size * layer.voxel_size * glyphs.step / 2,
            key=(glyphs.key,) if glyphs.key else None,
        )
        self._on_look()
        self._on_matrix_change()

    def _settle(self) -> None:
        if _mouse_is_down():
            self._settling.start()
        else:
            self.node.update()

    def _on_look(self) -> None:
        layer, style = self.layer, self.layer.style
        ramp = None
        if style.colour == "amplitude":
            ramp = ensure_colormap(style.colormap).map(np.linspace(0, 1, 256))
        white = (1.0, 1.0, 1.0)
        self.node.set_look(
            negative_colour=style.uniform if style.outline else white,
            lighting=0.0 if style.outline else style.lighting,
            negative=style.negative,
            outline=style.outline,
            ramp=ramp,
            ramp_top=layer.style.size * layer.voxel_size / 2,
        )
        self.node.set_detail(style.detail)

    def _on_matrix_change(self) -> None:
        super()._on_matrix_change()
        layer = self.layer
        displayed = layer._slice_input.displayed
        linear = layer._transforms.simplified.set_slice(displayed).linear_matrix
        inverse = np.linalg.inv(linear)
        to_local = np.zeros((3, 3))
        for row in range(len(displayed)):
            for column, axis in enumerate(displayed):
                to_local[len(displayed) - 1 - row, 2 - axis] = inverse[row, column]
        self.node.set_frame(layer.frame, to_local, flat=len(displayed) == 2)

    def close(self) -> None:
        """Let go of what lies on the graphics card."""
        self._settling.stop()
        self.node.moving, self.node.settle = bool, bool
        self.node.forget()
        super().close()


def _mouse_is_down() -> bool:
    return QApplication.mouseButtons() != Qt.MouseButton.NoButton
