"""Fit a network of the SHD family to one scan without supervision, and follow it while it learns.

The loss needs no truth (see `losses`): the fODFs must give the measured signal back. A fit shows a
slice as it is now, can be paused, stopped and gone on from its state on disk, and begins again at a
lower learning rate when it collapses (see `collapse`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.shd.collapse import Collapsed
from napari_dmri.deconvolve.shd.forecast import Forecast, forecast_fit
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part, silent
from napari_dmri.scan import SHELL_GAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.live import Preview
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.images import Response
    from napari_dmri.scan import Scan
    from napari_dmri.training.parts import Switch

__all__ = ["Collapsed", "FitResult", "Forecast", "choose_others", "fit_to_scan", "forecast_fit"]

TESTS = 4
"""Batches, four times as large as those of training, that choose the best epoch."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """Hold a fitted model and what it makes of the scan, the curves, and the learning rate."""

    model: ShdModel
    deconvolution: Deconvolution
    notes: tuple[str, ...]
    curves: tuple[dict[str, Any], ...]
    lr: float


def choose_others(
    bvalues: int, tissues: Sequence[str], *, one_scan: bool = False
) -> tuple[str, ...]:
    """Return the tissues besides white matter that a network separates: all with a response.

    Two b-values do not tell three tissues apart by amounts alone, but the loss does by shape: it
    asks for sparse fODFs, so that what has no direction goes to grey matter. Left out, grey matter
    becomes fibres that are not there: on a simulated scan of which one shell is seen (b = 1000
    s/mm², two reconstructed) SHD-S comes to F1 0.893 with it and 0.792 without, and white matter's
    amount correlates with the truth by 0.89 and 0.35.

    A fit to one scan takes as many tissues as b-values, CSF before grey matter: fitted to a
    measured scan (20 directions at b = 1000 s/mm²) with all three, SHD-TV explained nearly all by
    grey matter at each of three learning rates.

    Parameters
    ----------
    bvalues
        Number of b-values, b0 counted; with b0 alone nothing is separated.
    tissues
        What has a response.
    one_scan
        Whether the network is fitted to one scan, rather than trained on many.

    Examples
    --------
    >>> choose_others(2, ("wm", "gm", "csf")), choose_others(2, ("wm", "gm", "csf"), one_scan=True)
    (('gm', 'csf'), ('csf',))
    """
    known = [tissue for tissue in ("csf", "gm") if tissue in tissues and bvalues > 1]
    kept = known[: bvalues - 1] if one_scan else known
    return tuple(tissue for tissue in ("gm", "csf") if tissue in kept)


def fit_to_scan(
    scan: Scan,
    responses: ResponseSet | Response,
    method: str = "shd-s-tv",
    *,
    others: Sequence[str] | None = None,
    size: str | None = None,
    mode: str | None = None,
    start: ShdModel | None = None,
    rule: str | None = None,
    inputs: Sequence[int] | NDArray[Any] | None = None,
    weights: Mapping[str, float | str] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    state: str | Path | None = None,
    on_event: Callable[[Any], None] | None = None,
    on_preview: Callable[[Preview], None] | None = None,
    preview_slice: Callable[[], tuple[int, int] | None] | None = None,
    preview_every: float = 5.0,
    switch: Switch | None = None,
    progress: Progress | None = None,
    retries: int = 2,
) -> FitResult:
    """Fit a network to a scan and deconvolve it.

    Parameters
    ----------
    scan
        The scan; its mask says which voxels to learn from.
    responses
        White matter's response and those of the other tissues.
    method
        A name of `presets.PRESETS`.
    others
        Tissues besides white matter; None takes as many as b-values (`choose_others`).
    size
        ``"small"`` or ``"paper"``; None takes ``"paper"`` on a CUDA device and ``"small"`` else.
    mode
        ``"tiled"`` trains a method of the papers on larger patches (see `presets.preset`).
    start
        A trained model to begin from, whose architecture, tissues and shells are kept.
    rule
        How shells are fitted (see `order_rule.shell_matrix`); None takes the rule of the model to
        begin from, else ``"safe"``.
    inputs
        Volumes that the network sees, to learn from few directions to explain all; None for all.
    weights
        Parts of the loss that count otherwise than in the preset, by name (see `LossWeights`).
    minutes, steps
        How long, or how many steps; None follows the preset's plan, a fifth of it with ``start``.
    seed
        Of weights and order of patches: the same seed gives the same weights.
    device
        Where it runs.
    state
        A file to keep the state in. A fit that was stopped goes on from it, and ends with the same
        weights on a CPU as one that was not.
    on_event
        Told of curves (`Event`), and in words (str) of a new beginning after a collapse.
    on_preview, preview_slice, preview_every
        Shown a slice as the network has it, every so many seconds; which one (axis, index).
    switch, progress
        Who may pause, or end it with the best so far; who is told and may raise `Cancelled`, after
        which the state stays.
    retries
        New beginnings after a collapse, each at a third of the learning rate.

    Raises
    ------
    InputError
        If the scan cannot be prepared (see `prepare`), or the state is of another fit.
    Collapsed
        If it collapsed each time.
    """
    from napari_dmri.deconvolve.shd.apply import as_deconvolution
    from napari_dmri.deconvolve.shd.card import make_card, training_entry
    from napari_dmri.deconvolve.shd.gains import equalised
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.live import Live
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.predict import predict_network
    from napari_dmri.deconvolve.shd.running import (
        choose_plan,
        choose_preset,
        choose_rule,
        read_settings,
        train_with_retries,
    )
    from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore, surround
    from napari_dmri.deconvolve.shd.shipped import TOLERANCE
    from napari_dmri.deconvolve.shd.tiles import reach
    from napari_dmri.device import choose_device

    report = progress or silent
    where = choose_device(device)
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    size, chosen = choose_preset(method, size, start, where.name, mode, weights)
    if others is None:
        count = len(scan.gradients.shells)
        others = start.others if start else choose_others(count, tuple(responses), one_scan=True)
    _check_start(start, others)
    report(0.0, "preparing the scan")
    prepared = surround(
        prepare(
            scan,
            responses,
            others=tuple(others),
            bvalues=None if start is None else start.bvalues,
            input_order=chosen.architecture.input_order,
            degree=chosen.architecture.degree,
            rule=choose_rule(rule, start),
            inputs=inputs,
            tolerance=SHELL_GAP if start is None else TOLERANCE,
            margin=reach(chosen.architecture),
            progress=part(progress, 0.0, 0.02),
        )
    )
    others = prepared.others
    store = PatchStore(others)
    store.add(prepared, label=scan.name)
    if start is None:
        chosen = equalised(chosen, store.volumes)
    held = None if state is None else read_settings(state)
    chosen = replace(
        chosen,
        plan=choose_plan(chosen, store, where.name, others, start, minutes, steps, held),
    )
    settings = {
        "method": method,
        "size": size,
        "others": list(others),
        "architecture": chosen.architecture.as_dict(),
        "losses": chosen.losses.as_dict(),
        "minutes": minutes,
        "data": content_hash(prepared),
        "start": "" if start is None else start.sha256,
    }
    batches = FodPatches(store.volumes, chosen.architecture.patch, chosen.plan.steps, where.torch())
    # Places of the same scan, the same after every epoch: an epoch's own differ from the next's.
    tests = FodPatches(store.volumes, chosen.architecture.patch, TESTS, where.torch())
    live = Live(chosen, prepared, where.name, on_event, on_preview, preview_slice, preview_every)
    outcome = train_with_retries(
        chosen,
        len(prepared.bvalues),
        len(others),
        batches,
        live,
        settings,
        start=None if start is None else start.network,
        seed=seed,
        device=where.name,
        state=state,
        attempt=0 if held is None else int(held.get("attempt", 0)),
        retries=retries,
        switch=switch,
        progress=part(progress, 0.02, 0.85),
        validation=tests,
    )
    chosen = replace(chosen, plan=outcome.plan)
    found = predict_network(
        outcome.network,
        chosen.architecture,
        prepared,
        others,
        mode=chosen.mode,
        device=where.name,
        progress=part(progress, 0.85, 0.97),
    )
    notes = (*outcome.notes, *prepared.notes, *found.notes)
    card = make_card(
        chosen,
        others,
        prepared.bvalues,
        [training_entry(scan, prepared.orders)],
        outcome.fit,
        seed=seed,
        device=where.name,
        trained_from="scan",
        rule=str(prepared.parameters["rule"]),
        start=start,
        notes=notes,
    )
    model = ShdModel(chosen.architecture, others, prepared.bvalues, outcome.network, card)
    made = as_deconvolution(
        scan, responses, model, prepared, found, where.name, part(progress, 0.97, 1.0)
    )
    report(1.0, "fitted")
    return FitResult(model, made, notes, outcome.fit.curves, outcome.plan.lr)


def _check_start(start: ShdModel | None, others: Sequence[str]) -> None:
    if start is not None and set(others) != set(start.others):
        raise InputError(
            f"The model to begin from separates {', '.join(('wm', *start.others))} and "
            f"{', '.join(('wm', *others))} are asked for; leave the tissues to the model."
        )


def content_hash(prepared: Prepared, target: NDArray[Any] | None = None) -> str:
    """Return a hash of what a network learns from: the prepared scan, and known fODFs if any."""
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [prepared.mask, prepared.signal, prepared.coefficients]
    arrays += [prepared.forward[t] for t in prepared.tissues]
    arrays += [] if target is None else [target]
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
