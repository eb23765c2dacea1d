"""Settle what batch norm has seen of the data once a network has learned.

While weights change, statistics are running means over the last batches. With a patch or a few in
each they are of some ten places in a brain, and differ from step to step more than a low learning
rate changes anything. Learned weights get the mean over many batches instead.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch

from napari_dmri.device import exact_float32

if TYPE_CHECKING:
    from napari_dmri.training.parts import Batches

__all__ = ["MOMENTUM", "settle_norms"]

MOMENTUM = 0.02
"""Weight of a batch in the running statistics: about an epoch of the small size counts."""

COUNT, LEAST = 120, 4
"""Batches that are looked at, and patches in each at least."""


def settle_norms(
    network: torch.nn.Module, batches: Batches, size: int, device: str | torch.device = "cpu"
) -> None:
    """Give a network's batch norms the mean statistics of many batches, in place.

    Parameters
    ----------
    network
        On any device; it ends on the CPU, not training, its weights as they were.
    batches
        What it has learned from; the same ones are looked at whenever it is called.
    size
        Patches of a batch of training.
    device
        Where it runs.
    """
    norms = [m for m in network.modules() if isinstance(getattr(m, "momentum", None), float)]
    if not norms:
        return
    usual = [norm.momentum for norm in norms]
    where = torch.device(device)
    network.to(where).train()
    try:
        with torch.no_grad(), exact_float32():
            drawn = batches.batches(max(size, LEAST))
            for number, batch in enumerate(islice(drawn, COUNT), start=1):
                for norm in norms:
                    norm.momentum = 1 / number  # type: ignore[assignment]
                network(batch.tensors[0].to(where))
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        network.to("cpu").eval()
