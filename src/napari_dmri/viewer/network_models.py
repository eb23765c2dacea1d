"""Models of networks that can be chosen in the Deconvolve dock: shipped, from files, or fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.card import model_label
from napari_dmri.deconvolve.shd.presets import PRESETS
from napari_dmri.progress import Progress
from napari_dmri.scan import Scan

__all__ = [
    "Known",
    "check_model",
    "has_gpu",
    "is_network",
    "label_of",
    "modes_of",
    "open_model",
    "shipped",
    "with_model",
]


def is_network(method: str) -> bool:
    """Tell whether a method is a network, which needs a model."""
    return METHODS[method].family == "networks"


@dataclass(frozen=True, eq=False)
class Known:
    """A model that can be chosen: where it is from, its card, and its file or itself.

    ``origin`` is ``"shipped"``, ``"file"`` or ``"fitted"``.
    """

    origin: str
    label: str
    card: Mapping[str, Any]
    path: Path | None = None
    model: Any = None
    _held: list[Any] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The method that it is of."""
        return str(self.card.get("method", ""))

    @property
    def taught(self) -> bool:
        """Whether it was told the true fODFs of what it learned from."""
        return bool(self.card.get("known_fods"))

    def load(self) -> Any:
        """Return the model, read from its file the first time."""
        if self.model is not None:
            return self.model
        if not self._held:
            from napari_dmri.deconvolve.shd.model import ShdModel

            self._held.append(ShdModel.load(self.path))
        return self._held[0]


def label_of(method: str, result: Deconvolution | None = None) -> str:
    """Return what a method is called beside others; that of a taught network says so."""
    label = METHODS[method].label
    made = {} if result is None else dict(result.provenance.get("inputs", {})).get("model")
    return model_label({**made, "label": label}) if made else label


def has_gpu() -> bool:
    """Tell whether there is an NVIDIA GPU, without loading torch."""
    return Path("/dev/nvidia0").exists()


def modes_of(method: str, known: Known | None) -> tuple[str, ...]:
    """Return the modes that a model allows, or that one can be fitted in; the usual one first."""
    if known is None:
        usual = PRESETS[method]
        both = usual.mode == "paper" and usual.architecture.patch > 1
        return ("paper", "tiled") if both else (usual.mode,)
    made = Architecture.from_dict(dict(known.card["architecture"]))
    allowed = {"paper": made.patch % 2 == 1, "tiled": made.tiled}
    own = str(known.card["mode"])
    return (own, *(mode for mode, possible in allowed.items() if possible and mode != own))


def shipped() -> list[Known]:
    """List the models of the package by their cards; no weights are read."""
    from napari_dmri.deconvolve.shd.shipped import shipped_models

    return [Known("shipped", m.name, m.card, m.path) for m in shipped_models()]


def open_model(path: Path, progress: Progress | None = None) -> tuple[Path, Known]:
    """Read a model's file, and check that it is whole.

    Raises
    ------
    InputError
        If it is not a model that deconvolves, or one of a method that this program does not have.
    """
    from napari_dmri.deconvolve.shd.model import ShdModel

    model = ShdModel.load(path)
    return path, Known("file", path.name, model.card, path, model)


def check_model(
    known: Known, scan: Scan, responses: ResponseSet | None, progress: Progress | None = None
) -> tuple[Known, Scan, Any]:
    """Check a model's card against a scan and its responses, where they are at hand."""
    return known, scan, known.load().check(scan, responses)


def with_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the model that a network needs read from its file."""
    given = dict(settings)
    if isinstance(given.get("model"), Known):
        given["model"] = given["model"].load()
    return given
