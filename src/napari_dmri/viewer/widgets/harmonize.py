"""The Harmonize dock: a scan and a trained model in, the harmonized scan out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QMessageBox,
    QPushButton,
    QSizePolicy,
)

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import (
    DIVERGING,
    LayerData,
    is_kind,
    map_layer,
    scan_layer,
    scan_of,
    to_napari,
)
from napari_dmri.viewer.orientation import bring_into_view
from napari_dmri.viewer.widgets._parts import (
    Dock,
    LayerPicker,
    beside,
    device_line,
    name_edit,
)
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import one_line
from napari_dmri.viewer.widgets.train_rish import TrainSection

__all__ = ["HarmonizeDock"]

WORST = ("error", "warning", "note", "ok")


class HarmonizeDock(Dock):
    """Harmonize a scan with a trained model, or train one.

    Parameters
    ----------
    viewer
        The napari viewer.
    """

    title = "Harmonize"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        from napari_dmri.harmonize import METHODS

        self.model: Any = None
        self.models: list[tuple[str, Any, str]] = []
        self._check: Job | None = None
        self._opening: Job | None = None
        self._at_work: Any = None
        self.scan_picker = LayerPicker(self.viewer, is_kind("scan"), "open a scan first")
        self.row("S&can", self.scan_picker, "The scan to bring to the target scanner.")
        self.scan_line = self.line()
        self.mask_row = MaskRow(self.viewer, self.scan_picker, self.scan_line)
        self.row("Mas&k", self.mask_row, "Voxels that are harmonized.")
        self.method = QComboBox()
        for name, method in METHODS.items():
            self.method.addItem(method.label, name)
            self.method.setItemData(self.method.count() - 1, method.summary, 3)
        self.row("M&ethod", self.method, "How the two scanners are made comparable.")
        self.model_choice = QComboBox()
        self.model_choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.open_model = QPushButton("open…")
        self.open_model.setToolTip("Choose a trained model file (.safetensors).")
        self.open_model.clicked.connect(self._ask_model)
        self.about = QPushButton("i")
        self.about.setToolTip("Show the model's card.")
        self.about.setMaximumWidth(28)
        self.about.clicked.connect(self._show_card)
        models = beside(self.model_choice, self.open_model, self.about)
        self.row("M&odel", models, "What was learned from scans of both sites.")
        self.model_line = self.line()
        self.train = TrainSection(self.viewer)
        self.train.trained.connect(self.load_model)
        self.body.insertWidget(1, self.train)
        self.train_dock = QPushButton("Train SHResNet or Golkov…")
        self.train_dock.setToolTip("Open the Train dock: pairs, curves, and the model for here.")
        self.train_dock.clicked.connect(self._open_train)
        self.body.insertWidget(2, self.train_dock)
        self.show_maps = QCheckBox("show the scale maps")
        self.show_maps.setChecked(True)
        self.show_maps.setToolTip("Add the factor that each SH order is multiplied by.")
        self.settings.addRow(self.show_maps)
        self.show_alignment = QCheckBox("show the alignment")
        self.show_alignment.setChecked(True)
        self.show_alignment.setToolTip("Add the model's template, warped to this scan.")
        self.settings.addRow(self.show_alignment)
        self.show_novelty = QCheckBox("show how novel voxels are")
        self.show_novelty.setChecked(True)
        self.show_novelty.setToolTip(
            "Add the map of how unlike the training voxels each voxel is; above 1 none of them was."
        )
        self.settings.addRow(self.show_novelty)
        self.result_name = name_edit()
        self.row("&Result", self.result_name, "Name of the new layer.", self.after)
        self.compare_when_done = QCheckBox("compare when done")
        self.compare_when_done.setChecked(True)
        self.compare_when_done.setToolTip("Lay out source, harmonized and difference side by side.")
        self.after.addRow(self.compare_when_done)
        self.scan_picker.layer_changed.connect(self._scan_changed)
        self.model_choice.currentIndexChanged.connect(self._model_changed)
        self.method.currentIndexChanged.connect(self._list_models)
        self._list_models()
        self._scan_changed(self.scan_picker.layer)

    @property
    def scan(self) -> Scan | None:
        """The scan chosen, with the mask chosen."""
        return self.mask_row.scan()

    def load_model(self, path: str | Path) -> bool:
        """Offer a model file and choose it; say why where it cannot be read."""
        from napari_dmri import harmonize

        try:
            model = harmonize.load(path)
        except (InputError, OSError) as error:
            self.model_line.say(str(error), "error")
            return False
        self.offer(model, Path(path).name, str(path))
        return True

    def offer(self, model: Any, name: str, tip: str = "") -> None:
        """Put a trained model on its method's list and choose it."""
        card = model.card
        label = f"{card.get('source_site', '?')} → {card.get('target_site', '?')} ({name})"
        self.models = [m for m in self.models if m[1] is not model]
        self.models.append((label, model, tip or name))
        self.method.blockSignals(True)
        self.method.setCurrentIndex(max(0, self.method.findData(card.get("method"))))
        self.method.blockSignals(False)
        self._list_models()

    def _list_models(self, *_: Any) -> None:
        """List the models of the method that is chosen, the newest one chosen."""
        name = self.method.currentData()
        self.model_choice.blockSignals(True)
        self.model_choice.clear()
        for label, model, tip in self.models:
            if model.card.get("method") == name:
                self.model_choice.addItem(label, model)
                self.model_choice.setItemData(self.model_choice.count() - 1, tip, 3)
        if not self.model_choice.count():
            self.model_choice.addItem("open or train one", None)
        self.model_choice.setCurrentIndex(self.model_choice.count() - 1)
        self.model_choice.blockSignals(False)
        linear = name == "linear-rish"
        self.show_alignment.setVisible(linear)
        self.show_novelty.setVisible(not linear)
        self._model_changed()

    def _open_train(self) -> None:
        open_dock(self.viewer, "Train")

    def _ask_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a trained model", "", "Models (*.safetensors)"
        )
        if path and not (self._opening is not None and self._opening.running):
            # The first network of a session loads torch: not in the window's thread.
            self.model_line.say(f"opening {Path(path).name} …")
            self._opening = Job("Open model", open_model, path)
            self._opening.finished.connect(self._opened)
            self._opening.start()

    def _opened(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.model_line.say(outcome.error, "error")
        elif not outcome.cancelled:
            path, model = outcome.result
            self.offer(model, path.name, str(path))

    def _scan_changed(self, layer: Any) -> None:
        self.run_bar.clear()
        scan = scan_of(layer)
        if scan is None:
            self.scan_line.say("Open a scan first: File > Open, or drop it on the window.", "note")
        else:
            self.scan_line.say(one_line(scan))
        self._judge()

    def _model_changed(self, *_: Any) -> None:
        self.model = self.model_choice.currentData()
        self._judge()

    def checked(self) -> bool:
        """Tell whether the model has been checked against the scan that is chosen."""
        return self._check is None or not self._check.running

    def _judge(self) -> None:
        """Say whether the model fits the scan, and allow Run only when it does."""
        scan = scan_of(self.scan_picker.layer)
        self.about.setEnabled(self.model is not None)
        if self.model is None:
            self.model_line.say("Open a model file, or train one below.", "note")
            self.run_bar.enable(False, "A trained model is needed.")
            return
        if scan is None:
            self.run_bar.enable(False, "A scan is needed.")
            return
        self.run_bar.enable(False, "The model is being checked against the scan.")
        self.model_line.say("checking the model against the scan …")
        # Reading b0 volumes may unpack a large file: not in the window's thread.
        self._check = Job("Check model", check_model, self.model, scan)
        self._check.finished.connect(self._judged)
        self._check.start()
        target = self.model.card.get("target_site", "target")
        name = self.scan_picker.layer.name
        self.result_name.setText(f"{name} | {target} ({self.method.currentText()})")
        voxels = int(np.prod(scan.grid))
        needed = 8.0 * voxels * (scan.shape[3] + 60)
        self.device.say(device_line(needed, 2 + voxels / 8_000))

    def _judged(self, outcome: Outcome) -> None:
        if outcome.cancelled:
            return
        if outcome.error is not None:
            self.model_line.say(outcome.error, "error")
            self.run_bar.enable(False, outcome.error)
            return
        model, scan, checks = outcome.result
        if model is not self.model or scan is not scan_of(self.scan_picker.layer):
            return
        level = next((w for w in WORST if any(c.level == w for c in checks)), "ok")
        said = [c.sentence for c in checks if c.level not in ("ok", "note")]
        told = any("demo only" in sentence for sentence in said)
        kind = "Simulated, demo only. " if model.card.get("simulated") and not told else ""
        fits = "Fits this scan: shell, order and voxel size."
        self.model_line.say(kind + ("\n".join(said) if said else fits), level)
        self.run_bar.enable(level != "error", self.model_line.sentence)

    def _show_card(self) -> None:
        if self.model is not None:
            box = QMessageBox(self)
            box.setWindowTitle("Model card")
            box.setText(card_text(self.model.card))
            box.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            box.exec()

    def make_job(self) -> Job | None:
        """Harmonize the scan that is chosen."""
        scan, self._at_work = self.scan, self.scan_picker.layer
        if scan is None or self.model is None:
            return None
        return Job("Harmonize", apply_model, self.model, scan, self.result_name.text().strip())

    def show_result(self, result: Any) -> None:
        """Add the harmonized scan, its scale maps and the alignment as new layers."""
        source, chosen = self._at_work, self.scan_picker.layer
        there = source in self.viewer.layers
        made = []
        for name, image in result.maps.items():
            wanted = self.show_alignment
            if name.startswith("scale"):
                wanted = self.show_maps
            elif name == "novelty":
                wanted = self.show_novelty
            if wanted.isChecked():
                made.append(extra_map(image, name, result.scan))
        data, kwargs, kind = scan_layer(result.scan)
        if there:
            kwargs["contrast_limits"] = tuple(source.contrast_limits)
        layer = self.add_layers([*made, (data, kwargs, kind)])[-1]
        self.scan_picker.choose(chosen)
        if result.notes:
            self.run_bar.message.say("\n".join(result.notes), "note")
        if self.compare_when_done.isChecked() and there:
            open_dock(self.viewer, "Compare").compare_now(source, layer)
        else:
            bring_into_view(self.viewer, layer)


def extra_map(image: ScalarImage, name: str, scan: Scan) -> LayerData:
    """Describe a scale map or a map of the alignment as a hidden layer."""
    named = replace(image, name=f"{scan.name} | {name}")
    _, kwargs, kind = map_layer(named, visible=False, **_look(name))
    return to_napari(shown_inside(image, scan.mask)), kwargs, kind


def shown_inside(image: ScalarImage, mask: np.ndarray | None) -> np.ndarray:
    """Return a map for showing: NaN, which napari leaves clear, outside the mask."""
    data = np.asarray(image.data, dtype=np.float32)
    return data if mask is None else np.where(mask, data, np.float32(np.nan))


def apply_model(model: Any, scan: Scan, name: str, progress: Any = None) -> Any:
    """Apply a model and name its result; a mask is made where the scan has none."""
    from napari_dmri.progress import part
    from napari_dmri.signal.mask import brain_mask

    if scan.mask is None:
        scan = scan.with_mask(brain_mask(scan, progress=part(progress, 0, 0.1, "mask: ")))
    done = model.apply_detailed(scan, progress=part(progress, 0.1, 1))
    return replace(done, scan=replace(done.scan, name=name or done.scan.name))


def check_model(model: Any, scan: Scan, progress: Any = None) -> tuple[Any, Scan, Any]:
    """Check a model's card against a scan."""
    return model, scan, model.check(scan)


def open_model(path: str, progress: Any = None) -> tuple[Path, Any]:
    """Read a trained model."""
    from napari_dmri import harmonize

    return Path(path), harmonize.load(path)


def card_text(card: dict[str, Any]) -> str:
    """Write a model's card for reading, one fact a line."""
    lines = []
    for key, value in card.items():
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            # Curves and inputs go by epoch and scan: too many to read here, and in the file.
            text = _facts(value[0]) if len(value) == 1 else f"{len(value)} entries, see the file"
        elif isinstance(value, (list, tuple)):
            text = ", ".join(map(str, value[:12])) + (" …" if len(value) > 12 else "")
        elif isinstance(value, dict):
            text = _facts(value)
        else:
            text = str(value)
        lines.append(f"{key.replace('_', ' ')}: {text}")
    return "\n".join(lines)


def _facts(values: dict[str, Any]) -> str:
    """Write the plain values of a part of a card; parts within it are counted."""
    words = []
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{k} {v}" for k, v in value.items())
            words.append(f"{key} ({inner})")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            words.append(f"{len(value)} {key}")
        else:
            words.append(f"{key} {value}")
    return ", ".join(words).replace("_", " ")


def _look(name: str) -> dict[str, Any]:
    """Show scales about 1, and scan over template in colours that add up to white."""
    if name.startswith("scale"):
        return {"colormap": DIVERGING, "contrast_limits": (0.5, 1.5)}
    if name == "novelty":
        return {"colormap": "inferno", "contrast_limits": (0.0, 2.0)}
    if name.startswith("template"):
        return {"colormap": "green", "blending": "opaque"}
    return {"colormap": "magenta", "blending": "additive"}
