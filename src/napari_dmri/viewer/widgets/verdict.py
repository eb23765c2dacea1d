"""Accept, unsure or reject, with a note, into a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.io.qc_record import VERDICTS, append_verdict, read_verdicts
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.widgets._parts import StatusLine

__all__ = ["VerdictBox"]

RECORD = "qc_record.tsv"
TIPS = {
    "accept": "The scan is good enough to use.",
    "unsure": "Someone else should look.",
    "reject": "The scan should not be used.",
}


class VerdictBox(QWidget):
    """Note what you think of the scan on show.

    Parameters
    ----------
    counts
        Returns how many errors and warnings the checks gave.
    """

    def __init__(self, counts: Callable[[], tuple[int, int]]) -> None:
        super().__init__()
        self.scan: Scan | None = None
        self._counts = counts
        title = QLabel("<b>Verdict</b>")
        self.note = QLineEdit()
        self.note.setPlaceholderText("note (optional)")
        self.note.setToolTip("Free text that goes into the record with the verdict.")
        self.note.setAccessibleName("Note")
        self.said = StatusLine()
        self.said.hide()
        self.buttons = {name: QPushButton(f"{name.capitalize()}") for name in VERDICTS}
        row = QHBoxLayout()
        row.setSpacing(2)
        group = QButtonGroup(self)
        group.setExclusive(False)
        for name, button in self.buttons.items():
            button.setToolTip(TIPS[name] + f" Adds a row to {RECORD}.")
            button.setCheckable(True)
            button.clicked.connect(lambda _, n=name: self.record(n))
            group.addButton(button)
            row.addWidget(button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(title)
        layout.addWidget(self.note)
        layout.addLayout(row)
        layout.addWidget(self.said)
        self.show_scan(None)

    @property
    def path(self) -> Path:
        """The record: in the reports folder of the Preferences, else beside the scan."""
        return preferences.reports_folder(self.scan.path if self.scan else None) / RECORD

    def show_scan(self, scan: Scan | None) -> None:
        """Judge this scan from now on; show its last verdict where the record has one."""
        self.scan = scan
        self.setEnabled(scan is not None)
        self.note.clear()
        self.said.say("")
        last = self._last()
        for name, button in self.buttons.items():
            button.setChecked(last is not None and last["verdict"] == name)
        if last is not None:
            self.note.setText(last["note"])
            self.said.say(f"{last['verdict']}, {last['time'][:16].replace('T', ' ')}")

    def _last(self) -> dict[str, str] | None:
        if self.scan is None or self.scan.path is None:
            return None
        try:
            rows = read_verdicts(self.path)
            mine = (self.scan.name, str(self.scan.path))
            return next((r for r in reversed(rows) if (r["scan"], r["path"]) == mine), None)
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def record(self, verdict: str) -> None:
        """Write a verdict to the record and say where."""
        for name, button in self.buttons.items():
            button.setChecked(name == verdict)
        if self.scan is None:
            return
        errors, warnings = self._counts()
        try:
            path = append_verdict(
                self.path,
                scan=self.scan.name,
                path=self.scan.path,
                verdict=verdict,
                note=self.note.text(),
                errors=errors,
                warnings=warnings,
            )
        except (InputError, OSError) as error:
            self.buttons[verdict].setChecked(False)
            words = str(error).rstrip(".")
            self.said.say(
                f"{words}. The folder is set in Preferences > Diffusion MRI > Reports folder.",
                "error",
            )
            return
        self.said.say(f"{verdict}: written to {path}", "ok")
