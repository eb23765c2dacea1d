"""Time the simulator: a subject on two sites with repeats, its truth, and the peak memory.

``python benchmarks/phantom.py [small medium full]``. There is no peer that makes the same; the
limits are the project's own: small 8 s, medium 60 s, 4 GB.
"""

from __future__ import annotations

import subprocess
import sys

LIMITS = {"small": 8.0, "medium": 60.0, "full": float("inf")}

ONE = """
import resource, sys, time
start = time.perf_counter()
from napari_dmri.phantom import simulate_subject
made = simulate_subject(0, size=sys.argv[1])
scans = time.perf_counter() - start
made.truth.fod(8)
made.truth.fod(18)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scale = 2**30 if sys.platform == "darwin" else 2**20
print(scans, time.perf_counter() - start - scans, peak / scale)
"""


def main() -> None:
    print(f"{'size':8} {'2 sites + repeats':>18} {'limit':>7} {'fODFs 8 + 18':>13} {'peak':>8}")
    for size in sys.argv[1:] or ("small", "medium"):
        run = [sys.executable, "-c", ONE, size]
        text = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        scans, fods, peak = map(float, text.split())
        print(f"{size:8} {scans:16.1f} s {LIMITS[size]:5.0f} s {fods:11.1f} s {peak:5.2f} GB")


if __name__ == "__main__":
    main()
