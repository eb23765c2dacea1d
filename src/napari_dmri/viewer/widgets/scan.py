"""The Scan dock: open a scan, see what it is and what is wrong with it, and judge it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_dmri.errors import InputError
from napari_dmri.images import TensorImage
from napari_dmri.scan import Scan
from napari_dmri.viewer import orientation, preferences
from napari_dmri.viewer.checks import CHECKS, QcResult, findings_of, run_checks
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import is_kind, rgb_layer, scan_layer, scan_of
from napari_dmri.viewer.prefetch import prefetch
from napari_dmri.viewer.widgets._parts import Dock, LayerPicker, Section, device_line
from napari_dmri.viewer.widgets.findings import FindingList
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import facts_html
from napari_dmri.viewer.widgets.scan_view import ViewControls
from napari_dmri.viewer.widgets.verdict import VerdictBox

__all__ = ["ScanDock"]

FILES = "Diffusion MRI (*.nii *.nii.gz *.mif *.mif.gz *.nrrd *.nhdr *.tck *.trk *.trx);;All (*)"


class ScanDock(Dock):
    """Open a scan, look at it, check it, and note a verdict.

    Parameters
    ----------
    napari_viewer
        The napari viewer.
    """

    title = "Scan"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Run QC")
        orientation.prepare(self.viewer)
        self._results: WeakKeyDictionary[Layer, QcResult] = WeakKeyDictionary()
        self._plots: dict[str, Any] = {}
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.timeout.connect(self._show_directions)
        self._build_input()
        self._build_checks()
        self.view = ViewControls(self.viewer)
        self.after.addRow(self.view)
        self.directions = self._section("Directions")
        self.body.insertWidget(self.body.indexOf(self.device), self.directions)
        self._build_results()
        self.scans.layer_changed.connect(self._scan_changed)
        self.scans.activated.connect(
            lambda _: orientation.bring_into_view(self.viewer, self.scans.layer)
        )
        self.mask_row.mask_changed.connect(self._estimate)
        self._scan_changed(self.scans.layer)

    def _build_input(self) -> None:
        self.path = QLineEdit()
        self.path.setPlaceholderText("type a path, or drop a file on the window")
        self.path.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.path.returnPressed.connect(lambda: self.open_path(self.path.text()))
        self.path.setAccessibleName("File")
        self.path.setToolTip(
            "NIfTI with bval and bvec beside it, MRtrix .mif, or NRRD; press Enter."
        )
        self.browse_button = QPushButton("Open…")
        self.browse_button.setToolTip("Choose a scan, map, mask or streamlines file.")
        self.browse_button.clicked.connect(self.browse)
        both = QWidget()
        row = QHBoxLayout(both)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.path, 1)
        row.addWidget(self.browse_button)
        both.setFocusProxy(self.path)
        self.row("&File", both)
        self.file_line = self.line()
        self.file_line.hide()
        self.scans = LayerPicker(self.viewer, is_kind("scan"), "none open yet")
        self.row("S&can", self.scans, "The scan to look at.")
        self.facts = QLabel()
        self.facts.setWordWrap(True)
        self.facts.setTextFormat(Qt.TextFormat.RichText)
        self.facts.setToolTip("What the file holds; SNR is estimated by Run QC.")
        self.facts.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.form.addRow(self.facts)
        self.mask_line = self.line()
        self.mask_line.hide()
        self.mask_row = MaskRow(self.viewer, self.scans, self.mask_line)
        self.form.insertRow(self.form.rowCount() - 1, "&Mask", self.mask_row)
        self.mask_row.setToolTip("Voxels that the checks use; Run QC makes one where none is set.")

    def _build_checks(self) -> None:
        self.collapsible.setText("Settings: what Run QC checks")
        self.checks = {}
        for name, (label, tip, _) in CHECKS.items():
            box = QCheckBox(label)
            box.setChecked(True)
            box.setToolTip(tip)
            box.toggled.connect(self._estimate)
            self.checks[name] = box
            self.settings.addRow(box)

    def _build_results(self) -> None:
        self.colour_button = QPushButton("Colour &FA")
        self.colour_button.setToolTip(
            "Show colour FA to check the orientation by eye: corpus callosum red, corticospinal "
            "tract blue, association fibres green. Shown inside the mask, or a new brain mask."
        )
        self.colour_button.clicked.connect(self._colour_fa)
        self.run_bar.layout().itemAt(0).layout().insertWidget(1, self.colour_button)
        self.findings = FindingList()
        self.findings.jumped.connect(self.view.jump)
        self.findings.fixed.connect(self.apply_fix)
        self.extra.addWidget(self.findings)
        self.sections = {name: self._section(name) for name in ("Outliers", "Motion")}
        for section in self.sections.values():
            self.extra.addWidget(section)
        self.verdict = VerdictBox(self._counts)
        self.extra.addWidget(self.verdict)

    def _section(self, title: str) -> Section:
        section = Section(title, expanded=True)
        section.hide()
        return section

    @property
    def scan(self) -> Scan | None:
        """The scan chosen, with the mask chosen."""
        return self.mask_row.scan()

    @property
    def result(self) -> QcResult | None:
        """What the checks found in the scan chosen, if they have run."""
        layer = self.scans.layer
        return self._results.get(layer) if layer is not None else None

    def browse(self) -> None:
        """Ask for a file and open it."""
        start = str(Path(self.path.text()).parent) if self.path.text() else ""
        path, _ = QFileDialog.getOpenFileName(self, "Open", start, FILES)
        if path:
            self.open_path(path)

    def open_path(self, path: str | Path) -> list[Layer]:
        """Open a file as layers and choose it; one sentence where it cannot be read."""
        import warnings

        from napari_dmri.errors import DmriWarning
        from napari_dmri.viewer.reader import layers_from

        text = str(path).strip().strip("'\"").removeprefix("file://")
        self.path.setText(text)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DmriWarning)
                made = layers_from(Path(text).expanduser())
        except InputError as error:
            self.file_line.say(str(error), "error")
            return []
        except OSError as error:
            self.file_line.say(f"{text} cannot be read: {error.strerror or error}.", "error")
            return []
        layers = [self.viewer.add_layer(Layer.create(*one)) for one in made]
        told = [str(w.message) for w in caught if issubclass(w.category, DmriWarning)]
        self.file_line.say("\n".join(told), "warning" if told else "")
        if scan_of(layers[0]) is not None:
            self.scans.choose(layers[0])
            orientation.bring_into_view(self.viewer, layers[0])
        return layers

    def _scan_changed(self, layer: Any) -> None:
        from napari_dmri.signal.findings import check_scan

        scan = scan_of(layer)
        self._quick = check_scan(scan) if scan is not None else ()
        self.run_bar.clear()
        self.path.setText("" if scan is None or scan.path is None else str(scan.path))
        self.view.show_scan(scan)
        self.verdict.show_scan(scan)
        self.directions.setVisible(scan is not None)
        self._late.start(0 if self._plots else 400)
        self.colour_button.setEnabled(scan is not None)
        self.mask_line.say("")
        self._reflect()
        self._estimate()

    def _reflect(self) -> None:
        """Show what is known of the scan chosen."""
        scan, result = scan_of(self.scans.layer), self.result
        self.facts.setText(facts_html(scan, result.snr if result else ()))
        found = findings_of(result) if result else ()
        self.findings.show_findings((*found, *self._quick))
        outliers = result.outliers if result else None
        motion = result.motion if result and result.motion and result.motion.judged else None
        self.sections["Outliers"].setVisible(outliers is not None)
        self.sections["Motion"].setVisible(motion is not None)
        if outliers is not None:
            self._plot("outliers", self.sections["Outliers"]).show_outliers(outliers)
        if motion is not None:
            self._plot("motion", self.sections["Motion"]).show_motion(motion)

    def _plot(self, name: str, section: Section) -> Any:
        """Return a plot, made when it is first needed (matplotlib takes half a second to load)."""
        if name not in self._plots:
            from napari_dmri.viewer.plots import DirectionPlot, MotionPlot, OutlierPlot

            kinds = {"directions": DirectionPlot, "outliers": OutlierPlot, "motion": MotionPlot}
            plot = kinds[name](self.viewer)
            plot.setToolTip("Click to show that volume.")
            plot.jumped.connect(self._jump)
            section.addWidget(plot)
            self._plots[name] = plot
            if name == "directions":
                self.viewer.scene.camera.events.orientation.connect(self._mirror)
        return self._plots[name]

    def _show_directions(self) -> None:
        """Draw the directions, and unpack the volumes, once the scan itself is on show."""
        scan = scan_of(self.scans.layer)
        if scan is not None:
            prefetch(scan)
            self._plot("directions", self.directions).show_gradients(
                scan.gradients, orientation.convention_of(self.viewer) != "neurological"
            )

    def _mirror(self, event: Any = None) -> None:
        plot = self._plots["directions"]
        mirrored = orientation.convention_of(self.viewer) != "neurological"
        if plot.mirrored != mirrored:
            plot.show_gradients(plot.gradients, mirrored)

    def _jump(self, volume: int, index: int) -> None:
        outliers = self.result.outliers if self.result else None
        self.view.jump(volume, index, outliers.axis if outliers is not None else 2)

    def _counts(self) -> tuple[int, int]:
        found = [*self._quick, *(findings_of(self.result) if self.result else ())]
        return tuple(sum(f.level == level for f in found) for level in ("error", "warning"))

    def _estimate(self, *_: Any) -> None:
        scan = scan_of(self.scans.layer)
        wanted = [name for name, box in self.checks.items() if box.isChecked()]
        if scan is None:
            self.device.say(device_line())
            self.run_bar.enable(False, "Open a scan first.")
            return
        self.device.say(device_line(6.0 * float(np.prod(scan.shape))))
        reason = "Check the scan in the background; choose the checks in Settings."
        self.run_bar.enable(bool(wanted), reason if wanted else "Choose a check in Settings.")

    def make_job(self) -> Job | None:
        """Make the job that runs the checks."""
        scan, self._at_work = self.scan, self.scans.layer
        if scan is None:
            self.run_bar.message.say("Open a scan first.", "error")
            return None
        wanted = tuple(name for name, box in self.checks.items() if box.isChecked())
        self.colour_button.setEnabled(False)
        return Job(f"QC {scan.name}", run_checks, scan, wanted, preferences.device())

    def _colour_fa(self) -> None:
        result = self.result
        if result is not None and result.tensor is not None:
            self._show_colour_fa(result.scan, result.tensor)
            return
        scan, self._at_work = self.scan, self.scans.layer
        if scan is None or self.run_bar.running:
            return
        self.run_bar.message.say("")
        self.colour_button.setEnabled(False)
        self.run_bar.run(Job(f"Colour FA {scan.name}", _fit_tensor, scan, preferences.device()))

    def _done(self, outcome: Outcome) -> None:
        self.colour_button.setEnabled(scan_of(self.scans.layer) is not None)
        super()._done(outcome)

    def show_result(self, result: QcResult | tuple[Scan, TensorImage]) -> None:
        """Show what the checks found, or add the colour FA that was asked for."""
        if isinstance(result, tuple):
            self._show_colour_fa(*result)
            return
        if self._at_work not in self.viewer.layers:
            return
        self._results[self._at_work] = result
        if result.mask_made and self.mask_row.picker.layer is None:
            chosen = self.scans.layer
            self.scans.choose(self._at_work)
            self.mask_row.add(result.mask, result.scan, {"method": "brain-mask"})
            self.scans.choose(chosen)
        self._reflect()
        errors, warnings = self._counts()
        self.run_bar.message.say(
            _tally(errors, warnings),
            "error" if errors else "warning" if warnings else "ok",
        )  # fmt: skip

    def _show_colour_fa(self, scan: Scan, tensor: TensorImage) -> None:
        data, kwargs, _ = rgb_layer(
            tensor.colour_fa, tensor.affine, f"{scan.name} | colour FA",
            provenance=tensor.provenance,
        )  # fmt: skip
        self.viewer.add_image(data, **kwargs)

    def apply_fix(self, fix: str) -> Layer | None:
        """Make a new scan layer with corrected b-vectors, and choose it."""
        from napari_dmri.provenance import provenance
        from napari_dmri.signal.orientation import fix_gradients

        scan = scan_of(self.scans.layer)
        if scan is None:
            return None
        story = provenance(
            "fix-gradients", {"fix": fix}, {"scan": scan.name, "path": str(scan.path)}
        )
        fixed = replace(
            scan,
            gradients=fix_gradients(scan.gradients, fix, scan.affine),
            name=f"{scan.name} ({fix})",
            metadata={**scan.metadata, "provenance": story},
        )
        data, kwargs, _ = scan_layer(fixed)
        layer = self.viewer.add_image(data, **kwargs)
        self.scans.choose(layer)
        orientation.bring_into_view(self.viewer, layer)
        return layer

    def stop(self) -> None:
        """Stop listening when the dock is closed."""
        super().stop()
        self._late.stop()
        self.viewer.scene.camera.events.orientation.disconnect(self._mirror)


def _fit_tensor(scan: Scan, device: str, progress: Any) -> tuple[Scan, TensorImage]:
    from napari_dmri.progress import part
    from napari_dmri.signal.mask import brain_mask
    from napari_dmri.signal.tensor import fit_tensor

    start = 0.0
    if scan.mask is None:  # noise in air has bright colours that hide the brain's
        scan, start = scan.with_mask(brain_mask(scan, progress=part(progress, 0, 0.4))), 0.4
    tensor = fit_tensor(scan, mask=scan.mask, device=device, progress=part(progress, start, 1))
    tensor.colour_fa  # noqa: B018  computed here, in the background
    return scan, tensor


def _tally(errors: int, warnings: int) -> str:
    parts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"{' and '.join(parts)}, listed below." if parts else "Nothing wrong was found."
