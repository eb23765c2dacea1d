"""Make the next batches while the device computes."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["prefetched"]

T = TypeVar("T")


def prefetched(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield items in their order while a thread makes up to some more ahead.

    The thread ends when the items do, or when the consumer stops; what goes wrong in it is raised
    in the consumer.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(max(1, depth))
    stopped = threading.Event()

    def offer(entry: tuple[bool, T | BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                offer((True, item))
                if stopped.is_set():
                    return
        except BaseException as error:  # raised again by the consumer
            offer((False, error))
            return
        offer((False, None))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, entry = ready.get()
            if more:
                yield entry  # type: ignore[misc]
            elif entry is None:
                return
            else:
                raise entry  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(timeout=5)
