"""Drive the real viewer as a user would: press a dock's button, wait, take a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication

from napari_dmri.errors import InputError

__all__ = ["bring_to_front", "press", "settle", "shoot", "wait_for"]


def settle(seconds: float = 0.3) -> None:
    """Let the window work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def press(run_bar: Any, timeout: float = 1800.0) -> Any:
    """Press a dock's Run button and wait for its job.

    Returns
    -------
    The job's outcome.

    Raises
    ------
    InputError
        If the button is disabled, the job failed or was cancelled, or time ran out.
    """
    if not run_bar.button.isEnabled():
        reason = run_bar.button.toolTip() or "something is missing"
        raise InputError(f"{run_bar.button.text()} is not possible: {reason}")
    outcomes: list[Any] = []
    run_bar.finished.connect(outcomes.append)
    run_bar.button.click()
    end = time.monotonic() + timeout
    try:
        while not outcomes:
            if not run_bar.running:
                settle(0.05)
                if not outcomes:
                    raise InputError(run_bar.message.sentence or "The job did not start.")
            if time.monotonic() > end:
                run_bar.job.cancel()
                raise InputError(f"The job took longer than {timeout:g} s and was cancelled.")
            settle(0.05)
    finally:
        run_bar.finished.disconnect(outcomes.append)
    if outcomes[0].error:
        raise InputError(outcomes[0].error)
    if outcomes[0].cancelled:
        raise InputError("The job was cancelled.")
    settle()
    return outcomes[0]


def bring_to_front(widget: Any) -> None:
    """Show a dock's tab."""
    parent = widget.parent()
    while parent is not None and not hasattr(parent, "raise_"):
        parent = parent.parent()
    if parent is not None:
        parent.show()
        parent.raise_()
    settle(0.1)


def shoot(viewer: Any, path: Path) -> Path:
    """Save a picture of the whole window."""
    settle(0.4)
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    return path


def wait_for(ready: Callable[[], bool], what: str, timeout: float = 300.0) -> None:
    """Let the window work until something is so.

    Raises
    ------
    InputError
        If time ran out.
    """
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise InputError(f"Waited {timeout:g} s for {what}.")
        settle(0.05)
