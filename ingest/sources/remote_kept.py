"""Small files at URLs that are asked for again and again, kept for half a minute.

A worker opens a run anew for each of its chunks, and of a log for each hundred rows: without this it would fetch the
same metadata, and the same half a megabyte of a column, every time.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ingest.sources.remote_folder import read_files

__all__ = ["KEPT_S", "MAX_FILE_BYTES", "MAX_KEPT_BYTES", "KeptFiles", "read_kept"]

KEPT_S = 30.0
MAX_FILE_BYTES = 8 * 2**20
MAX_KEPT_BYTES = 64 * 2**20
MAX_KEPT_FILES = 4096

ReadFiles = Callable[[Sequence[str], int], list[bytes | None]]


class KeptFiles:
    """A stock of files' contents, for any number of threads; those that were asked for longest ago go first.

    Parameters
    ----------
    read : callable
        As `read_files`.
    clock : callable
        Returns seconds.

    Notes
    -----
    Holds at most 64 MiB of 4096 files; a file of more than 8 MiB is not kept. That one was written anew is not noticed
    for 30 s.
    """

    def __init__(self, read: ReadFiles = read_files, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        self._held_bytes = 0

    def read(self, urls: Sequence[str], most_bytes: int, *, fresh: bool = False) -> list[bytes | None]:
        """Return what files hold, as `read_files` does, at most 30 s old; `fresh`: as it is now.

        Raises
        ------
        SourceError, SettingsError
            As `read_files`.
        """
        oldest = math.inf if fresh else self._clock() - KEPT_S
        with self._lock:
            known = {url: entry[1] for url in urls if (entry := self._held.get(url)) and entry[0] > oldest}
            for url in known:
                self._held.move_to_end(url)
        wanted = [url for url in dict.fromkeys(urls) if url not in known]
        fetched = dict(zip(wanted, self._read(wanted, most_bytes), strict=True))
        self._keep(fetched, most_bytes)
        return [known[url] if url in known else fetched[url] for url in urls]

    def _keep(self, contents: dict[str, bytes | None], most_bytes: int) -> None:
        now = self._clock()
        with self._lock:
            for url, content in contents.items():
                self._drop(url)
                if len(content or b"") <= min(MAX_FILE_BYTES, most_bytes - 1):  # not what was cut
                    self._held[url] = now, content
                    self._held_bytes += len(content or b"")
            while self._held_bytes > MAX_KEPT_BYTES or len(self._held) > MAX_KEPT_FILES:
                self._drop(next(iter(self._held)))

    def _drop(self, url: str) -> None:
        _, content = self._held.pop(url, (0.0, None))
        self._held_bytes -= len(content or b"")


_of_this_process = KeptFiles()


def read_kept(urls: Sequence[str], most_bytes: int, *, fresh: bool = False) -> list[bytes | None]:
    """Read files at once, or unless `fresh` take what this process read in the last 30 s; see `KeptFiles.read`."""
    return _of_this_process.read(urls, most_bytes, fresh=fresh)
