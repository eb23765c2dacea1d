"""Textures that hold what the shader samples: radii of each glyph, or coefficients and basis."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np
from vispy import gloo
from vispy.visuals.shaders import Function

from napari_dmri.viewer.glyphs.basis import Reading, ShSpace
from napari_dmri.viewer.glyphs.field import blocks
from napari_dmri.viewer.glyphs.shaders import SAMPLE_STORED, SAMPLE_SUMMED
from napari_dmri.viewer.glyphs.sphere import evaluation_matrix

__all__ = ["GlyphTextures", "basis_places"]

CACHE_BYTES = 12 * 2**20
WIDTH = 4096
"""Texels in a row; a glyph never crosses rows, so places are exact in floats."""


def _groups(space: ShSpace) -> int:
    return -(-space.count // 4)


def basis_places(slots: np.ndarray, space: ShSpace) -> np.ndarray:
    """Return where the directions' basis values lie in the basis texture, x and y (V, 2)."""
    wide = 4 * _groups(space)
    rows, columns = np.divmod(slots, max(1, WIDTH // wide))
    return np.column_stack([columns * wide, rows])


class GlyphTextures:
    """Keep the textures of one visual, and the shader function that samples them.

    Attributes
    ----------
    places
        Where each glyph begins in the texture, x and y (N, 2).
    function
        What gives radius and gradient in the shader; it is made anew only when the way changes.
    """

    def __init__(self) -> None:
        self.places = np.zeros((0, 2))
        self.function: Function | None = None
        self._code = ""
        self._cache: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._texels: gloo.Texture2D | None = None
        self._basis: gloo.Texture2D | None = None
        self._basis_key: Any = None

    def forget(self) -> None:
        """Drop stored radii."""
        self._cache.clear()

    def store_radii(
        self,
        coefficients: np.ndarray,
        space: ShSpace,
        reading: Reading,
        frequency: int,
        key: Hashable = None,
    ) -> None:
        """Fill the texture with radii and gradients: one product for all, kept under its key."""
        matrix = evaluation_matrix(frequency, space, reading)
        slots, count = matrix.shape[1], len(coefficients)
        per_row = max(1, WIDTH // slots)
        rows = -(-count // per_row)
        key = None if key is None else (key, space, reading, frequency)
        radii = self._cache.get(key) if key is not None else None
        if radii is None:
            radii = np.empty((rows * per_row, slots * 4), np.float32)
            flat = matrix.reshape(matrix.shape[0], -1)
            for part in blocks(count):
                np.matmul(coefficients[part, : space.count], flat, out=radii[part])
            radii[count:] = 0
            radii = radii.reshape(rows, per_row * slots, 4)
            if key is not None:
                self._remember(key, radii)
        self._fill(radii, count, per_row, slots)
        self._sample(SAMPLE_STORED, radii=self._texels)

    def store_coefficients(self, coefficients: np.ndarray, space: ShSpace) -> None:
        """Fill the texture with coefficients, four to a texel."""
        groups, count = _groups(space), len(coefficients)
        per_row = max(1, WIDTH // groups)
        rows = -(-count // per_row)
        packed = np.zeros((rows * per_row, groups * 4), np.float32)
        packed[:count, : space.count] = coefficients[:, : space.count]
        self._fill(packed.reshape(rows, per_row * groups, 4), count, per_row, groups)

    def store_basis(self, space: ShSpace, reading: Reading, frequency: int) -> None:
        """Fill the basis texture: for each direction and coefficient the value and the gradient."""
        groups = _groups(space)
        if self._basis_key != (frequency, space, reading):
            matrix = evaluation_matrix(frequency, space, reading)
            slots = matrix.shape[1]
            per_row = max(1, WIDTH // (4 * groups))
            rows = -(-slots // per_row)
            packed = np.zeros((rows * per_row, groups * 4, 4), np.float32)
            packed[:slots, : space.count] = matrix.transpose(1, 0, 2)
            self._basis = _float_texture(packed.reshape(rows, -1, 4))
            self._basis_key = (frequency, space, reading)
        self._sample(
            SAMPLE_SUMMED,
            coefficients=self._texels,
            basis=self._basis,
            basis_size=_size(self._basis),
            groups=float(groups),
        )

    def _fill(self, texels: np.ndarray, count: int, per_row: int, wide: int) -> None:
        number = np.arange(count)
        self.places = np.column_stack([number % per_row * wide, number // per_row])
        if self._texels is None:
            self._texels = _float_texture(texels)
        else:
            self._texels.set_data(texels)

    def _remember(self, key: Hashable, radii: np.ndarray) -> None:
        self._cache[key] = radii
        while len(self._cache) > 1 and sum(r.nbytes for r in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)

    def _sample(self, code: str, **values: Any) -> None:
        if self._code != code:
            self._code, self.function = code, Function(code)
        self.function["size"] = _size(self._texels)
        for name, value in values.items():
            self.function[name] = value


def _float_texture(texels: np.ndarray) -> gloo.Texture2D:
    return gloo.Texture2D(
        texels, internalformat="rgba32f", interpolation="nearest", wrapping="clamp_to_edge"
    )


def _size(texture: gloo.Texture2D) -> tuple[float, float]:
    return float(texture.shape[1]), float(texture.shape[0])
