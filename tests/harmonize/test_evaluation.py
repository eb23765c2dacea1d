"""Cross-validation: folds, the check that nobody tested was trained on, resume, tables."""

import json
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

from napari_dmri import Cancelled, DmriWarning, InputError
from napari_dmri.harmonize import GolkovHarmonizer, Pair, evaluation, load
from napari_dmri.harmonize.contenders import (
    SWEEP,
    Case,
    Fold,
    contender,
    make_folds,
    read_cases,
)
from napari_dmri.harmonize.evaluation import cross_validate, read_refusals, read_scores
from napari_dmri.harmonize.evaluation_plan import Settings
from napari_dmri.harmonize.evaluation_report import closed, report_tables, write_report
from napari_dmri.harmonize.evaluation_rows import FLOOR, REFITTED, baselines, on_grid
from napari_dmri.images import ScalarImage
from napari_dmri.progress import silent
from napari_dmri.training import Stage

from .conftest import AFFINE, subject_pair

STAGES = (Stage("adam", 3e-3, 256, 3),)
QUICK = {"contenders": ("golkov",), "stages": STAGES, "folds": 2, "device": "cpu"}


@dataclass(frozen=True)
class Loaded:
    """A repeat scan in memory."""

    scan: object

    def load(self):
        return self.scan


def noisy(scan, seed):
    rng = np.random.default_rng(seed)
    data = np.asarray(scan.data)
    data = data + 12 * rng.standard_normal(data.shape) * (data > 0)
    return replace(scan, data=data.astype(np.float32))


def case(n):
    pair = subject_pair(n)
    labels = np.asarray(pair.source.mask).astype(np.int16)
    labels[: labels.shape[0] // 2] *= 2
    scans = Pair(noisy(pair.source, n), noisy(pair.target, 50 + n), f"sub-{n}", labels)
    return Case(scans, Loaded(noisy(pair.target, 90 + n)))


@pytest.fixture(scope="module")
def cases():
    return [case(n) for n in range(1, 5)]


@pytest.fixture(scope="module")
def done(cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("cv") / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        scores = cross_validate(cases, out, **QUICK)
    return out, scores


def test_each_subject_is_tested_once_and_never_trained_on():
    subjects = [f"sub-{n:02d}" for n in range(1, 11)]
    folds = make_folds(subjects, 10, seed=3)
    assert sorted(s for f in folds for s in f.test) == subjects
    for fold in folds:
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (8, 1, 1)
        assert len({*fold.train, *fold.validation, *fold.test}) == 10
    assert sorted(f.validation[0] for f in folds) == subjects
    assert folds == make_folds(subjects, 10, seed=3) != make_folds(subjects, 10, seed=4)
    assert [len(f.test) for f in make_folds(subjects, 3)] == [4, 3, 3]
    for subjects, count in ((["a", "b"], 2), (["a", "b", "c"], 4), (["a", "b", "c"], 1)):
        with pytest.raises(InputError, match="at least 3 subjects"):
            make_folds(subjects, count)


def test_contenders_have_names():
    tiled = contender("shresnet-2-tiled").settings
    assert tiled == {"blocks": 2, "mode": "tiled", "energy": 1.0}
    assert contender("shresnet-2-mse").settings == {"blocks": 2, "mode": "paper", "energy": 0.0}
    assert contender("shresnet-2-tiled-mse").rows[0] == ("SHResNet n=2 tiled MSE", False)
    assert contender("golkov").settings == {"energy": 0.0}
    sharp = contender("linear-rish-1e-5")
    assert sharp.settings == {"smooth": 1e-5} and sharp.rows[0][0] == "LinearRISH, lambda 1e-05"
    assert contender("golkov-energy").rows[0] == ("Golkov with energy", False)
    assert contender("shresnet-11").rows[1] == ("SHResNet n=11, projected", True)
    assert [contender(n).settings["blocks"] for n in SWEEP] == [1, 2, 3, 6, 7, 9, 11]
    for name in ("resnet", "shresnet", "shresnet-2-both"):
        with pytest.raises(InputError, match="Unknown contender"):
            contender(name)


def test_a_cross_validation_scores_everybody_with_unseen_models(done, cases):
    out, scores = done
    rows = {s["row"] for s in scores}
    assert {"source, raw", "source, refitted", "Golkov"} <= rows
    assert {"target repeat, raw", "target repeat, refitted (floor)"} <= rows
    for row in rows:
        assert sorted(s["subject"] for s in scores if s["row"] == row) == [c.subject for c in cases]
    for score in scores:
        model = load(out / f"fold-{score['fold']:02d}" / "golkov.safetensors")
        assert score["subject"] not in model.card["subjects"]

    def mean(row, column):
        return np.mean([s[column] for s in scores if s["row"] == row])

    for column in ("signal WM", "signal GM"):
        floor = mean("target repeat, refitted (floor)", column)
        assert floor < mean("source, refitted", column) < mean("source, raw", column)
    assert read_scores(out) == scores
    assert not list(out.rglob("*.state.*"))


def test_what_is_done_is_not_done_again(done, cases, monkeypatch):
    out, scores = done
    monkeypatch.setattr(evaluation, "_trained", None)
    assert cross_validate(cases, out, **QUICK) == scores
    with pytest.raises(InputError, match=r"other settings .*seed: 0 then, 1 now"):
        cross_validate(cases, out, **QUICK, seed=1)
    with pytest.raises(InputError, match="numbered 1 to 2"):
        cross_validate(cases, out, **QUICK, only=[7])


def test_tissue_of_another_grid_is_refused(cases):
    elsewhere = AFFINE + np.outer([4, 0, 0, 0], [0, 0, 0, 1])
    labels = ScalarImage(cases[0].pair.tissue, elsewhere, "l1")
    bad = replace(cases[0], pair=replace(cases[0].pair, tissue=labels))
    with pytest.raises(InputError, match=r"\(l1\) and sub-1 b .* lie up to 4 mm apart"):
        baselines(bad, Settings(1200.0, 4), Fold(1, (), (), ()), "cpu", silent)


def test_a_stray_card_is_found_before_a_fold_trains(cases, tmp_path, monkeypatch):
    (tmp_path / "fold-01").mkdir(parents=True)
    (tmp_path / "fold-01" / "golkov.json").write_text("{}")
    monkeypatch.setattr(GolkovHarmonizer, "fit", None)
    with pytest.raises(InputError, match=r"golkov\.json, where the model's card goes, exists"):
        fold = Fold(1, ("sub-1", "sub-2"), ("sub-3",), ("sub-4",))
        by_name = {case.subject: case for case in cases}
        settings = Settings(1200.0, 4)
        one = contender("golkov")
        evaluation._trained(one, by_name, tmp_path / "fold-01", settings, fold, "cpu", silent)


def test_a_stopped_cross_validation_goes_on_to_the_same_scores(done, cases, tmp_path):
    out = tmp_path / "cv"
    calls = 0

    def stop(fraction, text):
        nonlocal calls
        calls += "golkov: epoch 2" in text
        if calls == 5:
            raise Cancelled

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        with pytest.raises(Cancelled):
            cross_validate(cases, out, **QUICK, only=[1], progress=stop)
        assert (out / "fold-01" / "golkov.state.safetensors").is_file()
        assert not (out / "fold-01" / "golkov.safetensors").exists()
        found = cross_validate(cases, out, **QUICK, only=[1])
    assert found == [s for s in done[1] if s["fold"] == 1]


def test_a_model_that_has_seen_the_subject_is_refused(done, cases, tmp_path):
    out, _ = done
    copy = tmp_path / "cv"
    (copy / "fold-01").mkdir(parents=True)
    (copy / "evaluation.json").write_text((out / "evaluation.json").read_text())
    wrong = (out / "fold-02" / "golkov.safetensors").read_bytes()
    (copy / "fold-01" / "golkov.safetensors").write_bytes(wrong)
    with pytest.raises(InputError, match="that this model was trained on"):
        cross_validate(cases, copy, **QUICK, only=[1])
    assert not (copy / "fold-01" / "scores_golkov.json").exists()


def shifted(scan):
    """Put a scan elsewhere in the scanner, by whole and half voxels."""
    affine = scan.affine.copy()
    affine[:3, 3] += (2.4, -4.8, 1.2)
    return replace(scan, affine=affine)


def test_scans_on_other_grids_are_moved_to_the_target(done, cases, tmp_path):
    out, scores = done
    tested = next(
        c for c in cases if any(s["fold"] == 1 and s["subject"] == c.subject for s in scores)
    )
    pair = replace(tested.pair, source=shifted(tested.pair.source))
    moved = replace(tested, pair=pair, repeat=Loaded(shifted(tested.repeat.scan)))
    (tmp_path / "fold-01").mkdir()
    model = (out / "fold-01" / "golkov.safetensors").read_bytes()
    (tmp_path / "fold-01" / "golkov.safetensors").write_bytes(model)
    settings = evaluation.Settings(1200.0, 4, contenders=("golkov",))
    fold = Fold(1, (), (), (tested.subject,))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        evaluation.run_fold([moved], tmp_path, settings, fold, "cpu")
    said = " ".join(str(w.message) for w in told)
    for role in ("source", "repeat"):
        assert f"{tested.subject}: the {role} (22 x 26 x 12 voxels" in said
    assert "moved to the target's grid" in said and "Interpolation smooths it" in said
    before = {s["row"]: s for s in scores if s["subject"] == tested.subject}
    found = read_scores(tmp_path)
    assert {s["row"] for s in found} == set(before)
    for score in found:
        assert score["signal WM"] < 3 * before[score["row"]]["signal WM"]
    source = tested.pair.source
    small = replace(source, affine=np.diag([0.3, 0.3, 0.3, 1]))
    with pytest.raises(InputError, match="cannot be aligned rigidly"):
        on_grid(small, source, "sub-1", settings.recipe, "source", "cpu")


def test_a_models_evaluation_moves_scans_and_leaves_out_what_they_lack(cases):
    from napari_dmri.commands.batch import on_one_grid

    pair, recipe = cases[0].pair, evaluation.Settings(1200.0, 4).recipe
    same = on_one_grid(pair.source, pair.target, cases[0].repeat.scan, "s", recipe, "cpu")
    assert same[0] is pair.source and same[1] is cases[0].repeat.scan and same[2] is None
    shift = np.eye(4)
    shift[0, 3] = 2
    cut = replace(
        pair.source,
        data=pair.source.data[2:],
        mask=pair.source.mask[2:],
        affine=pair.source.affine @ shift,
    )
    with pytest.warns(DmriWarning, match="s: the source .* was moved"):
        moved, repeat, labels = on_one_grid(cut, pair.target, None, "s", recipe, "cpu")
    assert moved.grid == pair.target.grid and repeat is None
    assert labels is not None and labels.any() and not labels[~moved.mask].any()
    assert not moved.mask[:2].any()


def test_folders_of_something_else_are_refused(cases, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"holds no evaluation\.json"):
        cross_validate(cases, tmp_path, **QUICK)
    (tmp_path / "damaged").mkdir()
    card = tmp_path / "damaged" / "evaluation.json"
    for text, words in (('{"shell": 12', "cannot be read"), ("{}", "not the card of a cross")):
        card.write_text(text)
        with pytest.raises(InputError, match=words):
            cross_validate(cases, tmp_path / "damaged", **QUICK)
        assert card.read_text() == text
    with pytest.raises(InputError, match="No subjects"):
        cross_validate([], tmp_path / "new", **QUICK)
    with pytest.raises(InputError, match="no scores"):
        read_scores(tmp_path)


def test_energies_of_the_target_itself_have_no_error(cases):
    from napari_dmri.compare.scores import Reference
    from napari_dmri.harmonize import refit

    target, labels = cases[0].pair.target, cases[0].pair.tissue
    reference = Reference(target, labels, 1200.0, 4, device="cpu")
    itself = reference.score(target)
    again = reference.score(refit(target, 4, 0.006), smoothed=True)
    for order in (0, 2, 4):
        assert itself[f"RISH{order} WM"] == 0
        assert again[f"RISH{order} WM"] < 1e-4
        # Smoothed twice, the higher orders are too small.
        if order:
            assert reference.score(refit(target, 4, 0.006))[f"RISH{order} WM"] > 1e-3


def test_other_people_of_the_same_names_are_refused(done, cases):
    out, _ = done
    others = [replace(case(n + 10), pair=replace(case(n + 10).pair, subject=c.subject))
              for n, c in enumerate(cases)]  # fmt: skip
    with pytest.raises(InputError, match=r"with other settings \(other scans\)"):
        cross_validate(others, out, **QUICK, only=[1])


def test_a_subject_that_is_refused_is_named_and_the_others_go_on(cases, tmp_path):
    foreign = subject_pair(7)
    odd = replace(foreign.source, data=np.abs(np.asarray(foreign.source.data)) * 0 + 5)
    pair = replace(cases[0].pair, source=odd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        trained = cross_validate(cases, tmp_path / "a", **QUICK, only=[1])
    tested = {s["subject"] for s in trained if s["row"] == "Golkov"}
    # A model of this fold meets another scan of one of its test subjects.
    some = next(c for c in cases if c.subject in tested)
    mixed = [c if c is not some else replace(c, pair=replace(some.pair, source=pair.source))
             for c in cases]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        scores = cross_validate(mixed, tmp_path / "b", **QUICK, only=[1])
    golkov = {s["subject"] for s in scores if s["row"] == "Golkov"}
    assert golkov == tested - {some.subject}
    refused = read_refusals(tmp_path / "b")
    assert len(refused) == 1 and refused[0].startswith(f"{some.subject}, Golkov: ")
    assert "another kind" in refused[0] or "unlike" in refused[0]
    notes = report_tables(scores, refused=refused)["mean"].notes
    assert notes[-1] == f"Refused: {refused[0]}"


def test_the_models_of_one_cohort_are_scored_on_another(cases, done, tmp_path, monkeypatch):
    out, _ = done
    others = [
        replace(case(n + 20), pair=replace(case(n + 20).pair, subject=f"new-{n}"))
        for n in range(1, 5)
    ]
    monkeypatch.setattr(GolkovHarmonizer, "fit", None)  # nothing is trained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        scores = cross_validate(others, tmp_path / "new", **QUICK, models=out)
    assert {s["subject"] for s in scores} == {f"new-{n}" for n in range(1, 5)}
    name = "fold-01/golkov.safetensors"
    assert (tmp_path / "new" / name).read_bytes() == (out / name).read_bytes()
    for given, words in (
        ({"contenders": ("shresnet-1",)}, "lacks fold-01/shresnet-1.safetensors"),
        ({"seed": 4}, "other settings: seed 0 there and 4 here"),
        ({"models": tmp_path}, "holds no cross-validation"),
    ):
        with pytest.raises(InputError, match=words):
            cross_validate(others, tmp_path / "b", **{**QUICK, "models": out, **given})
    assert not (tmp_path / "b").exists()


def made_up():
    """Scores in which a method closes 60 % of the gap in signal, in all of 10 subjects."""
    rng = np.random.default_rng(0)
    scores = []
    for n in range(10):
        base = 0.01 + 0.001 * rng.random()
        levels = {"source, refitted": 5.0, "SHResNet n=2": 2.6, "Golkov": 4.0}
        levels["target repeat, refitted (floor)"] = 1.0
        for row, level in levels.items():
            values = {
                f"{m} {t}": base * (level + 0.01 * rng.random())
                for m in ("signal", "FA", "MD")
                for t in ("WM", "GM")
            }
            scores.append({"subject": f"sub-{n}", "row": row, "fold": n + 1, **values})
    return scores


@pytest.mark.parametrize("floor", [1.0, 0.97])
def test_no_share_is_told_of_a_gap_that_is_none(floor):
    rng = np.random.default_rng(0)
    scores = made_up()
    refitted = {s["subject"]: s["FA GM"] for s in scores if s["row"] == REFITTED}
    for score in scores:
        if score["row"] == FLOOR:
            noise = 0.1 * rng.standard_normal() if floor == 1 else 0.0
            score["FA GM"] = (floor + noise) * refitted[score["subject"]]
    gap = report_tables(scores)["gap"]
    assert gap["Golkov"]["FA GM"] == "no gap" and "%" in str(gap["Golkov"]["FA WM"])
    assert "No gap to close in FA GM" in gap.notes[-1]


def test_tables_give_the_gap_and_the_corrected_tests(tmp_path):
    scores = made_up()
    share, low, high = closed(scores, "SHResNet n=2", "signal WM")
    assert share == pytest.approx(0.6, abs=0.01) and low <= share <= high
    report = report_tables(scores, simulated=True)
    assert str(report["gap"]["SHResNet n=2"]["signal WM"]).startswith("60%")
    assert report["mean"].notes[0].startswith("Simulated scans.")
    assert "not comparable" in report["mean"].notes[0]
    tests = [r for r in report["tests"].rows if r.name == "SHResNet n=2 - Golkov"]
    assert [r["measure"] for r in tests][:4] == ["signal WM", "signal GM", "FA WM", "FA GM"]
    for row in tests[:4]:
        assert row["p"] == pytest.approx(2 / 1024) and row["p Holm"] == pytest.approx(8 / 1024)
        assert row["effect r"] == -1 and row["change %"] == pytest.approx(-35, abs=1)
    for row in tests[4:]:
        assert row["p Holm"] == pytest.approx(4 / 1024)
    names = {p.name for p in write_report(tmp_path / "r", report, scores, simulated=True)}
    assert names == {
        *("mean.tsv", "gap.tsv", "tests.tsv", "subjects.tsv", "evaluation.md"),
        *("signal.png", "FA.png", "MD.png"),
    }
    assert all((tmp_path / "r" / name).stat().st_size for name in names)
    lines = (tmp_path / "r" / "subjects.tsv").read_text().splitlines()
    assert len(lines) == 1 + 40
    write_report(tmp_path / "r", report, scores)  # replaced as folds are added


def test_cases_come_from_a_table(tmp_path):
    for name in ("s.nii", "t.nii", "r.nii", "x.nii", "w.nii"):
        (tmp_path / name).write_bytes(b"")
    table = tmp_path / "pairs.tsv"
    header = "subject\tsource\ttarget\ttarget_repeat\ttarget_truth\ttissue\n"
    table.write_text(f"{header}01\ts.nii\tt.nii\tr.nii\tx.nii\tw.nii\n")
    (found,) = read_cases(table)
    assert found.subject == "01" and found.repeat.path == tmp_path / "r.nii"
    assert found.truth == tmp_path / "x.nii" and found.pair.tissue_file == tmp_path / "w.nii"
    table.write_text(f"{header}01\ts.nii\tt.nii\tn/a\tno.nii\t\n")
    with pytest.raises(InputError, match=r"row 2: no file at no\.nii \(target_truth\)"):
        read_cases(table)
    assert json.loads(json.dumps(found.subject)) == "01"
    spaced = header.replace("subject\t", "subject \t").replace("target_repeat", " target_repeat")
    table.write_text(f"{spaced}01\ts.nii\tt.nii\tr.nii\tn/a\t\n")
    (found,) = read_cases(table)
    assert found.repeat.path == tmp_path / "r.nii"
