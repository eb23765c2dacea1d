"""Measure what a call takes: its seconds, and the memory that it adds at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Any


class Peak:
    """Watch the memory that a process, or its GPU, takes from now on."""

    def __init__(self, device: str) -> None:
        import torch

        self.gpu = device == "cuda"
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 1e9
            return
        self.before = memory("VmRSS")
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")

    def added(self) -> float:
        """Return the GB at the peak beyond those at the beginning."""
        import torch

        peak = torch.cuda.max_memory_allocated() / 1e9 if self.gpu else memory("VmHWM")
        return max(peak - self.before, 1e-4)


def timed(call: Any, device: str, threads: int, repeats: int) -> dict[str, float]:
    """Return the least seconds of a call, and the GB it adds at its peak."""
    import torch

    gpu = device == "cuda"
    clock = time.process_time if threads == 1 and not gpu else time.perf_counter
    if gpu:
        call()
    peak = Peak(device)
    times = []
    for _ in range(repeats):
        begin = clock()
        call()
        if gpu:
            torch.cuda.synchronize()
        times.append(clock() - begin)
    return {"seconds": min(times), "added": peak.added()}


def once(call: Any, device: str) -> tuple[Any, dict[str, float]]:
    """Return what a call gives, its wall and CPU seconds without a warm-up, and the GB it adds."""
    import torch

    release()
    peak = Peak(device)
    begin = (time.perf_counter(), time.process_time())
    found = call()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return found, {"seconds": seconds, "cpu": cpu, "added": peak.added()}


def release() -> None:
    """Give back what is free: memory held from earlier work would hide what a call adds."""
    import gc

    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def memory(field: str) -> float:
    """Return the process's memory in GB."""
    with open("/proc/self/status") as lines:
        for text in lines:
            if text.startswith(field):
                return int(text.split()[1]) * 1024 / 1e9
    return 0.0


def gemm(device: str, threads: int) -> float:
    """Return the rate of a product of 2048 x 2048 matrices in GFLOP/s."""
    import torch

    a, b = torch.randn(2, 2048, 2048, device=device).unbind()
    return 2 * 2048**3 / timed(lambda: a @ b, device, threads, 8)["seconds"] / 1e9
