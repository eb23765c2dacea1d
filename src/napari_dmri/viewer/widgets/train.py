"""The Train dock: pairs of scans in, a model out, with its curves while it is trained."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_dmri.errors import InputError
from napari_dmri.training.checkpoint import taken
from napari_dmri.training.parts import Event, Switch
from napari_dmri.training.state import drop_state
from napari_dmri.viewer.jobs import Job, Outcome, PreviewJob
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.training import forecast, in_words, train_model
from napari_dmri.viewer.widgets._parts import beside, device_line, name_edit
from napari_dmri.viewer.widgets.train_form import TrainForm
from napari_dmri.viewer.widgets.train_pairs import PairsTable

__all__ = ["TrainDock"]

SUFFIX = ".safetensors"


class TrainDock(TrainForm):
    """Train a model that harmonizes one site to another, on people scanned at both.

    Parameters
    ----------
    napari_viewer
        The napari viewer.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Train")
        self.model: Any = None
        self.saved: Path | None = None
        self._asked, self._suggested = False, ""
        self.switch = Switch()
        self._folder = Path(tempfile.mkdtemp(prefix="napari-dmri-train-"))
        # Not when it closes: what it cancels then may still write its state.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._state: Path | None = None
        self._epoch, self._network, self._since = 0, True, 0.0
        self.pairs = PairsTable(self.viewer)
        self.form.addRow(self.pairs)
        self._build_method()
        self._build_settings()
        self.target = name_edit()
        self.target.setPlaceholderText("or save it when it is trained")
        choose = QPushButton("…")
        choose.setMaximumWidth(28)
        choose.setToolTip("Choose where the model is saved.")
        choose.clicked.connect(self._ask_target)
        self.row("Sa&ve as", beside(self.target, choose),
                 "The model's file (.safetensors); its card is written beside it.",
                 self.after)  # fmt: skip
        self._build_live()
        for button, act in (
            (self.pause, self._pause),
            (self.finish, self._finish),
            (self.anew, self.begin_anew),
            (self.save_button, self._ask_save),
            (self.use_button, self.use_in_harmonize),
        ):
            button.clicked.connect(act)
        self._steer()
        self.pairs.changed.connect(self._estimate)
        self.pairs.loaded.connect(self._suggest)
        self.target.textChanged.connect(self._estimate)
        self.method.currentIndexChanged.connect(self._method_changed)
        for signal in (self.mode.currentIndexChanged, self.blocks.currentIndexChanged,
                       self.epochs.valueChanged):  # fmt: skip
            signal.connect(self._estimate)
        self.viewer.dims.events.point.connect(self._looked)
        self.viewer.dims.events.order.connect(self._looked)
        self._place: tuple[int, float] | None = None
        self._looked()
        self.order.currentIndexChanged.connect(self._order_changed)
        self._method_changed()

    def _method_changed(self, *_: Any) -> None:
        self.show_settings()
        if self.target.text() and self.pairs.file is not None:
            self._suggest(self.pairs.file)
        self._estimate()

    def _order_changed(self, *_: Any) -> None:
        self.pairs.set_order(self.order.currentData())

    def _suggest(self, table: Path, anew: bool = False) -> None:
        """Suggest a file beside the table that is not there yet; what was typed stays."""
        if not anew and self.target.text() not in ("", self._suggested):
            return
        for number in ("", *(f"-{n}" for n in range(2, 100))):
            path = table.with_name(f"{self.method.currentData()}{number}{SUFFIX}")
            if not taken(path):
                self._suggested = str(path)
                self.target.setText(self._suggested)
                return

    def _estimate(self, *_: Any) -> None:
        self.device.say(self._forecast())
        problem = self.pairs.problem
        self.run_bar.enable(not problem, problem)
        self._steer()

    def _forecast(self) -> str:
        """Say where training runs, how long, and which pairs a network learns from."""
        from napari_dmri.harmonize.learned_fit import ENOUGH

        pairs = self.pairs.pairs
        if not pairs:
            return device_line()
        words = [device_line()]
        checks = [row.check for row in self.pairs.rows]
        if all(check is not None for check in checks) and "GPU" not in words[0]:
            threads = max(1, (os.cpu_count() or 2) - 1)
            orders = [c.order for c in checks if c.order is not None]
            counts = [c.voxels for c in checks]
            soonest, latest = forecast(self.options, counts, min(orders, default=4), threads)
            words.append(f"about {in_words(soonest)}")
            if self.options.network and latest > 1.2 * soonest:
                words[-1] += f", {in_words(latest)} at most ({5 + self.epochs.value()} epochs)"
        if self.options.network and len(pairs) < ENOUGH:
            words.append("validates on one end of each brain")
        elif self.options.network:
            words.append(f"learns from {len(pairs) - 1}, validates on {pairs[-1].subject}")
        return " | ".join(words)

    def _looked(self, *_: Any) -> None:
        """Note the slice that the viewer shows, so that the training shows it too."""
        dims = self.viewer.dims
        hidden = [a for a in dims.not_displayed if a >= dims.ndim - 3]
        self._place = None
        if len(hidden) == 1 and len(self.viewer.layers):
            self._place = (dims.ndim - 1 - hidden[0], float(dims.point[hidden[0]]))

    def _steer(self) -> None:
        """Enable what can be pressed now."""
        running = self.run_bar.running
        network = self.options.network if not running else self._network
        for button in (self.pause, self.finish):
            button.setVisible(running and network)
            button.setEnabled(self._epoch > 0)
        waiting = not running and network and self.state_file().is_file()
        self.anew.setVisible(waiting)
        self.run_bar.name("Go on" if waiting else "Train")
        for button in (self.save_button, self.use_button):
            button.setVisible(self.model is not None and not running)

    def state_file(self) -> Path:
        """Return where a training's state is kept: beside the model, else in a folder of ours."""
        target = self._target()
        if target is not None:
            return target.with_name(f"{target.stem}.training{SUFFIX}")
        return self._folder / f"{self.method.currentData()}.training{SUFFIX}"

    def _target(self) -> Path | None:
        text = self.target.text().strip()
        if not text:
            return None
        # Any text comes here while it is typed: "/", "~nobody", a folder that is not ours.
        try:
            path = Path(text).expanduser()
            path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
            path.exists()
        except (ValueError, RuntimeError, OSError):
            return None
        return path

    def make_job(self) -> Job | None:
        """Make the job that trains what is set."""
        target, text = self._target(), self.target.text().strip()
        if text and target is None:
            self.run_bar.message.say(
                f"{text} is no file that can be written: choose the name of a {SUFFIX} file, or "
                "leave the field empty and save the model when it is trained.",
                "error",
            )
            return None
        if target is not None and (words := taken(target)):
            self.run_bar.message.say(f"{words}: choose another name.", "error")
            return None
        if target is not None and not target.parent.is_dir():
            self.run_bar.message.say(f"There is no folder {target.parent}.", "error")
            return None
        if self.model is not None and self.saved is None and not self._asked:
            self._asked = True
            self.run_bar.message.say(
                "The model trained last is not saved: save it, or press Train again to let it go.",
                "warning",
            )
            return None
        options = self.options
        self._network, self._state = options.network, self.state_file()
        going_on = self._state.is_file()
        self.switch = Switch()
        self.model, self.saved = None, None
        self.save_line.say("")
        if not going_on:
            self._epoch = 0
            self.curves.begin()
            self.slice.show_preview(None)
        self.curves.setVisible(options.network)
        self.slice.setVisible(options.network and self.slice.preview is not None)
        self.pause.setText("&Pause")
        job = PreviewJob(
            f"Train {self.method.currentText()}", train_model, self.pairs.pairs, options,
            self._state, target, self.switch, preview_at=lambda: self._place,
        )  # fmt: skip
        job.previewed.connect(self._told)
        self.run_bar.stop_tip = (
            "Stop; training can go on from there." if options.network else "Stop; nothing is kept."
        )
        job.progressed.connect(self._under_way)
        return job

    def _under_way(self, *_: Any) -> None:
        if not self.pause.isVisible() and self.run_bar.running:
            self._steer()

    def _told(self, news: Any) -> None:
        """Show what the training tells: an event for the curves, or the slice."""
        if not self.run_bar.running:
            return
        if isinstance(news, Event):
            self._epoch = max(self._epoch, news.epoch, 1)
            self.curves.tell(news)
            self._clock(news)
            if news.words:
                self.run_bar.message.say(news.words, "warning")
            self._steer()
        else:
            self.slice.show_preview(news)
            self.slice.show()

    def _clock(self, event: Event) -> None:
        """Say how long an epoch takes, as measured, and how long the rest can take."""
        now = time.monotonic()
        if event.kind == "epoch":
            if self._since and not self.switch.paused:
                seconds = now - self._since
                left = seconds * (5 + self.epochs.value() - event.epoch)
                self.device.say(
                    f"{device_line()} | an epoch takes {in_words(seconds)} | at most "
                    f"{in_words(left)} to go"
                )
            self._since = now
        elif event.kind == "start":
            self._since = now

    def _pause(self) -> None:
        self.switch.paused = not self.switch.paused
        self._since = 0.0
        self.pause.setText("&Resume" if self.switch.paused else "&Pause")

    def _finish(self) -> None:
        self.switch.finish = True
        self.switch.paused = False
        self.finish.setEnabled(False)

    def begin_anew(self) -> None:
        """Delete the state of the training that was stopped."""
        if not self.run_bar.running:
            drop_state(self.state_file())
            self.run_bar.clear()
            self.curves.begin()
            self.slice.show_preview(None)
            self._steer()

    def _done(self, outcome: Outcome) -> None:
        super()._done(outcome)
        self._since = 0.0
        self.device.say(self._forecast())
        if outcome.cancelled and self._state is not None and self._state.is_file():
            self.run_bar.message.say(
                f"Stopped in epoch {max(self._epoch, 1)}; Go on continues from there, with the "
                "same pairs and settings.",
                "note",
            )
        elif outcome.cancelled:
            self.run_bar.message.say("Cancelled; nothing was kept.", "note")
        self._steer()

    def show_result(self, result: Any) -> None:
        """Offer the trained model, and say how it did."""
        self.saved, self.model = result
        self._asked = False
        card = self.model.card
        self._epoch = 0
        held = card.get("validation_subjects") or []
        count = len(card["subjects"]) - len(held)
        words = [
            f"Trained on {count} subject{'s' if count > 1 else ''}"
            + (f", validated on {', '.join(held)}." if held else ".")
        ]
        if self._network:
            entries = self.model.curves
            self.curves.show_curves(entries)
            best = self.curves.best
            first, last = (entries[n]["validation"] for n in (0, best))
            words.append(
                f"Best of {len(entries) - 1} epochs: {best}, validation loss {first:.3g} → "
                f"{last:.3g}."
            )
        if self.saved is not None:
            words.append(f"Saved {self.saved.name}.")
        warned = self.run_bar.message.sentence
        self.run_bar.message.say("\n".join([*words, *([warned] if warned else [])]),
                                 "warning" if warned else "ok")  # fmt: skip
        if self.saved is not None:
            self._suggest(self.saved, anew=True)

    def use_in_harmonize(self) -> Any:
        """Open the Harmonize dock with the model chosen, and return the dock."""
        if self.model is None:
            return None
        dock = open_dock(self.viewer, "Harmonize")
        name = self.saved.name if self.saved is not None else "not saved"
        dock.offer(self.model, name, str(self.saved or "Trained in this window, not saved."))
        return dock

    def _ask_target(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the model as", self.target.text(), f"Models (*{SUFFIX})"
        )
        if path:
            self.target.setText(path)

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the model", "", f"Models (*{SUFFIX})")
        if path:
            self.save(path)

    def save(self, path: str | Path) -> bool:
        """Write the trained model; say what was written, or why not."""
        if self.model is None:
            return False
        path = Path(path)
        path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
        try:
            self.model.save(path)
        except (InputError, OSError) as error:
            self.save_line.say(str(error), "error")
            return False
        self.saved = path
        if self._state is not None:
            # It is still there where the training could not save the model itself.
            drop_state(self._state)
            self._steer()
        if self._asked:
            self._asked = False
            self.run_bar.clear()
        self.save_line.say(f"Saved {path.name}, and its card beside it.", "ok")
        return True

    def keyPressEvent(self, event: Any) -> None:
        """Remove the selected pairs with Delete."""
        if event.key() == Qt.Key.Key_Delete and self.pairs.table.hasFocus():
            self.pairs.remove_selected()
        else:
            super().keyPressEvent(event)

    def stop(self) -> None:
        """Stop listening to the sliders when the dock is closed."""
        super().stop()
        self.viewer.dims.events.point.disconnect(self._looked)
        self.viewer.dims.events.order.disconnect(self._looked)
