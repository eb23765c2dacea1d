"""The instanced visual: many SH glyphs in one draw call, as fine as the screen asks for.

It knows vispy and numpy only, so it runs in napari, in a window of its own, and without a window
through vispy's EGL backend.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from vispy import gloo
from vispy.gloo import gl
from vispy.visuals import Visual
from vispy.visuals.filters.clipping_planes import PlanesClipper
from vispy.visuals.shaders import Function

from napari_dmri.viewer.glyphs.basis import PLAIN, Reading, ShSpace
from napari_dmri.viewer.glyphs.detail import COARSEST, HARDWARE, SOFTWARE, Budget, choose_frequency
from napari_dmri.viewer.glyphs.shaders import FRAGMENT, KEEP_ALL, KEEP_OUTLINE, VERTEX
from napari_dmri.viewer.glyphs.sphere import FREQUENCIES, template
from napari_dmri.viewer.glyphs.textures import GlyphTextures, basis_places

__all__ = ["SHGlyphVisual"]

MARGIN = 0.25
"""Glyphs this far outside the view (in views) are kept ready, so that panning need not stop."""

FLAT_DEPTH = 0.2
"""Share of the depth range that the glyphs of a 2D view take."""

THICKEN, THICKEN_COARSEST = 0.7, 1.5
"""Pixels by which the surface of small glyphs is moved outwards: a lobe thinner than a pixel would
miss every pixel's centre and not be drawn at all. The coarsest sphere makes lobes thinner still."""

OUTLINE = 1.2
"""Width of outlines in pixels."""

SMALL, LARGE = 16.0, 40.0
"""Voxels of up to so many pixels have glyphs thickened in full, and from so many not at all."""

SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swrast", "software", "swiftshader")


class SHGlyphVisual(Visual):
    """Draw SH glyphs.

    ``set_glyphs`` says which and how large, ``set_frame`` how RAS directions lie in the node's
    coordinates, ``set_look`` the uniforms. ``moving`` is asked whether the mouse is moving the
    camera; then fewer triangles are drawn and ``settle`` is called, to draw again later. Everything
    that depends on the camera (level of detail, what is in view, lighting, culling) follows by
    itself before each drawing.
    """

    def __init__(self) -> None:
        super().__init__(VERTEX, FRAGMENT)
        self.budget: Budget | None = None
        self.detail: int | None = None
        self.evaluate = "auto"
        self.moving: Callable[[], bool] = lambda: False
        self.settle: Callable[[], object] = lambda: None
        self._moved = False
        self._outline: bool | None = None
        self._clipper: PlanesClipper | None = None
        self.frequency: int | None = None
        self.thickened = 0.0
        self.path = ""
        self._centres = np.zeros((0, 3), np.float32)
        self._coefficients = np.zeros((0, 1), np.float32)
        self._gains = np.zeros(0, np.float32)
        self._colours = np.zeros((0, 4), np.float32)
        self._space, self._reading = ShSpace(0), PLAIN
        self._key: Hashable = None
        self._frame = np.eye(3)
        self._to_local = np.eye(3)
        self._flat = True
        self._radius = 1.0
        self._textures = GlyphTextures()
        self._sampled: Function | None = None
        self._stored: Any = None
        self._window: np.ndarray | None = None
        self._template: tuple[Any, ...] | None = None
        self._draw_mode = "triangles"
        self._index_buffer = gloo.IndexBuffer(np.zeros((1, 3), np.uint32))
        program = self.shared_program
        program["u_place"] = program["u_normal"] = _columns(np.eye(3))
        program["u_behind"] = (0.0, 0.0, 0.0)
        self._buffers = {
            "a_direction": gloo.VertexBuffer(),
            "a_vertex": gloo.VertexBuffer(),
            "a_centre": gloo.VertexBuffer(divisor=1),
            "a_glyph": gloo.VertexBuffer(divisor=1),
            "a_colour": gloo.VertexBuffer(divisor=1),
        }
        self.set_gl_state("opaque", depth_test=True, cull_face=True)
        self.set_look()
        self.freeze()

    @property
    def count(self) -> int:
        """Number of glyphs that there are; those out of view are not drawn."""
        return len(self._centres)

    @property
    def drawn(self) -> int:
        """Number of glyphs drawn last."""
        return 0 if self._window is None else len(self._window)

    def set_glyphs(
        self,
        centres: np.ndarray,
        coefficients: np.ndarray,
        gains: np.ndarray,
        colours: np.ndarray | None = None,
        *,
        space: ShSpace,
        reading: Reading = PLAIN,
        radius: float = 1.0,
        key: Hashable = None,
    ) -> None:
        """Set what is drawn.

        Parameters
        ----------
        centres
            In the node's coordinates (N, 3).
        coefficients
            (N, C), at least as many as the space has.
        gains
            Millimetres per unit of amplitude (N,).
        colours
            The glyphs' own colours, alpha saying how much of it (N, 4); None: none.
        space, reading
            How the coefficients are read.
        radius
            Of the glyph that just fits its voxel (mm), for the level of detail.
        key
            Names the coefficients; radii stored under a key are used again. None: never.
        """
        self._centres = np.ascontiguousarray(centres, np.float32)
        self._coefficients = coefficients
        self._gains = np.asarray(gains, np.float32)
        none = np.zeros((len(centres), 4), np.float32)
        self._colours = none if colours is None else np.ascontiguousarray(colours, np.float32)
        self._space, self._reading, self._radius = space, reading, float(radius)
        self._key = key
        self._stored = self._window = None
        self.update()

    def set_frame(self, frame: np.ndarray, to_local: np.ndarray, flat: bool) -> None:
        """Set how directions lie.

        Parameters
        ----------
        frame
            RAS directions of the coefficients to millimetres of the scene's x, y, z (3, 3).
        to_local
            Those millimetres to the node's coordinates (3, 3); in a 2D view its third row gives
            the depth, in millimetres towards the eye or away from it.
        flat
            Whether the view is 2D.
        """
        self._frame, self._to_local, self._flat = frame, to_local, flat
        self._window = None
        self.update()

    def set_look(
        self,
        *,
        lighting: float = 1.0,
        negative: bool = True,
        negative_colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
        ramp: np.ndarray | None = None,
        ramp_top: float = 1.0,
        outline: bool = False,
    ) -> None:
        """Set lighting, negative lobes, the colour ramp (256, 3) of amplitudes (or None), outline.

        An outline lets what is inside show through.
        """
        program = self.shared_program
        if outline is not self._outline:
            self._outline = outline
            keep = Function(KEEP_OUTLINE if outline else KEEP_ALL)
            if outline:
                keep["width"] = OUTLINE
            program.frag["keep"] = keep
        program["u_lighting"] = float(lighting)
        program["u_negative"] = float(negative)
        program["u_negative_colour"] = negative_colour
        program["u_ramp_on"] = float(ramp is not None)
        program["u_ramp_top"] = max(float(ramp_top), 1e-30)
        colours = np.zeros((256, 3)) if ramp is None else np.asarray(ramp)[:, :3]
        texture = np.ascontiguousarray(colours[None], np.float32)
        program["u_ramp"] = gloo.Texture2D(texture, interpolation="nearest")
        self.update()

    def set_detail(self, detail: int | None) -> None:
        """Fix the frequency of the template; None chooses it by the size on the screen."""
        self.detail = detail
        self.update()

    @property
    def clipping_planes(self) -> np.ndarray:
        """Planes that cut the glyphs (P, 2, 3), as positions and normals."""
        return np.zeros((0, 2, 3)) if self._clipper is None else self._clipper.clipping_planes

    @clipping_planes.setter
    def clipping_planes(self, planes: np.ndarray) -> None:
        # the filter costs a tenth of a redraw, so it is there only where something is cut
        if self._clipper is None and len(planes):
            self._clipper = PlanesClipper()
            self.attach(self._clipper)
        if self._clipper is not None:
            self._clipper.clipping_planes = planes

    def forget(self) -> None:
        """Drop stored radii."""
        self._textures.forget()

    def _prepare_transforms(self, view: Any) -> None:
        view.view_program.vert["transform"] = view.get_transform()

    def _compute_bounds(self, axis: int, view: Any) -> tuple[float, float] | None:
        if not self.count:
            return None
        column = self._centres[:, axis]
        return float(column.min()), float(column.max())

    def _prepare_draw(self, view: Any) -> bool:
        if not self.count:
            return False
        if self.budget is None:
            name = str(gl.glGetParameter(gl.GL_RENDERER)).lower()
            self.budget = SOFTWARE if any(s in name for s in SOFTWARE_RENDERERS) else HARDWARE
        to_screen = view.transforms.get_transform("visual", "render")
        ndc = to_screen.map(_homogeneous(self._centres))
        ndc = ndc[:, :3] / np.where(ndc[:, 3:] == 0, 1, ndc[:, 3:])
        scale, depth = self._orient(view, to_screen)
        reach = self._reach(view, scale)
        inside = (np.abs(ndc[:, :2]) < 1 + reach).all(1)
        if not inside.any():
            return False
        diameter = 2 * self._radius * scale
        moving = self.moving()
        current = self.frequency if moving == self._moved else None
        self._moved = moving
        frequency = self.detail or choose_frequency(
            diameter, int(inside.sum()), self.budget, current, moving
        )
        while (
            frequency > COARSEST
            and self._texels(int(inside.sum()), frequency) > 2 * self.budget.texels
        ):
            frequency = max(f for f in FREQUENCIES if f < frequency)
        if moving:
            self.settle()
        self._arrange(inside, ndc, reach, frequency)
        if self._flat:
            # in 2D layers are painted in order: earlier ones must not hide glyphs, nor these later
            view.transforms.canvas.context.clear(color=False, depth=True)
        self.shared_program["u_behind"] = (0.0, 0.0, depth)
        physical = scale * float(getattr(view.transforms, "pixel_scale", 1.0) or 1.0)
        thicken = THICKEN_COARSEST if frequency <= COARSEST else THICKEN
        thicken *= float(np.clip((LARGE - diameter) / (LARGE - SMALL), 0, 1))
        self.thickened = thicken
        self.shared_program["u_thicken"] = (thicken / max(physical, 1e-30), physical)
        return True

    def _orient(self, view: Any, to_screen: Any) -> tuple[float, float]:
        """Follow the camera: eye axes, winding; return pixels a millimetre and the 2D depth."""
        middle = self._centres[self.count // 2].astype(float)
        local = self._to_local.copy()
        if self._flat:
            local[2] = 0
        ends = np.vstack([middle, middle + local.T])
        on_canvas = view.transforms.get_transform("visual", "canvas").map(_homogeneous(ends))
        on_canvas = on_canvas[:, :2] / on_canvas[:, 3:]
        steps = (on_canvas[1:] - on_canvas[0]).T * [[1], [-1]]
        scale = float(np.sqrt((steps**2).sum(1).max()))
        right = steps[0] / max(np.linalg.norm(steps[0]), 1e-30)
        up = steps[1] - right * (steps[1] @ right)
        up /= max(np.linalg.norm(up), 1e-30)
        towards = np.cross(right, up)
        depth = 0.0
        probe = np.vstack([middle, middle + np.array([0, 0, 1])])
        if self._flat:
            clip = to_screen.map(_homogeneous(probe))
            slope = float(clip[1, 2] / clip[1, 3] - clip[0, 2] / clip[0, 3])
            extent = self._extent()
            per_mm = FLAT_DEPTH / max(abs(slope), 1e-30) / (2 * extent)
            nearer = -np.sign(slope) or 1.0
            local[2] = nearer * per_mm * towards
            depth = -nearer * per_mm * extent * 1.01
        else:
            clip = to_screen.map(_homogeneous(np.vstack([middle, middle + local.T])))
            nearness = -(clip[1:, 2] / clip[1:, 3] - clip[0, 2] / clip[0, 3])
            if nearness @ towards < 0:
                towards = -towards
        eye = np.stack([right, up, towards]) @ self._frame
        program = self.shared_program
        program["u_normal"] = _columns(eye)
        program["u_place"] = _columns(local @ self._frame)
        front = "ccw" if np.linalg.det(eye) > 0 else "cw"
        self.update_gl_state(cull_face=True, front_face=front)
        return scale, depth

    def _texels(self, count: int, frequency: int) -> int:
        """Return how many radii some glyphs have."""
        vertices = 10 * frequency**2 + 2
        return count * (vertices if self._space.full else vertices // 2)

    def _extent(self) -> float:
        """Return the largest radius to expect (mm), generously."""
        return 8 * max(self._radius, 1e-30)

    def _reach(self, view: Any, scale: float) -> np.ndarray:
        """Return how far outside the view a glyph's centre may lie to be seen (in half views)."""
        ends = view.transforms.get_transform("canvas", "render").map([[0, 0, 0, 1], [1, 1, 0, 1]])
        pixel = np.abs(ends[1, :2] / ends[1, 3] - ends[0, :2] / ends[0, 3])
        return 3 * self._radius * scale * pixel

    def _arrange(
        self, inside: np.ndarray, ndc: np.ndarray, reach: np.ndarray, frequency: int
    ) -> None:
        """Upload what is missing for the glyphs in view at a level of detail."""
        if self._window is not None and frequency == self.frequency:
            ready = np.zeros(self.count, bool)
            ready[self._window] = True
            crowd = len(self._window) > 2 * inside.sum() + 64
            if not (inside & ~ready).any() and not crowd:
                return
        window = np.flatnonzero((np.abs(ndc[:, :2]) < 1 + reach + 2 * MARGIN).all(1))
        self._use_template(frequency)
        self.frequency = frequency
        path = self.evaluate
        if path == "auto":
            path = "stored" if self.budget is SOFTWARE else "summed"
        textures, space, reading = self._textures, self._space, self._reading
        whole = True
        if path == "stored":
            whole = self._key is not None and self._texels(self.count, frequency) <= (
                self.budget.texels
            )
            if not whole:
                textures.store_radii(self._coefficients[window], space, reading, frequency)
            elif self._stored != (frequency, path):
                textures.store_radii(self._coefficients, space, reading, frequency, self._key)
        else:
            if self._stored != (0, path):
                textures.store_coefficients(self._coefficients, space)
            textures.store_basis(space, reading, frequency)
        self._stored = None if not whole else (frequency if path == "stored" else 0, path)
        if self._sampled is not textures.function:
            self._sampled = textures.function
            self.shared_program.vert["sample"] = self._sampled
        self.path = path
        self._window = window
        places = textures.places[window] if whole else textures.places
        glyph = np.column_stack([places, self._gains[window]]).astype(np.float32)
        for name, array in (
            ("a_centre", self._centres[window]),
            ("a_glyph", glyph),
            ("a_colour", self._colours[window]),
        ):
            self._bind(name, array)

    def _use_template(self, frequency: int) -> None:
        key = (frequency, self._space)
        if self._template == key:
            return
        self._template = key
        sphere = template(frequency)
        count = len(sphere.vertices)
        slot, side = np.arange(count), np.ones(count)
        if not self._space.full:
            slot = slot % sphere.half
            side[sphere.half :] = -1
        vertex = np.column_stack([slot, side, basis_places(slot, self._space)]).astype(np.float32)
        self._bind("a_direction", sphere.vertices.astype(np.float32))
        self._bind("a_vertex", vertex)
        self._index_buffer.set_data(sphere.faces)

    def _bind(self, name: str, array: np.ndarray) -> None:
        self._buffers[name].set_data(np.ascontiguousarray(array))
        self.shared_program[name] = self._buffers[name]


def _columns(matrix: np.ndarray) -> np.ndarray:
    """Return a 3 x 3 matrix as GLSL reads it, column by column."""
    return np.ascontiguousarray(matrix.T, np.float32).ravel()


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.ones(len(points))])
