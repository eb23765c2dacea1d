"""Write files so that they appear whole or not at all, and never over another file."""

from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["atomic_path", "atomic_paths", "full_suffix", "stem_of", "write_json", "write_text"]

_DOUBLE = (".nii.gz", ".mif.gz", ".raw.gz")
_DISK_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT}


def full_suffix(path: str | Path) -> str:
    """Return the suffix in lower case, two-part ones whole.

    Examples
    --------
    >>> full_suffix("a.b/dwi.NII.gz"), full_suffix("x.bval")
    ('.nii.gz', '.bval')
    """
    name = Path(path).name.lower()
    return next((s for s in _DOUBLE if name.endswith(s)), Path(name).suffix)


def stem_of(path: str | Path) -> str:
    """Return the file name without its (two-part) suffix."""
    name = Path(path).name
    return name[: len(name) - len(full_suffix(path))]


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside the target, renamed to it when the block succeeds.

    Raises
    ------
    InputError
        If the target exists (and ``overwrite`` is false), or its folder cannot be written to.
    """
    with atomic_paths([path], overwrite) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(paths: Sequence[str | Path], overwrite: bool = False) -> Iterator[list[Path]]:
    """Yield a temporary path for each target; all are renamed at the end, or none.

    Raises
    ------
    InputError
        As for `atomic_path`.
    """
    targets = [Path(p).expanduser() for p in paths]
    for target in targets:
        _refuse_existing(target, overwrite)
    with ExitStack() as undo:
        for folder in {t.parent for t in targets}:
            _prepare_folder(folder, undo)
        temporaries = [t.parent / f".tmp-{secrets.token_hex(6)}{full_suffix(t)}" for t in targets]
        for temporary in temporaries:
            undo.callback(temporary.unlink, missing_ok=True)
        try:
            yield temporaries
            for target in targets:
                _refuse_existing(target, overwrite)
            _rename_all(temporaries, targets)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            raise InputError(
                f"Cannot write {targets[0]}: {error.strerror}; nothing was written: free space "
                "or choose another folder."
            ) from error


def _rename_all(temporaries: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename in order; on failure put everything back as it was."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for temporary, target in zip(temporaries, targets, strict=True):
            backup = None
            if target.exists():
                backup = target.parent / f".tmp-{secrets.token_hex(6)}{full_suffix(target)}"
                os.replace(target, backup)
            done.append((target, backup))
            os.replace(temporary, target)
    except BaseException:
        for target, backup in reversed(done):
            target.unlink(missing_ok=True)
            if backup is not None:
                os.replace(backup, target)
        raise
    for _, backup in done:
        if backup is not None:
            backup.unlink(missing_ok=True)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise InputError(f"{target} is a folder; give a file name inside it.")
    if target.exists() and not overwrite:
        raise InputError(
            f"{target} exists already and is not overwritten; choose another name, or say "
            "overwrite=True (--overwrite)."
        )


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to or made.

    Raises
    ------
    InputError
        If it or the nearest folder above it is a file or read-only.
    """
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"Cannot write into {folder}: {nearest} is a file; choose a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f"Cannot write into {folder}: {nearest} is read-only; choose another folder or "
            "change its permissions."
        )


def _prepare_folder(folder: Path, undo: ExitStack) -> None:
    """Make the folder if needed; one that stays empty goes away again."""
    require_writable(folder)
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for level in reversed(missing):
        level.mkdir(exist_ok=True)
        undo.callback(_remove_if_empty, level)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def write_text(path: str | Path, text: str, overwrite: bool = False) -> Path:
    """Write text as UTF-8, atomically, and return the path."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, obj: Any, overwrite: bool = False) -> Path:
    """Write an object as JSON, atomically; NumPy numbers, arrays and paths are converted."""
    return write_text(path, to_json(obj), overwrite)


def to_json(obj: Any) -> str:
    """Return an object as indented JSON text."""
    return json.dumps(obj, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "items"):
        return dict(value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
