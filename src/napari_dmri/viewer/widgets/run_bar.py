"""What a job looks like in a dock: Run that turns into Cancel, progress, and one sentence."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_dmri.viewer.jobs import Job, Outcome

__all__ = ["LEVEL_COLOURS", "RunBar", "StatusLine"]

LEVEL_COLOURS = {"ok": "#3fb950", "note": "#58a6ff", "warning": "#d29922", "error": "#f85149"}
"""Green, blue, amber, red: legible on napari's dark and light themes, never without words."""


class StatusLine(QLabel):
    """A quiet line that says what was understood, with a coloured dot for its level."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.level = self.sentence = ""

    def say(self, text: str, level: str = "") -> None:
        """Show a sentence; level is one of ok, note, warning, error or nothing."""
        self.level, self.sentence = level, text
        safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")
        dot = f'<span style="color:{LEVEL_COLOURS[level]}">●</span> ' if level else ""
        self.setText(dot + safe)
        self.setVisible(bool(text))


class RunBar(QWidget):
    """Run that turns into Cancel, a progress bar, and one sentence at the end.

    ``finished`` carries the job's outcome after the bar has shown it.
    """

    finished = Signal(object)

    def __init__(self, text: str = "Run") -> None:
        super().__init__()
        self._text = text
        self._job: Job | None = None
        self._allowed = (True, "")
        self.stop_tip = "Stop; nothing is kept."
        self._start: Callable[[], Job | None] = lambda: None
        self.button = QPushButton(text)
        self.button.setDefault(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.step = QElidingLabel()
        self.message = StatusLine()
        row = QHBoxLayout()
        row.addWidget(self.button)
        row.addWidget(self.bar, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.step)
        layout.addWidget(self.message)
        self.step.hide()
        self.message.hide()
        self.button.clicked.connect(self._clicked)

    def connect_start(self, start: Callable[[], Job | None]) -> None:
        """Set what Run does: make a job, or return None after saying why not."""
        self._start = start

    @property
    def job(self) -> Job | None:
        """The job at work, or the last one."""
        return self._job

    @property
    def running(self) -> bool:
        """Whether a job is at work."""
        return self._job is not None and self._job.running

    def enable(self, possible: bool, reason: str = "") -> None:
        """Allow Run, or say why it is not allowed; while a job is at work, from its end on."""
        self._allowed = (possible, reason)
        if not self.running:
            self.button.setEnabled(possible)
            self.button.setToolTip(reason)

    def name(self, text: str) -> None:
        """Change what the button says while no job is at work."""
        self._text = text
        if not self.running:
            self.button.setText(text)

    def clear(self) -> None:
        """Forget what the last job said, unless one is at work."""
        if not self.running:
            self.bar.setValue(0)
            self.message.say("")

    def let_go(self) -> None:
        """Cancel the job at work."""
        if self.running:
            assert self._job is not None
            self._job.cancel()

    def press(self) -> str:
        """Start what Run starts; return an empty sentence, or why nothing can be started now."""
        if self.running:
            return "A run is at work; cancel it first."
        if not self.button.isEnabled():
            return self._allowed[1] or "This cannot be run now."
        self.button.click()
        return ""

    def _clicked(self) -> None:
        if self.running:
            assert self._job is not None
            self._job.cancel()
            self.button.setText("Cancelling…")
            self.button.setEnabled(False)
            return
        self.message.say("")
        job = self._start()
        if job is not None:
            self.run(job)

    def run(self, job: Job) -> None:
        """Start a job and follow it."""
        self._job = job
        self.bar.setValue(0)
        self.button.setText("Cancel")
        self.button.setEnabled(True)
        self.button.setToolTip(self.stop_tip)
        self.step.show()
        job.progressed.connect(self._progressed)
        job.finished.connect(self._finished)
        job.start()

    def _progressed(self, fraction: float, text: str) -> None:
        self.bar.setValue(round(1000 * fraction))
        self.step.setText(f"{100 * fraction:.0f} %  {text}")

    def _finished(self, outcome: Outcome) -> None:
        self.button.setText(self._text)
        self.enable(*self._allowed)
        self.step.hide()
        if outcome.cancelled:
            self.bar.setValue(0)
            self.message.say("Cancelled; nothing was changed.", "note")
        elif outcome.error is not None:
            self.bar.setValue(0)
            self.message.say(outcome.error, "error")
        else:
            self.bar.setValue(1000)
            if outcome.warnings:
                self.message.say("\n".join(outcome.warnings), "warning")
        self.finished.emit(outcome)
