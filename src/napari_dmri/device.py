"""Which device computes, how much memory it has, and how work is cut to fit."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

__all__ = [
    "Device",
    "choose_device",
    "exact_float32",
    "free_memory",
    "out_of_memory",
    "require_memory",
    "run_tiles",
    "spare_core",
]

TILE_BYTES = 256 * 2**20
"""A tile's working memory never exceeds this on a CPU: larger tiles leave the caches."""


@dataclass(frozen=True)
class Device:
    """A device that was chosen, and why."""

    name: str
    reason: str

    def torch(self) -> torch.device:
        """Return the torch device."""
        import torch

        return torch.device(self.name)


def choose_device(device: str = "auto") -> Device:
    """Choose CUDA, then MPS, then the CPU, or take the device that is asked for.

    Raises
    ------
    InputError
        If the device asked for is not available.
    """
    import torch

    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if device == "auto":
        if cuda:
            return Device("cuda", f"{torch.cuda.get_device_name()} found")
        if mps:
            return Device("mps", "Apple GPU found")
        return Device("cpu", f"no GPU found, {torch.get_num_threads()} threads")
    available = {"cpu": True, "cuda": cuda, "mps": mps}
    if not available.get(device.split(":")[0], False):
        have = ", ".join(name for name, there in available.items() if there)
        raise InputError(f"Device {device!r} is not available here; choose one of: auto, {have}.")
    return Device(device, "asked for")


def free_memory(device: str = "cpu") -> int:
    """Return the memory (bytes) that new work may use on a device."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return _free_main_memory()


def _free_main_memory() -> int:
    """Read the available main memory, within the container's limit where there is one."""
    free = 4 * 2**30
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable"):
                    free = int(line.split()[1]) * 1024
    except OSError:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        free = pages * size // 2
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as used,
        ):
            text = limit.read().strip()
            if text != "max":
                free = min(free, int(text) - int(used.read()))
    except (OSError, ValueError):
        pass
    return max(free, 0)


def require_memory(needed: int, what: str, remedy: str, device: str = "cpu") -> None:
    """Refuse work that cannot fit.

    Raises
    ------
    InputError
        If less than ``needed`` bytes are free, with both figures and the remedy.
    """
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"{what} needs {needed / 2**30:.1f} GB of memory and {free / 2**30:.1f} GB are free; "
            f"{remedy}"
        )


def run_tiles(
    work: Callable[[slice], None],
    count: int,
    bytes_each: int,
    device: str = "cpu",
    progress: Progress | None = None,
    text: str = "tile",
    most: int | None = None,
    tile_bytes: int | None = None,
) -> None:
    """Do work on consecutive slices of ``count`` items, sized from the free memory.

    An out-of-memory error halves the tile and goes on from where it stopped.

    Parameters
    ----------
    work
        Handles one slice of the items; must be repeatable, as a failed slice is run again.
    count
        Number of items (voxels).
    bytes_each
        Working memory per item.
    device, progress, text
        Where it runs; who is told between tiles (and may raise `Cancelled`); what it is called.
    most
        Items of a tile at most, however much memory is free.
    tile_bytes
        Working memory of a tile at most on a CPU; None for `TILE_BYTES`. More where tiles overlap
        and each cut costs work.

    Raises
    ------
    InputError
        If one item at a time does not fit.
    """
    report = progress or silent
    budget = min(tile_bytes or TILE_BYTES, free_memory(device) // 4)
    if device.startswith("cuda"):
        budget = free_memory(device) // 2
    size = max(1, min(count, budget // max(bytes_each, 1), most or count))
    done = 0
    while done < count:
        total = -(-(count - done) // size) + -(-done // size)
        report(done / count, f"{text} {-(-done // size) + 1} of {total}")
        try:
            work(slice(done, min(done + size, count)))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                need, free = bytes_each / 2**20, free_memory(device) / 2**20
                raise InputError(
                    f"Out of memory on {device}: one voxel needs {need:.1f} MB and {free:.1f} MB "
                    "are free; close other programs or choose another device."
                ) from error
            size = -(-size // 2)
            release_memory(device)
            continue
        done = min(done + size, count)
    report(1.0, text)


def release_memory(device: str) -> None:
    """Give memory that torch keeps for later back to a GPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    return "out of memory" in str(error).lower() or "can't allocate" in str(error).lower()


_sparing: list[int] = []
_sparing_lock = threading.Lock()


@contextmanager
def spare_core() -> Iterator[int]:
    """Leave one core to the window while jobs compute; yields the number of threads used.

    The number of threads is the process's: the last of overlapping jobs restores it.
    """
    import torch

    with _sparing_lock:
        _sparing.append(torch.get_num_threads() if not _sparing else _sparing[0])
        threads = max(1, min(_sparing[0], (os.cpu_count() or 2) - 1))
        torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        with _sparing_lock:
            before = _sparing.pop()
            if not _sparing:
                torch.set_num_threads(before)


_exact: list[list[tuple[Any, str, Any]]] = []
_exact_lock = threading.Lock()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 as float32 on CUDA devices, without TF32, which rounds to 10 bits.

    Torch allows TF32 in convolutions unless told otherwise, so that what is 1e-6 apart on a CPU
    would be 1e-3 apart on a GPU. Autocast goes on as it is. The switches are the process's: the
    last of overlapping jobs puts them back.
    """
    with _exact_lock:
        # One that is off is left alone, so that programs that set torch's older switches, which
        # newer ones must not contradict, find them as they were.
        changed = [] if _exact else [s for s in _tf32_switches() if s[2] in (True, "tf32")]
        for owner, name, before in changed:
            setattr(owner, name, False if before is True else "ieee")
        _exact.append(changed)
    try:
        yield
    finally:
        with _exact_lock:
            # What the first one changed lies at the bottom: the last one puts it back.
            for owner, name, before in _exact.pop():
                setattr(owner, name, before)


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return what may allow TF32: each one's owner, name and value."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # From torch 2.9 on; reading the older ones raises once these were set.
    if hasattr(cudnn, "conv"):
        found = [(matmul, "fp32_precision"), (cudnn.conv, "fp32_precision")]
    else:
        found = [(matmul, "allow_tf32"), (cudnn, "allow_tf32")]
    return [(owner, name, getattr(owner, name)) for owner, name in found]
