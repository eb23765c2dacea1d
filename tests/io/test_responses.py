"""Response files: round trips, names of siblings, MRtrix3 reading them, and every bad file."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import Response, ResponseSet
from napari_dmri.io.responses import (
    read_response,
    read_responses,
    response_paths,
    write_response,
    write_responses,
)

if TYPE_CHECKING:
    from pathlib import Path

WM = Response(
    [[3545.0, 0, 0], [1600.25, -731.5, 140.125]],
    (0, 1200),
    "wm",
    300,
    {"simulated": True},
)
GM = Response([[2000.0], [1100.0]], (0, 1200), "gm", 200)
CSF = Response([[6000.0], [150.0]], (0, 1200), "csf", 100)


def test_a_response_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_response(WM, tmp_path / "wm.txt")
    back = read_response(path)
    np.testing.assert_array_equal(back.zonal, WM.zonal)
    assert (back.bvalues, back.tissue, back.voxels) == ((0.0, 1200.0), "wm", 300)
    assert back.provenance["simulated"] is True
    assert path.read_text().splitlines()[0] == "# Shells: 0,1200"


def test_a_set_comes_back_whole(tmp_path: Path) -> None:
    files = write_responses(ResponseSet({"csf": CSF, "wm": WM, "gm": GM}), tmp_path / "resp.txt")
    assert [p.name for p in files] == ["resp.txt", "resp_gm.txt", "resp_csf.txt"]
    back = read_responses(tmp_path / "resp.txt")
    assert list(back) == ["wm", "gm", "csf"]
    np.testing.assert_array_equal(back["csf"].zonal, CSF.zonal)
    assert back["gm"].tissue == "gm"
    assert "resp_gm.txt" in back.notes[0]


def test_a_folder_is_a_set(tmp_path: Path) -> None:
    write_responses(ResponseSet({"wm": WM, "gm": GM}), tmp_path / "sub-01_wm_response.txt")
    assert (tmp_path / "sub-01_gm_response.txt").is_file()
    assert list(read_responses(tmp_path)) == ["wm", "gm"]
    write_response(WM, tmp_path / "another_wm.txt")
    with pytest.raises(InputError, match="holds 2 wm responses"):
        read_responses(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resp.txt", ["resp_gm.txt", "resp_csf.txt"]),
        ("wm", ["gm", "csf"]),
        ("wm_wm.txt", ["wm_gm.txt", "wm_csf.txt"]),
        ("WMresponse.txt", ["GMresponse.txt", "CSFresponse.txt"]),
        ("lawmaker_wm.txt", ["lawmaker_gm.txt", "lawmaker_csf.txt"]),
    ],
)
def test_siblings_are_named_after_white_matters(name: str, expected: list[str]) -> None:
    assert [p.name for p in response_paths(name).values()][1:] == expected


def test_files_of_mrtrix_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "gm.txt"
    path.write_text("# Shells: 5.0,1000\n# command_history: dwi2response  a b: c\n 10.5 \n8,\n\n")
    read = read_response(path)
    assert (read.tissue, read.bvalues, read.order) == ("gm", (5.0, 1000.0), 0)
    bare = tmp_path / "response.txt"
    bare.write_text("1 -0.5 0.1\n")
    assert read_response(bare).bvalues is None
    assert read_response(bare, bvalues=[3000]).bvalues == (3000.0,)


def test_isotropic_tissue_has_one_column(tmp_path: Path) -> None:
    path = tmp_path / "csf.txt"
    path.write_text("10 0 0\n8 0 0\n")
    assert read_response(path).zonal.shape == (2, 1)
    path.write_text("10 0 0\n8 1 0\n")
    with pytest.warns(DmriWarning, match="isotropic; its 2 columns"):
        assert read_response(path).zonal.shape == (2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no numbers"),
        ("# Shells: 0,1200\n", "holds no numbers"),
        ("1 2\n1 2 3\n", "rows of 2 to 3 numbers"),
        ("1 two\n", "line 1: '1 two' is no row of numbers"),
        ("1 nan\n", "1 values that are not finite"),
        ("# Shells: 0,1200,3000\n1 0\n1 0\n", "2 rows and 3 b-values"),
        ("# Shells: 1200,0\n1 0\n1 0\n", "do not rise"),
        ("# Shells: none\n1 0\n", "holds no b-values"),
        ("2 0\n-1 0\n", "negative in 1 of 2 rows"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wm.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_response(path)


def test_what_is_no_response_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no response file"):
        read_response(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_response(tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        read_response(tmp_path / "binary.txt")
    (tmp_path / "dwi.nii").write_bytes(b"0")
    with pytest.raises(InputError, match="is no response file"):
        read_response(tmp_path / "dwi.nii")
    path = write_response(WM, tmp_path / "wm.txt")
    with pytest.raises(InputError, match="unknown tissue 'bone'"):
        read_response(path, tissue="bone")
    with pytest.raises(InputError, match=r"holds no \*wm\*.txt"):
        (tmp_path / "empty").mkdir()
        read_responses(tmp_path / "empty")


def test_sets_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_response(WM, tmp_path / "wm.txt")
    (tmp_path / "gm.txt").write_text("1\n2\n3\n")
    with pytest.raises(InputError, match="different numbers of shells"):
        read_responses(tmp_path / "wm.txt")
    with pytest.raises(InputError, match="is named as the gm response"):
        read_responses(tmp_path / "gm.txt")


def test_nothing_is_overwritten_and_nothing_stale_is_left(tmp_path: Path) -> None:
    path = tmp_path / "resp.txt"
    write_responses(ResponseSet({"wm": WM, "gm": GM}), path)
    with pytest.raises(InputError, match="exists already"):
        write_responses(ResponseSet({"wm": WM, "gm": GM}), path)
    with pytest.raises(InputError, match="would be read as part of this set"):
        write_responses(ResponseSet({"wm": WM}), path)
    assert write_responses(ResponseSet({"wm": WM}), path, overwrite=True) == [path]
    assert list(read_responses(path)) == ["wm"]


@pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not installed")
def test_mrtrix_deconvolves_with_the_files(tmp_path: Path) -> None:
    import nibabel as nib

    rng = np.random.default_rng(0)
    g = rng.normal(size=(20, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    table = np.column_stack([np.vstack([np.zeros((2, 3)), g]), [0, 0, *[1200] * 20]])
    np.savetxt(tmp_path / "grad.b", table)
    data = np.full((2, 2, 1, 22), 500, np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), tmp_path / "dwi.nii")
    files = write_responses(ResponseSet({"wm": WM, "csf": CSF}), tmp_path / "resp.txt")
    command = ["dwi2fod", "msmt_csd", "dwi.nii", "-grad", "grad.b", "-quiet", "-lmax", "4,0"]
    for file, out in zip(files, ("wm.mif", "csf.mif"), strict=True):
        command += [file.name, out]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "csf.mif").stat().st_size > 0
