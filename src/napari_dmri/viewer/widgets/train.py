"""The Train dock: pairs of scans in, a model out, with its curves while it is trained."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
)

from napari_dmri.errors import InputError
from napari_dmri.training.parts import Event, Switch
from napari_dmri.viewer import preferences
from napari_dmri.viewer.jobs import Job, Outcome, PreviewJob
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.training import TrainOptions, drop_state, train_model
from napari_dmri.viewer.widgets._parts import Dock, StatusLine, beside, device_line, name_edit
from napari_dmri.viewer.widgets.train_pairs import PairsTable
from napari_dmri.viewer.widgets.train_plots import CurvePlot, SlicePlot

__all__ = ["TrainDock"]

BLOCKS = (1, 2, 3, 6, 7, 9, 11)
ORDERS = (2, 4, 6, 8)
SUFFIX = ".safetensors"


class TrainDock(Dock):
    """Train a model that harmonizes one site to another, on people scanned at both.

    Parameters
    ----------
    napari_viewer
        The napari viewer.
    """

    title = "Train"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Train")
        self.model: Any = None
        self.saved: Path | None = None
        self.switch = Switch()
        self._folder = Path(tempfile.mkdtemp(prefix="napari-dmri-train-"))
        # Not when it closes: what it cancels then may still write its state.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._state: Path | None = None
        self._epoch, self._network = 0, True
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
        self.pairs.changed.connect(self._estimate)
        self.pairs.loaded.connect(self._suggest)
        self.target.textChanged.connect(self._estimate)
        self.method.currentIndexChanged.connect(self._method_changed)
        self.order.currentIndexChanged.connect(self._order_changed)
        self._method_changed()

    def _build_method(self) -> None:
        from napari_dmri.harmonize import METHODS

        self.method = QComboBox()
        for name in ("shresnet", "golkov", "linear-rish"):
            self.method.addItem(METHODS[name].label, name)
        self.row("M&ethod", self.method, "What is trained.")
        self.method_line = self.line()

    def _build_settings(self) -> None:
        self.order = QComboBox()
        self.order.addItem("auto", None)
        for order in ORDERS:
            self.order.addItem(str(order), order)
        self.row("&Order", self.order, "SH order; auto takes the largest that all scans support.",
                 self.settings)  # fmt: skip
        self.smooth = QDoubleSpinBox()
        self.smooth.setDecimals(5)
        self.smooth.setRange(0, 1)
        self.smooth.setSingleStep(0.001)
        self.smooth.setValue(TrainOptions().smooth)
        self.row("Smoothin&g λ", self.smooth, "Laplace-Beltrami smoothing of the SH fit.",
                 self.settings)  # fmt: skip
        self.mode = QComboBox()
        self.mode.addItem("paper (3 × 3 × 3)", "paper")
        self.mode.addItem("tiled (large blocks)", "tiled")
        self.row("Mo&de", self.mode, "How neighbourhoods are cut; a model runs in its own mode.",
                 self.settings)  # fmt: skip
        self.blocks = QComboBox()
        for count in BLOCKS:
            self.blocks.addItem(str(count), count)
        self.blocks.setCurrentIndex(BLOCKS.index(TrainOptions().blocks))
        self.row("&Blocks", self.blocks, "Residual blocks, one after the other.", self.settings)
        self.epochs = QSpinBox()
        self.epochs.setRange(1, 1000)
        self.epochs.setValue(TrainOptions().epochs)
        self.row("Epoch&s at most", self.epochs, "Of the second stage (SGD), after 5 epochs of "
                 "Adam; it ends\nafter 10 epochs without a better validation loss.",
                 self.settings)  # fmt: skip
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.row("See&d", self.seed, "Of the initial weights and the order of samples.",
                 self.settings)  # fmt: skip

    def _build_live(self) -> None:
        self.pause = QPushButton("&Pause")
        self.pause.setToolTip("Wait between two steps; press again to go on.")
        self.pause.clicked.connect(self._pause)
        self.finish = QPushButton("&Finish now")
        self.finish.setToolTip("End here and keep the best weights so far.")
        self.finish.clicked.connect(self._finish)
        self.anew = QPushButton("Begin a&new")
        self.anew.setToolTip("Forget the training that was stopped, and begin from the start.")
        self.anew.clicked.connect(self.begin_anew)
        steering = QHBoxLayout()
        for button in (self.pause, self.finish, self.anew):
            steering.addWidget(button)
        self.extra.addLayout(steering)
        self.curves = CurvePlot(self.viewer)
        self.slice = SlicePlot(self.viewer)
        self.extra.addWidget(self.curves)
        self.extra.addWidget(self.slice)
        self.save_button = QPushButton("Save &model…")
        self.save_button.setToolTip("Write the trained model and its card.")
        self.save_button.clicked.connect(self._ask_save)
        self.use_button = QPushButton("Use in &Harmonize")
        self.use_button.setToolTip("Choose the model in the Harmonize dock.")
        self.use_button.clicked.connect(self.use_in_harmonize)
        after = QHBoxLayout()
        after.addWidget(self.save_button)
        after.addWidget(self.use_button)
        self.extra.addLayout(after)
        self.save_line = StatusLine()
        self.extra.addWidget(self.save_line)
        self.save_line.hide()
        self.curves.hide()
        self.slice.hide()
        self._steer()

    @property
    def options(self) -> TrainOptions:
        """What is set."""
        return TrainOptions(
            method=self.method.currentData(),
            order=self.order.currentData(),
            smooth=self.smooth.value(),
            mode=self.mode.currentData(),
            blocks=self.blocks.currentData(),
            epochs=self.epochs.value(),
            seed=self.seed.value(),
            device=preferences.device(),
        )

    def _method_changed(self, *_: Any) -> None:
        from napari_dmri.harmonize import METHODS

        name = self.method.currentData()
        method = METHODS[name]
        self.method_line.say(f"{method.summary} {method.reference}.")
        for field, methods in (
            (self.mode, ("shresnet",)),
            (self.blocks, ("shresnet",)),
            (self.epochs, ("shresnet", "golkov")),
            (self.seed, ("shresnet", "golkov")),
        ):
            self.settings.setRowVisible(field, name in methods)
        if self.target.text() and self.pairs.file is not None:
            self._suggest(self.pairs.file)
        self._estimate()

    def _order_changed(self, *_: Any) -> None:
        self.pairs.set_order(self.order.currentData())

    def _suggest(self, table: Path) -> None:
        """Suggest a file beside the table that is not there yet."""
        for number in ("", *(f"-{n}" for n in range(2, 100))):
            path = table.with_name(f"{self.method.currentData()}{number}{SUFFIX}")
            if not path.exists():
                self.target.setText(str(path))
                return

    def _estimate(self, *_: Any) -> None:
        self.device.say(self._forecast())
        problem = self.pairs.problem
        self.run_bar.enable(not problem, problem)
        self._steer()

    def _forecast(self) -> str:
        """Say where training runs, and which pairs a network learns from and is validated on."""
        from napari_dmri.harmonize.learned_fit import ENOUGH

        pairs = self.pairs.pairs
        if not pairs or not self.options.network:
            return device_line()
        if len(pairs) < ENOUGH:
            return f"{device_line()} | validates on one end of each brain"
        return f"{device_line()} | learns from {len(pairs) - 1}, validates on {pairs[-1].subject}"

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
        path = Path(text).expanduser()
        return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)

    def make_job(self) -> Job | None:
        """Make the job that trains what is set."""
        target = self._target()
        if target is not None and target.exists():
            self.run_bar.message.say(
                f"{target.name} is there already, and is not overwritten: choose another name.",
                "error",
            )
            return None
        if target is not None and not target.parent.is_dir():
            self.run_bar.message.say(f"There is no folder {target.parent}.", "error")
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
            self._state, target, self.switch,
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
            self._steer()
        else:
            self.slice.show_preview(news)
            self.slice.show()

    def _pause(self) -> None:
        self.switch.paused = not self.switch.paused
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
            self._suggest(self.saved)

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
        self.save_line.say(f"Saved {path.name}, and its card beside it.", "ok")
        return True

    def keyPressEvent(self, event: Any) -> None:
        """Remove the selected pairs with Delete."""
        if event.key() == Qt.Key.Key_Delete and self.pairs.table.hasFocus():
            self.pairs.remove_selected()
        else:
            super().keyPressEvent(event)
