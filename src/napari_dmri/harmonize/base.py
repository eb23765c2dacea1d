"""What every harmonizer takes and gives: pairs in, a scan with its maps and notes out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from napari_dmri.errors import InputError
from napari_dmri.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_dmri.images import ScalarImage
    from napari_dmri.progress import Progress

__all__ = [
    "CardCheck",
    "Harmonization",
    "Harmonizer",
    "Pair",
    "PairLike",
    "choose_projection",
    "has_projection",
    "refuse_training_subject",
    "same_subject",
]


@dataclass(frozen=True, eq=False)
class Pair:
    """Hold one travelling subject: the scan at the source site and the one at the target site.

    ``tissue`` may hold labels on the target's grid, 1 white matter and 2 grey matter.
    """

    source: Scan
    target: Scan
    subject: str = ""
    tissue: Any = None


class PairLike(Protocol):
    """What training takes: scans in memory (`Pair`) or read when asked for (`LazyPair`)."""

    @property
    def source(self) -> Scan: ...  # noqa: D102

    @property
    def target(self) -> Scan: ...  # noqa: D102

    @property
    def subject(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class CardCheck:
    """Say how one entry of a model's card fits a scan: ``"ok"``, ``"warning"`` or ``"error"``."""

    level: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Harmonization:
    """Hold a harmonized scan, the maps that show what was done, and notes in words."""

    scan: Scan
    maps: Mapping[str, ScalarImage] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Harmonizer(Protocol):
    """Turn a scan of the source site into what the target site would have measured."""

    @property
    def card(self) -> dict[str, Any]: ...  # noqa: D102

    def check(self, scan: Scan) -> tuple[CardCheck, ...]: ...  # noqa: D102

    def apply(self, scan: Scan, *, device: str = "auto", progress: Progress | None = None) -> Scan:
        """Return the harmonized scan."""
        ...

    def apply_detailed(
        self, scan: Scan, *, device: str = "auto", progress: Progress | None = None
    ) -> Harmonization:
        """Return the harmonized scan with maps and notes."""
        ...

    def save(self, path: str | Path, overwrite: bool = False) -> Path: ...  # noqa: D102


def choose_projection(model: Harmonizer, projection: bool | None) -> Harmonizer:
    """Return a model that applies itself with, or without, the RISH projection.

    Parameters
    ----------
    model
        A trained harmonizer; it is left as it is.
    projection
        Whether only the energies per order are to be the model's; None leaves what its card says.

    Raises
    ------
    InputError
        If the method has no projection.
    """
    if projection is None:
        return model
    if not has_projection(model):
        raise InputError(
            f"{model.card.get('label', 'This model')} has no projection to turn "
            f"{'on' if projection else 'off'}: it scales each order and keeps the directions of "
            "the source by itself. Leave the option out."
        )
    chosen = copy.copy(model)
    chosen.projection = projection  # type: ignore[attr-defined]
    return chosen


def has_projection(model: Harmonizer) -> bool:
    """Tell whether a model may be applied with and without the RISH projection."""
    return hasattr(model, "projection")


def same_subject(a: str, b: str) -> bool:
    """Tell whether two labels name one subject; ``sub-`` in front does not count."""
    return a.removeprefix("sub-") == b.removeprefix("sub-") and a != ""


def refuse_training_subject(model: Harmonizer, subject: str | Scan) -> None:
    """Refuse to evaluate a model on a subject that it was trained on.

    Parameters
    ----------
    model
        A trained harmonizer; its card lists the training subjects.
    subject
        The subject's label, or a scan that carries one (``metadata["subject"]``); a scan is
        also compared with the training scans by its content.

    Raises
    ------
    InputError
        If the subject is on the list, with the list.
    """
    trained = list(model.card.get("subjects", []))
    label = trained_subject(model.card, subject)
    if label is not None:
        raise InputError(
            f"{label} is one of the {len(trained)} subjects that this model was trained on "
            f"({', '.join(trained)}); evaluate it on a subject that it has not seen."
        )


def trained_subject(card: Mapping[str, Any], subject: str | Scan) -> str | None:
    """Return the label under which a subject is on a model's training list, or None."""
    from napari_dmri.harmonize.cards import scan_hash

    label = str(subject.metadata.get("subject") or "") if isinstance(subject, Scan) else subject
    named = next((s for s in card.get("subjects", []) if same_subject(s, label)), None)
    if named is not None or not isinstance(subject, Scan) or not card.get("inputs"):
        return named
    digest = scan_hash(subject)
    return next((str(e["subject"]) for e in card["inputs"] if e["sha256"] == digest), None)
