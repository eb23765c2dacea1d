"""The napari layer of SH glyphs, over any map, in 2D, 3D and grid mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Layer
from napari.utils.events import Event

from napari_dmri.errors import InputError
from napari_dmri.viewer._napari_compat import LayerSlicingState
from napari_dmri.viewer.glyphs.basis import Reading, ShSpace
from napari_dmri.viewer.glyphs.detail import SOFTWARE
from napari_dmri.viewer.glyphs.field import (
    REFERENCE_PERCENTILE,
    GlyphField,
    Glyphs,
    largest_amplitudes,
)
from napari_dmri.viewer.glyphs.style import COLOURS, EXTENTS, GlyphStyle, gains_of, map_values
from napari_dmri.viewer.glyphs.voxel import VoxelFacts, describe

__all__ = ["SHGlyphs"]


class GlyphSlicing(LayerSlicingState):
    """Hold the glyphs of the slices on show."""

    def __init__(self, layer: SHGlyphs, data: Any, cache: bool) -> None:
        super().__init__(layer, data, cache)
        self.glyphs: Glyphs | None = None

    def _set_view_slice(self) -> None:
        layer, view = self.layer, self._slice_input
        if view.ndisplay == 2:
            axis = view.not_displayed[0]
            at = self.data_slice.point[axis]
            self.glyphs = layer.field.plane(axis, int(np.round(at)))
            return
        style = layer.style
        if style.extent == "volume":
            self.glyphs = layer.field.volume(layer.volume_budget)
            return
        point = layer.world_to_data(np.asarray(view.world_slice.point))
        middle = (np.array(layer.field.grid) - 1) // 2
        point = np.where(np.isfinite(point), np.round(point), middle)
        centre = np.clip(point, 0, np.array(layer.field.grid) - 1).astype(int)
        if style.extent == "slab":
            axis = view.order[0]
            self.glyphs = layer.field.slab(axis, int(centre[axis]), style.thickness)
        else:
            self.glyphs = layer.field.planes(tuple(int(c) for c in centre), style.thickness)


class SHGlyphs(Layer):
    """Show an SH image as glyphs.

    Parameters
    ----------
    data
        Coefficients on the layer's axes (Z, Y, X, C): even orders 0 to 18 (1, 6, 15, ... 190) or
        full sets with odd degrees (4, 9, 16, ... 361). Directions are in scanner RAS. Only the
        slices on show are read.
    frame
        RAS directions to millimetres of the layer's world x, y, z (3, 3), orthogonal; for an
        oblique image that is shown unrotated, the inverse of its rotation.
    mask
        Voxels to show (Z, Y, X).
    file_basis
        The basis that the coefficients were read as; ``style.basis`` may correct it.
    basis_named
        Whether the basis is known; otherwise the layer's controls ask for it.
    style
        How they look.
    **kwargs
        What every napari layer takes: name, scale, translate, units, metadata, opacity ...
    """

    def __init__(
        self,
        data: Any,
        *,
        frame: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        file_basis: str = "tournier07",
        basis_named: bool = True,
        style: GlyphStyle | None = None,
        affine: Any = None,
        axis_labels: Any = None,
        blending: str = "translucent",
        cache: bool = True,
        experimental_clipping_planes: Any = None,
        metadata: Any = None,
        name: str | None = None,
        opacity: float = 1.0,
        projection_mode: str = "none",
        rotate: Any = None,
        scale: Any = None,
        shear: Any = None,
        translate: Any = None,
        units: Any = None,
        visible: bool = True,
    ) -> None:
        self.field = GlyphField(data, mask)
        self._mask = mask
        self._frame = np.eye(3) if frame is None else np.asarray(frame, float)
        self._file_basis = file_basis
        self.basis_named = basis_named
        self._style = style or GlyphStyle(basis=file_basis)
        self._references: dict[Any, float] = {}
        self._largest: tuple[Any, np.ndarray] | None = None
        self._facts: tuple[Any, VoxelFacts | None] = (None, None)
        self.volume_budget = SOFTWARE.volume
        super().__init__(
            data, 3, affine=affine, axis_labels=axis_labels, blending=blending, cache=cache,
            experimental_clipping_planes=experimental_clipping_planes, metadata=metadata,
            name=name, opacity=opacity, projection_mode=projection_mode, rotate=rotate,
            scale=scale, shear=shear, translate=translate, units=units, visible=visible,
        )  # fmt: skip
        self.events.add(style=Event, look=Event, inspect=Event)
        self._inspecting = False
        self.mouse_drag_callbacks.append(_click)

    @property
    def data(self) -> Any:
        """The coefficients (Z, Y, X, C)."""
        return self.field.data

    @data.setter
    def data(self, data: Any) -> None:
        self.field = GlyphField(data, None)
        self._mask = None
        self._references.clear()
        self._largest = None
        self._facts = (None, None)
        self._update_dims()
        self.events.data(value=data)
        self.refresh()

    @property
    def frame(self) -> np.ndarray:
        """RAS directions to millimetres of the layer's world x, y, z (3, 3)."""
        return self._frame

    @property
    def style(self) -> GlyphStyle:
        """How the glyphs look."""
        return self._style

    def restyle(self, **changes: Any) -> None:
        """Change how the glyphs look, redrawing at once.

        Raises
        ------
        InputError
            If a colour or an extent is not known.
        """
        style = replace(self._style, **changes)
        for value, known in ((style.colour, COLOURS), (style.extent, EXTENTS)):
            if value not in known:
                raise InputError(f"{value!r} is not known; choose one of {', '.join(known)}.")
        old, self._style = self._style, style
        if (old.basis, old.order) != (style.basis, style.order):
            self._facts = (None, None)
        if {"extent", "thickness"} & changes.keys():
            self.refresh(thumbnail=False, extent=False)
        elif changes.keys() - {"lighting", "detail", "outline"}:
            self.events.set_data()
        self.events.look()
        self.events.style()

    @property
    def inspecting(self) -> bool:
        """Whether a click opens the glyph under it."""
        return self._inspecting

    @inspecting.setter
    def inspecting(self, on: bool) -> None:
        self._inspecting = bool(on)
        self.cursor = "cross" if on else "standard"
        self.events.style()

    @property
    def space(self) -> ShSpace:
        """The functions drawn, after the order cut-off."""
        return self.field.space.cut(self._style.order)

    @property
    def reading(self) -> Reading:
        """The basis the file was read as, and the one it is in."""
        return (self._file_basis, self._style.basis)

    @property
    def voxel_size(self) -> float:
        """The shortest voxel edge in the layer's units (mm)."""
        return float(np.linalg.norm(self._linear(), axis=0).min())

    @property
    def reference(self) -> float:
        """The amplitude that just fits its voxel: the 95th percentile in the middle slice."""
        key = self._style.basis
        if key not in self._references:
            glyphs = self.field.plane(0, (self.field.grid[0] - 1) // 2)
            if not len(glyphs):
                glyphs = self._slicing_state.glyphs or glyphs
            if not len(glyphs):
                return 1.0
            largest = largest_amplitudes(glyphs.coefficients, self.field.space, self.reading)
            found = largest[np.isfinite(largest) & (largest > 0)]
            if not found.size:
                return 1.0
            self._references[key] = float(np.percentile(found, REFERENCE_PERCENTILE))
        return self._references[key]

    def shown(self) -> tuple[Glyphs, np.ndarray, np.ndarray]:
        """Return the glyphs on show, their gains (N,) in mm, and their own colours (N, 4)."""
        style = self._style
        if self._slicing_state.glyphs is None:
            self._slicing_state.set_view_slice()
        glyphs = self._slicing_state.glyphs
        if glyphs is None or not len(glyphs):
            empty = Glyphs(np.zeros((0, 3), np.int64), np.zeros((0, self.space.count), np.float32))
            return empty, np.zeros(0), np.zeros((0, 4))
        key = (id(glyphs), self.space, self.reading, style.negative)
        if self._largest is None or self._largest[0] != key:
            args = (glyphs.coefficients, self.space, self.reading, style.negative)
            self._largest = (key, largest_amplitudes(*args))
        largest = self._largest[1]
        reference = self.reference
        keep = (largest > 0) & np.isfinite(largest) & (largest >= style.threshold * reference)
        if style.where is not None:
            values = map_values(style.where, glyphs.voxels)
            if values is not None:
                keep &= values > style.where_above
        if not keep.all():
            # which glyphs are left names them: a map may be painted on, a threshold moved
            name = (glyphs.key, np.packbits(keep).tobytes())
            glyphs = Glyphs(glyphs.voxels[keep], glyphs.coefficients[keep], name, glyphs.step)
            largest = largest[keep]
        gains = gains_of(style, largest, reference, self.voxel_size * glyphs.step)
        return glyphs, gains, self._colours_of(glyphs)

    def _colours_of(self, glyphs: Glyphs) -> np.ndarray:
        colours = np.zeros((len(glyphs), 4))
        style = self._style
        if style.colour == "uniform":
            colours[:] = (*style.uniform, 1)
        elif style.colour == "map" and style.colour_layer is not None:
            values = map_values(style.colour_layer, glyphs.voxels)
            if values is not None:
                low, high = style.colour_layer.contrast_limits
                share = np.clip((values - low) / max(high - low, 1e-30), 0, 1)
                colours[:, :3] = style.colour_layer.colormap.map(np.nan_to_num(share))[:, :3]
                colours[:, 3] = 1
        return colours

    def facts_at(self, voxel: tuple[int, ...]) -> VoxelFacts | None:
        """Return peaks, GFA and AFD of a voxel (z, y, x); None where there is no glyph."""
        if self._facts[0] != voxel:
            values = self.field.voxel(voxel)
            facts = None if values is None else describe(values, self.space, self.reading)
            self._facts = (voxel, facts)
        return self._facts[1]

    def _linear(self) -> np.ndarray:
        return np.asarray(self._transforms.simplified.linear_matrix)

    def _get_ndim(self) -> int:
        return 3

    @property
    def _extent_data(self) -> np.ndarray:
        return np.vstack([np.zeros(3), np.array(self.field.grid) - 1.0])

    @property
    def _extent_data_augmented(self) -> np.ndarray:
        return self._extent_data + np.array([[-0.5], [0.5]])

    def _get_state(self) -> dict[str, Any]:
        return {
            **self._get_base_state(),
            "data": self.data,
            "frame": self._frame,
            "mask": self._mask,
            "file_basis": self._file_basis,
            "basis_named": self.basis_named,
            "style": self._style,
        }

    def _set_view_slice(self) -> None:
        self._slicing_state._set_view_slice()

    def _get_layer_slicing_state(self, data: Any, cache: bool) -> GlyphSlicing:
        return GlyphSlicing(self, data, cache)

    def _update_thumbnail(self) -> None:
        picture = np.zeros(self._thumbnail_shape, np.uint8)
        glyphs = self._slicing_state.glyphs
        if glyphs is not None and len(glyphs):
            across = glyphs.voxels[:, self._slice_input.displayed[-2:]]
            span = np.maximum(across.max(0), 1)
            size = np.array(picture.shape[:2]) - 1
            rows, columns = (across / span * size).astype(int).T
            level = np.abs(glyphs.coefficients[:, 0])
            top = max(float(np.percentile(level, 95)), 1e-30)
            value = np.clip(level / top, 0, 1) * 255
            picture[rows, columns, :3] = value[:, None].astype(np.uint8)
            picture[rows, columns, 3] = 255
        self.thumbnail = picture

    def _get_value(self, position: tuple[float, ...]) -> str | None:
        return self._words(tuple(int(p) for p in np.round(position)))

    def _get_value_3d(
        self, start_point: Any, end_point: Any, dims_displayed: list[int]
    ) -> str | None:
        voxel = self.voxel_on_ray(start_point, end_point)
        return None if voxel is None else self._words(voxel)

    def voxel_on_ray(self, start: Any, end: Any) -> tuple[int, ...] | None:
        """Return the first shown glyph that a ray through the data passes within half a voxel."""
        glyphs = self._slicing_state.glyphs
        if start is None or end is None or glyphs is None or not len(glyphs):
            return None
        start, end = np.asarray(start, float), np.asarray(end, float)
        ray = end - start
        ray /= max(np.linalg.norm(ray), 1e-30)
        apart = glyphs.voxels - start
        along = apart @ ray
        beside = np.linalg.norm(apart - along[:, None] * ray, axis=1)
        near = np.flatnonzero(beside < 0.5 * glyphs.step)
        if not near.size:
            return None
        return tuple(int(i) for i in glyphs.voxels[near[np.argmin(along[near])]])

    def _words(self, voxel: tuple[int, ...]) -> str | None:
        facts = self.facts_at(voxel)
        return None if facts is None else f"voxel {voxel[::-1]} | {facts}"


def _click(layer: SHGlyphs, event: Any) -> Any:
    """Open the glyph under a click, with Shift or while inspecting, unless the mouse moves."""
    asked = layer.inspecting or "Shift" in [str(m) for m in event.modifiers]
    yield
    while event.type == "mouse_move":
        asked = asked and event.is_dragging is False
        yield
    if not asked:
        return
    if len(event.dims_displayed) == 2:
        voxel = tuple(int(p) for p in np.round(layer.world_to_data(event.position)))
    else:
        start, end = layer.get_ray_intersections(
            event.position, event.view_direction, event.dims_displayed, world=True
        )
        found = layer.voxel_on_ray(start, end)
        if found is None:
            return
        voxel = found
    if layer.field.voxel(voxel) is not None:
        layer.events.inspect(voxel=voxel)
