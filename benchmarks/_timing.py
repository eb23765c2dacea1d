"""Set threads before the libraries load, time a call, print rows that compare with a peer."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = str(THREADS)


def start(title: str) -> None:
    """Print what is measured, on how many threads, with which versions."""
    from importlib.metadata import version

    import torch

    torch.set_num_threads(THREADS)
    versions = ", ".join(f"{p} {version(p)}" for p in ("numpy", "torch", "dipy"))
    print(f"{title}\n{THREADS} threads, Python {sys.version.split()[0]}, {versions}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"minimum of several repeats, one run; load average at start {load:.2f}\n")


def best(call: Callable[[], object], repeats: int = 5, warm: int = 1) -> float:
    """Return the least time of some calls in seconds, after a warm-up."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def row(
    what: str, ours: float, peer: float, count: int, peer_name: str, target: float | None = None
) -> float:
    """Print rates of both (items a second) and the ratio; return the ratio."""
    ratio = peer / ours
    goal = (
        "" if target is None else f"   target {target:g}x: {'met' if ratio >= target else 'MISSED'}"
    )
    print(
        f"{what:46s} ours {_rate(count / ours)}   {peer_name} {_rate(count / peer)}   "
        f"ratio {ratio:5.1f}x{goal}"
    )
    return ratio


def _rate(rate: float) -> str:
    return f"{rate / 1e6:7.2f} M/s" if rate >= 1e6 else f"{rate / 1e3:7.1f} k/s"
