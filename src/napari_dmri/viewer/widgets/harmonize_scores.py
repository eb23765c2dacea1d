"""The table of a comparison of harmonizers: scores, marked where they differ from no model."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView

from napari_dmri.viewer.widgets._parts import LEVEL_COLOURS
from napari_dmri.viewer.widgets.compare_plots import RegionTable

__all__ = ["ScoreTable"]

WIDTH = 68
"""Pixels of a column: a number, its mark, and half a method's name."""

LEVEL = 0.05
"""Corrected p-value below which a difference is marked."""


class ScoreTable(RegionTable):
    """Show errors in rows and methods in columns, marked where they differ from the refit."""

    legend = (
        "NMSE against the reference. ▼ ▲: below, above “refit only” (the SH fit without a model) "
        "throughout this scan: 12 mm blocks, Holm, p < 0.05. It says nothing about other people."
    )

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Scores by method")

    def show_scores(self, scores: Any, tests: Any) -> None:
        """Show the scores of signal, FA and MD; tooltips give the tests."""
        from napari_dmri.harmonize.side_by_side import REFIT
        from napari_dmri.harmonize.side_by_side_report import brief

        table = brief(scores)
        self.show_table(table)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.horizontalHeader().setDefaultSectionSize(WIDTH)
        self.setToolTip("\n".join(table.notes))
        places = {row.name: n for n, row in enumerate(table.rows)}
        lines = {name: n for n, name in enumerate(table.columns)}
        for test in tests.rows:
            first, second = test.name.split(" against ", 1)
            if second != REFIT:
                continue
            item = self.item(lines[f"{test['measure']} {test['tissue']}"], places[first])
            p = test["p (Holm)"]
            sure = p is not None and np.isfinite(p) and p < LEVEL
            if sure:
                better = test["change %"] < 0
                item.setText(f"{item.text()} {'▼' if better else '▲'}")
                item.setForeground(QColor(LEVEL_COLOURS["ok" if better else "warning"]))
            words = f"{test['change %']:+.1f} % against {REFIT}"
            if p is not None:
                words += (
                    f", 95 % interval {test['low %']:+.1f} to {test['high %']:+.1f} %, "
                    f"p = {p:.2g} over {test['blocks']} blocks of this scan"
                )
            item.setToolTip(f"{item.toolTip()}\n{words}")
