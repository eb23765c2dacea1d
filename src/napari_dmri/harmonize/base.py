"""What every harmonizer takes and gives: pairs in, a scan with its maps and notes out."""

from __future__ import annotations

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
