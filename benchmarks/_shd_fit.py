"""*Fit to this scan*: what it takes, and how good it is for whoever stops early."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from _cost import once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METHOD, SIZE, ORDER = "shd-s-tv", "small", 6
"""What is fitted, and the order of CSD beside it: its best on the protocol."""

MARKS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0)
"""Minutes after which a fit is looked at."""

NEAR = 0.97
"""Share of the last F1 that counts as there."""


def fit(
    ask: Callable[..., dict[str, Any]], note: Callable[..., None], limits: dict[str, Any]
) -> None:
    """Print what a fit takes and how soon its fODFs are good, and note it for the table.

    ``ask`` measures in a process of its own, ``limits`` are arguments of `measure_fit`.
    """
    found = ask(what="fit", **limits)
    expected, curve, preview = found["forecast"], found["curve"], found["preview"]
    shown = "no preview" if preview is None else f"first preview after {preview:.1f} s"
    print(
        f"\nFit to this scan: {METHOD}, {SIZE}, validation subject of protocol low, "
        f"{found['voxels']:,} voxels in the mask\n"
        f"forecast  {expected['seconds']:7.1f} s for {expected['steps']} steps, first preview "
        f"after {expected['preview']:.1f} s, {expected['memory']:.2f} GB\n"
        f"measured  {found['seconds']:7.1f} s ({found['cpu']:.1f} CPU s) for {found['steps']} "
        f"steps, {shown}, + {found['added']:.2f} GB\n"
        f"F1 on {found['scored']:,} voxels, at the threshold of its best"
    )
    # A forecast is of the whole plan or of some minutes, not of some steps.
    peer = "forecast" if limits.get("steps") is None else ""
    for name, seconds, said, more in (
        ("all", found["seconds"], "seconds", {"added_gb": found["added"]}),
        ("first preview", preview, "preview", {}),
    ):
        note(
            part="fit",
            name=f"{name}, {found['steps']} steps",
            seconds=seconds,
            cpu_seconds=found["cpu"] if name == "all" else None,
            peer=peer,
            peer_seconds=expected[said] if peer else None,
            voxels=found["voxels"],
            **more,
        )
    for row in curve:
        print(f"{row['name']:>12s}  epoch {row['epoch']:3d}  {row['f1']:.4f}")
        note(part="fit", name=row["name"], seconds=row["seconds"], f1=row["f1"])
    print(f"{f'CSD, order {ORDER}':>12s}  {'':9s}  {found['csd']:.4f}")
    note(part="fit", name=f"csd, order {ORDER}", f1=found["csd"])
    near = next(row for row in curve if row["f1"] >= NEAR * curve[-1]["f1"])
    print(f"within 3 % of its final F1 after {near['seconds'] / 60:.1f} min")
    note(part="fit", name="within 3 % of the end", seconds=near["seconds"], f1=near["f1"])


def measure_fit(
    device: str,
    marks: Sequence[float] = MARKS,
    minutes: float | None = None,
    steps: int | None = None,
    grid: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Fit as a user does who looks on, and score what was learned by each mark afterwards."""
    from unittest import mock

    from _block import on_block

    from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, make_case
    from napari_dmri.deconvolve.registry import deconvolve
    from napari_dmri.deconvolve.shd import live
    from napari_dmri.deconvolve.shd.fit import fit_to_scan, forecast_fit

    size = "small" if grid is None else (grid[0], grid[1], grid[2])
    case = make_case(PROTOCOLS["low"], "validation", 0, size=size)
    scan = case.seen
    assert scan.mask is not None
    responses = case.responses
    voxels = int(scan.mask.sum())
    expected = forecast_fit(voxels, METHOD, size=SIZE, device=device, minutes=minutes)
    kept = Kept(marks)
    previews: list[float] = []

    def run() -> Any:
        kept.begun = time.monotonic()
        return fit_to_scan(
            scan,
            responses,
            METHOD,
            size=SIZE,
            minutes=minutes,
            steps=steps,
            device=device,
            on_preview=lambda preview: previews.append(kept.elapsed()),
        )

    with mock.patch.object(live, "Live", kept.listener()):
        result, costs = once(run, device)
    block = on_block(case)
    curve = [
        {**row, "f1": score(kept.fod(weights, result.model, scan, responses, block, device), block)}
        for row, weights in kept.snapshots
    ]
    outcome = result.model.card["outcome"]
    end = {"name": "the end", "seconds": costs["seconds"], "epoch": outcome["best_epoch"]}
    curve.append({**end, "f1": score(result.deconvolution.fod, block)})
    csd = deconvolve(scan, "csd", responses, order=ORDER, mask=block.scored, device=device).fod
    return {
        **costs,
        "voxels": voxels,
        "scored": int(block.scored.sum()),
        "steps": outcome["steps"],
        "preview": previews[0] if previews else None,
        "forecast": {
            "seconds": expected.seconds,
            "preview": expected.preview_seconds,
            "memory": expected.memory / 1e9,
            "steps": expected.steps,
        },
        "curve": curve,
        "csd": score(csd, block),
    }


class Kept:
    """Keep what a user who stopped a fit at a mark would have kept."""

    def __init__(self, marks: Sequence[float]) -> None:
        self.marks, self.begun = sorted(marks), 0.0
        self.best: dict[str, Any] = {}
        self.epoch = 0
        self.plan: Any = None
        self.batches: Any = None
        self.snapshots: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def elapsed(self) -> float:
        """Return the seconds since *Run*."""
        return time.monotonic() - self.begun

    def listener(self) -> Any:
        """Return `Live` that tells this as well; events alone do not come with weights."""
        from napari_dmri.deconvolve.shd.live import Live

        kept = self

        class Listener(Live):
            def begin(self, network: Any, plan: Any, batches: Any, *more: Any) -> None:
                super().begin(network, plan, batches, *more)
                kept.plan, kept.batches = plan, batches

            def __call__(self, event: Any) -> None:
                kept.hear(event, self.network)
                super().__call__(event)

        return Listener

    def hear(self, event: Any, network: Any) -> None:
        """Take the best weights so far at each mark, and new ones when they are better."""
        while self.marks and self.best and self.elapsed() >= 60 * self.marks[0]:
            name = f"{self.marks.pop(0):g} min"
            row = {"name": name, "seconds": self.elapsed(), "epoch": self.epoch}
            self.snapshots.append((row, self.best))
        # Without an epoch done a stop keeps the weights of the beginning.
        if event.kind == "start" or (event.kind == "epoch" and event.best):
            self.epoch = 0 if event.kind == "start" else event.epoch
            self.best = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}

    def fod(
        self, weights: Any, model: Any, scan: Any, responses: Any, block: Any, device: str
    ) -> Any:
        """Return the fODFs that a stop with some weights ends with, on a block."""
        from napari_dmri.deconvolve.registry import deconvolve
        from napari_dmri.deconvolve.shd.model import ShdModel
        from napari_dmri.deconvolve.shd.network import build_network
        from napari_dmri.deconvolve.shd.norms import settle_norms

        network = build_network(model.architecture, len(model.bvalues), len(model.others))
        network.load_state_dict(weights)
        settle_norms(network, self.batches, self.plan.batch, device)
        stopped = ShdModel(model.architecture, model.others, model.bvalues, network, model.card)
        found = deconvolve(scan, METHOD, responses, model=stopped, mask=block.scored, device=device)
        return found.fod


def score(fod: Any, case: Any) -> float:
    """Return the F1 of fODFs at the threshold of its best."""
    from napari_dmri.deconvolve.evaluation.scoring import peaks_of, validation_score

    return float(validation_score(peaks_of(fod, case), case.truth)[1])
