"""What a comparison writes, and that nothing is left where it fails."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003

import nibabel as nib
import numpy as np
import pytest

from napari_dmri.compare.maps import compute_map, tissue_labels
from napari_dmri.compare.methods_text import methods_text
from napari_dmri.compare.report import Comparison, tissue_provenance, write_comparison
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.provenance import provenance


@pytest.fixture
def comparison(make_scan):
    a, b = make_scan(1, noise=10.0), make_scan(2, noise=10.0, name="B")
    return Comparison("FA", compute_map(a, "FA"), compute_map(b, "FA"))


@pytest.fixture
def labels(make_scan):
    return tissue_labels(make_scan())


def names_in(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if not p.name.endswith(".json")}


def test_everything_is_written(tmp_path, comparison, labels):
    folder = tmp_path / "naïve comparison"
    files = write_comparison(
        folder, [comparison], labels=labels, more_provenance=[tissue_provenance("A")]
    )
    assert names_in(folder) == {
        "table.tsv",
        "table.md",
        "methods.txt",
        "labels.nii.gz",
        "FA_panels.png",
        "FA_plots.png",
        "FA_A.nii.gz",
        "FA_B.nii.gz",
        "FA_A-B_difference.nii.gz",
    }
    assert files[0].name == "table.tsv"
    assert all(f.is_file() for f in files)
    assert "grey matter" in files[0].read_text()
    written = nib.load(folder / "FA_A-B_difference.nii.gz")
    np.testing.assert_allclose(
        written.get_fdata(), comparison.a.data - comparison.b.data, atol=1e-6
    )
    np.testing.assert_allclose(written.affine, comparison.a.affine)
    assert not list(tmp_path.glob(".tmp*"))


def test_a_reference_adds_its_panels_and_maps(tmp_path, comparison):
    full = Comparison("FA", comparison.a, comparison.b, comparison.a)
    write_comparison(tmp_path / "out", [full], mode="percent")
    assert "FA_B-reference_percent.nii.gz" in names_in(tmp_path / "out")
    assert [p.title for p in full.panels()][2:] == [
        "reference: A FA",
        "A − reference",
        "B − reference",
    ]


def test_two_kinds_share_one_table(tmp_path, make_scan, comparison):
    md = Comparison("MD", *(compute_map(make_scan(s), "MD") for s in (1, 2)))
    write_comparison(tmp_path, [comparison, md])
    lines = (tmp_path / "table.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == ["FA: all", "MD: all"]


def test_earlier_results_are_kept_unless_told_otherwise(tmp_path, comparison):
    (tmp_path / "notes.md").write_text("mine")
    write_comparison(tmp_path, [comparison])
    before = (tmp_path / "table.tsv").read_bytes()
    swapped = Comparison("FA", comparison.b, comparison.a)
    with pytest.raises(InputError, match="holds earlier results"):
        write_comparison(tmp_path, [swapped])
    assert (tmp_path / "table.tsv").read_bytes() == before
    write_comparison(tmp_path, [swapped], overwrite=True)
    assert (tmp_path / "table.tsv").read_bytes() != before
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("stop", [Cancelled("stop"), KeyboardInterrupt(), RuntimeError("broken")])
def test_nothing_is_left_when_it_stops(tmp_path, comparison, stop):
    def progress(fraction, text):
        if text == "comparing MD":
            raise stop

    second = Comparison("MD", comparison.a, comparison.b)
    with pytest.raises(type(stop)):
        write_comparison(tmp_path / "out" / "deep", [comparison, second], progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_before_anything_is_written(tmp_path, comparison):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_comparison(tmp_path / "file", [comparison])
    with pytest.raises(InputError, match="nothing to compare"):
        write_comparison(tmp_path / "out", [])
    with pytest.raises(InputError, match="Unknown comparison"):
        write_comparison(tmp_path / "out", [comparison], mode="log")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_methods_text_tells_each_step_once_with_versions_and_numbered_citations():
    sh = {"order": 4, "smooth": 0.006, "shell": 1000.0, "order_chosen_automatically": True}
    steps = [
        provenance("sh-fit", sh, citations=("Descoteaux 2007.",)),
        provenance("tensor", {"method": "wls", "max_bvalue": 1500}, citations=("Veraart 2013.",)),
        provenance("sh-fit", sh, citations=("Descoteaux 2007.",)),
        provenance(
            "linear-rish",
            {"smooth": 0.006, "cap": [0.5, 2.0]},
            citations=("Mirzaalian 2016.", "Descoteaux 2007."),
            source_site="ge",
            target_site="prisma",
            simulated=True,
        ),
        {"method": "denoise", "parameters": {"patch": 5}},
    ]
    text = methods_text(steps)
    assert text.count("spherical harmonics up to order 4") == 1
    assert "b = 1000 s/mm² with Laplace-Beltrami regularisation, lambda = 0.006" in text
    assert "weighted linear least squares to volumes with b up to 1500 s/mm² [2]." in text
    assert "from ge to prisma" in text
    assert "scales limited to 0.5 to 2" in text
    assert "[3, 1]." in text
    assert "denoise was applied (patch = 5)." in text
    assert "simulated" in text
    assert "napari-dmri " in text
    assert "PyTorch 2" in text
    assert text.rstrip().endswith("[3] Mirzaalian 2016.")
    assert methods_text([]) == "No step was recorded.\n"
