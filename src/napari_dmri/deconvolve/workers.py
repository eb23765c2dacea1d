"""Share tiles among threads that each compute on one core.

Small products and element-wise steps lose more by waiting for each other, several times a step,
than they gain by a second core; a whole tile a core loses nothing. Everything runs in the calling
thread where there is one core, or a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_dmri.progress import silent, throttled

if TYPE_CHECKING:
    from napari_dmri.progress import Progress

__all__ = ["Pulse", "Workers", "workers"]

Beat = Callable[[], None]
Work = Callable[[int, Beat], None]


class Pulse:
    """Pass reports of progress on, and repeat the last one while nothing new is to say.

    A report is where long work is cancelled; repeating it, at most ten times a second, keeps that
    possible within a tile.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._report = progress or silent
        self._again = throttled(self._report)
        self._last = (0.0, "starting")

    def __call__(self, fraction: float, text: str) -> None:
        """Pass a report on."""
        self._last = (fraction, text)
        self._report(fraction, text)

    def beat(self) -> None:
        """Repeat the last report."""
        self._again(*self._last)


class _Stopped(Exception):
    """Ends the work of the other threads when one has failed or was cancelled."""


class Workers:
    """Run a piece of work on each of some threads, of which the caller's is the first."""

    def __init__(self, count: int, pool: ThreadPoolExecutor | None) -> None:
        self.count, self._pool = count, pool

    def run(self, work: Work, beat: Beat) -> None:
        """Call ``work(k, beat)`` for k = 0 ... count - 1 at the same time, and wait for all.

        Parameters
        ----------
        work
            Does the k-th part, and calls its ``beat`` every few hundredths of a second.
        beat
            Called by the calling thread alone; what it raises stops all parts.
        """
        if self._pool is None:
            work(0, beat)
            return
        stop = threading.Event()

        def guarded(k: int) -> None:
            def check() -> None:
                if stop.is_set():
                    raise _Stopped

            try:
                work(k, check)
            except BaseException:
                stop.set()
                raise

        def mine() -> None:
            if stop.is_set():
                raise _Stopped
            beat()

        others = [self._pool.submit(guarded, k) for k in range(1, self.count)]
        failure: BaseException | None = None
        try:
            work(0, mine)
        except BaseException as error:
            stop.set()
            failure = error
        failures = [found for other in others if (found := other.exception()) is not None]
        if failure is not None:
            failures.insert(0, failure)
        for found in failures:
            if not isinstance(found, _Stopped):
                raise found


@contextmanager
def workers(device: str) -> Iterator[Workers]:
    """Provide as many threads as torch has, each with torch's own threads set to one.

    The number of torch's threads is restored at the end.
    """
    import torch

    count = torch.get_num_threads()
    if device != "cpu" or count < 2:
        yield Workers(1, None)
        return
    pool = ThreadPoolExecutor(count - 1, initializer=torch.set_num_threads, initargs=(1,))
    torch.set_num_threads(1)
    try:
        with pool:
            yield Workers(count, pool)
    finally:
        torch.set_num_threads(count)
