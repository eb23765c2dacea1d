"""Jobs end in one of three ways, and say which."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path

import pytest
from qtpy import sip
from qtpy.QtCore import QThreadPool

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.viewer.jobs import Job, PreviewJob

pytestmark = pytest.mark.viewer


def run(job, settle):
    outcomes = []
    job.finished.connect(outcomes.append)
    job.start()
    settle(lambda: outcomes)
    return outcomes[0]


def test_a_result_comes_with_its_warnings(viewer, settle):
    def work(number, progress):
        progress(0.5, "half")
        warnings.warn("7 voxels were left out", DmriWarning, stacklevel=1)
        return 2 * number

    job = Job("double", work, 21)
    seen = []
    job.progressed.connect(lambda fraction, text: seen.append((fraction, text)))
    outcome = run(job, settle)
    assert outcome.result == 42
    assert outcome.warnings == ("7 voxels were left out",)
    assert seen[0] in ((0.0, "starting"), (0.0, "loading torch"))
    assert not job.running


def test_cancel_stops_at_the_next_report(viewer, settle):
    started, go_on = threading.Event(), threading.Event()
    reached = []

    def work(progress):
        started.set()
        go_on.wait(10)
        progress(0.5, "half")
        reached.append("the end")

    job = Job("wait", work)
    outcomes = []
    job.finished.connect(outcomes.append)
    job.start()
    settle(started.is_set)
    job.cancel()
    go_on.set()
    settle(lambda: outcomes)
    assert outcomes[0].cancelled
    assert reached == []
    assert not job.running


@pytest.mark.parametrize("last", ["report", "preview", "result"])
def test_a_job_that_qt_has_dropped_stops_without_a_word(viewer, settle, caplog, capfd, last):
    """Python takes the window's objects away at exit, when a thread may still be at work."""
    started, go_on = threading.Event(), threading.Event()
    reached = []

    def work(progress, preview):
        started.set()
        go_on.wait(10)
        if last == "report":
            progress(0.5, "half")
        elif last == "preview":
            preview("a slice")
        reached.append("the end")

    job = PreviewJob("wait", work)
    job.start()
    settle(started.is_set)
    job._activity.close()
    sip.delete(job)
    go_on.set()
    assert QThreadPool.globalInstance().waitForDone(5000)
    assert reached == (["the end"] if last == "result" else [])
    assert not caplog.records and "Error" not in capfd.readouterr().err


def test_bad_input_is_one_sentence_and_a_bug_is_named(viewer, settle):
    def refuse(progress):
        raise InputError("30 volumes but 29 b-values; correct the bval file.")

    def break_down(progress):
        raise KeyError("oops")

    assert run(Job("refuse", refuse), settle).error.startswith("30 volumes but 29")
    assert run(Job("fit", break_down), settle).error == "fit failed: KeyError: 'oops'"


def test_overlapping_jobs_keep_their_warnings_apart(viewer, settle):
    def work(name, steps, progress):
        for step in range(steps):
            progress(step / steps, name)
            warnings.warn(f"{name} warns", DmriWarning, stacklevel=1)
            time.sleep(0.05)

    shown = warnings.showwarning
    outcomes = {}
    jobs = [Job(name, work, name, steps) for name, steps in (("first", 8), ("second", 3))]
    for job in jobs:
        job.finished.connect(lambda outcome, job=job: outcomes.update({job.title: outcome}))
        job.start()
    settle(lambda: len(outcomes) == 2)
    assert outcomes["first"].warnings == ("first warns",)
    assert outcomes["second"].warnings == ("second warns",)
    warnings.showwarning = shown


def test_run_stays_refused_after_a_job_that_was_at_work(viewer, settle):
    from napari_dmri.viewer.widgets.run_bar import RunBar

    bar, go = RunBar(), threading.Event()
    bar.run(Job("wait", lambda progress: go.wait(20)))
    bar.enable(False, "another scan is chosen now")
    assert bar.button.isEnabled() and bar.button.text() == "Cancel"
    go.set()
    settle(lambda: not bar.running)
    assert not bar.button.isEnabled()
    assert bar.button.toolTip() == "another scan is chosen now"


def cancel_late(settle, made, before_cancel):
    """Return how a job ends that hears of its cancel after its last report."""
    began, go = threading.Event(), threading.Event()

    def work(progress):
        began.set()
        go.wait(20)
        return made

    job, outcomes = Job("late", work), []
    job.finished.connect(outcomes.append)
    job.start()
    settle(began.is_set)
    before_cancel(go, outcomes)
    job.cancel()
    go.set()
    settle(lambda: outcomes)
    return outcomes[0]


@pytest.mark.parametrize("made", [7, [Path("a.nii.gz")]])
def test_a_cancel_that_comes_too_late_drops_a_result_but_owns_up_to_files(viewer, settle, made):
    outcome = cancel_late(settle, made, lambda go, outcomes: None)
    assert outcome.cancelled == (made == 7)
    assert outcome.result == (None if made == 7 else made)


@pytest.mark.parametrize("made", [7, [Path("a.nii.gz")]])
def test_a_result_that_waits_to_be_shown_can_still_be_cancelled(viewer, settle, made):
    def end(go, outcomes):
        go.set()
        # The thread has ended, and the window has not come to show what it left.
        assert QThreadPool.globalInstance().waitForDone(60_000) and not outcomes

    outcome = cancel_late(settle, made, end)
    assert outcome.cancelled == (made == 7)
    assert outcome.result == (None if made == 7 else made)
