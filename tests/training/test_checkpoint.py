import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from napari_dmri import InputError
from napari_dmri.training import load_checkpoint, save_checkpoint
from napari_dmri.training.checkpoint import model_files, require_free, taken


@pytest.fixture
def model(tmp_path):
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones((4, 4, 4), np.float32)}
    card = {"kind": "harmonizer", "method": "linear-rish", "sites": ["Köln", "b"]}
    return save_checkpoint(tmp_path / "ein Modell ü.safetensors", tensors, card), tensors, card


def test_what_is_saved_is_read(model):
    path, tensors, card = model
    found, read = load_checkpoint(path, kind="harmonizer")
    assert sorted(found) == ["a", "b"]
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert {k: read[k] for k in card} == card
    assert len(read["sha256"]) == 64
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == read


def test_suffix_is_added(tmp_path):
    path = save_checkpoint(tmp_path / "model.v1", {"a": np.zeros(1)}, {"kind": "x"})
    assert path.name == "model.v1.safetensors"


def test_existing_files_are_kept(model):
    path, _, card = model
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists"):
        save_checkpoint(path, {"a": np.zeros(1)}, card)
    assert path.read_bytes() == before
    save_checkpoint(path, {"a": np.zeros(1)}, card, overwrite=True)
    assert load_checkpoint(path)[0]["a"].shape == (1,)


def test_an_existing_card_alone_is_kept_too(tmp_path):
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(InputError, match="exists"):
        save_checkpoint(tmp_path / "m.safetensors", {"a": np.zeros(1)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_files_have_the_mode_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        path = save_checkpoint(tmp_path / "m", {"a": np.ones(2)}, {"kind": "x"})
    finally:
        os.umask(before)
    for made in (path, path.with_suffix(".json")):
        assert stat.S_IMODE(made.stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 2


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="No model file"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(model, keep):
    path = model[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated"):
        load_checkpoint(path)


def test_file_of_another_type(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\x80\x04\x95" + b"not a model" * 20)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_checkpoint(path)


def test_safetensors_of_another_program(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, str(tmp_path / "m.safetensors"))
    with pytest.raises(InputError, match="without a model card"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_tampered_tensor(model):
    path = model[0]
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError, match="SHA-256"):
        load_checkpoint(path)


def test_tampered_card(model):
    path = model[0]
    raw = path.read_bytes()
    assert raw.count(b"linear-rish") == 1
    path.write_bytes(raw.replace(b"linear-rish", b"linear-fish"))
    with pytest.raises(InputError, match="card"):
        load_checkpoint(path)


def test_other_kind(model):
    with pytest.raises(InputError, match="expected a 'deconvolver'"):
        load_checkpoint(model[0], kind="deconvolver")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("m.safetensors", r"m\.safetensors exists already and is not overwritten; choose another"),
        ("m.json", r"m\.json, where the model's card goes, exists already and is not overwritten"),
    ],
)
@pytest.mark.parametrize("name", ["m", "m.safetensors"])
def test_a_name_that_is_taken_is_refused_before_work_begins(tmp_path, there, words, name):
    (tmp_path / there).write_text("{}")
    with pytest.raises(InputError, match=words):
        require_free(tmp_path / name)
    assert taken(tmp_path / name)
    assert require_free(tmp_path / name, overwrite=True) == tmp_path / "m.safetensors"


def test_a_name_that_is_free_gets_its_suffix(tmp_path):
    assert taken(tmp_path / "m") == ""
    assert require_free(tmp_path / "new" / "m.v1") == tmp_path / "new" / "m.v1.safetensors"
    assert model_files("a/m.v1") == (Path("a/m.v1.safetensors"), Path("a/m.v1.json"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["m.safetensors", "m.json"])
def test_a_name_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a folder"):
        require_free(tmp_path / "m", overwrite=True)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; choose a folder"):
        require_free(tmp_path / "file" / "m")
