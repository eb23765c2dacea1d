"""How long work reports where it is, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["Progress", "part", "silent", "throttled", "track"]

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short text; raises `Cancelled` to stop the work."""

T = TypeVar("T")


def silent(fraction: float, text: str) -> None:
    """Report to nobody."""


def part(progress: Progress | None, start: float, stop: float, prefix: str = "") -> Progress:
    r"""Map a sub-task's own progress onto a slice of its parent's.

    .. math:: f \mapsto start + (stop - start) f

    Parameters
    ----------
    progress
        The parent's progress; None reports to nobody.
    start, stop
        Fractions of the parent at which the sub-task begins and ends.
    prefix
        Text that goes before the sub-task's own.
    """
    if progress is None:
        return silent
    report = progress

    def sub(fraction: float, text: str) -> None:
        report(start + (stop - start) * fraction, f"{prefix}{text}")

    return sub


def track(items: Iterable[T], progress: Progress | None, text: str, total: int) -> Iterator[T]:
    """Yield items, reporting before each one and once at the end.

    Examples
    --------
    >>> seen = []
    >>> list(track("ab", lambda f, t: seen.append((f, t)), "tile", 2))
    ['a', 'b']
    >>> seen
    [(0.0, 'tile 1 of 2'), (0.5, 'tile 2 of 2'), (1.0, 'tile 2 of 2')]
    """
    report = progress or silent
    for done, item in enumerate(items):
        report(done / total, f"{text} {done + 1} of {total}")
        yield item
    report(1.0, f"{text} {total} of {total}")


def throttled(progress: Progress, interval: float = 0.1) -> Progress:
    """Pass reports on at most once per interval (seconds), and always the first and the last."""
    last = -float("inf")

    def report(fraction: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if fraction >= 1 or now - last >= interval:
            last = now
            progress(fraction, text)

    return report
