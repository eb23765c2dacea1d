"""Put glyphs of an SH image into a viewer, or peaks where the graphics system cannot draw them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_warning
from scipy.linalg import polar

from napari_dmri.device import require_memory
from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.viewer import _napari_compat as compat
from napari_dmri.viewer.glyphs.style import GlyphStyle
from napari_dmri.viewer.layers import KEY, kind_of, object_of, spatial

if TYPE_CHECKING:
    from napari_dmri.io.sh_images import ShFile

__all__ = [
    "frame_of",
    "glyph_layer",
    "image_of",
    "save_glyphs",
    "sh_behind",
    "sh_of",
    "show_glyphs",
]


def frame_of(affine: np.ndarray) -> np.ndarray:
    """Return the turn from RAS to the axes as they are shown: volumes are shown unrotated.

    Parameters
    ----------
    affine
        Voxels to RAS millimetres (4, 4).

    Returns
    -------
    (3, 3), orthogonal; the identity for volumes along the scanner's axes.
    """
    linear = np.asarray(affine, float)[:3, :3]
    rotation, _ = polar(linear / np.linalg.norm(linear, axis=0))
    return rotation.T


def glyph_layer(image: ShImage | ShFile, **changes: Any) -> Any:
    """Make the glyph layer of an SH image, or of an SH file, of which only what is shown is read.

    Raises
    ------
    InputError
        If glyphs cannot be drawn here; the sentence says why.
    """
    problem = compat.why_no_glyphs()
    if problem:
        raise InputError(problem)
    layer_type = _registered()
    where = spatial(image.affine, image.shape[:3])
    facts = {"kind": "glyphs", "object": image, "affine": image.affine,
             "provenance": dict(image.provenance)}  # fmt: skip
    how: dict[str, Any] = {}
    if isinstance(image, ShImage):
        data: Any = image.coefficients.transpose(2, 1, 0, 3)
        how["mask"] = None if image.mask is None else image.mask.T
    else:
        data = image.coefficients.reordered((2, 1, 0, 3), (False,) * 4)
        how.update(style=GlyphStyle(basis=image.basis), basis_named=image.named)
    return layer_type(
        data,
        frame=frame_of(image.affine),
        **{"name": f"{image.name} glyphs", "metadata": {KEY: facts}, **how, **where, **changes},
    )


def show_glyphs(viewer: Any, image: ShImage | ShFile, **changes: Any) -> Any:
    """Add glyphs of an SH image or file to a viewer and return their layer.

    Where the graphics system or this napari cannot draw them, peaks are added as vectors, and a
    warning says why.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    problem = compat.why_no_glyphs()
    if problem:
        from napari_dmri.viewer.glyphs.peaks import peaks_layer

        show_warning(f"{problem} Peaks are shown instead.")
        return viewer.add_layer(peaks_layer(image if isinstance(image, ShImage) else image.read()))
    return viewer.add_layer(glyph_layer(image, **changes))


def sh_behind(layer: Any) -> ShImage | ShFile | None:
    """Return the SH image or file behind an image layer of coefficients or a glyph layer."""
    from napari_dmri.io.sh_images import ShFile

    thing = object_of(layer) if kind_of(layer) in ("sh", "glyphs") else None
    return thing if isinstance(thing, (ShImage, ShFile)) else None


def sh_of(layer: Any) -> ShImage | None:
    """Return the SH image behind a layer, all of it in memory and in the basis shown, or None.

    Raises
    ------
    InputError
        If it does not fit into free memory.
    """
    thing = sh_behind(layer)
    if kind_of(layer) == "glyphs" and thing is not None:
        return image_of(layer)
    return thing if thing is None or isinstance(thing, ShImage) else thing.read()


def image_of(layer: Any) -> ShImage:
    """Return what a glyph layer shows as an SH image, in the basis that it is shown in.

    Raises
    ------
    InputError
        If it holds odd degrees too, which SH files of MRtrix3 and DIPY do not.
    """
    from napari_dmri.viewer.glyphs.basis import reading_change

    if layer.field.space.full:
        raise InputError(
            f"{layer.name} holds odd degrees too ({layer.field.space.count} coefficients a voxel); "
            "only even sets can be saved as an SH image."
        )
    facts = layer.metadata.get(KEY, {})
    thing = facts.get("object")
    affine = facts.get("affine")
    if affine is None:
        affine = np.diag([*np.asarray(layer.scale)[::-1], 1.0])
        affine[:3, 3] = np.asarray(layer.translate)[::-1]
    data = layer.data
    copies = int(not isinstance(data, np.ndarray)) + int(layer.reading[0] != layer.reading[1])
    size = 4 * int(np.prod(data.shape, dtype=np.int64))
    require_memory(copies * size, f"Reading {layer.name}", "crop it or close other programs.")
    coefficients = np.asarray(data, np.float32).transpose(2, 1, 0, 3)
    if layer.reading[0] != layer.reading[1]:
        change = reading_change(layer.reading, layer.field.space).astype(np.float32)
        coefficients = coefficients @ change
    coefficients = np.ascontiguousarray(coefficients)
    if isinstance(thing, ShImage):
        return thing.with_coefficients(coefficients)
    about = {
        key: getattr(thing, key)
        for key in ("bvalue", "normalised", "name", "provenance")
        if hasattr(thing, key)
    }
    return ShImage(coefficients, affine, **{"name": layer.name, **about})


def save_glyphs(
    layer: Any, path: str | Path, *, basis: str = "tournier07", overwrite: bool = False
) -> list[Path]:
    """Write a glyph layer as an SH image (NIfTI, or .mif in MRtrix3's basis).

    Raises
    ------
    InputError
        If it holds odd degrees, the format is not known, or the file exists.
    """
    from napari_dmri.io import write_sh

    return write_sh(image_of(layer), path, basis=basis, overwrite=overwrite)


def _registered() -> Any:
    """Return the layer type, made known to napari on the first call."""
    from napari_dmri.viewer.glyphs.commands import menu_actions
    from napari_dmri.viewer.glyphs.layer import SHGlyphs

    if SHGlyphs not in compat.layer_to_visual:
        from napari_dmri.viewer.glyphs.controls import GlyphControls
        from napari_dmri.viewer.glyphs.scene import VispySHGlyphs

        compat.register_layer(SHGlyphs, VispySHGlyphs, GlyphControls)
    compat.add_to_context_menu(SHGlyphs, menu_actions())
    return SHGlyphs
