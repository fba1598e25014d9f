"""Bytes of a file, read where they are asked for; and what the operating system's errors mean."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from numpy.typing import NDArray

from ingest.errors import IngestError, SourceError, SourceFormatError, SourceNotFoundError, SourceReadError

__all__ = [
    "MAX_FRAME_BYTES",
    "PlainFile",
    "explain_os",
    "is_overfull",
    "largest_stored",
    "os_errors",
    "size_bytes",
    "version_of",
]

MAX_FRAME_BYTES = 512 * 10**6
"""One frame of this size fills a chunk of the platform; no camera comes near it."""

MAX_GROWTH, GROWTH_BYTES = 8, 2**16
"""No filter stores more than its type's widening (8-bit as 64-bit numbers), and some overhead."""


def is_overfull(stored_bytes: int, raw_bytes: int) -> bool:
    """Whether more is stored than `raw_bytes` of pixels can take: what then comes out would have no bound.

    Three MB of deflate are three GB of zeros.
    """
    return stored_bytes > largest_stored(raw_bytes)


def largest_stored(raw_bytes: int) -> int:
    """Return the most that `raw_bytes` of pixels can take, in bytes."""
    return MAX_GROWTH * raw_bytes + GROWTH_BYTES


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turn what the operating system says of a file into `SourceNotFoundError` or `SourceReadError`."""
    try:
        yield
    except IngestError:
        raise
    except OSError as error:
        raise explain_os(path, error) from error


def explain_os(path: str, error: OSError | MemoryError) -> SourceError:
    """Say what an error of the operating system means: `SourceNotFoundError`, else `SourceReadError`."""
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(f"{path}: there is no such file")
    if isinstance(error, PermissionError):
        return SourceReadError(f"{path}: permission denied", hint="let the user who runs this read the file")
    return SourceReadError(f"{path}: could not be read: {getattr(error, 'strerror', None) or error}")


def version_of(path: str) -> tuple[int, int, int, int]:
    """Return what tells a file's content from what it was before: device, inode, size in bytes, mtime in ns.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        It is not there, or may not be looked at.
    """
    with os_errors(path):
        now = os.stat(path)
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns


def size_bytes(path: str) -> int:
    """Return a file's size.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        It is not there, or may not be looked at.
    """
    with os_errors(path):
        return os.stat(path).st_size


class PlainFile:
    """A file open for reading at any place, without a position that others could move.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    path : str
        The file.
    size_bytes : int
        Its size when it was opened.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        It is not there, or could not be opened.
    SourceFormatError
        A folder, a pipe or a device.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with os_errors(path):
            # A pipe without a writer would otherwise be waited for.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            now = os.fstat(self._fd)
        if not stat.S_ISREG(now.st_mode):
            self.close()
            raise SourceFormatError(f"{path}: is a folder, a pipe or a device, not a file")
        self.size_bytes = now.st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on; fewer at the end of the file."""
        with os_errors(self.path):
            data = os.pread(self._fd, count, offset)
            while 0 < len(data) < count:
                more = os.pread(self._fd, count - len(data), offset + len(data))
                if not more:
                    break
                data += more
        return data

    def read_into(self, buffers: Sequence[NDArray[Any]], offset: int) -> int:
        """Fill C-contiguous arrays one after the other from `offset` on; return how many bytes there were for them."""
        wanted = sum(buffer.nbytes for buffer in buffers)
        views = [memoryview(buffer.data).cast("B") for buffer in buffers if buffer.nbytes]
        done = 0
        with os_errors(self.path):
            while done < wanted:
                got = os.preadv(self._fd, views, offset + done)
                if got == 0:
                    break
                done += got
                while views and got >= len(views[0]):
                    got -= len(views.pop(0))
                if got:
                    views[0] = views[0][got:]
        return done

    def advise_random(self) -> None:
        """Tell the kernel not to read ahead: what follows is not asked for."""
        if hasattr(os, "posix_fadvise"):
            with os_errors(self.path):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def close(self) -> None:
        """Close it; safe to repeat."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
