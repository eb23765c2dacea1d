r"""Find voxels of single fibres, grey matter and CSF in the scan itself.

Free water has lost nearly all of its signal where tissue keeps much of it, so the mean signal
decay

.. math:: D = \tfrac{1}{K} \sum_k \ln(\bar S_0 / \bar S_{b_k})

over the K shells, anisotropy, and the brightness at b = 0 tell the tissues apart without any other
image (Dhollander et al. 2016, ISMRM Workshop on Breaking the Barriers of Diffusion MRI, 5). What
is found must be plausible: voxels that are neither darker after diffusion weighting nor brighter at
b = 0 than white matter are crossing fibres, not grey matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.progress import Progress, part, silent
from napari_dmri.signal.blocks import blocks, fitting_mask
from napari_dmri.signal.mask import brain_mask, otsu_threshold
from napari_dmri.signal.tensor import fit_tensor

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = [
    "Voxels",
    "find_tissues",
    "read_voxels",
    "receive_field",
    "single_fibres",
]

Array = NDArray[Any]

ANISOTROPIC = 0.2
"""FA above which a voxel is taken for white matter."""

LINE = 0.99
"""FA from which on a tensor is no tissue: noise or rounding has left one direction."""

EROSION_MM = 4.0
"""Voxels nearer to the mask's border hold scalp, vessels and partial volume."""

AIR = 0.12
"""Voxels darker than this part of the brightest at b = 0 are air."""

LEAST_VOXELS = 20
"""Fewer voxels than this are no tissue."""

WATER = 1.5e-3
"""Mean diffusivity (mm²/s) that no tissue reaches."""

LEAST_FOR_FIELD = 500
"""White matter's voxels that the receive field is made from, at least."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """Hold what tells the usable voxels of a scan apart, one row each.

    Parameters
    ----------
    where
        Flat index in C order (P,).
    grid
        Shape (X, Y, Z) of the scan.
    bvalues
        The shells (S,) in s/mm².
    means
        Mean signal of each shell, b0 first (P, S).
    fa, linear
        Fractional anisotropy and (l1 - l2) / l1 of the tensor (P,).
    axis
        Principal direction (P, 3).
    inner
        Whether a voxel lies away from the mask's border (P,).
    skipped
        How many voxels of the mask could not be used.
    brain_made
        Whether a brain mask was made because none was given.
    """

    where: NDArray[np.intp]
    grid: tuple[int, int, int]
    bvalues: tuple[float, ...]
    means: NDArray[np.float64]
    fa: NDArray[np.float32]
    linear: NDArray[np.float32]
    axis: NDArray[np.float32]
    inner: NDArray[np.bool_]
    skipped: int
    brain_made: bool = False

    @property
    def decay(self) -> NDArray[np.float64]:
        """The mean signal decay D (P,)."""
        floor = 1e-3 * self.means[:, :1]
        ratios = self.means[:, :1] / np.maximum(self.means[:, 1:], floor)
        result: NDArray[np.float64] = np.log(ratios).mean(1)
        return result


def read_voxels(
    scan: Scan, mask: Array | None = None, *, progress: Progress | None = None
) -> Voxels:
    """Read shell means and the tensor of a scan's usable voxels.

    Parameters
    ----------
    scan
        The scan.
    mask
        Where to look (X, Y, Z); None takes the scan's mask, else a brain mask made here, or all
        voxels of an image without air around it.
    progress
        Who is told.

    Raises
    ------
    InputError
        If the mask is empty or on another grid, b0 or weighted volumes are missing, directions are
        too few, or no voxel has signal.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    report = progress or silent
    _require_shells(scan)
    inside = fitting_mask(scan, mask)
    given = inside is not None
    if inside is None:
        inside = _brain_if_any(scan)
    shells = scan.gradients.shells
    means = np.zeros((*scan.grid, len(shells)), np.float32)
    good = np.zeros(scan.grid, bool)
    broken = dark = 0
    for block in blocks(scan, np.arange(scan.shape[3]), inside):
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.stack([block.signal[:, s.indices].mean(1) for s in shells], 1)
            finite = np.isfinite(block.signal.sum(1))
        usable = finite & (values > 0).all(1)
        broken += int((~finite).sum())
        dark += int((finite & ~usable).sum())
        block.put(means, np.where(usable[:, None], values, 0).astype(np.float32))
        block.put(good, usable)
        report(0.3 * block.done, "reading shells")
    if not good.any():
        raise InputError(
            f"{scan.name}: no voxel can be used for a response ({broken} hold NaN or Inf, {dark} "
            "have no signal in some shell); check the image file and the mask."
        )
    skipped = broken + (dark if given else 0)
    if skipped:
        warnings.warn(
            f"{scan.name}: {broken} voxels with NaN or Inf and {skipped - broken} without signal "
            "in some shell were left out of the responses.",
            DmriWarning,
            stacklevel=3,
        )
    tensor = fit_tensor(scan, mask=good, device="cpu", progress=part(progress, 0.3, 1.0))
    where = np.flatnonzero(good)
    values = tensor.eigenvalues.reshape(-1, 3)[where]
    largest = np.maximum(values[:, 0], 1e-9)
    return Voxels(
        where,
        scan.grid,
        tuple(s.bvalue for s in shells),
        means.reshape(-1, len(shells))[where].astype(np.float64),
        np.ascontiguousarray(tensor.fa).reshape(-1)[where],
        ((values[:, 0] - values[:, 1]) / largest).astype(np.float32),
        tensor.principal.reshape(-1, 3)[where],
        _inner(good, scan.voxel_size).reshape(-1)[where],
        skipped,
        brain_made=not given and inside is not None,
    )


def _brain_if_any(scan: Scan) -> NDArray[np.bool_] | None:
    """Return a brain mask where the image shows air around a head, else None for all voxels."""
    b0 = scan.mean_b0()
    positive = b0[b0 > 0]
    if not positive.size or (b0 < AIR * np.percentile(positive, 95)).mean() < 0.1:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DmriWarning)
            return brain_mask(scan)
    except InputError:
        return None


def _require_shells(scan: Scan) -> None:
    table = scan.gradients
    if not table.b0_mask.any():
        raise InputError(
            f"{scan.name} has no b0 volume (lowest b-value {table.bvalues.min():g} s/mm²); a "
            "response needs one to scale the shells: add a b0 volume to the scan."
        )
    counts = {s.bvalue: table.distinct_directions(s.indices) for s in table.weighted_shells}
    if not counts or max(counts.values()) < 6:
        words = ", ".join(f"{n} at b={b:g}" for b, n in counts.items()) or "none"
        raise InputError(
            f"{scan.name} has too few directions for a response ({words}); at least 6 distinct "
            "ones are needed on one shell."
        )


def _inner(good: Array, voxel_size: Array) -> NDArray[np.bool_]:
    """Return voxels away from the border; the image's own edge is none."""
    from scipy import ndimage

    if good.all():
        return good
    inner: NDArray[np.bool_] = ndimage.distance_transform_edt(good, sampling=voxel_size)
    inner = inner > EROSION_MM
    return inner if inner.sum() >= 0.2 * good.sum() else good


def single_fibres(voxels: Voxels, count: int | None = None, *, by: str = "linear") -> Array:
    """Return rows of voxels whose signal looks like that of one fibre bundle.

    Parameters
    ----------
    voxels
        The scan's voxels.
    count
        How many of the most anisotropic ones; None takes the upper fifth of white matter.
    by
        ``"linear"`` (a tensor with one large eigenvalue) or ``"fa"``.

    Raises
    ------
    InputError
        If no voxel is anisotropic.
    """
    measure = voxels.linear if by == "linear" else voxels.fa
    white = np.flatnonzero((voxels.fa > ANISOTROPIC) & (voxels.fa < LINE) & voxels.inner)
    if not white.size:
        raise InputError(
            f"None of {voxels.fa.size} voxels has an FA between {ANISOTROPIC:g} and {LINE:g} (they "
            f"have {voxels.fa.min():.2f} to {voxels.fa.max():.2f}), so none shows a single fibre; "
            "check mask, b-values and b-vectors."
        )
    wanted = max(LEAST_VOXELS, len(white) // 5) if count is None else count
    order = np.argsort(-measure[white], kind="stable")
    return np.sort(white[order[:wanted]])


def find_tissues(voxels: Voxels, affine: Array) -> dict[str, Array]:
    """Return rows of pure white matter and, where they are plausible, of grey matter and CSF."""
    fibrous = (voxels.fa > ANISOTROPIC) & voxels.inner
    if not fibrous.any():
        return {"wm": np.empty(0, np.intp)}
    found = {"wm": _white(voxels, fibrous)}
    # Brightness and decay in units of white matter's, so that one rule fits all protocols.
    bright = np.log(voxels.means[:, 0] / receive_field(voxels, found["wm"], affine))
    bright -= np.median(bright[found["wm"]])
    decay = voxels.decay
    white = float(np.median(decay[found["wm"]]))
    rest = np.flatnonzero((voxels.fa <= ANISOTROPIC) & voxels.inner)
    # Water reaches the noise floor at high b, where a little tissue no longer shows.
    first = np.log(voxels.means[:, 0] / voxels.means[:, 1])
    lowest = float(voxels.bvalues[1] - voxels.bvalues[0])
    likely = (bright > 0.2) | ((first > WATER * lowest) & (bright > -0.3))
    water, watery = _water(rest, rest[likely[rest]], first, float(np.median(first[found["wm"]])))
    grey = _grey(np.setdiff1d(rest, watery), decay, bright, white)
    return found | {t: rows for t, rows in (("gm", grey), ("csf", water)) if rows.size}


def _white(voxels: Voxels, fibrous: Array) -> Array:
    """Return rows of anisotropic voxels that lie among such voxels, without outliers of decay."""
    from scipy import ndimage

    image = np.zeros(voxels.grid, bool)
    image.reshape(-1)[voxels.where[fibrous]] = True
    # Crossings leave holes of low anisotropy, which are white matter's inside all the same.
    filled = ndimage.binary_closing(np.pad(image, 1, mode="edge"))[1:-1, 1:-1, 1:-1] | image
    core = ndimage.binary_erosion(filled, border_value=1).reshape(-1)[voxels.where]
    rows = np.flatnonzero(core & voxels.inner)
    if rows.size < max(LEAST_VOXELS, 0.1 * fibrous.sum()):
        rows = np.flatnonzero(fibrous)
    for measure in (voxels.decay, np.log(voxels.means[:, 0])):
        middle = float(np.median(measure[rows]))
        width = float(np.subtract(*np.percentile(measure[rows], (75, 25)))) / 1.349
        rows = rows[np.abs(measure[rows] - middle) <= 2 * max(width, 1e-6)]
    return rows


def _water(rest: Array, likely: Array, decay: Array, white: float) -> tuple[Array, Array]:
    """Return rows of pure CSF, and of all that holds much of it."""
    none = np.empty(0, np.intp)
    if rest.size < LEAST_VOXELS or np.ptp(decay[rest]) < 1e-3:
        return none, none
    limit = max(otsu_threshold(decay[rest]), 1.35 * white)
    some = likely[decay[likely] > limit]
    if some.size < LEAST_VOXELS:
        return none, some
    # The crowd at the upper end is free water: its peak has partial volume, its top has noise.
    upper = np.sort(decay[some])[2 * some.size // 3 :]
    reference = (_mode(upper) + float(np.median(upper[-max(LEAST_VOXELS, some.size // 5) :]))) / 2
    pure = some[np.abs(decay[some] - reference) < 0.06 * reference]
    return (pure if pure.size >= LEAST_VOXELS else none), some


def _grey(rest: Array, decay: Array, bright: Array, white: float) -> Array:
    """Return rows of grey matter: the crowd between white matter and water."""
    none = np.empty(0, np.intp)
    for measure, width in ((decay, 0.1 * white), (bright, 0.1), (decay, 0.07 * white)):
        if rest.size < LEAST_VOXELS:
            return none
        rest = rest[np.abs(measure[rest] - _mode(measure[rest])) < width]
    away = np.hypot(np.median(bright[rest]), np.median(decay[rest]) - white) if rest.size else 0
    return rest if away > 0.1 and rest.size >= LEAST_VOXELS else none


def _mode(values: Array) -> float:
    """Return the middle of the narrowest interval that holds half, halved again and again."""
    some = np.sort(values)
    while some.size > 8:
        half = some.size // 2
        start = int(np.argmin(some[half:] - some[: some.size - half]))
        some = some[start : start + half + 1]
    return float(some.mean())


def receive_field(voxels: Voxels, white: Array, affine: Array) -> NDArray[np.float64]:
    """Return how bright each voxel's place is against white matter's, a factor (P,).

    The logarithm of white matter's b0 is followed by a quadratic function of position.
    """
    if len(white) < LEAST_FOR_FIELD:
        return np.ones(len(voxels.where))
    at = np.stack(np.unravel_index(voxels.where, voxels.grid), 1) @ affine[:3, :3].T
    centre, size = at[white].mean(0), np.maximum(at[white].std(0), 1e-6)
    x, y, z = ((at - centre) / size).T
    design = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], 1)
    logarithm = np.log(voxels.means[white, 0])
    field = np.exp(design @ np.linalg.lstsq(design[white], logarithm, rcond=None)[0])
    relative: NDArray[np.float64] = np.clip(field / field[white].mean(), 0.4, 2.5)
    return relative
