"""Opening a whole-brain scan to its first pixel in napari, against nibabel reading the file.

Run ``xvfb-run -a python benchmarks/open.py`` (any display will do). The scan is siemens_trio of the
folder NAPARI_DMRI_DATA (default ``../shared/data``). Each side runs in a fresh process: ours opens
the file in a viewer and waits until the canvas shows it; the peer reads the file into a float32
array, and for information also adds that to a viewer. Ours is timed with the Scan dock open, as
``napari-dmri view`` and the docks leave it, and for information also in a bare viewer. The target:
at most the peer's reading time plus 0.5 s, and less than twice the size of the float32 data in
added peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

SLACK = 0.5
FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SCAN = Path(os.environ.get("NAPARI_DMRI_DATA", FOLDER)) / "siemens_trio" / "dwi.nii.gz"


def resident() -> int:
    """Return this process's memory in bytes."""
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """Watch the memory that is added while a block runs."""

    def __enter__(self) -> Peak:
        self.start = self.most = resident()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, resident())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.added = max(self.most, resident()) - self.start


def viewer_with_gl():
    """Open a viewer that has drawn one image already, as in a session."""
    import napari
    import numpy as np
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.add_image(np.zeros((8, 8), np.float32))
    viewer.screenshot(flash=False)
    viewer.layers.clear()
    QApplication.processEvents()
    return viewer


def measure(side: str) -> dict[str, float]:
    """Run one side in this process."""
    import nibabel as nib
    import numpy as np

    viewer = viewer_with_gl() if side != "read" else None
    if side == "ours":
        from napari_dmri.viewer.launch import open_dock

        open_dock(viewer, "Scan")
        viewer.screenshot(flash=False)
    with Peak() as peak:
        start = time.perf_counter()
        if side in ("ours", "bare"):
            viewer.open(str(SCAN), plugin="napari-dmri")
        else:
            data = np.asarray(nib.load(SCAN).dataobj, dtype=np.float32)
            if side == "show":
                viewer.add_image(data.T)
                viewer.dims.set_current_step(0, 0)
        if viewer is not None:
            assert viewer.screenshot(flash=False)[..., :3].any(), "nothing was drawn"
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": peak.added}


def main() -> None:
    import nibabel as nib
    import numpy as np

    size = 4 * float(np.prod(nib.load(SCAN).shape))
    print(f"Open {SCAN.parent.name} ({SCAN.stat().st_size / 1e6:.0f} MB) to the first pixel; "
          f"{size / 1e6:.0f} MB as float32; median of 3")  # fmt: skip
    found = {}
    for side in ("read", "show", "bare", "ours"):
        runs = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, __file__, side], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        found[side] = sorted(runs, key=lambda r: r["seconds"])[1]
    names = {
        "read": "nibabel, read only",
        "show": "nibabel, read and show",
        "bare": "ours, first file, no dock",
        "ours": "ours, Scan dock open",
    }
    for side, name in names.items():
        run = found[side]
        print(f"{name:26s} {run['seconds']:6.2f} s   adds {run['bytes'] / 1e6:6.0f} MB at its peak")
    late = found["ours"]["seconds"] - found["read"]["seconds"]
    print(f"ours - nibabel = {late:+.2f} s (target at most {SLACK:+.1f} s): "
          f"{'met' if late <= SLACK else 'MISSED'}")  # fmt: skip
    share = found["ours"]["bytes"] / size
    print(f"added memory / float32 data = {share:.2f} (target below 2): "
          f"{'met' if share < 2 else 'MISSED'}")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
