"""What an evaluation runs: settings that must stay the same to go on, and each method's options.

Every method may choose among options on the validation scan: the classical ones among orders or
iterations, all of them the threshold of their peaks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_dmri.deconvolve.evaluation.protocols import Protocol
    from napari_dmri.deconvolve.shd.shipped import ShippedModel

__all__ = [
    "BASES",
    "CEILING",
    "CLASSICAL",
    "DEGREE",
    "EVERY",
    "NETWORKS",
    "SHIPPED",
    "TAUGHT",
    "Settings",
    "options",
    "planned_cells",
    "prepare_folder",
    "shipped_for",
    "undone_cells",
]

CLASSICAL = ("csd", "msmt-csd", "rumba", "rumba-tv")
TAUGHT = {"shd-s-tv-taught": "shd-s-tv"}
"""Networks that see true fODFs of the training subjects first (`teach_model`); what they are."""

NETWORKS = (
    *("mlp", "esd", "cnn", "cnn-tv", "rt-esd", "shd", "shd-tv", "shd-s", "shd-s-tv"),
    *TAUGHT,
)
"""Methods in the order of the tables."""

CEILING = "true-fod"
"""The true fODFs, in which dispersed fibres that cross at small angles are one: what can be had."""

SHIPPED = "shipped"
"""The network of the package that fits what is seen of a protocol, as it is: it was taught too."""

BASES = {**TAUGHT, SHIPPED: "shd-s-tv"}
"""What the registry calls rows that are not methods of it."""

EVERY = (CEILING, *CLASSICAL, *NETWORKS, SHIPPED)
"""All rows of the tables in their order."""

REPEATED = ("shd", "shd-tv", "shd-s")
"""Networks of which several seeds are trained."""

SEEDS = 3

DEGREE = 12
"""Of the true fODFs that are scored, learned from and tracked: that of the small networks."""

STEPS = {"small": 3000}
"""Steps of training by size; the paper's own plan where none is given."""


@dataclass(frozen=True)
class Settings:
    """Say how an evaluation is done; the same settings are needed to go on with it.

    Parameters
    ----------
    size
        ``"small"`` (a CPU's) or ``"paper"``.
    scans
        Size of the simulated subjects.
    train, test
        Number of training and test subjects.
    steps
        Steps of each training; None takes those of the size.
    """

    size: str = "small"
    scans: str | tuple[int, int, int] = "small"
    train: int = 4
    test: int = 2
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.size not in ("small", "paper"):
            raise InputError(f"Unknown size {self.size!r}; choose small or paper.")
        if not (1 <= self.train <= 4 and 1 <= self.test <= 2):
            raise InputError(
                f"{self.train} training and {self.test} test subjects; expected 1 to 4 and 1 or 2."
            )
        from napari_dmri.phantom.travelling import field_of_view

        field_of_view(self.scans)
        if self.steps is not None and self.steps < 1:
            raise InputError(f"{self.steps} steps of training; expected 1 or more.")

    def as_dict(self) -> dict[str, Any]:
        """Return what was set, as JSON gives it back."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True)
class Cell:
    """Name one entry of the tables: a method on a protocol, with a seed."""

    protocol: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.protocol}_{self.method}_{self.seed}"


def planned_cells(
    protocols: Sequence[str] = (), methods: Sequence[str] = (), seeds: int | None = None
) -> list[Cell]:
    """List what is to be done, quick methods first.

    Parameters
    ----------
    protocols, methods
        Names; none means all.
    seeds
        Number of trainings of every network; None is 3 for SHD, SHD-TV and SHD-S and 1 for others.

    Raises
    ------
    InputError
        If a name is unknown, or no method is evaluated on any of the protocols.
    """
    for given, known, what in (
        (protocols, tuple(PROTOCOLS), "protocol"),
        (methods, EVERY, "method"),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InputError(f"Unknown {what} {', '.join(unknown)}; choose of {', '.join(known)}.")
    if seeds is not None and seeds < 1:
        raise InputError(f"{seeds} seeds; expected 1 or more.")
    chosen = [m for m in EVERY if not methods or m in methods]
    cells = []
    for method in chosen:
        repeats = 1 if method not in NETWORKS else seeds or (SEEDS if method in REPEATED else 1)
        cells += [
            Cell(protocol, method, seed)
            for seed in range(repeats)
            for protocol, scans in PROTOCOLS.items()
            if (not protocols or protocol in protocols)
            # Random crossings have no true fODFs.
            and (scans.site or method not in (CEILING, *TAUGHT))
            and (method != SHIPPED or shipped_for(scans) is not None)
        ]
    if not cells:
        raise InputError(
            f"{', '.join(chosen)} cannot be evaluated on {', '.join(protocols)}: random crossings "
            "have no true fODFs, or no network of the package fits; choose another protocol "
            "or method."
        )
    # Each seed of all networks before the next seed of any, so that a table is whole early.
    return sorted(cells, key=lambda cell: (cell.seed, chosen.index(cell.method)))


def undone_cells(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that have no scores yet."""
    return [cell for cell in cells if not (folder / cell.name / "scores.json").is_file()]


def shipped_for(protocol: Protocol) -> ShippedModel | None:
    """Return the network of the package that fits what is seen of a protocol's scans, or None.

    Random crossings have none: their voxels have no neighbours to look at.
    """
    from napari_dmri.deconvolve.evaluation.protocols import seen_volumes
    from napari_dmri.deconvolve.shd.shipped import choose_shipped
    from napari_dmri.phantom.presets import get_scanner

    if not protocol.site:
        return None
    gradients = get_scanner(protocol.site).gradients
    inputs = seen_volumes(gradients, protocol.seen)
    return choose_shipped(BASES[SHIPPED], gradients if inputs is None else gradients.select(inputs))


def options(method: str, protocol: Protocol) -> list[Mapping[str, Any]]:
    """List the settings among which a method chooses on the validation scan."""
    shells = 1 if protocol.name in ("low", "super") else 2
    if method == "csd":
        found: list[Mapping[str, Any]] = [{"order": order} for order in (6, 8, 10, 12)]
        return [*found, {"preset": "sharpest"}] if shells > 1 else found
    if method == "msmt-csd":
        return [{"order": order} for order in (6, 8, 10, 12)]
    if method in ("rumba", "rumba-tv"):
        return [{"iterations": count} for count in (600, 1200)]
    if method == SHIPPED:
        model = shipped_for(protocol)
        return [] if model is None else [{"model": model.name}]
    return [{}]


def prepare_folder(folder: Path, settings: Settings) -> Path:
    """Make the folder of an evaluation, or check that it is of the same one.

    Raises
    ------
    InputError
        If it holds something else, or an evaluation with other settings.
    """
    from napari_dmri.compare.folder import resume_folder

    return resume_folder(folder, "an evaluation", settings.as_dict())
