"""The verb `deconvolve evaluate`: calls of some minutes, what it says when it stops, its files."""

from __future__ import annotations

import json
import signal

import pytest
from tests.deconvolve.shd.conftest import make_tiny
from typer.testing import CliRunner

from napari_dmri.cli import app
from napari_dmri.deconvolve.evaluation import cells
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, Protocol
from napari_dmri.deconvolve.shd import presets
from napari_dmri.training import loop

runner = CliRunner()


@pytest.fixture(autouse=True)
def tiny(monkeypatch, quick_directions):
    monkeypatch.setattr(presets, "preset", make_tiny)
    monkeypatch.setattr(loop, "PLOT_EVERY", 0.0)
    monkeypatch.setitem(PROTOCOLS, "random", Protocol("random", "few", voxels=(10, 8, 3)))


def run(*args, code: int = 0):
    result = runner.invoke(app, ["deconvolve", "evaluate", *[str(a) for a in args]])
    assert result.exit_code == code, result.output
    return result


def test_calls_of_some_minutes_come_to_an_end(tmp_path):
    out = tmp_path / "e"
    args = ("-o", out, "--protocol", "random", "--method", "mlp", "--steps", 6, "--device", "cpu")
    first = run(*args, "--minutes", "0.000001")
    words = " ".join(first.stdout.split())
    assert words.startswith("stopped after 1e-06 minutes with 1 cell to do (random_mlp_0); the")
    assert (out / "random_mlp_0" / "model.state.safetensors").is_file()
    assert not (out / "tables.md").exists()
    about = json.loads(run(*args, "--minutes", "0.000001", "--json").stdout)
    assert about == {"left": ["random_mlp_0"], "files": []}
    last = json.loads(run(*args, "--minutes", "10", "--json").stdout)
    assert last["left"] == []
    assert "random" in last
    assert (out / "tables.md").is_file()
    assert "stopped" not in run(*args, "--minutes", "10").stdout


def test_a_training_that_is_terminated_keeps_its_state(tmp_path, monkeypatch):
    real = cells.evaluate

    def terminated(*args, progress, **more):
        def report(fraction, text):
            if "epoch 2, step 2" in text:
                signal.raise_signal(signal.SIGTERM)
            progress(fraction, text)

        return real(*args, progress=report, **more)

    monkeypatch.setattr(cells, "evaluate", terminated)
    out = tmp_path / "e"
    result = run("-o", out, "--protocol", "random", "--method", "mlp", "--steps", 20,
                 "--device", "cpu", code=130)  # fmt: skip
    assert "The same command goes on." in result.output
    assert "Stopped" in result.output
    card = json.loads((out / "random_mlp_0" / "model.state.json").read_text())
    assert (card["epoch"], card["step"]) == (1, 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--minutes", 3), "takes no --minutes"),
        (("--size", "paper", "--steps", 9), "--steps, --size"),
    ],
)
def test_what_only_trainings_take_is_refused_by_other_studies(tmp_path, given, words):
    result = run("-o", tmp_path / "e", "--study", "lesions", *given, code=2)
    said = " ".join(result.output.split())
    assert words in said and "The study of lesions trains nothing" in said
    assert not (tmp_path / "e").exists()
