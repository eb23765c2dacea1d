"""Temporary folders of trainings: they go with their owner, also with one that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_dmri.training import Store
from napari_dmri.training.scratch import PREFIX, Scratch, remove_stale

HOLDER = """
import sys, time
from napari_dmri.training.scratch import Scratch
kept = Scratch(sys.argv[1])
(kept.folder / "input.f32").write_bytes(b"data")
print(kept.folder, flush=True)
time.sleep(600)
"""


def age(folder):
    os.utime(folder, (1e9, 1e9))


def test_a_folder_goes_with_its_owner(tmp_path):
    kept = Scratch(tmp_path)
    assert kept.folder.is_dir() and kept.folder.name.startswith(PREFIX)
    kept.close()
    kept.close()
    assert not kept.folder.exists()
    forgotten = Scratch(tmp_path).folder
    assert not forgotten.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_is_deleted_and_nothing_that_is_in_use(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        own = Scratch(tmp_path)
        for folder in (left, own.folder):
            age(folder)
        assert remove_stale(tmp_path) == 0 and left.is_dir()
        process.send_signal(signal.SIGKILL)
    assert (left / "input.f32").is_file()
    age(left)
    foreign = tmp_path / f"{PREFIX}without-lock"
    foreign.mkdir()
    age(foreign)
    following = Scratch(tmp_path)  # whoever comes next cleans up
    assert not left.exists()
    assert own.folder.is_dir() and foreign.is_dir() and following.folder.is_dir()


def test_a_folder_that_is_just_made_is_left_alone(tmp_path):
    young = tmp_path / f"{PREFIX}young"
    young.mkdir()
    (young / "in-use.lock").touch()
    assert remove_stale(tmp_path) == 0
    age(young)
    assert remove_stale(tmp_path) == 1


def test_a_store_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Store(6, 5) as store:
        where = np.ones((2, 2, 2), bool)
        store.add("a", np.zeros((2, 2, 2, 6)), where, np.zeros((8, 5)), np.ones((5, 6)))
        assert store.folder.parent == tmp_path
    assert not any(tmp_path.iterdir())
