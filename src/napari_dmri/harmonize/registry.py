"""The methods that harmonize, by their command-line names; later methods join here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_dmri.harmonize.base import Harmonizer

__all__ = ["METHODS", "Method", "load"]


@dataclass(frozen=True)
class Method:
    """Describe a method without importing it."""

    name: str
    label: str
    summary: str
    reference: str
    target: str
    trains_from: tuple[str, ...]

    def make(self, **settings: Any) -> Any:
        """Import the method's class and make an untrained model with some settings."""
        return self.load_class()(**settings)

    def load_class(self) -> Any:
        """Import the method's class."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="linear-rish",
            label="LinearRISH",
            summary=(
                "Scales the SH of each order, voxel by voxel in a template, to the target site's "
                "energy; directions and b0 stay the source's."
            ),
            reference="Cetin Karayumak et al., NeuroImage 184:180-200, 2019",
            target="napari_dmri.harmonize.linear_rish:LinearRish",
            trains_from=("pairs", "groups"),
        ),
        Method(
            name="shresnet",
            label="SHResNet",
            summary=(
                "A residual network with a branch for each SH order maps each voxel's "
                "neighbourhood to the target site; trained on travelling subjects."
            ),
            reference="Koppers et al., CDMRI 2018",
            target="napari_dmri.harmonize.learned:SHResNetHarmonizer",
            trains_from=("pairs",),
        ),
        Method(
            name="golkov",
            label="Golkov",
            summary=(
                "A voxel-wise network of three layers maps SH to the target site; the baseline of "
                "SHResNet."
            ),
            reference="Golkov et al., IEEE Trans Med Imaging 35:1344-1351, 2016",
            target="napari_dmri.harmonize.learned:GolkovHarmonizer",
            trains_from=("pairs",),
        ),
    )
}
"""All harmonization methods."""


def load(path: str | Path) -> Harmonizer:
    """Read a trained harmonizer from its file, whichever method made it.

    Parameters
    ----------
    path
        The model's file, or the name of one that comes with the package (see `shipped_models`).

    Raises
    ------
    InputError
        If the file is missing, truncated, tampered with, of another type, or of an unknown
        method.
    """
    from napari_dmri.harmonize.shipped import find_model
    from napari_dmri.training.checkpoint import load_checkpoint

    path = find_model(path)
    tensors, card = load_checkpoint(path, kind="harmonizer")
    method = METHODS.get(str(card.get("method")))
    if method is None:
        raise InputError(
            f"{path.name} was made by {card.get('method')!r}, which this version does not "
            f"know; it knows: {', '.join(METHODS)}."
        )
    model: Harmonizer = method.load_class().from_checkpoint(tensors, card)
    return model
