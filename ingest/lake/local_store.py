"""A lake in a folder: objects are files that appear whole, and are on disk before they count."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ingest.errors import AuthenticationError, DestinationError, MissingObjectError, RefusedError
from ingest.lake.attempts import (
    PART_SUFFIX,
    AttemptFailedError,
    Attempts,
    checked_name,
    is_part,
    resolve_range,
)
from ingest.lake.store import StoredObject, check_object_name
from ingest.retry import RetryPolicy

__all__ = ["LocalStore"]

BLOCK_BYTES = 1 << 20
"""Written at once. Measured with 23 MB objects on ext4 (Linux 6.18): 256 KiB to 1 MiB are alike; from 2 MiB on the
kernel takes huge pages for its cache, which may take it ten times as long."""
FALLOC_FL_KEEP_SIZE = 1
"""<linux/falloc.h>"""
MAX_PARTS = 1024
"""Buffers in one writev: Linux's IOV_MAX."""
MAX_KNOWN_FOLDERS = 10_000
MAX_READ_BYTES = 1 << 30
"""In one read; Linux gives at most 2 GiB (read(2))."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of this user is used up"}
_PASSING = {
    errno.ESTALE: "the network file system lost the file (stale handle)",
    errno.EIO: "input/output error",
    errno.ENOENT: "its folder was removed meanwhile",
    errno.ENOTEMPTY: "something was written there meanwhile",
    errno.ENOTCONN: "the file system is not connected",
    **dict.fromkeys(
        (errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
         errno.ENETUNREACH, errno.ECONNRESET, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    ),
}  # fmt: skip
_NO_FOLDER_FSYNC = (errno.EINVAL, errno.EACCES, errno.ENOTSUP)
"""Of folders: file systems that cannot (SMB), and folders above the lake that others own."""
_NO_LINK = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV)
"""Of link(2): file systems without hard links, files that others own, and a file that has too many names."""

# Not os.posix_fallocate, which writes to every block where the file system cannot (glibc manual, "Storage Allocation").
_fallocate = getattr(ctypes.CDLL(None), "fallocate", None) if os.name == "posix" else None
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class LocalStore:
    """Objects as files below a folder, which is made with the first of them.

    A put writes to a hidden file in the same folder, asks the disk to begin after each MiB, and renames it once it
    is on disk. A disk that is full, or a network file system that is away, is tried again as a store on the network
    is. Files get the permissions that the umask leaves, so that others may read a lake.

    Parameters
    ----------
    root : str or Path
        The folder.
    fsync : bool, default True
        Whether an object is on disk when `put` returns.
    retry : RetryPolicy, optional
        How long to try.
    clock, sleep : callable
        Monotonic seconds; a wait of so many seconds.
    writev : callable
        Writes buffers to a descriptor as `os.writev` does.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fsync: bool = True,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        writev: Callable[[int, Sequence[memoryview]], int] = os.writev,
    ) -> None:
        self._root = Path(os.path.abspath(root))
        self._fsync = fsync
        self._writev = writev
        self._seen = False
        self._ready: set[Path] = set()
        self._attempts = Attempts(self.url, self._explain, retry, clock=clock, sleep=sleep)

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    @property
    def url(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    def put(self, name: str, data: Sequence[bytes], *, crc32c: int | None = None) -> str | None:  # noqa: ARG002
        """Store an object; see `LakeStore.put`.

        The CRC-32C is not counted again (a tenth of what a lake takes on two processors, measured): from memory to
        the page cache there is nobody who could tell it.
        """
        path = self._root / checked_name(name)
        self._attempts.run(f"put {name!r} ({sum(map(len, data))} bytes)", lambda: self._put(path, data))
        return None

    def copy(self, source: str, target: str) -> None:
        """Give an object a second name; see `LakeStore.copy`."""
        old, new = self._root / check_object_name(source), self._root / checked_name(target)

        def attempt() -> bool:
            if not old.is_file():
                raise MissingObjectError(f"{self.url}: there is no object {source!r}")
            return self._link(old, new)

        if not self._attempts.run(f"copy {source!r} to {target!r}", attempt):
            self.put(target, [self.get(source)])

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object's bytes; see `LakeStore.get`."""
        path = self._root / check_object_name(name)

        def attempt() -> bytes:
            try:
                return _read(path, start, stop)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as exc:
                raise MissingObjectError(f"{self.url}: there is no object {name!r}") from exc

        return self._attempts.run(f"get {name!r}", attempt)

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None: there is none."""
        path = self._root / check_object_name(name)

        def attempt() -> int | None:
            try:
                return path.stat().st_size if path.is_file() else None
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._attempts.run(f"look at {name!r}", attempt)

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a folder; see `LakeStore.objects`."""
        prefix = prefix.rstrip("/")
        yield from self._below(check_object_name(prefix) if prefix else "")

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; see `LakeStore.delete`."""
        folders = set()
        for name in names:
            path = self._root / check_object_name(name)
            self._attempts.run(f"remove {name!r}", partial(_unlink, path))
            folders.add(path.parent)
        for folder in folders:
            self._attempts.run(f"sync {str(folder)!r}", partial(self._sync_folder, folder))

    def delete_below(self, prefix: str) -> None:
        """Remove all objects below a folder's name, and the folder. Safe to repeat."""
        folder = self._root / check_object_name(prefix.rstrip("/"))

        def attempt() -> None:
            with suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(folder)
            self._sync_folder(folder.parent)

        self._attempts.run(f"remove all below {prefix!r}", attempt)
        self._ready -= {known for known in list(self._ready) if known.is_relative_to(folder)}

    def clean(self, prefix: str) -> None:
        """Remove what killed writers left half-written below a folder's name; only while nobody writes there."""
        folder = self._root / check_object_name(prefix.rstrip("/"))

        def attempt() -> None:
            for parent, _, files in os.walk(folder):
                for file in filter(is_part, files):
                    _unlink(Path(parent, file))

        self._attempts.run(f"clean {prefix!r}", attempt)

    def close(self) -> None:
        """End the waits of calls that are tried again. Safe to repeat."""
        self._attempts.close()

    # -- writing -------------------------------------------------------------------------------------------------------

    def _put(self, path: Path, data: Sequence[bytes]) -> None:
        new = self._make_folder(path.parent)
        part = _part_beside(path)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                self._write(fd, data)
                if self._fsync:
                    os.fsync(fd)
            finally:
                os.close(fd)  # a network file system may say only here that the disk is full
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        self._sync_names(path.parent, new)

    def _link(self, source: Path, target: Path) -> bool:
        """Make a file appear under a second name; False: this file system cannot."""
        new = self._make_folder(target.parent)
        part = _part_beside(target)
        try:
            os.link(source, part)
        except OSError as exc:
            if exc.errno in _NO_LINK:
                return False
            raise
        try:
            part.replace(target)
        finally:
            _unlink(part)  # rename(2) does nothing where both names are one file already
        self._sync_names(target.parent, new)
        return True

    def _sync_names(self, folder: Path, new: Iterable[Path]) -> None:
        """Put a folder's entries on disk, and the names of those that were made for it."""
        self._sync_folder(folder)
        for folder in new:
            self._sync_folder(folder.parent)
        if len(self._ready) > MAX_KNOWN_FOLDERS:
            self._ready.clear()
        self._ready.update(new)
        self._seen = True

    def _write(self, fd: int, data: Sequence[bytes]) -> None:
        if _fallocate is not None:
            # Measured on ext4: a quarter less processor time for the write. What is wrong, if it fails, the write says.
            _fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, sum(map(len, data)))
        offset = 0
        for block in _blocks(data):
            begin = offset
            while block:
                written = self._writev(fd, block)
                offset += written
                block = _rest(block, written)
            if self._fsync and hasattr(os, "posix_fadvise"):
                # On Linux this starts writing those pages to disk now, so that fsync finds half of its work done.
                with suppress(OSError):
                    os.posix_fadvise(fd, begin, offset - begin, os.POSIX_FADV_DONTNEED)

    def _make_folder(self, folder: Path) -> list[Path]:
        """Make a folder, and return it and those above it that are not known to be on disk."""
        if folder in self._ready and folder.is_dir():
            return []
        if self._seen and not self._root.is_dir():
            # Made anew, it would fill the disk below a mount point.
            raise AttemptFailedError(
                "the lake's folder is gone", hint="mount its disk again, then run the same command: it resumes"
            )
        missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        inside = [path for path in (folder, *folder.parents) if path.is_relative_to(self._root) and path != self._root]
        return [path for path in (*inside, *missing) if path not in self._ready]

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            pass  # removed meanwhile, with all that was in it
        except OSError as exc:
            if exc.errno not in _NO_FOLDER_FSYNC:
                raise

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _below(self, folder: str) -> Iterator[StoredObject]:
        for key, is_folder, n_bytes in self._attempts.run(f"list {folder or '/'!r}", lambda: self._entries(folder)):
            name = f"{folder}/{key}" if folder else key
            if is_folder:
                yield from self._below(name.rstrip("/"))
            else:
                yield StoredObject(name, n_bytes)

    def _entries(self, folder: str) -> list[tuple[str, bool, int]]:
        """Return a folder's entries in the order of whole names, in which ``a/b`` comes after ``a.b``."""
        found: list[tuple[str, bool, int]] = []
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.is_dir():
                            found.append((f"{entry.name}/", True, 0))
                        elif not is_part(entry.name):
                            found.append((entry.name, False, entry.stat().st_size))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found)

    def _explain(self, asked: str, error: Exception) -> AttemptFailedError | DestinationError:
        code = error.errno if isinstance(error, OSError) else None
        text = f"{self.url}: could not {asked}: {os.strerror(code) if code else error}"
        if code in _FULL:
            return AttemptFailedError(_FULL[code], hint="make room, then run the same command again: it resumes")
        if code in _PASSING:
            return AttemptFailedError(_PASSING[code] or os.strerror(code))
        if isinstance(error, PermissionError):
            return AuthenticationError(text, hint="let this user write there, or name another folder")
        if code == errno.EROFS:
            return RefusedError(text, hint="mount it for writing, or name another folder")
        return RefusedError(text, hint="name another folder")


def _part_beside(path: Path) -> Path:
    """Return a name for what becomes a file, once it is whole."""
    return path.with_name(f".{secrets.token_hex(8)}{PART_SUFFIX}")


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _blocks(data: Sequence[bytes]) -> Iterator[list[memoryview]]:
    """Group parts to 1 MiB or a little more, the last ones to less; larger parts are cut, and nothing is copied."""
    block: list[memoryview] = []
    held = 0
    for part in data:
        view = memoryview(part)
        for start in range(0, len(view), BLOCK_BYTES):
            piece = view[start : start + BLOCK_BYTES]
            block.append(piece)
            held += len(piece)
            if held >= BLOCK_BYTES or len(block) == MAX_PARTS:
                yield block
                block, held = [], 0
    if block:
        yield block


def _rest(block: list[memoryview], written: int) -> list[memoryview]:
    """Return what of a block is left after so many bytes of it."""
    done = 0
    while done < len(block) and written >= len(block[done]):
        written -= len(block[done])
        done += 1
    return [block[done][written:], *block[done + 1 :]] if done < len(block) else []


def _read(path: Path, start: int, stop: int | None) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(path)
        at, end = resolve_range(start, stop, facts.st_size)
        pieces = []
        while at < end and (piece := os.pread(fd, min(end - at, MAX_READ_BYTES), at)):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)
