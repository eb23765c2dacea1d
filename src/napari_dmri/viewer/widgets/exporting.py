"""What docks that write their last result to a folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton

from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.widgets._parts import Dock
from napari_dmri.viewer.widgets.run_bar import StatusLine

__all__ = ["ExportingDock"]


class ExportingDock(Dock):
    """A dock with an Export button, and a choice of basis and format for SH files.

    Subclasses make the widgets and say how a result is written.
    """

    write_result: Callable[..., list[Path]]
    """Writes (result, folder, basis, format suffix) and returns the files."""
    nothing_yet = "Run first."
    folder_title = "Folder for the results"
    result: Any
    basis: QComboBox
    format: QComboBox
    export_button: QPushButton
    export_line: StatusLine

    def _format_changed(self, *_: Any) -> None:
        # A .mif file has no place to name a basis: it holds MRtrix3's.
        mrtrix = self.format.currentData() == ".mif"
        if mrtrix:
            self.basis.setCurrentIndex(self.basis.findData("tournier07"))
        self.basis.setEnabled(not mrtrix)

    def _ask_export(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.folder_title)
        if folder:
            self.export(folder)

    def export(self, folder: str | Path) -> Job | None:
        """Write the last result to a folder in the background; say what was written."""
        if self.result is None:
            self.export_line.say(self.nothing_yet, "error")
            return None
        job = Job(
            "Export", self.write_result, self.result, Path(folder),
            self.basis.currentData(), self.format.currentData(),
        )  # fmt: skip
        job.finished.connect(self._exported)
        self._export_job = job
        self.export_button.setEnabled(False)
        job.start()
        return job

    def _exported(self, outcome: Outcome) -> None:
        self.export_button.setEnabled(True)
        if outcome.error is not None:
            self.export_line.say(outcome.error, "error")
        elif not outcome.cancelled:
            names = [path.name for path in outcome.result]
            self.export_line.say(f"Wrote {', '.join(names)} to {outcome.result[0].parent}.", "ok")
