"""Where chunks lie: staged one file an upload while the stream is open, sealed on a regular grid after.

::

    <data>/.staging/<data_id>/<index>.<token>     the catalogue's row says which of them counts
    <data>/<data_id>.zarr/                        sealed (DESIGN.md "Lake layout")
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from ingest.errors import FrameDataError
from ingest.lake.layout import stream_folder
from ingest.server.problems import ApiError
from ingest.server.staging import STAGING, check_shard, new_file_name, staging_prefix, tail_bytes

__all__ = ["Incoming", "Store"]

BLOCK_BYTES = 2 << 20
ALIGNMENT_BYTES = 4096
"""Of addresses, offsets and lengths with O_DIRECT; no disk asks for more (open(2), "O_DIRECT")."""
IDLE_BUFFERS = 16
O_DIRECT: int = getattr(os, "O_DIRECT", 0)

_writers = ThreadPoolExecutor(4, thread_name_prefix="write")
_idle_buffers: deque[mmap.mmap] = deque(maxlen=IDLE_BUFFERS)


def _buffer() -> mmap.mmap:
    """Return a block of page-aligned memory, as O_DIRECT wants it."""
    try:
        return _idle_buffers.pop()
    except IndexError:
        return mmap.mmap(-1, BLOCK_BYTES)


class Incoming:
    """A body on its way to disk, with its CRC-32C; `discard` leaves nothing behind.

    Whole blocks are written past the page cache where the file system can, in a thread, while the next is received:
    for bodies of tens of megabytes that nobody reads soon, filling the page cache costs more than all the rest (55 ms
    of processor for 23 MB here). Holds two blocks of 2 MiB.

    Parameters
    ----------
    path : Path or None
        A file that is not there yet; None: only count and checksum.
    max_bytes : int
        More than that is a 413.
    """

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        self.path = path
        self.n_bytes = 0
        self.crc32c = 0
        self._max_bytes = max_bytes
        self._fd = -1
        self._direct = False
        self._written = 0
        self._held = 0
        self._block: mmap.mmap | None = None
        self._writing: Future[None] | None = None
        if path is not None:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            self._block = _buffer()

    def in_the_way(self, piece: bytes) -> Future[None] | None:
        """Return the write that has to end before `piece` can be fed without waiting, if there is one."""
        return self._writing if self._held + len(piece) >= BLOCK_BYTES else None

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body; waits for a write that is `in_the_way`."""
        self.n_bytes += len(piece)
        if self.n_bytes > self._max_bytes:
            raise ApiError(f"a shard has at most {self._max_bytes} bytes", status=413)
        self.crc32c = google_crc32c.extend(self.crc32c, piece)
        if self._block is None:
            return
        view = memoryview(piece)
        while len(view):
            n = min(len(view), BLOCK_BYTES - self._held)
            self._block[self._held : self._held + n] = view[:n]
            self._held += n
            view = view[n:]
            if self._held == BLOCK_BYTES:
                self._finish_write()
                self._set_direct(on=True)
                self._start_write()

    def _start_write(self) -> None:
        block, self._block = self._block, _buffer()
        if block is None:
            return
        self._writing = _writers.submit(self._write, block, self._held, self._written)
        self._written += self._held
        self._held = 0

    def _finish_write(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, block: mmap.mmap, n_bytes: int, offset: int) -> None:
        with memoryview(block) as view:
            done = 0
            while done < n_bytes:
                try:
                    done += os.pwrite(self._fd, view[done:n_bytes], offset + done)
                except OSError as exc:
                    if exc.errno != errno.EINVAL or not self._direct:
                        raise
                    self._set_direct(on=False)  # this file system cannot
                if done % ALIGNMENT_BYTES:
                    self._set_direct(on=False)
        _idle_buffers.append(block)

    def _set_direct(self, *, on: bool) -> None:
        if on is self._direct or not O_DIRECT or (on and self._written):
            return
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | O_DIRECT if on else flags & ~O_DIRECT)
        except OSError:
            return  # tmpfs and the like: through the page cache, then
        self._direct = on

    def finish(self, frames: int, *, fsync: bool) -> None:
        """Check that the file is a shard of `frames` frames, and put it on disk.

        Raises
        ------
        ApiError
            400: its index is torn, of another length, or points outside it.
        """
        self._finish_write()
        self._set_direct(on=False)
        if self._block is not None and self._held:
            self._write(self._block, self._held, self._written)
            self._block = None
        tail = min(self.n_bytes, tail_bytes(frames))
        try:
            check_shard(os.pread(self._fd, tail, self.n_bytes - tail), self.n_bytes, frames)
        except FrameDataError as exc:
            raise ApiError(f"the body is not a shard of {frames} frames: {exc}", status=400) from exc
        if fsync:
            os.fsync(self._fd)
        self.close()
        if fsync and self.path is not None:
            _fsync_folder(self.path.parent)

    def close(self) -> None:
        """Close the file and keep it."""
        if self._writing is not None:
            wait([self._writing])
            self._writing = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._block is not None:
            _idle_buffers.append(self._block)
            self._block = None

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Store:
    """The data folder's files.

    Attributes
    ----------
    root : Path
        The folder.
    fsync : bool
        Whether what is published is on disk first.
    """

    root: Path
    fsync: bool = True

    def sealed_path(self, data_id: str) -> Path:
        """Return the folder of a sealed stream."""
        return self.root / stream_folder(data_id)

    def staging_path(self, data_id: str) -> Path:
        """Return the folder of a stream's staged chunks."""
        return self.root / staging_prefix(data_id)

    def begin(self, data_id: str, index: int, max_bytes: int) -> Incoming:
        """Return a new file for an upload of a chunk."""
        folder = self.staging_path(data_id)
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if self.fsync:
                _fsync_folder(folder.parent)
        return Incoming(folder / new_file_name(index), max_bytes)

    def remove_staged(self, data_id: str, file: str) -> None:
        """Remove one staged file."""
        (self.staging_path(data_id) / file).unlink(missing_ok=True)

    def remove_staging(self, data_id: str) -> None:
        """Remove all that is staged of a stream."""
        shutil.rmtree(self.staging_path(data_id), ignore_errors=True)

    def clean(self, keep: Mapping[str, set[str]]) -> int:
        """Remove what no row names: uploads that a crash cut off, and leftovers of sealed streams; return how many."""
        removed = 0
        staging = self.root / STAGING
        for folder in list(staging.iterdir()) if staging.is_dir() else []:
            for file in list(folder.iterdir()):
                if file.name not in keep.get(folder.name, ()):
                    file.unlink()
                    removed += 1
            if folder.name not in keep:
                folder.rmdir()
        return removed

    def staged_blocks(self, data_id: str, file: str) -> Iterator[bytes]:
        """Return a staged shard's bytes in blocks; the file is opened at once, so that sealing cannot take it away.

        Raises
        ------
        FileNotFoundError
            It was sealed and removed, or replaced.
        """
        opened = (self.staging_path(data_id) / file).open("rb", buffering=0)

        def blocks() -> Iterator[bytes]:
            with opened:
                while block := opened.read(BLOCK_BYTES):
                    yield block

        return blocks()


def _fsync_folder(path: Path) -> None:
    """Put a folder's entries on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
