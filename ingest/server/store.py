"""Where chunks lie: staged one file an upload while the stream is open, sealed on a regular grid after.

::

    <data>/.staging/<data_id>/<index>.<token>     the catalogue's row says which of them counts
    <data>/<data_id>.zarr/                        sealed (DESIGN.md "Lake layout")
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from ingest.errors import FrameDataError
from ingest.server.problems import ApiError
from ingest.shard import INDEX_ENTRY_BYTES, read_index

__all__ = ["Incoming", "ShardFile", "Store", "fsync_path", "put_file", "write_all"]

BLOCK_BYTES = 1 << 20
MAX_PIECES = 512
"""Pieces of one writev; Linux takes 1024."""


class Incoming:
    """A body on its way to disk, with its CRC-32C; `discard` leaves nothing behind.

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
        self._pieces: list[bytes] = []
        self._held = 0
        self._fd = -1
        if path is not None:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.n_bytes += len(piece)
        if self.n_bytes > self._max_bytes:
            raise ApiError(f"a shard has at most {self._max_bytes} bytes", status=413)
        self.crc32c = google_crc32c.extend(self.crc32c, piece)
        if self._fd < 0:
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= BLOCK_BYTES or len(self._pieces) == MAX_PIECES:
            self._flush()

    def _flush(self) -> None:
        # Written as the pieces they came in: joining them would copy every byte once more.
        pieces, held = self._pieces, self._held
        self._pieces, self._held = [], 0
        written = os.writev(self._fd, pieces) if pieces else 0
        if written < held:
            write_all(self._fd, memoryview(b"".join(pieces))[written:])

    def finish(self, frames: int, *, fsync: bool) -> None:
        """Check that the file is a shard of `frames` frames, and put it on disk.

        Raises
        ------
        ApiError
            400: its index is torn, of another length, or points outside it.
        """
        self._flush()
        try:
            ShardFile(self._fd, frames).check()
        except FrameDataError as exc:
            raise ApiError(f"the body is not a shard of {frames} frames: {exc}", status=400) from exc
        if fsync:
            os.fsync(self._fd)
        self.close()
        if fsync and self.path is not None:
            fsync_path(self.path.parent)

    def close(self) -> None:
        """Close the file and keep it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class ShardFile:
    """A shard in an open file: its frames, still compressed, by number.

    Parameters
    ----------
    fd : int
        Open for reading; stays the caller's.
    entries : int
        Entries of its index.
    """

    def __init__(self, fd: int, entries: int) -> None:
        self._fd = fd
        size = os.fstat(fd).st_size
        tail = min(size, entries * INDEX_ENTRY_BYTES + 4)
        self._index = read_index(os.pread(fd, tail, size - tail), entries)
        self._data_bytes = size - tail

    def check(self) -> None:
        """Raise FrameDataError when a frame lies outside the file's data."""
        for i, entry in enumerate(self._index):
            if entry is not None and (entry[1] == 0 or sum(entry) > self._data_bytes):
                raise FrameDataError(f"frame {i} at {entry[0]} + {entry[1]} bytes; the data has {self._data_bytes}")

    def frames(self, start: int, stop: int) -> list[bytes | None]:
        """Return the encoded frames `start` to `stop`; None: not stored."""
        return [None if entry is None else os.pread(self._fd, entry[1], entry[0]) for entry in self._index[start:stop]]


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
        return self.root / f"{data_id}.zarr"

    def staging_path(self, data_id: str) -> Path:
        """Return the folder of a stream's staged chunks."""
        return self.root / ".staging" / data_id

    def begin(self, data_id: str, index: int, max_bytes: int) -> Incoming:
        """Return a new file for an upload of a chunk."""
        folder = self.staging_path(data_id)
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if self.fsync:
                fsync_path(folder.parent)
        return Incoming(folder / f"{index}.{secrets.token_hex(8)}", max_bytes)

    def remove_staged(self, data_id: str, file: str) -> None:
        """Remove one staged file."""
        (self.staging_path(data_id) / file).unlink(missing_ok=True)

    def remove_staging(self, data_id: str) -> None:
        """Remove all that is staged of a stream."""
        shutil.rmtree(self.staging_path(data_id), ignore_errors=True)

    def clean(self, keep: Mapping[str, set[str]]) -> int:
        """Remove what no row names: uploads that a crash cut off, and leftovers of sealed streams; return how many."""
        removed = 0
        staging = self.root / ".staging"
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


@contextmanager
def put_file(path: Path, *, fsync: bool) -> Iterator[int]:
    """Give a descriptor to write to; the file appears under its name complete, or not at all.

    Parameters
    ----------
    path : Path
        Its name; folders are made. An older file of the name is replaced.
    fsync : bool
        Whether it is on disk before it appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        yield fd
        if fsync:
            os.fsync(fd)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def fsync_path(path: Path) -> None:
    """Put a file, or a folder's entries, on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
