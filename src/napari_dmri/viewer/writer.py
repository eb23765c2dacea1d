"""Save layers of ours in the files that other programs read, with true affine and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_error

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.layers import KEY

__all__ = ["affine_of", "write_image", "write_labels"]


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a scan, an SH image or a map; an existing file is refused."""
    return _attempt(_write_image, path, data, attributes)


def write_labels(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write labels or a mask as integers on the grid of the layer."""
    return _attempt(_write_labels, path, data, attributes)


def _attempt(write: Any, path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    try:
        return write(Path(path), data, attributes)
    except (InputError, OSError) as error:
        show_error(str(error))
        return []


def _write_image(path: Path, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    from napari_dmri import io
    from napari_dmri.io.sh_images import ShFile

    facts = attributes.get("metadata", {}).get(KEY, {})
    thing = facts.get("object")
    if isinstance(thing, Scan):
        written = io.write_scan(thing, path, provenance=facts.get("provenance") or None)
        return [str(p) for p in written]
    if isinstance(thing, ShFile):
        thing = thing.read()
    if isinstance(thing, ShImage):
        io.write_sh(thing, path)
        return [str(path)]
    array = np.asarray(data)
    array = array.transpose(2, 1, 0, 3) if attributes.get("rgb") else array.T
    return _write_map(path, array, attributes, facts)


def _write_labels(path: Path, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    facts = attributes.get("metadata", {}).get(KEY, {})
    array = np.asarray(data).T
    top = int(array.max()) if array.size else 0
    kind = np.uint8 if top < 256 else np.int16 if top < 2**15 else np.int32
    return _write_map(path, array.astype(kind), attributes, facts)


def _write_map(
    path: Path, array: np.ndarray, attributes: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[str]:
    from napari_dmri import io

    if array.ndim < 3:
        raise InputError(
            f"{attributes.get('name', 'The layer')} has {array.ndim} axes; a NIfTI map has 3 or "
            "4: save this layer with another writer."
        )
    image = ScalarImage(
        array,
        affine_of(array.shape, attributes),
        name=str(attributes.get("name", path.name.split(".")[0])),
        units=getattr(facts.get("object"), "units", ""),
        provenance=facts.get("provenance", {}),
    )
    io.write_map(image, path)
    return [str(path)]


def affine_of(shape: tuple[int, ...], attributes: Mapping[str, Any]) -> np.ndarray:
    """Return a layer's voxel-to-millimetre affine (4, 4) for data (X, Y, Z, ...).

    Layers of ours carry it; for any other it is made of the layer's scale and translation.
    """
    facts = attributes.get("metadata", {}).get(KEY, {})
    if facts.get("affine") is not None:
        return np.asarray(facts["affine"], dtype=np.float64)
    scale = np.asarray(attributes.get("scale", (1, 1, 1)), dtype=np.float64)[-3:][::-1]
    translate = np.asarray(attributes.get("translate", (0, 0, 0)), dtype=np.float64)[-3:][::-1]
    affine = np.diag([*scale, 1.0])
    affine[:3, 3] = translate
    return affine
