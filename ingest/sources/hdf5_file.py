"""HDF5 files opened: what h5py's errors mean, and one handle per process and file."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h5py

from ingest.errors import (
    FrameDataError,
    IngestError,
    MissingFilterError,
    SourceError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    TruncatedSourceError,
    UnclosedSourceError,
)

__all__ = ["OpenFile", "borrow", "explain_read", "h5_errors", "open_file", "release_files"]

MAX_OPEN_FILES = 4
MIN_CHUNK_CACHE_BYTES = 8 * 2**20  # what HDF5 2.0 takes by itself
MAX_CHUNK_CACHE_BYTES = 256 * 2**20
MAX_ROW_BYTES = 2**30
CACHE_SLOTS = 10_007  # prime, and some 100 times what such caches hold, as HDF5's manual advises
H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError)

_TRUNCATED = re.compile(r"truncated file: eof = (\d+).*stored_eof = (\d+)")
_ERRNO = re.compile(r"errno = (\d+), error message = '([^']*)'")


def open_file(path: str) -> h5py.File:
    """Open an HDF5 file for reading, with all filters of hdf5plugin.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    h5py.File
        The caller closes it.

    Raises
    ------
    SourceNotFoundError
        No such file.
    SourceReadError
        Permission denied, or an IO error.
    SourceFormatError
        Empty, or not HDF5; `TruncatedSourceError`: shorter than its header says; `UnclosedSourceError`: still open for
        writing, or its writer was killed.
    """
    import hdf5plugin  # noqa: F401  registers its filters with this process's HDF5 library

    try:
        now = os.stat(path)
        _close_stale(now)
        if stat.S_ISFIFO(now.st_mode):
            raise SourceFormatError(f"{path}: is a pipe, not an HDF5 file")
        # best-effort: a lock that a writer holds is seen; a file system without locks does not stop us.
        return h5py.File(path, "r", locking="best-effort")
    except IngestError:
        raise
    except H5PY_ERRORS as error:
        raise _explain_open(path, error) from error


def _explain_open(path: str, error: Exception) -> SourceError:
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(f"{path}: there is no such file")
    if isinstance(error, PermissionError):
        return SourceReadError(f"{path}: permission denied", hint="let the user who runs this read the file")
    if isinstance(error, IsADirectoryError):
        return SourceFormatError(f"{path}: is a folder, not an HDF5 file")
    if isinstance(error, BlockingIOError) or "h5clear" in text:
        return UnclosedSourceError(
            f"{path}: still open for writing, or its writer was killed ({_reason(text)})",
            hint="wait until the recording has ended; if its writer is gone, run `h5clear -s` on a copy of the file",
        )
    if match := _TRUNCATED.search(text):
        eof, stored = int(match[1]), int(match[2])
        return TruncatedSourceError(
            f"{path}: the file has {eof} bytes, its header says {stored}: {stored - eof} bytes are missing",
            hint="copy it again; if it is the original, it is still being written or its writer was killed",
        )
    if "file signature not found" in text:
        what = "the file is empty" if _size_bytes(path) == 0 else "not an HDF5 file"
        return SourceFormatError(f"{path}: {what} (file signature not found)")
    if match := _ERRNO.search(text):
        return SourceReadError(f"{path}: could not be read: {match[2]} (errno {match[1]})")
    return SourceFormatError(
        f"{path}: HDF5 cannot open it: {_reason(text)}",
        hint="copy it again; if its writer was killed, what it holds may be lost",
    )


def _size_bytes(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _reason(text: str) -> str:
    """Return what HDF5 says in its outer parentheses."""
    first, last = text.find("("), text.rfind(")")
    return text[first + 1 : last] if 0 <= first < last else text


def explain_read(where: str, error: Exception) -> SourceError:
    """Say what an error of h5py means that came while reading.

    Parameters
    ----------
    where : str
        File, and what in it was read.
    error : Exception
        What h5py raised.

    Returns
    -------
    SourceError
        `SourceReadError` where the operating system failed, `MissingFilterError`, else `FrameDataError`.
    """
    text = " ".join(str(error).split())
    if match := _ERRNO.search(text):
        return SourceReadError(f"{where}: could not be read: {match[2]} (errno {match[1]})")
    if "plugin" in text or "required filter" in text:
        return MissingFilterError(
            f"{where}: compressed with an HDF5 filter that is not installed ({_reason(text)})",
            hint="repack the file with `h5repack -f GZIP=1` where the filter is installed",
        )
    return FrameDataError(f"{where}: damaged: {_reason(text)}", hint="copy the file again from where it was recorded")


@contextmanager
def h5_errors(path: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into `SourceFormatError` or `SourceReadError`."""
    try:
        yield
    except IngestError:
        raise
    except H5PY_ERRORS as error:
        explained = explain_read(path, error)
        if isinstance(explained, FrameDataError):
            explained = SourceFormatError(str(explained), hint=explained.hint)
        raise explained from error


@dataclass
class OpenFile:
    """A file that this process reads, with its datasets, each with a chunk cache of its own.

    Attributes
    ----------
    path : str
        The file.
    file : h5py.File
        Open for reading.
    """

    path: str
    file: h5py.File
    _datasets: dict[str, Any] = field(default_factory=dict)

    def dataset(self, name: str) -> Any:
        """Return a dataset whose cache holds two rows of hdf5_chunks, so that none is decompressed twice in sequence.

        A row is what covers whole frames: ``chunk_frames * height * width * itemsize`` bytes, chunk edges included. The
        cache is ``min(2 * row, max(256 MiB, row))``, and HDF5's own 8 MiB at least (FORMATS.md 4, "chunk-cache trap").
        """
        if name not in self._datasets:
            # One at a time: a file of many growths must not hold one cache for each.
            self._datasets.clear()
            # Not through a variable: while a dataset is open, HDF5 ignores the settings of a second opening.
            cache_bytes = chunk_cache_bytes(self.file[name])
            access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
            access.set_chunk_cache(CACHE_SLOTS, cache_bytes, 0.75)
            identifier = h5py.h5d.open(self.file.id, name.encode(), access)
            self._datasets[name] = h5py.Dataset(identifier)
        return self._datasets[name]

    def close(self) -> None:
        """Close the file."""
        self._datasets.clear()
        self.file.close()


def chunk_row_bytes(dataset: Any) -> int:
    """Return the bytes of the hdf5_chunks that together cover whole frames; 0 for a dataset without hdf5_chunks."""
    if dataset.chunks is None:
        return 0
    frames, *chunk = dataset.chunks
    height, width = (-(-size // part) * part for size, part in zip(dataset.shape[1:], chunk, strict=True))
    return int(frames * height * width * dataset.dtype.itemsize)


def chunk_cache_bytes(dataset: Any) -> int:
    """Return how large a dataset's chunk cache is made; see `OpenFile.dataset`."""
    row = chunk_row_bytes(dataset)
    if row > MAX_ROW_BYTES:
        return MIN_CHUNK_CACHE_BYTES
    return max(min(2 * row, max(MAX_CHUNK_CACHE_BYTES, row)), MIN_CHUNK_CACHE_BYTES)


Key = tuple[str, int, int, int, int]  # path, device, inode, size in bytes, mtime in ns

# HDF5 has one lock for the whole process anyway: holding ours while a file is read costs nothing, and no file is
# closed while another thread reads it.
_lock = threading.RLock()
_open: OrderedDict[Key, OpenFile] = OrderedDict()
_owner_pid = os.getpid()
_inherited: list[OrderedDict[Key, OpenFile]] = []


@contextmanager
def borrow(path: str) -> Iterator[OpenFile]:
    """Give this process's handle on a file, opened if need be; up to 4 files stay open for the next borrower.

    Parameters
    ----------
    path : str
        The file. One that was replaced since (another inode, size or mtime) is opened anew.

    Yields
    ------
    OpenFile
        For this thread alone until the block ends.

    Raises
    ------
    SourceError
        As `open_file`.
    """
    with _lock:
        _leave_inherited()
        try:
            now = os.stat(path)
        except OSError as error:
            raise _explain_open(path, error) from error
        key = (path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
        entry = _open.get(key)
        if entry is None:
            entry = OpenFile(path, open_file(path))
            _open[key] = entry
            while len(_open) > MAX_OPEN_FILES:
                _open.popitem(last=False)[1].close()
        _open.move_to_end(key)
        yield entry


def _close_stale(now: os.stat_result) -> None:
    """Close handles on what a file was before it was written anew: HDF5 would answer from them, not from the file."""
    with _lock:
        _leave_inherited()
        same_file, contents = (now.st_dev, now.st_ino), (now.st_size, now.st_mtime_ns)
        for key in [key for key in _open if key[1:3] == same_file and key[3:] != contents]:
            _open.pop(key).close()


def release_files() -> None:
    """Close every file that this process keeps open for the next borrower."""
    with _lock:
        _leave_inherited()
        while _open:
            _open.popitem()[1].close()


def _leave_inherited() -> None:
    """After a fork: forget the parent's handles without closing them, since HDF5's state in a child is not ours."""
    global _owner_pid, _open
    if _owner_pid != os.getpid():
        _inherited.append(_open)
        _open = OrderedDict()
        _owner_pid = os.getpid()
