"""The models that come with the package: small, trained on simulated sites, demo only.

They take scans of the simulated site ``ge_st`` to ``prisma_st``, so that everything can be tried at
a click. They refuse measured scans. Their training subjects are of a population of their own, which
neither the sample files nor the demo are of (``scripts/train_models.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from napari_dmri.errors import InputError

__all__ = ["ShippedModel", "find_model", "shipped_models"]

FOLDER = Path(__file__).resolve().parent / "models"

ORDER = ("demo-linear-rish", "demo-golkov", "demo-shresnet", "demo-shresnet-tiled")
"""The order in which they are listed."""


@dataclass(frozen=True)
class ShippedModel:
    """Name a model of the package: what it is called, its file, and its card."""

    name: str
    path: Path
    card: dict[str, Any]


@cache
def shipped_models() -> tuple[ShippedModel, ...]:
    """Return the models of the package; their cards are read, their weights are not."""
    from napari_dmri.training.checkpoint import load_card

    known = {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}
    names = [*(n for n in ORDER if n in known), *(n for n in known if n not in ORDER)]
    return tuple(ShippedModel(n, known[n], load_card(known[n])) for n in names)


def find_model(given: str | Path) -> Path:
    """Return a model's file: the file itself, or that of a shipped model's name.

    Raises
    ------
    InputError
        If it is a bare name that is neither a file nor a shipped model.
    """
    path = Path(given)
    if path.is_file() or path.suffix or path.name != str(given):
        return path
    known = {model.name: model.path for model in shipped_models()}
    if path.name not in known:
        raise InputError(
            f"No model is called {path.name!r}; give a .safetensors file, or a model of the "
            f"package: {', '.join(known)}."
        )
    return known[path.name]
