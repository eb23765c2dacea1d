"""What the Harmonize dock knows and runs, without any window: models, a run, a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan
from napari_dmri.viewer.layers import DIVERGING, LayerData, map_layer, to_napari

__all__ = [
    "Compared",
    "KnownModel",
    "apply_model",
    "card_text",
    "compare_known",
    "extra_map",
    "maps_of",
    "open_model",
    "shipped",
]


@dataclass(eq=False)
class KnownModel:
    """Name a model that can be chosen: its card, and the model itself once it is needed.

    ``name`` is a file's name, or that of a model of the package; those load torch, so not before
    they are run.
    """

    name: str
    card: dict[str, Any]
    tip: str
    path: Path | None = None
    shipped: bool = False
    model: Any = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """What a list of one method's models calls it."""
        mode = f", {self.card['mode']}" if self.card.get("method") == "shresnet" else ""
        source, target = (self.card.get(f"{w}_site", "?") for w in ("source", "target"))
        return f"{self.name}: {source} → {target}{mode}"

    @property
    def title(self) -> str:
        """What a list of all methods' models calls it."""
        from napari_dmri.harmonize.side_by_side import model_label

        return model_label(self.card)

    def check(self, scan: Scan) -> Any:
        """Check the card against a scan; no signal is read."""
        from napari_dmri.harmonize.cards import check_card

        return check_card(self.card, scan)

    def load(self) -> Any:
        """Return the model, read from its file the first time."""
        if self.model is None:
            from napari_dmri import harmonize

            assert self.path is not None
            self.model = harmonize.load(self.path)
        return self.model


def shipped() -> list[KnownModel]:
    """Return the models that come with the package."""
    from napari_dmri.harmonize import shipped_models

    tip = "Comes with the package: for simulated scans, demo only."
    return [KnownModel(m.name, m.card, tip, m.path, True) for m in shipped_models()]


def open_model(path: str | Path, progress: Any = None) -> KnownModel:
    """Read a trained model from its file."""
    from napari_dmri import harmonize

    file = Path(path)
    model = harmonize.load(file)
    return KnownModel(file.name, model.card, str(file), file, False, model)


def apply_model(
    known: KnownModel,
    scan: Scan,
    name: str,
    device: str = "auto",
    progress: Any = None,
    projection: bool | None = None,
) -> Any:
    """Apply a model and name its result; a mask is made where the scan has none."""
    from napari_dmri.harmonize import choose_projection
    from napari_dmri.signal.mask import brain_mask

    if scan.mask is None:
        scan = scan.with_mask(brain_mask(scan, progress=part(progress, 0, 0.1, "mask: ")))
    model = choose_projection(known.load(), projection)
    done = model.apply_detailed(scan, device=device, progress=part(progress, 0.1, 1))
    return replace(done, scan=replace(done.scan, name=name or done.scan.name))


@dataclass(frozen=True, eq=False)
class Compared:
    """What several models made of a scan: scores, tests, and one map of each."""

    made: Any
    scores: Any
    tests: Any
    map_name: str
    maps: Mapping[str, ScalarImage]

    def panels(self) -> list[Any]:
        """Return the panels of the map that was computed last."""
        from napari_dmri.harmonize.side_by_side_report import panels_of

        return panels_of(self.made, dict(self.maps))


def compare_known(
    scan: Scan,
    reference: Scan,
    models: Sequence[KnownModel],
    repeat: Scan | None = None,
    map_name: str = "FA",
    device: str = "auto",
    progress: Progress | None = None,
    both: bool = False,
) -> Compared:
    """Run models on a scan and compare each with the reference; see `harmonize.compare_models`."""
    from napari_dmri.harmonize import compare_models

    given: dict[str, Any] = {}
    for known in models:
        label, n = known.title, 2
        while label in given:
            label, n = f"{known.title} ({n})", n + 1
        given[label] = known.model if known.model is not None else known.path
    made = compare_models(
        scan,
        reference,
        given,
        repeat=repeat,
        both_projections=both,
        device=device,
        progress=part(progress, 0, 0.85),
    )
    report = part(progress, 0.85, 1)
    tests = made.tests()
    maps = made.maps(map_name, device=device, progress=report)
    report(1.0, "compared")
    return Compared(made, made.scores(), tests, map_name, maps)


def maps_of(
    compared: Compared, map_name: str, device: str = "auto", progress: Progress | None = None
) -> Compared:
    """Return the same comparison with another map."""
    maps = compared.made.maps(map_name, device=device, progress=progress)
    return replace(compared, map_name=map_name, maps=maps)


def save_comparison(
    compared: Compared, folder: str | Path, device: str = "auto", progress: Progress | None = None
) -> list[Path]:
    """Write tables, a figure of the map on show, and how it was made, into a folder."""
    from napari_dmri.harmonize import write_side_by_side

    maps = (compared.map_name,)
    return write_side_by_side(compared.made, folder, maps, device=device, progress=progress)


def extra_map(image: ScalarImage, name: str, scan: Scan) -> LayerData:
    """Describe a scale map or a map of the alignment as a hidden layer."""
    named = replace(image, name=f"{scan.name} | {name}")
    _, kwargs, kind = map_layer(named, visible=False, **_look(name))
    return to_napari(shown_inside(image, scan.mask)), kwargs, kind


def shown_inside(image: ScalarImage, mask: np.ndarray | None) -> np.ndarray:
    """Return a map for showing: NaN, which napari leaves clear, outside the mask."""
    data = np.asarray(image.data, dtype=np.float32)
    return data if mask is None else np.where(mask, data, np.float32(np.nan))


def card_text(card: Mapping[str, Any]) -> str:
    """Write a model's card for reading, one fact a line."""
    lines = []
    for key, value in card.items():
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            # Curves and inputs go by epoch and scan: too many to read here, and in the file.
            text = _facts(value[0]) if len(value) == 1 else f"{len(value)} entries, see the file"
        elif isinstance(value, (list, tuple)):
            text = ", ".join(map(str, value[:12])) + (" …" if len(value) > 12 else "")
        elif isinstance(value, dict):
            text = _facts(value)
        else:
            text = str(value)
        lines.append(f"{key.replace('_', ' ')}: {text}")
    return "\n".join(lines)


def _facts(values: dict[str, Any]) -> str:
    """Write the plain values of a part of a card; parts within it are counted."""
    words = []
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{k} {v}" for k, v in value.items())
            words.append(f"{key} ({inner})")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            words.append(f"{len(value)} {key}")
        else:
            words.append(f"{key} {value}")
    return ", ".join(words).replace("_", " ")


def _look(name: str) -> dict[str, Any]:
    """Show scales about 1, and scan over template in colours that add up to white."""
    if name.startswith("scale"):
        return {"colormap": DIVERGING, "contrast_limits": (0.5, 1.5)}
    if name == "novelty":
        return {"colormap": "inferno", "contrast_limits": (0.0, 2.0)}
    if name == "source kept":
        return {"colormap": "viridis", "contrast_limits": (0.0, 1.0)}
    if name.startswith("template"):
        return {"colormap": "green", "blending": "opaque"}
    return {"colormap": "magenta", "blending": "additive"}
