"""The Deconvolve dock: fibre orientation distributions of one scan, by one method or several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QComboBox, QPushButton

from napari_dmri.deconvolve.outputs import PEAK_SHARE
from napari_dmri.deconvolve.registry import METHODS, suggest_method
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.deconvolving import (
    DeconvolveOptions,
    DeconvolveResult,
    Preview,
    deconvolve_scan,
    export_deconvolution,
)
from napari_dmri.viewer.jobs import Job, Outcome, PreviewJob
from napari_dmri.viewer.layers import is_kind, scan_of
from napari_dmri.viewer.network_fit import fit_network, state_file
from napari_dmri.viewer.network_models import Known, is_network
from napari_dmri.viewer.widgets._parts import LayerPicker, StatusLine, name_edit
from napari_dmri.viewer.widgets.deconvolve_compare import CompareMethods
from napari_dmri.viewer.widgets.deconvolve_estimate import fit_words, run_words
from napari_dmri.viewer.widgets.deconvolve_fit import FitPart
from napari_dmri.viewer.widgets.deconvolve_fit_settings import FitSettings
from napari_dmri.viewer.widgets.deconvolve_method import MethodChoice, ShellChoice
from napari_dmri.viewer.widgets.deconvolve_model import ModelPart
from napari_dmri.viewer.widgets.deconvolve_response import ResponsePart
from napari_dmri.viewer.widgets.deconvolve_settings import MethodSettings, peak_share_field
from napari_dmri.viewer.widgets.deconvolve_show import (
    LiveGlyphs,
    OutputBoxes,
    SliceWatch,
    map_layers,
)
from napari_dmri.viewer.widgets.exporting import ExportingDock
from napari_dmri.viewer.widgets.fit import BASES
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import one_line

__all__ = ["DeconvolveDock"]


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
        self.slice_shown = SliceWatch(self.viewer)
        self._method_by_hand = False
        self._at_work: Any = None
        self._fitting = False
        self._made_with: dict[str, Any] = {}
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
        self.fit = FitPart(self.viewer, self.run_bar)
        self.extra.addWidget(self.fit)
        self._build_export()
        self.compare = CompareMethods(self.viewer, self)
        self.extra.addWidget(self.compare)
        self.models.changed.connect(self._estimate)
        self.fit.beside_wanted.connect(self.beside_classical)
        self.fit.begun.connect(lambda: self.ensureWidgetVisible(self.fit.curves))
        self.scans.layer_changed.connect(self._scan_changed)
        self.mask_row.mask_changed.connect(self._estimate)
        self.response.changed.connect(self._offer_methods)
        self._scan_changed(self.scans.layer)

    def _build_method(self) -> None:
        self.method = MethodChoice()
        self.row("&Method", self.method, "How fibre orientations are found.")
        self.method_line = self.line()
        self.models = ModelPart(lambda: (self.scan, self.response.responses))
        self.row("M&odel", self.models.choice, "What the network has learned, or will.")
        self.form.addRow(self.models)
        self.shell = ShellChoice()
        self.row("S&hell", self.shell, "The volumes that are deconvolved: one shell, or all.")
        boxes = OutputBoxes()
        boxes.changed.connect(self._estimate)
        self.outputs = boxes.boxes
        self.form.addRow(boxes)
        self.method.activated.connect(self._by_hand)
        self.method.currentIndexChanged.connect(self._method_changed)
        self.shell.currentIndexChanged.connect(self._estimate)

    def _build_settings(self) -> None:
        self.method_settings = MethodSettings()
        self.settings.addRow(self.method_settings)
        self.method_settings.changed.connect(self._estimate)
        self.fit_settings = FitSettings()
        self.settings.addRow(self.fit_settings)
        self.fit_settings.changed.connect(self._estimate)
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
        """Return a method's settings as they are set, with the shell or the model if it has one."""
        values = self.method_settings.values(name)
        if is_network(name):
            mode = self.fit_settings.mode.currentData() if name == self.method.method else None
            return {**values, "model": self.models.model_for(name), "mode": mode}
        if METHODS[name].shell:
            values["shell"] = self.shell.currentData()
        return values

    @property
    def options(self) -> DeconvolveOptions:
        """What is set."""
        name = self.method.method
        return DeconvolveOptions(
            method=name,
            settings={} if self.models.fitting else self.settings_of(name),
            outputs=tuple(key for key, box in self.outputs.items() if box.isChecked()),
            algorithm=self.response.algorithm,
            peak_share=self.peak_share.value(),
            make_mask=self.make_mask.isChecked(),
            slice_shown=self.slice_shown(),
            device=preferences.device(),
        )

    def _scan_changed(self, layer: Any) -> None:
        self.run_bar.clear()
        self._method_by_hand = False
        scan = scan_of(layer)
        self.slice_shown.follow(layer, scan)
        self.shell.clear()
        if scan is None:
            self.scan_line.say("Open a scan first: File > Open, or the Scan dock.", "note")
        else:
            self.scan_line.say(one_line(scan))
            self.result_name.setText(layer.name)
        self.response.scan_changed()

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
        self.method.offer(problems)
        if scan is not None and (not self._method_by_hand or problems[self.method.method]):
            self.method.choose(suggest_method(scan, self.response.responses))
        self._method_changed()

    def _method_changed(self, *_: Any) -> None:
        name = self.method.method
        method = METHODS[name]
        reason = self.problems()[name]
        if reason:
            self.method_line.say(reason, "error")
        else:
            self.method_line.say(f"{method.summary} {method.reference.rstrip('.')}.")
        self.method_settings.show_method(name)
        for part in (self.models.choice, self.models):
            self.form.setRowVisible(part, is_network(name))
        self.settings.setRowVisible(self.fit_settings, is_network(name))
        usual = METHODS[name].shell
        self.form.setRowVisible(self.shell, self.shell.offer(scan_of(self.scans.layer), usual) > 1)
        self.outputs["GM, CSF"].setEnabled("gm" in method.maps)
        self.models.show_method(name)

    def _mask_wish(self, wished: bool) -> None:
        self.response.make_mask = wished
        self._estimate()

    def forecast(self, *names: str) -> str:
        """Say where methods will run, what they need and about how long."""
        settings = {name: self.settings_of(name) for name in names}
        return run_words(self.scan, settings, self.make_mask.isChecked())

    def _estimate(self, *_: Any) -> None:
        name, scan = self.method.method, self.scan
        fitting, responses = self.models.fitting, self.response.responses
        if is_network(name):
            own, known = self.models.of(name), self.models.known
            self.fit_settings.offer(name, own, known, responses)
        self.models.judge()
        words = self.forecast(name)
        if fitting:
            how, make_mask = self.fit_settings.options, self.make_mask.isChecked()
            words = fit_words(scan, name, how, make_mask, responses)
        self.device.say(words)
        reason = self.problems()[name] or self.models.problem
        state = None
        if fitting and scan is not None:
            state = state_file(scan, name, self.fit_settings.options)
        beside = ""
        if scan is not None and self.result is not None and is_network(self.result.method):
            beside = METHODS[suggest_method(scan, responses)].label
        self.fit.steer(state, beside, self.models.known)
        if self.scans.layer is None:
            reason = "Open a scan first."
        elif not any(box.isChecked() for box in self.outputs.values()):
            reason = "Choose an output."
        self.run_bar.enable(not reason, reason)
        self.compare.offer(self.problems())

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
        self._fitting, options = self.models.fitting, self.options
        self._made_with = dict(options.settings)
        responses = self.response.responses
        if self._fitting:
            how = self.fit_settings.options
            state = state_file(scan, options.method, how)
            switch = self.fit.begin(state)
            job = PreviewJob(
                f"Fit {self.method.currentText()} to {named.name}", fit_network, named, responses,
                options, how, state, switch, self.slice_shown,
            )  # fmt: skip
        else:
            job = PreviewJob(f"Deconvolve {named.name}", deconvolve_scan, named, responses, options)
        job.previewed.connect(self._show_preview)
        return job

    def _show_preview(self, news: Any) -> None:
        """Show a slice, what responses it was made with, or what else a fit tells."""
        if not self.run_bar.running:
            return
        if not isinstance(news, Preview):
            self.fit.tell(news)
            return
        if self.scans.layer is self._at_work:
            self.response.take(news.responses)
        if news.fod is not None:
            self.live.show(news.fod, "this slice, learning" if self._fitting else "this slice")

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is not None or outcome.cancelled:
            self.live.drop()
        if self._fitting:
            self.fit.end(outcome)
            self._fitting = False
        super()._done(outcome)
        self._estimate()

    def show_result(self, result: DeconvolveResult) -> None:
        """Add the maps as layers, with the glyphs on top; say what was used and found."""
        self.result = result
        self.export_button.setEnabled(True)
        if result.model is not None:
            label = f"fitted to {result.scan.name}"
            model = Known("fitted", label, result.model.card, model=result.model)
            self.models.add(model)
            self.fit.take(model)
            self._made_with = self.settings_of(result.method)
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

    def choose_fit(self, usual: str) -> None:
        """Choose to fit a network: the method chosen where it is one, else the usual one."""
        if not is_network(self.method.method):
            self._by_hand()
            self.method.choose(usual)
        self.models.choose_fit()

    def results_at_hand(self, names: Iterable[str]) -> dict[str, DeconvolveResult]:
        """Return the last result, if running its method as it is set would give the same again."""
        made, scan = self.result, self.scan
        same = (
            made is not None
            and scan is not None
            and made.method in names
            and made.scan.data is scan.data
            and made.scan.gradients is scan.gradients
            and made.responses is self.response.responses
            and np.array_equal(made.scan.mask, scan.mask)
            and self._made_with == self.settings_of(made.method)
        )
        return {made.method: made} if made is not None and same else {}

    def beside_classical(self) -> None:
        """Show the network's fODFs and those of (MSMT-)CSD side by side."""
        network = self.result.method if self.result is not None else self.method.method
        if self.scan is None or not is_network(network) or self.models.model_for(network) is None:
            self.run_bar.message.say("Fit a network to a scan, or run one, first.", "note")
            return
        self.compare.run_these(suggest_method(self.scan, self.response.responses), network)

    def stop(self) -> None:
        """Cancel what a closed dock has at work, and stop listening to the viewer."""
        super().stop()
        self.slice_shown.let_go()

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
