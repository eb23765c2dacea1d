from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from napari_dmri.io.raw_files import MappedFile, StreamedFile
from napari_dmri.io.volumes import LazyVolumes

SHAPE = (6, 5, 4, 7)


@pytest.fixture
def numbers():
    return np.random.default_rng(0).integers(-500, 3000, SHAPE).astype("<i2")


@pytest.fixture(params=["mapped", "streamed"])
def raw(request, tmp_path, numbers):
    content = b"h" * 10 + numbers.tobytes(order="F")
    path = tmp_path / "x"
    if request.param == "mapped":
        path.write_bytes(content)
        return MappedFile(path, 10, SHAPE, numbers.dtype)
    path.write_bytes(gzip.compress(content))
    return StreamedFile(path, 10, SHAPE, numbers.dtype)


@pytest.mark.parametrize(
    "key",
    [
        ...,
        np.s_[..., 3],
        np.s_[..., -1],
        np.s_[..., [4, 1, 1]],
        np.s_[1:3, ::2, -1, 2:5],
        np.s_[2],
        np.s_[:, :, 1],
        np.s_[:, :, :, np.array([0, 6])],
        np.s_[..., np.arange(7) > 4],
        np.s_[2, 3, 1, 4],
        np.s_[..., 5:5],
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_indexing_is_numpy_s(raw, numbers, key, scaled):
    data = LazyVolumes(raw, (2, 0, 1, 3), (True, False, True, False), *(0.5, 3) if scaled else ())
    expected = numbers.transpose(2, 0, 1, 3)[::-1, :, ::-1]
    if scaled:
        expected = (expected * 0.5 + 3).astype(np.float32)
    got = data[key]
    assert got.dtype == (np.float32 if scaled else np.int16) == data.dtype
    np.testing.assert_array_equal(got, expected[key])


def test_voxel_mask_and_whole_array(raw, numbers):
    data = LazyVolumes(raw)
    mask = numbers[..., 0] > 1000
    np.testing.assert_array_equal(data[mask], numbers[mask])
    np.testing.assert_array_equal(np.asarray(data), numbers)
    assert np.asarray(data, dtype=np.float32).dtype == np.float32
    assert (data.ndim, data.shape, data.size, len(data)) == (4, SHAPE, 840, 6)


def test_what_is_returned_cannot_change_the_scan(raw):
    data = LazyVolumes(raw)
    with pytest.raises(ValueError, match="read-only"):
        data[..., 0][0, 0, 0] = 1


def test_stream_is_unpacked_only_as_far_as_asked(tmp_path, numbers):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(numbers.tobytes(order="F")))
    raw = StreamedFile(path, 0, SHAPE, numbers.dtype)
    data = LazyVolumes(raw)
    assert raw.unpacked == 0
    for index, expected in ((0, 1), (3, 4), (2, 4), (6, 7)):
        np.testing.assert_array_equal(data[..., index], numbers[..., index])
        assert raw.unpacked == expected


def test_a_volume_axis_that_runs_backwards_or_fastest(tmp_path, numbers):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(numbers.tobytes(order="F")))
    backwards = LazyVolumes(StreamedFile(path, 0, SHAPE, numbers.dtype), flips=(0, 0, 0, 1))
    np.testing.assert_array_equal(backwards[..., 1], numbers[..., -2])
    fastest = LazyVolumes(StreamedFile(path, 0, SHAPE, numbers.dtype), (1, 2, 3, 0))
    np.testing.assert_array_equal(fastest[..., 1], numbers[1])


def test_big_endian_comes_out_native(tmp_path, numbers):
    path = tmp_path / "x"
    path.write_bytes(numbers.astype(">i2").tobytes(order="F"))
    data = LazyVolumes(MappedFile(path, 0, SHAPE, np.dtype(">i2")))
    assert data[...].dtype.isnative
    np.testing.assert_array_equal(data[...], numbers)


def test_it_travels_to_another_process(raw, numbers):
    data = LazyVolumes(raw, slope=2.0)
    data[..., 2]
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[..., 4], 2.0 * numbers[..., 4])
