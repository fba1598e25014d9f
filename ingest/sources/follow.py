"""Waiting for recordings that are still being written: a source is quiet once nothing about it changes for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ingest.errors import IngestError
from ingest.sources.base import SourceOptions
from ingest.sources.hdf5_file import QUIET_S
from ingest.sources.hdf5_runs import count_growing_frames
from ingest.sources.probe import kind_of
from ingest.sources.remote import remote_stat
from ingest.sources.urls import is_url

__all__ = ["QUIET_S", "FileState", "is_quiet", "state_of", "wait_until_quiet"]

POLLS = 5
MAX_POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class FileState:
    """What shows that a source grows.

    Attributes
    ----------
    size_bytes : int
        Of the file, or of all files in the folder.
    files : int
        How many these are.
    mtime_s : float or None
        When it was last written, in Unix seconds by its file system's clock; None: not known, as of a URL.
    version : str
        What a store says of its content.
    frames : int or None
        How many frames can be read of an HDF5 file that is open for SWMR writing; None: it is no such file.
    """

    size_bytes: int
    files: int = 1
    mtime_s: float | None = None
    version: str = ""
    frames: int | None = None


def state_of(path: str) -> FileState | None:
    """Look at a file, a folder with all below it, or a URL; None: there is nothing, or it cannot be looked at."""
    try:
        if is_url(path):
            there = remote_stat(path)
            return FileState(there.size_bytes, version=there.version)
        if os.path.isdir(path):
            return _state_of_folder(path)
        now = os.stat(path)
    except (OSError, IngestError):
        return None
    frames = count_growing_frames(path) if kind_of(path, SourceOptions()) == "hdf5" else None
    return FileState(now.st_size, 1, now.st_mtime, frames=frames)


def _state_of_folder(path: str) -> FileState:
    size_bytes, files, newest = 0, 0, os.stat(path).st_mtime
    for file in _files_below(path):
        size_bytes += file.st_size
        files += 1
        newest = max(newest, file.st_mtime)
    return FileState(size_bytes, files, newest)


def _files_below(path: str) -> Iterable[os.stat_result]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path)
            else:
                yield entry.stat(follow_symlinks=False)


def is_quiet(path: str, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.time) -> bool:
    """Return whether a source was not written to in the last `quiet_s` seconds, by its mtime.

    Parameters
    ----------
    path : str
        A file or folder. What is at a URL was put there whole, and counts as quiet.
    quiet_s : float, default 10
        Seconds.
    clock : callable
        Returns Unix seconds.
    """
    state = state_of(path)
    return state is not None and (state.mtime_s is None or clock() - state.mtime_s >= quiet_s)


def wait_until_quiet(
    paths: Sequence[str],
    quiet_s: float = QUIET_S,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    stop: Callable[[], bool] = lambda: False,
    state: Callable[[str], FileState | None] = state_of,
) -> bool:
    """Wait until none of some sources has changed for `quiet_s` seconds.

    Parameters
    ----------
    paths : sequence of str
        Files, folders or URLs; one that is not there yet is waited for.
    quiet_s : float, default 10
        Seconds without a change of size, number of files, mtime or readable frames. What its mtime shows to be older
        at the first look is quiet at once.
    clock, sleep : callable
        Unix seconds; and waiting for so many.
    stop : callable
        Whether to give up; asked before each look.
    state : callable
        Looks at a path.

    Returns
    -------
    bool
        True: all are quiet; False: stopped. Looks five times in `quiet_s`, and at least every 5 seconds.
    """
    seen: dict[str, FileState | None] = {}
    since: dict[str, float] = {}
    while not stop():
        now = clock()
        for path in paths:
            current = state(path)
            if path not in seen or seen[path] != current:
                first = path not in seen and current is not None and current.mtime_s is not None
                since[path] = min(now, current.mtime_s) if first and current and current.mtime_s else now
                seen[path] = current
        if all(seen[path] is not None and now - since[path] >= quiet_s for path in paths):
            return True
        sleep(min(MAX_POLL_S, quiet_s / POLLS))
    return False
