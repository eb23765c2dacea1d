r"""Prepare a scan for a network: SH of every shell, the signal to explain, and its forward model.

All signals and responses are divided by one number, white matter's b0

.. math:: n = r_{\mathrm{wm}, 0}(b = 0) / \sqrt{4\pi} ,

so that 1 is the signal of pure white matter without diffusion weighting. A shell's coefficients
are a least-squares fit (`shell_matrix`); b0's are :math:`(\sqrt{4\pi}\,\bar S_0, 0, \dots)`. A
volume on the shell b along g is then explained by :math:`s = A_{\mathrm{wm}} f + \sum_t a_t f_t`
with the rows of `shells.forward_matrix`.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.shd.order_rule import check_rule, shell_matrix
from napari_dmri.deconvolve.shd.prepared import Prepared
from napari_dmri.deconvolve.shd.shell_choice import choose_subset, match_shells
from napari_dmri.deconvolve.shd.tiles import Box, around
from napari_dmri.deconvolve.shells import forward_matrix, match_rows, require_anisotropy
from napari_dmri.device import require_memory
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import TISSUES, Response, ResponseSet, n_coefficients
from napari_dmri.progress import Progress, silent
from napari_dmri.scan import SHELL_GAP
from napari_dmri.signal.blocks import Block, blocks, fitting_mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_dmri.scan import GradientTable, Scan, Shell

__all__ = ["Prepared", "check_others", "choose_subset", "match_shells", "prepare"]

UNUSUAL, IMPOSSIBLE = 3.0, 20.0
"""Factors between the median b0 and the response's b0 that are told of, and that are refused."""

ROOT = math.sqrt(4 * math.pi)

Array = NDArray[Any]


def check_others(others: Sequence[str]) -> tuple[str, ...]:
    """Return the tissues besides white matter in their usual order.

    Raises
    ------
    InputError
        If one of them is not ``"gm"`` or ``"csf"``, or comes twice.
    """
    chosen = (others,) if isinstance(others, str) else tuple(others)
    known = TISSUES[1:]
    if len(set(chosen)) != len(chosen) or any(t not in known for t in chosen):
        raise InputError(
            f"Tissues besides white matter are {', '.join(map(str, chosen))}; choose of gm and "
            "csf, each once, or none."
        )
    return tuple(t for t in known if t in chosen)


def prepare(
    scan: Scan,
    responses: ResponseSet | Response,
    *,
    others: Sequence[str] = (),
    bvalues: Sequence[float] | None = None,
    input_order: int = 8,
    degree: int = 18,
    rule: str = "safe",
    inputs: Sequence[int] | Array | None = None,
    tolerance: float = SHELL_GAP,
    mask: Array | None = None,
    margin: int | None = None,
    keep_signal: bool = True,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare a scan for a network.

    Parameters
    ----------
    scan
        The scan, magnitudes as they are, read block by block.
    responses
        White matter's response and those of the other tissues, with a row for b0 and each shell.
    others
        Tissues besides white matter: any of ``"gm"`` and ``"csf"``.
    bvalues
        The shells that the network takes, b0 first; None for those of the scan (or of
        ``inputs``). The scan's other shells are left out, which is told.
    input_order
        Order that coefficients are padded to, and the highest fitted.
    degree
        Order of the fODF.
    rule
        How a shell is fitted: ``"safe"`` or ``"paper"`` (see `shell_matrix`).
    inputs
        Indices of the volumes that the network sees, to learn from few directions to explain all:
        then every volume of the scan is in ``signal``. None for all.
    tolerance
        How far the scan's b-values may be from ``bvalues``, in s/mm², or as a share of them if
        below 1.
    mask
        Voxels that count (X, Y, Z); None takes the scan's mask, else all with b0 > 0.
    margin
        Voxels around the mask's box that are kept beside it: as many as a network is shown (see
        `tiles.reach`). None keeps the whole grid.
    keep_signal
        Whether the volumes are kept; applying a network needs none.
    progress
        Who is told.

    Raises
    ------
    InputError
        If a response is missing or has no row for b0 or a shell, there is no b0 volume or no
        direction, a shell is not the model's, the mask is empty, or the responses are of other
        magnitudes than the scan.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0, of volumes not used,
        and if median b0 and the response's differ by a factor above 3.
    """
    check_rule(rule)
    others = check_others(others)
    chosen = _responses(responses, others)
    table = scan.gradients
    if not table.b0_mask.any():
        scan.mean_b0()
    seen, volumes, unused = _volumes(scan, inputs, bvalues, tolerance)
    names = tuple(bvalues) if bvalues is not None else tuple(s.bvalue for s in seen)
    forward, kernel, scale = _forward(table, volumes, chosen, degree)
    orders = [0]
    matrices = [np.full((1, seen[0].count), ROOT / seen[0].count)]
    notes = [f"{len(seen)} shells go in: {seen[0].count} b0"]
    for shell in seen[1:]:
        matrix, order, words = shell_matrix(table.directions[shell.indices], input_order, rule)
        matrices.append(matrix)
        orders.append(order)
        notes[0] += f", {shell.count} at b={shell.bvalue:g} as SH {words}"
    if max(orders) < 2:
        most = max((shell.count for shell in seen[1:]), default=0)
        raise InputError(
            f"{scan.name} has {table.summary()}, and at most {most} directions of a shell are "
            "seen; order 2 needs 7: a network cannot see orientations so."
        )
    explained = len(table.select(volumes).shells)
    if len(chosen) > explained:
        notes.append(
            f"{len(chosen)} tissues from {explained} b-values: their amounts are not "
            "determined by the signal alone, but by fODFs being sparse"
        )
    if inputs is not None:
        count = sum(s.count for s in seen)
        notes.append(f"super-resolution: {count} volumes go in, {len(volumes)} are explained")
    if unused:
        words = ", ".join(f"{s.count} at b={s.bvalue:g}" for s in unused)
        _warn(f"{scan.name}: volumes {words} s/mm² are not on the model's card and are not used.")
    inside = fitting_mask(scan, mask)
    box = None if inside is None or margin is None else around(inside, margin)
    filled = _fill(scan, seen, matrices, volumes, scale, input_order, keep_signal, box, progress)
    coefficients, signal, b0, good = filled
    counted = _mask(scan, inside, good, b0)
    _require_units(scan, b0[counted], scale)
    return Prepared(
        coefficients,
        signal,
        b0,
        counted,
        tuple(float(b) for b in names),
        scale,
        {t: np.ascontiguousarray(a, np.float32) for t, a in forward.items()},
        kernel,
        tuple(chosen),
        volumes,
        np.sort(np.concatenate([s.indices for s in seen])),
        scan.affine,
        scan.name,
        tuple(notes),
        tuple(orders),
        {
            "rule": rule,
            "input_order": input_order,
            "degree": degree,
            "tissues": list(chosen),
            "orders": orders,
            "scale": scale,
        },
        box,
    )


def _responses(responses: ResponseSet | Response, others: tuple[str, ...]) -> dict[str, Response]:
    have = dict(responses) if isinstance(responses, ResponseSet) else {responses.tissue: responses}
    missing = [t for t in ("wm", *others) if t not in have]
    if missing:
        raise InputError(
            f"The network separates {', '.join(('wm', *others))} and there are responses for "
            f"{', '.join(have)}: estimate {', '.join(missing)} from this scan, or separate fewer "
            "tissues (another model, or other tissues in a fit)."
        )
    return {t: have[t] for t in ("wm", *others)}


def _volumes(
    scan: Scan,
    inputs: Sequence[int] | Array | None,
    bvalues: Sequence[float] | None,
    tolerance: float,
) -> tuple[tuple[Shell, ...], NDArray[np.intp], tuple[Shell, ...]]:
    """Return the shells that go in, the volumes to explain, and shells that are not used."""
    table = scan.gradients
    every = np.arange(len(table))
    if inputs is None:
        seen, unused = (
            (table.shells, ()) if bvalues is None else match_shells(table, bvalues, tolerance)
        )
        return seen, np.sort(np.concatenate([s.indices for s in seen])), unused
    index = np.unique(np.asarray(inputs, dtype=np.intp))
    if not index.size or index[0] < 0 or index[-1] >= len(table):
        raise InputError(
            f"Volumes {index[:1]} to {index[-1:]} are to go in; the scan has 0 to {len(table) - 1}."
        )
    some = table.select(index)
    if not some.b0_mask.any():
        raise InputError("None of the volumes that go in is a b0 volume; add one.")
    shells, unused = (
        (some.shells, ()) if bvalues is None else match_shells(some, bvalues, tolerance)
    )
    seen = tuple(type(s)(s.bvalue, index[s.indices]) for s in shells)
    return seen, every, tuple(type(s)(s.bvalue, index[s.indices]) for s in unused)


def _forward(
    table: GradientTable,
    volumes: NDArray[np.intp],
    chosen: Mapping[str, Response],
    degree: int,
) -> tuple[dict[str, Array], dict[str, float], float]:
    """Return the matrices and kernels over the scale, and the scale."""
    first = int(np.flatnonzero(table.b0_mask[volumes])[0])
    raw = {
        t: forward_matrix(table, volumes, r, degree if t == "wm" else 0) for t, r in chosen.items()
    }
    at_b0 = {t: float(a[first, 0]) for t, a in raw.items()}
    wrong = [f"{t} {v:g}" for t, v in at_b0.items() if not v > 0]
    if wrong:
        raise InputError(
            f"Responses have order 0 at b = 0 of {', '.join(wrong)}; it must be above 0: estimate "
            "them again."
        )
    shells = [s for s in table.shells if not s.is_b0 and np.isin(s.indices, volumes).any()]
    if shells:
        rows = np.array([_row(table, s, chosen["wm"]) for s in shells])
        require_anisotropy(rows, [s.bvalue for s in shells])
    scale = at_b0["wm"] / ROOT
    forward = {t: a / scale for t, a in raw.items()}
    return forward, {t: v / scale for t, v in at_b0.items()}, scale


def _row(table: GradientTable, shell: Shell, response: Response) -> Array:
    every = [s.bvalue for s in table.shells]
    row: Array = match_rows(response, [shell.bvalue], every=every)[0]
    return row


def _fill(
    scan: Scan,
    seen: Sequence[Shell],
    matrices: Sequence[Array],
    volumes: NDArray[np.intp],
    scale: float,
    input_order: int,
    keep_signal: bool,
    box: Box | None,
    progress: Progress | None,
) -> tuple[Array, Array, Array, Array]:
    """Read the scan once; return coefficients and signal of a box, b0, and which voxels are whole.

    Outside the box b0 is 0, and no voxel is whole.
    """
    report = progress or silent
    width, kept = n_coefficients(input_order), len(volumes) if keep_signal else 0
    shape = scan.grid if box is None else tuple(s.stop - s.start for s in box)
    count = math.prod(shape)
    where = "all voxels" if box is None else "the voxels around its mask"
    require_memory(
        4 * count * (len(seen) * width + kept),
        f"{scan.name} with {len(seen)} shells of {width} coefficients and {kept} volumes for "
        f"{where} ({' x '.join(map(str, shape))})",
        "give a mask of the brain." if box is None else "close other programs.",
    )
    read = np.union1d(volumes, np.concatenate([s.indices for s in seen]))
    columns = [np.searchsorted(read, s.indices) for s in seen]
    explained = np.searchsorted(read, volumes)
    at_b0 = np.flatnonzero(scan.gradients.b0_mask[read])
    coefficients = np.zeros((count, len(seen), width), np.float32)
    signal = np.zeros((count, kept), np.float32)
    b0, good = np.zeros(math.prod(scan.grid), np.float32), np.zeros(math.prod(scan.grid), bool)
    factors = [np.ascontiguousarray(m.T / scale, np.float32) for m in matrices]
    wanted: NDArray[np.bool_] | None = None
    if box is not None:
        wanted = np.zeros(scan.grid, bool)
        wanted[box] = True
    for block in blocks(scan, read, wanted):
        rows = _rows(block, scan.grid)
        places = rows if box is None else _within(rows, scan.grid, box)
        values = block.signal
        whole = np.isfinite(values.sum(1))
        if not whole.all():
            values = np.where(whole[:, None], values, np.float32(0))
        for i, (own, factor) in enumerate(zip(columns, factors, strict=True)):
            coefficients[places, i, : factor.shape[1]] = values[:, own] @ factor
        if keep_signal:
            signal[places] = values[:, explained] / np.float32(scale)
        b0[rows] = values[:, at_b0].mean(1) / np.float32(scale)
        good[rows] = whole
        report(block.done, "fitting SH to the shells")
    return (
        coefficients.reshape(*shape, len(seen), width),
        signal.reshape(*shape, kept),
        b0.reshape(scan.grid),
        good.reshape(scan.grid),
    )


def _rows(block: Block, grid: tuple[int, int, int]) -> NDArray[np.intp]:
    """Return the flat indices of a block's voxels in C order of (x, y, z)."""
    if block.by_voxel:
        own: NDArray[np.intp] = block.inside + block.planes.start * grid[1] * grid[2]
        return own
    z, rest = np.divmod(block.inside, grid[0] * grid[1])
    y, x = np.divmod(rest, grid[0])
    rows: NDArray[np.intp] = (x * grid[1] + y) * grid[2] + z + block.planes.start
    return rows


def _within(rows: Array, grid: tuple[int, int, int], box: Box) -> NDArray[np.intp]:
    """Return the flat indices within a box of voxels of it, given by those within the grid."""
    at = np.unravel_index(rows, grid)
    inner = tuple(axis - span.start for axis, span in zip(at, box, strict=True))
    shape = tuple(span.stop - span.start for span in box)
    found: NDArray[np.intp] = np.ravel_multi_index(inner, shape)
    return found


def _mask(scan: Scan, inside: Array | None, good: Array, b0: Array) -> NDArray[np.bool_]:
    """Return the voxels that count, telling of those that cannot."""
    wanted = np.ones(scan.grid, bool) if inside is None else inside
    positive = b0 > 0
    counted: NDArray[np.bool_] = wanted & good & positive
    broken = int((wanted & ~good).sum())
    dark = int((wanted & good & ~positive).sum()) if inside is not None else 0
    reasons = [f"{broken} voxels hold NaN or Inf"] * bool(broken)
    reasons += [f"{dark} voxels have b0 <= 0"] * bool(dark)
    if reasons:
        _warn(f"{scan.name}: {' and '.join(reasons)}; they are left out and their fODF is 0.")
    if not counted.any():
        raise InputError(
            f"{scan.name}: no voxel can be used ({broken} hold NaN or Inf, "
            f"{int((wanted & good & ~positive).sum())} have b0 <= 0); check image and mask."
        )
    return counted


def _require_units(scan: Scan, b0: Array, scale: float) -> None:
    """Refuse responses of other magnitudes than the scan's."""
    ratio = float(np.median(b0))
    words = (
        f"{scan.name}: the median b0 is {ratio * scale:.4g} and the white matter response's "
        f"{scale:.4g}, a factor of {ratio:.3g}"
    )
    if not 1 / IMPOSSIBLE < ratio < IMPOSSIBLE:
        raise InputError(
            f"{words}; they are not of the same magnitudes: estimate the responses from this scan."
        )
    if not 1 / UNUSUAL < ratio < UNUSUAL:
        _warn(f"{words}; responses of another scan have to be scaled to this one.")


def _warn(text: str) -> None:
    warnings.warn(text, DmriWarning, stacklevel=4)
