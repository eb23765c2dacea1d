"""Train a network of `networks` on travelling pairs: samples, stages, card."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.harmonize import networks
from napari_dmri.harmonize.learned_card import make_card
from napari_dmri.harmonize.learned_preview import previewing
from napari_dmri.harmonize.novelty import Novelty, fit_novelty
from napari_dmri.harmonize.plans import plan_orders, require_one_site, scan_of, subjects_of
from napari_dmri.harmonize.trained_range import training_range
from napari_dmri.harmonize.training_pairs import TISSUES, Added, Recipe, add_pair
from napari_dmri.progress import Progress, part, silent
from napari_dmri.sphere.harmonics import n_coefficients
from napari_dmri.training.parts import Diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from napari_dmri.harmonize.learned import LearnedHarmonizer
    from napari_dmri.harmonize.learned_preview import Place, Preview
    from napari_dmri.training.parts import Batches, Event, Switch
    from napari_dmri.training.store import Store

__all__ = ["ENOUGH", "Trained", "train_network"]

ENOUGH = 3
"""Pairs from which one is kept for validation; of fewer, each gives a part of its voxels."""

RETRIES = 2
"""How often a training that diverged begins again (see `training.loop.train`)."""

WHERE = (
    "On the command line the same command goes on from what is kept, and --learning-rate lowers "
    "the rate; in the Train dock Go on does, and Begin anew with another seed trains otherwise."
)
"""Where a training that diverged is gone on from, or begun otherwise."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Hold what training gives: the network, what its training voxels look like, the card."""

    network: torch.nn.Module
    novelty: Novelty
    card: dict[str, Any]


def train_network(
    model: LearnedHarmonizer,
    pairs: Sequence[Any],
    validation: Sequence[Any] | None,
    *,
    device: str,
    progress: Progress | None,
    on_event: Callable[[Event], None] | None,
    on_preview: Callable[[Preview], None] | None,
    preview_at: Place | None,
    switch: Switch | None,
    state: str | Path | None,
) -> Trained:
    """Train a harmonizer's network; see `LearnedHarmonizer.fit`."""
    from napari_dmri.training.loop import train
    from napari_dmri.training.losses import loss_with_energy
    from napari_dmri.training.store import Store

    report = progress or silent
    report(0.0, f"reading {len(pairs)} pairs")
    used, kept, notes = _divide(pairs, validation)
    labels = subjects_of([*kept, *used])
    require_one_site(labels, [*kept, *used])
    held_labels = labels[: len(kept)]
    named = [
        (f"{label} {role}", partial(scan_of, pair, role))
        for label, pair in zip(labels, [*kept, *used], strict=True)
        for role in ("source", "target")
    ]
    orders, said = plan_orders(model, named)
    notes += said
    if len(orders) > 1:
        raise InputError(
            f"{model.LABEL} takes one shell and {len(orders)} were asked for; choose one b-value."
        )
    bvalue, order = next(iter(orders.items()))
    recipe = Recipe(bvalue, order, model.smooth, model.map_bvalue, model.registration)
    network = networks.build(model.NAME, order, seed=model.seed, **model.network_settings)
    columns = n_coefficients(order)
    widest = max(load().gradients.shell(bvalue).count for _, load in named[1::2])
    with Store(columns, widest) as training, Store(columns, widest) as testing:
        added = _fill(
            (training, testing), used, kept, labels, recipe, device, part(report, 0.0, 0.15)
        )
        facts = [fact for one in added for fact in one.facts]
        notes += [note for one in added for note in one.notes]
        notes += _tissue_notes(added[len(kept) :])
        for note in notes:
            warnings.warn(note, DmriWarning, stacklevel=4)
        samples = {
            "training": {"subjects": len(used), "voxels": training.samples},
            "validation": {"subjects": len(kept), "voxels": testing.samples},
            "both": {n: sum(one.tissues[n] for one in added) for n in TISSUES.values()},
        }
        settings = {
            "method": model.NAME,
            "parameters": model.parameters,
            "recipe": asdict(recipe),
            "scans": [f.sha256 for f in facts],
            "samples": samples,
        }
        if on_preview is not None and testing.samples:
            affine = scan_of((kept or used)[0], "target").affine
            on_event = previewing(
                testing, network, device, on_preview, on_event, affine=affine, at=preview_at
            )
        try:
            fit = train(
                network,
                loss_with_energy(model.energy),
                _sampler(model, network, training, device),
                _sampler(model, network, testing, device),
                model.stages,
                seed=model.seed,
                device=device,
                state=state,
                settings=settings,
                retries=RETRIES,
                on_event=on_event,
                switch=switch,
                progress=part(report, 0.15, 0.97),
            )
        except Diverged as error:
            raise Diverged(f"{error} {WHERE}", error.found) from error
        notes += fit.notes
        novelty = fit_novelty(
            ((training.volume(n), one.mask) for n, one in enumerate(added[len(kept) :])),
            seed=model.seed,
            progress=part(report, 0.97, 1.0),
        )
        known = training_range(training, bvalue)
    from napari_dmri.device import choose_device

    card = make_card(
        model,
        facts,
        held_labels,
        recipe,
        networks.settings(network),
        samples,
        fit,
        choose_device(device).name,
        notes,
    )
    return Trained(network, novelty, {**card, "signal_range": known})


def _divide(
    pairs: Sequence[Any], validation: Sequence[Any] | None
) -> tuple[list[Any], list[Any], list[str]]:
    """Return the pairs to learn from, those to validate on, and what is to be said of it."""
    used, kept, notes = list(pairs), list(validation or []), []
    if not used:
        subjects_of(used)
    if not kept and len(used) >= ENOUGH:
        kept = [used.pop()]
    if len(used) == 1:
        notes.append(
            "Trained on one travelling subject: the network knows no other anatomy; use at least "
            f"{ENOUGH}."
        )
    return used, kept, notes


def _fill(
    stores: tuple[Store, Store],
    used: Sequence[Any],
    kept: Sequence[Any],
    labels: Sequence[str],
    recipe: Recipe,
    device: str,
    report: Progress,
) -> list[Added]:
    """Fit all pairs, those for validation first."""
    training, testing = stores
    every = [*kept, *used]
    added = []
    for n, (label, pair) in enumerate(zip(labels, every, strict=True)):
        inner = part(report, n / len(every), (n + 1) / len(every), f"{label}: ")
        added.append(
            add_pair(
                testing if n < len(kept) else training,
                pair,
                label,
                recipe,
                held=None if kept else testing,
                device=device,
                progress=inner,
            )
        )
    return added


def _tissue_notes(added: Sequence[Added]) -> list[str]:
    totals = {name: sum(one.tissues[name] for one in added) for name in TISSUES.values()}
    missing = [name for name, count in totals.items() if not count]
    return [
        f"The training voxels ({sum(totals.values())}) hold no {name}: the model has not seen it."
        for name in missing
    ]


def _sampler(
    model: LearnedHarmonizer, network: torch.nn.Module, store: Store, device: str
) -> Batches:
    """Return the batches that a network of this mode is trained on."""
    from napari_dmri.device import choose_device
    from napari_dmri.training.patches import Patches, Tiles

    where = choose_device(device).name
    if networks.mode(network) == "tiled":
        return Tiles(store, model.tile, networks.halo(network), where)
    return Patches(store, networks.patch_size(network), where)
