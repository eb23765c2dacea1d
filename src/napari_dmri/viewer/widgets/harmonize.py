"""The Harmonize dock: a scan and a trained model in, the harmonized scan out."""

from __future__ import annotations

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
from napari_dmri.scan import Scan
from napari_dmri.viewer import preferences
from napari_dmri.viewer.harmonizing import (
    KnownModel,
    apply_model,
    card_text,
    extra_map,
    open_model,
    shipped,
)
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import is_kind, scan_layer, scan_of
from napari_dmri.viewer.orientation import bring_into_view
from napari_dmri.viewer.widgets._parts import (
    Dock,
    LayerPicker,
    beside,
    device_line,
    name_edit,
)
from napari_dmri.viewer.widgets.harmonize_compare import CompareModels
from napari_dmri.viewer.widgets.mask_row import MaskRow
from napari_dmri.viewer.widgets.scan_facts import one_line
from napari_dmri.viewer.widgets.train_rish import TrainSection

__all__ = ["HarmonizeDock"]

WORST = ("error", "warning", "note", "ok")
NONE = "choose, open or train one"


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

        self.known: KnownModel | None = None
        self.models = shipped()
        self._picked = False
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
            "Add the map of how unlike the training subjects' brain voxels each voxel is (above 1: "
            "one in 100\nof them was), and that of where the result keeps the source, as its "
            "signal is not like theirs."
        )
        self.settings.addRow(self.show_novelty)
        self.projection = QCheckBox("keep the source's directions (projection)")
        self.projection.setToolTip(
            "Take only the energy of each SH order from the network, and the directions from the "
            "source.\nThe model's card says how it was meant to be used."
        )
        self.settings.addRow(self.projection)
        self.result_name = name_edit()
        self.row("&Result", self.result_name, "Name of the new layer.", self.after)
        self.compare_when_done = QCheckBox("compare when done")
        self.compare_when_done.setChecked(True)
        self.compare_when_done.setToolTip("Lay out source, harmonized and difference side by side.")
        self.after.addRow(self.compare_when_done)
        self.compare = CompareModels(self.viewer, self)
        self.extra.addWidget(self.compare)
        self.scan_picker.layer_changed.connect(self._scan_changed)
        self.model_choice.currentIndexChanged.connect(self._model_changed)
        self.model_choice.activated.connect(self._pick)
        self.method.currentIndexChanged.connect(self._list_models)
        self._list_models()
        self._scan_changed(self.scan_picker.layer)

    @property
    def scan(self) -> Scan | None:
        """The scan chosen, with the mask chosen."""
        return self.mask_row.scan()

    @property
    def model(self) -> Any:
        """The model that is chosen, read from its file the first time; None where none is."""
        return None if self.known is None else self.known.load()

    def load_model(self, path: str | Path) -> bool:
        """Offer a model file and choose it; say why where it cannot be read."""
        try:
            self._offer(open_model(path))
        except (InputError, OSError) as error:
            self.model_line.say(str(error), "error")
            return False
        return True

    def offer(self, model: Any, name: str, tip: str = "") -> None:
        """Put a trained model on its method's list and choose it."""
        self._offer(KnownModel(name, model.card, tip or name, model=model))

    def _offer(self, known: KnownModel) -> None:
        self.models = [m for m in self.models if m.model is None or m.model is not known.model]
        self.models.append(known)
        self.method.blockSignals(True)
        self.method.setCurrentIndex(max(0, self.method.findData(known.card.get("method"))))
        self.method.blockSignals(False)
        self._picked = False
        self._list_models()
        self.compare.list_models()

    def choose_model(self, name: str) -> bool:
        """Choose a model by its name, of whichever method; tell whether there is one."""
        known = next((m for m in self.models if m.name == name), None)
        if known is None:
            return False
        self.method.setCurrentIndex(self.method.findData(known.card.get("method")))
        self._pick()
        self.model_choice.setCurrentIndex(self.model_choice.findData(known))
        return True

    def _pick(self, *_: Any) -> None:
        self._picked = True

    def _list_models(self, *_: Any) -> None:
        """List the models of the method that is chosen, with the one that suits the scan."""
        name = self.method.currentData()
        self.model_choice.blockSignals(True)
        self.model_choice.clear()
        self.model_choice.addItem(NONE, None)
        for known in self.models:
            if known.card.get("method") == name:
                self.model_choice.addItem(known.label, known)
                self.model_choice.setItemData(self.model_choice.count() - 1, known.tip, 3)
        self._picked = False
        self.model_choice.setCurrentIndex(self._suitable())
        self.model_choice.blockSignals(False)
        linear = name == "linear-rish"
        self.show_alignment.setVisible(linear)
        self.show_novelty.setVisible(not linear)
        self.projection.setVisible(not linear)
        self._model_changed()

    def _suitable(self) -> int:
        """Return which model to suggest: one's own newest; the package's for simulated scans."""
        listed = [self.model_choice.itemData(n) for n in range(1, self.model_choice.count())]
        own = [n for n, known in enumerate(listed, 1) if not known.shipped]
        if own:
            return own[-1]
        scan = scan_of(self.scan_picker.layer)
        return 1 if listed and scan is not None and scan.simulated else 0

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
            self._offer(outcome.result)

    def _scan_changed(self, layer: Any) -> None:
        self.run_bar.clear()
        scan = scan_of(layer)
        if scan is None:
            self.scan_line.say("Open a scan first: File > Open, or drop it on the window.", "note")
        else:
            self.scan_line.say(one_line(scan))
        if not self._picked:
            self.model_choice.setCurrentIndex(self._suitable())
        self._judge()
        self.compare.list_models()

    def _model_changed(self, *_: Any) -> None:
        self.known = self.model_choice.currentData()
        known = self.known
        self.model_choice.setToolTip("" if known is None else f"{known.label}\n{known.tip}")
        if known is not None:
            self.projection.setChecked(bool(known.card.get("projection")))
        self._judge()

    def _judge(self) -> None:
        """Say whether the model fits the scan, and allow Run only when it does."""
        scan = scan_of(self.scan_picker.layer)
        self.about.setEnabled(self.known is not None)
        if self.known is None:
            words = "Open a model file, or train one below."
            if self.model_choice.count() > 1:
                words += " Those listed come with the package and are for simulated scans."
            self.model_line.say(words, "note")
            self.result_name.clear()
            self.device.say(device_line())
            self.run_bar.enable(False, "A trained model is needed.")
            return
        if scan is None:
            self.model_line.say("Open a scan to see whether the model fits.", "note")
            self.result_name.clear()
            self.device.say(device_line())
            self.run_bar.enable(False, "A scan is needed.")
            return
        checks = self.known.check(scan)
        level = next((w for w in WORST if any(c.level == w for c in checks)), "ok")
        said = [c.sentence for c in checks if c.level not in ("ok", "note")]
        told = any("demo only" in sentence for sentence in said)
        kind = "Simulated, demo only. " if self.known.card.get("simulated") and not told else ""
        fits = "Fits this scan: shell, order and voxel size."
        self.model_line.say(kind + ("\n".join(said) if said else fits), level)
        self.run_bar.enable(level != "error", self.model_line.sentence)
        target = self.known.card.get("target_site", "target")
        name = self.scan_picker.layer.name
        self.result_name.setText(f"{name} | {target} ({self.method.currentText()})")
        voxels = int(np.prod(scan.grid))
        needed = 8.0 * voxels * (scan.shape[3] + 60)
        self.device.say(device_line(needed, 2 + voxels / 8_000))

    def _show_card(self) -> None:
        if self.known is not None:
            box = QMessageBox(self)
            box.setWindowTitle("Model card")
            box.setText(card_text(self.known.card))
            box.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            box.exec()

    def make_job(self) -> Job | None:
        """Harmonize the scan that is chosen."""
        scan, self._at_work = self.scan, self.scan_picker.layer
        if scan is None or self.known is None:
            return None
        name = self.result_name.text().strip()
        projection = self.projection.isChecked() if "projection" in self.known.card else None
        return Job(
            "Harmonize", apply_model, self.known, scan, name, preferences.device(),
            projection=projection,
        )  # fmt: skip

    def show_result(self, result: Any) -> None:
        """Add the harmonized scan, its scale maps and the alignment as new layers."""
        source, chosen = self._at_work, self.scan_picker.layer
        there = source in self.viewer.layers
        made = []
        for name, image in result.maps.items():
            wanted = self.show_alignment
            if name.startswith("scale"):
                wanted = self.show_maps
            elif name in ("novelty", "source kept"):
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
