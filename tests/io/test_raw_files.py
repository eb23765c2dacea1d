from __future__ import annotations

import gzip
import threading

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.io.raw_files import MappedFile, StreamedFile
from napari_dmri.io.volumes import LazyVolumes

SHAPE = (6, 5, 4, 7)


@pytest.fixture
def numbers():
    return np.random.default_rng(0).integers(-500, 3000, SHAPE).astype("<i2")


def test_truncated_gzip_is_refused_at_opening(tmp_path, numbers):
    path = tmp_path / "x.nii.gz"
    packed = gzip.compress(numbers.tobytes(order="F"))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"truncated.*promises 1680 .* holds \d+"):
        StreamedFile(path, 0, SHAPE, numbers.dtype)


def test_stream_that_breaks_later_keeps_the_volumes_before(tmp_path):
    numbers = np.random.default_rng(1).integers(0, 255, (64, 64, 10, 7)).astype(np.uint8)
    path = tmp_path / "x.nii.gz"
    packed = gzip.compress(numbers.tobytes(order="F"))
    path.write_bytes(packed)
    data = LazyVolumes(StreamedFile(path, 0, numbers.shape, numbers.dtype))
    path.write_bytes(packed[: len(packed) // 2])
    np.testing.assert_array_equal(data[..., 0], numbers[..., 0])
    for _ in range(2):
        with pytest.raises(InputError, match=r"truncated.*promises 286720 .* holds \d+"):
            data[..., 6]
    np.testing.assert_array_equal(data[..., 1], numbers[..., 1])


def test_damaged_gzip_is_refused_when_read(tmp_path, numbers):
    path = tmp_path / "x.nii.gz"
    packed = bytearray(gzip.compress(numbers.tobytes(order="F")))
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)
    data = LazyVolumes(StreamedFile(path, 0, SHAPE, numbers.dtype))
    with pytest.raises(InputError, match="damaged"):
        np.asarray(data)


def test_several_gzip_members_are_one_stream(tmp_path, numbers):
    content = numbers.tobytes(order="F")
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]))
    raw = StreamedFile(path, 0, SHAPE, numbers.dtype)
    np.testing.assert_array_equal(LazyVolumes(raw)[...], numbers)


def test_short_plain_file_and_false_gzip_are_refused(tmp_path, numbers):
    path = tmp_path / "x"
    path.write_bytes(numbers.tobytes()[:-1])
    with pytest.raises(InputError, match="promises 1680 bytes and it holds 1679"):
        MappedFile(path, 0, SHAPE, numbers.dtype)
    with pytest.raises(InputError, match="not gzip"):
        StreamedFile(path, 0, SHAPE, numbers.dtype)
    path.write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match="truncated"):
        StreamedFile(path, 0, SHAPE, numbers.dtype)


def test_more_than_free_memory_is_refused_with_the_numbers(tmp_path, numbers, monkeypatch):
    path = tmp_path / "big.nii.gz"
    path.write_bytes(gzip.compress(numbers.tobytes(order="F")))
    data = LazyVolumes(StreamedFile(path, 0, SHAPE, numbers.dtype))
    monkeypatch.setattr("napari_dmri.device.free_memory", lambda device="cpu": 300)
    data[..., 0]
    with pytest.raises(InputError, match=r"big\.nii\.gz needs .* GB .* free; gunzip it to \.nii"):
        data[..., 5]


def test_threads_read_at_once(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr("napari_dmri.io.raw_files.CHUNK", 100)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(numbers.tobytes(order="F")))
    data = LazyVolumes(StreamedFile(path, 0, SHAPE, numbers.dtype))
    wrong: list[int] = []

    def read(order):
        for index in order:
            if not np.array_equal(data[..., index], numbers[..., index]):
                wrong.append(index)

    rng = np.random.default_rng(0)
    threads = [threading.Thread(target=read, args=(rng.permutation(7),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
