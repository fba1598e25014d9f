"""The node-local disk spool, where live chunks wait for the network.

What `Spool.put` returned for is on disk: it survives a killed process and a power cut, and waits until it is removed.
Several processes of one machine use one folder at once, without talking to each other; on a network file system
neither holds. spool_file.py says how the files look, spool_room.py how full it may get.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.errors import SettingsError, SpoolError, SpoolReadError, SpoolWriteError
from ingest.spool_file import (
    PART_SUFFIX,
    AsideReason,
    ParkedPlace,
    SpooledChunk,
    chunk_place,
    header_line,
    is_key,
    part_name,
    read_chunk,
    read_label,
    read_place,
    remove_if_abandoned,
    spooled_chunk,
    write_chunk,
    write_note,
)
from ingest.spool_room import (
    SpoolLimits,
    SpoolRoom,
    SpoolUsage,
    disk_bytes,
    files_of,
    names_of,
    stream_keys,
)

__all__ = ["ParkedPlace", "Spool", "SpoolLimits", "SpoolUsage", "SpooledChunk"]

PART_IS_STALE_AFTER_S = 60.0
WRITERS = 8
"""Measured on ext4 on a virtual disk: 2,500 fsyncs/s from one thread, 7,500 from 8, no more from 32."""
FOLDER_ATTEMPTS = 20
NOTE_BYTES = 1 << 16
"""More than the file of a chunk whose body is elsewhere ever has: larger ones need not be looked into."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: EncodedChunk
    header: bytes
    part: Path
    spooled: SpooledChunk


class Spool:
    """A folder of chunks. Any number of threads and processes may use it at once; not for pickling.

    Making one does nothing to the disk; the first `put` makes the folder.

    Parameters
    ----------
    folder : Path
        On a local disk.
    destination : str
        URL, without secrets: written into every file, so that a file found alone says where it belongs.
    limits : SpoolLimits
        How much it may take.
    disk_free : callable
        Bytes that the disk of an existing folder has left for us.
    monotonic, clock : callable
        Seconds since some moment, and Unix seconds.
    fsync : callable
        Puts a descriptor's file or folder on disk.
    """

    def __init__(
        self,
        folder: Path,
        destination: str,
        limits: SpoolLimits | None = None,
        disk_free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        self.folder = folder
        self.destination = destination
        self.limits = limits or SpoolLimits()
        self._clock = clock
        self._fsync = fsync
        self._room = SpoolRoom(folder, self.limits, disk_free, monotonic)

    def put(self, chunk: EncodedChunk) -> SpooledChunk:
        """Put a chunk on disk; as `put_many` of one."""
        return self.put_many([chunk])[0]

    def put_many(self, chunks: Sequence[EncodedChunk]) -> list[SpooledChunk]:
        """Put chunks on disk, of one stream or several; they are durable before this returns.

        Each is written under a temporary name, put on disk and renamed, in the order given; then their folders are put
        on disk, once for all. Safe to repeat: the same (key, seq, index) replaces the file. Uses up to 8 threads and
        about 1 MiB in each, besides the chunks.

        Returns
        -------
        list of SpooledChunk
            In the order given.

        Raises
        ------
        SpoolFullError
            The spool's cap or the disk's free-space floor would be passed, or the disk or a quota is full. None of
            these chunks is there.
        SpoolWriteError
            Any other failure of the disk or the folder. None of them is acknowledged, though some may be there;
            putting them again is right.
        SpoolDamagedError
            A chunk's bytes do not fit its own CRC-32C. None of them is there.
        SettingsError
            A key that is not 32 hex digits, or a negative seq or index.
        """
        pending = [self._pending(chunk) for chunk in chunks]
        if not pending:
            return []
        need_bytes = sum(disk_bytes(one.spooled.n_bytes) for one in pending)
        with self._write_errors("be written"), self._room.reserved(need_bytes):
            try:
                self._write_parts(pending, need_bytes)
                self._publish(pending)
            except BaseException:
                self._discard_parts(pending)
                raise
        return [one.spooled for one in pending]

    def _pending(self, chunk: EncodedChunk) -> _Pending:
        label = chunk.label
        path, header = chunk_place(self.folder, label), header_line(chunk, self.destination)
        spooled = SpooledChunk(label.key, label.seq, label.index, len(header) + chunk.body.n_bytes, path)
        return _Pending(chunk, header, part_name(path), spooled)

    def _write_parts(self, pending: Sequence[_Pending], need_bytes: int) -> None:
        try:
            if len(pending) == 1:
                self._write_part(pending[0])
                return
            with ThreadPoolExecutor(min(WRITERS, len(pending)), thread_name_prefix="spool") as pool:
                for _ in pool.map(self._write_part, pending):
                    pass
        except OSError as exc:
            if exc.errno not in _DISK_FULL:
                raise
            raise self._room.disk_is_full(exc.strerror, need_bytes) from exc

    def _write_part(self, one: _Pending) -> None:
        fd = self._create(one.part)
        try:
            write_chunk(fd, one.header, one.chunk)
            self._fsync(fd)
        finally:
            os.close(fd)

    def _create(self, part: Path) -> int:
        """Make a temporary file; its folder is made as often as whoever empties it removes it."""
        for _ in range(FOLDER_ATTEMPTS):
            try:
                return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except FileNotFoundError:
                self._make(self.folder)
                with suppress(FileExistsError):  # exist_ok raises if it is removed just then; the next attempt makes it
                    part.parent.mkdir()
        raise OSError(errno.EBUSY, "its folder is removed as fast as it is made")

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder.parent != folder:
            self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        self._fsync_folder(folder.parent)

    def _publish(self, pending: Sequence[_Pending]) -> None:
        for one in pending:
            one.part.rename(one.spooled.path)
        for folder in dict.fromkeys(one.part.parent for one in pending):
            with suppress(FileNotFoundError):  # all of them are delivered and removed already
                self._fsync_folder(folder)
        # Always, as another process may have made a stream's folder just now, and not put it on disk yet.
        self._fsync_folder(self.folder)

    def _fsync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fsync(fd)
        finally:
            os.close(fd)

    def _discard_parts(self, pending: Sequence[_Pending]) -> None:
        for one in pending:
            with suppress(OSError):
                one.part.unlink(missing_ok=True)
        for folder in {one.part.parent for one in pending}:
            _remove_if_empty(folder)

    def entries(self, key: str) -> list[SpooledChunk]:
        """Return a stream's chunks, oldest first (by seq, then index), from the names alone.

        Temporary files are left out, and removed if they are older than a minute and nobody writes them. A chunk that
        was pushed again is there twice, the later one with the larger seq.

        Raises
        ------
        SettingsError
            `key` is not one of a journal's.
        SpoolReadError
            The folder cannot be listed.
        """
        folder = self._folder_of(key)
        found = []
        for file in files_of(folder):
            spooled = spooled_chunk(folder, file.name, file.n_bytes)
            if spooled is not None:
                found.append(spooled)
            elif file.name.endswith(PART_SUFFIX) and self._clock() - file.modified_s > PART_IS_STALE_AFTER_S:
                remove_if_abandoned(folder / file.name)
        return sorted(found, key=lambda spooled: (spooled.seq, spooled.index))

    def keys(self) -> list[str]:
        """Return the streams of which there is a chunk, those set aside included, in no meaningful order."""
        return [
            key
            for key in stream_keys(self.folder)
            if any(not name.endswith(PART_SUFFIX) for name in names_of(self.folder / key))
        ]

    def has(self, key: str) -> bool:
        """Return whether a chunk of a stream waits, those set aside left out; raises as `entries`, and is cheap."""
        folder = self._folder_of(key)
        return any(spooled_chunk(folder, name, 0) is not None for name in names_of(folder))

    def label(self, spooled: SpooledChunk) -> ChunkLabel:
        """Read what a chunk is, without its body; raises as `load`."""
        return read_label(spooled)

    def load(self, spooled: SpooledChunk) -> EncodedChunk:
        """Read a chunk and prove header and body by their CRC-32C; holds its bytes once, as one part.

        Raises
        ------
        SpoolGoneError
            It was removed meanwhile: there is nothing to do.
        SpoolDamagedError
            It is not what was written. The file stays where it is until `set_aside`.
        SpoolParkedError
            Its body is at a failover.
        SpoolReadError
            The disk or the system did not give it; trying again may help.
        SpoolError
            Another version of this program wrote it.
        """
        return read_chunk(spooled)

    def note_parked(self, chunk: EncodedChunk, place: ParkedPlace, spooled: SpooledChunk | None = None) -> None:
        """Leave word of a chunk whose body is at a failover, instead of its body; on disk before it returns.

        Parameters
        ----------
        chunk : EncodedChunk
            What it is.
        place : ParkedPlace
            Where its body is, acknowledged.
        spooled : SpooledChunk, optional
            The file that this takes the place of; if it is gone meanwhile, nothing is written. None: there is none.

        Raises
        ------
        SpoolWriteError
            The disk or the folder does not take it; what was there stays.
        """
        header = header_line(chunk, self.destination, place)
        path = chunk_place(self.folder, chunk.label) if spooled is None else spooled.path
        part = part_name(path)
        # No room is asked for: it makes some.
        with self._write_errors("be written"):
            try:
                self._write_note(part, header)
                if spooled is not None and not path.exists():
                    return
                part.rename(path)
                self._fsync_folder(path.parent)
            finally:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                _remove_if_empty(path.parent)
        was_bytes = 0 if spooled is None else disk_bytes(spooled.n_bytes)
        self._room.give_back(was_bytes - disk_bytes(len(header)))

    def _write_note(self, part: Path, header: bytes) -> None:
        fd = self._create(part)
        try:
            write_note(fd, header)
            self._fsync(fd)
        finally:
            os.close(fd)

    def place(self, spooled: SpooledChunk) -> ParkedPlace | None:
        """Return where a chunk's body is; None: in its file. Raises as `label`."""
        return None if spooled.n_bytes > NOTE_BYTES else read_place(spooled)

    def parked(self, key: str) -> dict[str, int]:
        """Return how many of a stream's chunks have their bodies at a failover, by its URL; raises as `entries`."""
        found: dict[str, int] = {}
        for spooled in self.entries(key):
            with suppress(SpoolError):  # one that cannot be read is not known to be elsewhere
                if (place := self.place(spooled)) is not None:
                    found[place.url] = found.get(place.url, 0) + 1
        return found

    def remove(self, spooled: SpooledChunk) -> None:
        """Remove a chunk, and its stream's folder with the last one; safe to repeat.

        A power cut may bring it back: it is then sent again, which is harmless.

        Raises
        ------
        SpoolWriteError
            It cannot be removed.
        """
        with self._write_errors("be emptied"), suppress(FileNotFoundError):
            spooled.path.unlink()
            self._room.give_back(disk_bytes(spooled.n_bytes))
        _remove_if_empty(spooled.path.parent)

    def set_aside(self, spooled: SpooledChunk, why: AsideReason = "damaged") -> None:
        """Rename a chunk that cannot be delivered, so that it is kept and nobody loads it again; safe to repeat.

        Raises
        ------
        SpoolWriteError
            It cannot be renamed.
        """
        with self._write_errors("be written"), suppress(FileNotFoundError):
            spooled.path.rename(spooled.path.with_name(f"{spooled.path.name}.{why}"))

    def damaged(self, key: str) -> list[Path]:
        """Return the files of a stream that were set aside as damaged, oldest first; raises as `entries`."""
        return self._aside(key, "damaged")

    def refused(self, key: str) -> list[Path]:
        """Return the files of a stream that were set aside as refused, oldest first; raises as `entries`."""
        return self._aside(key, "refused")

    def _aside(self, key: str, why: AsideReason) -> list[Path]:
        folder = self._folder_of(key)
        return sorted(folder / file.name for file in files_of(folder) if file.name.endswith(f".{why}"))

    def discard(self, key: str) -> tuple[int, int]:
        """Remove all that a stream has here, also what was set aside; return how many chunks and bytes of disk.

        What is being written just now stays: nobody should push to a stream that is discarded. Safe to repeat.

        Raises
        ------
        SettingsError
            `key` is not one of a journal's.
        SpoolReadError, SpoolWriteError
            The folder cannot be listed, or a file cannot be removed.
        """
        folder = self._folder_of(key)
        chunks = n_bytes = 0
        for file in files_of(folder):
            if file.name.endswith(PART_SUFFIX):
                remove_if_abandoned(folder / file.name)
                continue
            with self._write_errors("be emptied"), suppress(FileNotFoundError):
                (folder / file.name).unlink()
                self._room.give_back(disk_bytes(file.n_bytes))
                chunks += 1
                n_bytes += disk_bytes(file.n_bytes)
        _remove_if_empty(folder)
        return chunks, n_bytes

    def usage(self) -> SpoolUsage:
        """Count what the whole spool holds, from a scan made now; raises SpoolReadError if it cannot be listed."""
        files = [file for key in stream_keys(self.folder) for file in files_of(self.folder / key)]
        free_bytes = self._room.free_bytes()
        return SpoolUsage(
            chunks=sum(spooled_chunk(self.folder, file.name, 0) is not None for file in files),
            n_bytes=sum(disk_bytes(file.n_bytes) for file in files),
            max_bytes=self._room.max_bytes(self._room.used_bytes(), free_bytes),
            free_bytes=free_bytes,
            damaged=sum(file.name.endswith(".damaged") for file in files),
            refused=sum(file.name.endswith(".refused") for file in files),
        )

    def usage_of(self, key: str) -> tuple[int, int]:
        """Return how many chunks of a stream wait, and their bytes of disk; raises as `entries`."""
        sizes = [disk_bytes(spooled.n_bytes) for spooled in self.entries(key)]
        return len(sizes), sum(sizes)

    def _folder_of(self, key: str) -> Path:
        if not is_key(key):
            raise SettingsError(f"{key!r} is not a stream's key: 32 hex digits")
        return self.folder / key

    @contextmanager
    def _write_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except SpoolReadError as exc:
            raise SpoolWriteError(str(exc), hint=exc.hint) from exc
        except SpoolError:
            raise
        except OSError as exc:
            raise SpoolWriteError(
                f"the spool {self.folder} cannot {what}: {exc.strerror or exc}",
                hint="fix its permission or its disk, or give the spool another folder",
            ) from exc


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
