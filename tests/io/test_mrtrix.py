from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.io import read_map, read_scan
from napari_dmri.io.mrtrix import open_mif, read_header, write_mif

BVALUES = np.array([0.0] + [1000.0] * 6 + [2500.0] * 6)


def mif_bytes(data, affine, scheme=None, layout=None, datatype="Float32LE", dtype="<f4", **more):
    """Build a file from the format's definition: strides by an explicit loop over places."""
    ndim = data.ndim
    layout = layout or [f"+{i}" for i in range(ndim)]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    axes = np.hstack([affine[:3, :3] / sizes, affine[:3, 3:]])
    lines = [
        "mrtrix image",
        "dim: " + ",".join(map(str, data.shape)),
        "vox: " + ",".join(f"{s:.9g}" for s in [*sizes, 1][:ndim]),
        "layout: " + ",".join(layout),
        f"datatype: {datatype}",
    ]
    lines += ["transform: " + ", ".join(f"{v:.9g}" for v in row) for row in axes]
    lines += [f"{key}: {value}" for key, value in more.items()]
    for row in scheme if scheme is not None else ():
        lines.append("dw_scheme: " + ",".join(f"{v:.9g}" for v in row))
    stored = data
    for axis, word in enumerate(layout):
        if word.startswith("-"):
            stored = np.flip(stored, axis)
    places = [int(word[1:]) for word in layout]
    stored = stored.transpose([places.index(place) for place in range(ndim)])
    offset = 4096
    head = "\n".join([*lines, f"file: . {offset}", "END", ""]).encode()
    return head.ljust(offset, b"\0") + stored.astype(dtype).tobytes(order="F")


@pytest.mark.parametrize("packed", [False, True])
def test_fibre_comes_out_along_itself(
    tmp_path, affine, directions, fibre_data, check_fibre, packed
):
    content = mif_bytes(fibre_data, affine, np.column_stack([directions, BVALUES]))
    path = tmp_path / ("x.mif.gz" if packed else "x.mif")
    path.write_bytes(gzip.compress(content) if packed else content)
    check_fibre(read_scan(path), fibre_data, affine)


def test_every_order_of_strides(tmp_path, fibre_data, affine):
    expected = None
    for number, order in enumerate(itertools.permutations(range(4))):
        signs = [("+", "-")[(number >> axis) & 1] for axis in range(4)]
        layout = [f"{s}{o}" for s, o in zip(signs, order, strict=True)]
        path = tmp_path / f"{number}.mif"
        path.write_bytes(mif_bytes(fibre_data, affine, layout=layout))
        data = np.asarray(open_mif(path).data)
        expected = data if expected is None else expected
        np.testing.assert_array_equal(data, expected)


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("Int8", "i1"),
        ("UInt8", "u1"),
        ("Int16LE", "<i2"),
        ("UInt16BE", ">u2"),
        ("Int32BE", ">i4"),
        ("Float64LE", "<f8"),
    ],
)
def test_data_types_and_scaling(tmp_path, word, dtype):
    data = np.arange(60).reshape(3, 4, 5)
    path = tmp_path / "x.mif"
    path.write_bytes(mif_bytes(data, np.eye(4), datatype=word, dtype=dtype))
    np.testing.assert_array_equal(open_mif(path).read(), data)
    path.write_bytes(mif_bytes(data, np.eye(4), datatype=word, dtype=dtype, scaling="-3,0.5"))
    np.testing.assert_array_equal(open_mif(path).read(), data * 0.5 - 3)


def test_bits(tmp_path):
    mask = np.random.default_rng(0).random((5, 3, 3)) > 0.5
    content = mif_bytes(mask, np.eye(4), datatype="Bit", dtype="u1")[:4096]
    path = tmp_path / "x.mif"
    path.write_bytes(content + np.packbits(mask.ravel(order="F")).tobytes())
    np.testing.assert_array_equal(read_map(path).data, mask)


def test_detached_header(tmp_path, fibre_data):
    content = mif_bytes(fibre_data, np.eye(4))
    (tmp_path / "the data.dat").write_bytes(content[4096:])
    head = content[:4096].replace(b"file: . 4096", b"file: the data.dat")
    (tmp_path / "x.mih").write_bytes(head.rstrip(b"\0"))
    np.testing.assert_array_equal(open_mif(tmp_path / "x.mih").data[...], fibre_data)


def test_without_transform_is_noted(tmp_path):
    content = mif_bytes(np.zeros((3, 4, 5)), np.eye(4))
    (tmp_path / "x.mif").write_bytes(content.replace(b"transform", b"unknownxx"))
    assert "no transform" in open_mif(tmp_path / "x.mif").notes[0]


def test_writing_gives_what_the_definition_reads(tmp_path, affine, fibre_data):
    from napari_dmri.scan import GradientTable

    table = GradientTable(BVALUES, np.eye(3)[np.arange(13) % 3])
    write_mif(tmp_path / "x.mif.gz", fibre_data, affine, table)
    header = read_header(tmp_path / "x.mif.gz")
    assert header["dim"] == ["4,5,3,13"] and header["layout"] == ["+0,+1,+2,+3"]
    assert header["dw_scheme"][1] == "0,1,0,1000"
    offset = int(header["file"][0].split()[1])
    content = gzip.decompress((tmp_path / "x.mif.gz").read_bytes())
    stored = np.frombuffer(content[offset:], "<f4").reshape(fibre_data.shape, order="F")
    np.testing.assert_array_equal(stored, fibre_data)
    np.testing.assert_allclose(open_mif(tmp_path / "x.mif.gz").original_affine, affine, atol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"mrtrix image", b"mrtrix imagx", "does not start with 'mrtrix image'"),
        (b"\nEND\n", b"\nEMD\n", "has no END"),
        (b"dim: 4,5,3,13", b"dim: 4,5,a,13", "'dim' is '4,5,a,13'"),
        (b"dim: 4,5,3,13", b"dim: 4,5", r"has shape \(4, 5\)"),
        (b"vox: 1,", b"vox: 0,", "voxel size is 0 x 1 x 1 mm"),
        (b"layout: +0,", b"layout: x,", "layout is 'x,"),
        (b"Float32LE", b"CFloat32LE", "complex"),
        (b"Float32LE", b"Float31LE", "'Float31LE' is not known"),
        (b"file: . 4096", b"file: x[].mif 0", "one or more files|or more files"),
        (b"file: . 4096", b"file: no.dat 0", "does not exist"),
        (b"transform: 1,", b"transform: nan,", "not finite"),
        (b"transform: 1,", b"transform: a,", "text where numbers belong"),
        (b"dw_scheme: 0,", b"dw_scheme: ", "rows of 3 to 4 numbers"),
    ],
)
def test_bad_headers(tmp_path, directions, fibre_data, old, new, words):
    content = mif_bytes(fibre_data, np.eye(4), np.column_stack([directions, BVALUES]))
    assert old in content
    path = tmp_path / "x.mif"
    head = content[:4096].replace(old, new, 1).rstrip(b"\0").ljust(4096, b"\0")
    path.write_bytes(head + content[4096:])
    with pytest.raises(InputError, match=words):
        open_mif(path)


def test_truncated_and_false_gzip(tmp_path, fibre_data):
    content = mif_bytes(fibre_data, np.eye(4))
    (tmp_path / "x.mif").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"truncated.*promises 7216 bytes and it holds 7215"):
        open_mif(tmp_path / "x.mif")
    (tmp_path / "x.mif.gz").write_bytes(content)
    with pytest.raises(InputError, match="not gzip-compressed"):
        open_mif(tmp_path / "x.mif.gz")
    (tmp_path / "x.mif.gz").write_bytes(gzip.compress(content)[:-500])
    with pytest.raises(InputError, match="truncated"):
        open_mif(tmp_path / "x.mif.gz")


def test_rows_of_the_table_and_volumes_disagree(tmp_path, directions, fibre_data):
    scheme = np.column_stack([directions, BVALUES])[:-1]
    (tmp_path / "x.mif").write_bytes(mif_bytes(fibre_data, np.eye(4), scheme))
    with pytest.raises(InputError, match="13 volumes but 12 rows"):
        read_scan(tmp_path / "x.mif")
