"""Find what the unsupervised loss of SHD itself wants, without any network.

The loss (`napari_dmri.deconvolve.shd.losses`) is minimised over the fODFs of a block of the
validation subject of an evaluation's protocol, from CSD's on, with the papers' weights and with
those of the small networks; the fODFs are scored beside CSD's and the true ones. What a network can
learn without truth is about the minimum, not below it.

Run from the repository root: ``python benchmarks/fod_loss.py [PROTOCOL] [NAME=VALUE ...]``, with
weights of the loss for one more row. About two minutes of one core a row.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from _block import BLOCK, on_block

from napari_dmri.commands.networks import weights_of
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, make_case
from napari_dmri.deconvolve.evaluation.scoring import peaks_of, score_at, validation_score
from napari_dmri.deconvolve.registry import deconvolve
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.losses import FodLoss, LossWeights
from napari_dmri.deconvolve.shd.presets import preset

if TYPE_CHECKING:
    from napari_dmri.deconvolve.evaluation.protocols import Case
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.images import ShImage

DEGREE, ORDER, STEPS, RATE = 12, 6, 300, 0.01


def main() -> None:
    """Print a row for CSD, for each set of weights, and for the truth."""
    warnings.simplefilter("ignore")
    given = sys.argv[1:]
    name = given.pop(0) if given and "=" not in given[0] else "low"
    case = on_block(make_case(PROTOCOLS[name], "validation", 0))
    inside = case.scored
    assert case.subject is not None
    responses = case.responses
    csd = deconvolve(case.seen, "csd", responses, order=ORDER, mask=inside).fod
    others = [tissue for tissue in responses if tissue != "wm"]
    prepared = prepare(case.seen.with_mask(inside), responses, others=others, degree=DEGREE)
    small = preset("shd-s-tv", "small").losses
    rows = {"papers' weights": preset("shd-s-tv").losses, "small networks' weights": small}
    if given:
        rows[" ".join(given)] = small.changed(weights_of(given))
    print(f"{name}: {int(inside.sum())} voxels, {STEPS} steps")
    print(f"{'':<28}  F1     AUC    error  one    crossings")
    report("CSD", csd, case)
    for label, weights in rows.items():
        report(label, minimise(prepared, csd, weights, len(others)), case)
    report("true fODFs", case.subject.fod(DEGREE), case)


def minimise(prepared: Prepared, start: ShImage, weights: LossWeights, others: int) -> ShImage:
    """Return the fODFs of the least loss, beginning with given ones."""
    loss = FodLoss(weights, DEGREE)
    tensors = tuple(
        torch.from_numpy(np.ascontiguousarray(array[BLOCK], kind))[None]
        for array, kind in (
            (prepared.signal, np.float32),
            (prepared.b0, np.float32),
            (prepared.mask, bool),
        )
    )
    forward = (
        torch.tensor(prepared.forward["wm"], dtype=torch.float32),
        torch.tensor(prepared.forward_others, dtype=torch.float32),
        torch.tensor([prepared.kernel[t] for t in prepared.tissues], dtype=torch.float32),
    )
    first = torch.zeros(*tensors[0].shape[:-1], (DEGREE + 1) * (DEGREE + 2) // 2)
    known = torch.from_numpy(np.ascontiguousarray(start.coefficients[BLOCK]))
    first[..., : known.shape[-1]] = known
    fod = first.requires_grad_()
    amounts = torch.full((*first.shape[:-1], others), -4.0, requires_grad=True)
    optimizer = torch.optim.Adam([fod, amounts], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    batch = (torch.zeros(1), *tensors, *forward, torch.zeros(0))
    for _ in range(STEPS):
        optimizer.zero_grad()
        total = loss.of_outputs(fod, torch.nn.functional.softplus(amounts), batch)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    whole = np.zeros((*start.coefficients.shape[:3], first.shape[-1]), np.float32)
    whole[BLOCK] = fod.detach().numpy()[0]
    return replace(start, coefficients=whole)


def report(label: str, fod: ShImage, case: Case) -> None:
    """Print the scores at the best threshold of the same voxels."""
    peaks = peaks_of(fod, case)
    threshold, _ = validation_score(peaks, case.truth)
    s = score_at(peaks, case.truth, threshold)
    print(
        f"{label:<28}  {s['f1']:.3f}  {s['auc']:.3f}  {s['error']:5.1f}  {s['error_1']:5.1f}  "
        f"{s['error_crossing']:5.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
