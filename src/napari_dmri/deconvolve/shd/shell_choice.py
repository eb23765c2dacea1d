"""Which of a scan's volumes a network sees: its model's shells, or a well-spread subset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.scan import B0_THRESHOLD, SHELL_GAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.scan import GradientTable, Shell

__all__ = ["choose_subset", "match_shells"]

Array = NDArray[Any]


def match_shells(
    gradients: GradientTable, bvalues: Sequence[float], tolerance: float = SHELL_GAP
) -> tuple[tuple[Shell, ...], tuple[Shell, ...]]:
    """Find the scan's shell for each b-value of a model.

    Parameters
    ----------
    gradients
        The scan's table.
    bvalues
        The model's shells in s/mm², b0 first.
    tolerance
        How far apart two b-values may be in s/mm², or as a share of the model's if below 1; b0 only
        matches b0.

    Returns
    -------
    The shells in the model's order, and those of the scan that the model does not have.

    Raises
    ------
    InputError
        If a shell is missing, or one of the scan's is the nearest of two of the model's.
    """
    shells, picked, missing = gradients.shells, [], []
    for b in bvalues:
        same = [s for s in shells if s.is_b0 == (b <= B0_THRESHOLD)]
        nearest = min(same, key=lambda s: abs(s.bvalue - b), default=None)
        within = max(tolerance * b, SHELL_GAP) if tolerance < 1 else tolerance
        if nearest is None or abs(nearest.bvalue - b) > within or nearest in picked:
            missing.append(b)
        else:
            picked.append(nearest)
    if missing:
        raise InputError(
            f"The model sees shells at b = {_list(bvalues)} s/mm² and the scan has b = "
            f"{_list([s.bvalue for s in shells])}: nothing within "
            f"{f'{tolerance:.0%}' if tolerance < 1 else f'{tolerance:g}'} of "
            f"{_list(missing)}. Use a model of the scan's shells, or fit one to this scan."
        )
    return tuple(picked), tuple(s for s in shells if s not in picked)


def choose_subset(
    gradients: GradientTable, count: int, bvalue: float | None = None
) -> NDArray[np.intp]:
    r"""Choose all b0 volumes and some well-spread directions of a shell, for super-resolution.

    The first has the largest z; each next one is where the charges already chosen, at both ends
    of their axes, have the least potential
    :math:`\sum_i 1 / |u - u_i| + 1 / |u + u_i|`.

    Parameters
    ----------
    gradients
        The scan's table.
    count
        How many directions.
    bvalue
        The shell in s/mm²; None takes the one with most directions.

    Returns
    -------
    Indices of the volumes, ascending.

    Raises
    ------
    InputError
        If the shell has fewer.
    """
    shell = gradients.shell(bvalue)
    if not 1 <= count <= shell.count:
        raise InputError(
            f"{count} directions are asked for of {shell.count} at b={shell.bvalue:g} s/mm²; "
            "choose between 1 and that."
        )
    u = gradients.directions[shell.indices]
    chosen = [int(np.argmax(u[:, 2]))]
    potential = np.zeros(len(u))
    for _ in range(count - 1):
        cosine = u @ u[chosen[-1]]
        near = np.sqrt(np.maximum(2 - 2 * np.abs(cosine), 1e-12))
        potential += 1 / near + 1 / np.sqrt(2 + 2 * np.abs(cosine))
        potential[chosen] = np.inf
        chosen.append(int(np.argmin(potential)))
    b0 = np.flatnonzero(gradients.b0_mask)
    return np.sort(np.concatenate([b0, shell.indices[chosen]]))


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
