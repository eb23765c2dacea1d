r"""From travelling pairs to samples: SH of the source, and the signal that the target measured.

A sample is a voxel of white or grey matter in which both scans have signal. Its input are the
source's SH coefficients around it, its target the S/b0 that the target scanner measured there, at
the target's directions; nothing of the target is fitted.

Tissue comes from labels that are given with the pair, else from the source scan: choosing voxels by
the target's own noise would bias what is learned.

Pairs on one grid are taken as they lie, after a look at whether they lie on each other
(`pair_alignment`). Else, and always where that is asked for, the source is moved to the target's
grid: a rigid motion (or an affine) is found from FA and the energy of order 0, each volume is
interpolated once, and the gradients are turned with the head,

.. math:: g' = R^T g, \qquad x_{source} = A\, x_{target} + t, \quad R = \mathrm{polar}(A).

Both scans are then in the target's frame, the only one in which target directions have a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize import features
from napari_dmri.harmonize.alignment import Channels, register_affine, register_rigid, resample
from napari_dmri.harmonize.linear_rish_card import Facts, facts_of
from napari_dmri.harmonize.pair_alignment import (
    as_it_lies,
    farthest,
    look_alike,
    moved_by,
    register_here,
)
from napari_dmri.harmonize.plans import require_pair, scan_of
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan, same_grid
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from napari_dmri.images import ShImage, TensorImage
    from napari_dmri.training.store import Store

__all__ = ["Added", "Recipe", "add_pair", "moved_source", "onto_target"]

Array = NDArray[Any]

TISSUES = {1: "white matter", 2: "grey matter"}

HELD_OUT = 0.15
"""Share of a single pair's extent that is kept for validation."""

REGISTRATIONS = ("rigid", "affine", "always")

STILL = 0.1
"""Voxels: a scan on the target's grid is not interpolated for a motion that is smaller."""


@dataclass(frozen=True)
class Recipe:
    """How samples are made: shell (s/mm²), SH order, lambda, b-value mapping, registration.

    ``registration`` is of pairs on different grids, ``"rigid"`` or ``"affine"``; ``"always"``
    aligns those on one grid too, rigidly.
    """

    bvalue: float
    order: int
    smooth: float = 0.006
    map_bvalue: bool = True
    registration: str = "rigid"

    def __post_init__(self) -> None:
        if self.registration not in REGISTRATIONS:
            raise InputError(
                f"Unknown registration {self.registration!r}; choose 'rigid', 'affine' or 'always'."
            )

    def keeps(self, scan: Any, target: Any) -> bool:
        """Tell whether a scan is taken as it lies on the target."""
        return self.registration != "always" and same_grid(scan, target)


@dataclass(frozen=True, eq=False)
class Added:
    """What became of a pair: facts of both scans, fitted voxels, samples by tissue, notes."""

    facts: tuple[Facts, Facts]
    mask: NDArray[np.bool_]
    tissues: dict[str, int]
    notes: tuple[str, ...]


def add_pair(
    store: Store,
    pair: Any,
    subject: str,
    recipe: Recipe,
    *,
    held: Store | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Added:
    """Fit a pair and add its samples to a store.

    Parameters
    ----------
    store
        Where to.
    pair
        (source, target), or an object with ``source``, ``target`` and perhaps ``tissue`` (labels
        on the target's grid: 1 white matter, 2 grey matter).
    subject
        Its label.
    recipe
        How samples are made.
    held
        A second store, which gets one end of the brain instead: for validation with one pair.
    device, progress
        Where fits run; who is told.

    Raises
    ------
    InputError
        If the scans do not overlap, cannot be aligned, or have no sample in common, or the labels
        lie on another grid than the target.
    """
    orders = {recipe.bvalue: recipe.order}
    target, made = features.with_mask(scan_of(pair, "target"), part(progress, 0.0, 0.1, "mask: "))
    source, also = features.with_mask(scan_of(pair, "source"), part(progress, 0.1, 0.2, "mask: "))
    notes = [
        f"{s.name} had no mask; one was made." for s, m in ((source, also), (target, made)) if m
    ]
    facts = facts_of(subject, "source", source, orders), facts_of(subject, "target", target, orders)
    if recipe.keeps(source, target):
        _require_overlap(source, target, subject)
    reference = features.shell_scan(target, recipe.bvalue, recipe.map_bvalue)
    single = features.shell_scan(source, recipe.bvalue, recipe.map_bvalue)
    channels = _look(reference, recipe, device, part(progress, 0.2, 0.4, "target: "))[2]
    image, tensor, own = _look(single, recipe, device, part(progress, 0.4, 0.6, "source: "))
    if recipe.keeps(source, target):
        require_pair(own, channels, np.eye(4), subject, lying=True)
        notes += as_it_lies(channels, own, subject, part(progress, 0.6, 0.8))
    else:
        motion, alike = _motion(channels, own, recipe, subject, part(progress, 0.6, 0.8))
        notes += look_alike(alike, subject)
        moved, said = _place(single, target, motion, channels, recipe, subject)
        if moved is not single:
            single = moved
            image, tensor, _ = _look(single, recipe, device, part(progress, 0.8, 0.95, "source: "))
        notes.append(said)
    signal, usable, empty = _measured(reference)
    if empty:
        notes.append(f"{subject}: {empty} voxels of the target's mask have no signal at b0.")
    labels = _labels(pair, target, tensor, single, device)
    fitted = np.ones(target.grid, bool) if image.mask is None else image.mask
    where = np.isin(labels, tuple(TISSUES)) & fitted & usable
    tissues = {name: int((where & (labels == value)).sum()) for value, name in TISSUES.items()}
    if not where.any():
        raise InputError(
            f"{subject}: no voxel of white or grey matter has signal in both scans; check the "
            "masks, the tissue labels, and that both are of one person."
        )
    _add(store, held, subject, image, where, signal, reference, recipe.order)
    return Added(facts, fitted, tissues, tuple(notes))


def moved_source(source: Scan, target: Scan, motion: Array) -> Scan:
    """Put a scan on another's grid through an affine (target points to source ones, mm)."""
    from scipy.linalg import polar

    rotation, _ = polar(motion[:3, :3])
    volumes = [
        resample(source.volumes(n), source.affine, target.grid, target.affine, motion)
        for n in range(source.shape[3])
    ]
    mask = np.asarray(source.mask, np.float32)
    inside = resample(mask, source.affine, target.grid, target.affine, motion) > 0.5
    return replace(
        source,
        data=np.stack(volumes, -1),
        affine=target.affine,
        gradients=source.gradients.rotate(rotation.T),
        mask=inside,
        path=None,
    )


def onto_target(
    scan: Scan,
    target: Scan,
    subject: str,
    recipe: Recipe,
    *,
    role: str = "source",
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Scan, str]:
    """Move all volumes of a scan to the target's grid, as training moves a pair's source.

    Returns
    -------
    The scan and a sentence that says so; the scan as it is and an empty sentence where it is taken
    as it lies.

    Raises
    ------
    InputError
        If the scans cannot be aligned: the masks' overlap and the correlation are told.
    """
    if recipe.keeps(scan, target):
        return scan, ""
    whole, _ = features.with_mask(scan, part(progress, 0.0, 0.1, "mask: "))
    still, _ = features.with_mask(target, part(progress, 0.1, 0.2, "mask: "))
    looks = []
    for n, one in enumerate((still, whole)):
        single = features.shell_scan(one, recipe.bvalue, recipe.map_bvalue)
        inner = part(progress, 0.2 + 0.2 * n, 0.4 + 0.2 * n)
        looks.append(_look(single, recipe, device, inner)[2])
    motion, _ = _motion(looks[0], looks[1], recipe, subject, part(progress, 0.6, 0.9))
    moved, said = _place(whole, target, motion, looks[0], recipe, subject, role)
    return (scan, "") if moved is whole else (moved, said)


def _motion(
    static: Channels, moving: Channels, recipe: Recipe, subject: str, progress: Progress | None
) -> tuple[NDArray[np.float64], float]:
    """Return the motion of target points to source ones (mm), and the correlation it gives."""
    rigid = register_here if same_grid(static, moving) else register_rigid
    register = register_affine if recipe.registration == "affine" else rigid
    motion = register(static, moving, progress=progress)
    return motion, require_pair(static, moving, motion, subject)


def _place(
    scan: Scan,
    target: Scan,
    motion: Array,
    static: Channels,
    recipe: Recipe,
    subject: str,
    role: str = "source",
) -> tuple[Scan, str]:
    """Move a scan to the target's grid through a motion, unless it lies there, and say so."""
    if not same_grid(scan, target):
        how = "an affine" if recipe.registration == "affine" else "a rigid"
        return moved_source(scan, target, motion), (
            f"{subject}: the {role} ({_by(scan)} voxels of {_mm(scan)} mm) was moved to the "
            f"target's grid ({_by(target)} voxels of {_mm(target)} mm) by {how} alignment, and "
            "its gradients turned with it."
        )
    off = farthest(motion, static)
    if off <= STILL * min(target.voxel_size):
        return scan, (
            f"{subject}: the {role} lies on the target to {off:.2f} mm and was left where it is."
        )
    return moved_source(scan, target, motion), (
        f"{subject}: the {role} was {moved_by(motion, static)} onto the target by a rigid "
        "alignment, and its gradients turned with it."
    )


def _look(
    scan: Scan, recipe: Recipe, device: str, progress: Progress
) -> tuple[ShImage, TensorImage, Channels]:
    """Fit SH and tensor of one shell; FA and the energy of order 0 are what alignment sees."""
    from napari_dmri.signal.rish import rish
    from napari_dmri.signal.sh_fit import fit_sh
    from napari_dmri.signal.tensor import fit_tensor

    image = fit_sh(
        scan, recipe.order, recipe.smooth, None, device=device, progress=part(progress, 0.0, 0.5)
    )
    tensor = fit_tensor(scan, mask=scan.mask, device=device, progress=part(progress, 0.5, 1.0))
    mask = np.asarray(scan.mask, bool) & (True if image.mask is None else image.mask)
    maps = np.nan_to_num(tensor.fa), rish(image)[..., 0]
    return image, tensor, Channels(maps, mask, scan.affine)


def _measured(scan: Scan) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """Return S/b0 of the weighted volumes in [0, 1], where it is known, and how often b0 is not."""
    inside = np.asarray(scan.mask, bool)
    b0 = scan.mean_b0()
    weighted = scan.volumes(np.flatnonzero(~scan.gradients.b0_mask))
    usable = inside & (b0 > 0) & np.isfinite(weighted).all(-1)
    ratio = np.divide(weighted, b0[..., None], out=np.zeros_like(weighted), where=usable[..., None])
    return np.clip(ratio, 0, 1), usable, int((inside & ~(b0 > 0)).sum())


def _labels(
    pair: Any, target: Scan, tensor: TensorImage, source: Scan, device: str
) -> NDArray[np.int64]:
    from napari_dmri.compare.tissue import labels_on, tissue_labels

    given = getattr(pair, "tissue", None)
    if given is None:
        return tissue_labels(tensor, b0=source.mean_b0(), mask=source.mask, device=device).astype(
            np.int64
        )
    return labels_on(given, target).astype(np.int64)


def _add(
    store: Store,
    held: Store | None,
    subject: str,
    image: ShImage,
    where: Array,
    signal: Array,
    reference: Scan,
    order: int,
) -> None:
    from napari_dmri.harmonize.networks import replicate_outside

    inside = np.ones(where.shape, bool) if image.mask is None else image.mask
    values = replicate_outside(image.coefficients, inside)
    weighted = ~reference.gradients.b0_mask
    design = design_matrix(reference.gradients.directions[weighted], order).astype(np.float32)
    chosen = [(store, where)]
    if held is not None:
        end = _one_end(where)
        chosen = [(store, where & ~end), (held, where & end)]
    for place, voxels in chosen:
        place.add(subject, values, voxels, signal[voxels], design)


def _one_end(where: Array) -> NDArray[np.bool_]:
    """Return the last part of the longest axis (X, Y, Z), by the samples' extent."""
    axis = int(np.argmax([np.ptp(np.flatnonzero(where.any(_others(a)))) for a in range(3)]))
    counts = np.cumsum(where.sum(_others(axis)))
    first = int(np.searchsorted(counts, (1 - HELD_OUT) * counts[-1])) + 1
    shape = [1, 1, 1]
    shape[axis] = -1
    late = (np.arange(where.shape[axis]) >= first).reshape(shape)
    return np.broadcast_to(late, where.shape)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)


def _require_overlap(source: Scan, target: Scan, subject: str) -> None:
    """Refuse masks on one grid that share no voxel, before any fit."""
    a, b = np.asarray(source.mask, bool), np.asarray(target.mask, bool)
    if not (a & b).any():
        raise InputError(
            f"{subject}: the masks of source ({int(a.sum())} voxels) and target ({int(b.sum())} "
            "voxels) do not overlap; check that both belong to these scans, or make new masks."
        )


def _by(scan: Scan) -> str:
    return " x ".join(str(n) for n in scan.grid)


def _mm(scan: Scan) -> str:
    return " x ".join(f"{v:.3g}" for v in scan.voxel_size)
