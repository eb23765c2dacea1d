"""A mask picker with a button that makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_dmri.images import ScalarImage
from napari_dmri.scan import Scan
from napari_dmri.viewer.jobs import Job, Outcome
from napari_dmri.viewer.layers import kind_of, labels_layer, mask_on, scan_of
from napari_dmri.viewer.widgets._parts import LayerPicker, StatusLine

__all__ = ["MaskRow"]


class MaskRow(QWidget):
    """Choose a Labels layer on the scan's grid as mask, or make one in the background.

    Parameters
    ----------
    viewer
        The napari viewer.
    scans
        The picker of the scan that the mask is for.
    status
        Where a failure, or the mask's volume, is said.
    """

    mask_changed = Signal()

    def __init__(self, viewer: Any, scans: LayerPicker, status: StatusLine) -> None:
        super().__init__()
        self.viewer, self.scans, self.status = viewer, scans, status
        self.job: Job | None = None
        self.picker = LayerPicker(viewer, self._fits, optional="all voxels")
        self.picker.setToolTip("Voxels to use: any Labels layer on the scan's grid.")
        self.picker.setAccessibleName("Mask")
        self.make = QPushButton("make")
        self.make.setToolTip("Compute a brain mask from the scan's b0 volumes, as a new layer.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.picker, 1)
        row.addWidget(self.make)
        self.setFocusProxy(self.picker)
        self._chosen_by_hand = False
        self.picker.activated.connect(self._by_hand)
        viewer.layers.events.inserted.connect(self._offer_new)
        self.make.clicked.connect(self._make)
        self.picker.layer_changed.connect(lambda _: self.mask_changed.emit())
        scans.layer_changed.connect(self._scan_changed)
        self._scan_changed(scans.layer)

    def let_go(self) -> None:
        """Cancel the job at work, and stop listening to the layer list."""
        self.viewer.layers.events.inserted.disconnect(self._offer_new)
        if self.job is not None:
            self.job.cancel()

    def _fits(self, layer: Any) -> bool:
        scan = scan_of(self.scans.layer)
        return scan is not None and mask_on(layer, scan) is not None

    def _by_hand(self, *_: Any) -> None:
        self._chosen_by_hand = True

    def _offer_new(self, event: Any) -> None:
        """Take a mask that was just added, unless the user has chosen something else."""
        layer = event.value
        if kind_of(layer) == "mask" and not self._chosen_by_hand and self._fits(layer):
            self.picker.refresh()
            current = self.picker.layer
            if current is None or self._kinship(layer) >= self._kinship(current):
                self.picker.choose(layer)

    def _kinship(self, mask: Any) -> int:
        """Return how many letters a mask's name begins with that the scan's begins with too."""
        pairs = zip(mask.name, self.scans.layer.name, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _scan_changed(self, layer: Any) -> None:
        self._chosen_by_hand = False
        self.picker.refresh()
        masks = [m for m in self.viewer.layers if kind_of(m) == "mask" and self._fits(m)]
        if masks and (self.picker.layer is None or self.picker.layer in masks):
            self.picker.choose(max(reversed(masks), key=self._kinship))
        if not (self.job and self.job.running):
            self.make.setEnabled(scan_of(layer) is not None)

    def scan(self) -> Scan | None:
        """Return the scan chosen, called as its layer is, with the mask as it is painted now."""
        scan = scan_of(self.scans.layer)
        if scan is None:
            return None
        scan = replace(scan, name=self.scans.layer.name)
        if self.picker.layer is None:
            return scan
        return replace(scan, mask=mask_on(self.picker.layer, scan))

    def add(self, mask: np.ndarray, scan: Scan, provenance: dict[str, Any]) -> Any:
        """Add a mask as a layer and choose it."""
        image = ScalarImage(mask, scan.affine, f"{scan.name} | mask", provenance=provenance)
        data, kwargs, _ = labels_layer(image, "mask", opacity=0.9)
        layer = self.viewer.add_labels(data, **kwargs)
        layer.contour = 1
        self.picker.choose(layer)
        return layer

    def press(self) -> str:
        """Make a mask; return an empty sentence, or why none can be made now."""
        if self.job is not None and self.job.running:
            return "A mask is being made; cancel it first."
        self._make()
        return ""

    def _make(self) -> None:
        if self.job is not None and self.job.running:
            self.job.cancel()
            self.make.setEnabled(False)
            return
        scan = self.scan()
        if scan is None:
            return
        self.job = Job("Brain mask", _brain_mask, scan)
        self.job.finished.connect(lambda outcome: self._made(outcome, scan))
        self.make.setText("cancel")
        self.job.start()

    def _made(self, outcome: Outcome, scan: Scan) -> None:
        self.make.setText("make")
        self.make.setEnabled(scan_of(self.scans.layer) is not None)
        if outcome.error is not None:
            self.status.say(outcome.error, "error")
        elif not outcome.cancelled:
            mask, provenance = outcome.result
            self.add(mask, scan, provenance)
            litres = mask.sum() * scan.voxel_size.prod() / 1e6
            self.status.say(f"Mask of {litres:.2f} l ({int(mask.sum())} voxels).", "ok")


def _brain_mask(scan: Scan, progress: Callable[[float, str], None]) -> tuple[Any, dict[str, Any]]:
    from napari_dmri.provenance import provenance
    from napari_dmri.signal.mask import brain_mask

    mask = brain_mask(scan, progress=progress)
    return mask, provenance("brain-mask", {}, {"scan": scan.name}, simulated=scan.simulated)
