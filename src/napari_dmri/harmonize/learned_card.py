"""The card of a learned harmonizer: what it is, what it was trained on, how training went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.harmonize.linear_rish_card import KIND, Facts
from napari_dmri.provenance import versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.harmonize.learned import LearnedHarmonizer
    from napari_dmri.harmonize.training_pairs import Recipe
    from napari_dmri.training.parts import Fit

__all__ = ["NORMALISATION", "make_card"]

NORMALISATION = "S/b0 by each scan's own mean b0, clipped to [0, 1]"


def make_card(
    model: LearnedHarmonizer,
    facts: Sequence[Facts],
    validation: Sequence[str],
    recipe: Recipe,
    network: Mapping[str, Any],
    samples: Mapping[str, Mapping[str, int]],
    fit: Fit,
    device: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Write down what a model is and was made from.

    Parameters
    ----------
    model
        The harmonizer, for its settings.
    facts
        Of all scans, those of validation too.
    validation
        Labels of the subjects that only chose the best epoch.
    recipe, network
        How samples were made; the network's settings.
    samples
        Subjects and voxels by use (``"training"``, ``"validation"``), voxels by tissue of both.
    fit, device
        How training went, and where.
    notes
        What had to be said.
    """
    sites = {
        role: next((f.site for f in facts if f.role == role and f.site), role)
        for role in ("source", "target")
    }
    simulated = any(f.simulated for f in facts)
    bvalues = [f.bvalues[recipe.bvalue] for f in facts if f.role == "source"]
    target = next(f for f in facts if f.role == "target")
    return {
        "kind": KIND,
        "method": model.NAME,
        "label": model.LABEL,
        "mode": network["mode"],
        "order": recipe.order,
        "shell": recipe.bvalue,
        "shells": [
            {
                "bvalue": recipe.bvalue,
                "order": recipe.order,
                "source_bvalue": float(np.mean(bvalues)),
            }
        ],
        "smooth": recipe.smooth,
        "normalisation": NORMALISATION,
        "projection": model.projection,
        "voxel_size": [round(float(v), 4) for v in target.voxel_size],
        "source_site": sites["source"],
        "target_site": sites["target"],
        "trained_from": "pairs",
        "subjects": list(dict.fromkeys(f.subject for f in facts)),
        "validation_subjects": list(validation),
        "inputs": [
            {
                "subject": f.subject,
                "role": f.role,
                "use": "validation" if f.subject in validation else "training",
                "name": f.name,
                "sha256": f.sha256,
            }
            for f in facts
        ],
        "samples": {use: dict(counts) for use, counts in samples.items()},
        "simulated": simulated,
        "purpose": "simulated, demo only" if simulated else "research",
        "licence": "the licence of the training scans" if not simulated else "BSD-3-Clause",
        "network": dict(network),
        "parameters": model.parameters,
        "training": {
            "best_epoch": fit.best_epoch,
            "best_loss": fit.best_loss,
            "epochs": sum(1 for c in fit.curves if c["epoch"]),
            "steps": fit.steps,
            "seconds": fit.seconds,
            "device": device,
            "ended_by_hand": fit.finished_early,
        },
        "curves": [
            {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in entry.items()}
            for entry in fit.curves
        ],
        "notes": list(notes),
        "citations": list(model.CITATIONS),
        "versions": versions(),
    }
