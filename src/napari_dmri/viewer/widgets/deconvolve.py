"""The Deconvolve dock: fibre orientation distributions of one scan, by one method or several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QPushButton,
)

from napari_dmri.deconvolve.outputs import PEAK_SHARE
from napari_dmri.deconvolve.registry import METHODS, suggest_method
from napari_dmri.images import n_coefficients
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.deconvolving import (
    OUTPUTS,
    DeconvolveOptions,
    DeconvolveResult,
    Preview,
    deconvolve_scan,
    export_deconvolution,
)
from napari_dmri.viewer.jobs import Job, Outcome, PreviewJob
from napari_dmri.viewer.layers import is_kind, scan_of
from napari_dmri.viewer.widgets._parts import (
    LayerPicker,
    StatusLine,
    device_line,
    name_edit,
)
from napari_dmri.viewer.widgets.deconvolve_compare import CompareMethods
from napari_dmri.viewer.widgets.deconvolve_response import ResponsePart
from napari_dmri.viewer.widgets.deconvolve_settings import MethodSettings, peak_share_field
from napari_dmri.viewer.widgets.deconvolve_show import LiveGlyphs, map_layers, slice_on_show
from napari_dmri.viewer.widgets.exporting import ExportingDock
from napari_dmri.viewer.widgets.fit import BASES
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import one_line

__all__ = ["DeconvolveDock"]

TIPS = {
    "glyphs": "The fODF of every voxel, drawn on the graphics card; the slice on show comes first.",
    "AFD": "Total apparent fibre density: the fODF's integral, in units of the response.",
    "peak count": "How many fibre directions were found in each voxel.",
    "residual": "Root mean square of measured minus predicted signal, over the mean b0.",
    "GM, CSF": "Grey matter and CSF beside white matter, where the method tells them apart.",
    "peaks": "The largest three directions of each voxel as sticks.",
}


class DeconvolveDock(ExportingDock):
    """Estimate the fibre orientations of a scan, and compare methods.

    Parameters
    ----------
    napari_viewer
        The napari viewer.
    """

    title = "Deconvolve"
    write_result = staticmethod(export_deconvolution)
    folder_title = "Folder for the fODF and the maps"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.result: DeconvolveResult | None = None
        self.live = LiveGlyphs(self.viewer)
        self._method_by_hand = False
        self._at_work: Any = None
        self._export_job: Job | None = None
        self.scans = LayerPicker(self.viewer, is_kind("scan"), "open a scan first")
        self.row("S&can", self.scans, "The scan to deconvolve.")
        self.scan_line = self.line()
        self.mask_row = MaskRow(self.viewer, self.scans, self.scan_line)
        self.row("Mas&k", self.mask_row, "Voxels to deconvolve.")
        self.response = ResponsePart(self.viewer, self.mask_row.scan)
        self.row("R&esponse", self.response.choice, "The signal of one fibre, grey matter and CSF.")
        self.form.addRow(self.response)
        self._build_method()
        self._build_settings()
        self.result_name = name_edit()
        self.row("&Result", self.result_name, "What the new layers' names begin with.", self.after)
        self._build_export()
        self.compare = CompareMethods(self.viewer, self)
        self.extra.addWidget(self.compare)
        self.scans.layer_changed.connect(self._scan_changed)
        self.mask_row.mask_changed.connect(self._estimate)
        self.response.changed.connect(self._offer_methods)
        self._scan_changed(self.scans.layer)

    def _build_method(self) -> None:
        self.method = QComboBox()
        for name, method in METHODS.items():
            self.method.addItem(method.label, name)
        self.row("&Method", self.method, "How fibre orientations are found.")
        self.method_line = self.line()
        self.shell = QComboBox()
        self.row("S&hell", self.shell, "The volumes that are deconvolved: one shell, or all.")
        self.outputs = {name: QCheckBox(name) for name in OUTPUTS}
        grid = QGridLayout()
        grid.setContentsMargins(0, 4, 0, 4)
        grid.setVerticalSpacing(2)
        for index, (name, box) in enumerate(self.outputs.items()):
            box.setToolTip(TIPS[name])
            box.setChecked(name in DeconvolveOptions().outputs)
            box.toggled.connect(self._estimate)
            grid.addWidget(box, index // 3, index % 3)
        self.form.addRow(grid)
        self.method.activated.connect(self._by_hand)
        self.method.currentIndexChanged.connect(self._method_changed)
        self.shell.currentIndexChanged.connect(self._estimate)

    def _build_settings(self) -> None:
        self.method_settings = MethodSettings()
        self.settings.addRow(self.method_settings)
        self.method_settings.changed.connect(self._estimate)
        self.peak_share = peak_share_field(PEAK_SHARE)
        self.row("&Peaks above", self.peak_share, "Peaks below this share of their voxel's largest "
                 "are not counted, drawn or exported.", self.settings)  # fmt: skip
        self.make_mask = QCheckBox("make a mask if none is chosen")
        self.make_mask.setChecked(True)
        self.make_mask.setToolTip(
            "Make a brain mask first; off: every voxel with signal is deconvolved, the air too."
        )
        self.make_mask.toggled.connect(self._mask_wish)
        self.settings.addRow(self.make_mask)

    def _build_export(self) -> None:
        self.basis = QComboBox()
        for label, name in BASES:
            self.basis.addItem(label, name)
        self.format = QComboBox()
        self.format.addItem("NIfTI (.nii.gz)", ".nii.gz")
        self.format.addItem("MRtrix (.mif)", ".mif")
        self.row("&Basis on export", self.basis, "The SH basis of the exported fODF; a sidecar "
                 "names it. In memory it is always MRtrix3's.", self.settings)  # fmt: skip
        self.row("&fODF file", self.format, "Format of exported fODF and peaks; maps are NIfTI.",
                 self.settings)  # fmt: skip
        self.format.currentIndexChanged.connect(self._format_changed)
        self.export_button = QPushButton("E&xport…")
        self.export_button.setToolTip(
            "Write fODF, peaks, maps and responses of the last run to a folder."
        )
        self.export_button.setEnabled(False)
        self.export_button.clicked.connect(self._ask_export)
        self.export_line = StatusLine()
        self.export_line.hide()
        self.extra.addWidget(self.export_button)
        self.extra.addWidget(self.export_line)

    @property
    def scan(self) -> Scan | None:
        """The scan chosen, with the mask chosen."""
        return self.mask_row.scan()

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return a method's settings as they are set, with the shell where it takes one."""
        values = self.method_settings.values(name)
        if METHODS[name].shell:
            values["shell"] = self.shell.currentData()
        return values

    @property
    def options(self) -> DeconvolveOptions:
        """What is set."""
        name, layer = self.method.currentData(), self.scans.layer
        scan = scan_of(layer)
        return DeconvolveOptions(
            method=name,
            settings=self.settings_of(name),
            outputs=tuple(key for key, box in self.outputs.items() if box.isChecked()),
            algorithm=self.response.algorithm,
            peak_share=self.peak_share.value(),
            make_mask=self.make_mask.isChecked(),
            slice_shown=None if scan is None else slice_on_show(self.viewer, layer, scan),
            device=preferences.device(),
        )

    def _scan_changed(self, layer: Any) -> None:
        self.run_bar.clear()
        self._method_by_hand = False
        scan = scan_of(layer)
        self.shell.clear()
        if scan is None:
            self.scan_line.say("Open a scan first: File > Open, or the Scan dock.", "note")
        else:
            self.scan_line.say(one_line(scan))
            self.result_name.setText(layer.name)
        self.response.scan_changed()

    def _offer_shells(self) -> None:
        """Offer the shells to the method chosen, with what it takes by itself first."""
        scan, usual = scan_of(self.scans.layer), METHODS[self.method.currentData()].shell
        before = self.shell.currentData()
        self.shell.blockSignals(True)
        self.shell.clear()
        shells = () if scan is None else scan.gradients.weighted_shells
        if shells:
            top = f"highest (b={shells[-1].bvalue:g})"
            self.shell.addItem(top if usual == "highest" else "all", None)
        for shell in shells:
            self.shell.addItem(f"b={shell.bvalue:g} ({shell.count} volumes)", shell.bvalue)
        if usual == "highest" and shells:
            self.shell.addItem("all", "all")
        self.shell.setCurrentIndex(max(0, self.shell.findData(before)))
        self.shell.blockSignals(False)
        self.form.setRowVisible(self.shell, bool(usual) and len(shells) > 1)

    def _by_hand(self, *_: Any) -> None:
        self._method_by_hand = True

    def problems(self) -> dict[str, str]:
        """Say of each method why it cannot be used on the scan; an empty sentence where it can."""
        scan = scan_of(self.scans.layer)
        if scan is None:
            return dict.fromkeys(METHODS, "")
        responses = self.response.responses
        return {name: m.problem(scan.gradients, responses) for name, m in METHODS.items()}

    def _offer_methods(self) -> None:
        """Disable what the scan or the responses do not allow, with the reason; suggest one."""
        scan, problems = scan_of(self.scans.layer), self.problems()
        for index, (name, reason) in enumerate(problems.items()):
            self.method.model().item(index).setEnabled(not reason)
            tip = reason or METHODS[name].summary
            self.method.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)
        if scan is not None and (not self._method_by_hand or problems[self.method.currentData()]):
            suggested = suggest_method(scan, self.response.responses)
            self.method.setCurrentIndex(self.method.findData(suggested))
        self.compare.offer(problems)
        self._method_changed()

    def _method_changed(self, *_: Any) -> None:
        name = self.method.currentData()
        method = METHODS[name]
        reason = self.problems()[name]
        if reason:
            self.method_line.say(reason, "error")
        else:
            self.method_line.say(f"{method.summary} {method.reference}.")
        self.method_settings.show_method(name)
        self._offer_shells()
        self.outputs["GM, CSF"].setEnabled("gm" in method.maps)
        self._estimate()

    def _mask_wish(self, wished: bool) -> None:
        self.response.make_mask = wished
        self._estimate()

    def forecast(self, *names: str) -> str:
        """Say where methods will run, what they need and about how long."""
        scan = self.scan
        if scan is None:
            return device_line()
        grid = int(scan.grid[0] * scan.grid[1] * scan.grid[2])
        share = 0.35 if self.make_mask.isChecked() else 1.0
        voxels = int(scan.mask.sum()) if scan.mask is not None else share * grid
        order = max(self.settings_of(name).get("order") or 12 for name in names)
        needed = (
            4.0 * grid * (3 * n_coefficients(order) * len(names) + 40)
            + 4.0 * voxels * (scan.shape[3])
        )
        seconds = sum(METHODS[n].forecast(voxels, self.settings_of(n)) for n in names)
        line = device_line(needed, 2 + seconds)
        return line.split(" | about")[0] if line.startswith("NVIDIA") else line

    def _estimate(self, *_: Any) -> None:
        name = self.method.currentData()
        self.device.say(self.forecast(name))
        reason = self.problems()[name]
        if self.scans.layer is None:
            reason = "Open a scan first."
        elif not any(box.isChecked() for box in self.outputs.values()):
            reason = "Choose an output."
        self.run_bar.enable(not reason, reason)
        self.compare.refresh()

    def make_job(self) -> Job | None:
        """Make the job that runs what is set."""
        scan = self.scan
        if scan is None or self.compare.run_bar.running:
            words = "Open a scan first." if scan is None else "A comparison is at work; cancel it."
            self.run_bar.message.say(words, "error")
            return None
        named = replace(scan, name=self.result_name.text().strip() or scan.name)
        self._at_work = self.scans.layer
        # What was run stays chosen, whatever its responses turn out to be.
        self._method_by_hand = True
        job = PreviewJob(
            f"Deconvolve {named.name}", deconvolve_scan, named, self.response.responses,
            self.options,
        )  # fmt: skip
        job.previewed.connect(self._show_preview)
        return job

    def _show_preview(self, preview: Preview) -> None:
        """Show the slice that came first, and what responses it was made with."""
        if self.run_bar.running and self.scans.layer is self._at_work:
            self.response.take(preview.responses)
        if self.run_bar.running:
            self.live.begin(preview.fod)

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is not None or outcome.cancelled:
            self.live.drop()
        super()._done(outcome)

    def show_result(self, result: DeconvolveResult) -> None:
        """Add the maps as layers, with the glyphs on top; say what was used and found."""
        self.result = result
        self.export_button.setEnabled(True)
        self._keep_mask(result)
        if self.scans.layer is self._at_work:
            self.response.take(result.responses)
        # Glyphs are seen best over the dark b0 that they were begun on.
        last = "" if "glyphs" in result.outputs else next(reversed(result.maps), "")
        self.add_layers(map_layers(dict(result.maps), shown=last))
        if "peaks" in result.outputs and result.peaks is not None:
            from napari_dmri.viewer.glyphs.peaks import peak_image_layer

            peaks = replace(result.peaks, name=f"{result.result.fod.name} | peaks")
            self.viewer.add_layer(peak_image_layer(peaks, visible="glyphs" not in result.outputs))
        if "glyphs" in result.outputs:
            self.live.fill(result.result.fod)
        warned = self.run_bar.message.sentence
        words = "\n".join([*([warned] if warned else []), *map(_sentence, result.notes)])
        self.run_bar.message.say(words, "warning" if warned else "ok")

    def _keep_mask(self, result: DeconvolveResult) -> None:
        """Add the mask that the run made for the scan, so that the next run uses it."""
        if self.scans.layer is not self._at_work or self.mask_row.picker.layer is not None:
            return
        if result.scan.mask is not None:
            from napari_dmri.provenance import provenance

            made = provenance("brain-mask", {}, {"scan": result.scan.name})
            self.mask_row.add(result.scan.mask, result.scan, made).visible = False


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."
