"""The SH fit dock: spherical harmonics and tensor of one scan, and the maps made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.images import n_coefficients
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.fitting import (
    SH_OUTPUTS,
    TENSOR_OUTPUTS,
    FitOptions,
    FitResult,
    export_fit,
    fit_scan,
)
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import is_kind, map_layer, rgb_layer, scan_of, sh_layer
from napari_dmri.viewer.widgets._parts import (
    LayerPicker,
    StatusLine,
    device_line,
    name_edit,
)
from napari_dmri.viewer.widgets.exporting import ExportingDock
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import one_line

__all__ = ["FitDock"]

ORDERS = (2, 4, 6, 8, 10, 12)
LOOKS = {"MD": (0.0, 0.003), "AD": (0.0, 0.003), "RD": (0.0, 0.003), "FA": (0.0, 1.0)}
"""Contrast limits of maps with a physical range."""

TIPS = {
    "SH": "The spherical harmonic coefficients, one volume a coefficient.",
    "residual": "Root mean square of measured minus fitted S/b0, per voxel.",
    "RISH": "Rotation-invariant features: signal energy per SH order (RISH0, RISH2, ...).",
    "GFA": "Generalized fractional anisotropy: spread of the signal over its RMS.",
    "FA": "Fractional anisotropy, 0 to 1.",
    "MD": "Mean diffusivity (mm²/s).",
    "AD": "Axial diffusivity: along the main direction (mm²/s).",
    "RD": "Radial diffusivity: across the main direction (mm²/s).",
    "colour FA": "FA times the main direction: red right-left, green front-back, blue up-down.",
}

BASES = (
    ("MRtrix3 (tournier07)", "tournier07"),
    ("DIPY descoteaux07", "descoteaux07"),
    ("DIPY descoteaux07, legacy", "descoteaux07_legacy"),
    ("DIPY tournier07, legacy", "tournier07_legacy"),
)


class FitDock(ExportingDock):
    """Fit spherical harmonics and the tensor to a scan.

    Parameters
    ----------
    napari_viewer
        The napari viewer.
    """

    title = "SH fit"
    write_result = staticmethod(export_fit)
    nothing_yet = "Run a fit first."
    folder_title = "Folder for the SH image and the maps"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.result: FitResult | None = None
        self.scans = LayerPicker(self.viewer, is_kind("scan"), "open a scan first")
        self.row("S&can", self.scans, "The scan to fit.")
        self.scan_line = self.line()
        self.mask_row = MaskRow(self.viewer, self.scans, self.scan_line)
        self.row("&Mask", self.mask_row, "Voxels to fit.")
        self.mask_line = self.line()
        self._build_method()
        self._build_settings()
        self.result_name = name_edit()
        self.row("&Result", self.result_name, "What the new layers' names begin with.", self.after)
        self._build_export()
        self.scans.layer_changed.connect(self._scan_changed)
        self.mask_row.mask_changed.connect(self._estimate)
        self._scan_changed(self.scans.layer)

    def _build_method(self) -> None:
        self.shell = QComboBox()
        self.row("S&hell", self.shell, "The b-value whose signal is fitted by harmonics.")
        self.order = QComboBox()
        self.row("&Order", self.order, "Highest harmonic degree; auto takes what is supported.")
        self.order_line = self.line()
        self.outputs = {name: QCheckBox(name) for name in (*SH_OUTPUTS, *TENSOR_OUTPUTS)}
        grid = QGridLayout()
        grid.setContentsMargins(0, 4, 0, 4)
        grid.setVerticalSpacing(2)
        for column, (title, names) in enumerate(
            (("From harmonics", SH_OUTPUTS), ("From the tensor", TENSOR_OUTPUTS))
        ):
            grid.addWidget(QLabel(f"<i>{title}</i>"), 0, column)
            for index, name in enumerate(names):
                box = self.outputs[name]
                box.setText("SH image" if name == "SH" else box.text())
                box.setToolTip(TIPS[name])
                box.setChecked(name in FitOptions().outputs)
                box.toggled.connect(self._estimate)
                grid.addWidget(box, index + 1, column)
        self.form.addRow(grid)
        self.shell.currentIndexChanged.connect(self._shell_changed)
        self.order.currentIndexChanged.connect(self._order_changed)

    def _build_settings(self) -> None:
        self.smooth = QDoubleSpinBox()
        self.smooth.setDecimals(4)
        self.smooth.setRange(0, 1)
        self.smooth.setSingleStep(0.001)
        self.smooth.setValue(FitOptions().smooth)
        self.row(
            "Smoothin&g λ",
            self.smooth,
            "Laplace-Beltrami smoothing; 0.006 is usual, 0 is a plain least-squares fit.",
            self.settings,
        )
        self.smooth.valueChanged.connect(self._order_changed)
        self.normalise = QCheckBox("divide by b0")
        self.normalise.setChecked(True)
        self.normalise.setToolTip("Fit S/b0 rather than S.")
        self.clip = QCheckBox("clip to [0, 1]")
        self.clip.setChecked(True)
        self.clip.setToolTip("Clip S/b0 to [0, 1] before the fit; voxels clipped are counted.")
        self.normalise.toggled.connect(self.clip.setEnabled)
        pair = QWidget()
        row = QVBoxLayout(pair)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.normalise)
        row.addWidget(self.clip)
        self.row("Signal", pair, "How the signal is scaled before the fit.", self.settings)
        self.tensor = QComboBox()
        self.tensor.addItem("weighted (WLS)", "wls")
        self.tensor.addItem("ordinary (OLS)", "ols")
        self.row("&Tensor fit", self.tensor, "Weighted least squares is the better fit; ordinary "
                 "is faster.", self.settings)  # fmt: skip
        self.highest = QComboBox()
        self.row("Tensor &b up to", self.highest, "Highest b-value (s/mm²) in the tensor fit; "
                 "the tensor model fails at high b.", self.settings)  # fmt: skip

    def _build_export(self) -> None:
        self.basis = QComboBox()
        for label, name in BASES:
            self.basis.addItem(label, name)
        self.format = QComboBox()
        self.format.addItem("NIfTI (.nii.gz)", ".nii.gz")
        self.format.addItem("MRtrix (.mif)", ".mif")
        self.row("Basis on e&xport", self.basis, "The SH basis of exported files; a sidecar "
                 "names it. In memory it is always MRtrix3's.", self.settings)  # fmt: skip
        self.row("S&H file", self.format, "Format of the exported SH image; maps are NIfTI.",
                 self.settings)  # fmt: skip
        self.export_button = QPushButton("&Export…")
        self.export_button.setToolTip("Write the SH image and maps of the last fit to a folder.")
        self.export_button.setEnabled(False)
        self.export_button.clicked.connect(self._ask_export)
        self.export_line = StatusLine()
        self.export_line.hide()
        self.format.currentIndexChanged.connect(self._format_changed)
        self.glyphs_button = QPushButton("Show &glyphs")
        self.glyphs_button.setToolTip("Show the SH image of the last fit as glyphs.")
        self.glyphs_button.setEnabled(False)
        self.glyphs_button.clicked.connect(self.show_glyphs)
        self.extra.addWidget(self.glyphs_button)
        self.extra.addWidget(self.export_button)
        self.extra.addWidget(self.export_line)

    @property
    def scan(self) -> Scan | None:
        """The scan chosen, with the mask chosen."""
        return self.mask_row.scan()

    @property
    def options(self) -> FitOptions:
        """What is set."""
        return FitOptions(
            outputs=tuple(name for name, box in self.outputs.items() if box.isChecked()),
            shell=self.shell.currentData(),
            order=self.order.currentData(),
            smooth=self.smooth.value(),
            normalise=self.normalise.isChecked(),
            clip=self.clip.isChecked(),
            tensor=self.tensor.currentData(),
            max_bvalue=self.highest.currentData(),
            device=preferences.device(),
        )

    def _scan_changed(self, layer: Any) -> None:
        self.run_bar.clear()
        scan = scan_of(layer)
        for box in (self.shell, self.highest):
            box.blockSignals(True)
            box.clear()
        if scan is None:
            self.scan_line.say("Open a scan first: File > Open, or the Scan dock.", "note")
        else:
            self.scan_line.say(one_line(scan))
            self.result_name.setText(layer.name)
            self._offer_shells(scan)
        for box in (self.shell, self.highest):
            box.blockSignals(False)
        self._shell_changed()

    def _offer_shells(self, scan: Scan) -> None:
        shells = scan.gradients.weighted_shells
        self.highest.addItem("auto", None)
        for shell in shells:
            count = scan.gradients.distinct_directions(shell.indices)
            text = f"b={shell.bvalue:g}: {shell.count} volumes, {count} directions"
            self.shell.addItem(f"b={shell.bvalue:g} ({shell.count} volumes)", shell.bvalue)
            self.shell.setItemData(self.shell.count() - 1, text, Qt.ItemDataRole.ToolTipRole)
            self.highest.addItem(f"{shell.bvalue:g}", shell.bvalue + 1)
        if shells:
            self.shell.setCurrentIndex(self.shell.findData(scan.gradients.shell().bvalue))

    def _shell_changed(self, *_: Any) -> None:
        from napari_dmri.signal.sh_fit import choose_order

        before = self.order.currentData()
        self.order.blockSignals(True)
        self.order.clear()
        scan, bvalue = scan_of(self.scans.layer), self.shell.currentData()
        self._auto, self._why_not = None, ""
        if scan is not None and bvalue is not None:
            directions = scan.gradients.directions[scan.gradients.shell(bvalue).indices]
            try:
                self._auto = choose_order(directions)
            except InputError as error:
                self._why_not = str(error)
            self.order.addItem(f"auto ({self._auto})" if self._auto is not None else "auto", None)
            for order in ORDERS:
                self.order.addItem(f"{order} ({n_coefficients(order)} coefficients)", order)
            self.order.setCurrentIndex(max(0, self.order.findData(before)))
        self.order.blockSignals(False)
        self._order_changed()

    def _order_changed(self, *_: Any) -> None:
        from napari_dmri.signal.sh_fit import condition_number

        scan, bvalue = scan_of(self.scans.layer), self.shell.currentData()
        order = self.order.currentData() or self._auto
        if scan is None or bvalue is None:
            reason = "" if scan is None else "No diffusion-weighted shell: check the bval file."
            self.order_line.say(reason, "error" if reason else "")
        elif self._why_not and order is None:
            self.order_line.say(self._why_not, "error")
        else:
            indices = scan.gradients.shell(bvalue).indices
            directions = scan.gradients.directions[indices]
            distinct = scan.gradients.distinct_directions(indices)
            need, smooth = n_coefficients(order), self.smooth.value()
            plain, used = (condition_number(directions, order, s) for s in (0.0, smooth))
            words = (
                f"Order {order}: {need} coefficients from {distinct} directions; condition number "
                f"{_short(plain)}, with smoothing {_short(used)}."
            )
            fits = self._auto is not None and order <= self._auto
            if need > distinct:
                words += " Too few directions: choose a lower order."
            level = "error" if need > distinct else "ok" if fits else "warning"
            self.order_line.say(words, level)
        self._estimate()

    def _estimate(self, *_: Any) -> None:
        scan, options = scan_of(self.scans.layer), self.options
        whole = scan is not None and scan.mask is None and self.mask_row.picker.layer is None
        words = "No mask: every voxel is fitted, air too. Press make for a brain mask."
        self.mask_line.say(words if whole else "", "note" if whole else "")
        if scan is None:
            self.device.say(device_line())
            self.run_bar.enable(False, "Open a scan first.")
            return
        order = options.order or self._auto or 0
        voxels = int(scan.grid[0] * scan.grid[1] * scan.grid[2])
        needed = 4 * voxels * (n_coefficients(order) + scan.shape[3] + len(options.outputs))
        self.device.say(device_line(needed))
        self.run_bar.enable(bool(options.outputs), "" if options.outputs else "Choose an output.")

    def make_job(self) -> Job | None:
        """Make the job that fits what is set."""
        scan = self.scan
        if scan is None:
            self.run_bar.message.say("Open a scan first.", "error")
            return None
        if not self.options.outputs:
            self.run_bar.message.say("Choose at least one output.", "error")
            return None
        named = replace(scan, name=self.result_name.text().strip() or scan.name)
        return Job(f"Fit {named.name}", fit_scan, named, self.options)

    def show_result(self, result: FitResult) -> None:
        """Add the SH image and the maps as layers; the last map is shown, the others wait."""
        self.result = result
        self.export_button.setEnabled(True)
        self.glyphs_button.setEnabled(result.sh is not None)
        made = []
        if result.sh is not None and "SH" in result.outputs:
            named = replace(result.sh, name=f"{result.scan.name} | SH {result.sh.order}")
            made.append(sh_layer(named))
        for name, image in result.maps.items():
            if name == "colour FA":
                made.append(rgb_layer(image.data, image.affine, image.name,
                                      provenance=image.provenance))  # fmt: skip
            else:
                look = {"contrast_limits": LOOKS[name]} if name in LOOKS else {}
                made.append(map_layer(image, **look))
        for index, (_, kwargs, _) in enumerate(made):
            kwargs["visible"] = index == len(made) - 1
        self.add_layers(made)

    def _done(self, outcome: Outcome) -> None:
        super()._done(outcome)
        if outcome.error is None and not outcome.cancelled and not outcome.warnings:
            count = len(outcome.result.maps) + ("SH" in outcome.result.outputs)
            self.run_bar.message.say(f"{count} new layers.", "ok")

    def show_glyphs(self) -> None:
        """Add the SH image of the last fit as glyphs."""
        if self.result is not None and self.result.sh is not None:
            from napari_dmri.viewer.glyphs.show import show_glyphs

            sh = self.result.sh
            show_glyphs(self.viewer, replace(sh, name=f"{self.result.scan.name} | SH {sh.order}"))


def _short(number: float) -> str:
    return "infinite" if number > 1e8 else f"{number:.3g}"
