"""What is written down of a trained network: settings, data, curves, and how it may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.shd.order_rule import RULES
from napari_dmri.provenance import versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.scan import Scan
    from napari_dmri.training.parts import Fit

__all__ = ["CITATIONS", "KIND", "make_card", "model_label", "training_entry"]

KIND = "deconvolve"

CITATIONS = (
    "Elaldi A, Gerig G, Dey N. Equivariant spatio-hemispherical networks for diffusion MRI "
    "deconvolution. Advances in Neural Information Processing Systems 37, 2024.",
)


def model_label(card: Mapping[str, Any]) -> str:
    """Return what a model is called beside others: its method, and whether it was taught.

    Examples
    --------
    >>> model_label({"label": "SHD-S-TV", "known_fods": True})
    'SHD-S-TV, taught'
    """
    return f"{card['label']}, taught" if card.get("known_fods") else str(card["label"])


def training_entry(
    scan: Scan, orders: Sequence[int], subject: str = "", use: str = "training"
) -> dict[str, Any]:
    """Describe a scan that a network learns from: subject, name, shells, their orders, hash."""
    from napari_dmri.harmonize.cards import scan_hash

    label = subject or str(scan.metadata.get("subject") or "") or scan.name
    return {
        "subject": label,
        "site": str(scan.metadata.get("site") or ""),
        "name": scan.name,
        "use": use,
        "shells": {f"{s.bvalue:g}": s.count for s in scan.gradients.shells},
        "orders": list(orders),
        "voxel_size": [round(float(v), 4) for v in scan.voxel_size],
        "simulated": scan.simulated,
        "sha256": scan_hash(scan),
    }


def make_card(
    preset: Preset,
    others: Sequence[str],
    bvalues: Sequence[float],
    entries: Sequence[dict[str, Any]],
    fit: Fit,
    *,
    seed: int,
    device: str,
    trained_from: str,
    rule: str = RULES[0],
    start: ShdModel | None = None,
    known_fods: bool = False,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write down what a network is and was made from.

    Parameters
    ----------
    preset
        The method, with the plan that was followed.
    others, bvalues
        Tissues besides white matter; shells in s/mm², b0 first.
    entries
        Of every scan, from `training_entry`.
    fit
        How training went.
    seed, device
        Of weights and batches; where it ran.
    trained_from
        ``"scan"``, one scan without supervision, or ``"subjects"``.
    rule
        How shells were fitted (see `order_rule.shell_matrix`).
    start
        The model that it began from.
    known_fods
        Whether it learned from known fODFs; also so where the model that it began from did.
    notes
        What had to be said.
    """
    before = {} if start is None else start.card
    known = known_fods or bool(before.get("known_fods"))
    simulated = any(entry["simulated"] for entry in entries)
    truth = " and their true fODFs" if known else ""
    curves = [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in entry.items()}
        for entry in fit.curves
    ]
    return {
        "kind": KIND,
        **preset.as_dict(),
        "tissues": ["wm", *others],
        "bvalues": [float(b) for b in bvalues],
        "rule": rule,
        "trained_from": trained_from,
        "started_from": "" if start is None else start.sha256,
        "known_fods": known,
        "subjects": list(dict.fromkeys(e["subject"] for e in entries)),
        "training": [dict(e) for e in entries],
        "simulated": simulated,
        "purpose": f"trained on simulated scans{truth}" if simulated else "research",
        "licence": "BSD-3-Clause" if simulated else "the licence of the training scans",
        "outcome": {
            "best_epoch": fit.best_epoch,
            "best_loss": fit.best_loss,
            "steps": fit.steps,
            "seconds": fit.seconds,
            "device": device,
            "ended_by_hand": fit.finished_early,
        },
        "curves": curves,
        "seed": seed,
        "notes": list(notes),
        "citations": list(CITATIONS),
        "versions": versions(),
    }
