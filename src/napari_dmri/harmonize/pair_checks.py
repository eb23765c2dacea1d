"""Whether two scans of a person can be trained on: grid, shells, masks, directions, in words.

Only gradients, headers and masks are read, so that a table of pairs is checked as it is filled.
What needs the signal (whether both are of one head) is found when training aligns the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.harmonize.base import CardCheck, same_subject
from napari_dmri.harmonize.features import needs_mapping
from napari_dmri.harmonize.plans import MIN_PAIR_OVERLAP, scan_of
from napari_dmri.scan import Scan, same_grid

if TYPE_CHECKING:
    from napari_dmri.scan import Shell

__all__ = ["PairCheck", "check_pair"]

LEVELS = ("ok", "warning", "error")

NO_SITE = ("source", "target", "?")
"""What stands for a site that a scan does not name."""


@dataclass(frozen=True)
class PairCheck:
    """Say of a pair whom it shows, its sites, the order that both support, and what was found.

    ``voxels`` are about those to learn from: the target's mask, or a third of its grid.
    """

    subject: str
    sites: tuple[str, str]
    order: int | None
    checks: tuple[CardCheck, ...]
    voxels: int = 0

    @property
    def known_sites(self) -> tuple[str, str]:
        """The sites that the scans name, empty where they name none."""
        source, target = ("" if site in NO_SITE else site for site in self.sites)
        return source, target

    @property
    def level(self) -> str:
        """The worst of the checks: ``"ok"``, ``"warning"`` or ``"error"``."""
        return max((c.level for c in self.checks), key=LEVELS.index, default="ok")

    @property
    def sentence(self) -> str:
        """What is wrong; of a pair with nothing wrong, its shell and order."""
        said = [c.sentence for c in self.checks if c.level == self.level]
        return " ".join(said[-2:] if self.level == "ok" else said)


def check_pair(pair: Any, shell: float | None = None, order: int | None = None) -> PairCheck:
    """Check a pair of scans before training, without reading their signal.

    Parameters
    ----------
    pair
        (source, target), or an object with ``source``, ``target`` and ``subject``; scans that
        cannot be read are an error in the result.
    shell
        b-value (s/mm²); None takes the target's shell with most directions.
    order
        The SH order that is wanted; None takes the largest that both support.
    """
    label = "" if isinstance(pair, tuple) else str(pair.subject)
    try:
        source, target = scan_of(pair, "source"), scan_of(pair, "target")
    except (InputError, OSError) as error:
        return PairCheck(label, ("?", "?"), None, (CardCheck("error", str(error)),))
    sites = _site(source, "source"), _site(target, "target")
    label = label or str(source.metadata.get("subject") or "")
    checks = [*_persons(source, target), _grids(source, target), *_masks(source, target)]
    missing = [s.name for s in (source, target) if not s.gradients.b0_mask.any()]
    if missing:
        words = f"{' and '.join(missing)}: no b0 volume (b <= 50 s/mm²); S/b0 needs one."
        return PairCheck(label, sites, None, (*checks, CardCheck("error", words)))
    try:
        shells = _shells(source, target, shell)
    except InputError as error:
        return PairCheck(label, sites, None, (*checks, CardCheck("error", str(error))))
    common, said = _orders((source, target), shells, order)
    checks += [_bvalues(*shells), said]
    return PairCheck(label, sites, common, tuple(checks), _voxels(target))


def _voxels(target: Scan) -> int:
    if target.mask is None:
        return int(np.prod(target.grid)) // 3
    return int(np.count_nonzero(target.mask))


def _site(scan: Scan, role: str) -> str:
    return str(scan.metadata.get("site") or role)


def _persons(source: Scan, target: Scan) -> list[CardCheck]:
    checks = []
    if source is target or (source.path is not None and source.path == target.path):
        checks.append(
            CardCheck(
                "error", f"{source.name} is source and target; a pair needs a scan of each site."
            )
        )
    people = [str(s.metadata.get("subject") or "") for s in (source, target)]
    if all(people) and not same_subject(*people):
        checks.append(
            CardCheck(
                "warning",
                f"The source says it is of {people[0]} and the target of {people[1]}; a pair is "
                "one person at two sites.",
            )
        )
    if source.simulated != target.simulated:
        names = (source, target) if source.simulated else (target, source)
        checks.append(
            CardCheck("warning", f"{names[0].name} is simulated and {names[1].name} is not.")
        )
    return checks


def _grids(source: Scan, target: Scan) -> CardCheck:
    words = [" x ".join(str(n) for n in s.grid) for s in (source, target)]
    sizes = [" x ".join(f"{v:.3g}" for v in s.voxel_size) for s in (source, target)]
    if same_grid(source, target):
        return CardCheck("ok", f"One grid of {words[0]} voxels of {sizes[0]} mm.")
    return CardCheck(
        "warning",
        f"Two grids ({words[0]} of {sizes[0]} mm and {words[1]} of {sizes[1]} mm, or placed "
        "otherwise): the source will be moved to the target's.",
    )


def _masks(source: Scan, target: Scan) -> list[CardCheck]:
    held = [(role, s) for role, s in (("source", source), ("target", target))]
    without = [role for role, s in held if s.mask is None]
    if without:
        verb = "have" if len(without) == 2 else "has"
        words = f"{' and '.join(without).capitalize()} {verb} no mask: one will be made."
        return [CardCheck("warning", words)]
    counts = [int(np.asarray(s.mask, bool).sum()) for _, s in held]
    empty = [role for (role, _), count in zip(held, counts, strict=True) if not count]
    if empty:
        return [CardCheck("error", f"The {' and the '.join(empty)} mask is empty; make a new one.")]
    if same_grid(source, target):
        both = int(np.count_nonzero(np.asarray(source.mask, bool) & np.asarray(target.mask, bool)))
        dice = 2 * both / sum(counts)
        if dice < MIN_PAIR_OVERLAP:
            return [
                CardCheck(
                    "error",
                    f"The masks ({counts[0]} and {counts[1]} voxels) overlap by {dice:.0%}; at "
                    f"least {MIN_PAIR_OVERLAP:.0%} is needed.",
                )
            ]
    return [CardCheck("ok", f"Masks of {counts[0]} and {counts[1]} voxels.")]


def _shells(source: Scan, target: Scan, bvalue: float | None) -> tuple[Shell, Shell]:
    if not target.gradients.weighted_shells:
        raise InputError(f"{target.name} has no diffusion-weighted shell; check its bval file.")
    chosen = target.gradients.shell(bvalue)
    try:
        return source.gradients.shell(chosen.bvalue), chosen
    except InputError as error:
        have = ", ".join(f"{s.bvalue:g}" for s in source.gradients.weighted_shells) or "none"
        raise InputError(
            f"The target has b={chosen.bvalue:g} s/mm² and the source b={have}: no shell in common."
        ) from error


def _bvalues(source: Shell, target: Shell) -> CardCheck:
    if needs_mapping(source.bvalue, target.bvalue):
        return CardCheck(
            "warning",
            f"Source at b={source.bvalue:g}, target at b={target.bvalue:g} s/mm²: S/b0 is mapped.",
        )
    return CardCheck(
        "ok", f"b={target.bvalue:g} s/mm²: {source.count} and {target.count} directions."
    )


def _orders(
    scans: tuple[Scan, Scan], shells: tuple[Shell, Shell], wanted: int | None
) -> tuple[int | None, CardCheck]:
    from napari_dmri.signal.sh_fit import choose_order

    try:
        found = [
            choose_order(scan.gradients.directions[shell.indices])
            for scan, shell in zip(scans, shells, strict=True)
        ]
    except InputError as error:
        return None, CardCheck("error", str(error))
    common = min(found)
    if wanted is not None and wanted > common:
        poorer = "source" if found[0] == common else "target"
        words = f"SH order {wanted} is above what the {poorer} supports ({common})."
        return common, CardCheck("error", words)
    return common, CardCheck("ok", f"SH order {common if wanted is None else wanted}.")
