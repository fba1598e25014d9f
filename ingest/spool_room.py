"""How much of the disk a spool takes and may take: its files counted, and room reserved before it is filled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import SettingsError, SpoolFullError, SpoolReadError
from ingest.spool_file import is_key

__all__ = ["SpoolLimits", "SpoolRoom", "SpoolUsage", "StoredFile", "disk_bytes", "files_of", "names_of", "stream_keys"]

BLOCK_BYTES = 4096
"""What a file takes at least on the usual file systems; small chunks would else fill a disk far below the cap."""
SCAN_EVERY_S = 1.0
SCAN_SHARE = 10
"""A scan is used for ten times as long as it took, so that a spool of a million files is not only scanned."""


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much of the disk a spool may take.

    Attributes
    ----------
    max_bytes : int or None
        All its files together, each in whole blocks of 4 KiB; None: half of what is free or already the spool's.
    floor_bytes : int
        Bytes of the disk that stay free, whoever filled the rest.

    Raises
    ------
    SettingsError
        A cap that is not positive, or a negative floor.
    """

    max_bytes: int | None = None
    floor_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        if (self.max_bytes is not None and self.max_bytes <= 0) or self.floor_bytes < 0:
            raise SettingsError(
                f"a spool of at most {self.max_bytes} bytes that leaves {self.floor_bytes} free: the first is "
                "positive, the second 0 or more"
            )


@dataclass(frozen=True, slots=True)
class SpoolUsage:
    """What a spool holds.

    Attributes
    ----------
    chunks : int
        That wait.
    n_bytes : int
        Of disk, each file in whole blocks of 4 KiB; those set aside and temporary ones too.
    max_bytes : int
        The cap.
    free_bytes : int
        Of the disk.
    damaged, refused : int
        Chunks set aside.
    """

    chunks: int
    n_bytes: int
    max_bytes: int
    free_bytes: int
    damaged: int
    refused: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a stream's folder, whatever it is.

    Attributes
    ----------
    name : str
        Its name there.
    n_bytes : int
        Its size.
    modified_s : float
        When it was last written, Unix seconds.
    """

    name: str
    n_bytes: int
    modified_s: float


def disk_bytes(n_bytes: int) -> int:
    """Return what a file of `n_bytes` takes of the disk."""
    return -(-n_bytes // BLOCK_BYTES) * BLOCK_BYTES


def stream_keys(folder: Path) -> list[str]:
    """Return the streams that have a folder in a spool; raises SpoolReadError if it cannot be listed."""
    return [name for name in names_of(folder) if is_key(name)]


def names_of(folder: Path) -> Iterator[str]:
    """Yield what is in a folder, nothing if it is not there; raises as `stream_keys`."""
    with _read_errors(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def files_of(folder: Path) -> list[StoredFile]:
    """Return the files of a stream's folder, but for those removed meanwhile; raises as `stream_keys`."""
    found = []
    with _read_errors(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                found.append(StoredFile(entry.name, stat.st_size, stat.st_mtime))
    return found


@contextmanager
def _read_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SpoolReadError(
            f"the spool's folder {folder} cannot be listed: {exc.strerror}", hint="fix its permission or its disk"
        ) from exc


class SpoolRoom:
    """The room that a spool has: a scan about once a second, and what this process did since. Thread-safe.

    Other processes' chunks are seen at the next scan, so all together may pass the cap by what they write in between.

    Parameters
    ----------
    folder : Path
        The spool's; need not be there yet.
    limits : SpoolLimits
        How much it may take.
    disk_free : callable
        Bytes that the disk of an existing folder has left for us.
    monotonic : callable
        Seconds since some moment.
    """

    def __init__(
        self, folder: Path, limits: SpoolLimits, disk_free: Callable[[Path], int], monotonic: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._disk_free = disk_free
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._scanned_bytes = 0
        self._since_scan_bytes = 0
        self._pending_bytes = 0
        self._scan_holds_until_s: float | None = None

    @contextmanager
    def reserved(self, need_bytes: int) -> Iterator[None]:
        """Hold room for what is written inside; it counts as used from then on, unless that raises.

        Raises
        ------
        SpoolFullError
            The cap or the floor would be passed; nothing is held.
        """
        with self._lock:
            used_bytes, free_bytes = self._used_bytes(), self.free_bytes() - self._pending_bytes
            if used_bytes + need_bytes > self.max_bytes(used_bytes, free_bytes):
                raise self._full("that passes its cap", need_bytes, used_bytes, free_bytes)
            if free_bytes - need_bytes < self._limits.floor_bytes:
                raise self._full("too little of the disk would stay free", need_bytes, used_bytes, free_bytes)
            self._pending_bytes += need_bytes
        written_bytes = 0
        try:
            yield
            written_bytes = need_bytes
        finally:
            with self._lock:
                self._pending_bytes -= need_bytes
                self._since_scan_bytes += written_bytes

    def give_back(self, n_bytes: int) -> None:
        """Say that files were removed which took `n_bytes` of the disk."""
        with self._lock:
            self._since_scan_bytes -= n_bytes

    def used_bytes(self) -> int:
        """Return what the spool takes of the disk, reserved room included."""
        with self._lock:
            return self._used_bytes()

    def _used_bytes(self) -> int:
        now_s = self._monotonic()
        if self._scan_holds_until_s is None or now_s >= self._scan_holds_until_s:
            files = (file for key in stream_keys(self._folder) for file in files_of(self._folder / key))
            self._scanned_bytes = sum(disk_bytes(file.n_bytes) for file in files)
            self._since_scan_bytes = 0
            ended_s = self._monotonic()
            self._scan_holds_until_s = ended_s + max(SCAN_EVERY_S, SCAN_SHARE * (ended_s - now_s))
        return max(self._scanned_bytes + self._since_scan_bytes, 0) + self._pending_bytes

    def max_bytes(self, used_bytes: int, free_bytes: int) -> int:
        """Return the spool's cap, given what it takes and what the disk has free."""
        return (used_bytes + free_bytes) // 2 if self._limits.max_bytes is None else self._limits.max_bytes

    def free_bytes(self) -> int:
        """Return what the disk has free; raises SpoolReadError if it cannot be asked."""
        folder = self._folder.absolute()
        while not folder.is_dir() and folder.parent != folder:
            folder = folder.parent
        with _read_errors(folder):
            return self._disk_free(folder)

    def disk_is_full(self, strerror: str | None, need_bytes: int) -> SpoolFullError:
        """Return the error for a disk or quota that was full earlier than counted; for use inside `reserved`."""
        why = f"the disk says so: {strerror}"
        return self._full(why, need_bytes, self.used_bytes() - need_bytes, self.free_bytes())

    def _full(self, why: str, need_bytes: int, used_bytes: int, free_bytes: int) -> SpoolFullError:
        max_bytes = self.max_bytes(used_bytes, free_bytes)
        fits_never = need_bytes > max_bytes
        never = "; it would not fit into an empty one either" if fits_never else ""
        return SpoolFullError(
            f"the spool {self._folder} has no room for another {need_bytes / 1e6:,.3f} MB: {why} "
            f"({used_bytes / 1e6:,.3f} MB used of at most {max_bytes / 1e6:,.3f} MB; {free_bytes / 1e6:,.0f} MB of the "
            f"disk free, of which {self._limits.floor_bytes / 1e6:,.0f} MB stay so){never}",
            hint="restore the connection so that it drains, free disk space, or give the spool a larger cap or disk",
            fits_never=fits_never,
        )
