"""What is seen of a training: its curves, a slice as the network has it now, and its collapse."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.shd.collapse import Collapsed, Watch
from napari_dmri.deconvolve.shd.probes import choose_probe
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.losses import FodLoss
    from napari_dmri.deconvolve.shd.plan import Plan
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.deconvolve.shd.samples import FodPatches
    from napari_dmri.training.parts import Event

__all__ = ["Live", "Preview"]

SHARE = 4.0
"""Previews take at most one part in so many of the time."""

SECONDS = 2.0
"""Seconds that a preview of patches may take; more voxels than that allows are left out."""

SMOOTH = 0.2
"""Share of the newest batch in a term that is told of."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Hold one slice as a network has it now.

    Parameters
    ----------
    axis, index
        Array axis across the slice, and where it is.
    coefficients, others
        fODFs (A, B, C) and other tissues (A, B, T) along the two other axes, zero outside the mask
        and where voxels were left out for speed.
    loss
        Mean training loss of the epoch so far; None before the first step.
    epoch, step
        Where the training is.
    seconds
        Since the training began.
    """

    axis: int
    index: int
    coefficients: NDArray[np.float32]
    others: NDArray[np.float32]
    loss: float | None
    epoch: int
    step: int
    seconds: float


class Live:
    """Listen to a training: pass events on, show slices, stop it when it collapses.

    Parameters
    ----------
    preset
        What is trained.
    prepared
        The scan that is shown; None shows nothing.
    device
        Where it runs.
    on_event, on_preview, preview_slice, every
        As for `fit_to_scan`.
    """

    def __init__(
        self,
        preset: Preset,
        prepared: Prepared | None,
        device: str,
        on_event: Callable[[Any], None] | None = None,
        on_preview: Callable[[Preview], None] | None = None,
        preview_slice: Callable[[], tuple[int, int] | None] | None = None,
        every: float = 5.0,
    ) -> None:
        self.preset, self.prepared, self.device = preset, prepared, device
        self.tell, self.show, self.slice = on_event, on_preview, preview_slice
        self.every = every
        self.progress: Progress = silent
        self.network: torch.nn.Module | None = None
        self.loss: FodLoss | None = None
        self.terms: dict[str, float] = {}
        self.watch: Watch | None = None
        self.begun = self.next = 0.0
        self.fraction, self.most = 0.0, 300
        self.seen: tuple[int, ...] = ()

    def begin(
        self,
        network: torch.nn.Module,
        plan: Plan,
        batches: FodPatches,
        loss: FodLoss | None = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        """Follow a network from its first step on; with its loss, events name the terms of it.

        ``memory`` is kept with the training's state (see `collapse.Watch`).
        """
        self.network, self.loss, self.terms = network, loss, {}
        # A tenth of the plan, but some steps at least: an untrained network is alike everywhere.
        warm = max(plan.epochs // 10, -(-100 // plan.steps))
        self.watch = Watch(choose_probe(batches), warm, memory=memory)
        self.begun = time.monotonic()
        self.next, self.seen = self.begun + self.every, ()

    def report(self, fraction: float, text: str) -> None:
        """Pass progress on."""
        self.fraction = fraction
        self.progress(fraction, text)

    def say(self, words: str) -> None:
        """Tell something in words."""
        if self.tell is not None:
            self.tell(words)

    def __call__(self, event: Event) -> None:
        """Take an event of the training."""
        if self.tell is not None:
            self.tell(self._with_terms(event))
        assert self.network is not None and self.watch is not None
        if event.kind == "epoch":
            found = self.watch.look(self.network, event.epoch, event.train)
            if found:
                raise Collapsed(
                    f"The training collapsed at epoch {event.epoch}: {found}. The learning rate "
                    f"({event.lr:.2g}) is too high for this scan, or the responses do not fit it."
                )
        if self.show is not None and self._due(event):
            begun = time.monotonic()
            self.show(self.preview(event))
            ended = time.monotonic()
            self.next = ended + max(self.every, SHARE * (ended - begun))

    def _due(self, event: Event) -> bool:
        """Tell whether to show a slice: only between steps, where a training may be stopped."""
        if event.kind == "pause":  # the network stands still: once for each slice is enough
            return self.seen != (*self._slice(), event.epoch, event.step)
        return event.kind == "step" and time.monotonic() >= self.next

    def _with_terms(self, event: Event) -> Event:
        """Add the loss's terms by name as they count in it, smoothed over the last batches."""
        if self.loss is None or event.kind not in ("step", "epoch"):
            return event
        weights = asdict(self.preset.losses)
        for name, value in self.loss.last.items():
            if name in weights:
                now = weights[name] * float(value)
                before = self.terms.get(name, now)
                self.terms[name] = before + SMOOTH * (now - before)
        return replace(event, metrics={**event.metrics, **self.terms})

    def preview(self, event: Event) -> Preview:
        """Show the slice that is asked for; network and random numbers are left as they are."""
        from napari_dmri.deconvolve.shd.predict import predict_network

        assert self.network is not None and self.prepared is not None
        axis, index = self._slice()
        self.seen = (axis, index, event.epoch, event.step)
        region: list[slice] = [slice(0, n) for n in self.prepared.grid]
        region[axis] = slice(index, index + 1)
        box = (region[0], region[1], region[2])
        begun = time.monotonic()
        prepared, count = self._thinned(box)
        found = predict_network(
            self.network,
            self.preset.architecture,
            prepared,
            prepared.others,
            mode=self.preset.mode,
            device=self.device,
            progress=lambda done, text: self.report(self.fraction, "preview"),
            region=box,
            core=self.preset.architecture.patch,
        )
        if self.preset.mode == "paper" and count:
            pace = count / max(time.monotonic() - begun, 1e-3)
            self.most = max(50, int(SECONDS * pace))
        return Preview(
            axis,
            index,
            np.moveaxis(found.coefficients, axis, 0)[0],
            np.moveaxis(found.others, axis, 0)[0],
            event.train,
            event.epoch,
            event.step,
            time.monotonic() - self.begun,
        )

    def _slice(self) -> tuple[int, int]:
        """Return the slice to show: the one asked for, or the axial one with most of the mask."""
        assert self.prepared is not None
        asked = self.slice() if self.slice is not None else None
        if asked is None:
            return 2, int(self.prepared.mask.sum((0, 1)).argmax())
        axis, index = asked
        return axis, min(max(int(index), 0), self.prepared.grid[axis] - 1)

    def _thinned(self, box: tuple[slice, slice, slice]) -> tuple[Prepared, int]:
        """Leave out voxels of a slice where each takes a patch of its own."""
        assert self.prepared is not None
        count = int(self.prepared.mask[box].sum())
        if self.preset.mode != "paper" or count <= self.most:
            return self.prepared, count
        step = int(np.ceil(np.sqrt(count / self.most)))
        kept = np.zeros(self.prepared.grid, bool)
        every = tuple(slice(s.start, s.stop, step if s.stop - s.start > 1 else 1) for s in box)
        kept[every] = self.prepared.mask[every]
        return replace(self.prepared, mask=kept), int(kept.sum())
