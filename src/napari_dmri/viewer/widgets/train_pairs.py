"""The Train dock's table: pairs of scans, from layers or a list, each checked in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import is_kind, scan_of
from napari_dmri.viewer.widgets._parts import (
    LEVEL_COLOURS,
    LayerPicker,
    Section,
    StatusLine,
    name_edit,
)
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.train_rish import SIMULATED, simulate_subjects

__all__ = ["PairsTable"]

MARKS = {"ok": "Good", "note": "Note", "warning": "Attention", "error": "Refused"}
"""What a check comes to, for those who do not see its colour."""


@dataclass
class Row:
    """One pair of the table, and what its check said once it has been checked."""

    pair: Any
    check: Any = None


class PairsTable(QWidget):
    """Hold the pairs to train on; emits ``changed`` when a pair or its check does."""

    changed = Signal()
    loaded = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.rows: list[Row] = []
        self.order: int | None = None
        self.file: Path | None = None
        self._job: Job | None = None
        self._simulating: Job | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._build_table(column)
        self.line = StatusLine()
        column.addWidget(self.line)
        column.addWidget(self._build_adding())
        self._show()

    def _build_table(self, column: QVBoxLayout) -> None:
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["Subject", "Pair"])
        self.table.setAccessibleName("Pairs to train on")
        self.table.verticalHeader().hide()
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setTabKeyNavigation(False)
        self.table.setWordWrap(True)
        self.table.setFixedHeight(170)
        column.addWidget(self.table)
        self.load_button = QPushButton("&Load table…")
        self.load_button.setToolTip(
            "Columns subject, source, target and, if wanted, source_mask, target_mask,\n"
            "source_site, target_site, tissue; paths are relative to the table."
        )
        self.load_button.clicked.connect(self._ask_table)
        self.simulate = QPushButton("Sim&ulate…")
        self.simulate.setToolTip(
            "Write simulated people, each scanned at two simulated sites, to a new folder,\n"
            "to try training without data of your own. Models made of them are demo only."
        )
        self.simulate.clicked.connect(self._ask_simulation)
        self.remove_button = QPushButton("Re&move")
        self.remove_button.setToolTip("Take the rows that are selected out of the table.")
        self.remove_button.clicked.connect(self.remove_selected)
        self.sites = QComboBox()
        self.sites.setToolTip("The table has several source sites; a model maps one.")
        self.sites.setAccessibleName("Source site")
        self.sites.activated.connect(self._site_chosen)
        self.sites.hide()
        buttons = QHBoxLayout()
        for button in (self.load_button, self.simulate, self.remove_button):
            buttons.addWidget(button)
        column.addLayout(buttons)
        column.addWidget(self.sites)

    def _build_adding(self) -> Section:
        adding = Section("Add a pair from layers", expanded=False)
        inner = QWidget()
        form = QFormLayout(inner)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.pickers: dict[str, LayerPicker] = {}
        self.masks: dict[str, MaskRow] = {}
        for role, label in (("source", "So&urce"), ("target", "Tar&get")):
            picker = LayerPicker(self.viewer, is_kind("scan"), "open a scan first")
            mask = MaskRow(self.viewer, picker, self.line)
            picker.setToolTip(f"The scan of the {role} site.")
            form.addRow(label, picker)
            form.addRow("Mask", mask)
            self.pickers[role], self.masks[role] = picker, mask
        self.subject = name_edit()
        self.subject.setPlaceholderText("who it is")
        self.subject.setToolTip("The subject's label; each travelling subject comes once.")
        form.addRow("Su&bject", self.subject)
        self.add_button = QPushButton("&Add pair")
        self.add_button.setToolTip("Add the two scans as a pair.")
        self.add_button.clicked.connect(self.add_from_layers)
        form.addRow(self.add_button)
        adding.addWidget(inner)
        self.adding = adding
        self.pickers["source"].layer_changed.connect(self._name_subject)
        self._name_subject(self.pickers["source"].layer)
        return adding

    def let_go(self) -> None:
        """Cancel what is at work."""
        for job in (self._job, self._simulating):
            if job is not None:
                job.cancel()

    @property
    def pairs(self) -> list[Any]:
        """The pairs, in the order of the table."""
        return [row.pair for row in self.rows]

    @property
    def problem(self) -> str:
        """Why the table cannot be trained on; an empty sentence where it can."""
        if not self.rows:
            return "Add a pair first."
        if any(row.check is None for row in self.rows):
            return "The pairs are being checked."
        bad = [row.pair.subject for row in self.rows if row.check.level == "error"]
        if bad:
            return f"{', '.join(bad)} cannot be trained on: remove or mend what is marked Refused."
        return self._mixed()

    def _mixed(self) -> str:
        """Say which pairs are of which sites where there are several."""
        from napari_dmri.harmonize.plans import mixed_sites

        return mixed_sites(
            [
                (row.pair.subject, *row.check.known_sites)
                for row in self.rows
                if row.check is not None and row.check.level != "error"
            ]
        )

    def _name_subject(self, layer: Any) -> None:
        scan = scan_of(layer)
        if scan is not None:
            self.subject.setText(str(scan.metadata.get("subject") or layer.name))

    def add_from_layers(self) -> None:
        """Add the scans that are chosen as a pair."""
        from napari_dmri.harmonize.base import Pair

        source, target = (self.masks[role].scan() for role in ("source", "target"))
        if source is None or target is None:
            self.line.say("Open a scan of each site first.", "warning")
            return
        if self.pickers["source"].layer is self.pickers["target"].layer:
            self.line.say("Source and target are the same layer; choose one of each site.", "error")
            return
        subject = self.subject.text().strip()
        if not subject:
            self.line.say("Name the subject.", "warning")
            return
        self.add([Pair(source, target, subject)])

    def add(self, pairs: Sequence[Any]) -> None:
        """Add pairs, each subject once, and check them in the background."""
        known = {row.pair.subject for row in self.rows}
        for pair in pairs:
            if pair.subject in known:
                self.line.say(
                    f"{pair.subject} is in the table already; each subject comes once.", "error"
                )
                return
        self.rows += [Row(pair) for pair in pairs]
        self._show()
        self._check()

    def load(self, path: str | Path, source: str | None = None) -> bool:
        """Fill the table from a list of pairs; say why where it cannot be read."""
        from napari_dmri.harmonize.cohort import read_pairs, source_sites

        try:
            sites = source_sites(path)
            self.sites.clear()
            self.sites.addItems(sites)
            self.sites.setVisible(len(sites) > 1)
            chosen = source if source is not None else sites[0]
            self.sites.setCurrentText(chosen)
            pairs = read_pairs(path, chosen if len(sites) > 1 else None)
        except (InputError, OSError) as error:
            self.line.say(str(error), "error")
            return False
        self.file = Path(path)
        self.rows = []
        self.add(pairs)
        self.loaded.emit(self.file)
        return True

    def remove_selected(self) -> None:
        """Take the selected rows out of the table."""
        chosen = {index.row() for index in self.table.selectedIndexes()}
        self.rows = [row for n, row in enumerate(self.rows) if n not in chosen]
        self._show()

    def set_order(self, order: int | None) -> None:
        """Check the pairs for another SH order."""
        if order != self.order:
            self.order = order
            for row in self.rows:
                row.check = None
            self._show()
            self._check()

    def _check(self) -> None:
        """Check the rows that have not been, one job at a time."""
        waiting = [row.pair for row in self.rows if row.check is None]
        if not waiting or (self._job is not None and self._job.running):
            return
        self._job = Job("Check pairs", check_pairs, waiting, self.order)
        self._job.finished.connect(self._checked)
        self._job.start()

    def _checked(self, outcome: Outcome) -> None:
        if outcome.cancelled:
            return
        if outcome.error is not None:
            self.line.say(outcome.error, "error")
            return
        order, found = outcome.result
        for row in self.rows:
            for pair, check in found:
                if row.pair is pair and order == self.order:
                    row.check = check
        self._show()
        self._check()

    def _show(self) -> None:
        """Write all rows, and what they come to."""
        self.table.setRowCount(len(self.rows))
        for n, row in enumerate(self.rows):
            check = row.check
            words, level, tip = "checking …", "note", ""
            if check is not None:
                level = check.level
                words = f"{check.sites[0]} → {check.sites[1]}\n{MARKS[level]}: {check.sentence}"
                tip = "\n".join(f"{c.level}: {c.sentence}" for c in check.checks)
            for place, text in enumerate((row.pair.subject, words)):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
                item.setToolTip(tip or text)
                if place:
                    item.setForeground(QColor(LEVEL_COLOURS[level]))
                self.table.setItem(n, place, item)
        self.remove_button.setEnabled(bool(self.rows))
        self.line.say(*self._sum())
        self.changed.emit()

    def _sum(self) -> tuple[str, str]:
        """Say what the table comes to."""
        if not self.rows:
            return "Load a table of pairs, or add scans of one person at two sites.", "note"
        checks = [row.check for row in self.rows if row.check is not None]
        count = len(self.rows)
        words = f"{count} pair{'s' if count > 1 else ''}"
        if mixed := self._mixed():
            return mixed, "error"
        orders = [c.order for c in checks if c.order is not None]
        if orders:
            words += f"; SH order {min(orders) if self.order is None else self.order}"
        problem = self.problem
        if problem:
            refused = len(checks) == count and any(c.level == "error" for c in checks)
            return f"{words}. {problem}", "error" if refused else "note"
        return f"{words}.", "ok"

    def _ask_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a table of pairs", "", "Tables (*.tsv)")
        if path:
            self.load(path)

    def _site_chosen(self, *_: Any) -> None:
        if self.file is not None:
            self.load(self.file, self.sites.currentText())

    def _ask_simulation(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "An empty folder for simulated subjects")
        if folder:
            self.simulate_into(folder)

    def simulate_into(self, folder: str | Path) -> None:
        """Simulate travelling subjects in the background and load their table."""
        if self._simulating is not None and self._simulating.running:
            return
        self._simulating = Job("Simulate subjects", simulate_subjects, str(folder))
        self._simulating.progressed.connect(self._simulates)
        self._simulating.finished.connect(self._simulated)
        self.simulate.setEnabled(False)
        self._simulating.start()

    def _simulates(self, fraction: float, text: str) -> None:
        self.line.say(f"Simulating {SIMULATED} subjects: {100 * fraction:.0f} % {text}", "note")

    def _simulated(self, outcome: Outcome) -> None:
        self.simulate.setEnabled(True)
        if outcome.error is not None:
            self.line.say(outcome.error, "error")
        elif not outcome.cancelled:
            self.load(outcome.result)


def check_pairs(
    pairs: Sequence[Any], order: int | None, progress: Any = None
) -> tuple[int | None, list[tuple[Any, Any]]]:
    """Check pairs one after the other; return the order they were checked for, and the checks."""
    from napari_dmri.harmonize.pair_checks import check_pair

    found = []
    for n, pair in enumerate(pairs):
        if progress is not None:
            progress(n / len(pairs), pair.subject)
        found.append((pair, check_pair(pair, order=order)))
    return order, found
