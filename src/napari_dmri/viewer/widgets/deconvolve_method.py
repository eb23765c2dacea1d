"""The lists of methods and of shells in the Deconvolve dock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItem, QStandardItemModel
from qtpy.QtWidgets import QComboBox

from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.scan import Scan

__all__ = ["FAMILIES", "MethodChoice", "ShellChoice", "by_family", "choose_in"]

FAMILIES = {"classical": "Voxel by voxel", "networks": "Networks"}
"""Families of methods in the order in which they are listed, with their headings."""


def by_family(names: Iterable[str] = ()) -> dict[str, list[str]]:
    """Group methods (all unless named) by their family, without empty groups."""
    wanted = list(names) or list(METHODS)
    groups = {f: [n for n in wanted if METHODS[n].family == f] for f in FAMILIES}
    return {family: group for family, group in groups.items() if group}


class MethodChoice(QComboBox):
    """Choose a method from a list with headings; what cannot be used is greyed, with the reason."""

    def __init__(self) -> None:
        super().__init__()
        groups = by_family()
        for family, names in groups.items():
            if len(groups) > 1:
                self._head(FAMILIES[family])
            for name in names:
                self.addItem(METHODS[name].label, name)
        self.choose(next(iter(METHODS)))

    @property
    def method(self) -> str:
        """The name of the method chosen."""
        return str(self.currentData())

    def choose(self, name: str) -> None:
        """Choose a method by its name."""
        self.setCurrentIndex(self.findData(name))

    def offer(self, problems: Mapping[str, str]) -> None:
        """Grey what has a problem, and say it."""
        for name, reason in problems.items():
            index = self.findData(name)
            self._item(index).setEnabled(not reason)
            tip = reason or METHODS[name].summary
            self.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)

    def _item(self, index: int) -> QStandardItem:
        model = self.model()
        assert isinstance(model, QStandardItemModel)
        return model.item(index)

    def _head(self, words: str) -> None:
        self.addItem(words)
        item = self._item(self.count() - 1)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        font = item.font()
        font.setBold(True)
        item.setFont(font)


class ShellChoice(QComboBox):
    """Choose the volumes that are deconvolved: one shell, or all."""

    def offer(self, scan: Scan | None, usual: str) -> int:
        """List a scan's shells, with what a method takes by itself first; return how many.

        ``usual`` is ``"highest"``, ``"all"``, or empty for a method that has no choice.
        """
        before = self.currentData()
        self.blockSignals(True)
        self.clear()
        shells = () if scan is None else scan.gradients.weighted_shells
        if shells:
            top = f"highest (b={shells[-1].bvalue:g})"
            self.addItem(top if usual == "highest" else "all", None)
        for shell in shells:
            self.addItem(f"b={shell.bvalue:g} ({shell.count} volumes)", shell.bvalue)
        if usual == "highest" and shells:
            self.addItem("all", "all")
        self.setCurrentIndex(max(0, self.findData(before)))
        self.blockSignals(False)
        return len(shells) if usual else 0


def choose_in(box: QComboBox, thing: Any) -> None:
    """Choose what an entry holds; Qt's own search does not compare Python's objects everywhere."""
    held = [box.itemData(index) for index in range(box.count())]
    found = (index for index, one in enumerate(held) if one is thing or one == thing)
    box.setCurrentIndex(next(found, 0))
