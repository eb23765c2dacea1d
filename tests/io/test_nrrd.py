from __future__ import annotations

import gzip

import nrrd
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri.errors import InputError
from napari_dmri.io import read_map, read_scan
from napari_dmri.io.nrrd import open_nrrd

BVALUES = np.array([0.0] + [1000.0] * 6 + [2500.0] * 6)
SPACES = {
    "left-posterior-superior": np.diag([-1.0, -1, 1]),
    "right-anterior-superior": np.eye(3),
    "LAS": np.diag([-1.0, 1, 1]),
}
FRAME = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()


def header(affine, directions, space="left-posterior-superior", frame=FRAME, list_first=False):
    """A header by the format's definition; directions are scanner RAS."""
    to_space = SPACES[space]
    columns = (to_space @ affine[:3, :3]).T
    nothing = np.full((1, 3), np.nan)
    rows = [nothing, columns] if list_first else [columns, nothing]
    kinds = ["space"] * 3
    kinds.insert(0 if list_first else 3, "list")
    made = {
        "space": space,
        "space directions": np.vstack(rows),
        "space origin": to_space @ affine[:3, 3],
        "kinds": kinds,
        "measurement frame": frame.T,
        "modality": "DWMRI",
        "DWMRI_b-value": "2500",
    }
    measured = directions @ to_space @ frame
    measured *= np.sqrt(BVALUES / 2500)[:, None]
    for index, vector in enumerate(measured):
        made[f"DWMRI_gradient_{index:04d}"] = " ".join(f"{v:.9f}" for v in vector)
    return made


@pytest.mark.parametrize("space", list(SPACES))
def test_fibre_comes_out_along_itself(tmp_path, affine, directions, fibre_data, check_fibre, space):
    path = str(tmp_path / "x.nrrd")
    nrrd.write(path, fibre_data, header(affine, directions, space))
    check_fibre(read_scan(path), fibre_data, affine)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("list_first", [False, True])
def test_encodings_and_place_of_the_volumes(
    tmp_path, affine, directions, fibre_data, check_fibre, encoding, list_first
):
    made = {**header(affine, directions, list_first=list_first), "encoding": encoding}
    stored = np.moveaxis(fibre_data, 3, 0) if list_first else fibre_data
    nrrd.write(str(tmp_path / "x.nhdr"), np.asfortranarray(stored), made)
    check_fibre(read_scan(tmp_path / "x.nhdr"), fibre_data, affine)
    nrrd.write(str(tmp_path / "x.nrrd"), np.asfortranarray(stored), made)
    check_fibre(read_scan(tmp_path / "x.nrrd"), fibre_data, affine)


def test_vanderbilt_is_the_same_scan_as_nifti_and_as_nhdr(real_data):
    stem = real_data / "vanderbilt_nrrd" / "WIP_dti_ax_601"
    nifti, nhdr = read_scan(f"{stem}.nii.gz"), read_scan(f"{stem}.nhdr")
    cosines = np.abs((nifti.gradients.directions * nhdr.gradients.directions).sum(1))[1:]
    assert np.degrees(np.arccos(np.clip(cosines, 0, 1))).max() < 0.1
    np.testing.assert_array_equal(nifti.gradients.bvalues, nhdr.gradients.bvalues)
    np.testing.assert_allclose(nifti.affine, nhdr.affine, atol=1e-4)
    np.testing.assert_allclose(nhdr.data[..., [0, 7]], nifti.data[..., [0, 7]], rtol=1e-5)


@pytest.mark.parametrize("byte_skip", [-1, 52])
@pytest.mark.parametrize("encoding", ["gzip", "raw"])
def test_detached_data_behind_a_header(tmp_path, directions, fibre_data, byte_skip, encoding):
    content = b"h" * 52 + fibre_data.tobytes(order="F")
    name = "d.nii.gz" if encoding == "gzip" else "d.nii"
    (tmp_path / name).write_bytes(gzip.compress(content) if encoding == "gzip" else content)
    nrrd.write(str(tmp_path / "x.nhdr"), fibre_data, header(np.eye(4), directions))
    text = (tmp_path / "x.nhdr").read_text().replace("x.raw.gz", name)
    text = text.replace("encoding: gzip", f"encoding: {encoding}\nbyte skip: {byte_skip}")
    (tmp_path / "x.nhdr").write_text(text)
    np.testing.assert_array_equal(read_scan(tmp_path / "x.nhdr").data[...], fibre_data)


@pytest.mark.parametrize("word", ["short", "unsigned short", "uchar", "int32", "double", "float"])
def test_types(tmp_path, word):
    data = np.arange(24).reshape(2, 3, 4)
    dtype = {"unsigned short": "u2", "uchar": "u1", "short": "i2", "int32": "i4"}
    dtype = {**dtype, "float": "f4", "double": "f8"}[word]
    made = {"space": "RAS", "space directions": np.eye(3), "space origin": np.zeros(3)}
    for endian in ("<", ">"):
        stored = data.astype(np.dtype(dtype).newbyteorder(endian))
        nrrd.write(str(tmp_path / "x.nrrd"), stored, {**made, "encoding": "raw"})
        content = (tmp_path / "x.nrrd").read_bytes()
        start = content.index(b"type:")
        end = content.index(b"\n", start)
        content = content[:start] + f"type: {word}".encode() + content[end:]
        (tmp_path / "x.nrrd").write_bytes(content)
        np.testing.assert_array_equal(read_map(tmp_path / "x.nrrd").data, data)


def test_repeated_gradients(tmp_path, directions, fibre_data):
    made = header(np.eye(4), directions)
    made["DWMRI_gradient_0001"] = "1 0 0"
    made["DWMRI_NEX_0001"] = "2"
    del made["DWMRI_gradient_0002"]
    nrrd.write(str(tmp_path / "x.nrrd"), fibre_data, made)
    table = read_scan(tmp_path / "x.nrrd").gradients
    np.testing.assert_array_equal(table.directions[1], table.directions[2])
    assert len(table) == 13


def test_unknown_space_is_noted(tmp_path, directions, fibre_data):
    made = header(np.eye(4), directions)
    made["space"] = "3D-right-handed"
    nrrd.write(str(tmp_path / "x.nrrd"), fibre_data, made)
    assert "left-posterior-superior is assumed" in open_nrrd(tmp_path / "x.nrrd").notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"DWMRI_gradient_0003": "1 0"}, "DWMRI_gradient_0003 is '1 0'; expected three"),
        ({"DWMRI_gradient_0003": None}, "12 gradients are not numbered 0000 to 0011"),
        ({"DWMRI_b-value": None}, "DWMRI_b-value is 'missing'"),
        ({"DWMRI_b-value": "2.5"}, "looks like ms/µm²"),
        ({"DWMRI_gradient_0012": None}, "13 volumes but 12 rows"),
        ({"space directions": None}, "no 'space directions'"),
        ({"space units": ["um", "um", "um"]}, "space units are um"),
        ({"measurement frame": np.full((3, 3), np.nan)}, "measurement frame is not a finite"),
    ],
)
def test_bad_headers(tmp_path, directions, fibre_data, change, words):
    made = {**header(np.eye(4), directions), **change}
    made = {key: value for key, value in made.items() if value is not None}
    nrrd.write(str(tmp_path / "x.nrrd"), fibre_data, made)
    with pytest.raises(InputError, match=words):
        read_scan(tmp_path / "x.nrrd")


def test_wrong_magic_missing_and_truncated_data(tmp_path, directions, fibre_data):
    path = tmp_path / "x.nrrd"
    nrrd.write(str(path), fibre_data, header(np.eye(4), directions))
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    with pytest.raises(InputError, match="truncated"):
        read_scan(path)
    path.write_bytes(b"nope" + content)
    with pytest.raises(InputError, match="does not start with 'NRRD'"):
        read_scan(path)
    path.write_bytes(b"NRRD0005\nnonsense")
    with pytest.raises(InputError, match=r"x\.nrrd"):
        read_scan(path)
    nrrd.write(str(tmp_path / "y.nhdr"), fibre_data, header(np.eye(4), directions))
    (tmp_path / "y.raw.gz").unlink()
    with pytest.raises(InputError, match=r"data file .*y\.raw\.gz does not exist"):
        read_scan(tmp_path / "y.nhdr")
