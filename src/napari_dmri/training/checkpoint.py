"""Trained models on disk: one safetensors file that holds its tensors and its card.

The card is a JSON object: what the model is, what it was trained on, what it fits. It lives in
the file's metadata together with the SHA-256 of the tensors and of the card itself, and a copy
lies beside the file as ``<name>.json`` for people to read; only the one inside is believed.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SUFFIX",
    "load_card",
    "load_checkpoint",
    "model_files",
    "require_free",
    "save_checkpoint",
    "taken",
    "tensor_hash",
]

SUFFIX = ".safetensors"
"""What model files end with; a name without it gets it."""

FORMAT = "napari-dmri model"

Tensors = dict[str, NDArray[Any]]


def tensor_hash(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of named arrays: names, types, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model_files(path: str | Path) -> tuple[Path, Path]:
    """Return the two files that a model is written to: its own, and the card beside it."""
    path = Path(path)
    if path.suffix != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    return path, path.with_suffix(".json")


def taken(path: str | Path) -> str:
    """Say that a model's file or its card is there already; an empty sentence where none is."""
    for file, goes in zip(model_files(path), ("", ", where the model's card goes,"), strict=True):
        if file.expanduser().exists():
            return f"{file}{goes} exists already and is not overwritten"
    return ""


def require_free(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse a name under which a model could not be saved, before hours of work begin.

    Returns
    -------
    The model file's path, with its suffix.

    Raises
    ------
    InputError
        If the file or its card exists and ``overwrite`` is not set, either is a folder, or their
        folder cannot be written to.
    """
    from napari_dmri.io.atomic import require_writable

    files = [file.expanduser() for file in model_files(path)]
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; give a file name inside it.")
    if not overwrite and (words := taken(path)):
        raise InputError(f"{words}; choose another name, or say overwrite=True (--overwrite).")
    require_writable(files[0].absolute().parent)
    return files[0]


def save_checkpoint(
    path: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    card: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write tensors and card to one file, and the card beside it as JSON.

    Parameters
    ----------
    path
        Where to; ``.safetensors`` is added when the name does not end with it.
    tensors
        Named arrays.
    card
        What JSON can hold; ``card["kind"]`` says what the model is.

    Returns
    -------
    The model file's path. The card written has ``"sha256"``, the hash of the tensors, added.

    Raises
    ------
    InputError
        If a target exists and ``overwrite`` is not set, or the folder cannot be written to.
    """
    from safetensors.numpy import save_file

    from napari_dmri.io.atomic import atomic_paths, to_json

    path, beside = model_files(path)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    full = {**card, "sha256": tensor_hash(arrays)}
    text = to_json(full)
    metadata = {
        "format": FORMAT,
        "card": text,
        "card_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    with atomic_paths([path, beside], overwrite=overwrite) as (partial, partial_card):
        save_file(arrays, str(partial), metadata=metadata)
        partial_card.write_text(to_json(full), encoding="utf-8")
        # safetensors makes its file private; it gets what the umask gave the card.
        partial.chmod(stat.S_IMODE(partial_card.stat().st_mode))
    return path


def load_checkpoint(path: str | Path, kind: str | None = None) -> tuple[Tensors, dict[str, Any]]:
    """Read a model file: its tensors and its card.

    Parameters
    ----------
    path
        The ``.safetensors`` file.
    kind
        What the model must be, e.g. ``"harmonizer"``; None takes any.

    Raises
    ------
    InputError
        If the file is missing, truncated, of another type or another kind, or if its tensors or
        card are not those that were saved.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    card = _card(metadata, path)
    found = tensor_hash(tensors)
    if found != card.get("sha256"):
        raise InputError(
            f"The tensors in {path.name} are not those that were saved (SHA-256 {found[:12]}, the "
            f"card says {str(card.get('sha256'))[:12]}); get the original file again."
        )
    if kind is not None and card.get("kind") != kind:
        raise InputError(
            f"{path.name} holds a {card.get('kind', 'model of no stated kind')!r} "
            f"({card.get('method', 'no method named')}); expected a {kind!r}: choose another file."
        )
    return tensors, card


def load_card(path: str | Path) -> dict[str, Any]:
    """Read a model's card only, which is quick; the tensors are neither read nor checked.

    Raises
    ------
    InputError
        If the file is missing, truncated or of another type, or its card is not the one saved.
    """
    path = Path(path)
    return _card(_read(path, with_tensors=False)[1], path)


def _read(path: Path, with_tensors: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Return a file's tensors (none unless wanted) and its metadata."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"No model file at {path}; give the .safetensors file of a trained model.")
    try:
        with safe_open(str(path), framework="numpy") as stream:
            names = stream.keys() if with_tensors else ()
            return {name: stream.get_tensor(name) for name in names}, stream.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{path.name} ({size} bytes) is not a whole safetensors file ({error}); it is "
            "truncated or of another type: copy it again, or train the model anew."
        ) from error


def _card(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the card in a file's metadata, if it is the one that was saved."""
    if metadata.get("format") != FORMAT or "card" not in metadata:
        raise InputError(
            f"{path.name} is a safetensors file without a model card of this program; expected a "
            "model saved by 'harmonize train' or another of its training verbs."
        )
    text = metadata["card"]
    card = _parse(text, path)
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("card_sha256"):
        raise InputError(
            f"The card in {path.name} is not the one that was saved (its SHA-256 differs); "
            "get the original file again."
        )
    return card


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The card in {path.name} is not JSON ({error}); get the original file again."
        ) from error
    if not isinstance(card, dict):
        raise InputError(f"The card in {path.name} is a {type(card).__name__}, not an object.")
    return card
