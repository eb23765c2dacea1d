"""What a training does where memory runs out: it goes on with half of the patches a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.deconvolve.shd.samples import FIXED
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_dmri.deconvolve.shd.samples import FodPatches
    from napari_dmri.training.parts import Batch

__all__ = ["Pieces", "halvings", "no_memory", "patches_of"]


class Pieces:
    """Give a validation's batches in pieces: the same patches, however few fit at once.

    A loss can be compared with one from before only where it is of the same voxels.

    Parameters
    ----------
    patches
        Where from.
    size
        Patches of a whole batch.
    """

    def __init__(self, patches: FodPatches, size: int) -> None:
        self.patches, self.size = patches, size

    def count(self, size: int) -> int:
        """Return the number of pieces of so many patches."""
        return self.patches.count(self.size) * -(-self.size // size)

    def batches(
        self, size: int, key: Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Yield pieces from a step on; key None: always the same ones."""
        chosen = [FIXED] if key is None else [int(k) for k in key]
        each = -(-self.size // size)
        for number in range(start, self.count(size)):
            subject, corners = self.patches.samples(self.size, chosen, number // each)
            first = number % each * size
            yield self.patches.draw(subject, corners[first : first + size])


def halvings(batch: int) -> list[int]:
    """Return what is left of a batch after each halving, down to 1.

    Examples
    --------
    >>> halvings(8), halvings(1)
    ([4, 2, 1], [])
    """
    found = []
    while batch > 1:
        batch //= 2
        found.append(batch)
    return found


def patches_of(batch: int, edge: int) -> str:
    """Say what a step takes.

    Examples
    --------
    >>> patches_of(8, 4), patches_of(1, 4)
    ('8 patches of 4 voxels an edge', '1 patch of 4 voxels an edge')
    """
    return f"{batch} patch{'es' * (batch != 1)} of {edge} voxel{'s' * (edge != 1)} an edge"


def no_memory(device: str, batch: int, edge: int) -> InputError:
    """Return the refusal of a training that cannot be halved any more."""
    return InputError(
        f"Memory ran out on {device} for a step of {patches_of(batch, edge)}; choose the "
        "size small, close other programs, or choose another device."
    )
