"""The block of a validation subject where networks and losses are scored between evaluations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.compare.fibre_truth import FibreTruth

if TYPE_CHECKING:
    from napari_dmri.deconvolve.evaluation.protocols import Case

BLOCK = (slice(10, 50), slice(20, 60), slice(3, 11))
"""The voxels, of which white matter counts."""


def on_block(case: Case) -> Case:
    """Return a case whose scored voxels are those of the block; all, where it has none."""
    inside = np.zeros_like(case.scored)
    inside[BLOCK] = case.scored[BLOCK]
    if not inside.any():
        return case
    held, truth = inside[case.scored], case.truth
    kept = FibreTruth(truth.directions[held], truth.count[held], truth.angle[held])
    return replace(case, scored=inside, truth=kept)
