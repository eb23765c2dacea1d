"""The command line: every verb, its files and exit codes, and refusals in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path  # noqa: TC003

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri.cli import app
from napari_dmri.commands.console import spread
from napari_dmri.errors import Cancelled, InputError

runner = CliRunner()
SHAPE = (10, 9, 8)
AFFINE = np.diag([2.0, 2.0, 2.5, 1])


def directions(count: int, turn: float) -> np.ndarray:
    k = np.arange(count) + 0.5
    z, phi = k / count, np.pi * (1 + 5**0.5) * k + turn
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def write(path: Path, *, turn=0.0, factor=1.0, seed=0, subject=None) -> Path:
    """Write a small scan: three slabs of tissue in noise, 2 b0 + 30 directions."""
    g = directions(30, turn)
    bvalues = np.r_[0, 0, np.full(30, 1000)]
    tensors = [np.diag([0.4e-3, 1.7e-3, 0.4e-3]), np.diag([0.8e-3] * 3), np.diag([3e-3] * 3)]
    data = np.zeros((*SHAPE, 32))
    for slab, (tensor, b0) in enumerate(zip(tensors, (600, 900, 1500), strict=True)):
        decay = np.exp(-1000 * factor * np.einsum("vi,ij,vj->v", g, tensor, g))
        data[2 + 2 * slab : 4 + 2 * slab, 1:8, 1:7] = b0 * np.r_[1, 1, decay]
    noise = np.random.default_rng(seed).normal(0, 10, data.shape)
    data = np.where(data > 0, np.abs(data + noise), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), path)
    stem = path.name.removesuffix(".nii.gz").removesuffix(".nii")
    np.savetxt(path.with_name(f"{stem}.bval"), bvalues[None], fmt="%g")
    # FSL's vectors are in voxel axes with x negated, as this affine's determinant is positive.
    fsl = np.r_[np.zeros((2, 3)), g] * [-1, 1, 1]
    np.savetxt(path.with_name(f"{stem}.bvec"), fsl.T, fmt="%.6f")
    if subject:
        sidecar = {"SubjectLabel": subject}
        path.with_name(f"{stem}.json").write_text(json.dumps(sidecar))
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 1:8, 1:7] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), path.with_name(f"{stem}_mask.nii.gz"))
    return path


@pytest.fixture
def scan(tmp_path) -> Path:
    return write(tmp_path / "in put" / "häupt.nii.gz")


def renamed(scan: Path) -> tuple[Path, Path]:
    """Give a scan's gradient files names by which they are not found beside it."""
    stem = scan.name.removesuffix(".nii.gz")
    files = [scan.with_name(f"{stem}.{end}") for end in ("bval", "bvec")]
    return tuple(file.rename(file.with_name(f"of {file.name}.txt")) for file in files)


@pytest.fixture
def mask(scan) -> Path:
    return scan.with_name("häupt_mask.nii.gz")


def run(*args, code=0):
    result = runner.invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    if code == 2:
        assert "Traceback" not in result.output
    return result


def refused(*args, words: str, nothing_in: Path | None = None) -> None:
    before = sorted(nothing_in.rglob("*")) if nothing_in else []
    result = run(*args, code=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert result.stdout == ""
    if nothing_in:
        assert sorted(nothing_in.rglob("*")) == before


def test_help_lists_every_verb_and_starts_without_heavy_imports():
    shown = run("--help").stdout
    for verb in [
        "info",
        "fit-sh",
        "tensor",
        "mask",
        "response",
        "harmonize",
        "deconvolve",
        "peaks",
        "compare",
        "view",
        "demo",
        "phantom",
    ]:
        assert verb in shown
    code = (
        "import sys; import napari_dmri.cli; "
        "print({'torch', 'dipy', 'nibabel', 'matplotlib', 'napari'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert run("--version").stdout.strip()


def test_info_prints_words_or_pure_json(scan):
    assert "30 at b=1000" in run("info", scan).stdout
    about = json.loads(run("info", scan, "--json").stdout)
    assert about["shape"] == [*SHAPE, 32]


def test_fit_sh_writes_coefficients_and_says_the_order(scan, mask, tmp_path):
    out = tmp_path / "sh.nii.gz"
    said = run("fit-sh", scan, "-o", out, "--mask", mask).stdout
    assert "order 4 chosen: 15 coefficients for 30 directions" in said
    assert nib.load(out).shape == (*SHAPE, 15)
    lower = run("fit-sh", scan, "-o", tmp_path / "2.nii", "--order", 2, "--smooth", 0, "--json")
    result = json.loads(lower.stdout)
    assert (result["order"], result["smooth"], result["shell"]) == (2, 0, 1000)
    said = run("fit-sh", scan, "-o", tmp_path / "3.nii", "--basis", "descoteaux07", "-q").stdout
    assert said == ""


def test_tensor_writes_its_maps(scan, mask, tmp_path):
    run("tensor", scan, "-o", tmp_path / "dti", "--mask", mask, "--method", "ols")
    fa = nib.load(tmp_path / "dti" / "FA.nii.gz").get_fdata()
    assert fa[3, 4, 4] > 0.6
    assert fa[5, 4, 4] < 0.15
    assert nib.load(tmp_path / "dti" / "colour_FA.nii.gz").shape == (*SHAPE, 3)
    refused("tensor", scan, "-o", tmp_path / "dti", words="holds earlier results")
    run("tensor", scan, "-o", tmp_path / "dti", "--mask", mask, "--overwrite")


def test_mask_is_written(scan, tmp_path, monkeypatch):
    from napari_dmri.signal import mask as module

    inside = np.zeros(SHAPE, bool)
    inside[2:8] = True
    monkeypatch.setattr(module, "brain_mask", lambda s, progress=None: inside)
    result = json.loads(run("mask", scan, "-o", tmp_path / "m.nii.gz", "--json").stdout)
    assert result["voxels"] == inside.sum()
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii.gz").get_fdata(), inside)


def test_targets_are_refused_before_any_work(scan, tmp_path):
    (tmp_path / "there.nii.gz").write_text("mine")
    args = ("fit-sh", scan, "-o")
    refused(*args, tmp_path / "there.nii.gz", words="exists already", nothing_in=tmp_path)
    refused(*args, tmp_path / "sh.txt", words=".txt", nothing_in=tmp_path)
    refused(*args, tmp_path, words="no suffix" if "." not in tmp_path.name else "ends")
    refused("tensor", scan, "-o", tmp_path / "there.nii.gz", words="is a file")
    assert (tmp_path / "there.nii.gz").read_text() == "mine"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.unlink(), "häupt"),
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), "häupt"),
        (lambda p: p.write_bytes(b"not an image at all"), "häupt"),
        (lambda p: p.with_name("häupt.bval").unlink(), "bval"),
        (lambda p: p.with_name("häupt.bval").write_text(""), "bval"),
        (lambda p: p.with_name("häupt.bval").write_text("0 1000 1000"), "3"),
        (lambda p: p.with_name("häupt.bvec").write_text("0 one 0"), "bvec"),
    ],
)
def test_bad_scans_are_one_sentence_for_every_verb(scan, tmp_path, spoil, words):
    spoil(scan)
    out = tmp_path / "out.nii.gz"
    refused("info", scan, words=words, nothing_in=tmp_path)
    refused("fit-sh", scan, "-o", out, words=words, nothing_in=tmp_path)
    refused("tensor", scan, "-o", tmp_path / "dti", words=words, nothing_in=tmp_path)


def test_bad_settings_are_one_sentence(scan, tmp_path):
    out = tmp_path / "out.nii.gz"
    refused("fit-sh", scan, "-o", out, "--order", 8, words="45 coefficients")
    refused("fit-sh", scan, "-o", out, "--order", 3, words="even")
    refused("fit-sh", scan, "-o", out, "--shell", 3000, words="No shell at b=3000")
    refused("fit-sh", scan, "-o", out, "--device", "tpu", words="'tpu' is not available")
    assert not out.exists()
    assert run("fit-sh", scan, code=2).stderr  # the option -o is missing


def test_a_mask_on_another_grid_is_refused(scan, tmp_path):
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE), other)
    refused("tensor", scan, "-o", tmp_path / "o", "--mask", other, words="another grid")


def test_warnings_are_lines_on_stderr_once(scan):
    bvec = scan.with_name("häupt.bvec")
    np.savetxt(bvec, np.loadtxt(bvec) * 1.05, fmt="%.6f")
    result = run("info", scan, "--json")
    lines = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(lines) == 1
    json.loads(result.stdout)


def test_compare_writes_everything_with_a_reference(scan, mask, tmp_path):
    other = write(tmp_path / "b.nii.gz", turn=1.0, factor=0.8, seed=1)
    out = tmp_path / "compared"
    args = ("compare", scan, other, "--mask", mask, "--reference", scan)
    result = json.loads(run(*args, "--map", "FA", "RISH2", "-o", out, "--json").stdout)
    assert {row["region"].split(": ")[0] for row in result["rows"]} == {"FA", "RISH2"}
    white = next(row for row in result["rows"] if row["region"] == "FA: white matter")
    assert white["NMSE A"] == 0
    assert white["NMSE B"] > 0
    assert (out / "RISH2_panels.png").stat().st_size > 5000
    assert "spherical harmonics" in (out / "methods.txt").read_text()
    refused(*args, "-o", out, words="holds earlier results")


def test_compare_takes_gradients_of_other_names(scan, mask, tmp_path):
    other = write(tmp_path / "b.nii.gz", turn=1.0, factor=0.8, seed=1)
    base = ("compare", scan, other, "--mask", mask, "--map", "FA")
    expected = json.loads(run(*base, "-o", tmp_path / "o", "--json").stdout)["rows"]
    (bval, bvec), (bval2, bvec2) = renamed(scan), renamed(other)
    args = (*base, "-o", tmp_path / "p")
    refused(*args, words="of one kind; these are")
    refused(*args, "--bval", bval, words="1 --bval and 0 --bvec files were given for 2 scans")
    each = ("--bval", bval, bval2, "--bvec", bvec, bvec2)
    assert json.loads(run(*args, *each, "--json").stdout)["rows"] == expected
    one = ("--bval", bval, "--bvec", bvec, "-o", tmp_path / "q", "--json")
    same = ("compare", scan, scan, "--mask", mask, "--map", "FA")
    assert all(row["NMSE"] == 0 for row in json.loads(run(*same, *one).stdout)["rows"])
    maps = ("compare", mask, mask, "--bval", bval, "--bvec", bvec, "-o", tmp_path / "r")
    refused(*maps, words="are for scans")


def test_compare_takes_maps_and_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int16)
    labels[:5], labels[5:] = 4, 9
    data = {"a": rng.random(SHAPE), "b": rng.random(SHAPE)}
    for name, values in data.items():
        nib.save(nib.Nifti1Image(values.astype(np.float32), AFFINE), tmp_path / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "seg.nii.gz")
    a, b, seg = (tmp_path / f"{n}.nii.gz" for n in ("a", "b", "seg"))
    said = run("compare", a, b, "--labels", seg, "--mode", "ratio", "-o", tmp_path / "o").stdout
    assert "label 4\t" in said
    assert "label 9\t" in said
    refused("compare", a, b, "--map", "FA", "-o", tmp_path / "p", words="maps already")
    nib.save(nib.Nifti1Image(labels, np.diag([3.0, 2, 2.5, 1])), seg)
    refused("compare", a, b, "--labels", seg, "-o", tmp_path / "p", words="one grid")
    assert not (tmp_path / "p").exists()


def test_compare_refuses_what_does_not_belong_together(scan, mask, tmp_path):
    out = tmp_path / "o"
    refused("compare", scan, mask, "-o", out, words="all of one kind")
    refused("compare", scan, scan, "--map", "XY", "-o", out, "--mask", mask, words="map XY")
    image = nib.load(scan)
    moved = write(tmp_path / "moved.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata(), np.diag([3.0, 2, 2.5, 1])), moved)
    refused("compare", scan, moved, "-o", out, words="one grid")
    assert not out.exists()


class Gain:
    """A harmonizer for tests: multiplies the weighted volumes by a gain."""

    def __init__(self, order=None, smooth=0.006, shell=None, card=None):
        self.card = card

    def fit(self, pairs, *, device="auto", progress=None):
        subjects = [p.subject for p in pairs]
        self.card = {"kind": "harmonizer", "method": "gain", "label": "Gain", "order": 4}
        self.card |= {"shell": 1000.0, "source_site": "a", "target_site": "b"}
        self.card |= {"subjects": subjects, "simulated": True}
        progress(1.0, "trained")
        return self

    def apply_detailed(self, scan, *, device="auto", progress=None):
        from napari_dmri import ScalarImage
        from napari_dmri.harmonize import Harmonization

        progress(0.5, "harmonizing")
        data = scan.volumes().copy()
        data[..., ~scan.gradients.b0_mask] *= 1.1
        maps = {"scale l=2 b=1000": ScalarImage(np.full(scan.grid, 1.1, "f4"), scan.affine)}
        return Harmonization(replace(scan, data=data, name="harmonized"), maps, ("multiplied",))

    def apply(self, scan, *, device="auto", progress=None):
        return self.apply_detailed(scan, progress=progress).scan

    def save(self, path, overwrite=False):
        from napari_dmri.training.checkpoint import save_checkpoint

        return save_checkpoint(path, {"gain": np.ones(1, np.float32)}, self.card, overwrite)

    @classmethod
    def from_checkpoint(cls, tensors, card):
        return cls(card=card)


@pytest.fixture
def gain(monkeypatch):
    from napari_dmri import harmonize

    class Listed:
        name = "gain"

        def make(self, **settings):
            return Gain(**settings)

        def load_class(self):
            return Gain

    monkeypatch.setitem(harmonize.METHODS, "gain", Listed())


@pytest.fixture
def model(gain, tmp_path) -> Path:
    """Train on one pair, and return the model's file."""
    write(tmp_path / "t" / "s.nii.gz", turn=0.2)
    write(tmp_path / "t" / "t.nii.gz", turn=0.7, factor=0.8)
    pairs = tmp_path / "t" / "pairs.tsv"
    pairs.write_text("subject\tsource\ttarget\n01\ts.nii.gz\tt.nii.gz\n")
    said = run("harmonize", "train", "gain", "--pairs", pairs, "-o", tmp_path / "model").stdout
    assert "demo only" in said
    return tmp_path / "model.safetensors"


def test_train_needs_one_list_and_a_known_method(gain, tmp_path):
    args = ("harmonize", "train")
    out = tmp_path / "m.safetensors"
    refused(*args, "magic", "--pairs", "x.tsv", "-o", out, words="choose one of linear-rish")
    refused(*args, "gain", "-o", out, words="none was given")
    refused(*args, "gain", "--pairs", "x", "--groups", "y", "-o", out, words="both were given")
    refused(*args, "gain", "--pairs", tmp_path / "no.tsv", "-o", out, words="no.tsv")
    assert list(tmp_path.iterdir()) == []


def test_apply_one_scan_to_one_file(model, scan, tmp_path):
    out = tmp_path / "done.nii.gz"
    said = run("harmonize", "apply", model, scan, "-o", out).stdout
    assert "multiplied" in said
    before, after = (np.asarray(nib.load(p).dataobj) for p in (scan, out))
    np.testing.assert_allclose(after[..., 2:], 1.1 * before[..., 2:], rtol=1e-5)
    assert out.with_name("done.bvec").is_file()
    refused("harmonize", "apply", model, scan, "-o", out, words="exists already")


def test_apply_writes_maps_on_request(model, scan, tmp_path):
    args = ("harmonize", "apply", model, scan, "--maps", "-o")
    said = run(*args, tmp_path / "done.nii.gz").stdout
    maps = tmp_path / "done_maps"
    assert str(maps) in said
    assert {p.name for p in maps.glob("*.nii.gz")} == {"scale_l=2_b=1000.nii.gz"}
    assert nib.load(maps / "scale_l=2_b=1000.nii.gz").get_fdata().max() == pytest.approx(1.1)
    (tmp_path / "other_maps").mkdir()
    (tmp_path / "other_maps" / "mine").touch()
    refused(*args, tmp_path / "other.nii.gz", words="other_maps exists already")
    run(*args, tmp_path / "folder")
    assert (tmp_path / "folder" / "häupt_harmonized_maps").is_dir()
    run(*args, tmp_path / "folder", "--overwrite")


def test_apply_takes_gradient_files_of_one_scan(model, scan, tmp_path):
    both = []
    for ending in ("bval", "bvec"):
        both += [f"--{ending}", scan.with_name(f"häupt.{ending}").rename(tmp_path / f"t.{ending}")]
    args = ("harmonize", "apply", model, scan, "-o", tmp_path / "done.nii.gz")
    refused(*args, words="--bval, --bvec")
    run(*args, *both)
    twin = write(tmp_path / "twin" / "b.nii.gz")
    refused(*args[:4], twin, "-o", tmp_path / "out", *both, words="One gradient table was given")


def test_train_on_one_source_site_of_several(gain, tmp_path):
    for name, turn in (("a", 0.2), ("b", 0.4), ("t", 0.7)):
        write(tmp_path / f"{name}.nii.gz", turn=turn)
    pairs = tmp_path / "pairs.tsv"
    rows = [["subject", "source", "target", "source_site"]]
    rows += [["01", f"{name}.nii.gz", "t.nii.gz", name] for name in "ab"]
    pairs.write_text("\n".join("\t".join(row) for row in rows) + "\n")
    out = tmp_path / "m.safetensors"
    args = ("harmonize", "train", "gain", "--pairs", pairs, "-o", out)
    refused(*args, words="2 source sites (a, b) and a model maps one; choose it")
    card = json.loads(run(*args, "--source-site", "b", "--json").stdout)["card"]
    assert card["subjects"] == ["01"]


def test_apply_a_folder_goes_on_after_a_failure(model, tmp_path):
    folder = tmp_path / "many"
    write(folder / "x" / "one.nii.gz")
    write(folder / "two.nii.gz")
    (folder / "three.nii.gz").write_bytes(b"broken")
    out = tmp_path / "out"
    run("harmonize", "apply", model, folder, "-o", out, code=1)
    rows = [r.split("\t") for r in (out / "summary.tsv").read_text().splitlines()[1:]]
    assert sorted(row[1] for row in rows) == ["done", "done", "failed"]
    assert (out / "x" / "one_harmonized.nii.gz").is_file()
    assert (out / "two_harmonized.nii.gz").is_file()
    assert not list(out.rglob("three*"))
    assert not list(out.rglob(".tmp*"))


def test_apply_refuses_before_it_begins(model, scan, mask, tmp_path):
    args = ("harmonize", "apply", model)
    out = tmp_path / "out"
    refused(*args, tmp_path / "none.nii.gz", "-o", out, words="No file or folder")
    (tmp_path / "empty").mkdir()
    refused(*args, tmp_path / "empty", "-o", out, words="No scan in the folder")
    twin = write(tmp_path / "twin" / scan.name)
    refused(*args, scan, twin, "-o", out, words="would both become")
    refused(*args, scan, scan.parent, "-o", out, "--mask", mask, words="One mask")
    refused(*args, scan, twin, "-o", mask, words="is a file")
    model.write_bytes(model.read_bytes()[:40])
    refused(*args, scan, "-o", out, words="model.safetensors")
    assert not out.exists()


def test_evaluate_writes_tables_of_unseen_subjects(model, tmp_path):
    write(tmp_path / "e" / "s.nii.gz", turn=0.2, seed=2)
    write(tmp_path / "e" / "t.nii.gz", turn=0.7, factor=0.8, seed=3)
    write(tmp_path / "e" / "r.nii.gz", turn=0.7, factor=0.8, seed=4)
    pairs = tmp_path / "e" / "pairs.tsv"
    header = "subject\tsource\ttarget\tsource_mask\ttarget_mask\ttarget_repeat\n"
    row = "\ts.nii.gz\tt.nii.gz\ts_mask.nii.gz\tt_mask.nii.gz\tr.nii.gz\n"
    pairs.write_text(f"{header}02{row}")
    out = tmp_path / "evaluated"
    args = ("harmonize", "evaluate", model, "--pairs", pairs, "-o", out)
    result = json.loads(run(*args, "--json").stdout)
    assert [r["scan"] for r in result["mean"]["rows"]][-1] == "target repeat, refitted (floor)"
    assert (out / "evaluation.tsv").read_text().splitlines()[1].startswith("02: source, raw")
    refused(*args, words="holds earlier results")
    several = header.replace("\n", "\tsource_site\n") + "".join(
        f"02{row[:-1]}\t{site}\n" for site in ("other", "a")
    )
    pairs.write_text(several)
    only = json.loads(run(*args[:-1], tmp_path / "of_a", "--json").stdout)
    assert only["mean"] == result["mean"]  # the model's own source site is a
    pairs.write_text(f"{header}01{row}")
    refused(*args[:-1], tmp_path / "no", words="trained on", nothing_in=tmp_path)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled])
def test_ctrl_c_leaves_nothing_and_exits_130(model, scan, tmp_path, monkeypatch, stop):
    def stopped(self, scan, *, device="auto", progress=None):
        raise stop

    monkeypatch.setattr(Gain, "apply_detailed", stopped)
    before = sorted(tmp_path.rglob("*"))
    result = run("harmonize", "apply", model, scan.parent, "-o", tmp_path / "out", code=130)
    assert "Stopped" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_real_interrupt_stops_the_process_cleanly(scan, mask, tmp_path):
    """Send SIGINT while the program fits; it ends with 130 and no file."""
    code = (
        "import signal, time, napari_dmri.signal.tensor as t\n"
        # A shell starts background jobs with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(*a, progress, **k):\n"
        "    print('begun', flush=True)\n"
        "    while True:\n"
        "        progress(0.1, 'fitting'); time.sleep(0.02)\n"
        "t.fit_tensor = slow\n"
        "from napari_dmri.cli import app\n"
        f"app(['tensor', {str(scan)!r}, '-o', {str(tmp_path / 'dti')!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().strip() == "begun"
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "dti").exists()


def test_phantom_takes_sites_in_a_row(tmp_path, monkeypatch):
    from napari_dmri.phantom import travelling

    seen = {}

    def make(out, **kwargs):
        seen.update(kwargs, out=out)
        return out

    monkeypatch.setattr(travelling, "make_travelling", make, raising=False)
    args = ("phantom", tmp_path / "p", "--subjects", 3, "--sites", "ge_st", "prisma_st")
    run(*args, "--size", "medium", "--seed", 9, "--resume")
    assert seen["sites"] == ("ge_st", "prisma_st")
    assert (seen["subjects"], seen["size"], seen["seed"], seen["resume"]) == (3, "medium", 9, True)
    refused("phantom", tmp_path / "p", "--subjects", 0, words="at least 1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("out --s a b", "out --s a --s b"),
        ("out --s a,b -q", "out --s a --s b -q"),
        ("--s a --s b --x 1 out", "--s a --s b --x 1 out"),
        ("--s=a b -- out", "--s a --s b -- out"),
        ("out --s", "out --s"),
        ("out -q 1", "out -q 1"),
    ],
)
def test_values_in_a_row_become_repeated_options(given, expected):
    assert " ".join(spread(given.split(), {"--s"})) == expected


def test_view_and_demo_hand_over_to_the_viewer(scan, mask, tmp_path, monkeypatch):
    import types

    seen = []
    launch = types.SimpleNamespace(
        view_files=lambda paths, **options: seen.append((list(paths), options))
    )
    shown = types.SimpleNamespace(run_demo=lambda **kwargs: seen.append(kwargs))
    monkeypatch.setitem(sys.modules, "napari_dmri.viewer.launch", launch)
    monkeypatch.setitem(sys.modules, "napari_dmri.viewer.demo", shown)
    run("view", scan, scan)
    run("demo", "--scan", scan, "-o", tmp_path / "d", "--headless")
    plain = {"basis": None, "side_by_side": False, "gradients": None}
    assert seen[0] == ([scan, scan], plain)
    assert seen[1] == {"scan": scan, "out": tmp_path / "d", "headless": True}
    run("view", scan, "--basis", "descoteaux07", "--side-by-side")
    assert seen[2] == ([scan], {**plain, "basis": "descoteaux07", "side_by_side": True})
    bval, bvec = renamed(scan)
    run("view", scan, mask, "--bval", bval, "--bvec", bvec)
    assert seen[3] == ([scan, mask], {**plain, "gradients": (bval, bvec)})
    refused("view", scan, "--bval", bval, words="give both")
    refused("view", mask, "--bval", bval, "--bvec", bvec, words="0 4D images")
    refused("view", scan, scan, "--bval", bval, "--bvec", bvec, words="2 4D images")
    refused("view", tmp_path / "none.nii", words="No file")
    refused("demo", "--scan", tmp_path / "none.nii", words="No scan")


def test_read_only_folders_are_refused(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: how == os.R_OK)
    refused("fit-sh", scan, "-o", tmp_path / "ro" / "x.nii.gz", words="read-only")
    refused("tensor", scan, "-o", tmp_path / "ro", words="read-only")


def test_trouble_with_disk_and_memory_is_a_sentence(scan, monkeypatch):
    from napari_dmri.signal import quality

    for trouble, words in [
        (MemoryError(), "Not enough memory"),
        (PermissionError(13, "Permission denied", "x"), "Permission denied (x)"),
        (InputError("two\nlines"), "two lines"),
    ]:

        def broken(scan, trouble=trouble, **settings):
            raise trouble

        monkeypatch.setattr(quality, "describe_scan", broken)
        refused("info", scan, words=words)
