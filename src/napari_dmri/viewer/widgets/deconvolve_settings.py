"""Fields for a method's settings, made from the list that describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_dmri.deconvolve.registry import METHODS, Setting

__all__ = ["MethodSettings", "peak_share_field"]


class MethodSettings(QWidget):
    """Show the settings of one method at a time, and remember those of the others.

    ``changed`` is emitted when a value changes.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.method = ""
        self._given: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, QWidget] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)

    def show_method(self, name: str) -> None:
        """Show the settings of a method."""
        if name == self.method:
            return
        while self._form.rowCount():
            self._form.removeRow(0)
        self.fields = {}
        self.method = name
        given = self._given.get(name, {})
        for setting in METHODS[name].settings:
            field = _field(setting, given.get(setting.name, setting.default))
            field.setToolTip(setting.tip)
            field.setAccessibleName(setting.label)
            _change_of(field).connect(self._changed)
            self.fields[setting.name] = field
            if isinstance(field, QCheckBox):
                self._form.addRow(field)
            else:
                self._form.addRow(setting.label, field)
                self._form.labelForField(field).setToolTip(setting.tip)

    def values(self, name: str | None = None) -> dict[str, Any]:
        """Return the settings of a method as they are set; of the one shown unless named."""
        name = name or self.method
        return {**METHODS[name].defaults, **self._given.get(name, {})}

    def set(self, values: Mapping[str, Any]) -> None:
        """Set some of the values shown."""
        for name, value in values.items():
            field = self.fields[name]
            if isinstance(field, QComboBox):
                field.setCurrentIndex(field.findData(value))
            elif isinstance(field, QCheckBox):
                field.setChecked(value)
            else:
                field.setValue(value)

    def _changed(self, *_: Any) -> None:
        values = {}
        for name, field in self.fields.items():
            if isinstance(field, QComboBox):
                values[name] = field.currentData()
            elif isinstance(field, QCheckBox):
                values[name] = field.isChecked()
            else:
                values[name] = field.value()
        self._given[self.method] = values
        self.changed.emit()


def peak_share_field(default: float) -> QDoubleSpinBox:
    """Return a field for the smallest peak as a share of its voxel's largest."""
    field = QDoubleSpinBox()
    field.setRange(0, 0.95)
    field.setSingleStep(0.05)
    field.setValue(default)
    return field


def _field(setting: Setting, value: Any) -> QWidget:
    if isinstance(setting.default, bool):
        box = QCheckBox(setting.label)
        box.setChecked(bool(value))
        return box
    if setting.choices:
        combo = QComboBox()
        combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for choice in setting.choices:
            combo.addItem("auto" if choice is None else str(choice), choice)
        combo.setCurrentIndex(max(0, combo.findData(value)))
        return combo
    if isinstance(setting.default, int):
        whole = QSpinBox()
        whole.setRange(round(setting.low), round(setting.high))
        whole.setSingleStep(round(setting.step))
        whole.setValue(value)
        return whole
    number = QDoubleSpinBox()
    places = 0
    while places < 6 and abs(round(setting.step, places) - setting.step) > 1e-12:
        places += 1
    number.setDecimals(places)
    number.setRange(setting.low, setting.high)
    number.setSingleStep(setting.step)
    number.setValue(value)
    return number


def _change_of(field: QWidget) -> Any:
    if isinstance(field, QComboBox):
        return field.currentIndexChanged
    if isinstance(field, QCheckBox):
        return field.toggled
    return field.valueChanged
