from __future__ import annotations

import json
import os

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.io.atomic import atomic_path, atomic_paths, full_suffix, stem_of, write_json


def test_suffixes_and_stems():
    assert full_suffix("a/b.c.nii.gz") == ".nii.gz"
    assert stem_of("a/b.c.nii.gz") == "b.c"
    assert (full_suffix("x.MIF.GZ"), stem_of("x.MIF.GZ")) == (".mif.gz", "x")


def test_file_appears_on_success_with_its_suffix_beside_the_target(tmp_path):
    target = tmp_path / "map.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"]


def test_failure_leaves_nothing_not_even_a_new_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "new" / "x.tsv") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_existing_target_is_refused_and_overwritten_on_request(tmp_path):
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})
    with pytest.raises(InputError, match="exists already"):
        write_json(target, {"a": 2})
    assert json.loads(target.read_text()) == {"a": 1}
    write_json(target, {"a": np.arange(2), "b": np.float32(0.5)}, overwrite=True)
    assert json.loads(target.read_text()) == {"a": [0, 1], "b": 0.5}


def test_set_is_rolled_back_when_one_file_is_missing(tmp_path):
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(FileNotFoundError),
        atomic_paths([tmp_path / "a", tmp_path / "b"], overwrite=True) as (first, _second),
    ):
        first.write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_read_only_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="read-only"), atomic_path(tmp_path / "x.tsv"):
        pass


def test_file_in_place_of_the_folder_and_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is a file"), atomic_path(tmp_path / "f" / "x.tsv"):
        pass
    with pytest.raises(InputError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(InputError, match="No space left on device; nothing was written"),
        atomic_path(tmp_path / "x"),
    ):
        raise OSError(28, "No space left on device")
