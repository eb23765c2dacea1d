"""Voxels that are looked at for a collapse: some of each tissue, whatever the patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.deconvolve.shd.collapse import Facts, given_facts
from napari_dmri.deconvolve.shd.samples import FIXED, FodPatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_dmri.training.parts import Batch

__all__ = ["VOXELS", "choose_probe"]

VOXELS = 2048
"""Voxels that are looked at, about."""

TRIES = 16
"""Choices of places to choose among. On six simulated subjects, in whose masks 14 to 17 % of voxels
(one shell) and 47 % (two) are mostly not white matter, the first four patches of 8 voxels an edge
hold 6 to 33 and 55 to 60 %, and those that are chosen 13 to 18 and 48 to 49 %.
"""


def choose_probe(batches: FodPatches, voxels: int = VOXELS) -> Batch:
    """Return patches of the first subject with tissues and directions as in its whole mask.

    Parameters
    ----------
    batches
        What a network learns from.
    voxels
        How many to look at: as many patches as hold them, spread along the mask.
    """
    subject, _ = batches.samples(1, [FIXED], 0)
    alone = FodPatches([batches.volumes[subject]], 1, device=batches.device)
    whole = given_facts(next(_spread(alone, voxels, 1)))
    some = FodPatches(alone.volumes, batches.patch, device=batches.device)
    choices = _spread(some, -(-voxels // batches.patch**3), TRIES)
    return min(choices, key=lambda one: _apart(given_facts(one), whole))


def _spread(patches: FodPatches, count: int, tries: int) -> Iterator[Batch]:
    """Yield choices of patches, each with one in every part of the mask's rows."""
    volume = patches.volumes[0]
    known = volume.voxels
    for number in range(tries):
        rng = np.random.default_rng([FIXED, number])
        places = (np.arange(count) + rng.random(count)) * (len(known) / count)
        rows = known[places.astype(np.int64)]
        yield patches.draw(0, patches.corners(volume.grid, rows, rng))


def _apart(a: Facts, b: Facts) -> float:
    """Return how far the shares of tissues, and how alike directions are, lie apart."""
    return 2 * abs((a.white or 0.0) - (b.white or 0.0)) + abs(a.alike - b.alike)
