"""The part of the Deconvolve dock that chooses a network's model and says whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.scan import Scan
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.network_models import Known, check_model, is_network, open_model, shipped
from napari_dmri.viewer.widgets._parts import StatusLine, beside
from napari_dmri.viewer.widgets.deconvolve_method import choose_in

__all__ = ["ModelPart"]

FIT = "fit"
"""The choice of no model: one is fitted to the scan."""

WORST = ("error", "warning", "note", "ok")

FIT_WORDS = (
    "A network is fitted to this scan alone, without known answers. You see the slice on show as "
    "it learns."
)


class ModelPart(QWidget):
    """Choose the model of a network (``choice``, for a form); say whether it fits (the rest).

    ``changed`` is emitted when another model is chosen, or was checked.

    Parameters
    ----------
    case
        Returns the scan chosen, and its responses where they are at hand.
    """

    changed = Signal()

    def __init__(self, case: Callable[[], tuple[Scan | None, ResponseSet | None]]) -> None:
        super().__init__()
        self._case = case
        self.method = ""
        self.models: list[Known] | None = None
        self._chosen: dict[str, Any] = {}
        self._check: Job | None = None
        self._checked: tuple[Any, ...] = ()
        self._opening: Job | None = None
        self.problem = ""
        self.box = QComboBox()
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.box.setAccessibleName("Model")
        self.open_button = QPushButton("open…")
        self.open_button.setToolTip("Choose a model file (.safetensors).")
        self.about = QPushButton("i")
        self.about.setToolTip("Show the model's card.")
        self.about.setMaximumWidth(28)
        self.choice = beside(self.box, self.open_button, self.about)
        self.line = StatusLine()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.line)
        self.box.currentIndexChanged.connect(self._choose)
        self.open_button.clicked.connect(self._ask)
        self.about.clicked.connect(self._show_card)

    def let_go(self) -> None:
        """Cancel the jobs at work."""
        for job in (self._check, self._opening):
            if job is not None:
                job.cancel()

    @property
    def known(self) -> Known | None:
        """The model chosen; None where one is to be fitted."""
        chosen = self.box.currentData()
        return chosen if isinstance(chosen, Known) else None

    @property
    def fitting(self) -> bool:
        """Whether a network is to be fitted to the scan."""
        return bool(self.method) and is_network(self.method) and self.known is None

    def of(self, method: str) -> list[Known]:
        """Return the models of a method, shipped ones first; the list is read the first time."""
        if self.models is None:
            self.models = shipped()
        return [known for known in self.models if known.method == method]

    def model_for(self, method: str) -> Known | None:
        """Return the model chosen for a method, or the newest own or fitting shipped one."""
        chosen = self.known if method == self.method else self._chosen.get(method)
        own = [known for known in self.of(method) if known.origin != "shipped"]
        found = chosen if isinstance(chosen, Known) else own[-1] if own else self._usual(method)
        return found if isinstance(found, Known) else None

    def show_method(self, name: str) -> None:
        """List the models of a method; what was chosen for it before is chosen again."""
        self.method = name
        self._list(self._chosen.get(name))

    def add(self, known: Known) -> None:
        """Put a model on its method's list; it is chosen when the method is."""
        self.of(known.method)
        assert self.models is not None
        self.models.append(known)
        self._chosen[known.method] = known
        if known.method == self.method:
            self._list(known)
        else:
            self.changed.emit()

    def load(self, path: str | Path) -> None:
        """Open a model file in the background and choose it; say why where it cannot be read."""
        if self._opening is not None and self._opening.running:
            return
        self.line.say(f"opening {Path(path).name} …")
        self._opening = Job("Open model", open_model, Path(path))
        self._opening.finished.connect(self._opened)
        self._opening.start()

    def judge(self) -> None:
        """Say whether the model fits the scan; ``problem`` is what forbids to run it."""
        known, (scan, responses) = self.known, self._case()
        self.about.setEnabled(known is not None)
        if not self.method or not is_network(self.method):
            self._say_unchecked("", "")
        elif known is None:
            self._say_unchecked("", FIT_WORDS)
        elif scan is None:
            self._say_unchecked("Open a scan first.", "")
        elif not self._is_checked(key := (known, scan.data, scan.gradients, responses)):
            self._checked = key
            self.problem = "The model is being checked against the scan."
            self.line.say("checking the model against the scan …")
            # Weights are read, and torch is loaded: not in the window's thread.
            self._check = Job("Check model", check_model, known, scan, responses)
            self._check.finished.connect(self._judged)
            self._check.start()

    def _say_unchecked(self, problem: str, words: str) -> None:
        self._checked, self.problem = (), problem
        self.line.say(words)

    def _is_checked(self, key: tuple[Any, ...]) -> bool:
        # Data are arrays, or are unpacked when they are looked at: what is the same is one object.
        held = self._checked
        return len(held) == len(key) and all(a is b for a, b in zip(held, key, strict=True))

    def _list(self, chosen: Any) -> None:
        self.box.blockSignals(True)
        self.box.clear()
        for known in self.of(self.method) if is_network(self.method) else ():
            about = ["shipped"] * (known.origin == "shipped") + ["taught"] * known.taught
            self.box.addItem(f"{known.label} ({', '.join(about)})" if about else known.label, known)
            tip = str(known.path) if known.path is not None else "Fitted in this window, not saved."
            self.box.setItemData(self.box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.box.addItem("fit to this scan", FIT)
        self.box.setItemData(self.box.count() - 1, FIT_WORDS, Qt.ItemDataRole.ToolTipRole)
        choose_in(self.box, chosen or self._usual(self.method))
        self.box.blockSignals(False)
        self._announce()

    def choose_fit(self) -> None:
        """Choose to fit a network to the scan."""
        choose_in(self.box, FIT)

    def _usual(self, method: str) -> Any:
        """Return the shipped model that fits the scan best, else the choice to fit one."""
        from napari_dmri.deconvolve.shd.shipped import choose_shipped

        scan, responses = self._case()
        if scan is None or not is_network(method):
            return FIT
        found = choose_shipped(method, scan.gradients, responses and tuple(responses))
        paths = {known.path: known for known in self.of(method)}
        return FIT if found is None else paths.get(found.path, FIT)

    def _choose(self, *_: Any) -> None:
        self._chosen[self.method] = self.box.currentData()
        self._announce()

    def _announce(self) -> None:
        self.box.setToolTip(self.box.currentText())
        self.judge()
        self.changed.emit()

    def _judged(self, outcome: Outcome) -> None:
        known, (scan, responses) = self.known, self._case()
        if outcome.cancelled or self._check is not self.sender() or scan is None:
            return
        if not self._is_checked((known, scan.data, scan.gradients, responses)):
            return
        if outcome.error is not None:
            self.problem = outcome.error
            self.line.say(outcome.error, "error")
        else:
            checks = outcome.result[2]
            level = next((w for w in WORST if any(c.level == w for c in checks)), "ok")
            said = [c.sentence for c in checks if c.level not in ("ok", "note")]
            about = " ".join(c.sentence for c in checks[:1] if c.level == "ok")
            if said and about and known is not None and known.taught:
                said.append(about)
            fits = f"Fits this scan: shells and tissues. {about}"
            self.line.say("\n".join(said) or fits.strip(), level)
            self.problem = self.line.sentence if level == "error" else ""
        self.changed.emit()

    def _opened(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.line.say(outcome.error, "error")
        elif not outcome.cancelled:
            known = outcome.result[1]
            self.add(known)
            if known.method != self.method:
                label = METHODS[known.method].label if known.method in METHODS else known.method
                self.line.say(f"{known.label} is of {label}: choose that method to use it.", "note")

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.safetensors)")
        if path:
            self.load(path)

    def _show_card(self) -> None:
        if self.known is not None:
            from napari_dmri.viewer.widgets.harmonize import card_text

            box = QMessageBox(self)
            box.setWindowTitle("Model card")
            box.setText(card_text(dict(self.known.card)))
            box.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            box.exec()
