"""The part of the Harmonize dock that trains a model from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.viewer import preferences
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.widgets._parts import RunBar, Section, StatusLine, beside

__all__ = ["TrainSection", "simulate_subjects", "train_model"]

SIMULATED = 7
"""Simulated subjects: six to train on, and one to keep."""


class TrainSection(Section):
    """Train a model from a table of scans and save it; emits ``trained`` with its path."""

    trained = Signal(str)

    def __init__(self, viewer: Any) -> None:
        super().__init__("Train LinearRISH from a table", expanded=False)
        self.viewer = viewer
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        column.addLayout(form)
        self.kind = QComboBox()
        self.kind.addItem("travelling subjects (pairs)", "pairs")
        self.kind.addItem("two groups of matched people", "groups")
        self.kind.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.kind.setToolTip(
            "Pairs: the same people scanned at both sites.\n"
            "Groups: at least 10 matched people at each site."
        )
        form.addRow("&From", self.kind)
        self.table = QLineEdit()
        self.table.setPlaceholderText("pairs.tsv or groups.tsv")
        self.table.setToolTip(
            "Pairs: columns subject, source, target, source_mask, target_mask.\n"
            "Groups: columns site, scan, mask. Paths are relative to the table."
        )
        form.addRow("&Table", self._with_button(self.table, self._ask_table))
        self.target = QLineEdit()
        self.target.setPlaceholderText("where the model is saved (.safetensors)")
        form.addRow("Sa&ve as", self._with_button(self.target, self._ask_target))
        self.smooth = QDoubleSpinBox()
        self.smooth.setDecimals(5)
        self.smooth.setRange(0, 1)
        self.smooth.setSingleStep(0.001)
        self.smooth.setValue(0.006)
        self.smooth.setToolTip("Laplace-Beltrami smoothing of the SH fit; 1e-5 is the other habit.")
        form.addRow("S&moothing", self.smooth)
        self.simulate = QPushButton("Simulate travelling subjects…")
        self.simulate.setToolTip(
            "Write simulated people, each scanned at two simulated sites, to a new folder,\n"
            "to try training without data of your own. Models made of them are demo only."
        )
        self.simulate.clicked.connect(self._ask_simulation)
        column.addWidget(self.simulate)
        self.line = StatusLine()
        self.line.say("")
        column.addWidget(self.line)
        self.run_bar = RunBar("Train")
        self.run_bar.connect_start(self._start)
        self.run_bar.finished.connect(self._done)
        column.addWidget(self.run_bar)
        self.addWidget(inner)
        self.table.textChanged.connect(self._suggest)

    def _with_button(self, edit: QLineEdit, ask: Any) -> QWidget:
        button = QPushButton("…")
        button.setMaximumWidth(28)
        button.clicked.connect(ask)
        return beside(edit, button)

    def _ask_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a table", "", "Tables (*.tsv)")
        if path:
            self.table.setText(path)

    def _ask_target(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the model as", self.target.text(), "Models (*.safetensors)"
        )
        if path:
            self.target.setText(path)

    def _ask_simulation(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "An empty folder for simulated subjects")
        if folder:
            self.simulate_into(folder)

    def simulate_into(self, folder: str | Path) -> None:
        """Simulate travelling subjects in the background and offer their table."""
        if not self.run_bar.running:
            self.run_bar.run(Job("Simulate subjects", simulate_subjects, str(folder)))

    def _suggest(self, text: str) -> None:
        if text and not self.target.text():
            self.target.setText(str(Path(text).with_name("linear-rish.safetensors")))

    def _start(self) -> Job | None:
        table, target = self.table.text().strip(), self.target.text().strip()
        if not table or not target:
            self.line.say("Choose a table of scans and where to save the model.", "warning")
            return None
        self.line.say("")
        return Job(
            "Train LinearRISH", train_model, self.kind.currentData(), table, target,
            smooth=self.smooth.value(), device=preferences.device(),
        )  # fmt: skip

    def _done(self, outcome: Outcome) -> None:
        path = outcome.result
        if path is None:
            return
        if path.suffix == ".tsv":
            self.kind.setCurrentIndex(self.kind.findData("pairs"))
            self.target.clear()
            self.table.setText(str(path))
            self.line.say(f"{SIMULATED} simulated subjects are in {path.parent}.", "ok")
        else:
            self.line.say(f"Saved {path.name}.", "ok")
            self.trained.emit(str(path))


def train_model(
    kind: str,
    table: str,
    target: str,
    smooth: float = 0.006,
    device: str = "auto",
    progress: Any = None,
) -> Path:
    """Train LinearRISH from a table of pairs or groups and save it."""
    from napari_dmri import harmonize
    from napari_dmri.training.checkpoint import require_free

    path = require_free(target)
    model = harmonize.LinearRish(smooth=smooth)
    if kind == "pairs":
        model.fit(harmonize.read_pairs(table), device=device, progress=progress)
    else:
        groups = harmonize.read_groups(table)
        model.fit_groups(groups.source, groups.target, device=device, progress=progress)
    model.save(path)
    return path


def simulate_subjects(folder: str, subjects: int = SIMULATED, progress: Any = None) -> Path:
    """Write simulated travelling subjects and return the table of pairs."""
    from napari_dmri.phantom.travelling import make_travelling

    return make_travelling(folder, subjects=subjects, size="small", truth=False, progress=progress)
