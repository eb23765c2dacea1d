"""A coloured list of what the checks found, with links to volumes and one-click fixes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_dmri.viewer.widgets._parts import LEVEL_COLOURS

__all__ = ["FindingList"]

ORDER = ("error", "warning", "note", "ok")
MOST_LINKS = 12
LINK = f"color:{LEVEL_COLOURS['note']}"


class FindingList(QWidget):
    """Show findings, worst first; ``jumped`` carries a volume, ``fixed`` the name of a fix."""

    jumped = Signal(int)
    fixed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[QLabel] = []
        self.buttons: list[QPushButton] = []
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(6)
        self.hide()

    def clear(self) -> None:
        """Show nothing."""
        for widget in (*self.rows, *self.buttons):
            self.column.removeWidget(widget)
            widget.hide()
            widget.deleteLater()
        self.rows, self.buttons = [], []
        self.hide()

    def show_findings(self, findings: Any) -> None:
        """Show findings (level, title, detail, volumes, fix)."""
        self.clear()
        for finding in sorted(findings, key=lambda f: ORDER.index(f.level)):
            self._add(finding)
        self.setVisible(bool(self.rows))

    def _add(self, finding: Any) -> None:
        links = [f'<a href="{v}" style="{LINK}">{v}</a>' for v in finding.volumes[:MOST_LINKS]]
        if len(finding.volumes) > MOST_LINKS:
            links.append(f"and {len(finding.volumes) - MOST_LINKS} more")
        words = [
            f'<span style="color:{LEVEL_COLOURS[finding.level]}">●</span> '
            f"<b>{_safe(finding.title)}</b>"
        ]
        if finding.detail:
            words.append(_safe(finding.detail))
        if links:
            words.append(f"Volumes: {', '.join(links)}")
        row = QLabel("<br>".join(words))
        row.setTextFormat(Qt.TextFormat.RichText)
        row.setWordWrap(True)
        row.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        row.setAccessibleName(f"{finding.level}: {finding.title}")
        row.setToolTip({"ok": "Checked, nothing wrong.", "note": "Worth knowing."}.get(
            finding.level, "Look at this before using the scan."))  # fmt: skip
        row.linkActivated.connect(lambda link: self.jumped.emit(int(link)))
        self.rows.append(row)
        self.column.addWidget(row)
        if finding.fix and finding.fix != "none":
            button = QPushButton(f"Fix: {finding.fix} of the b-vectors")
            button.setToolTip("Make a new layer with corrected b-vectors; this one is kept.")
            button.clicked.connect(lambda _, fix=finding.fix: self.fixed.emit(fix))
            self.buttons.append(button)
            self.column.addWidget(button)


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
