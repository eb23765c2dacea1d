"""The part of the Harmonize dock that sets several models side by side, against a reference."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.viewer import preferences
from napari_dmri.viewer.compare_layout import CompareLayout
from napari_dmri.viewer.harmonizing import (
    Compared,
    KnownModel,
    compare_known,
    maps_of,
    save_comparison,
)
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import DIVERGING, KEY, is_kind, map_layer, scan_layer, scan_of
from napari_dmri.viewer.widgets._parts import (
    LayerPicker,
    RunBar,
    Section,
    StatusLine,
    beside,
    device_line,
)
from napari_dmri.viewer.widgets.compare_work import box_of
from napari_dmri.viewer.widgets.harmonize_scores import ScoreTable

__all__ = ["CompareModels"]

MAPS = ("FA", "MD", "RISH0", "RISH2", "RISH4", "GFA")


class CompareModels(Section):
    """Run several models on the scan of the dock, against what the target site measured.

    Parameters
    ----------
    viewer
        The napari viewer.
    dock
        The dock whose scan and models are used.
    """

    def __init__(self, viewer: Any, dock: Any) -> None:
        super().__init__("Compare methods", expanded=False)
        self.viewer, self.dock = viewer, dock
        self.compared: Compared | None = None
        self.panels: list[list[Any]] = []
        self._left_out: set[KnownModel] = set()
        self.boxes: dict[KnownModel, QCheckBox] = {}
        layout = self.layout_ = CompareLayout(viewer)
        layout.left.connect(self._left)
        self.destroyed.connect(lambda *_: layout.left.disconnect())
        self._build_input()
        self.device = StatusLine()
        self.addWidget(self.device)
        self.run_bar = RunBar("Compare")
        self.run_bar.connect_start(self._start)
        self.run_bar.finished.connect(self._done)
        self.addWidget(self.run_bar)
        self._build_result()

    def _build_input(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.reference = LayerPicker(
            self.viewer, is_kind("scan"), optional="choose the target site's scan"
        )
        self.reference.setAccessibleName("Reference")
        self.repeat = LayerPicker(self.viewer, is_kind("scan"), optional="none")
        self.repeat.setAccessibleName("Target again")
        self.map = QComboBox()
        self.map.addItems(MAPS)
        for label, widget, tip in (
            ("Re&ference", self.reference, "The same person as the target site measured them."),
            ("Target a&gain", self.repeat, "A second scan at the target site: as near as a\n"
             "method can be expected to come."),
            ("Ma&p", self.map, "What the panels show."),
        ):  # fmt: skip
            widget.setToolTip(tip)
            form.addRow(label, widget)
        self.both = QCheckBox("networks with and without projection")
        self.both.setToolTip(
            "Two rows for each network: as it maps the signal, and with the directions of the "
            "source\nand only its energies per SH order."
        )
        form.addRow(self.both)
        self.list = QVBoxLayout()
        self.list.setSpacing(1)
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addLayout(self.list)
        self.addWidget(holder)
        self.reference.layer_changed.connect(self.refresh)
        self.repeat.layer_changed.connect(self.refresh)
        self.map.activated.connect(self._map_chosen)

    def _build_result(self) -> None:
        self.table = ScoreTable()
        self.table.hide()
        self.addWidget(self.table)
        self.line = StatusLine()
        self.line.hide()
        self.addWidget(self.line)
        self.side = QPushButton("side by side")
        self.side.setCheckable(True)
        self.side.setToolTip("Show the maps in linked panels; off restores the window.")
        self.keep = QPushButton("keep scans")
        self.keep.setToolTip("Add the harmonized scans as layers.")
        self.copy = QPushButton("copy")
        self.copy.setToolTip("Copy both tables as tab-separated text.")
        self.save = QPushButton("save…")
        self.save.setToolTip("Write tables, figure and methods text into a folder.")
        self.row_ = beside(self.side, self.keep, self.copy, self.save)
        self.row_.hide()
        self.addWidget(self.row_)
        self.side.clicked.connect(self._side_clicked)
        self.keep.clicked.connect(self.keep_scans)
        self.copy.clicked.connect(self._copy)
        self.save.clicked.connect(self._ask_save)

    def let_go(self) -> None:
        """Cancel what is at work, and leave the side-by-side view."""
        if self.run_bar.running:
            self.run_bar.job.cancel()
        self.layout_.leave()

    # What is compared

    def list_models(self) -> None:
        """List the models that the dock knows, with a tick; say why one does not fit the scan."""
        scan = scan_of(self.dock.scan_picker.layer)
        while self.list.count():
            self.list.takeAt(0).widget().deleteLater()
        self.boxes = {}
        for known in self.dock.models:
            box = QCheckBox(f"{known.title}: {known.name}")
            wrong = [] if scan is None else known.check(scan)
            wrong = [c.sentence for c in wrong if c.level == "error"]
            box.setEnabled(not wrong)
            box.setToolTip("\n".join(wrong) or known.tip)
            box.setChecked(not wrong and known not in self._left_out)
            box.toggled.connect(partial(self._ticked, known))
            self.boxes[known] = box
            self.list.addWidget(box)
        self.refresh()

    def _ticked(self, known: KnownModel, on: bool) -> None:
        """Remember what is left out, also while another scan is chosen that it does not fit."""
        (self._left_out.discard if on else self._left_out.add)(known)
        self.refresh()

    @property
    def chosen(self) -> list[KnownModel]:
        """The models that are ticked and fit the scan."""
        return [k for k, box in self.boxes.items() if box.isChecked() and box.isEnabled()]

    @property
    def problem(self) -> tuple[str, str]:
        """Why nothing can be compared now, and how bad that is; empty where it can."""
        from napari_dmri.harmonize.side_by_side import require_reference

        scan, reference = (scan_of(p.layer) for p in (self.dock.scan_picker, self.reference))
        if scan is None:
            return "Open a scan first.", "note"
        if reference is None:
            return "Choose as reference what the target site measured of the same person.", "note"
        try:
            require_reference(scan, reference)
        except InputError as error:
            return str(error), "error"
        again = scan_of(self.repeat.layer)
        if again is not None and again in (scan, reference):
            return "The target's second scan is another than the scan and the reference.", "error"
        if not self.chosen:
            return "Tick a model that fits this scan; train or open one.", "note"
        return "", ""

    def refresh(self, *_: Any) -> None:
        """Say what a comparison needs, and allow it or say what is missing."""
        words, level = self.problem
        if not words:
            voxels = float(np.prod(scan_of(self.dock.scan_picker.layer).grid))
            linear = sum(k.card.get("method") == "linear-rish" for k in self.chosen)
            seconds = 3 + voxels / 12_000 + linear * voxels / 9_000
            seconds += len(self.chosen) * voxels / 40_000
            words = device_line(0.0, seconds)
        self.device.say(words, level)
        self.run_bar.enable(not level, words)

    def _start(self) -> Job | None:
        scan, reference = self.dock.scan, scan_of(self.reference.layer)
        if scan is None or reference is None or self.problem[0]:
            self.run_bar.message.say(*self.problem)
            return None
        return Job(
            "Compare methods", compare_known, scan, reference, self.chosen,
            scan_of(self.repeat.layer), self.map.currentText(), preferences.device(),
            both=self.both.isChecked(),
        )  # fmt: skip

    def _map_chosen(self, *_: Any) -> None:
        """Bring the panels up to date with the map that was chosen."""
        name = self.map.currentText()
        if self.compared is None or self.run_bar.running or name == self.compared.map_name:
            return
        device = preferences.device()
        self.run_bar.run(Job("Compare methods", maps_of, self.compared, name, device))

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is None and not outcome.cancelled:
            if isinstance(outcome.result, Compared):
                self.show_comparison(outcome.result)
            else:
                folder = outcome.result[0].parent
                names = ", ".join(path.name for path in outcome.result)
                self.run_bar.message.say(f"Wrote {names} to {folder}.", "ok")
            QTimer.singleShot(0, self._map_chosen)
        elif self.compared is not None:
            self.map.setCurrentText(self.compared.map_name)
        self.refresh()

    # What is shown

    def show_comparison(self, compared: Compared) -> None:
        """Show the table, and the maps side by side."""
        made = compared.made
        again = self.layout_.active
        if again:
            self.layout_.leave()
        self.compared = compared
        self.table.show_scores(compared.scores, compared.tests)
        self.table.show()
        words, level = self.table.legend, ""
        if made.failed:
            words += "\n" + "\n".join(f"{k} was left out: {why}" for k, why in made.failed.items())
            level = "warning"
        self.line.say(words, level)
        self.row_.show()
        self.keep.setEnabled(True)
        self.panels = [[layer] for layer in _layers(compared)]
        self.side.setEnabled(True)
        # The window has to draw between leaving one grid and entering the next.
        QTimer.singleShot(150 if again else 0, self._side_by_side)

    def _side_clicked(self, wanted: bool) -> None:
        if wanted:
            self._side_by_side()
        else:
            self.layout_.leave()

    def _side_by_side(self) -> None:
        if self.compared is None or not self.panels:
            return
        if self.viewer.canvas.grid.enabled and not self.layout_.active:
            self.side.setChecked(False)
            self.run_bar.message.say(
                "Leave the other comparison, or switch the grid off, first.", "note"
            )
            return
        self.side.setChecked(True)
        mains = [panel[0] for panel in self.panels]
        plain = [m for m in mains if not m.metadata[KEY].get("diverging")]
        box = box_of(self.compared.made.labels > 0, mains[0].scale, mains[0].translate)
        self.layout_.enter(
            self.panels,
            linked=(plain, [m for m in mains if m not in plain]),
            columns=len(self.panels) // 2,
            box=box,
        )

    def _left(self, notice: str) -> None:
        self.side.setChecked(False)
        if notice:
            self.run_bar.message.say(notice, "note")

    def keep_scans(self) -> list[Any]:
        """Add the harmonized scans as layers, each once, and return them."""
        if self.compared is None:
            return []
        self.layout_.leave()
        made, name = self.compared.made, self.compared.made.source.name
        described = []
        for one in made.models:
            data, kwargs, kind = scan_layer(one.scan, visible=False)
            described.append((data, {**kwargs, "name": f"{name} | {one.label}"}, kind))
        self.keep.setEnabled(False)
        return self.dock.add_layers(described)

    def _copy(self) -> None:
        if self.compared is not None:
            text = f"{self.compared.scores.to_tsv()}\n{self.compared.tests.to_tsv()}"
            QApplication.clipboard().setText(text)
            self.run_bar.message.say("The tables are on the clipboard.", "ok")

    def _ask_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder for the comparison")
        if folder:
            self.export(folder)

    def export(self, folder: str | Path) -> None:
        """Write tables, figure and methods text into a folder, in the background."""
        if self.compared is not None and not self.run_bar.running:
            device = preferences.device()
            job = Job("Save comparison", save_comparison, self.compared, folder, device)
            self.run_bar.run(job)


def _layers(compared: Compared) -> list[Image]:
    """Make the panels: what was measured at the left, each method above its difference."""
    panels = compared.panels()
    plain = [p for p in panels if not p.diverging]
    lacks = {p.title: p for p in panels if p.diverging}
    reference, measured, *methods = plain
    inside = compared.made.labels > 0
    values = np.concatenate([np.asarray(p.image.data)[inside] for p in plain])
    top = float(np.nanpercentile(values, 99.5)) or 1.0
    shown = [lacks[f"{p.title} − reference"] for p in methods]
    error = np.concatenate([np.abs(np.asarray(p.image.data)[inside]) for p in shown])
    reach = float(np.nanpercentile(error, 99)) or 1.0
    gray = {"colormap": "gray", "contrast_limits": (0.0, top)}
    centred = {"colormap": DIVERGING, "contrast_limits": (-reach, reach)}
    layers = [_layer(p, gray, f"{compared.map_name}: {p.title}") for p in (reference, *methods)]
    layers.append(_layer(measured, gray, f"{compared.map_name}: {measured.title}"))
    layers += [_layer(p, centred, p.title.replace("reference", "ref.")) for p in shown]
    return layers


def _layer(panel: Any, look: dict[str, Any], name: str) -> Image:
    data, kwargs, _ = map_layer(panel.image, **look)
    kwargs["name"] = name
    kwargs["metadata"][KEY] |= {"role": "panel", "diverging": panel.diverging}
    return Image(data, **kwargs)
