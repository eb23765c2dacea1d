"""Run core functions in the background, with progress, cancel, and errors in one sentence."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari.qt.threading import FunctionWorker, create_worker
from napari.utils import progress as activity
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.progress import throttled

__all__ = ["Job", "Outcome", "PreviewJob", "hushed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: a result, a cancellation, or one sentence about a failure."""

    result: Any = None
    error: str | None = None
    cancelled: bool = False
    warnings: tuple[str, ...] = ()


class Job(QObject):
    """One core function at work in a thread.

    The function is called as ``function(*args, progress=..., **kwargs)``. Cancelling makes its
    next progress report raise `Cancelled`, so that it stops between tiles and leaves nothing.
    ``progressed`` and ``finished`` are emitted in the window's thread.
    """

    progressed = Signal(float, str)
    finished = Signal(object)
    _left = Signal(object)

    def __init__(self, title: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.title = title
        self._call = (function, args, kwargs)
        self._worker: FunctionWorker | None = None
        self._activity: Any = None
        self._over = self._showing = False
        self.progressed.connect(self._show)
        self._left.connect(self._end)

    def start(self) -> None:
        """Start the thread and the entry in napari's activity area."""
        self._activity = activity(total=100, desc=self.title)
        worker = create_worker(self._run, _start_thread=False)
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Ask the function to stop at its next report."""
        if self._worker is not None:
            self._worker.quit()

    @property
    def running(self) -> bool:
        """Whether the function has not ended yet."""
        return self._worker is not None and not self._over

    def _run(self) -> None:
        with _own_warnings() as seen:
            outcome = self._attempt()
        with suppress(Cancelled):
            self._emit("_left", replace(outcome, warnings=tuple(dict.fromkeys(seen))))

    def _emit(self, signal: str, *values: Any) -> None:
        """Emit from the thread; raise `Cancelled` once Qt has dropped the job, as at exit."""
        try:
            getattr(self, signal).emit(*values)
        except RuntimeError:
            if isalive(self):
                raise
            raise Cancelled from None

    def _attempt(self) -> Outcome:
        function, args, kwargs = self._call
        tell = throttled(lambda fraction, text: self._emit("progressed", float(fraction), text))

        def report(fraction: float, text: str) -> None:
            if not isalive(self) or (self._worker is not None and self._worker.abort_requested):
                raise Cancelled
            tell(fraction, text)

        try:
            report(0.0, "starting" if "torch" in sys.modules else "loading torch")
            _preload_torch()
            from napari_dmri.device import spare_core

            with spare_core():
                result = function(*args, progress=report, **kwargs)
            return Outcome(result=result)
        except Cancelled:
            return Outcome(cancelled=True)
        except InputError as error:
            return Outcome(error=str(error))
        except Exception as error:
            log.exception("%s failed", self.title)
            return Outcome(error=f"{self.title} failed: {type(error).__name__}: {error}")

    def _show(self, fraction: float, text: str) -> None:
        # napari's bar lets the window work, which may bring the next report: leave that one out,
        # or a window that cannot keep up would go deeper and deeper.
        bar = self._activity
        if bar is None or self._showing:
            return
        self._showing = True
        try:
            bar.set_description(f"{self.title}: {text}")
            if not self._over:
                bar.update(round(100 * fraction) - bar.n)
        finally:
            self._showing = False

    def _end(self, outcome: Outcome) -> None:
        # What is cancelled before its result is shown is not shown, however late that was.
        cancelled = self._worker is not None and self._worker.abort_requested
        if cancelled and outcome.error is None and not _wrote(outcome.result):
            outcome = replace(outcome, result=None, cancelled=True)
        self._over = True
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self.finished.emit(outcome)


_listener = threading.local()


@contextmanager
def _own_warnings() -> Iterator[list[str]]:
    """Collect the sentences that this thread warns with, whatever other jobs do meanwhile.

    `warnings.catch_warnings` swaps the state of the whole process, and two jobs that overlap
    would restore each other's.
    """
    _listener.seen = []
    shown = warnings.showwarning
    if not getattr(shown, "listens", False):

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            seen = getattr(_listener, "seen", None)
            if seen is not None and issubclass(category, DmriWarning):
                seen.append(str(message))
            else:
                shown(message, category, *where, **more)

        show.listens = True  # type: ignore[attr-defined]
        warnings.showwarning = show
    warnings.simplefilter("always", DmriWarning)
    try:
        yield _listener.seen
    finally:
        _listener.seen = None


@contextmanager
def hushed() -> Iterator[None]:
    """Leave out what this thread warns with, where it will be said again for the whole."""
    seen = getattr(_listener, "seen", None)
    _listener.seen = []
    try:
        yield
    finally:
        _listener.seen = seen


class PreviewJob(Job):
    """A job whose function also gets ``preview=``, to show a part while it works on the rest.

    What it is called with is carried to the window's thread by ``previewed``.
    """

    previewed = Signal(object)

    def __init__(self, title: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(title, function, *args, **kwargs)
        self._call[2]["preview"] = lambda found: self._emit("previewed", found)


def _wrote(result: Any) -> bool:
    """Tell whether a job's result is files that it wrote, which a late cancel cannot undo."""
    first = result[0] if isinstance(result, (list, tuple)) and result else result
    return isinstance(first, Path)


def _preload_torch() -> None:
    """Load torch's libraries while the window stays responsive.

    Importing torch loads hundreds of megabytes of libraries with the interpreter locked, half a
    second in which the window cannot move. A foreign function call does the same unlocked, and
    the import then finds them loaded.
    """
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    library = Path(spec.origin).parent / "lib" / "libtorch_python.so"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    dlopen(os.fsencode(library), os.RTLD_LAZY)
