r"""Paired comparisons of two methods on the same subjects: test, correction, effect, intervals.

Wilcoxon's signed-rank test asks whether the differences :math:`d_i = a_i - b_i` lie about zero. Its
effect size is the matched-pairs rank-biserial correlation,

.. math:: r = \frac{W^+ - W^-}{W^+ + W^-} \in [-1, 1],

the share of rank sum in favour of one side less the other's (Kerby 2014). A family of tests is
corrected by Holm's rule. Intervals are bootstrap percentiles over subjects, of a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["Paired", "bootstrap", "holm", "paired_test"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Paired:
    """Say how a compares with b on n subjects: differences a - b, effect and p-value.

    ``low`` and ``high`` bound the mean difference with 95 % confidence; ``effect`` is the
    rank-biserial correlation, negative where a is the smaller.
    """

    n: int
    mean: float
    low: float
    high: float
    effect: float
    effect_low: float
    effect_high: float
    p: float


def paired_test(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Paired:
    """Compare two methods subject by subject with Wilcoxon's signed-rank test (two-sided).

    Parameters
    ----------
    a, b
        One value a subject, in the same order.
    seed
        Of the bootstrap.

    Raises
    ------
    InputError
        If counts disagree, there are fewer than two subjects, or a value is not finite.
    """
    from scipy.stats import wilcoxon

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2:
        raise InputError(
            f"A paired test takes one value a subject for each method, at least 2; it was given "
            f"{x.size} and {y.size}."
        )
    difference = x - y
    if not np.isfinite(difference).all():
        raise InputError(
            f"{int((~np.isfinite(difference)).sum())} of {x.size} subjects have a value that is "
            "not finite; leave them out of the test."
        )
    p = 1.0 if not difference.any() else float(wilcoxon(x, y).pvalue)
    low, high = bootstrap(lambda rows: difference[rows].mean(-1), x.size, seed)
    effect_low, effect_high = bootstrap(lambda rows: _biserial(difference[rows]), x.size, seed)
    return Paired(
        x.size,
        float(difference.mean()),
        low,
        high,
        float(_biserial(difference)),
        effect_low,
        effect_high,
        p,
    )


def holm(p: Sequence[float]) -> list[float]:
    r"""Correct a family of p-values by Holm's rule.

    .. math:: \tilde p_{(k)} = \max_{j \le k} \min(1, (m - j + 1)\, p_{(j)})

    Returns
    -------
    Adjusted p-values in the order given (Holm, Scand J Stat 1979).
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * (len(values) - np.arange(len(values)))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(v) for v in adjusted]


def bootstrap(
    measure: Callable[[NDArray[Any]], NDArray[Any]], n: int, seed: int = 0
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of a measure over subjects drawn with replacement.

    Parameters
    ----------
    measure
        Takes the indices of the subjects of each draw (draws, n), returns one value a draw.
    n
        How many subjects there are.
    seed
        Of the draws.
    """
    rng = np.random.default_rng(seed)
    found = np.asarray(measure(rng.integers(0, n, (RESAMPLES, n))))
    found = found[np.isfinite(found)]
    if not found.size:
        return float("nan"), float("nan")
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def _biserial(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation along the last axis; differences of zero do not count."""
    from scipy.stats import rankdata

    size = np.abs(difference)
    # Zeros take the lowest ranks, so that leaving them out moves all others down by their number.
    zeros = (size == 0).sum(-1, keepdims=True)
    ranks = np.where(size > 0, rankdata(size, axis=-1) - zeros, 0)
    total = ranks.sum(-1)
    signed = (ranks * np.sign(difference)).sum(-1)
    return np.asarray(np.divide(signed, total, out=np.zeros_like(signed), where=total > 0))
