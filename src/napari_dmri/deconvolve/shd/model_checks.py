"""Whether a model of the family fits a scan, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.card import model_label
from napari_dmri.deconvolve.shd.order_rule import paper_order
from napari_dmri.errors import InputError
from napari_dmri.harmonize.base import CardCheck, same_subject
from napari_dmri.images import Response
from napari_dmri.scan import B0_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_dmri.scan import Scan, Shell

__all__ = ["TOLERANCE", "check_model"]

TOLERANCE = 0.25
"""Relative difference of b-values and of voxel sizes from which a shell, or a voxel, is another."""

NEAR = 0.05
"""Relative difference of b-values that is not worth a word."""


def check_model(
    card: Mapping[str, Any],
    scan: Scan,
    responses: Mapping[str, Response] | Response | None = None,
) -> tuple[CardCheck, ...]:
    """Check a model's card against a scan: origin, shells, directions, responses, voxel size.

    Parameters
    ----------
    card
        Of an `ShdModel`.
    scan
        The scan; its signal is not read.
    responses
        The responses at hand; None where they are still to be estimated.
    """
    shells, checks = _shells(card, scan)
    return (
        _origin(card, scan),
        *checks,
        *_directions(card, scan, shells),
        *_tissues(card, scan, responses),
        *_voxels(card, scan),
    )


def _origin(card: Mapping[str, Any], scan: Scan) -> CardCheck:
    label = str(scan.metadata.get("subject") or "")
    known = [str(e.get("subject", "")) for e in card.get("training", [])]
    words = f"{model_label(card)}, in {card['mode']} mode: {_lesson(card, len(known))}."
    if any(same_subject(name, label) for name in known):
        return CardCheck("ok", f"{words} {label} is one of them.")
    if card["simulated"] and not scan.simulated:
        return CardCheck(
            "warning",
            f"{words} {scan.name} is not simulated: look at the result, or fit the model to this "
            "scan.",
        )
    return CardCheck("ok", words)


def _lesson(card: Mapping[str, Any], count: int) -> str:
    """Say what a model has learned from, and whether it was told the true fODFs."""
    scans, known = f"{count} scan{'s' * (count != 1)}", bool(card.get("known_fods"))
    if known and card.get("trained_from") == "scan":
        return f"fitted to {scans}, beginning from a model that was taught known fODFs"
    if card["simulated"]:
        return f"trained on simulated scans{' and their true fODFs' * known} ({scans})"
    return f"trained on {scans}{' with known fODFs' * known}"


def _trained_bvalues(card: Mapping[str, Any]) -> list[float]:
    """Return the b-values of all scans of training, b0 left out."""
    every = {float(b) for entry in card.get("training", ()) for b in entry.get("shells", ())}
    return sorted(b for b in every if b > B0_THRESHOLD)


def _shells(card: Mapping[str, Any], scan: Scan) -> tuple[list[Shell], list[CardCheck]]:
    """Return the scan's shells that the model takes, and what is to be said of them."""
    from napari_dmri.deconvolve.shd.shell_choice import match_shells

    bvalues = [float(b) for b in card["bvalues"]]
    if not scan.gradients.b0_mask.any():
        words = f"{scan.name} has no b0 volume (b <= {B0_THRESHOLD:g} s/mm²); the model needs one."
        return [], [CardCheck("error", words)]
    try:
        shells, unused = match_shells(scan.gradients, bvalues, TOLERANCE)
    except InputError as error:
        return [], [CardCheck("error", str(error))]
    checks = []
    for shell, b in zip(shells[1:], bvalues[1:], strict=True):
        known = [b, *_trained_bvalues(card)]
        if min(abs(shell.bvalue - one) / one for one in known) > NEAR:
            checks.append(
                CardCheck(
                    "warning",
                    f"The shell at b={shell.bvalue:g} takes the place of b={b:g} s/mm² in training "
                    f"({shell.bvalue / b - 1:+.0%}): its contrast is another.",
                )
            )
    if unused:
        listed = ", ".join(f"{s.count} at b={s.bvalue:g}" for s in unused)
        checks.append(
            CardCheck(
                "warning", f"The model does not take {listed} s/mm²; these volumes are left out."
            )
        )
    if not checks:
        checks.append(CardCheck("ok", f"Shells: b = {', '.join(f'{b:g}' for b in bvalues)} s/mm²."))
    return list(shells), checks


def _directions(card: Mapping[str, Any], scan: Scan, shells: list[Shell]) -> list[CardCheck]:
    """Compare the orders that the shells carry with those of training."""
    if not shells:
        return []
    most = int(card["architecture"]["input_order"])
    every = card.get("rule") == "paper"  # which counts volumes, not directions
    table = scan.gradients
    counts = [s.count if every else table.distinct_directions(s.indices) for s in shells[1:]]
    orders = [paper_order(n, most) if n else 0 for n in counts]
    listed = ", ".join(
        f"{n} at b={s.bvalue:g} (order {o})"
        for n, o, s in zip(counts, orders, shells[1:], strict=True)
    )
    if max(orders) < 2:
        return [
            CardCheck(
                "error", f"Directions: {listed}; 7 of a shell are needed to see orientations."
            )
        ]
    trained = _trained_orders(card, most)
    if len(trained) == len(orders) and any(o < t for o, t in zip(orders, trained, strict=True)):
        had = ", ".join(map(str, trained))
        return [
            CardCheck(
                "warning",
                f"Directions: {listed}; fewer than in training (orders {had}): expect less detail.",
            )
        ]
    return [CardCheck("ok", f"Directions: {listed}.")]


def _trained_orders(card: Mapping[str, Any], most: int) -> list[int]:
    """Return the orders of the weighted shells of training, where the card tells them."""
    if "orders" in card:
        return [int(o) for o in card["orders"]][1:]
    orders = []
    for b in card["bvalues"][1:]:
        counts = [
            int(count)
            for entry in card.get("training", [])
            for value, count in dict(entry.get("shells", {})).items()
            if abs(float(value) - b) <= TOLERANCE * b
        ]
        orders += [paper_order(min(counts), most)] if counts else []
    return orders


def _tissues(
    card: Mapping[str, Any], scan: Scan, responses: Mapping[str, Response] | Response | None
) -> list[CardCheck]:
    tissues = [str(t) for t in card["tissues"]]
    words = ", ".join(t.upper() for t in tissues)
    if responses is not None:
        have = {responses.tissue} if isinstance(responses, Response) else set(responses)
        missing = [t for t in tissues if t not in have]
        if missing:
            sentence = (
                f"The model separates {words} and there is no response of "
                f"{', '.join(t.upper() for t in missing)}: estimate it from this scan."
            )
            return [CardCheck("error", sentence)]
    if len(tissues) > len(scan.gradients.shells):
        words += (
            f" from {len(scan.gradients.shells)} b-values, told apart by shape: grey matter is "
            "what has no direction"
        )
    return [CardCheck("ok", f"Tissues: {words}.")]


def _voxels(card: Mapping[str, Any], scan: Scan) -> list[CardCheck]:
    sizes = [e["voxel_size"] for e in card.get("training", []) if "voxel_size" in e]
    if "voxel_size" not in card and not sizes:
        return []
    known = np.asarray(card.get("voxel_size", sizes), float)
    trained, found = np.median(known.reshape(-1, 3), axis=0), scan.voxel_size
    words = [" x ".join(f"{v:.3g}" for v in size) for size in (found, trained)]
    alone = int(card["architecture"]["patch"]) == 1
    if not alone and np.abs(found / trained - 1).max() > TOLERANCE:
        return [
            CardCheck(
                "warning",
                f"Voxels of {words[0]} mm; the model was trained at {words[1]} mm: neighbours have "
                "less or more in common than it learned.",
            )
        ]
    return [CardCheck("ok", f"Voxels of {words[0]} mm.")]
