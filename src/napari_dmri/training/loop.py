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
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import Cancelled, InputError
from napari_dmri.progress import Progress, silent
from napari_dmri.training.parts import Batch, Batches, Diverged, Event, Fit, Loss, Switch
from napari_dmri.training.prefetch import prefetched
from napari_dmri.training.stages import Patience, Stage, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

__all__ = ["train"]

PLOT_EVERY = 0.25
"""Seconds between two step events."""

POSITION = (
    *("stage", "epoch", "step", "total_steps", "best_epoch", "waited"),
    *("sum", "weight", "lr", "seconds"),
)
"""What says where a training is, and its running sums."""


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
    on_event: Callable[[Event], None] | None = None,
    switch: Switch | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Train a model in place; it ends with its best validation weights, on the CPU.

    Each stage begins from the best weights so far; the weights before the first step count as well.

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
    on_event, switch, progress
        Who is told of curves; who may pause; who is told of progress and may raise `Cancelled`,
        which writes the state and is let through.

    Raises
    ------
    InputError
        If there is nothing to train on, the loss is not finite (`Diverged`), or the state is of
        another training.
    """
    import torch

    from napari_dmri.device import choose_device

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
        on_event or (lambda event: None),
        switch or Switch(),
        progress or silent,
    )
    with torch.random.fork_rng(devices=gpus):
        try:
            return run.run()
        finally:
            model.to("cpu").eval()


class _Run:
    """One training: its position, curves and best weights."""

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
        tell: Callable[[Event], None],
        switch: Switch,
        report: Progress,
    ) -> None:
        self.model, self.loss, self.metrics = model, loss, metrics
        self.training, self.validation, self.stages = training, validation, stages
        self.seed, self.device, self.path, self.settings = seed, device, path, settings
        self.every, self.clip = every, clip
        self.tell, self.switch, self.report = tell, switch, report
        self.stage = self.epoch = self.step = self.total_steps = 0
        self.curves: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_loss, self.best_epoch, self.waited = float("inf"), 0, 0
        self.sum = self.weight = self.seconds = 0.0
        self.lr = stages[0].lr
        self.optimizer: torch.optim.Optimizer | None = None
        self.done = False
        self.written = self.told = time.monotonic()

    def run(self) -> Fit:
        import torch

        begun = time.monotonic()
        restored = self._restore() if self.path is not None and self.path.is_file() else {}
        earlier = self.seconds
        if not restored:
            torch.manual_seed(self.seed)
            self.model.to(self.device)
        try:
            if not restored:
                self._start()
            while not self.done and self.stage < len(self.stages):
                self._stage(restored)
                restored = {}
                self.seconds = earlier + time.monotonic() - begun
        except Cancelled:
            self.seconds = earlier + time.monotonic() - begun
            self._write()
            raise
        finish = self.switch.finish and not self.done
        self.model.load_state_dict(self.best)
        self.done = True
        self._write()
        self._tell("done", validation=self.best_loss)
        self.report(1.0, f"trained: best loss {self.best_loss:.6g} at epoch {self.best_epoch}")
        return Fit(
            tuple(self.curves),
            self.best_epoch,
            self.best_loss,
            self.total_steps,
            round(self.seconds, 2),
            finish,
        )

    def _start(self) -> None:
        """Keep the weights before the first step, and their validation loss."""
        if self.validation is None:
            self._keep()
            return
        loss, metrics = self._validate()
        self._keep()
        self.best_loss = loss if math.isfinite(loss) else math.inf
        entry = {"epoch": 0, "stage": 0, "train": None, "validation": loss, **metrics}
        self.curves.append({**entry, "lr": self.lr})
        self._tell("start", validation=loss, metrics=metrics)

    def _stage(self, restored: dict[str, Any]) -> None:
        stage = self.stages[self.stage]
        if self.epoch == 0 and self.step == 0:
            self.model.load_state_dict(self.best)
            self.lr, self.waited = stage.lr, 0
        self.optimizer = make_optimizer(stage, self.model, self.lr)
        if restored.get("tensors"):
            from napari_dmri.training.state import restore_optimizer

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
        self.epoch, self.step, self.sum, self.weight = 0, 0, 0.0, 0.0
        self.optimizer = None

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
                with self._autocast():
                    value = self.loss(self.model, moved.tensors)
                value.backward()  # type: ignore[no-untyped-call]
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
                self.optimizer.step()
                total += value.detach() * batch.weight
                self.weight += batch.weight
                self.step += 1
                self.total_steps += 1
                if time.monotonic() - self.written > self.every:
                    self.sum = float(total)
                    self._write()
        finally:
            self.sum = float(total)
            if isinstance(drawn, Generator):
                drawn.close()

    def _wait(self, steps: int, total: torch.Tensor) -> None:
        """Report, which may cancel; wait while paused; tell the curve now and then."""
        number = self._closed + 1
        planned = sum(s.epochs for s in self.stages)
        done = sum(s.epochs for s in self.stages[: self.stage]) + self.epoch + self.step / steps
        words = f"epoch {number}, step {self.step + 1} of {steps}"
        self.report(min(done / planned, 1.0), words)
        while self.switch.paused and not self.switch.finish:
            self.report(min(done / planned, 1.0), f"paused at {words}")
            time.sleep(0.05)
        if self.step and time.monotonic() - self.told > PLOT_EVERY:
            self._tell("step", train=float(total) / self.weight)

    def _close_epoch(self, stage: Stage, patience: Patience) -> bool:
        """Validate, keep the best weights, note the curve; tell whether the stage ends."""
        mean = self.sum / self.weight
        loss, metrics = (mean, {}) if self.validation is None else self._validate()
        number = self._closed + 1
        if not (math.isfinite(mean) and math.isfinite(loss)):
            raise Diverged(
                f"The training loss is {mean:g} and the validation loss {loss:g} after epoch "
                f"{number}; lower the learning rate ({self.lr:g}) or check the scans for extremes."
            )
        better, lower, stop = patience.update(loss)
        self.waited = patience.waited
        entry = {"epoch": number, "stage": self.stage + 1, "train": mean, "validation": loss}
        self.curves.append({**entry, **metrics, "lr": self.lr})
        if better:
            self.best_loss, self.best_epoch = loss, number
            self._keep()
        if lower:
            self.lr *= stage.factor
            assert self.optimizer is not None
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
        self._tell("epoch", train=mean, validation=loss, metrics=metrics, best=better)
        return stop

    def _validate(self) -> tuple[float, dict[str, float]]:
        import torch

        assert self.validation is not None
        self.model.eval()
        wanted = {"": self.loss, **self.metrics}
        sums = dict.fromkeys(wanted, 0.0)
        weight = 0.0
        size = 4 * max(s.batch for s in self.stages)
        count = self.validation.count(size)
        if count < 1:
            raise InputError("There is nothing to validate on: no sample; check masks and pairs.")
        planned = sum(s.epochs for s in self.stages)
        done = sum(s.epochs for s in self.stages[: self.stage]) + self.epoch
        with torch.no_grad():
            for n, batch in enumerate(self.validation.batches(size)):
                self.report(min(done / planned, 1.0), f"validation, step {n + 1} of {count}")
                moved = batch.to(self.device)
                for name, measure in wanted.items():
                    with self._autocast():
                        sums[name] += float(measure(self.model, moved.tensors)) * batch.weight
                weight += batch.weight
        means = {name: value / max(weight, 1e-12) for name, value in sums.items()}
        return means.pop(""), means

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    @property
    def _closed(self) -> int:
        """Epochs that have a place on the curves, through all stages."""
        return sum(1 for entry in self.curves if entry["epoch"])

    def _keep(self) -> None:
        self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _tell(self, kind: str, **values: Any) -> None:
        if kind == "step":  # short epochs do not take the steps' turn
            self.told = time.monotonic()
        stage = self.stages[min(self.stage, len(self.stages) - 1)]
        number = self._closed + (kind == "step")
        steps = self.training.count(stage.batch)
        place = min(self.stage + 1, len(self.stages))
        self.tell(Event(kind, place, number, self.step, steps, lr=self.lr, **values))

    def _write(self) -> None:
        """Write the state, where one is kept and there is something to keep."""
        self.written = time.monotonic()
        if self.path is None or not self.best:  # before the first validation nothing is lost
            return
        from napari_dmri.training.state import write_state

        card = {name: getattr(self, name) for name in (*POSITION, "curves", "done")}
        write_state(
            self.path,
            self.model,
            self.best,
            self.optimizer,
            {**card, "best_loss": repr(self.best_loss), "settings": self.settings},
        )

    def _restore(self) -> dict[str, Any]:
        """Take up a state; return what the optimizer needs."""
        from napari_dmri.training.state import read_state, restore_random, weights

        assert self.path is not None
        tensors, card = read_state(self.path, self.settings)
        for name in POSITION:
            setattr(self, name, card[name])
        self.best_loss, self.done = float(card["best_loss"]), bool(card["done"])
        self.curves = list(card["curves"])
        self.model.load_state_dict(weights(tensors, "model/"))
        self.model.to(self.device)
        self.best = {k: v.to(self.device) for k, v in weights(tensors, "best/").items()}
        restore_random(tensors)
        held = {k: v for k, v in tensors.items() if k.startswith("optimizer/")}
        return {"tensors": held, "scalars": card["scalars"]}
