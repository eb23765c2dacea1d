"""What a cross-validation compares: cases (subjects), folds, and methods with their rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.harmonize.cohort import LazyPair, LazyScan, optional_file, read_pairs, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_dmri.scan import Scan

__all__ = [
    "DEFAULT",
    "SWEEP",
    "Case",
    "Contender",
    "Fold",
    "contender",
    "make_folds",
    "read_cases",
]

DEFAULT = ("linear-rish", "golkov", "shresnet-2", "shresnet-1")
"""The methods of a comparison, unless others are asked for."""

SWEEP = tuple(f"shresnet-{n}" for n in (1, 2, 3, 6, 7, 9, 11))
"""The numbers of residual blocks in table 1 of Koppers et al. (2018)."""


@dataclass(frozen=True)
class Case:
    """Name a travelling subject on disk: its pair, and what only evaluation looks at.

    ``repeat`` is a second scan at the target site, ``truth`` the target's noise-free signal.
    """

    pair: LazyPair
    repeat: LazyScan | None = None
    truth: Path | None = None

    @property
    def subject(self) -> str:
        """The subject's label."""
        return self.pair.subject

    def true_target(self, target: Scan) -> Scan | None:
        """Return the noise-free target as a scan with the target's gradients."""
        if self.truth is None:
            return None
        from napari_dmri.io import read_map

        image = read_map(self.truth)
        return replace(target, data=image.data, name=f"{target.name} without noise", path=None)


def read_cases(tsv: str | Path, source: str | None = None) -> list[Case]:
    """Read a list of travelling pairs with the columns target_repeat and target_truth, if any.

    Raises
    ------
    InputError
        As `read_pairs`, and if a file that is named there is missing.
    """
    pairs = read_pairs(tsv, source)
    path, rows = read_rows(tsv, ("subject", "source", "target"))
    cases = []
    for pair in pairs:
        line, row = next(
            (line, row)
            for line, row in rows
            if row["subject"] == pair.subject
            and (source is None or row.get("source_site") == source)
        )
        files = {c: optional_file(path, line, c, row) for c in ("target_repeat", "target_truth")}
        repeat = files["target_repeat"]
        lazy = None if repeat is None else LazyScan(repeat, pair.target_scan.mask, pair.subject)
        cases.append(Case(pair, lazy, files["target_truth"]))
    return cases


@dataclass(frozen=True)
class Fold:
    """Say who trains, who chooses the best epoch and who is tested."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its folder, ``fold-01``."""
        return f"fold-{self.number:02d}"


def make_folds(subjects: Sequence[str], count: int, seed: int = 0) -> list[Fold]:
    """Divide subjects into folds: each is tested once, one other validates, the rest train.

    Parameters
    ----------
    subjects
        Their labels.
    count
        Number of folds k.
    seed
        Of the order in which they are drawn.

    Raises
    ------
    InputError
        If a fold would have nobody to train on, or no subject to test.
    """
    n = len(subjects)
    if not 2 <= count <= n or n - -(-n // count) - 1 < 1:
        raise InputError(
            f"{count} folds of {n} subjects: each fold needs a subject to test, one to validate "
            "and one to train on; take at least 3 subjects, and 2 to as many folds as subjects."
        )
    order = np.random.default_rng(seed).permutation(n)
    groups = [[subjects[i] for i in part] for part in np.array_split(order, count)]
    folds = []
    for k, group in enumerate(groups):
        chosen = groups[(k + 1) % count][0]
        train = tuple(s for s in subjects if s not in group and s != chosen)
        folds.append(Fold(k + 1, train, (chosen,), tuple(sorted(group))))
    return folds


@dataclass(frozen=True)
class Contender:
    """A method to train in each fold, and the rows it gives: label and projection."""

    name: str
    method: str
    settings: dict[str, Any]
    rows: tuple[tuple[str, bool | None], ...]


def contender(name: str) -> Contender:
    """Return a contender by its name.

    ``linear-rish``, with the evaluation's lambda, or ``linear-rish-LAMBDA`` with another
    (``linear-rish-1e-5``); ``golkov``, as published, or ``golkov-energy`` with SHResNet's loss;
    ``shresnet-N`` with N residual blocks and, at the end, ``-tiled`` for tiled mode and ``-mse``
    for the paper's loss, the error of the signal alone.

    Raises
    ------
    InputError
        If the name is none of these.
    """
    if name == "linear-rish":
        return Contender(name, "linear-rish", {}, (("LinearRISH", None),))
    if other := re.fullmatch(r"linear-rish-(\d+(?:\.\d+)?(?:e-?\d+)?)", name):
        smooth = float(other[1])
        rows = ((f"LinearRISH, lambda {smooth:g}", None),)
        return Contender(name, "linear-rish", {"smooth": smooth}, rows)
    if name in ("golkov", "golkov-energy"):
        label, energy = ("Golkov", 0.0) if name == "golkov" else ("Golkov with energy", 1.0)
        return Contender(name, "golkov", {"energy": energy}, _both(label))
    match = re.fullmatch(r"shresnet-(\d+)(-tiled)?(-mse)?", name)
    if match is None:
        raise InputError(
            f"Unknown contender {name!r}; choose linear-rish, linear-rish-LAMBDA, golkov, "
            "golkov-energy, or shresnet-N with N residual blocks (shresnet-2, shresnet-2-tiled, "
            "shresnet-2-mse)."
        )
    blocks, tiled, plain = int(match[1]), bool(match[2]), bool(match[3])
    label = f"SHResNet n={blocks}" + (" tiled" if tiled else "") + (" MSE" if plain else "")
    settings = {
        "blocks": blocks,
        "mode": "tiled" if tiled else "paper",
        "energy": 0.0 if plain else 1.0,
    }
    return Contender(name, "shresnet", settings, _both(label))


def _both(label: str) -> tuple[tuple[str, bool | None], ...]:
    """Return the rows without and with projection."""
    return (label, False), (f"{label}, projected", True)
