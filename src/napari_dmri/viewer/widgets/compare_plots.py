"""The numbers of a comparison: a table by region, a histogram and a Bland-Altman plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

__all__ = ["Numbers", "theme_style"]

MOST_VALUES = 20_000
"""Voxels that a plot is drawn from at most; the table counts all of them."""


SHORT = {
    "mean reference": "mean R",
    "SD reference": "SD R",
    "correlation": "corr.",
    "correlation A": "corr. A",
    "correlation B": "corr. B",
}
"""Statistics as a narrow table calls them; R is the reference."""


def theme_style(viewer: Any) -> Any:
    """Return plot colours that go with the viewer's theme."""
    from dataclasses import replace

    from napari_dmri.compare.style import Style

    theme = get_theme(viewer.theme)
    base = Style.dark() if str(theme.type) == "dark" else Style()
    return replace(
        base,
        background=theme.background.as_hex(),
        text=theme.text.as_hex(),
        grid=theme.primary.as_hex(),
        line=theme.secondary.as_hex(),
    )


class RegionTable(QTableWidget):
    """Show statistics in rows and regions in columns, which suits a narrow dock."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setAlternatingRowColors(False)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        font = self.font()
        font.setPointSizeF(0.88 * font.pointSizeF())
        for widget in (self, self.verticalHeader(), self.horizontalHeader()):
            widget.setFont(font)
        self.horizontalHeader().setDefaultAlignment(
            Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        )
        self.horizontalHeader().setMinimumHeight(34)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(22)
        self.setAccessibleName("Table by region")

    def show_table(self, table: Any) -> None:
        """Show a `Table` of the core; numbers are right-aligned."""
        self.setRowCount(len(table.columns))
        self.setColumnCount(len(table.rows))
        self.setVerticalHeaderLabels([SHORT.get(c, c) for c in table.columns])
        self.setHorizontalHeaderLabels([row.name for row in table.rows])
        for column, values in enumerate(table.rows):
            for row, name in enumerate(table.columns):
                item = QTableWidgetItem(_short(values.values.get(name)))
                item.setToolTip(f"{name}, {values.name}: {values.values.get(name)}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        self.horizontalHeader().setSectionResizeMode(
            QHeaderView.ResizeMode.Stretch
            if self.columnCount() <= 3
            else QHeaderView.ResizeMode.ResizeToContents
        )
        frame = 2 * self.frameWidth() + max(34, self.horizontalHeader().sizeHint().height())
        bar = 0 if self.columnCount() <= 3 else self.horizontalScrollBar().sizeHint().height()
        self.setFixedHeight(frame + bar + 22 * self.rowCount())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "n/a" if np.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)


class Numbers(QWidget):
    """Hold the table and the two plots; plots are drawn when they are seen."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.table = RegionTable()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.canvases: list[Any] = []
        self._draw: list[Any] = [None, None]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.title, self.table, self.tabs):
            layout.addWidget(widget)
        self.tabs.currentChanged.connect(self._draw_seen)
        viewer.events.theme.connect(self._restyle)
        self._last: tuple[Any, ...] | None = None
        self.hide()

    def let_go(self) -> None:
        """Stop listening to the viewer."""
        self.viewer.events.theme.disconnect(self._restyle)

    def show_numbers(self, compared: Any, table: Any, mask: np.ndarray) -> None:
        """Show the table, and plots of at most 20,000 of the mask's voxels.

        Parameters
        ----------
        compared
            The comparison.
        table
            Its table.
        mask
            Voxels that the plots are of (X, Y, Z).
        """
        self.title.setText(table.title)
        self.table.show_table(table)
        self._last = (compared, mask)
        self._restyle()
        self.show()

    def _restyle(self, event: Any = None) -> None:
        if self._last is None:
            return
        if not self.canvases:
            self._make_canvases()
        from napari_dmri.compare.figures import draw_bland_altman

        compared, mask = self._last
        one = compared.comparison
        few = _subsample(one, mask)
        style = theme_style(self.viewer)
        words = ["A", "B", "reference"][: len(few)]
        pair = (few[1], few[2]) if len(few) == 3 else (few[0], few[1])
        names = ("B", "reference") if len(few) == 3 else ("A", "B")
        inside = np.ones(few[0].shape, bool)
        self._draw = [
            lambda ax: _histogram(ax, few, one.kind, mask=inside, names=words, style=style),
            lambda ax: draw_bland_altman(ax, *pair, mask=inside, names=names, style=style),
        ]
        self._draw_seen()

    def _make_canvases(self) -> None:
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        for title in ("Histogram", "Bland-Altman"):
            canvas = FigureCanvasQTAgg(Figure(figsize=(3.2, 2.6), layout="constrained"))
            canvas.setMinimumSize(QSize(200, 250))
            canvas.setAccessibleName(title)
            self.canvases.append(canvas)
            self.tabs.addTab(canvas, title)

    def _draw_seen(self, *_: Any) -> None:
        index = self.tabs.currentIndex()
        if not self.canvases or index < 0 or self._draw[index] is None:
            return
        draw, self._draw[index] = self._draw[index], None
        figure = self.canvases[index].figure
        figure.clear()
        draw(figure.add_subplot())
        for text in figure.findobj(match=lambda x: hasattr(x, "set_fontsize")):
            text.set_fontsize(min(text.get_fontsize(), 8))
        self.canvases[index].draw_idle()


def _histogram(ax: Any, maps: list[Any], kind: str, **how: Any) -> None:
    from napari_dmri.compare.figures import draw_histogram

    # Few painted voxels need few bins.
    count = int(np.clip(np.sqrt(maps[0].data.size), 8, 80))
    draw_histogram(ax, maps, bins=count, **how)
    units = maps[0].units
    ax.set_xlabel(f"{kind} ({units})" if units else kind)


def _subsample(one: Any, mask: np.ndarray) -> list[Any]:
    from dataclasses import replace

    images = [one.a, one.b] + ([one.reference] if one.reference is not None else [])
    chosen = np.flatnonzero(mask)
    if chosen.size > MOST_VALUES:
        chosen = chosen[np.linspace(0, chosen.size - 1, MOST_VALUES).astype(np.intp)]
    return [
        replace(image, data=np.asarray(image.data).reshape(-1)[chosen].reshape(-1, 1, 1))
        for image in images
    ]
