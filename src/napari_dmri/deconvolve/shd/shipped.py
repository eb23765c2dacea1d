"""The networks that come with the package: small, trained on simulated subjects.

Their cards say what they were trained on; their weights are read when one is applied. Each takes
scans with its own shells, whatever the directions (``scripts/train_shipped_shd.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError
from napari_dmri.scan import B0_THRESHOLD, SHELL_GAP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.scan import GradientTable

__all__ = ["FOLDER", "TOLERANCE", "ShippedModel", "choose_shipped", "find_model", "shipped_models"]

FOLDER = Path(__file__).resolve().parent / "models"

TOLERANCE = 0.25
"""Relative difference of b-values up to which a shell takes the place of one of training."""


@dataclass(frozen=True)
class ShippedModel:
    """Name a model of the package: what it is called, its file, and its card."""

    name: str
    path: Path
    card: Mapping[str, Any]


def shipped_models() -> tuple[ShippedModel, ...]:
    """Return the models of the package; their cards are read, their weights are not."""
    return _models_in(FOLDER)


@cache
def _models_in(folder: Path) -> tuple[ShippedModel, ...]:
    from napari_dmri.training.checkpoint import load_card

    files = sorted(folder.glob("*.safetensors"))
    return tuple(ShippedModel(path.stem, path, load_card(path)) for path in files)


def find_model(given: str | Path) -> Path:
    """Return a model's file: the file itself, or that of a shipped model's name.

    Raises
    ------
    InputError
        If it is a bare name that is neither a file nor a shipped model.
    """
    path = Path(given).expanduser()
    if path.is_file() or path.suffix or path.name != str(given):
        return path
    known = {model.name: model.path for model in shipped_models()}
    if path.name not in known:
        listed = ", ".join(known) or "none"
        raise InputError(
            f"No model is called {path.name!r}; give a .safetensors file, or a model of the "
            f"package ({listed})."
        )
    return known[path.name]


def choose_shipped(
    method: str, gradients: GradientTable, tissues: Sequence[str] | None = None
) -> ShippedModel | None:
    """Return the shipped model of a method that fits a scan best, or None.

    Parameters
    ----------
    method
        The method's name.
    gradients
        The scan's gradient table.
    tissues
        Tissues that have a response; None where that is still to be found.
    """
    found: list[tuple[int, int, ShippedModel]] = []
    for model in shipped_models():
        card = model.card
        if card["method"] != method or not fits(card["bvalues"], gradients):
            continue
        if tissues is not None and not set(card["tissues"]) <= set(tissues):
            continue
        found.append((-len(card["bvalues"]), len(found), model))
    return min(found)[2] if found else None


def fits(bvalues: Sequence[float], gradients: GradientTable) -> bool:
    """Tell whether a scan has a shell for each b-value of a model."""
    have = [s.bvalue for s in gradients.shells]
    for wanted in bvalues:
        if wanted <= B0_THRESHOLD:
            if not any(b <= B0_THRESHOLD for b in have):
                return False
        elif not any(
            b > B0_THRESHOLD and abs(b - wanted) <= max(TOLERANCE * wanted, SHELL_GAP) for b in have
        ):
            return False
    return True
