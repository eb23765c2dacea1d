r"""Change between vertices and modes of a large sphere by sums and small products.

HEALPix is its own mirror image in x and y (the full sphere in z too). With H the sums and
differences of each vertex and its images, exact and free of multiplications, and :math:`U_c` the
eigenvectors of each class c of parities,

.. math:: \hat x = \mathrm{diag}(U_c^T)\, H x, \qquad x = H^T \mathrm{diag}(U_c)\, \hat x ,

which is a quarter (full sphere: an eighth) of the multiplications of :math:`U^T x`. Columns are
worked on a few at a time, so that all steps but the first and last stay in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_dmri.sphere.graph import laplacian_basis

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Modes"]

CHUNK = 2**18
"""Values that are transformed at once."""


class Orbits(NamedTuple):
    """Vertices that are images of each other, in sets of one size and behaviour."""

    first: int
    size: int
    number: int
    rows: tuple[int, ...]


class Modes:
    """Transform values on the vertices to modes and back.

    The order of the modes, and so their eigenvalues, are those of `laplacian_basis`.

    Parameters
    ----------
    n_side
        N of HEALPix.
    half
        Whether one vertex of each antipodal pair stands for both.
    """

    def __init__(self, n_side: int, half: bool = True) -> None:
        order, orbits, blocks, starts = _plan(n_side, half)
        self.orbits, self.starts = orbits, starts
        self.order = torch.tensor(order)
        self.places = torch.tensor(np.argsort(order))
        self._blocks = {torch.float64: [torch.tensor(block) for block in blocks]}

    def to_modes(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the modes of x (V, M) in ``out``, which may be x."""
        blocks = self._of_type(x.dtype)
        width = max(1, CHUNK // len(x))
        near, sums = x.new_empty(2, len(x), min(width, x.shape[1])).unbind()
        for first in range(0, x.shape[1], width):
            piece = x[:, first : first + width]
            if piece.shape[1] != near.shape[1]:
                near, sums = x.new_empty(2, *piece.shape).unbind()
            torch.index_select(piece, 0, self.order, out=near)
            for orbits in self.orbits:
                self._gather(near, sums, orbits)
            target = out[:, first : first + width]
            for start, block in zip(self.starts, blocks, strict=True):
                rows = slice(start, start + len(block))
                torch.mm(block, sums[rows], out=target[rows])
        return out

    def from_modes(
        self, modes: Tensor, out: Tensor, shift: Tensor | None = None, rectify: bool = False
    ) -> Tensor:
        """Return values at the vertices of modes (V, M) in ``out``, which may be the modes.

        Columns are features F, fastest, of voxels; a shift (F,) is added to each, and negative
        values are cut off if they shall be rectified.
        """
        blocks = self._of_type(modes.dtype)
        features = 1 if shift is None else len(shift)
        width = max(1, CHUNK // (len(modes) * features)) * features
        near, sums = modes.new_empty(2, len(modes), min(width, modes.shape[1])).unbind()
        for first in range(0, modes.shape[1], width):
            piece = modes[:, first : first + width]
            if piece.shape[1] != near.shape[1]:
                near, sums = modes.new_empty(2, *piece.shape).unbind()
            for start, block in zip(self.starts, blocks, strict=True):
                rows = slice(start, start + len(block))
                torch.mm(block.T, piece[rows], out=sums[rows])
            for orbits in self.orbits:
                self._scatter(sums, near, orbits)
            if shift is not None:
                near.view(len(modes), -1, features).add_(shift)
            if rectify:
                near.relu_()
            torch.index_select(near, 0, self.places, out=sums)
            out[:, first : first + width].copy_(sums)
        return out

    def _of_type(self, dtype: torch.dtype) -> list[Tensor]:
        if dtype not in self._blocks:
            self._blocks[dtype] = [block.to(dtype) for block in self._blocks[torch.float64]]
        return self._blocks[dtype]

    def _gather(self, near: Tensor, sums: Tensor, orbits: Orbits) -> None:
        """Write sums and differences of images to the rows of their classes."""
        first, size, count, rows = orbits
        values = near[first : first + size * count]
        if size == 1:
            sums[rows[0] : rows[0] + count].copy_(values)
            return
        span = size * count
        while span > 2 * count:
            for begin in range(0, len(values), span):
                _butterfly_(values[begin : begin + span])
            span //= 2
        for pair in range(0, size, 2):
            low = values[pair * count : (pair + 1) * count]
            high = values[(pair + 1) * count : (pair + 2) * count]
            torch.add(low, high, out=sums[rows[pair] : rows[pair] + count])
            torch.sub(low, high, out=sums[rows[pair + 1] : rows[pair + 1] + count])

    def _scatter(self, sums: Tensor, near: Tensor, orbits: Orbits) -> None:
        """Do the transpose of `_gather`."""
        first, size, count, rows = orbits
        values = near[first : first + size * count]
        if size == 1:
            values.copy_(sums[rows[0] : rows[0] + count])
            return
        for pair in range(0, size, 2):
            even = sums[rows[pair] : rows[pair] + count]
            odd = sums[rows[pair + 1] : rows[pair + 1] + count]
            torch.add(even, odd, out=values[pair * count : (pair + 1) * count])
            torch.sub(even, odd, out=values[(pair + 1) * count : (pair + 2) * count])
        span = 4 * count
        while span <= size * count:
            for begin in range(0, len(values), span):
                _butterfly_(values[begin : begin + span])
            span *= 2


def _butterfly_(values: Tensor) -> None:
    """Replace two halves by their sum and difference."""
    low, high = values.chunk(2)
    difference = low - high
    low.add_(high)
    high.copy_(difference)


@lru_cache(maxsize=16)
def _plan(
    n_side: int, half: bool
) -> tuple[NDArray[np.int64], tuple[Orbits, ...], tuple[NDArray[np.float64], ...], tuple[int, ...]]:
    """Sort vertices by their images, and classes by orbits.

    Returns
    -------
    order
        Vertices (V,), orbits of one kind together, the images slowest.
    orbits
        Each kind: its first place, vertices an orbit, number of orbits, and the row where each
        combination of signs goes.
    blocks
        For each class, modes from sums (modes, rows), with the norms of the sums.
    starts
        The first row of each class.
    """
    mirror, vectors, _ = laplacian_basis(n_side, half)
    sizes = [len(block) for block in vectors]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    classes = np.repeat(np.arange(len(sizes)), sizes)
    kinds: dict[tuple[int, ...], list[tuple[list[int], list[int]]]] = {}
    seen = np.zeros(len(mirror), dtype=bool)
    for vertex in range(len(mirror)):
        if seen[vertex]:
            continue
        rows = np.flatnonzero(np.abs(mirror[:, vertex]) > 1e-9)
        members = np.flatnonzero(np.abs(mirror[rows[0]]) > 1e-9)
        seen[members] = True
        signs = np.sign(mirror[np.ix_(rows, members)]).astype(int)
        signs *= signs[:, :1]
        rows_of, members_of = _sylvester(signs)
        kind = tuple(int(classes[rows[row]]) for row in rows_of)
        kinds.setdefault(kind, []).append(
            ([int(rows[row]) for row in rows_of], [int(members[m]) for m in members_of])
        )
    order: list[int] = []
    found: list[Orbits] = []
    used = starts[:-1].copy()
    sources = np.empty(len(mirror), dtype=np.int64)
    norms = np.empty(len(mirror))
    for kind, sets in sorted(kinds.items(), key=lambda item: (-len(item[0]), item[0])):
        members = np.array([m for _, m in sets])
        rows = np.array([r for r, _ in sets])
        begins = []
        for place, name in enumerate(kind):
            begin = int(used[name])
            begins.append(begin)
            sources[begin : begin + len(sets)] = rows[:, place]
            # A row of the mirror step starts with its own sign.
            lead = mirror[rows[:, place], members[:, 0]]
            norms[begin : begin + len(sets)] = lead
            used[name] += len(sets)
        found.append(Orbits(len(order), len(kind), len(sets), tuple(begins)))
        order.extend(members.T.ravel().tolist())
    blocks = []
    for index, block in enumerate(vectors):
        rows_of_class = slice(starts[index], starts[index + 1])
        local = sources[rows_of_class] - starts[index]
        blocks.append(block.T[:, local] * norms[rows_of_class])
    return np.array(order), tuple(found), tuple(blocks), tuple(int(s) for s in starts[:-1])


def _sylvester(signs: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return orders of rows and columns in which signs are a Sylvester-Hadamard matrix.

    The rows are all products of a few, as characters are; entry (j, e) is -1 to the number of
    bits that j and e have in common.
    """
    size = len(signs)
    bits = size.bit_length() - 1
    known = {(1,) * size: 0}
    generators: list[NDArray[np.int64]] = []
    for row in signs:
        if tuple(row) in known:
            continue
        generators.append(row)
        for other, number in list(known.items()):
            known[tuple(np.array(other) * row)] = number | 1 << (len(generators) - 1)
    if len(generators) != bits or len(known) != size:
        raise ValueError("the signs of an orbit are not characters")
    codes = sum(((row < 0).astype(int) << bit for bit, row in enumerate(generators)), start=0)
    columns = np.argsort(codes) if bits else np.array([0])
    numbers = [known[tuple(row)] for row in signs]
    return [int(row) for row in np.argsort(numbers)], [int(column) for column in columns]
