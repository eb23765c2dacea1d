r"""Find flipped or swapped axes in the b-vectors from how well neighbouring fibres line up.

White-matter bundles are longer than a voxel: where a fibre points at a neighbour, the neighbour's
fibre points back along the same line. A wrong sign or order of the b-vectors' axes turns every
fibre and breaks this. The fibre coherence index of a candidate correction Q counts, over pairs of
anisotropic neighbours p and q with the unit vector :math:`u_{pq}` between them (millimetres),

.. math::

    C(Q) = \frac{1}{|P|} \sum_{(p, q) \in P}
           [\,|v_p^T Q^T u_{pq}| > \cos\theta\,]\;[\,|v_q^T Q^T u_{pq}| > \cos\theta\,],

with v the principal tensor directions (Q turns the tensor D into :math:`Q D Q^T`, so the tensor is
fitted once). Candidates are the 24 signed permutations of the image's axes that differ as axes:
none, a flip, a swap of two axes, a cycle of three, and each of these with a flip.

The axes are the *voxel axes* of the scan as it is held here (x to the patient's right, y to the
front, z up, as nearly as the slices lie), not the scanner's: vendors and converters confuse signs
along rows, columns and slices, and in an oblique scan these are what must be flipped.

References
----------
Schilling et al. 2019, "A fiber coherence index for quality control of B-table orientation in
diffusion MRI scans", Magnetic Resonance Imaging 58. Here pairs reach over two voxels (124
neighbours less the repeated lines), which separates the candidates more than 26 neighbours do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_dmri.images import TensorImage
    from napari_dmri.scan import GradientTable, Scan

__all__ = ["OrientationCheck", "check_orientation", "fix_gradients", "fixes", "voxel_rotation"]

Array = NDArray[Any]

ANGLE = 20.0
"""A pair lines up when both fibres are within this angle (degrees) of the line between them."""

REACH = 2
"""Neighbours are up to this many voxels away along each axis."""

LOW_FA = 0.3
"""Voxels with a lower FA do not vote."""

MARGIN = 1.1
"""Another candidate is believed when it has this many times the pairs of the b-vectors as given."""

DEVIATIONS = 6.0
"""... and leads by this many standard deviations of the two counts."""

LEAST_PAIRS = 2000
"""With fewer pairs of anisotropic neighbours the question is left open."""

MOST_VOXELS = 60_000
"""More anisotropic voxels than this are thinned to blocks of whole slices, evenly spaced."""

_WORDS = {"x": "right-left", "y": "front-back", "z": "up-down"}


@dataclass(frozen=True, eq=False)
class OrientationCheck:
    """What the fibre-coherence test found.

    Parameters
    ----------
    best
        The candidate with the highest index: ``"none"`` or a name that `fix_gradients` takes.
    scores
        Coherence index of every candidate: the share of neighbour pairs that line up, in [0, 1].
    suspicious
        Whether the best candidate beats the b-vectors as given by a clear margin.
    sentence
        The result in words, with the numbers.
    pairs
        Number of neighbour pairs that were compared.
    """

    best: str
    scores: Mapping[str, float] = field(default_factory=dict)
    suspicious: bool = False
    sentence: str = ""
    pairs: int = 0


@cache
def fixes() -> Mapping[str, NDArray[np.float64]]:
    """Return the candidate corrections Q (3, 3) by name; ``"none"`` is the identity.

    A swap or cycle is done first and the flip after it, both along voxel axes.
    """
    orders = {
        "": (0, 1, 2),
        "swap x y": (1, 0, 2),
        "swap x z": (2, 1, 0),
        "swap y z": (0, 2, 1),
        "cycle x y z": (2, 0, 1),
        "cycle x z y": (1, 2, 0),
    }
    table: dict[str, NDArray[np.float64]] = {}
    for name, order in orders.items():
        for axis in (None, 0, 1, 2):
            matrix = np.eye(3)[list(order)]
            words = [name] if name else []
            if axis is not None:
                matrix[axis] *= -1
                words.append(f"flip {'xyz'[axis]}")
            matrix.setflags(write=False)
            table[", ".join(words) or "none"] = matrix
    return table


def voxel_rotation(affine: Array) -> NDArray[np.float64]:
    """Return the orthogonal part R (3, 3) of an affine: voxel axes to scanner axes.

    The nearest orthogonal matrix to the unit columns (polar decomposition), so that a gantry
    tilt (shear) leaves R a rotation.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    left, _, right = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    rotation: NDArray[np.float64] = left @ right
    return rotation


def fix_gradients(gradients: GradientTable, fix: str, affine: Array) -> GradientTable:
    r"""Flip or reorder the b-vectors along the voxel axes of an image.

    .. math:: g' = R Q R^T g

    Parameters
    ----------
    gradients
        Directions in the scanner's RAS frame.
    fix
        A name from `fixes`: ``"none"``, ``"flip x"``, ``"swap x y"``, ``"swap x y, flip z"`` ...
    affine
        The scan's affine (4, 4), whose rotation part R takes voxel axes to scanner axes.

    Raises
    ------
    InputError
        If the fix is not known.
    """
    table = fixes()
    if fix not in table:
        raise InputError(
            f"Unknown b-vector fix {fix!r}; choose one of {', '.join(list(table)[:8])} ... "
            f"({len(table)} in all)."
        )
    rotation = voxel_rotation(affine)
    return gradients.rotate(rotation @ table[fix] @ rotation.T)


def check_orientation(
    tensor: TensorImage, scan: Scan | None = None, *, progress: Progress | None = None
) -> OrientationCheck:
    """Test whether flipped or reordered b-vectors would make fibres line up better.

    Parameters
    ----------
    tensor
        Tensor fit of the scan with its b-vectors as given.
    scan
        The scan, for its mask where the tensor has none.
    progress
        Told after each neighbour direction.

    Returns
    -------
    OrientationCheck
        ``suspicious`` only if another candidate has at least 1.1 times the coherent pairs and
        leads by six standard deviations.
    """
    report = progress or silent
    voting = tensor.fa > LOW_FA
    mask = tensor.mask if tensor.mask is not None else (scan.mask if scan is not None else None)
    if mask is not None:
        voting &= mask
    voting &= np.isfinite(tensor.principal).all(-1)
    voting = _thin(voting)
    sizes = np.linalg.norm(tensor.affine[:3, :3], axis=0)
    fibres = np.zeros((*voting.shape, 3), np.float32)
    fibres[voting] = tensor.principal[voting] @ voxel_rotation(tensor.affine).astype(np.float32)
    table = fixes()
    turns = np.stack(list(table.values()))
    coherent = np.zeros(len(turns))
    pairs = 0
    offsets = _offsets()
    for done, offset in enumerate(offsets):
        report(done / len(offsets), "fibre coherence")
        here, there = _windows(offset, voting.shape)
        both = voting[here] & voting[there]
        step = np.asarray(offset) * sizes
        lines = ((step / np.linalg.norm(step)) @ turns).T.astype(np.float32)
        limit = np.float32(np.cos(np.deg2rad(ANGLE)))
        meets = (np.abs(fibres[here][both] @ lines) > limit) & (
            np.abs(fibres[there][both] @ lines) > limit
        )
        coherent += meets.sum(0)
        pairs += int(both.sum())
    report(1.0, "fibre coherence")
    return _judge(dict(zip(table, coherent, strict=True)), pairs)


def _judge(coherent: dict[str, float], pairs: int) -> OrientationCheck:
    if pairs < LEAST_PAIRS:
        return OrientationCheck(
            "none",
            {name: count / max(pairs, 1) for name, count in coherent.items()},
            False,
            f"The b-vector orientation could not be checked: only {pairs} pairs of neighbours "
            f"with FA > {LOW_FA:g} ({LEAST_PAIRS} needed).",
            pairs,
        )
    scores = {name: count / pairs for name, count in coherent.items()}
    ranking = sorted(scores, key=lambda name: -scores[name])
    best, given = ranking[0], "none"
    lead = coherent[best] - coherent[given]
    noise = np.sqrt(coherent[best] + coherent[given])
    clear = scores[best] >= MARGIN * scores[given] and lead > DEVIATIONS * noise
    if best == given or not clear:
        rival = next(name for name in ranking if name != given)
        verb = "line up best as given" if best == given else "line up about as well as given"
        sentence = (
            f"The b-vectors look right: fibres {verb} ({scores[given]:.2%} of {pairs:,} neighbour "
            f"pairs; next, {rival}: {scores[rival]:.2%})."
        )
        return OrientationCheck(best, scores, False, sentence, pairs)
    named = ", ".join(f"{axis} is {word}" for axis, word in _WORDS.items() if f" {axis}" in best)
    sentence = (
        f"The b-vectors look wrong: with {best} ({named}) {scores[best]:.2%} of {pairs:,} "
        f"neighbour pairs line up, as given only {scores[given]:.2%}."
    )
    return OrientationCheck(best, scores, True, sentence, pairs)


def _thin(voting: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep evenly spaced blocks of slices when there are more voters than needed."""
    count = int(voting.sum())
    keep = -(-count // MOST_VOXELS)
    if keep <= 1:
        return voting
    block = 4 * REACH
    chosen = (np.arange(voting.shape[2]) // block) % keep == 0
    kept: NDArray[np.bool_] = voting & chosen
    return kept


def _offsets() -> list[tuple[int, int, int]]:
    """Return one voxel step per line: half of the neighbourhood, without multiples of a step."""
    span = range(-REACH, REACH + 1)
    return [
        (i, j, k)
        for i, j, k in product(span, repeat=3)
        if (i, j, k) > (0, 0, 0) and np.gcd.reduce((i, j, k)) == 1
    ]


def _windows(
    offset: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    here = tuple(slice(max(0, -d), min(n, n - d)) for d, n in zip(offset, shape, strict=True))
    there = tuple(slice(max(0, d), min(n, n + d)) for d, n in zip(offset, shape, strict=True))
    return here, there
