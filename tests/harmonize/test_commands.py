"""The verbs train, apply and evaluate with networks: files, resume, refusals."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri import Cancelled
from napari_dmri.cli import app
from napari_dmri.commands import batch
from napari_dmri.commands.training import short_stages, state_beside
from napari_dmri.harmonize import GolkovHarmonizer, LinearRish, load
from napari_dmri.harmonize.learned import PAPER_STAGES
from napari_dmri.images import ScalarImage
from napari_dmri.io import read_scan, write_map, write_scan
from napari_dmri.progress import silent

from .conftest import AFFINE, subject_pair

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write four travelling subjects with masks, labels and repeats, and their list."""
    out = tmp_path_factory.mktemp("data")
    names = "subject source target source_mask target_mask tissue target_repeat source_site"
    lines = ["\t".join(names.split())]
    for n in (1, 2, 3, 4):
        pair = subject_pair(n)
        labels = np.asarray(pair.source.mask).astype(np.int16)
        labels[: labels.shape[0] // 2] *= 2
        rng = np.random.default_rng(n)
        again = np.asarray(pair.target.data)
        again = again + 5 * rng.standard_normal(again.shape).astype(np.float32) * (again > 0)
        for name, scan in (
            ("s", pair.source),
            ("t", pair.target),
            ("r", replace(pair.target, data=again)),
        ):
            write_scan(scan, out / f"{name}{n}.nii")
        write_map(ScalarImage(pair.source.mask, AFFINE), out / f"m{n}.nii")
        write_map(ScalarImage(labels, AFFINE), out / f"l{n}.nii")
        cells = (f"s{n}.nii", f"t{n}.nii", f"m{n}.nii", f"m{n}.nii", f"l{n}.nii", f"r{n}.nii")
        lines.append("\t".join((f"sub-{n}", *cells, "a")))
    (out / "pairs.tsv").write_text("\n".join(lines) + "\n")
    (out / "three.tsv").write_text("\n".join(lines[:4]) + "\n")
    return out


def run(*args, code=0):
    result = runner.invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result.output


def test_train_and_apply_a_network(folder, tmp_path):
    out = tmp_path / "model"
    said = run(
        *("harmonize", "train", "golkov", "--pairs", folder / "three.tsv", "-o", out),
        *("--epochs", 0, "--seed", 3),
    )
    assert "Golkov: a -> b, 3 subjects, order 4" in said and "demo only" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    model = load(tmp_path / "model.safetensors")
    assert model.seed == 3 and len(model.stages) == 1
    done = tmp_path / "done.nii.gz"
    run("harmonize", "apply", f"{out}.safetensors", folder / "s4.nii", "-o", done, "--maps")
    assert done.is_file()
    maps = {p.name for p in (tmp_path / "done_maps").glob("*.nii.gz")}
    assert {f"scale_l={el}_b=1200.nii.gz" for el in (0, 2, 4)} <= maps
    other = tmp_path / "other.nii.gz"
    apply = ("harmonize", "apply", f"{out}.safetensors", folder / "s4.nii")
    run(*apply, "-o", other, "--projection")
    assert not np.array_equal(read_scan(other).data, read_scan(done).data)
    said = run(
        *("harmonize", "evaluate", f"{out}.safetensors", "-o", tmp_path / "e"),
        *("--pairs", folder / "pairs.tsv"),
        code=2,
    )
    assert "trained on" in said


def test_a_stopped_training_goes_on_with_the_same_command(folder, tmp_path, monkeypatch):
    args = ("harmonize", "train", "golkov", "--pairs", folder / "three.tsv", "--epochs", 0)
    out = tmp_path / "model.safetensors"
    fit = GolkovHarmonizer.fit

    def stopped(self, *given, progress=None, **more):
        def stop(fraction, text):
            if "epoch 3" in text:
                raise Cancelled

        return fit(self, *given, progress=stop, **more)

    monkeypatch.setattr(GolkovHarmonizer, "fit", stopped)
    assert "goes on from model.training.safetensors" in run(*args, "-o", out, code=130)
    assert state_beside(out).is_file() and not out.exists()
    monkeypatch.setattr(GolkovHarmonizer, "fit", fit)
    run(*args, "-o", out)
    run(*args, "-o", tmp_path / "whole")
    assert load(out).card["sha256"] == load(tmp_path / "whole.safetensors").card["sha256"]
    assert not list(tmp_path.glob("*.training.*"))


def test_cross_validation_writes_tables_and_goes_on(folder, tmp_path):
    args = ("harmonize", "evaluate", "--pairs", folder / "pairs.tsv", "-o", tmp_path / "cv")
    more = ("--folds", 2, "--method", "golkov", "--epochs", 0, "--device", "cpu")
    run(*args, *more, "--fold", 1)
    half, whole = (
        json.loads(runner.invoke(app, [str(a) for a in (*args, *more, *given, "--json")]).stdout)
        for given in (("--fold", 1), ("--processes", 2))
    )
    rows = {r["row"]: r["subjects"] for r in half["mean"]["rows"]}
    assert rows["Golkov"] == 2
    assert {r["row"]: r["subjects"] for r in whole["mean"]["rows"]}["Golkov"] == 4
    assert "Simulated scans." in whole["mean"]["notes"][0]
    names = {p.name for p in (tmp_path / "cv").iterdir()}
    assert {"mean.tsv", "gap.tsv", "subjects.tsv", "evaluation.md", "signal.png"} <= names
    assert "gap closed" in run(*args, *more).lower()


def test_options_that_do_not_fit_are_refused(folder, tmp_path):
    pairs, out = folder / "pairs.tsv", tmp_path / "m"
    train = ("harmonize", "train")
    for given, words in (
        (("linear-rish", "--pairs", pairs, "--blocks", 2), "has no setting blocks"),
        (("golkov", "--pairs", pairs, "--mode", "paper"), "no mode and no blocks"),
        (("shresnet", "--pairs", pairs, "--mode", "both"), "Unknown mode"),
        (("shresnet", "--groups", pairs), "learns from travelling pairs"),
        (("linear-rish", "--pairs", pairs, "--validation", pairs), "no validation pairs"),
        (("golkov", "--pairs", pairs, "--epochs", -1), "expected 0 or more"),
        (("golkov", "--pairs", pairs, "--learning-rate", 0), "above 0 and below 1"),
        (("golkov", "--pairs", pairs, "--energy", -1), "must be a number from 0 up"),
        (("golkov", "--pairs", pairs, "--registration", "none"), "Unknown registration 'none'"),
        (("linear-rish", "--pairs", pairs, "--energy", 1), "has no setting energy"),
    ):
        assert words in " ".join(run(*train, *given, "-o", out, code=2).split())
    evaluate = ("harmonize", "evaluate", "--pairs", pairs, "-o", out)
    assert "none was given" in " ".join(run(*evaluate, code=2).split())
    folds = (*evaluate, "--folds", 2, "--no-projection")
    assert "leave --no-projection out" in " ".join(run(*folds, code=2).split())
    assert "Unknown contender" in run(*evaluate, "--folds", 2, "--method", "magic", code=2)
    assert not list(tmp_path.iterdir())
    assert [s.epochs for s in short_stages(7)] == [5, 7] and len(short_stages(0)) == 1
    assert [s.lr for s in short_stages(None, 3e-4)] == [3e-4, 3e-4]
    assert short_stages(None) == PAPER_STAGES


@pytest.mark.parametrize("method", ["golkov", "linear-rish"])
@pytest.mark.parametrize("there", ["m.json", "m.safetensors"])
def test_a_name_that_is_taken_is_refused_before_training(
    folder, tmp_path, monkeypatch, method, there
):
    for model in (GolkovHarmonizer, LinearRish):
        monkeypatch.setattr(model, "fit", None)
    (tmp_path / there).write_text("{}")
    said = run(
        *("harmonize", "train", method, "--pairs", folder / "three.tsv", "-o", tmp_path / "m"),
        code=2,
    )
    assert "exists already and is not overwritten" in " ".join(said.split())
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_lists_of_several_target_sites_are_refused(folder, tmp_path):
    lines = (folder / "three.tsv").read_text().splitlines()
    sites = ("target_site", "b", "b", "c")
    table = folder / "mixed.tsv"
    table.write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, sites, strict=True)))
    train = ("harmonize", "train", "golkov", "-o", tmp_path / "m", "--pairs")
    said = " ".join(run(*train, table, code=2).split())
    assert "2 target sites (c: sub-3; b: sub-1, sub-2)" in said
    good = folder / "two.tsv"
    good.write_text("\n".join(table.read_text().splitlines()[:3]) + "\n")
    other = folder / "other.tsv"
    other.write_text("\n".join([table.read_text().splitlines()[n] for n in (0, 3)]) + "\n")
    said = " ".join(run(*train, good, "--validation", other, code=2).split())
    assert "2 target sites (c: sub-3; b: sub-1, sub-2)" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trained", "recipe"), [("always", "always"), ("affine", "rigid"), (None, "rigid")]
)
def test_pairs_are_evaluated_as_aligned_as_they_were_trained(folder, monkeypatch, trained, recipe):
    class Stop(Exception):
        pass

    def look(source, target, repeat, subject, used, device):
        raise Stop(used.registration)

    monkeypatch.setattr(batch, "on_one_grid", look)
    card = {"shell": 1200.0, "order": 4, "subjects": [], "inputs": []}
    card |= {} if trained is None else {"parameters": {"registration": trained}}
    with pytest.raises(Stop, match=recipe):
        model = SimpleNamespace(card=card)
        batch.evaluate_pairs(model, folder / "pairs.tsv", "cpu", silent)


def test_always_is_a_choice_of_the_command(folder, tmp_path):
    train = ("harmonize", "train", "golkov", "--pairs", folder / "three.tsv", "--epochs", 0)
    run(*train, "-o", tmp_path / "m", "--registration", "always")
    model = load(tmp_path / "m.safetensors")
    assert model.registration == "always"
    assert any("was left where it is" in note for note in model.card["notes"])


def test_the_papers_loss_and_affine_pairs_are_for_the_asking(folder, tmp_path):
    out = tmp_path / "model.safetensors"
    run(
        *("harmonize", "train", "shresnet", "--pairs", folder / "three.tsv", "-o", out),
        *("--epochs", 0, "--energy", 0, "--registration", "affine", "--learning-rate", 0.002),
        *("--blocks", 1),
    )
    model = load(out)
    assert (model.energy, model.registration, model.stages[0].lr) == (0, "affine", 0.002)
