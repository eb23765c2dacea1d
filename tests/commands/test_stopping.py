"""Ctrl-C and SIGTERM: work stops at its next report, at once the second time, and in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from napari_dmri.commands import stopping
from napari_dmri.commands.stopping import stopped_by_signals
from napari_dmri.errors import Cancelled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def interrupts():
    """Let Ctrl-C be heard, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@BOTH
def test_the_next_report_stops_the_work(number):
    before = signal.getsignal(number)
    seen = []
    with stopped_by_signals() as heeding:
        report = heeding(lambda fraction, text: seen.append(text))
        report(0.1, "one")
        os.kill(os.getpid(), number)
        with pytest.raises(Cancelled):
            report(0.2, "two")
    assert seen == ["one"]
    assert signal.getsignal(number) == before


@BOTH
def test_a_second_signal_interrupts_at_once(number):
    with stopped_by_signals():
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


@BOTH
def test_work_that_does_not_report_is_interrupted(number, monkeypatch):
    monkeypatch.setitem(stopping.GRACE, number, 0.1)
    with stopped_by_signals():
        begun = time.monotonic()
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
        assert time.monotonic() - begun < 10


def test_work_that_ends_in_time_is_not_interrupted_later(monkeypatch):
    monkeypatch.setitem(stopping.GRACE, signal.SIGINT, 0.1)
    with stopped_by_signals():
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)


def test_ignored_signals_stay_ignored_and_other_threads_leave_them_alone():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = []
    with stopped_by_signals() as heeding:
        os.kill(os.getpid(), signal.SIGINT)
        heeding(lambda fraction, text: seen.append(text))(0.1, "one")

    def work():
        with stopped_by_signals() as heeding:
            heeding(lambda fraction, text: seen.append(text))(0.1, "two")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["one", "two"]


def test_a_worker_process_can_be_terminated():
    ready, say = os.pipe()
    with stopped_by_signals():
        child = os.fork()
        if not child:
            os.write(say, b".")  # Python drops signals that come before a fork is done
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_a_process_that_is_terminated_ends_as_with_ctrl_c(tmp_path):
    code = (
        "import time, napari_dmri.phantom.travelling as t\n"
        "def slow(*a, progress, **k):\n"
        "    print('begun', flush=True)\n"
        "    while True:\n"
        "        progress(0.1, 'simulating'); time.sleep(0.02)\n"
        "t.make_travelling = slow\n"
        "from napari_dmri.cli import app\n"
        f"app(['phantom', {str(tmp_path / 'p')!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().strip() == "begun"
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped" in errors
    assert "Traceback" not in errors
