"""Write several results into a folder: all of them appear, or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import atomic_paths, require_writable, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["refuse_existing", "resume_folder", "staged_folder"]


def refuse_existing(folder: str | Path, names: Iterable[str], overwrite: bool = False) -> Path:
    """Refuse a folder that holds results of these names already, before work begins.

    Raises
    ------
    InputError
        If the folder is a file, cannot be written to, or holds one of the files.
    """
    target = Path(folder).expanduser()
    require_writable(target)
    there = [name for name in names if (target / name).exists()]
    if there and not overwrite:
        some = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise InputError(
            f"{target} holds earlier results ({some}), which are not overwritten; choose another "
            "folder, or say overwrite=True (--overwrite)."
        )
    return target


def resume_folder(
    folder: Path, what: str, settings: Mapping[str, Any], growing: Mapping[str, Sequence[str]] = {}
) -> Path:
    """Make the folder of an evaluation, or check that it is of the same one, to go on in it.

    Parameters
    ----------
    folder
        Empty, not there yet, or of the same evaluation: ``evaluation.json`` in it says what of.
    what
        What it holds, with its article, for sentences.
    settings
        What must be the same, as JSON gives it back. What the folder's card does not hold, as it
        was begun by an older version, is not compared.
    growing
        Lists of names that may become longer from call to call.

    Raises
    ------
    InputError
        If it holds something else, or an evaluation with other settings, or cannot be written to.
    """
    require_writable(folder)
    card = folder / "evaluation.json"
    if card.is_file():
        before = _read(card, what, (*settings, *growing))
        other = [k for k, v in settings.items() if k in before and before[k] != v]
        if other:
            said = "; ".join(_change(k, before[k], settings[k]) for k in other)
            raise InputError(
                f"{folder} holds {what} with other settings ({said}); use the same, or another "
                "folder."
            )
        if growing:
            longer = {k: list(dict.fromkeys([*before.get(k, ()), *v])) for k, v in growing.items()}
            write_json(card, {**settings, **longer}, overwrite=True)
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and holds no evaluation.json, so there is nothing to go on "
            "with; choose an empty folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(card, {**settings, **{k: list(v) for k, v in growing.items()}})
    return folder


def _read(card: Path, what: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a folder's card, or refuse what is none."""
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(
            f"{card} cannot be read ({error}), so it is not known what to go on with; choose an "
            "empty folder."
        ) from error
    if not isinstance(found, dict) or not set(found) & set(names):
        raise InputError(f"{card} is not the card of {what}; choose an empty folder.")
    return found


def _change(name: str, before: Any, now: Any) -> str:
    """Say what was set then and now, briefly where it is long."""
    if isinstance(now, (list, dict)) and len(str(now)) > 120:
        return f"other {name}"
    return f"{name}: {before} then, {now} now"


@contextmanager
def staged_folder(folder: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder whose files move into the target together when the block succeeds.

    Other files in the target stay untouched; on failure, or when stopped, nothing is left.

    Raises
    ------
    InputError
        If a file of the same name is there (and ``overwrite`` is false), or the folder cannot be
        written to.
    """
    target = refuse_existing(folder, ())
    nearest = next(p for p in (target, *target.parents) if p.exists())
    staging = Path(tempfile.mkdtemp(prefix=".tmp-", dir=nearest))
    try:
        yield staging
        files = sorted(p for p in staging.rglob("*") if p.is_file())
        targets = [target / p.relative_to(staging) for p in files]
        refuse_existing(target, (str(p.relative_to(staging)) for p in files), overwrite)
        with atomic_paths(targets, overwrite) as places:
            for made, place in zip(files, places, strict=True):
                os.replace(made, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
