"""Settings of a cross-validation, and the folder that keeps them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError
from napari_dmri.harmonize.contenders import DEFAULT, Case, contender
from napari_dmri.harmonize.training_pairs import Recipe
from napari_dmri.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_dmri.harmonize.contenders import Fold
    from napari_dmri.training.stages import Stage

__all__ = ["Settings", "choose_settings", "models_of", "prepare_folder", "take_models"]


@dataclass(frozen=True)
class Settings:
    """Say how a cross-validation is done; the same settings are needed to go on with it.

    ``stages`` are of the networks; None takes their own.
    """

    shell: float
    order: int
    smooth: float = 0.006
    folds: int = 10
    seed: int = 0
    contenders: tuple[str, ...] = DEFAULT
    stages: tuple[Stage, ...] | None = None

    @property
    def recipe(self) -> Recipe:
        """How scans on another grid are looked at to move them."""
        return Recipe(self.shell, self.order, self.smooth)

    def as_dict(self) -> dict[str, Any]:
        """Return what was set, as JSON gives it back."""
        return dict(json.loads(json.dumps(asdict(self))))


def choose_settings(
    cases: Sequence[Case],
    order: int | None,
    smooth: float,
    shell: float | None,
    folds: int,
    seed: int,
    contenders: Sequence[str],
    stages: Sequence[Stage] | None,
) -> Settings:
    """Choose shell and order for all, from the gradient tables."""
    from napari_dmri.harmonize.features import common_orders

    if not cases:
        raise InputError("No subjects to evaluate; give a list of travelling pairs.")
    for name in contenders:
        contender(name)
    scans = [
        (f"{case.subject} {role}", getattr(case.pair, role))
        for case in cases
        for role in ("source", "target")
    ]
    bvalue = scans[-1][1].gradients.shell(shell).bvalue
    orders, _ = common_orders(scans, [bvalue], order)
    plan = None if stages is None else tuple(stages)
    return Settings(bvalue, orders[bvalue], smooth, folds, seed, tuple(contenders), plan)


def prepare_folder(folder: Path, settings: Settings, cases: Sequence[Case]) -> Path:
    """Make or check the folder of a cross-validation."""
    from napari_dmri.compare.folder import resume_folder
    from napari_dmri.harmonize.cards import scan_hash

    # Cohorts call their people alike: what was measured says which they are.
    pairs = ((case.pair.source, case.pair.target) for case in cases)
    settled = {
        **settings.as_dict(),
        "subjects": [case.subject for case in cases],
        "scans": [[scan_hash(scan)[:16] for scan in pair] for pair in pairs],
    }
    # More methods may join later; the rest must be the same.
    joining = {"contenders": settled.pop("contenders")}
    return resume_folder(folder, "a cross-validation", settled, joining)


def models_of(other: Path, settings: Settings, folds: Sequence[Fold]) -> dict[str, Path]:
    """Return the files of each fold's models in another cross-validation, by fold and name.

    Parameters
    ----------
    other
        The folder of a cross-validation that is done.
    settings, folds
        What is to be scored.

    Raises
    ------
    InputError
        If it is no cross-validation, was done with other settings, or lacks a model.
    """
    card = other / "evaluation.json"
    if not card.is_file():
        raise InputError(f"{other} holds no cross-validation (no evaluation.json in it).")
    before = json.loads(card.read_text(encoding="utf-8"))
    wanted = {k: v for k, v in settings.as_dict().items() if k != "contenders"}
    if changed := [k for k, v in wanted.items() if before.get(k) != v]:
        said = ", ".join(f"{k} {before.get(k)!r} there and {wanted[k]!r} here" for k in changed)
        raise InputError(f"The models of {other} were trained with other settings: {said}.")
    files = {
        name: other / name
        for fold in folds
        for one in settings.contenders
        for name in (f"{fold.name}/{one}.safetensors", f"{fold.name}/{one}.json")
    }
    if missing := [name for name, path in files.items() if not path.is_file()]:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" * (len(missing) > 3))
        raise InputError(f"{other} lacks {some}; train them there first, or leave methods out.")
    return files


def take_models(files: Mapping[str, Path], folder: Path) -> None:
    """Copy models into the folder of a cross-validation; those that are there already stay."""
    for name, path in files.items():
        if not (folder / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / name) as staged:
                shutil.copyfile(path, staged)
