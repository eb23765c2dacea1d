"""Turn core objects into napari layers and back.

napari shows arrays as (volume, z, y, x) = (v, S, A, R): the closest-canonical array with its axes
reversed, which is a free view. Scale and translation are in millimetres and never carry a
rotation (an axis permutation breaks the viewer); the true affine stays in the metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils import Colormap, DirectLabelColormap

from napari_dmri.images import ScalarImage, ShImage, TensorImage
from napari_dmri.scan import Scan

if TYPE_CHECKING:
    from napari_dmri.io.sh_images import ShFile

__all__ = [
    "DIVERGING",
    "KEY",
    "ReversedAxes",
    "kind_of",
    "labels_layer",
    "map_layer",
    "mask_on",
    "object_of",
    "rgb_layer",
    "scan_layer",
    "scan_of",
    "sh_layer",
    "spatial",
    "to_napari",
    "tracks_layer",
]

KEY = "napari_dmri"
"""Where our facts live in ``layer.metadata``: ``kind``, ``object``, ``affine``, ``provenance``."""

DIVERGING = "RdBu_r"
"""The colours of signed maps: red above, blue below."""

LayerData = tuple[Any, dict[str, Any], str]

MASK_COLOUR = "#ffd33d"
"""Yellow: seen on gray and on direction colours."""


class ReversedAxes:
    """Show a lazily read array with its axes reversed, reading only what is sliced."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.shape = tuple(reversed(source.shape))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(source.dtype)
        self.size = int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [k if k is Ellipsis else None for k in key]:
            at = [k is Ellipsis for k in key].index(True)
            missing = self.ndim - (len(key) - 1)
            key = (*key[:at], *[slice(None)] * missing, *key[at + 1 :])
        key = (*key, *[slice(None)] * (self.ndim - len(key)))
        return np.asarray(self.source[tuple(reversed(key))]).T

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[(slice(None),) * self.ndim]
        return array if dtype is None else array.astype(dtype, copy=False)


def to_napari(array: Any) -> Any:
    """Reverse the axes of (X, Y, Z, ...) without copying."""
    return array.T if isinstance(array, np.ndarray) else ReversedAxes(array)


def spatial(
    affine: np.ndarray, shape: tuple[int, ...], leading: str | None = None
) -> dict[str, Any]:
    """Return napari's scale, translate, units and axis labels for a (X, Y, Z, ...) array.

    The centre of the volume sits at its true place in scanner millimetres; an oblique volume is
    shown unrotated about it.
    """
    size = np.linalg.norm(affine[:3, :3], axis=0)
    centre = (np.array(shape[:3]) - 1) / 2
    translate = (affine @ np.append(centre, 1))[:3] - size * centre
    scale, offset = list(size[::-1]), list(translate[::-1])
    units, labels = ["mm"] * 3, ["z", "y", "x"]
    if leading is not None:
        scale, offset = [1.0, *scale], [0.0, *offset]
        units, labels = ["dimensionless", *units], [leading, *labels]
    return {"scale": scale, "translate": offset, "units": units, "axis_labels": labels}


def _metadata(kind: str, thing: Any, affine: np.ndarray, provenance: Mapping[str, Any]) -> dict:
    return {KEY: {"kind": kind, "object": thing, "affine": affine, "provenance": dict(provenance)}}


def _limits(array: Any, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    values = np.asarray(array)
    step = max(1, round((values.size / 200_000) ** (1 / values.ndim)))
    values = values[(slice(None, None, step),) * values.ndim].astype(np.float32)
    values = values[np.isfinite(values) & (values != 0)]
    if not values.size:
        return 0.0, 1.0
    a, b = (float(v) for v in np.percentile(values, [low, high]))
    return (a, b) if b > a else (a, a + 1.0)


def scan_layer(scan: Scan, **changes: Any) -> LayerData:
    """Describe a scan as a 4D image layer, volumes first."""
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    first = int(b0[0]) if b0.size else 0
    _, high = _limits(scan.data[..., first])
    kwargs = {
        "name": scan.name,
        "rgb": False,
        "multiscale": False,
        "contrast_limits": (0.0, max(high, 1e-6)),
        "colormap": "gray",
        "metadata": _metadata("scan", scan, scan.affine, scan.metadata.get("provenance", {})),
        **spatial(scan.affine, scan.shape, "volume"),
        **changes,
    }
    return to_napari(scan.data), kwargs, "image"


def map_layer(image: ScalarImage, leading: str = "component", **changes: Any) -> LayerData:
    """Describe a map as an image layer; signed maps get a diverging, symmetric scale."""
    data = image.data if hasattr(image.data, "ndim") else np.asarray(image.data)
    low, high = _limits(data[..., 0] if data.ndim == 4 else data)
    if low < 0 < high:
        top = max(-low, high)
        look: dict[str, Any] = {"colormap": DIVERGING, "contrast_limits": (-top, top)}
    else:
        look = {"colormap": "gray", "contrast_limits": (min(0.0, low), max(high, 1e-12))}
    kwargs = {
        "name": image.name,
        "rgb": False,
        "multiscale": False,
        "metadata": _metadata("map", image, image.affine, image.provenance),
        **look,
        **spatial(image.affine, data.shape, leading if data.ndim == 4 else None),
        **changes,
    }
    return to_napari(data), kwargs, "image"


def rgb_layer(data: np.ndarray, affine: np.ndarray, name: str, **changes: Any) -> LayerData:
    """Describe a colour image (X, Y, Z, 3) in [0, 1], e.g. colour FA."""
    kwargs = {
        "name": name,
        "rgb": True,
        "metadata": _metadata("colour", data, affine, changes.pop("provenance", {})),
        **spatial(affine, data.shape),
        **changes,
    }
    return np.ascontiguousarray(data.transpose(2, 1, 0, 3)), kwargs, "image"


def labels_layer(image: ScalarImage, kind: str = "labels", **changes: Any) -> LayerData:
    """Describe integer labels or a mask (kind ``"mask"``) as a Labels layer."""
    data = np.asarray(image.data)
    data = data.astype(np.uint8) if data.dtype == bool else data
    look: dict[str, Any] = {"opacity": 0.4}
    if kind == "mask":
        look["colormap"] = DirectLabelColormap(color_dict={0: (0, 0, 0, 0), None: MASK_COLOUR})
    kwargs = {
        "name": image.name,
        **look,
        "metadata": _metadata(kind, image, image.affine, image.provenance),
        **spatial(image.affine, data.shape),
        **changes,
    }
    return to_napari(data), kwargs, "labels"


def sh_layer(image: ShImage | ShFile, **changes: Any) -> LayerData:
    """Describe SH coefficients as a 4D image layer, one coefficient a step; a file stays lazy."""
    _, high = _limits(image.coefficients[..., 0])
    kwargs = {
        "name": image.name,
        "rgb": False,
        "multiscale": False,
        "colormap": "gray",
        "contrast_limits": (0.0, max(high, 1e-12)),
        "metadata": _metadata("sh", image, image.affine, image.provenance),
        **spatial(image.affine, image.shape, "volume"),
        **changes,
    }
    return to_napari(image.coefficients), kwargs, "image"


def tracks_layer(streamlines: Sequence[np.ndarray], name: str, **changes: Any) -> LayerData:
    """Describe streamlines (scanner millimetres) as tracks, coloured by direction.

    Every point sits at time 0, so that all streamlines show whatever volume is on show.
    """
    lines = [line for line in streamlines if len(line) > 1]
    counts = np.array([len(line) for line in lines], dtype=np.intp)
    points = np.concatenate(lines) if lines else np.empty((0, 3))
    data = np.zeros((len(points), 5))
    data[:, 0] = np.repeat(np.arange(len(lines)), counts)
    data[:, 2:] = points[:, ::-1]
    steps = np.concatenate([np.gradient(line, axis=0) for line in lines]) if lines else points
    steps = np.abs(steps) / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-12)
    colours = _octant()
    codes = np.empty(len(steps))
    for start in range(0, len(steps), 65536):
        part = slice(start, start + 65536)
        codes[part] = (steps[part] @ colours.T).argmax(1)
    palette = Colormap(
        np.c_[colours, np.ones(len(colours))], name="direction", interpolation="zero"
    )
    kwargs = {
        "name": name,
        "scale": (1, 1, 1, 1),
        "units": ("dimensionless", "mm", "mm", "mm"),
        "axis_labels": ("volume", "z", "y", "x"),
        "features": {"direction": (codes + 0.5) / len(colours)},
        "colormaps_dict": {"direction": palette},
        "color_by": "direction",
        "blending": "translucent",
        "tail_width": 2,
        "tail_length": 100_000,
        "metadata": _metadata("streamlines", lines, np.eye(4), {}),
        **changes,
    }
    return data, kwargs, "tracks"


def _octant(count: int = 1600) -> np.ndarray:
    """Return unit vectors spread evenly over the octant of positive x, y and z."""
    index = np.arange(count) + 0.5
    z, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    points = np.c_[radius * np.cos(angle), radius * np.sin(angle), z]
    return points[(points >= 0).all(1)]


def kind_of(layer: Any) -> str | None:
    """Return what a layer holds (``"scan"``, ``"map"``, ``"mask"``, ...); None if not ours."""
    facts = layer.metadata.get(KEY) if hasattr(layer, "metadata") else None
    return facts.get("kind") if isinstance(facts, Mapping) else None


def object_of(layer: Any) -> Any:
    """Return the core object behind a layer, or None."""
    facts = layer.metadata.get(KEY) if layer is not None else None
    return facts.get("object") if isinstance(facts, Mapping) else None


def scan_of(layer: Any) -> Scan | None:
    """Return the scan behind a layer, or None."""
    thing = object_of(layer)
    return thing if isinstance(thing, Scan) else None


def mask_on(layer: Any, scan: Scan) -> np.ndarray | None:
    """Return a Labels layer as a mask (X, Y, Z) as it is painted now; None on another grid."""
    data = getattr(layer, "data", None)
    if not isinstance(layer, Labels) or data.shape[-3:] != scan.grid[::-1]:
        return None
    facts = layer.metadata.get(KEY, {})
    expected = spatial(scan.affine, scan.grid)
    for name in ("scale", "translate"):
        if not np.allclose(getattr(layer, name)[-3:], expected[name], atol=1e-3):
            return None
    if facts.get("affine") is not None and not np.allclose(facts["affine"], scan.affine, atol=1e-3):
        return None
    return np.asarray(data).reshape(data.shape[-3:]).T > 0


def is_kind(*kinds: str) -> Callable[[Any], bool]:
    """Return a filter for layer pickers."""
    return lambda layer: kind_of(layer) in kinds


def tensor_of(layer: Any) -> TensorImage | None:
    """Return the tensor image behind a layer, or None."""
    thing = object_of(layer)
    return thing if isinstance(thing, TensorImage) else None
