"""Ctrl-C and SIGTERM stop work where it reports progress, so that its state is kept."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_dmri.progress import Progress

__all__ = ["GRACE", "stopped_by_signals"]

GRACE = {signal.SIGINT: 1.0, signal.SIGTERM: 20.0}
"""Seconds in which work is expected to report; after them it is interrupted where it is.

Schedulers kill 30 s after SIGTERM, and a step of a large network takes some; nobody waits at a
keyboard.
"""


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[Progress], Progress]]:
    """Yield what makes a progress callable raise `Cancelled` once a signal has come.

    A second signal, or none of the reports within `GRACE`, raises KeyboardInterrupt. Outside the
    main thread, and for signals that are ignored, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda progress: progress
        return
    asked = threading.Event()
    timers: list[threading.Timer] = []
    main, process = threading.get_ident(), os.getpid()
    before = {
        number: handler
        for number in GRACE
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }

    def again(number: int) -> None:
        if sys.platform == "win32":
            import _thread

            _thread.interrupt_main(number)
        else:  # wakes a main thread that waits, too
            signal.pthread_kill(main, number)

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a worker process, which has this from its parent
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        elif asked.is_set():
            raise KeyboardInterrupt
        else:
            asked.set()
            timer = threading.Timer(GRACE[signal.Signals(number)], again, (number,))
            timer.daemon = True
            timers.append(timer)
            timer.start()

    def heeding(progress: Progress) -> Progress:
        def report(fraction: float, text: str) -> None:
            if asked.is_set():
                raise Cancelled
            progress(fraction, text)

        return report

    for number in before:
        signal.signal(number, stop)
    try:
        yield heeding
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
