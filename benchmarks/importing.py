"""Time importing the package in fresh processes, beside its peers."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT = 0.3
REPEATS = 7


def seconds(statement: str) -> float:
    """Return the shortest time that a statement takes in a process of its own."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    times = []
    for _ in range(REPEATS):
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        times.append(float(answer.stdout))
        time.sleep(0.05)
    return min(times)


def main() -> None:
    """Print ours, the peers, and the ratios."""
    ours = seconds("import napari_dmri")
    print(f"import napari_dmri            {ours:.3f} s   limit {LIMIT} s: "
          f"{'met' if ours < LIMIT else 'MISSED'}")  # fmt: skip
    for peer in ("numpy", "nibabel", "dipy.reconst.shm"):
        theirs = seconds(f"import {peer}")
        print(f"import {peer:<22} {theirs:.3f} s   ratio {theirs / ours:.0f}x")
    first = seconds("from napari_dmri import Scan, read_scan, fit_sh, fit_tensor")
    print(f"... and its first functions   {first:.3f} s")


if __name__ == "__main__":
    main()
