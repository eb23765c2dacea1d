"""The models that come with the package: small, simulated, and of people that nobody tests on."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_dmri import InputError
from napari_dmri.cli import app
from napari_dmri.harmonize import load, refuse_training_subject, shipped_models
from napari_dmri.harmonize.cards import check_card
from napari_dmri.io import read_scan

NAMES = ["demo-linear-rish", "demo-golkov", "demo-shresnet", "demo-shresnet-tiled"]
SAMPLE = Path(str(files("napari_dmri"))) / "sample_data" / "sub-01_ses-gest_dwi.nii.gz"


def test_they_are_small_and_say_what_they_are_for():
    models = shipped_models()
    assert [model.name for model in models] == NAMES
    sizes = [model.path.stat().st_size for model in models]
    assert max(sizes) <= 2_000_000 and sum(sizes) <= 5_000_000
    for model in models:
        card = model.card
        assert card["purpose"] == "simulated, demo only" and card["simulated"]
        assert (card["source_site"], card["target_site"]) == ("ge_st", "prisma_st")
        assert all(subject.endswith("-of-2718") for subject in card["subjects"])


@pytest.mark.parametrize("name", NAMES)
def test_each_loads_by_its_name_fits_the_sample_and_has_not_seen_it(name):
    model, scan = load(name), read_scan(SAMPLE)
    assert {check.level for check in model.check(scan)} == {"ok"}
    refuse_training_subject(model, scan)
    measured = replace(scan, metadata={**scan.metadata, "simulated": False})
    assert any("demo only" in c.sentence for c in check_card(model.card, measured))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"No model is called 'resnet'.*demo-golkov"):
        load("resnet")


def test_the_command_line_lists_and_compares_them(tmp_path):
    listed = CliRunner().invoke(app, ["harmonize", "models", "--json"])
    assert [m["name"] for m in json.loads(listed.stdout)["models"]] == NAMES
    target = SAMPLE.with_name("sub-01_ses-prismast_dwi.nii.gz")
    command = ["harmonize", "compare", SAMPLE, "--reference", target, "-o", tmp_path / "out"]
    chosen = ["--model", "demo-golkov", "--model", "missing", "--map", "FA", "--json", "--quiet"]
    done = CliRunner().invoke(app, [str(word) for word in (*command, *chosen)])
    assert done.exit_code == 1, done.output
    said = json.loads(done.stdout)
    assert list(said["failed"]) == ["missing"]
    rows = {row["method"]: row for row in said["scores"]["rows"]}
    assert rows["Golkov"]["MD WM"] < 0.8 * rows["refit only"]["MD WM"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("scores.tsv", "tests.tsv", "comparison.md", "FA.png", "methods.txt")
    }
    again = CliRunner().invoke(app, [str(word) for word in (*command, *chosen)])
    assert again.exit_code == 2 and "not overwritten" in again.output
