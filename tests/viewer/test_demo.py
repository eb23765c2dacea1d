"""The demo presses the docks' own buttons; here with a smaller subject."""

from __future__ import annotations

import pytest

from napari_dmri.errors import InputError
from napari_dmri.viewer import demo, demo_stages
from napari_dmri.viewer.harmonizing import shipped
from napari_dmri.viewer.widgets import harmonize

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.filterwarnings("ignore::napari_dmri.errors.DmriWarning"),
]


def test_the_whole_path_leaves_pictures_maps_and_a_table(make_napari_viewer, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZE", (52, 62, 10))
    monkeypatch.setattr(demo_stages, "COMPARED", ("MD",))
    # Two of the package's models, to be quick.
    few = [m for m in shipped() if m.name in ("demo-golkov", "demo-shresnet")]
    monkeypatch.setattr(harmonize, "shipped", lambda: few)
    use(make_napari_viewer, monkeypatch)
    folder = demo.run_demo(out=tmp_path / "demo", headless=True)
    assert len(list(folder.glob("*.png"))) >= 6
    assert len(list((folder / "maps").glob("*.nii.gz"))) >= 6
    lines = (folder / "evaluation.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == [
        "source, raw",
        "source, refitted",
        "harmonized",
        "target repeat, raw",
        "target repeat, refitted (floor)",
    ]
    assert "SHResNet" in next((folder / "comparison").rglob("methods.txt")).read_text()
    scores = (folder / "methods" / "scores.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in scores[1:]] == [
        "as measured",
        "refit only",
        "Golkov",
        "SHResNet paper",
        "target again",
    ]


def test_a_scan_of_ones_own_is_checked_masked_and_fitted(
    make_napari_viewer, scan_files, tmp_path, monkeypatch
):
    use(make_napari_viewer, monkeypatch)
    scan = scan_files / "sub-01_dwi.nii.gz"
    folder = demo.run_demo(scan=scan, out=tmp_path / "demo", headless=True)
    names = {path.name for path in (folder / "maps").glob("*.nii.gz")}
    assert {"sub-01_dwi_FA.nii.gz", "sub-01_dwi_mask.nii.gz"} <= names


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and was not made by this demo"):
        demo.run_demo(out=tmp_path, headless=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def use(make_napari_viewer, monkeypatch) -> None:
    """Let the demo open the fixture's viewer, which checks for leaks."""
    import napari

    def opened(**kwargs):
        viewer = make_napari_viewer(show=True)
        viewer.title = kwargs.get("title", "")
        return viewer

    monkeypatch.setattr(napari, "Viewer", opened)
