"""The Compare dock: two scans or maps side by side, how they differ, and the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QPushButton, QSizePolicy, QWidget

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.viewer import orientation, preferences
from napari_dmri.viewer.compare_layout import CompareLayout
from napari_dmri.viewer.compare_parts import show_in, single_shot
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import DIVERGING, KEY, labels_layer, map_layer
from napari_dmri.viewer.widgets import compare_work as work
from napari_dmri.viewer.widgets._parts import StatusLine, beside, device_line
from napari_dmri.viewer.widgets.compare_form import (
    EMPTY,
    EXPORTS,
    ROWS,
    CompareForm,
    image_of,
    label_names,
    labels_of,
)
from napari_dmri.viewer.widgets.compare_plots import Numbers

__all__ = ["CompareDock"]


class CompareDock(CompareForm):
    """Compare two scans or maps, with an optional reference.

    ``compare_now`` does in one call what a user does with the fields and Run.
    """

    title = "Compare"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.layout_ = CompareLayout(self.viewer)
        self.layout_.left.connect(self._left)
        self.layout_.blinked.connect(lambda on: self.blink.setChecked(on))
        self.layout_.noticed.connect(lambda text: self.run_bar.message.say(text, "note"))
        self.compared: work.Compared | None = None
        self.table: Any = None
        self._cache: Any = None
        self._again = False
        self._table_busy = self._table_stale = False
        self._watched: Any = None
        self._laid_out = ("", True)
        orientation.prepare(self.viewer)
        self._build_below()
        self._auto = single_shot(150, self._rerun)
        self._painted = single_shot(300, self._tabulate)
        self.paint.clicked.connect(self._new_labels)
        self.labels.layer_changed.connect(self._labels_changed)
        self.wished.connect(self._wish)
        self.arranged.connect(self._wish_layout)
        self.viewer.layers.events.inserted.connect(self.default_choice)
        self.default_choice()
        self.understand()

    def _build_below(self) -> None:
        self.device.say(device_line())
        self.blink = QPushButton("Blink A / B")
        self.blink.setCheckable(True)
        self.blink.setToolTip("Alternate A and B in the whole canvas (key B in the canvas).")
        self.leave = QPushButton("Leave")
        self.leave.setToolTip("Put the viewer back exactly as it was.")
        self.numbers = Numbers(self.viewer)
        self.export_line = StatusLine()
        self.export_line.hide()
        self.buttons: dict[str, QPushButton] = {}
        for what, tip in EXPORTS.items():
            button = QPushButton(what.capitalize())
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, w=what: self._ask_export(w))
            self.buttons[what] = button
        self.copy = QPushButton("Copy methods")
        self.copy.setToolTip("Copy what was done, with parameters, versions and citations.")
        self.export_row = QWidget()
        rows = QHBoxLayout(self.export_row)
        rows.setContentsMargins(0, 0, 0, 0)
        for button in self.buttons.values():
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            rows.addWidget(button, len(button.text()))
        self.extra.addWidget(beside(self.blink, self.leave))
        self.extra.addWidget(self.numbers)
        self.extra.addWidget(self.export_row)
        self.extra.addWidget(self.copy)
        self.extra.addWidget(self.export_line)
        self.blink.clicked.connect(self._blink)
        self.leave.clicked.connect(self.leave_comparison)
        self.copy.clicked.connect(self._copy_methods)
        self._show_state()

    # Running

    def compare_now(
        self, a_layer: Any, b_layer: Any, reference: Any = None, map_name: str = "FA"
    ) -> None:
        """Compare two layers at once, as if they had been chosen and Run pressed."""
        self._chosen = True
        self.layout_.leave()
        self.a.choose(a_layer)
        self.b.choose(b_layer)
        self.reference.choose(reference)
        self.map.setCurrentText(map_name)
        if self.run_bar.running:
            self._again = True
        elif self.run_bar.button.isEnabled():
            self.run_bar.button.click()

    def make_job(self) -> Job | None:
        """Make the job that computes the comparison."""
        choice = self.choice()
        if choice is None:
            self.run_bar.message.say(EMPTY, "note")
            return None
        if self._cache is None:
            from napari_dmri.compare.maps import MapCache

            self._cache = MapCache()
        self._chosen, self._again = True, False
        return Job("Compare", work.compute, choice, self._cache, preferences.device())

    def _wish(self, *_: Any) -> None:
        """Bring an open comparison up to date with the fields."""
        if self.layout_.active:
            self._auto.start()

    def _wish_layout(self, *_: Any) -> None:
        if self.layout_.active and self.compared is not None:
            self._lay_out(self.compared)

    def _rerun(self) -> None:
        if not self.layout_.active:
            return
        if self.run_bar.running:
            self._again = True
        elif self.run_bar.button.isEnabled():
            job = self.make_job()
            if job is not None:
                self.run_bar.message.say("")
                self.run_bar.run(job)

    def _done(self, outcome: Outcome) -> None:
        super()._done(outcome)
        self.understand()
        if self._again and not outcome.cancelled:
            self._again = False
            job = self.make_job()
            if job is not None:
                self.run_bar.run(job)

    def show_result(self, result: Any) -> None:
        """Lay out the panels and show the numbers; or say what an export wrote."""
        if not isinstance(result, work.Compared):
            folder = result[0].parent
            names = ", ".join(path.name for path in result[:4])
            more = f" and {len(result) - 4} more" if len(result) > 4 else ""
            self.export_line.say(f"Wrote {names}{more} to {folder}.", "ok")
            return
        self.compared = result
        self.export_line.say("")
        self._lay_out(result)
        self._tabulate()

    def _lay_out(self, compared: work.Compared) -> None:
        described = [self._describe(panel, compared) for panel in compared.panels]
        mains = [panel[0] for panel in self.layout_.panels]
        wish = (self.rows.currentText(), self.crosshair.isChecked())
        in_place = (
            wish == self._laid_out
            and len(mains) == len(described)
            and all(m.data.shape == d[0].shape for m, d in zip(mains, described, strict=True))
        )
        if in_place:
            for layer, (data, look) in zip(mains, described, strict=True):
                show_in(layer, data, look)
            self.layout_.fit(keep_view=True)
            self.viewer.update_status_from_cursor()
        else:
            layers = [Image(data, **look) for data, look in described]
            plain = [x for x, p in zip(layers, compared.panels, strict=True) if not p.diverging]
            centred = [x for x in layers if x not in plain]
            self.layout_.enter(
                [[layer] for layer in layers],
                linked=(plain, centred),
                columns=self._columns(len(layers)),
                crosshair=self.crosshair.isChecked(),
                box=work.box_of(compared.mask, layers[0].scale, layers[0].translate),
            )
            self._laid_out = wish
            if self.labels.layer is not None:
                self.layout_.show_on_first(self.labels.layer)
        self._show_state()

    def _columns(self, count: int) -> int:
        wanted = ROWS[self.rows.currentText()]
        return -(-count // 2) if wanted < 0 else min(wanted, count)

    def _describe(self, panel: Any, compared: work.Compared) -> tuple[Any, dict[str, Any]]:
        if panel.diverging:
            limits = work.difference_limits(compared)[panel.centre]
            look = {"colormap": DIVERGING, "contrast_limits": limits}
        else:
            look = {"colormap": "gray", "contrast_limits": work.image_limits(compared)}
        data, kwargs, _ = map_layer(panel.image, **look)
        if panel.image.units:
            kwargs["name"] = f"{panel.image.name} ({panel.image.units})"
        kwargs["metadata"][KEY]["role"] = "panel"
        return data, kwargs

    # Regions

    def _labels_changed(self, layer: Any) -> None:
        if self._watched is not None:
            for event in self._paint_events(self._watched):
                event.disconnect(self._stroke)
        self._watched = layer
        if layer is not None:
            for event in self._paint_events(layer):
                event.connect(self._stroke)
        if self.layout_.active:
            self.layout_.show_on_first(layer)
            self._tabulate()

    @staticmethod
    def _paint_events(layer: Any) -> list[Any]:
        return [layer.events.paint, layer.events.data, layer.events.labels_update]

    def _stroke(self, event: Any = None) -> None:
        if self.layout_.active:
            self._painted.start()

    def _new_labels(self) -> None:
        first = self.compared.comparison.a if self.compared is not None else image_of(self.a.layer)
        if first is None:
            return
        empty = ScalarImage(np.zeros(first.shape[:3], np.uint8), first.affine, "regions")
        data, kwargs, _ = labels_layer(empty)
        layer = self.viewer.add_labels(data, **kwargs)
        self.labels.choose(layer)
        self.viewer.layers.selection.active = layer
        layer.brush_size, layer.mode = 3, "paint"

    def painted_labels(self) -> np.ndarray | None:
        """Return the chosen labels (X, Y, Z) as they are now; None: by tissue.

        Raises
        ------
        InputError
            If they are on another grid.
        """
        layer = self.labels.layer
        if layer is None or self.compared is None:
            return None
        return labels_of(layer, self.compared.comparison.a, self.viewer.dims.current_step)

    def _tabulate(self) -> None:
        """Compute the table beside the window; the latest state wins."""
        if self.compared is None or not self.layout_.active:
            return
        if self._table_busy:
            self._table_stale = True
            return
        try:
            labels = self.painted_labels()
        except InputError as error:
            self.run_bar.message.say(str(error), "error")
            return
        self._table_busy, self._table_stale = True, False
        names = label_names(self.labels.layer)
        worker = create_worker(work.table_and_mask, self.compared, labels, names)
        worker.returned.connect(self._tabulated)
        worker.errored.connect(self._table_failed)
        worker.start()

    def _tabulated(self, result: Any) -> None:
        self._table_busy = False
        compared, table, mask, error = result
        if compared is self.compared and self.layout_.active:
            if error:
                self.run_bar.message.say(error, "note")
            else:
                if self.run_bar.message.level == "note":
                    self.run_bar.message.say("")
                self.table = table
                self.numbers.show_numbers(compared, table, mask)
        if self._table_stale:
            self._tabulate()

    def _table_failed(self, error: Exception) -> None:
        self._table_busy = False

    # Blink, leave, export

    def _blink(self) -> None:
        if self.blink.isChecked():
            self.layout_.start_blink(interval=self.interval.value())
        else:
            self.layout_.stop_blink()

    def leave_comparison(self) -> None:
        """Put the viewer back, keeping the maps as hidden layers where that is wished."""
        kept = [panel[0] for panel in self.layout_.panels] if self.keep.isChecked() else []
        for layer in kept:
            layer.metadata[KEY].pop("role", None)
        self.layout_.leave(keep=kept)

    def _left(self, notice: str) -> None:
        self.numbers.hide()
        if notice:
            self.run_bar.message.say(notice, "note")
        for picker in (self.a, self.b, self.reference):
            picker.refresh()
        self._show_state()

    def _show_state(self) -> None:
        active = self.layout_.active
        for widget in (self.blink, self.leave, self.export_row, self.copy):
            widget.setVisible(active)
        self.blink.setChecked(self.layout_.blinking is not None)

    def _copy_methods(self) -> None:
        if self.compared is not None:
            QApplication.clipboard().setText(work.methods_of(self.compared))
            self.export_line.say("The methods text is on the clipboard.", "ok")

    def _ask_export(self, what: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, f"Folder for {what}")
        if folder:
            self.export(folder, what)

    def export(self, folder: str | Path, what: str = "everything") -> None:
        """Write the figure, table, methods or everything into a folder, in the background."""
        if self.compared is None or self.run_bar.running:
            return
        try:
            labels = self.painted_labels()
        except InputError as error:
            self.export_line.say(str(error), "error")
            return
        self.run_bar.run(
            Job(
                "Export",
                work.save,
                self.compared,
                folder,
                what,
                labels=labels,
                label_names=label_names(self.labels.layer),
                position=self._voxel(),
            )
        )

    def _voxel(self) -> tuple[int, int, int] | None:
        """Return the voxel (i, j, k) that the sliders are at, if it is inside the grid."""
        if not self.layout_.active:
            return None
        main = self.layout_.panels[0][0]
        point = np.array(self.layout_.focus())[-3:]
        voxel = np.round((point - main.translate[-3:]) / main.scale[-3:]).astype(int)
        inside = (voxel >= 0).all() and (voxel < main.data.shape[-3:]).all()
        i, j, k = (int(n) for n in voxel[::-1])
        return (i, j, k) if inside else None

    def stop(self) -> None:
        """Leave the comparison when the dock is closed."""
        self.layout_.leave()
        super().stop()
        for timer in (self._auto, self._painted):
            timer.stop()
        self.viewer.layers.events.inserted.disconnect(self.default_choice)
