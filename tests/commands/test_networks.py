"""The verbs `deconvolve fit` and `train`, and `apply` with a model: files, words, refusals."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from tests.deconvolve.shd.conftest import AFFINE, make_responses, make_scan, make_tiny
from typer.testing import CliRunner

from napari_dmri.cli import app
from napari_dmri.commands.network_options import bvalues_of, tissues_of
from napari_dmri.commands.networks import curves_table
from napari_dmri.deconvolve.shd import presets
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.io import read_map, read_sh, write_map, write_scan, write_sh
from napari_dmri.io.responses import write_responses

runner = CliRunner()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(presets, "preset", make_tiny)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a scan, its mask, its responses and a list of two subjects."""
    where = tmp_path_factory.mktemp("in")
    for n in (0, 1):
        scan = make_scan((6, 5, 4), seed=n)
        write_scan(scan, where / f"sub-{n}_dwi.nii.gz")
        mask = ScalarImage(scan.mask.astype(np.uint8), AFFINE)
        write_map(mask, where / f"sub-{n}_mask.nii.gz")
    write_responses(make_responses(), where / "resp_wm.txt")
    rows = [f"sub-{n}\tsub-{n}_dwi.nii.gz\tresp_wm.txt\tresp_csf.txt" for n in (0, 1)]
    (where / "subjects.tsv").write_text("\n".join(["subject\tscan\twm\tcsf", *rows]) + "\n")
    return where


def run(*args, code: int = 0):
    result = runner.invoke(app, ["deconvolve", *[str(a) for a in args]])
    assert result.exit_code == code, result.output
    return result


def test_fit_writes_fods_maps_model_and_curves(folder, tmp_path):
    scan, out = folder / "sub-0_dwi.nii.gz", tmp_path / "fit"
    common = ("--response", folder / "resp_wm.txt", "--mask", folder / "sub-0_mask.nii.gz")
    result = run("fit", scan, "--method", "shd-s-tv", "-o", out, *common, "--device", "cpu",
                 "--tissues", "csf", "--json")  # fmt: skip
    about = json.loads(result.stdout)
    names = {p.name for p in out.iterdir()}
    assert {"fod.nii.gz", "csf.nii.gz", "residual.nii.gz", "model.safetensors",
            "curves.tsv"} <= names  # fmt: skip
    assert "gm.nii.gz" not in names and not any("training" in n for n in names)
    assert about["voxels"] == make_scan((6, 5, 4)).mask.sum() and about["order"] == 4
    fod = read_sh(out / "fod.nii.gz")
    assert fod.provenance["parameters"]["mode"] == "tiled"
    model = ShdModel.load(out / "model.safetensors")
    assert fod.provenance["inputs"]["model"]["sha256"] == model.sha256
    lines = (out / "curves.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:2] == ["epoch", "stage"] and len(lines) == 6
    again = run("fit", scan, "-o", out, *common, code=2)
    assert "exists already" in again.output

    # The model is applied to its scan, and gives the same again.
    target = tmp_path / "again.nii.gz"
    run("apply", scan, "--method", "shd-s-tv", "--model", out / "model.safetensors", "-o", target,
        *common, "--device", "cpu", "--csf", tmp_path / "csf.nii.gz", "-q")  # fmt: skip
    assert np.allclose(read_sh(target).coefficients, fod.coefficients, atol=1e-5)
    first, second = read_map(out / "csf.nii.gz"), read_map(tmp_path / "csf.nii.gz")
    assert np.allclose(first.data, second.data, atol=1e-5)

    # A map that it cannot give is refused before anything is written.
    result = run("apply", scan, "--method", "shd-s-tv", "--model", out / "model.safetensors",
                 "-o", tmp_path / "no.nii.gz", *common, "--gm", tmp_path / "gm.nii.gz",
                 code=2)  # fmt: skip
    assert "--gm is asked for and model.safetensors is of wm, csf alone" in " ".join(
        result.output.split()
    )
    assert not (tmp_path / "no.nii.gz").exists() and not (tmp_path / "gm.nii.gz").exists()


def test_a_fit_that_was_stopped_keeps_its_state_and_goes_on(folder, tmp_path, monkeypatch):
    from napari_dmri.deconvolve.shd import fit as module

    out, real = tmp_path / "fit", module.fit_to_scan

    def stopped(*args, progress=None, **more):
        def report(fraction, text):
            if text.startswith("epoch 2"):
                raise Cancelled

        return real(*args, progress=report, **more)

    args = ("fit", folder / "sub-0_dwi.nii.gz", "-o", out, "--response", folder / "resp_wm.txt",
            "--device", "cpu", "--tissues", "csf")  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(module, "fit_to_scan", stopped)
        result = runner.invoke(app, ["deconvolve", *[str(a) for a in args]])
        assert result.exit_code != 0
    assert "The same command goes on from model.training.safetensors" in result.output
    assert (out / "model.training.safetensors").is_file()
    run(*args, "-q")
    assert not (out / "model.training.safetensors").exists() and (out / "fod.nii.gz").is_file()


def test_a_fits_results_appear_together_or_not_at_all(folder, tmp_path, monkeypatch):
    from napari_dmri.io import atomic

    out = tmp_path / "fit"
    args = ("fit", folder / "sub-0_dwi.nii.gz", "-o", out, "--response", folder / "resp_wm.txt",
            "--device", "cpu", "--tissues", "csf", "-q")  # fmt: skip

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "write_text", full)  # the last of the files
        result = run(*args, code=2)
    assert "No space left" in result.output
    # The training is kept, and nothing of what comes of it.
    assert all(p.name.startswith("model.training.") for p in out.iterdir())
    run(*args)
    names = {p.name for p in out.iterdir()}
    assert {"fod.nii.gz", "fod.json", "csf.nii.gz", "model.safetensors", "curves.tsv"} <= names
    assert not any(n.startswith(".") or "training" in n for n in names)
    # What lies beside an image would be replaced, too, and is refused before any work.
    for name in names - {"fod.json"}:
        (out / name).unlink()
    again = run(*args, code=2)
    assert "fod.json exists already" in " ".join(again.output.split())


def test_a_fit_that_is_terminated_keeps_its_state(folder, tmp_path, monkeypatch):
    from napari_dmri.deconvolve.shd import fit as module

    out, real = tmp_path / "fit", module.fit_to_scan

    def terminated(*args, progress=None, **more):
        def report(fraction, text):
            if text.startswith("epoch 2"):
                signal.raise_signal(signal.SIGTERM)
            progress(fraction, text)

        return real(*args, progress=report, **more)

    args = ("fit", folder / "sub-0_dwi.nii.gz", "-o", out, "--response", folder / "resp_wm.txt",
            "--device", "cpu", "--tissues", "csf", "-q")  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(module, "fit_to_scan", terminated)
        result = run(*args, code=130)
    assert "The same command goes on from model.training.safetensors" in result.output
    card = json.loads((out / "model.training.json").read_text())
    assert card["total_steps"] == 3, "the state is of the step before"
    run(*args)
    assert (out / "fod.nii.gz").is_file()


@pytest.fixture(scope="module")
def known(folder):
    """Write fODFs of the two subjects, and lists that name those of both and of one."""
    rng = np.random.default_rng(0)
    rows = (folder / "subjects.tsv").read_text().splitlines()
    for n in (0, 1):
        fod = rng.random((6, 5, 4, 15)).astype(np.float32)
        write_sh(ShImage(fod, AFFINE, normalised=False), folder / f"sub-{n}_fod.nii.gz")
    for name, last in (("known", "sub-1_fod.nii.gz"), ("one", "n/a")):
        lines = [f"{rows[0]}\tfod", f"{rows[1]}\tsub-0_fod.nii.gz", f"{rows[2]}\t{last}"]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_network_is_taught_by_known_fods_first(known, tmp_path):
    path = tmp_path / "taught.safetensors"
    result = run("train", "shd-s", "--teach", "--subjects", known / "known.tsv", "-o", path,
                 "--steps", 10, "--device", "cpu")  # fmt: skip
    card = ShdModel.load(path).card
    assert card["known_fods"] and card["losses"]["supervised"] == 0
    assert card["taught"]["losses"]["supervised"] == 1
    before = card["taught"]["steps"]
    assert before > card["outcome"]["steps"] > 0
    assert f"after {before} steps with known fODFs" in result.stdout
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["taught.json", "taught.safetensors"]


def test_teaching_goes_on_in_the_second_part(known, tmp_path, monkeypatch):
    from napari_dmri.deconvolve.shd import teach as module

    real, path = module.teach_model, tmp_path / "taught.safetensors"

    def stopped(*args, progress=None, **more):
        def report(fraction, text):
            if text.startswith("signals alone: reading"):
                raise Cancelled

        return real(*args, progress=report, **more)

    args = ("train", "shd-s", "--teach", "--subjects", known / "known.tsv", "-o", path,
            "--steps", 10, "--device", "cpu", "-q")  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(module, "teach_model", stopped)
        result = run(*args, code=130)
    assert "goes on from taught.training.taught.safetensors" in result.output
    run(*args)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["taught.json", "taught.safetensors"]


def test_teaching_without_what_it_needs_is_refused_before_any_work(known, tmp_path):
    given = ("-o", tmp_path / "new" / "m", "--teach")
    for more, words in (
        (("--subjects", known / "one.tsv"), "1 of 2 subjects have known fODFs, and teaching begins "
         "with them; sub-1 have none. Name an SH image on the scan's grid for each (in a list of "
         "subjects the column fod)"),
        (("--subjects", known / "subjects.tsv"), "0 of 2 subjects have known fODFs"),
        (("--subjects", known / "known.tsv", "--validation", known / "subjects.tsv"),
         "2 of 4 subjects"),
        (("--subjects", known / "known.tsv", "--supervised", "0.5"), "--supervised is given"),
        (("--subjects", known / "known.tsv", "--start", "m.safetensors"), "--start is given"),
    ):  # fmt: skip
        result = run("train", "shd-s", *given, *more, code=2)
        assert words in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_train_writes_a_model_of_the_subjects(folder, tmp_path):
    path = tmp_path / "two"
    result = run("train", "shd-s", "--subjects", folder / "subjects.tsv", "-o", path,
                 "--device", "cpu", "--steps", 4)  # fmt: skip
    assert "SHD-S: 2 scans, b = 0, 1000, 3000" in result.stdout and "WM + CSF" in result.stdout
    model = ShdModel.load(tmp_path / "two.safetensors")
    assert [e["subject"] for e in model.card["training"]] == ["sub-0", "sub-1"]
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["two.json", "two.safetensors"]
    # Fine-tuning goes on from the model.
    tuned = tmp_path / "tuned.safetensors"
    run("train", "shd-s", "--subjects", folder / "subjects.tsv", "-o", tuned, "--device", "cpu",
        "--steps", 4, "--start", tmp_path / "two.safetensors", "-q")  # fmt: skip
    assert ShdModel.load(tuned).card["started_from"] == model.sha256


def test_the_loss_can_be_weighed_otherwise(folder, tmp_path):
    common = ("--device", "cpu", "--steps", 4, "-q")
    subjects = ("--subjects", folder / "subjects.tsv")
    path = tmp_path / "sparse.safetensors"
    run("train", "shd-s-tv", *subjects, "-o", path, "--weight", "sparsity=1e-3",
        "--weight", "spatial_form=tv", *common)  # fmt: skip
    losses = ShdModel.load(path).card["losses"]
    usual = make_tiny("shd-s-tv").losses.as_dict()
    assert losses == {**usual, "sparsity": 1e-3, "spatial_form": "tv"}
    for words, said in {
        "sparsity": "write NAME=VALUE",
        "sparse=1": "has no weight 'sparse'; choose among reconstruction, non_negativity",
        "sparsity=much": "sparsity is 'much'; give a number",
        "spatial_form=2": "spatial_form is 2.0; give one of squared, tv",
        "sparsity=-1": "sparsity=-1.0; weights are 0",
    }.items():
        out = tmp_path / "none.safetensors"
        refused = run("train", "shd-s", *subjects, "-o", out, "--weight", words, code=2)
        assert said in " ".join(refused.output.split()), refused.output
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["sparse.json", "sparse.safetensors"]


def test_shells_can_be_fitted_by_the_papers_rule(folder, tmp_path):
    scan, common = folder / "sub-0_dwi.nii.gz", ("--device", "cpu", "--steps", 4, "-q")
    run("fit", scan, "-o", tmp_path / "fit", "--method", "shd-s", "--rule", "paper", *common)
    run("train", "shd-s", "--subjects", folder / "subjects.tsv", "-o",
        tmp_path / "paper.safetensors", "--rule", "paper", *common)  # fmt: skip
    for path in (tmp_path / "fit" / "model.safetensors", tmp_path / "paper.safetensors"):
        card = ShdModel.load(path).card
        assert card["rule"] == "paper"
        assert all(len(e["orders"]) == len(card["bvalues"]) for e in card["training"])
    refused = run("fit", scan, "-o", tmp_path / "no", "--rule", "bold", *common, code=2)
    assert "--rule bold: choose one of safe, paper." in " ".join(refused.output.split())
    assert not (tmp_path / "no").exists()


def test_a_network_can_see_few_directions_and_run_in_either_mode(folder, tmp_path):
    scan, out = folder / "sub-0_dwi.nii.gz", tmp_path / "fit"
    run("fit", scan, "-o", out, "--response", folder / "resp_wm.txt", "--method", "shd", "--mode",
        "tiled", "--see", "8@1000", "--device", "cpu", "--steps", 4, "-q")  # fmt: skip
    model = ShdModel.load(out / "model.safetensors")
    assert model.card["mode"] == "tiled" and model.architecture.border == "repeat"
    assert model.bvalues == (0, 1000)
    # One of the list's scans is seen in part; both are explained whole.
    lines = (folder / "subjects.tsv").read_text().splitlines()
    table = folder / "seen.tsv"
    table.write_text("\n".join([f"{lines[0]}\tsee", *(f"{row}\t8@1000" for row in lines[1:])]))
    run("train", "shd-s", "--subjects", table, "-o", tmp_path / "m", "--device", "cpu", "--steps",
        4, "-q")  # fmt: skip
    card = ShdModel.load(tmp_path / "m.safetensors").card
    assert [entry["inputs"] for entry in card["training"]] == [11, 11]
    table.write_text("\n".join([f"{lines[0]}\tsee", *(f"{row}\tall" for row in lines[1:])]))
    wrong = run("train", "shd-s", "--subjects", table, "-o", tmp_path / "n", code=2)
    assert "seen.tsv, row 2: 'all' does not say how many" in " ".join(wrong.output.split())
    result = run("fit", scan, "-o", tmp_path / "b", "--see", "900", code=2)
    assert "900 directions are asked for of 16" in " ".join(result.output.split())


def test_what_cannot_be_done_is_said_before_any_work(folder, tmp_path):
    scan, subjects = folder / "sub-0_dwi.nii.gz", folder / "subjects.tsv"
    for args, words in (
        (("fit", scan, "--method", "best", "-o", tmp_path / "a"), "Unknown method 'best'"),
        (("fit", scan, "--tissues", "fat", "-o", tmp_path / "a"), "gm and csf"),
        (("train", "csd", "--subjects", subjects, "-o", tmp_path / "a"), "Unknown method 'csd'"),
        (("train", "shd", "--subjects", scan.parent / "no.tsv", "-o", tmp_path / "a"),
         "No list at"),
        (("apply", scan, "--method", "shd", "-o", tmp_path / "a.nii.gz", "--response",
          folder / "resp_wm.txt"), "(there are models of shd-s-tv: shd-s-tv-one-shell: b = 0, "
         "1100, wm + gm + csf; shd-s-tv-two-shells: b = 0, 1000, 3000, wm + gm + csf): choose "
         "shd-s-tv, fit one to this scan (Fit to this scan, or 'napari-dmri deconvolve fit SCAN "
         "--method shd -o FOLDER'), or choose a model's file (--model FILE)."),
        (("apply", scan, "--method", "csd", "-o", tmp_path / "a.nii.gz", "--model", "m"),
         "CSD does not take model"),
    ):  # fmt: skip
        result = run(*args, code=2)
        assert words in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["m.json", "m.safetensors"])
def test_a_name_that_is_taken_is_refused_before_training(folder, tmp_path, there):
    (tmp_path / there).write_text("{}")
    result = run(
        "train", "shd", "--subjects", folder / "subjects.tsv", "-o", tmp_path / "m", code=2
    )
    assert "exists already and is not overwritten" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_lists_of_tissues_and_shells():
    assert tissues_of(None) is None and tissues_of("none") == ()
    assert tissues_of("csf, gm") == ("gm", "csf")
    assert bvalues_of("3000,1000") == (0, 1000, 3000) and bvalues_of("0,1000") == (0, 1000)
    assert bvalues_of(None) is None
    with pytest.raises(InputError, match=r"--bvalues -5,1000: b-values are 0 or more"):
        bvalues_of("-5,1000")
    with pytest.raises(InputError, match="give numbers"):
        bvalues_of("many")
    assert curves_table([{"epoch": 0, "train": None}, {"epoch": 1, "train": 0.5}]) == (
        "epoch\ttrain\n0\tn/a\n1\t0.5\n"
    )


def test_a_fit_that_is_refused_leaves_no_folder(folder, tmp_path):
    scan, out = folder / "sub-0_dwi.nii.gz", tmp_path / "fit"
    given = ("fit", scan, "-o", out, "--response", folder / "resp_wm.txt", "--device", "cpu")
    result = run(*given, "--steps", 0, code=2)
    assert "A fit of 0 steps" in result.output and not out.exists()
    out.mkdir()
    run(*given, "--steps", 0, code=2)
    assert out.is_dir() and not any(out.iterdir())


def test_a_subject_without_a_shell_is_named(folder, tmp_path):
    scan = make_scan((4, 4, 3))
    write_scan(scan.select(np.flatnonzero(scan.gradients.b0_mask)), tmp_path / "flat_dwi.nii.gz")
    rows = (folder / "subjects.tsv").read_text().replace("sub-", f"{folder}/sub-")
    rows = rows.replace("resp_", f"{folder}/resp_")
    extra = f"flat\tflat_dwi.nii.gz\t{folder}/resp_wm.txt\t{folder}/resp_csf.txt\n"
    (tmp_path / "subjects.tsv").write_text(rows + extra)
    result = run("train", "shd-s-tv", "--subjects", tmp_path / "subjects.tsv", "-o",
                 tmp_path / "model.safetensors", code=2)  # fmt: skip
    said = " ".join(result.output.split())
    assert "flat: flat_dwi has 3 b0 and no diffusion-weighted shell; check its bval" in said
