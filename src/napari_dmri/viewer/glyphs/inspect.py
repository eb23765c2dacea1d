"""One glyph, large, rotatable, with its numbers."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from vispy import scene
from vispy.scene.visuals import create_visual_node

from napari_dmri.viewer.glyphs.layer import SHGlyphs
from napari_dmri.viewer.glyphs.visual import SHGlyphVisual
from napari_dmri.viewer.glyphs.voxel import VoxelFacts

__all__ = ["GlyphInspector", "inspect_voxel"]

Node = create_visual_node(SHGlyphVisual)
AXES = {"x": (1.0, 0.3, 0.3), "y": (0.3, 1.0, 0.3), "z": (0.45, 0.55, 1.0)}

_open: dict[int, GlyphInspector] = {}


class GlyphInspector(QWidget):
    """A window with one glyph of a layer; drag turns it, the wheel zooms.

    Parameters
    ----------
    layer
        The glyph layer.
    voxel
        Index on the layer's axes (z, y, x).
    """

    def __init__(self, layer: SHGlyphs, voxel: tuple[int, ...]) -> None:
        super().__init__(None, Qt.WindowType.Window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating)
        self.canvas = scene.SceneCanvas(keys=None, bgcolor="#101418", size=(420, 420), show=False)
        view = self.canvas.central_widget.add_view()
        view.camera = scene.TurntableCamera(fov=0, elevation=20, azimuth=30, scale_factor=2.8)
        view.camera.set_range((-1, 1), (-1, 1), (-1, 1))
        for axis, colour in enumerate(AXES.values()):
            ends = np.zeros((2, 3))
            ends[:, axis] = (-1.15, 1.15)
            scene.visuals.Line(ends, color=(*colour, 0.55), width=1.5, parent=view.scene)
        for text, place in (("R", (1.25, 0, 0)), ("A", (0, 1.25, 0)), ("S", (0, 0, 1.25))):
            scene.visuals.Text(text, color="white", font_size=9, pos=place, parent=view.scene)
        self.node = Node(parent=view.scene)
        self.numbers = QLabel()
        self.numbers.setTextFormat(Qt.TextFormat.RichText)
        self.numbers.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.numbers.setMargin(8)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.canvas.native, 1)
        column.addWidget(self.numbers)
        self.resize(420, 560)
        self.show_voxel(layer, voxel)

    def show_voxel(self, layer: SHGlyphs, voxel: tuple[int, ...]) -> None:
        """Show another voxel."""
        values = layer.field.voxel(voxel)
        facts = layer.facts_at(voxel)
        if values is None or facts is None:
            return
        self.voxel = voxel
        from napari_dmri.viewer.glyphs.field import largest_amplitudes

        coefficients = values[None]
        largest = largest_amplitudes(coefficients, layer.space, layer.reading)
        self.node.set_glyphs(
            np.zeros((1, 3)), coefficients, 1 / np.maximum(largest, 1e-30),
            space=layer.space, reading=layer.reading, radius=1.0,
        )  # fmt: skip
        self.node.set_frame(np.eye(3), np.eye(3), flat=False)
        self.node.set_look(lighting=layer.style.lighting, negative=layer.style.negative)
        self.setWindowTitle(f"{layer.name}: voxel {voxel[::-1]}")
        self.numbers.setText(_table(layer, voxel, facts))

    def closeEvent(self, event: object) -> None:
        """Let go of the canvas with the window."""
        self.canvas.close()
        for key in [k for k, window in _open.items() if window is self]:
            del _open[key]
        super().closeEvent(event)


def _table(layer: SHGlyphs, voxel: tuple[int, ...], facts: VoxelFacts) -> str:
    z, y, x = layer.data_to_world(voxel)[-3:]
    rows = [
        f"<b>voxel</b> {voxel[::-1]} &nbsp; <b>RAS</b> {x:.1f} {y:.1f} {z:.1f} mm",
        f"<b>order</b> {layer.space.order} &nbsp; <b>GFA</b> {facts.gfa:.3f} &nbsp; "
        f"<b>AFD</b> {facts.afd:.4g}",
    ]
    for number, (u, a) in enumerate(zip(facts.peaks, facts.amplitudes, strict=True), 1):
        r, g, b = (round(255 * abs(c)) for c in u)
        rows.append(
            f'<span style="color:rgb({r},{g},{b})">●</span> peak {number}: {a:.4g} along '
            f"({u[0]:+.3f}, {u[1]:+.3f}, {u[2]:+.3f})"
        )
    return "<br>".join(rows)


def inspect_voxel(layer: SHGlyphs, voxel: tuple[int, ...]) -> GlyphInspector:
    """Show a voxel in the layer's inspector window, opening it where it is not open."""
    window = _open.get(id(layer))
    if window is None:
        window = _open[id(layer)] = GlyphInspector(layer, voxel)
        window.show()
    else:
        window.show_voxel(layer, voxel)
        window.canvas.update()
    return window
