"""Tell what a file is before opening it for good."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import full_suffix, stem_of
from napari_dmri.io.bids import find_gradients, read_sidecar
from napari_dmri.io.gradients import read_numbers
from napari_dmri.io.opened import OpenedImage, existing_file, open_image
from napari_dmri.io.streamlines import STREAMLINE_SUFFIXES
from napari_dmri.sphere.harmonics import order_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["classify", "what_is_missing"]

MOST_LABELS = 64
"""An integer image without a telling name is a segmentation up to this many distinct values."""

_LABEL_WORD = re.compile(r"(?:^|[^a-z])(d?seg|aseg|labels?|mask|aparc|parc)(?:$|[^a-z])")
_SH_WORD = re.compile(r"(?:^|[^a-z])sh(?:$|[^a-z])|fod|odf")


def classify(path: str | Path) -> str:
    """Tell what a file holds.

    Returns
    -------
    ``"scan"`` (4D with a gradient table), ``"sh"`` (SH coefficients, by sidecar or by name and
    count), ``"series"`` (other 4D), ``"labels"`` (3D integers with few values, or whole numbers
    under a name with seg, label, mask, aparc), ``"image"`` (other 3D), or ``"streamlines"``.

    Raises
    ------
    InputError
        If there is no such file, it cannot be opened, or it is DICOM.
    """
    path = existing_file(path)
    if full_suffix(path) in STREAMLINE_SUFFIXES:
        return "streamlines"
    image = open_image(path)
    volumes = image.data.shape[3]
    if image.ndim == 4 and "SphericalHarmonicBasis" in read_sidecar(path):
        return "sh"
    if image.ndim == 4 and image.bvalues is None and _looks_like_sh(image):
        return "sh"
    if image.ndim == 4 and _why_no_table(image) == "":
        return "scan"
    if volumes > 1:
        return "series"
    return "labels" if _looks_like_labels(image) else "image"


def what_is_missing(path: str | Path) -> str:
    """Say in one sentence why a 4D file is not opened as a scan, or "" if it is."""
    return _why_no_table(open_image(path))


def _why_no_table(image: OpenedImage) -> str:
    """Say what is missing for a gradient table; "" when there is one."""
    name, stem, volumes = image.path.name, stem_of(image.path), image.data.shape[3]
    if image.bvalues is not None:
        return ""
    try:
        found = find_gradients(image.path)
    except InputError as error:
        return str(error)
    if found is None:
        return (
            f"{name} has {volumes} volumes and no gradient table, so it opens as an image; put "
            f"{stem}.bval and {stem}.bvec beside it to open it as a scan."
        )
    if stem_of(found[0]).startswith(stem):
        return ""
    try:
        count = read_numbers(found[0]).size
    except InputError as error:
        return str(error)
    if count == volumes:
        return ""
    return (
        f"{name} has {volumes} volumes and {found[0].name} {count} b-values, so it opens as an "
        f"image; put its own {stem}.bval and {stem}.bvec beside it to open it as a scan."
    )


def _looks_like_sh(image: OpenedImage) -> bool:
    if image.data.dtype.kind != "f" or image.data.shape[3] < 6:
        return False
    try:
        order_of(image.data.shape[3])
    except InputError:
        return False
    return _SH_WORD.search(stem_of(image.path).lower()) is not None


def _looks_like_labels(image: OpenedImage) -> bool:
    named = _LABEL_WORD.search(stem_of(image.path).lower()) is not None
    integer = image.data.dtype.kind in "iub"
    if not named and not integer:
        return False
    data = image.data[..., 0]
    if integer:
        return named or np.unique(data).size <= MOST_LABELS
    return bool(np.isfinite(data).all() and (data == np.round(data)).all())
