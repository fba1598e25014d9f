"""HDF5 files opened, and one handle per process and file."""

from __future__ import annotations

import atexit
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h5py

from ingest.errors import IngestError, SourceFormatError, UnclosedSourceError
from ingest.sources import remote
from ingest.sources.hdf5_errors import H5PY_ERRORS, explain_open, explain_read, file_size_bytes, h5_errors
from ingest.sources.hdf5_images import ImageGroup
from ingest.sources.probe import HDF5_SIGNATURE
from ingest.sources.urls import is_url, redacted

__all__ = [
    "H5PY_ERRORS",
    "QUIET_S",
    "OpenFile",
    "borrow",
    "chunk_row_bytes",
    "explain_read",
    "file_size_bytes",
    "h5_errors",
    "is_swmr_written",
    "open_file",
    "release_files",
]

QUIET_S = 10.0
"""How long a file that was never closed must not have been written to before its recording counts as ended."""

MAX_OPEN_FILES = 4
MIN_CHUNK_CACHE_BYTES = 8 * 2**20  # what HDF5 2.0 takes by itself
MAX_CHUNK_CACHE_BYTES = 256 * 2**20
MAX_ROW_BYTES = 2**30
CACHE_SLOTS = 10_007  # prime, and some 100 times what such caches hold, as HDF5's manual advises
SWMR_WRITE = 0x04  # H5F_SUPER_SWMR_WRITE_ACCESS


def open_file(path: str, *, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.time) -> h5py.File:
    """Open an HDF5 file for reading, with all filters of hdf5plugin.

    Parameters
    ----------
    path : str
        The file, or its URL.
    quiet_s : float, default 10
        For how long a file that was opened for SWMR writing must not have been written to, in seconds.
    clock : callable
        Returns Unix seconds, as files' mtimes are counted.

    Returns
    -------
    h5py.File
        The caller closes it. Its `swmr_mode` is true where it was never closed by its SWMR writer: what was flushed
        can be read all the same (FORMATS.md 4).

    Raises
    ------
    SourceNotFoundError
        No such file.
    SourceReadError
        Permission denied, or an IO error.
    SourceFormatError
        Empty, or not HDF5; `TruncatedSourceError`: shorter than its header says; `UnclosedSourceError`: still open for
        writing, or its writer was killed; a SWMR file that was written to in the last `quiet_s` seconds.
    SettingsError
        A URL that nothing here can read, or with a password in it.
    """
    import hdf5plugin  # noqa: F401  registers its filters with this process's HDF5 library

    try:
        if is_url(path):
            return _open_remote(path)
        now = os.stat(path)
        _close_stale(path, now)
        if stat.S_ISFIFO(now.st_mode):
            raise SourceFormatError(f"{path}: is a pipe, not an HDF5 file")
        file = _open_local(path)
    except IngestError:
        raise
    except H5PY_ERRORS as error:
        raise explain_open(path, error) from error
    if file.swmr_mode and quiet_s > 0 and clock() - now.st_mtime < quiet_s:
        file.close()
        raise UnclosedSourceError(
            f"{path}: open for SWMR writing, and written to in the last {quiet_s:g} s",
            hint="pass --follow to wait until the recording has ended",
        )
    return file


def _open_local(path: str) -> h5py.File:
    if is_swmr_written(path):
        return h5py.File(path, "r", libver="latest", swmr=True, locking="best-effort")
    # best-effort: a lock that a writer holds is seen; a file system without locks does not stop us.
    return h5py.File(path, "r", locking="best-effort")


def is_swmr_written(path: str) -> bool:
    """Whether a file says that it is open for SWMR writing; it goes on saying so when its writer is killed.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return _write_flags(file.read(12)) & SWMR_WRITE != 0


def _write_flags(head: bytes) -> int:
    """Return the consistency flags that a superblock of version 3 has in byte 11; 0: it was closed, or is older.

    Source: HDF5 File Format Specification 3.0, "II.A. Disk Format: Level 0A - Format Signature and Superblock".
    """
    return head[11] if len(head) == 12 and head[:8] == HDF5_SIGNATURE and head[8] >= 3 else 0


def _open_remote(url: str) -> h5py.File:
    global _closes_at_exit
    if not _closes_at_exit:
        # HDF5 would close it once Python is gone, and ask a Python object for that: a segmentation fault.
        atexit.register(release_files)
        _closes_at_exit = True
    binary = remote.open_binary(url)
    binary.seek(0)
    if _write_flags(binary.read(12) or b""):  # HDF5 itself looks at these of local files only
        raise UnclosedSourceError(
            f"{redacted(url)}: put there while it was open for writing, or after its writer was killed",
            hint="copy it again once it is closed; on a local disk, what a SWMR writer flushed can be read",
        )
    return h5py.File(binary, "r")


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
            if isinstance(self.file[name], h5py.Group):
                self._datasets[name] = ImageGroup(self.file[name])
                return self._datasets[name]
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


Key = tuple[str, Hashable, Hashable]  # path; device and inode; size and mtime, or what a store says instead of it

# HDF5 has one lock for the whole process anyway: holding ours while a file is read costs nothing, and no file is
# closed while another thread reads it.
_lock = threading.RLock()
_closes_at_exit = False
_open: OrderedDict[Key, OpenFile] = OrderedDict()
_owner_pid = os.getpid()
_inherited: list[OrderedDict[Key, OpenFile]] = []


@contextmanager
def borrow(path: str) -> Iterator[OpenFile]:
    """Give this process's handle on a file, opened if need be; up to 4 files stay open for the next borrower.

    Parameters
    ----------
    path : str
        The file, or its URL. One that was replaced since (another inode, size or mtime; size or ETag) is opened anew.

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
            key = _key(path, None if is_url(path) else os.stat(path))
        except IngestError:
            raise
        except OSError as error:
            raise explain_open(path, error) from error
        entry = _open.get(key)
        if entry is None:
            # What was there when the run was inspected is there, whoever goes on writing.
            entry = OpenFile(path, open_file(path, quiet_s=0))
            _open[key] = entry
            while len(_open) > MAX_OPEN_FILES:
                _open.popitem(last=False)[1].close()
        _open.move_to_end(key)
        yield entry


def _key(path: str, now: os.stat_result | None) -> Key:
    if now is None:
        there = remote.remote_stat(path)
        return path, None, (there.size_bytes, there.version)
    return path, (now.st_dev, now.st_ino), (now.st_size, now.st_mtime_ns)


def _close_stale(path: str, now: os.stat_result) -> None:
    """Close handles on what a file was before it was written anew: HDF5 would answer from them, not from the file."""
    with _lock:
        _leave_inherited()
        _, same_file, contents = _key(path, now)
        for key in [key for key in _open if key[1] == same_file and key[2] != contents]:
            _open.pop(key).close()


def release_files() -> None:
    """Close every file that this process keeps open for the next borrower."""
    with _lock:
        _leave_inherited()
        while _open:
            _open.popitem()[1].close()
        remote.close_files()


def _leave_inherited() -> None:
    """After a fork: forget the parent's handles without closing them, since HDF5's state in a child is not ours."""
    global _owner_pid, _open
    if _owner_pid != os.getpid():
        _inherited.append(_open)
        _open = OrderedDict()
        _owner_pid = os.getpid()
