"""Open scans, SH images, maps, masks and streamlines in register, whatever their format."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QTimer

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.viewer.layers import (
    KEY,
    LayerData,
    labels_layer,
    map_layer,
    object_of,
    scan_layer,
    sh_layer,
    tracks_layer,
)

if TYPE_CHECKING:
    from napari_dmri.io.sh_images import ShFile

__all__ = [
    "NOTHING",
    "SUFFIXES",
    "get_reader",
    "layers_from",
    "read",
    "reading_gradients_from",
    "reading_sh_as",
]

SUFFIXES = (
    ".nii",
    ".nii.gz",
    ".mif",
    ".mif.gz",
    ".nrrd",
    ".nhdr",
    ".tck",
    ".trk",
    ".trx",
)

_basis: ContextVar[str | None] = ContextVar("basis", default=None)
_gradients: ContextVar[tuple[str | Path, str | Path] | None] = ContextVar("gradients", default=None)

NOTHING: list[Any] = [(None,)]
"""What a napari reader returns when it dealt with a file and has no layer to add."""


@contextmanager
def reading_sh_as(basis: str | None) -> Iterator[None]:
    """Read SH files in a basis, and 4D files without gradients as SH files, while it lasts.

    Raises
    ------
    InputError
        If the basis is not known.
    """
    from napari_dmri.io.sh_images import basis_name

    token = _basis.set(None if basis is None else basis_name(basis))
    try:
        yield
    finally:
        _basis.reset(token)


@contextmanager
def reading_gradients_from(files: tuple[str | Path, str | Path] | None) -> Iterator[None]:
    """Read 4D images as scans with the gradients of a bval and a bvec file, while it lasts."""
    token = _gradients.set(files)
    try:
        yield
    finally:
        _gradients.reset(token)


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Any]] | None:
    """Return a function that reads the path, or None where it is not ours."""
    paths = [path] if isinstance(path, str) else list(path)
    for one in paths:
        if Path(one).is_dir():
            if not _holds_dicom(Path(one)):
                return None
        elif not one.lower().endswith(SUFFIXES):
            return None
    return read


def read(path: str | Sequence[str]) -> list[Any]:
    """Read files as layers; a file that cannot be read gets one sentence and no layer."""
    layers: list[Any] = []
    viewer = napari.current_viewer()
    if viewer is not None and not len(viewer.layers):
        from napari_dmri.viewer.orientation import prepare

        prepare(viewer)
    for one in [path] if isinstance(path, str) else path:
        try:
            before = len(layers)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DmriWarning)
                layers.extend(layers_from(one))
        except (InputError, OSError) as error:
            show_error(_sentence(error, one))
            continue
        for warning in caught:
            if issubclass(warning.category, DmriWarning):
                show_warning(str(warning.message))
        if viewer is not None:
            _glyphs_later(viewer, layers[before:])
    return layers or NOTHING


def _glyphs_later(viewer: Any, made: list[LayerData]) -> None:
    """Show SH images as glyphs once napari has added their layers; a reader cannot return them."""
    images = [
        kwargs["metadata"][KEY]["object"]
        for _, kwargs, _ in made
        if kwargs["metadata"][KEY]["kind"] == "sh"
    ]

    def show() -> None:
        from napari_dmri.viewer.glyphs.commands import show_glyphs_after_opening

        for image in images:
            layer = next((x for x in viewer.layers if object_of(x) is image), None)
            if layer is not None:
                show_glyphs_after_opening(viewer, image, layer)

    if images:
        QTimer.singleShot(0, show)


def layers_from(path: str | Path) -> list[LayerData]:
    """Read one file as layer data.

    Raises
    ------
    InputError
        If it is a DICOM folder, or a file that cannot be read as what it claims to be.
    """
    from napari_dmri import io
    from napari_dmri.io.dicom import refuse_folder

    path = Path(path)
    if path.is_dir():
        refuse_folder(path)
    kind = io.classify(path)
    gradients = _gradients.get()
    if gradients is not None and kind in ("scan", "series"):
        return [scan_layer(io.read_scan(path, bval=gradients[0], bvec=gradients[1]))]
    if kind == "scan":
        return [scan_layer(io.read_scan(path))]
    basis = _basis.get()
    if kind == "sh":
        return [sh_layer(_named(io.open_sh(path, basis=basis)))]
    if kind == "series" and basis is not None:
        with suppress(InputError):
            return [sh_layer(io.open_sh(path, basis=basis))]
    if kind == "labels":
        image = io.read_labels(path)
        mask = "mask" in path.name.lower() and image.data.max(initial=0) <= 1
        return [labels_layer(image, "mask" if mask else "labels")]
    if kind == "streamlines":
        return [tracks_layer(io.read_streamlines(path), path.name.split(".")[0])]
    if kind == "series":
        warnings.warn(io.what_is_missing(path), DmriWarning, stacklevel=2)
        return [map_layer(io.read_map(path), leading="volume")]
    return [map_layer(io.read_map(path))]


def _named(image: ShFile) -> ShFile:
    """Warn where an SH file does not say its basis."""
    if not image.named:
        warnings.warn(
            f"{image.path.name} does not say its SH basis; {image.basis} (MRtrix3) is assumed. "
            "Choose another in the glyph layer's panel if fibres do not follow the anatomy.",
            DmriWarning,
            stacklevel=3,
        )
    return image


def _holds_dicom(folder: Path) -> bool:
    from napari_dmri.io.dicom import is_dicom

    files = (path for path in folder.rglob("*") if path.is_file())
    return any(is_dicom(path) for path in islice(files, 64))


def _sentence(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(path).name} does not exist any more; choose another file."
    if isinstance(error, OSError):
        return f"{Path(path).name} cannot be read: {error.strerror or error}."
    return str(error)
