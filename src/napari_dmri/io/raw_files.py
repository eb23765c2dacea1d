"""Numbers in files: mapped, unpacked as far as needed, or held, the first axis fastest.

An uncompressed file is memory-mapped. A compressed one is a stream: it is unpacked only as far as
the last volume asked for, kept in the on-disk data type, and continued later from where it stopped.
"""

from __future__ import annotations

import gzip
import io
import math
import threading
import zlib
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import require_memory
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "HeldArray",
    "MappedFile",
    "RawFile",
    "StreamedFile",
    "check_gzip",
    "stored_size",
    "unpacked_size",
]

Array = NDArray[Any]

CHUNK = 2**22
"""Bytes unpacked at once: small enough that another thread waits only milliseconds."""


class RawFile(Protocol):
    """Numbers in a file, as an array whose first axis changes fastest."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def array(self, slabs: int) -> Array:
        """Return the whole array, valid at least in the first ``slabs`` of its last axis."""


class MappedFile:
    """Memory-map an uncompressed file."""

    def __init__(self, path: Path, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.path, self.offset = path, int(offset)
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        needed = self.offset + math.prod(self.shape) * self.dtype.itemsize
        size = path.stat().st_size
        if size < needed:
            raise _truncated(path, needed, size, "bytes")
        self._array: Array | None = None

    def array(self, slabs: int) -> Array:
        """Return the map; nothing is read before its pages are touched."""
        del slabs
        if self._array is None:
            self._array = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F")
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


class StreamedFile:
    """Unpack a gzip file as far as needed and keep what was unpacked, in its own data type.

    Parameters
    ----------
    path
        The file.
    skip
        Bytes of the unpacked stream before the first number.
    shape, dtype
        Of the array; its first axis changes fastest.
    start
        Where in the file the gzip stream starts (after an attached header).
    """

    def __init__(
        self,
        path: Path,
        skip: int,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        start: int = 0,
    ) -> None:
        self.path, self.skip, self.start = path, int(skip), int(start)
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        check_gzip(path, self.skip + self.nbytes, self.start)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._buffer: Array | None = None
        self._stream: _ClosingGzip | None = None
        self._failure: InputError | None = None
        self._done = 0

    @property
    def nbytes(self) -> int:
        """Size of the unpacked numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def unpacked(self) -> int:
        """How many volumes (slabs of the last axis) are in memory."""
        return self._done // max(1, self.nbytes // self.shape[-1])

    def array(self, slabs: int) -> Array:
        """Unpack up to a slab of the last axis and return the array.

        Raises
        ------
        InputError
            If the file ends early, is corrupt, or does not fit into free memory.
        """
        wanted = min(slabs, self.shape[-1]) * (self.nbytes // max(1, self.shape[-1]))
        if self._done < wanted:
            require_memory(
                wanted - self._done,
                f"Unpacking {self.path.name}",
                "gunzip it to .nii, which is memory-mapped, or crop it.",
            )
        while self._done < wanted:
            with self._lock:
                if self._done < wanted:
                    self._advance(min(CHUNK, wanted - self._done))
        if self._buffer is None:
            return np.empty((*self.shape[:-1], 0), self.dtype)
        return self._buffer.view(self.dtype).reshape(self.shape, order="F")

    def _advance(self, count: int) -> None:
        """Unpack some more bytes into the buffer; a stream that broke stays broken."""
        if self._failure is not None:
            raise self._failure
        try:
            got = self._fill(count)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            got = 0
        except OSError as error:
            raise InputError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        self._done += got
        if got == count and self._done == self.nbytes and not self._finish():
            self._done -= count
            self._failure = InputError(
                f"{self.path} is damaged: its checksum does not fit its content; copy or convert "
                "it again."
            )
            raise self._failure
        if got < count:
            self._close()
            self._failure = _truncated(
                self.path, self.skip + self.nbytes, self.skip + self._done, "unpacked bytes"
            )
            raise self._failure

    def _finish(self) -> bool:
        """Close the stream; tell whether the checksum, where it is next, fits."""
        assert self._stream is not None
        try:
            self._stream.read(1)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return False
        finally:
            self._close()
        return True

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _fill(self, count: int) -> int:
        if self._buffer is None:
            self._stream = _open_gzip(self.path, self.start)
            _skip(self._stream, self.skip)
            self._buffer = np.empty(self.nbytes, np.uint8)
        assert self._stream is not None
        return _read_into(self._stream, self._buffer[self._done : self._done + count].data)

    def __getstate__(self) -> dict[str, Any]:
        keep = ("path", "skip", "start", "shape", "dtype")
        return {name: getattr(self, name) for name in keep}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


class HeldArray:
    """Hold numbers that had to be decoded whole (bits, text, bzip2)."""

    def __init__(self, path: Path, array: Array) -> None:
        self.path, self._array = path, array
        self.shape, self.dtype = tuple(array.shape), array.dtype

    def array(self, slabs: int) -> Array:
        """Return the array."""
        del slabs
        return self._array


def check_gzip(path: Path, needed: int, start: int = 0) -> None:
    """Refuse a gzip file that holds fewer bytes than its header promises.

    The length stored at the end of the file settles it at once in nearly every case; only where
    it disagrees (a truncated file, or several gzip members) is the file unpacked to count.

    Raises
    ------
    InputError
        With the bytes expected and got.
    """
    with path.open("rb") as stream:
        stream.seek(start)
        if stream.read(2) != b"\x1f\x8b":
            raise InputError(
                f"{path} is not gzip-compressed although its name or header says so; it may be "
                "damaged: copy or convert it again, or correct its name."
            )
    if path.stat().st_size - start < 18:
        raise _truncated(path, needed, 0, "unpacked bytes")
    if stored_size(path) == needed % 2**32:
        return
    got = unpacked_size(path, start)
    if got < needed:
        raise _truncated(path, needed, got, "unpacked bytes")


def stored_size(path: Path) -> int:
    """Return the unpacked size modulo 4 GiB that a gzip file's last four bytes hold."""
    with path.open("rb") as stream:
        stream.seek(-4, io.SEEK_END)
        return int.from_bytes(stream.read(4), "little")


def unpacked_size(path: Path, start: int = 0) -> int:
    """Count the bytes that a gzip file unpacks to, up to where it breaks."""
    total = 0
    with _open_gzip(path, start) as stream:
        buffer = memoryview(bytearray(2**20))
        try:
            while got := stream.readinto(buffer):
                total += got
        except (EOFError, gzip.BadGzipFile, zlib.error):
            pass
    return total


def _truncated(path: Path, needed: int, got: int, what: str) -> InputError:
    return InputError(
        f"{path} is truncated or damaged: its header promises {needed} {what} and it holds "
        f"{got}; copy or convert it again."
    )


def _open_gzip(path: Path, start: int) -> _ClosingGzip:
    raw = path.open("rb")
    raw.seek(start)
    return _ClosingGzip(raw)


class _ClosingGzip(gzip.GzipFile):
    """A gzip reader that closes the file below it."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._below = raw

    def close(self) -> None:
        super().close()
        self._below.close()


def _skip(stream: _ClosingGzip, count: int) -> None:
    while count > 0:
        got = len(stream.read(min(count, CHUNK)))
        if not got:
            raise EOFError
        count -= got


def _read_into(stream: _ClosingGzip, part: memoryview) -> int:
    """Fill a buffer as far as the stream goes, and return how far."""
    done = 0
    while done < len(part):
        try:
            got = stream.readinto(part[done : done + 2**16])
        except (EOFError, gzip.BadGzipFile, zlib.error):
            break
        if not got:
            break
        done += got
    return done
