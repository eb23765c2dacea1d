"""How a result was made: enough to repeat it, and to cite it."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["file_hash", "provenance", "versions"]

PACKAGES = ("napari-dmri", "numpy", "torch", "dipy", "nibabel")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def provenance(
    method: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    citations: tuple[str, ...] = (),
    simulated: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Describe one step as a dict that JSON can hold.

    Parameters
    ----------
    method
        The method's command-line name, e.g. ``"linear-rish"``, ``"sh-fit"``, ``"tensor"``.
    parameters
        What was set, defaults included.
    inputs
        Names, and paths or hashes, of what went in.
    citations
        Papers to cite.
    simulated
        Whether any input carries the simulator's mark.
    more
        Anything else worth keeping (counts, device).
    """
    return {
        "method": method,
        "parameters": dict(parameters),
        "inputs": dict(inputs or {}),
        "citations": list(citations),
        "simulated": simulated,
        "versions": versions(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
