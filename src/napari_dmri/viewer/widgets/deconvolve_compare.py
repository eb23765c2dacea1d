"""The part of the Deconvolve dock that sets several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QPushButton,
    QWidget,
)

from napari_dmri.deconvolve.outputs import fibre_density
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.errors import InputError
from napari_dmri.viewer.compare_layout import CompareLayout
from napari_dmri.viewer.deconvolving import Comparison, compare_methods
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import map_layer
from napari_dmri.viewer.network_models import is_network
from napari_dmri.viewer.widgets._parts import RunBar, Section, StatusLine, beside
from napari_dmri.viewer.widgets.compare_plots import RegionTable
from napari_dmri.viewer.widgets.compare_work import box_of

__all__ = ["CompareMethods"]


class CompareMethods(Section):
    """Run several methods on the scan of the dock; show glyphs side by side and a table.

    Parameters
    ----------
    viewer
        The napari viewer.
    dock
        The dock whose scan, responses and settings are used.
    """

    def __init__(self, viewer: Any, dock: Any) -> None:
        super().__init__("Compare methods", expanded=False)
        self.viewer, self.dock = viewer, dock
        self.compared: Comparison | None = None
        self.panels: list[list[Any]] = []
        self._names: dict[Any, tuple[str, str]] = {}
        self._at_work: Any = None
        layout = self.layout_ = CompareLayout(viewer)
        layout.left.connect(self._left)
        self.destroyed.connect(lambda *_: layout.left.disconnect())
        self.boxes: dict[str, QCheckBox] = {}
        self.grid = QGridLayout()
        self.grid.setContentsMargins(0, 0, 0, 0)
        for name, method in METHODS.items():
            box = QCheckBox(method.label)
            box.setChecked(name in ("csd", "msmt-csd"))
            box.setToolTip(method.summary)
            box.toggled.connect(self.refresh)
            self.boxes[name] = box
        holder = QWidget()
        holder.setLayout(self.grid)
        self.addWidget(holder)
        self.device = StatusLine()
        self.addWidget(self.device)
        self.run_bar = RunBar("Compare")
        self.run_bar.connect_start(self._start)
        self.run_bar.finished.connect(self._done)
        self.addWidget(self.run_bar)
        self.table = RegionTable()
        self.table.setAccessibleName("Table by method")
        self.table.hide()
        self.addWidget(self.table)
        self.side = QPushButton("side by side")
        self.side.setCheckable(True)
        self.side.setToolTip("Show the methods' glyphs in linked panels; off restores the window.")
        self.copy = QPushButton("copy")
        self.copy.setToolTip("Copy the table as tab-separated text.")
        self.save = QPushButton("save…")
        self.save.setToolTip("Save the table as TSV.")
        self.row_ = beside(self.side, self.copy, self.save)
        self.row_.hide()
        self.addWidget(self.row_)
        self.line = StatusLine()
        self.line.hide()
        self.addWidget(self.line)
        self.side.clicked.connect(self._side_clicked)
        self.copy.clicked.connect(self._copy)
        self.save.clicked.connect(self._ask_save)

    def let_go(self) -> None:
        """Leave the side-by-side view."""
        self.layout_.leave()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods that are ticked and can be used."""
        return tuple(n for n, box in self.boxes.items() if box.isChecked() and box.isEnabled())

    def offer(self, problems: Mapping[str, str]) -> None:
        """Disable methods that the scan or the responses do not allow, with the reason.

        Networks are there once they have a model.
        """
        offered = [
            n for n in problems if not is_network(n) or self.dock.models.model_for(n) is not None
        ]
        for name, box in self.boxes.items():
            reason = problems.get(name, "")
            box.setEnabled(not reason and name in offered)
            box.setToolTip(reason or METHODS[name].summary)
            box.setVisible(name in offered)
        for index, name in enumerate(offered):
            self.grid.addWidget(self.boxes[name], index // 2, index % 2)
        self.refresh()

    def run_these(self, *names: str) -> None:
        """Tick these methods only, and compare them."""
        if self.run_bar.running:
            return
        for name, box in self.boxes.items():
            box.setChecked(name in names)
        self.expand()
        if self.run_bar.button.isEnabled():
            self.run_bar.button.click()

    def refresh(self, *_: Any) -> None:
        """Say what a comparison would need, and allow it or say what is missing."""
        enough = len(self.chosen) > 1
        reason = "" if enough else "Tick at least two methods."
        if self.dock.scans.layer is None:
            reason = "Open a scan first."
        self.device.say(self.dock.forecast(*self.chosen) if enough else reason)
        self.run_bar.enable(not reason, reason)

    def _start(self) -> Job | None:
        scan = self.dock.scan
        if scan is None or self.dock.run_bar.running:
            words = "Open a scan first." if scan is None else "A run is at work; cancel it first."
            self.run_bar.message.say(words, "error")
            return None
        self._at_work = self.dock.scans.layer
        name = self.dock.result_name.text().strip() or scan.name
        methods = {name_: self.dock.settings_of(name_) for name_ in self.chosen}
        return Job(
            "Compare methods", compare_methods, replace(scan, name=name),
            self.dock.response.responses, methods, self.dock.options,
            self.dock.results_at_hand(methods),
        )  # fmt: skip

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is None and not outcome.cancelled:
            self.show_comparison(outcome.result)

    def show_comparison(self, compared: Comparison) -> None:
        """Show the table, and the methods' glyphs side by side."""
        again = self.layout_.active
        if again:
            self.layout_.leave()
        self.compared = compared
        if self.dock.scans.layer is self._at_work:
            self.dock.response.take(compared.responses)
        self.table.show_table(compared.table)
        self.table.setToolTip("\n".join(compared.table.notes))
        self.table.show()
        self.row_.show()
        self.panels = _panels(compared)
        self._names = {
            panel[0]: (run.label, f"{run.result.fod.name} | AFD")
            for panel, run in zip(self.panels, compared.runs, strict=True)
        }
        for layer in (layer for panel in self.panels for layer in panel):
            layer.visible = False
            self.viewer.add_layer(layer)
        self.side.setEnabled(True)
        # The window has to draw between leaving one grid and entering the next.
        QTimer.singleShot(150 if again else 0, self._side_by_side)

    def _side_clicked(self, wanted: bool) -> None:
        if wanted:
            self._side_by_side()
        else:
            self.layout_.leave()

    def _side_by_side(self) -> None:
        if not self.panels or (self.viewer.canvas.grid.enabled and not self.layout_.active):
            self.side.setChecked(False)
            self.line.say("Leave the other comparison, or switch the grid off, first.", "note")
            return
        self.side.setChecked(True)
        mask = self.compared.scan.mask if self.compared is not None else None
        maps = [panel[0] for panel in self.panels]
        box = None if mask is None else box_of(mask, maps[0].scale, maps[0].translate)
        # Narrow panels have room for the method's name only.
        for layer in maps:
            layer.name = self._names[layer][0]
        self.layout_.enter(self.panels, linked=(maps,), crosshair=False, box=box)

    def _left(self, notice: str) -> None:
        self.side.setChecked(False)
        for panel in self.panels:
            panel[0].name = self._names[panel[0]][1]
        self.panels = [p for p in self.panels if all(x in self.viewer.layers for x in p)]
        self.side.setEnabled(len(self.panels) > 1)
        if notice:
            self.line.say(notice, "note")

    def _copy(self) -> None:
        if self.compared is not None:
            QApplication.clipboard().setText(self.compared.table.to_tsv())
            self.line.say("The table is on the clipboard.", "ok")

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "methods.tsv", "TSV (*.tsv)")
        if path:
            self.save_table(path)

    def save_table(self, path: str | Path) -> None:
        """Write the table as TSV; say where, or why not."""
        from napari_dmri.io.atomic import write_text

        assert self.compared is not None
        try:
            write_text(Path(path), self.compared.table.to_tsv())
        except (InputError, OSError) as error:
            self.line.say(str(error), "error")
        else:
            self.line.say(f"Wrote {Path(path).name}.", "ok")


def _panels(compared: Comparison) -> list[list[Any]]:
    """Make a panel a method: its fibre density with its glyphs on top."""
    from napari_dmri.viewer.glyphs.peaks import peaks_layer
    from napari_dmri.viewer.glyphs.show import glyph_layer

    panels = []
    densities = [fibre_density(run.result.fod) for run in compared.runs]
    described = [map_layer(density) for density in densities]
    # Dim, as glyphs are drawn over it, and alike in all panels.
    top = 3 * max(kwargs["contrast_limits"][1] for _, kwargs, _ in described)
    for run, (data, kwargs, _) in zip(compared.runs, described, strict=True):
        fod = run.result.fod
        try:
            glyphs = glyph_layer(fod)
        except InputError:
            glyphs = peaks_layer(fod)
        panels.append([Image(data, **{**kwargs, "contrast_limits": (0.0, top)}), glyphs])
    return panels
