"""Measure a model on all batches of a validation, and in which numbers networks are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from napari_dmri.training.parts import Batches, Loss

__all__ = ["autocast", "mean_losses"]


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Make bfloat16 products on a CUDA device, float32 elsewhere."""
    import torch

    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def mean_losses(
    model: torch.nn.Module,
    batches: Batches,
    size: int,
    measures: Mapping[str, Loss],
    device: torch.device,
    report: Callable[[str], None],
) -> dict[str, float]:
    """Return the mean of each measure over all batches; the model ends in its mode of evaluation.

    Parameters
    ----------
    model, batches
        What is measured, on what.
    size
        Samples of a batch.
    measures
        Losses by name.
    device
        Where the model is.
    report
        Told at each step, in words; it may raise `Cancelled`.

    Raises
    ------
    InputError
        If there is no sample.
    """
    import torch

    count = batches.count(size)
    if count < 1:
        raise InputError("There is nothing to validate on: no sample; check masks and pairs.")
    model.eval()
    sums = dict.fromkeys(measures, 0.0)
    weight = 0.0
    with torch.no_grad():
        for n, batch in enumerate(batches.batches(size)):
            report(f"validation, step {n + 1} of {count}")
            moved = batch.to(device)
            for name, measure in measures.items():
                with autocast(device):
                    sums[name] += float(measure(model, moved.tensors)) * batch.weight
            weight += batch.weight
    return {name: value / max(weight, 1e-12) for name, value in sums.items()}
