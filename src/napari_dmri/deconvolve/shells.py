r"""Choose the volumes that a deconvolution uses, and pair them with the rows of a response.

The signal of a volume with direction g on the shell b is linear in the fODF's coefficients,

.. math:: s_b(g) = \sum_{lm} \sqrt{\frac{4\pi}{2l+1}}\; r_{bl}\, Y_{lm}(g)\, f_{lm}

(MRtrix3's convention; a b0 volume has the order 0 alone). Orders above the response's own have no
signal: only the constraints shape them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.scan import B0_THRESHOLD, SHELL_GAP
from napari_dmri.sphere.harmonics import degrees, design_matrix, n_coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.images import Response
    from napari_dmri.scan import GradientTable, Scan

__all__ = [
    "MAX_ORDER",
    "Shells",
    "check_order",
    "default_order",
    "forward_matrix",
    "match_rows",
    "order_notes",
    "require_anisotropy",
    "select_shells",
    "supported_order",
]

MAX_ORDER = 16
"""The highest order of an fODF."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Shells:
    """Hold the volumes that are used and the response rows of their shells.

    Parameters
    ----------
    volumes
        Indices (V,) into the scan, ascending.
    bvalues
        The shells' b-values (S,) in s/mm², b0 first if it is used.
    rows
        Zonal coefficients of the response (S, L/2 + 1), one row for each of these shells.
    counts
        Volumes of each shell (S,).
    directions
        Distinct directions among the volumes.
    """

    volumes: NDArray[np.intp]
    bvalues: tuple[float, ...]
    rows: NDArray[np.float64]
    counts: tuple[int, ...]
    directions: int

    def __str__(self) -> str:
        """Say which volumes, e.g. ``"64 volumes at b=3000"``."""
        words = [
            f"{n} b0 volumes" if b <= B0_THRESHOLD else f"{n} at b={b:g}"
            for b, n in zip(self.bvalues, self.counts, strict=True)
        ]
        if len(words) == 1:
            return f"{self.counts[0]} volumes at b={self.bvalues[0]:g}"
        return f"{' + '.join(words)}: {sum(self.counts)} volumes"


def select_shells(
    scan: Scan, shell: float | str | None, response: Response, *, b0: bool = False
) -> Shells:
    """Choose the volumes to deconvolve and the response rows that belong to them.

    Parameters
    ----------
    scan
        The scan; its data are not read.
    shell
        A b-value in s/mm²; ``"all"`` for every weighted shell; None for the highest shell.
    response
        The response; it must have a row for each chosen shell.
    b0
        Whether ``"all"`` takes the b0 volumes as well.

    Raises
    ------
    InputError
        If the scan has no such shell or the response no row for it.
    """
    table = scan.gradients
    if isinstance(shell, str):
        if shell != "all":
            raise InputError(
                f"The shell is {shell!r}; give a b-value in s/mm², 'all', or nothing for the "
                "highest shell."
            )
        table.shell()
        chosen = [s for s in table.shells if b0 or not s.is_b0]
    else:
        if shell is not None and not np.isfinite(shell):
            raise InputError(f"The shell is {shell}; give a b-value in s/mm², or 'all'.")
        table.shell(shell)
        chosen = [table.shell(shell) if shell is not None else table.weighted_shells[-1]]
    bvalues = tuple(s.bvalue for s in chosen)
    rows = match_rows(response, bvalues, every=tuple(s.bvalue for s in table.shells))
    volumes = np.sort(np.concatenate([s.indices for s in chosen]))
    return Shells(
        volumes,
        bvalues,
        rows,
        tuple(s.count for s in chosen),
        table.distinct_directions(volumes),
    )


def match_rows(
    response: Response,
    bvalues: Sequence[float],
    *,
    every: Sequence[float] | None = None,
    tolerance: float = SHELL_GAP,
) -> NDArray[np.float64]:
    """Return the response's row for each shell.

    A response that says its b-values is matched by them. One that does not is matched by the
    number of its rows: one for each shell of the scan, with or without b0, or a single row for the
    single shell that is asked for.

    Parameters
    ----------
    response
        The response.
    bvalues
        The shells that need a row (S,), in s/mm².
    every
        All shells of the scan, b0 first if it has one; by default ``bvalues``.
    tolerance
        How far apart b-values may be, in s/mm²; b0 only matches b0.

    Returns
    -------
    (S, L/2 + 1) float64.

    Raises
    ------
    InputError
        If a shell has no row.
    """
    if response.bvalues is None:
        return response.zonal[_by_count(response, bvalues, every or bvalues)]
    have = np.array(response.bvalues)
    picked, missing = [], []
    for b in bvalues:
        same_kind = (have <= B0_THRESHOLD) == (b <= B0_THRESHOLD)
        distance = np.where(same_kind, np.abs(have - b), np.inf)
        picked.append(int(distance.argmin()))
        if distance.min() > tolerance:
            missing.append(b)
    if missing:
        raise InputError(
            f"The {response.tissue} response has b = {_list(have)} and no row for "
            f"b = {_list(missing)} s/mm² (within {tolerance:g}); it belongs to another set of "
            "shells: estimate the response from this scan, or choose one of its shells."
        )
    return response.zonal[picked]


def _by_count(response: Response, bvalues: Sequence[float], every: Sequence[float]) -> list[int]:
    """Return the row of each shell for a response that names no b-values."""
    rows, has_b0 = len(response.zonal), every[0] <= B0_THRESHOLD
    if rows == len(every):
        order = list(every)
    elif has_b0 and rows == len(every) - 1:
        order = list(every[1:])
    elif not has_b0 and rows == len(every) + 1:
        order = [0.0, *every]
    elif rows == 1 and len(bvalues) == 1 and bvalues[0] > B0_THRESHOLD:
        order = list(bvalues)
    else:
        order = []
    if any(b not in order for b in bvalues):
        raise InputError(
            f"The {response.tissue} response has {rows} rows without b-values and the scan the "
            f"shells b = {_list(every)}; it needs one row for each: estimate the response from "
            "this scan."
        )
    return [order.index(b) for b in bvalues]


def forward_matrix(
    gradients: GradientTable,
    volumes: Array,
    response: Response,
    order: int,
    *,
    every: bool = True,
) -> NDArray[np.float64]:
    r"""Return the matrix from fODF coefficients to the signal of some volumes.

    .. math:: A_{g,lm} = \sqrt{4\pi / (2l+1)}\; r_{bl}\, Y_{lm}(g)

    with zero columns above the response's own order, and the order 0 alone for b0 volumes.

    Parameters
    ----------
    gradients
        The scan's table.
    volumes
        Indices (V,) of the volumes.
    response
        The response, with a row for each of their shells.
    order
        The fODF's order L.
    every
        Whether a response without b-values has rows for all the table's shells, or only for those
        of these volumes.

    Returns
    -------
    (V, C) float64, C = 1 for order 0.

    Raises
    ------
    InputError
        If the response has no row for a shell.
    """
    volumes = np.asarray(volumes)
    chosen = [s for s in gradients.shells if np.isin(s.indices, volumes).any()]
    bvalues = [s.bvalue for s in chosen]
    rows = match_rows(
        response, bvalues, every=[s.bvalue for s in gradients.shells] if every else None
    )
    which = np.empty(len(gradients), np.intp)
    for i, shell in enumerate(chosen):
        which[shell.indices] = i
    el = degrees(order)
    width = max(rows.shape[1], int(el.max()) // 2 + 1)
    padded = np.zeros((len(rows), width))
    padded[:, : rows.shape[1]] = rows
    padded[np.array(bvalues) <= B0_THRESHOLD, 1:] = 0
    directions = gradients.directions[volumes].copy()
    directions[np.linalg.norm(directions, axis=1) == 0] = (0, 0, 1)
    weights = padded[which[volumes]][:, el // 2] * np.sqrt(4 * np.pi / (2 * el + 1))
    forward: NDArray[np.float64] = design_matrix(directions, order) * weights
    return forward


def check_order(order: int) -> int:
    """Return the fODF's order, refusing odd ones, negative ones and those above 16."""
    if order != int(order) or order % 2 or not 2 <= order <= MAX_ORDER:
        raise InputError(
            f"The fODF's order is {order}; it must be an even number from 2 to {MAX_ORDER}."
        )
    return int(order)


def require_anisotropy(rows: Array, bvalues: Sequence[float]) -> None:
    """Refuse a response that is the same in all directions: it holds no orientation.

    Raises
    ------
    InputError
        If no order above 0 holds more than a thousandth of order 0, or order 0 is not positive.
    """
    if (rows[:, 0] <= 0).any():
        raise InputError(
            f"The white matter response's order 0 is {_list(rows[:, 0])} at b = {_list(bvalues)} "
            "s/mm²; it must be positive: estimate the response again."
        )
    relative = np.abs(rows[:, 1:]).max(initial=0.0, axis=1) / rows[:, 0]
    if relative.max() < 1e-3:
        raise InputError(
            f"The white matter response is the same in all directions (orders above 0 are at most "
            f"{relative.max():.1e} of order 0 at b = {_list(bvalues)} s/mm²); it cannot show "
            "orientations: estimate it from voxels with a single fibre direction."
        )


def supported_order(directions: int) -> int:
    """Return the highest order whose coefficients the directions outnumber or equal."""
    order = 0
    while n_coefficients(order + 2) <= directions:
        order += 2
    return order


def default_order(directions: int) -> int:
    """Return the order of an fODF that none is asked for, by the distinct directions.

    12 from 60 directions, 10 from 45, and 8 with fewer, where higher orders follow noise: on
    simulated crossings at SNR 20 (seed 20261120), F1 is 0.860 with 20 directions and 0.891 with 30
    at order 8, against 0.852 and 0.889 at order 12; with 64 it is 0.928 against 0.937.
    """
    return 12 if directions >= 60 else 10 if directions >= 45 else 8


def order_notes(
    order: int, response: Response, shells: Shells, *, chosen: bool = False
) -> tuple[str, ...]:
    """Say how the order was chosen, and where it goes beyond directions and response."""
    notes = []
    supported = supported_order(shells.directions)
    if chosen:
        notes.append(f"order {order}, chosen for {shells.directions} distinct directions")
    if order > supported:
        above = (
            f"order {order} follows"
            if order == supported + 2
            else (f"orders {supported + 2} to {order} follow")
        )
        notes.append(
            f"super-resolution: {shells.directions} distinct directions determine order "
            f"{supported}; {above} from non-negativity"
        )
    if order > response.order:
        notes.append(
            f"the response has order {response.order}; higher orders follow from non-negativity"
        )
    return tuple(notes)


def _list(values: Sequence[float] | Array) -> str:
    return ", ".join(f"{v:g}" for v in values)
