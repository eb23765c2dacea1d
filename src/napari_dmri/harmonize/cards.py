"""Model cards: what a model was made from, and whether that fits a scan, in words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.harmonize.base import CardCheck, trained_subject
from napari_dmri.harmonize.features import needs_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.scan import Scan

__all__ = ["check_card", "refuse_errors", "scan_hash"]

VOXEL_TOLERANCE = 0.1
"""Relative difference of voxel sizes above which a scan is warned about."""


def scan_hash(scan: Scan) -> str:
    """Return the SHA-256 of a scan's gradients, grid, mean b0 and one weighted volume."""
    digest = hashlib.sha256()
    weighted = np.flatnonzero(~scan.gradients.b0_mask)[:1]
    for array in (
        np.round(scan.gradients.bvalues, 3),
        np.round(scan.gradients.directions, 4) + 0.0,
        np.round(scan.affine, 4) + 0.0,
        np.round(scan.mean_b0(), 2).astype(np.float32) + 0.0,
        np.round(np.nan_to_num(scan.volumes(weighted)), 2) + np.float32(0),
    ):
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_card(card: Mapping[str, Any], scan: Scan) -> tuple[CardCheck, ...]:
    """Check a model's card against a scan: origin, b0, shells, order, voxel size, subject."""
    checks = [_origin(card, scan), *_shells(card, scan), _voxels(card, scan)]
    if not scan.gradients.b0_mask.any():
        checks.append(
            CardCheck("error", f"{scan.name} has no b0 volume (b <= 50 s/mm²); S/b0 needs one.")
        )
    else:
        # By label only: a check is made whenever a scan is picked, and must not read its signal.
        known = trained_subject(card, str(scan.metadata.get("subject") or ""))
        if known is not None:
            checks.append(
                CardCheck(
                    "warning",
                    f"The model was trained on {known}: what it does to this scan says nothing "
                    "about how it does on others.",
                )
            )
    return tuple(checks)


def refuse_errors(checks: Sequence[CardCheck], label: str) -> None:
    """Refuse a scan whose checks hold an error.

    Raises
    ------
    InputError
        With the sentences of all errors.
    """
    errors = [check.sentence for check in checks if check.level == "error"]
    if errors:
        raise InputError(f"{label} does not fit this scan. " + " ".join(errors))


def _origin(card: Mapping[str, Any], scan: Scan) -> CardCheck:
    sites = f"{card.get('source_site')} -> {card.get('target_site')}"
    if card.get("simulated") and not scan.simulated:
        return CardCheck(
            "error",
            f"The model ({sites}) was fitted on simulated sites (simulated, demo only) and "
            f"{scan.name} is not a simulated scan: train your own from travelling pairs or two "
            "groups.",
        )
    if scan.simulated and not card.get("simulated"):
        return CardCheck(
            "warning", f"{scan.name} is simulated and the model ({sites}) is of real scanners."
        )
    site = scan.metadata.get("site")
    if site and card.get("source_site") not in (site, "source"):
        return CardCheck(
            "warning",
            f"{scan.name} says it is from {site}; the model takes scans of "
            f"{card.get('source_site')}.",
        )
    return CardCheck("ok", f"Sites: {sites}.")


def _shells(card: Mapping[str, Any], scan: Scan) -> list[CardCheck]:
    checks = []
    have = ", ".join(f"{s.bvalue:g}" for s in scan.gradients.weighted_shells) or "none"
    taken = set()
    for entry in card["shells"]:
        bvalue, order = float(entry["bvalue"]), int(entry["order"])
        try:
            shell = scan.gradients.shell(bvalue)
        except InputError:
            checks.append(
                CardCheck(
                    "error",
                    f"The model was trained at b={bvalue:g} s/mm² and the scan has b={have}: "
                    "use a model of the scan's shell.",
                )
            )
            continue
        taken.add(shell.bvalue)
        checks.append(_order(scan, shell, order))
        if needs_mapping(shell.bvalue, bvalue):
            checks.append(
                CardCheck(
                    "warning",
                    f"The shell is at b={shell.bvalue:g} and the model at b={bvalue:g} s/mm² "
                    f"({shell.bvalue / bvalue - 1:+.1%}): S/b0 is raised to b_new/b.",
                )
            )
    others = [s.bvalue for s in scan.gradients.weighted_shells if s.bvalue not in taken]
    if others and taken:
        words = ", ".join(f"{b:g}" for b in others)
        checks.append(
            CardCheck(
                "warning",
                f"The model was not trained at b={words} s/mm²; these volumes pass through "
                "unchanged.",
            )
        )
    return checks


def _order(scan: Scan, shell: Any, order: int) -> CardCheck:
    from napari_dmri.signal.sh_fit import choose_order

    supported = choose_order(scan.gradients.directions[shell.indices])
    words = f"{shell.count} directions at b={shell.bvalue:g} s/mm²"
    if supported < order:
        return CardCheck(
            "error",
            f"The model has SH order {order} and the scan's {words} support order {supported}: "
            f"train a model of order {supported}.",
        )
    if supported > order:
        return CardCheck(
            "ok",
            f"SH order {order}, {words}; these would support order {supported}, detail above "
            f"order {order} is not kept.",
        )
    return CardCheck("ok", f"SH order {order}, {words}.")


def _voxels(card: Mapping[str, Any], scan: Scan) -> CardCheck:
    trained = np.asarray(card["voxel_size"], float)
    found = scan.voxel_size
    words = [" x ".join(f"{v:.3g}" for v in sizes) for sizes in (found, trained)]
    if np.abs(found / trained - 1).max() > VOXEL_TOLERANCE:
        return CardCheck(
            "warning",
            f"Voxels of {words[0]} mm; the model was trained at {words[1]} mm: partial volumes "
            "differ, so look at the result.",
        )
    return CardCheck("ok", f"Voxels of {words[0]} mm.")
