"""The order and matrix by which a shell's signal becomes SH coefficients for a network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable
from napari_dmri.signal.sh_matrix import condition_number, fitting_matrix

__all__ = ["RULES", "check_rule", "paper_order", "shell_matrix"]

RULES = ("safe", "paper")

SMOOTH = 0.006
"""Lambda of a shell whose normal equations are ill-conditioned (Descoteaux et al. 2007)."""

MAX_CONDITION = 100.0

Array = NDArray[Any]


def check_rule(rule: str) -> None:
    """Raise InputError if a rule is not known."""
    if rule not in RULES:
        raise InputError(f"Unknown rule {rule!r}; choose one of {', '.join(RULES)}.")


def paper_order(directions: int, most: int = 8) -> int:
    r"""Return the order that SHD fits to a shell.

    .. math:: L = \min\big(L_\text{max}, 2 \lfloor (\sqrt{8 N - 7} - 3) / 4 \rfloor\big)

    which is the largest with fewer coefficients than directions.

    Examples
    --------
    >>> [paper_order(n) for n in (6, 7, 16, 28, 29, 45, 46)]
    [0, 2, 4, 4, 6, 6, 8]
    """
    if directions < 1:
        raise InputError(f"A shell has {directions} directions; SH need at least one.")
    return max(0, min(most, 2 * math.floor((math.sqrt(8 * directions - 7) - 3) / 4)))


def shell_matrix(
    directions: Array, input_order: int = 8, rule: str = "safe"
) -> tuple[NDArray[np.float64], int, str]:
    r"""Return the matrix from a shell's signal to its coefficients.

    Both rules take `paper_order`. ``"paper"`` counts volumes and fits by least squares. ``"safe"``
    counts distinct directions, antipodes once, and where
    :math:`\mathrm{cond}(B^T B) > 100` (directions in clusters, or on part of the sphere) adds the
    Laplace-Beltrami penalty with :math:`\lambda = 0.006`.

    Parameters
    ----------
    directions
        Unit vectors (V, 3).
    input_order
        The highest order.
    rule
        ``"safe"`` or ``"paper"``.

    Returns
    -------
    The matrix (C, V), its order, and words on it.

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024; their public code for the rule.
    """
    check_rule(rule)
    directions = np.asarray(directions, np.float64).reshape(-1, 3)
    if rule == "paper":
        order = paper_order(len(directions), input_order)
        return fitting_matrix(directions, order, 0.0), order, f"of order {order}"
    table = GradientTable(np.full(len(directions), 1000.0), directions)
    distinct = table.distinct_directions()
    order = paper_order(distinct, input_order)
    words = f"of order {order}"
    if distinct < len(directions):
        words += f" ({distinct} distinct directions)"
    if condition_number(directions, order) ** 2 <= MAX_CONDITION:
        return fitting_matrix(directions, order, 0.0), order, words
    words += f", smoothed ({SMOOTH:g}) as the directions are unevenly spread"
    return fitting_matrix(directions, order, SMOOTH), order, words
