r"""Notice when a training without supervision has fallen into a useless answer, and say so.

Three answers make the loss small without being of use: all voxels get the same fODF, all fODFs are
round, or a tissue is lost to the others. With a the orders above 0 of an fODF over its order 0, the
first two are

.. math::

    \frac{\lVert \overline{a} \rVert^2}{\overline{\lVert a \rVert^2}} \to 1, \qquad
    \overline{\lVert a \rVert^2} \to 0 .

A scan may be like that itself, so that the same numbers of what goes in must speak against it. Of
tissues, the shells' means alone tell in how many voxels white matter is most: useful networks agree
with them (of 36 on simulated subjects, the share lies between 0.75 and 1.25 of the means').
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dmri.training.parts import Batch

__all__ = ["Collapsed", "Facts", "Watch", "explain", "facts_of", "given_facts"]

Array = NDArray[Any]

ALIKE, ROUND, LOST = 0.98, 2e-3, 0.1
"""Alikeness and roundness of collapsed fODFs; of the voxels that are mostly a tissue by the shells'
means, the share that are left of a lost one."""

STILL = 0.99
"""Share of an epoch's loss above which the next one's has stood still."""

SOME = 0.05
"""Share of voxels that must speak against an answer."""

AT_ONCE = 512
"""Voxels that a network is asked for at once."""


class Collapsed(InputError):
    """Say that a training collapsed: what was found, and what to do."""


@dataclass(frozen=True)
class Facts:
    """Hold what tells a collapse.

    Parameters
    ----------
    alike
        Energy of the mean anisotropy over the mean energy of anisotropy, 0 to 1.
    energy
        Mean energy of the orders above 0 over order 0.
    white
        Share of voxels that are mostly white matter; None without other tissues.
    """

    alike: float
    energy: float
    white: float | None = None


def facts_of(coefficients: Array, fractions: Array | None = None) -> Facts:
    """Measure functions on the sphere (n, C), and white matter's fractions (n,) of their voxels.

    Examples
    --------
    >>> one = np.array([1.0, 0.2, 0.5, 0, 0, 0])
    >>> facts_of(np.stack([one, one])).alike
    1.0
    """
    first = coefficients[:, :1]
    rest = coefficients[:, 1:] / np.where(np.abs(first) > 1e-12, first, np.inf)
    energy = float(np.square(rest).sum(1).mean())
    mean = float(np.square(rest.mean(0)).sum())
    white = None if fractions is None else float((fractions > 0.5).mean())
    return Facts(mean / max(energy, 1e-30), energy, white)


def explain(made: Facts, given: Facts) -> str:
    """Say in one sentence what collapsed, or nothing.

    Parameters
    ----------
    made
        Of the fODFs, and of white matter's fractions in them.
    given
        Of the shells that went in, and of the fractions that their means alone tell.
    """
    if made.energy < ROUND and given.energy > 10 * ROUND:
        return "all fODFs are round, without any direction"
    if made.alike > ALIKE and given.alike < 0.9 * ALIKE:
        return "all voxels have the same fODF"
    if made.white is None or given.white is None:
        return ""
    for tissue, share, means in (
        ("white matter", made.white, given.white),
        ("another tissue", 1 - made.white, 1 - given.white),
    ):
        if means > SOME and share < LOST * means:
            return (
                f"{100 * share:.2g} % of the voxels are mostly {tissue}, where the shells' means "
                f"alone tell of {100 * means:.2g} %"
            )
    return ""


class Watch:
    """Look at some voxels each epoch; tell when they have collapsed for several in a row.

    Parameters
    ----------
    batch
        Voxels to look at, always the same.
    warm
        Epochs before the first look: an untrained network gives every voxel much the same.
    patience
        Looks in a row that must agree, and over which the loss must have stood still: fODFs begin
        round, and with a term of smoothness stay so while tissues are told apart first.
    memory
        Where it keeps what it saw, ``losses`` and ``times``, for a training that goes on later.

    Attributes
    ----------
    bvalues
        Number of b-values that are explained, b0 counted.
    """

    def __init__(
        self,
        batch: Batch,
        warm: int = 5,
        patience: int = 3,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.batch, self.warm, self.patience = batch, warm, patience
        self.given = given_facts(batch)
        self.bvalues = len(_bvalues(*batch.tensors[4:6])[0])
        self.memory = {} if memory is None else memory

    def look(self, network: torch.nn.Module, epoch: int, loss: float | None = None) -> str:
        """Return what collapsed, in a sentence, or nothing. The network is left as it is.

        Parameters
        ----------
        network, epoch
            What is trained, and how far it is.
        loss
            Mean training loss of the epoch; None where it is not known.
        """
        falls = self._falls(loss)
        if epoch <= self.warm:
            return ""
        found = explain(_made(network, self.batch), self.given)
        times = self.memory["times"] = self.memory.get("times", 0) + 1 if found else 0
        return found if times >= self.patience and not falls else ""

    def _falls(self, loss: float | None) -> bool:
        """Tell whether the loss still falls, by more than a hundredth an epoch."""
        if loss is None:
            return False
        losses: list[float] = self.memory.setdefault("losses", [])
        losses.append(loss)
        if len(losses) <= self.patience:
            return True
        before = losses[-1 - self.patience]
        return loss < before * STILL**self.patience


def _made(network: torch.nn.Module, batch: Batch) -> Facts:
    """Measure what a network makes of a batch."""
    import torch

    shells, _, _, mask, *_ = batch.tensors
    where = next(network.parameters()).device
    runner = copy.deepcopy(network).eval()
    # No more at once than a step of training takes, so that memory for one is enough.
    size = max(1, AT_ONCE // math.prod(shells.shape[1:4]))
    made = []
    with torch.inference_mode():
        for first in range(0, len(shells), size):
            kept = mask[first : first + size].cpu()
            outputs = runner(shells[first : first + size].to(where))
            made.append([one.float().cpu()[kept].numpy() for one in outputs])
    fod, others = (np.concatenate(parts) for parts in zip(*made, strict=True))
    if not others.shape[1]:
        return facts_of(fod)
    kernel = batch.tensors[6].cpu().numpy()
    parts = np.concatenate([fod[:, :1], others], 1) * kernel
    return facts_of(fod, parts[:, 0] / np.maximum(np.abs(parts).sum(1), 1e-12))


def given_facts(batch: Batch) -> Facts:
    """Measure what goes into a network: the highest shell, and fractions by the shells' means."""
    from scipy.optimize import nnls

    shells, signal, _, mask, forward_wm, forward_others, *_ = batch.tensors
    kept = shells[mask].cpu().numpy()
    facts = facts_of(kept[:, -1, :15])
    if not forward_others.shape[1]:
        return facts
    measured = signal[mask].cpu().numpy()
    kinds, which = _bvalues(forward_wm, forward_others)
    means = np.stack([measured[:, which == k].mean(1) for k in range(len(kinds))], 1)
    weight = batch.tensors[6].cpu().numpy()
    rows = means[:: max(1, len(means) // 500)]
    amounts = np.array([nnls(kinds, row)[0] for row in rows]) * weight
    white = amounts[:, 0] / np.maximum(amounts.sum(1), 1e-12)
    return replace(facts, white=float((white > 0.5).mean()))


def _bvalues(forward_wm: torch.Tensor, forward_others: torch.Tensor) -> tuple[Array, Array]:
    """Return the tissues' means at each b-value that is explained, and which a volume has."""
    columns = [forward_wm[:, :1].cpu().numpy(), forward_others.cpu().numpy()]
    kinds, which = np.unique(np.round(np.hstack(columns), 6), axis=0, return_inverse=True)
    return kinds, which.reshape(-1)
