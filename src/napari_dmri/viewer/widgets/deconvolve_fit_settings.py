"""The settings of the Deconvolve dock that say how a network is fitted, and how it runs."""

from __future__ import annotations

import math
import re
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QStandardItemModel, QValidator
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QFormLayout, QSizePolicy, QSpinBox, QWidget

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.viewer import preferences
from napari_dmri.viewer.network_fit import WEIGHTS, FitOptions, usual_weights
from napari_dmri.viewer.network_models import Known, modes_of
from napari_dmri.viewer.widgets.deconvolve_estimate import LOSS_WORDS
from napari_dmri.viewer.widgets.deconvolve_method import choose_in

__all__ = ["FitSettings", "WeightField"]

MODES = {"paper": "paper: patch by patch", "tiled": "tiled: whole blocks"}

TISSUES: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    ("as many as b-values", None),
    ("WM", ()),
    ("WM + CSF", ("csf",)),
    ("WM + GM", ("gm",)),
    ("WM + GM + CSF", ("gm", "csf")),
)
"""What can be separated, in words and as tissues besides white matter."""

TISSUES_TIP = "What the signal is separated into: white matter, and which tissues besides it."

WEIGHT_TIPS = {
    "sparsity": "How much it counts that fODFs have few lobes; higher: fewer and sharper ones.",
    "non_negativity": "How much it counts that fODFs are nowhere negative.",
    "spatial": "How much it counts that neighbouring fODFs are alike; 0: each voxel by itself.",
}

MOST, FROM_NONE = 1e6, 1e-3
"""The largest weight, and the one that an arrow goes to from 0."""

TYPED = re.compile(r"\d*[.,]?\d*(e[+-]?\d*)?", re.IGNORECASE)


class WeightField(QDoubleSpinBox):
    """Set a weight of any magnitude, such as 2e-4 or 5; the arrows double and halve it."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(12)
        self.setRange(0.0, MOST)
        # 1e-3 is not to be taken for 1 while it is typed.
        self.setKeyboardTracking(False)

    def textFromValue(self, value: float) -> str:
        """Write a value with as many digits as it needs."""
        return f"{value:g}"

    def valueFromText(self, text: str) -> float:
        """Read what was typed."""
        return float(text.replace(",", "."))

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Allow what is a weight, or can become one."""
        state = QValidator.State.Invalid
        if TYPED.fullmatch(text):
            state = QValidator.State.Intermediate
            try:
                within = self.valueFromText(text) <= MOST
            except ValueError:
                within = False
            state = QValidator.State.Acceptable if within else state
        return state, text, position

    def stepBy(self, steps: int) -> None:
        """Double or halve the weight."""
        self.setValue(self.value() * 2.0**steps if self.value() else FROM_NONE)


class FitSettings(QWidget):
    """Set how a network is run and fitted; ``changed`` is emitted when a value changes."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.method = ""
        self._by_hand: dict[str, dict[str, float]] = {}
        self._usual: dict[str, float] = {}
        self.mode = QComboBox()
        self.size = QComboBox()
        for label, size in (("auto", None), ("small", "small"), ("as in the paper", "paper")):
            self.size.addItem(label, size)
        self.minutes = QSpinBox()
        self.minutes.setRange(0, 10_000)
        self.minutes.setSpecialValueText("no limit")
        self.minutes.setSuffix(" min")
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.start = QComboBox()
        self.seen = QSpinBox()
        self.seen.setRange(0, 999)
        self.seen.setSpecialValueText("all directions")
        self.seen.setSuffix(" directions")
        self.tissues = QComboBox()
        for label, _ in TISSUES:
            self.tissues.addItem(label)
        self.weights = {name: WeightField() for name in WEIGHTS}
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._row("Mode", self.mode, "How volumes are cut: a small patch around every voxel, or "
                  "whole tiles, which is faster. A network runs as it was trained.")  # fmt: skip
        self._row(
            "Begin from", self.start, "Random weights, or a model that is tuned to this scan."
        )
        self._row("Tissues", self.tissues, TISSUES_TIP)
        self._row("Sees", self.seen, "How many well-spread directions of the richest shell the "
                  "network sees; it learns to explain all. For scans with fewer directions than "
                  "this one.")  # fmt: skip
        self._row("Size", self.size, "Of the network that is fitted; auto goes by the device.")
        self._row("Time limit", self.minutes, "End after so many minutes with the best so far.")
        self._row("Seed", self.seed, "Of the weights and the order of patches.")
        for name, field in self.weights.items():
            self._row(LOSS_WORDS[name].capitalize(), field, WEIGHT_TIPS[name])

    def _row(self, label: str, field: Any, tip: str) -> None:
        field.setToolTip(tip)
        field.setAccessibleName(label)
        if isinstance(field, QComboBox):
            field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            field.currentIndexChanged.connect(self._changed)
        else:
            field.valueChanged.connect(self._changed)
        self.form.addRow(label, field)
        self.form.labelForField(field).setToolTip(tip)

    @property
    def options(self) -> FitOptions:
        """How a network is fitted."""
        start = self.start.currentData()
        return FitOptions(
            size=self.size.currentData() if start is None else None,
            minutes=self.minutes.value() or None,
            seed=self.seed.value(),
            start=start,
            mode=self.mode.currentData(),
            seen=self.seen.value() or None,
            others=TISSUES[self.tissues.currentIndex()][1] if start is None else None,
            weights=dict(self._by_hand.get(self.method, {})),
        )

    def offer(
        self,
        method: str,
        models: list[Known],
        known: Known | None,
        responses: ResponseSet | None,
    ) -> None:
        """Show what goes with a model, or with a fit where there is none.

        Parameters
        ----------
        method
            A network; the loss's weights are its own unless they were set by hand.
        models
            What a fit of it can begin from.
        known
            The model that is run; None fits one.
        responses
            Tissues without one are greyed; None where they are still to be estimated.
        """
        self.method = method
        modes = modes_of(method, known)
        if [self.mode.itemData(i) for i in range(self.mode.count())] != list(modes):
            self.mode.blockSignals(True)
            self.mode.clear()
            for mode in modes:
                self.mode.addItem(MODES[mode], mode)
            self.mode.blockSignals(False)
        self.mode.setEnabled(len(modes) > 1)
        before = self.start.currentData()
        self.start.blockSignals(True)
        self.start.clear()
        self.start.addItem("random weights", None)
        for one in models:
            self.start.addItem(one.label, one)
        choose_in(self.start, before)
        self.start.blockSignals(False)
        for field in (
            self.size, self.minutes, self.seed, self.seen, self.tissues, *self.weights.values()
        ):  # fmt: skip
            self.form.setRowVisible(field, known is None)
        self.form.setRowVisible(self.start, known is None and bool(models))
        if known is None:
            self._offer_tissues(responses)
            self._show_weights()

    def _offer_tissues(self, responses: ResponseSet | None) -> None:
        """Grey tissues that have no response, with the reason."""
        start = self.start.currentData()
        self.size.setEnabled(start is None)
        self.tissues.setEnabled(start is None)
        tip = TISSUES_TIP
        if start is not None:
            tip = f"Those of the model that it begins from: {_listed(start.card['tissues'])}."
        self.tissues.setToolTip(tip)
        items = self.tissues.model()
        assert isinstance(items, QStandardItemModel)
        for index, (_, others) in enumerate(TISSUES):
            missing = [t for t in others or () if responses is not None and t not in responses]
            items.item(index).setEnabled(not missing)
            reason = "Grey matter and CSF from three b-values on, b0 counted; CSF from two."
            if others is not None:
                reason = f"Separate {_listed(('wm', *others))}, whatever the shells are."
            if missing:
                reason = (
                    f"There are responses of {_listed(responses or ())} and none of "
                    f"{_listed(missing)}: estimate or open one."
                )
            self.tissues.setItemData(index, reason, Qt.ItemDataRole.ToolTipRole)
        if not items.item(self.tissues.currentIndex()).isEnabled():
            self.tissues.blockSignals(True)
            self.tissues.setCurrentIndex(0)
            self.tissues.blockSignals(False)

    def _show_weights(self) -> None:
        """Show the method's own weights, and those that were set by hand."""
        self._usual = usual_weights(self.method, self.options, preferences.device())
        by_hand = self._by_hand.get(self.method, {})
        for name, field in self.weights.items():
            value = by_hand.get(name, self._usual[name])
            # Only what differs: setting it would undo what is being typed.
            if not math.isclose(field.value(), value):
                field.blockSignals(True)
                field.setValue(value)
                field.blockSignals(False)
            field.setToolTip(f"{WEIGHT_TIPS[name]} Usually {self._usual[name]:g} here.")

    def _changed(self, *_: Any) -> None:
        held = self._by_hand.setdefault(self.method, {})
        for name, usual in self._usual.items():
            value = self.weights[name].value()
            if math.isclose(value, usual):
                held.pop(name, None)
            else:
                held[name] = value
        self.changed.emit()


def _listed(tissues: Any) -> str:
    return ", ".join(str(t).upper() for t in tissues)
