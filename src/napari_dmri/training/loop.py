r"""Train a network: stages, best validation weights, live curves, pause, cancel, exact resume.

The loop knows nothing of what it trains. A model, a loss and metrics come as arguments, and data as
`Batches`: whoever samples must give the same batches for the same key, from any step on, which is
all that a resumed training needs beside the state on disk (see `state`).

On a CPU a training that was cancelled or killed and then resumed ends with the same bits as one
that was not, given the same number of threads.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.progress import Progress, silent
from napari_dmri.training.divergence import CHECK, begins_again, diverged, given_up
from napari_dmri.training.parts import Batch, Batches, Diverged, Event, Fit, Loss, Switch
from napari_dmri.training.position import Position
from napari_dmri.training.prefetch import prefetched
from napari_dmri.training.stages import LOWER, Patience, Stage, make_optimizer
from napari_dmri.training.state import drop_state, restore_optimizer
from napari_dmri.training.validation import autocast, mean_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

__all__ = ["train"]

PLOT_EVERY = 0.25
"""Seconds between two step events."""


def train(
    model: torch.nn.Module,
    loss: Loss,
    training: Batches,
    validation: Batches | None,
    stages: Sequence[Stage],
    *,
    metrics: Mapping[str, Loss] | None = None,
    seed: int = 0,
    device: str = "auto",
    state: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    every: float = 60.0,
    clip: float | None = None,
    retries: int = 0,
    start_counts: bool = True,
    memory: dict[str, Any] | None = None,
    on_event: Callable[[Event], None] | None = None,
    switch: Switch | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Train a model in place; it ends with its best validation weights, on the CPU.

    Each stage begins from the best weights so far.

    Parameters
    ----------
    model
        What is trained.
    loss
        What is minimised.
    training, validation
        The data. Without validation the epoch's training loss takes its place.
    stages
        The plan; lower-numbered stages first.
    metrics
        Further numbers of each validation.
    seed
        Of the batches' order and of dropout. Torch's own random state is put back at the end.
    device
        Where it runs; bfloat16 products on a CUDA device, float32 elsewhere.
    state
        A file to keep the state in; where it is there already, training goes on from it.
    settings
        What must be the same to go on: settings and hashes of the data, as JSON can hold them.
    every
        Seconds between two writings of the state.
    clip
        Largest norm of a step's gradient; longer ones are shortened. None leaves them.
    retries
        How often it may begin an epoch again where the loss or the weights are not finite, each
        time from the best weights so far at a third of the learning rate. Where that does not help
        the best weights stay as the state, and going on from it ends with them.
    start_counts
        Whether the weights before the first step may be the best. Those of a model that learned
        from other data are not comparable where its norms are of that data.
    memory
        What a listener wants to be kept in the state, as JSON can hold it; filled, in place, where
        training goes on.
    on_event, switch, progress
        Who is told of curves; who may pause; who is told of progress and may raise `Cancelled`,
        which writes the state and is let through.

    Raises
    ------
    InputError
        If there is nothing to train on, the loss or the weights are not finite (`Diverged`), or the
        state is of another training.

    Warns
    -----
    DmriWarning
        Where it begins again.
    """
    import torch

    from napari_dmri.device import choose_device, exact_float32

    if not stages:
        raise InputError("A training needs at least one stage.")
    if training.count(stages[0].batch) < 1:
        raise InputError("There is nothing to train on: no sample; check masks and pairs.")
    where = choose_device(device).torch()
    gpus = [where] if where.type == "cuda" else []
    more = {} if clip is None else {"clip": clip}
    run = _Run(
        model,
        loss,
        dict(metrics or {}),
        training,
        validation,
        tuple(stages),
        seed,
        where,
        None if state is None else Path(state),
        {**(settings or {}), **more, "seed": seed, "stages": [asdict(s) for s in stages]},
        every,
        clip,
        retries,
        start_counts,
        {} if memory is None else memory,
        on_event or (lambda event: None),
        switch or Switch(),
        progress or silent,
    )
    with torch.random.fork_rng(devices=gpus), exact_float32():
        try:
            return run.run()
        finally:
            model.to("cpu").eval()


class _Run(Position):
    """One training at work: what it is made of, and its steps."""

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        metrics: dict[str, Loss],
        training: Batches,
        validation: Batches | None,
        stages: tuple[Stage, ...],
        seed: int,
        device: torch.device,
        path: Path | None,
        settings: dict[str, Any],
        every: float,
        clip: float | None,
        retries: int,
        start_counts: bool,
        memory: dict[str, Any],
        tell: Callable[[Event], None],
        switch: Switch,
        report: Progress,
    ) -> None:
        super().__init__(model, device, path, settings, stages[0].lr, memory)
        self.loss, self.metrics = loss, metrics
        self.training, self.validation, self.stages = training, validation, stages
        self.seed, self.every, self.clip, self.retries = seed, every, clip, retries
        self.start_counts = start_counts
        self.tell, self.switch, self.report = tell, switch, report
        self.told = self.written

    def run(self) -> Fit:
        import torch

        begun = time.monotonic()
        restored = self.restore() if self.path is not None and self.path.is_file() else {}
        earlier = self.seconds
        if not restored:
            torch.manual_seed(self.seed)
            self.model.to(self.device)
        try:
            if not restored:
                self._start()
            while not self.done and self.stage < len(self.stages):
                try:
                    self._stage(restored)
                except Diverged as error:
                    self.seconds = earlier + time.monotonic() - begun
                    self._begin_again(error)
                restored = {}
                self.seconds = earlier + time.monotonic() - begun
        except (Cancelled, MemoryError, RuntimeError):  # a smaller batch may go on where one failed
            self.seconds = earlier + time.monotonic() - begun
            self.write()
            raise
        finish = self.switch.finish and not self.done
        self.model.load_state_dict(self.best)
        self.done = True
        self.write()
        self._tell("done", validation=self.best_loss)
        self.report(1.0, f"trained: best loss {self.best_loss:.6g} at epoch {self.best_epoch}")
        return Fit(
            tuple(self.curves),
            self.best_epoch,
            self.best_loss,
            self.total_steps,
            round(self.seconds, 2),
            finish,
            tuple(self.notes),
        )

    def _start(self) -> None:
        """Keep the weights before the first step, and their validation loss."""
        if self.validation is None:
            self.keep()
            return
        loss, metrics = self._validate()
        self.keep()
        self.best_loss = loss if self.start_counts and math.isfinite(loss) else math.inf
        entry = {"epoch": 0, "stage": 0, "train": None, "validation": loss, **metrics}
        self.curves.append({**entry, "lr": self.lr})
        self._tell("start", validation=loss, metrics=metrics)

    def _stage(self, restored: dict[str, Any]) -> None:
        stage = self.stages[self.stage]
        if self.epoch == 0 and self.step == 0:
            self.model.load_state_dict(self.best)
        self.optimizer = make_optimizer(stage, self.model, self.lr)
        if restored.get("tensors"):
            restore_optimizer(self.optimizer, restored["tensors"], restored["scalars"], self.lr)
        patience = Patience(stage, self.best_loss, self.waited)
        while self.epoch < stage.epochs and not self.switch.finish:
            self._epoch(stage)
            if self.weight == 0:
                break
            stop = self._close_epoch(stage, patience)
            self.epoch, self.step, self.sum, self.weight = self.epoch + 1, 0, 0.0, 0.0
            if stop:
                break
        self.stage = len(self.stages) if self.switch.finish else self.stage + 1
        self.epoch, self.step, self.sum, self.weight, self.waited = 0, 0, 0.0, 0.0, 0
        self.optimizer = None
        if self.stage < len(self.stages):
            self.lr = self.stages[self.stage].lr

    def _begin_again(self, error: Diverged) -> None:
        """Go back to the best weights, at a lower rate; after some times let the error through."""
        if self.switch.finish:  # the best weights are what was asked for
            self.rewind()
            return
        if not self.retries:  # then it is the caller's to decide, and the state's file stays
            raise error
        self.rewind()
        if self.tried < self.retries:
            self.tried += 1
            self.lr *= LOWER
            words = begins_again(error, self.best_epoch, self.lr)
            self.notes.append(words)
            self._tell("again", words=words)
            warnings.warn(words, DmriWarning, stacklevel=2)
            return
        last = given_up(error, self.tried, self.lr, self.best_epoch, self.best_loss, self.path)
        self.notes.append(last.found)
        self.done = self.best_epoch > 0
        if self.done:
            self.write()
        elif self.path is not None:
            drop_state(self.path)
        raise last

    def _epoch(self, stage: Stage) -> None:
        """Run the steps of an epoch that are left."""
        import torch

        assert self.optimizer is not None
        self.model.train()
        steps = self.training.count(stage.batch)
        key = (self.seed, self.stage, self.epoch)
        # The sum stays on the device, so that no step waits for it.
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.tensor(self.sum, dtype=kind, device=self.device)
        drawn: Iterator[Batch] = self.training.batches(stage.batch, key, self.step)
        if self.device.type == "cuda":
            drawn = prefetched(drawn)
        try:
            for batch in drawn:
                self._wait(steps, total)
                if self.switch.finish:
                    return
                moved = batch.to(self.device)
                self.optimizer.zero_grad(set_to_none=True)
                with autocast(self.device):
                    value = self.loss(self.model, moved.tensors)
                value.backward()  # type: ignore[no-untyped-call]
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
                self.optimizer.step()
                total += value.detach() * batch.weight
                self.weight += batch.weight
                self.step += 1
                self.total_steps += 1
                if self.step % CHECK == 0:
                    self._require_finite("training", float(total) / self.weight)
                if time.monotonic() - self.written > self.every:
                    self.sum = float(total)
                    self.write()
        finally:
            self.sum = float(total)
            if isinstance(drawn, Generator):
                drawn.close()

    def _wait(self, steps: int, total: torch.Tensor) -> None:
        """Report, which may cancel; wait while paused; tell the curve now and then."""
        number = self.closed + 1
        planned = sum(s.epochs for s in self.stages)
        done = sum(s.epochs for s in self.stages[: self.stage]) + self.epoch + self.step / steps
        words = f"epoch {number}, step {self.step + 1} of {steps}"
        self.report(min(done / planned, 1.0), words)
        while self.switch.paused and not self.switch.finish:
            self.report(min(done / planned, 1.0), f"paused at {words}")
            if time.monotonic() - self.told > PLOT_EVERY:
                self._tell("pause", train=float(total) / self.weight if self.step else None)
            time.sleep(0.05)
        if self.step and time.monotonic() - self.told > PLOT_EVERY:
            self._tell("step", train=float(total) / self.weight)

    def _close_epoch(self, stage: Stage, patience: Patience) -> bool:
        """Validate, keep the best weights, note the curve; tell whether the stage ends."""
        mean = self.sum / self.weight
        self._require_finite("training", mean)
        loss, metrics = (mean, {}) if self.validation is None else self._validate()
        self._require_finite("validation", loss)
        number = self.closed + 1
        better, lower, stop = patience.update(loss)
        self.waited = patience.waited
        entry = {"epoch": number, "stage": self.stage + 1, "train": mean, "validation": loss}
        self.curves.append({**entry, **metrics, "lr": self.lr})
        if better:
            self.best_loss, self.best_epoch = loss, number
            self.keep()
        if lower:
            self.lr *= stage.factor
            assert self.optimizer is not None
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
        self._tell("epoch", train=mean, validation=loss, metrics=metrics, best=better)
        return stop

    def _require_finite(self, name: str, loss: float) -> None:
        place = f"epoch {self.closed + 1}, by step {self.step}"
        if not math.isfinite(loss):
            raise diverged(f"The {name} loss is {loss:g} in {place}", self.lr)
        # The last step of an epoch may break what no loss has seen yet.
        if not self.finite():
            raise diverged(f"The network's weights are not finite in {place}", self.lr)

    def _validate(self) -> tuple[float, dict[str, float]]:
        assert self.validation is not None
        planned = sum(s.epochs for s in self.stages)
        done = sum(s.epochs for s in self.stages[: self.stage]) + self.epoch
        means = mean_losses(
            self.model,
            self.validation,
            4 * max(s.batch for s in self.stages),
            {"": self.loss, **self.metrics},
            self.device,
            lambda text: self.report(min(done / planned, 1.0), text),
        )
        return means.pop(""), means

    def _tell(self, kind: str, **values: Any) -> None:
        if within := kind in ("step", "pause"):  # short epochs do not take the steps' turn
            self.told = time.monotonic()
        place = min(self.stage, len(self.stages) - 1)
        number = self.closed + within
        steps = self.training.count(self.stages[place].batch)
        self.tell(Event(kind, place + 1, number, self.step, steps, lr=self.lr, **values))
