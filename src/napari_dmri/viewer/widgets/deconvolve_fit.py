"""The part of the Deconvolve dock that follows a fit: curves, steering, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_dmri.errors import InputError
from napari_dmri.training.checkpoint import load_card
from napari_dmri.training.parts import Event, Switch
from napari_dmri.training.state import drop_state
from napari_dmri.viewer.jobs import Outcome
from napari_dmri.viewer.network_models import Known
from napari_dmri.viewer.widgets._parts import StatusLine
from napari_dmri.viewer.widgets.deconvolve_curves import TermCurves
from napari_dmri.viewer.widgets.run_bar import RunBar

__all__ = ["FitPart"]

SUFFIX = ".safetensors"
KEPT = "A fit of this scan was stopped"


class FitPart(QWidget):
    """Pause, end, forget or use a fit; show its curves; save its model.

    ``begun`` is emitted once a fit's curves have their place in the dock, and ``beside_wanted``
    when the result is to be set beside CSD's.

    Parameters
    ----------
    viewer
        The napari viewer.
    run_bar
        The bar of the dock, whose button begins a fit.
    """

    beside_wanted = Signal()
    begun = Signal()

    def __init__(self, viewer: Any, run_bar: RunBar) -> None:
        super().__init__()
        self.run_bar = run_bar
        self.switch = Switch()
        self._fitted: Known | None = None
        self._chosen: Known | None = None
        self._state: Path | None = None
        self._wanted, self.at_work, self._comparable = False, False, False
        self._laid_out = QTimer(self)
        self._laid_out.setSingleShot(True)
        self._laid_out.timeout.connect(self.begun)
        self.pause = _button("Pa&use", "Wait between two steps; press again to go on.")
        self.finish = _button("F&inish now", "End here, and make the result of the best so far.")
        self.use = _button("&Use the best so far", "Make the result of the fit that was stopped.")
        self.anew = _button("Begin a&new", "Forget the fit that was stopped.")
        self.line = StatusLine()
        self.line.hide()
        self.curves = TermCurves(viewer)
        self.curves.hide()
        self.save_button = _button("Sa&ve model…", "Write the fitted model and its card.")
        self.beside = _button("Besi&de CSD", "")
        self.save_line = StatusLine()
        self.save_line.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.line)
        column.addLayout(_row(self.pause, self.finish, self.use, self.anew))
        column.addLayout(_row(self.save_button, self.beside))
        column.addWidget(self.save_line)
        column.addWidget(self.curves)
        self.pause.clicked.connect(self.toggle_pause)
        self.finish.clicked.connect(self.finish_now)
        self.use.clicked.connect(self.use_best)
        self.anew.clicked.connect(self.begin_anew)
        self.save_button.clicked.connect(self._ask_save)
        self.beside.clicked.connect(self.beside_wanted.emit)
        self.steer(None, "")

    @property
    def stopped(self) -> Mapping[str, Any]:
        """What the state of a fit that was stopped says of it; empty where there is none."""
        if self._state is None or not self._state.is_file():
            return {}
        try:
            return load_card(self._state)
        except InputError:
            return {}

    @property
    def model(self) -> Known | None:
        """The fitted model that is saved: the one chosen, else the one fitted last."""
        chosen = self._chosen
        return chosen if chosen is not None and chosen.origin == "fitted" else self._fitted

    def steer(self, state: Path | None, beside: str, chosen: Known | None = None) -> None:
        """Offer what can be done: a fit whose state is here, a method to stand beside a result."""
        self._chosen = chosen
        if not self.at_work:
            self._state = state
        self._comparable = bool(beside)
        self.beside.setText(f"Besi&de {beside}")
        self.beside.setToolTip(f"Show these fODFs and those of {beside} side by side.")
        self._steer()

    def _steer(self) -> None:
        work, stopped = self.at_work, {} if self.at_work else self.stopped
        self.pause.setVisible(work)
        self.finish.setVisible(work)
        self.use.setVisible(bool(stopped))
        # Before the first epoch ends there is nothing better than the random weights.
        self.use.setEnabled(bool(stopped.get("best_epoch")))
        self.anew.setVisible(bool(stopped))
        self.save_button.setVisible(self.model is not None and not work)
        self.beside.setVisible(self._comparable and not work)
        if not work:
            fit = "Go on" if stopped else "Fit"
            self.run_bar.name("Run" if self._state is None else fit)
            said = self.run_bar.message.sentence
            if stopped and not said:
                self.run_bar.message.say(
                    f"{KEPT} after {stopped.get('total_steps', 0)} steps: go on, use the best so "
                    "far, or begin anew.",
                    "note",
                )
            elif said.startswith(KEPT) and not stopped:
                self.run_bar.message.say("")

    def begin(self, state: Path) -> Switch:
        """Get ready to follow a fit whose state is kept in a file, and return what steers it."""
        self._state = state
        self.switch = Switch(finish=self._wanted)
        self._wanted, self.at_work = False, True
        self.line.say("")
        self.save_line.say("")
        if not self.stopped or not self.curves.steps:
            self.curves.begin()
        self.curves.show()
        self.pause.setText("Pa&use")
        self.finish.setEnabled(not self.switch.finish)
        self.run_bar.stop_tip = "Stop; the best so far is kept, and the fit can go on from there."
        self._steer()
        self._laid_out.start(200)
        return self.switch

    def tell(self, news: Any) -> None:
        """Show what a fit tells: an event for the curves, or words about another attempt."""
        if isinstance(news, Event):
            self.curves.tell(news)
        else:
            self.curves.again()
            self.line.say(str(news), "warning")

    def end(self, outcome: Outcome) -> None:
        """Say what a fit that ended leaves."""
        self.at_work = False
        self.run_bar.stop_tip = "Stop; nothing is kept."
        stopped = self.stopped
        if outcome.cancelled and stopped:
            kept = "the best so far is kept. Use it, or go" if stopped.get("best_epoch") else "go"
            self.run_bar.message.say(
                f"{KEPT} after {stopped.get('total_steps', 0)} steps; {kept} on from there.",
                "note",
            )
        elif outcome.cancelled:
            self.run_bar.message.say("Cancelled; nothing was kept.", "note")
        self._steer()

    def take(self, model: Known) -> None:
        """Offer a fitted model for saving."""
        self._fitted = model
        self._steer()

    def toggle_pause(self) -> None:
        """Wait, or go on."""
        if self.at_work:
            self.switch.paused = not self.switch.paused
            self.pause.setText("Res&ume" if self.switch.paused else "Pa&use")

    def finish_now(self) -> None:
        """End the fit at its next step, and make the result of the best so far."""
        if self.at_work:
            self.switch.finish = True
            self.switch.paused = False
            self.finish.setEnabled(False)

    def use_best(self) -> None:
        """Make the result of a fit that was stopped."""
        if self.stopped and not self.at_work:
            self._wanted = True
            words = self.run_bar.press()
            self._wanted = False
            if words:
                self.line.say(words, "note")

    def begin_anew(self) -> None:
        """Delete the state of the fit that was stopped."""
        if self.stopped and not self.at_work:
            assert self._state is not None
            drop_state(self._state)
            self.run_bar.clear()
            self.line.say("")
            self.curves.begin()
            self.curves.hide()
            self._steer()

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the model", "", f"Models (*{SUFFIX})")
        if path:
            self.save(path)

    def save(self, path: str | Path) -> bool:
        """Write the fitted model; say what was written, or why not."""
        if self.model is None:
            self.save_line.say("Fit a network first.", "note")
            return False
        path = Path(path)
        path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
        try:
            self.model.load().save(path)
        except (InputError, OSError) as error:
            self.save_line.say(str(error), "error")
            return False
        self.save_line.say(f"Saved {path.name}, and its card beside it.", "ok")
        return True


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button)
    return row
