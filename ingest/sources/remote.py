"""Files at URLs, by fsspec: read in blocks that fit HDF5, and their errors named; folders are `remote_folder`'s.

fsspec reads ahead 50 MiB by default, which pulls most of a file for a look at its header (FORMATS.md 4): blocks of
4 MiB, of which the last few are kept, are what these files are opened with.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ingest.errors import (
    IngestError,
    SettingsError,
    SourceChangedError,
    SourceError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
)
from ingest.sources.urls import check_url, redacted, redacted_text

__all__ = [
    "RemoteFile",
    "RemoteStat",
    "close_files",
    "filesystem",
    "open_binary",
    "read_blocks",
    "remote_errors",
    "remote_stat",
]

BLOCK_BYTES = 4 * 2**20
KEPT_BLOCKS = 8
MAX_OPEN_FILES = 4
CREDENTIALS_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of a user who may read it"
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """A file at a URL: its size, and what tells this content from another (ETag or time of change)."""

    url: str
    size_bytes: int
    version: str


class RemoteFile(io.RawIOBase):
    """A file at a URL, for reading anywhere in it; holds at most 32 MiB.

    Parameters
    ----------
    stat : RemoteStat
        The file.
    file : file object
        As fsspec opened it.
    """

    def __init__(self, stat: RemoteStat, file: Any) -> None:
        super().__init__()
        self.stat = stat
        self._file = file

    def __repr__(self) -> str:
        # h5py takes this as the file's name.
        return redacted(self.stat.url)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; see `io.IOBase.seek`."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place in the file, in bytes."""
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from here on, and return how many bytes there were.

        Raises
        ------
        SourceReadError
            The store did not give them.
        SourceChangedError
            The file was written anew since it was opened.
        """
        with remote_errors(self.stat.url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the blocks."""
        if not self.closed:
            self._file.close()
        super().close()


_lock = threading.Lock()
# By process, too: clients of stores do not survive a fork.
_files: OrderedDict[tuple[int, RemoteStat], RemoteFile] = OrderedDict()


def remote_stat(url: str) -> RemoteStat:
    """Ask a store for one file's size and version; one request.

    Parameters
    ----------
    url : str
        The file.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    SourceFormatError
        The server does not tell its size, so that it cannot be read in parts; or it is a folder.
    SourceReadError
        Credentials are missing or not sufficient; the store does not answer.
    SettingsError
        There is no client for such URLs, or the URL holds a password.
    """
    with remote_errors(url):
        fs, path = filesystem(url)
        info = fs.info(path)
    if info.get("type") == "directory":
        raise SourceFormatError(f"{redacted(url)}: is a folder, not a file")
    if info.get("size") is None:
        raise SourceFormatError(
            f"{redacted(url)}: the server does not tell the file's size, so that it cannot be read in parts",
            hint="copy the file to a local disk and name it there",
        )
    version = next((str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info), "")
    return RemoteStat(url, int(info["size"]), version)


def open_binary(url: str) -> RemoteFile:
    """Open a file at a URL; what was opened before and did not change is given again, with the blocks it holds.

    Parameters
    ----------
    url : str
        The file.

    Returns
    -------
    RemoteFile
        Belongs to this process's stock of 4 such files, 32 MiB each; not to be closed. Reads blocks of 4 MiB.

    Raises
    ------
    SourceError, SettingsError
        As `remote_stat`.
    """
    stat = remote_stat(url)
    key = os.getpid(), stat
    with _lock:
        if (known := _files.get(key)) is not None:
            _files.move_to_end(key)
            return known
    with remote_errors(url):
        fs, path = filesystem(url)
        opened = fs.open(
            path, "rb", block_size=BLOCK_BYTES, cache_type="blockcache", cache_options={"maxblocks": KEPT_BLOCKS}
        )
    file = RemoteFile(stat, opened)
    if not opened.seekable():
        raise _only_whole(url)
    with _lock:
        _files[key] = file
        while len(_files) > MAX_OPEN_FILES:
            # Whoever still reads it keeps it alive.
            _files.popitem(last=False)
    return file


def close_files() -> None:
    """Forget every file that this process keeps open."""
    with _lock:
        _files.clear()


def read_blocks(url: str, offsets: Sequence[int], length: int) -> list[bytes]:
    """Read blocks of a file by themselves, past its cache: one request of `length` bytes for each offset.

    Raises
    ------
    SourceError, SettingsError
        As `remote_stat`.
    """
    if not offsets:
        return []
    with remote_errors(url):
        fs, path = filesystem(url)
        ends = [offset + length for offset in offsets]
        parts: list[bytes] = fs.cat_ranges([path] * len(offsets), list(offsets), ends, on_error="raise")
    if any(len(part) > length for part in parts):
        raise _only_whole(url)
    return parts


def _only_whole(url: str) -> SourceFormatError:
    return SourceFormatError(
        f"{redacted(url)}: the server gives files only whole, not in parts", hint="copy the file to a local disk"
    )


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's client for a URL, and the path in it."""
    import fsspec  # type: ignore[import-untyped]  # it has no types

    check_url(url)
    # Without a cache of listings: a file that was written anew is a new file.
    fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return fs, path


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn whatever a store's client raises into our errors, with no secret of the URL in them."""
    try:
        yield
    except IngestError:
        raise
    except Exception as error:
        explained = _explain(url, error)
        if redacted(url) != url:  # the client's own message may hold what is kept out of ours
            raise explained from None
        raise explained from error


def _explain(url: str, error: Exception) -> SourceError | SettingsError:
    shown, text = redacted(url), redacted_text(" ".join(str(error).split()))
    scheme = url.partition("://")[0].lower()
    if isinstance(error, ImportError):
        package = "pip install 'rheed-ingest[s3]'" if scheme in ("s3", "s3a") else "install the package that it names"
        return SettingsError(f"{shown}: nothing here reads {scheme}:// URLs: {text}", hint=package)
    if isinstance(error, ValueError) and "rotocol not known" in text:
        return SettingsError(f"{shown}: there are no {scheme}:// URLs", hint="use s3://, https:// or a local path")
    status = getattr(error, "status", None) or getattr(error.__cause__, "status", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        hint = CREDENTIALS_HINT if scheme in ("s3", "s3a") else "copy the file to a local disk, or ask whoever keeps it"
        return SourceReadError(f"{shown}: permission denied: {text}", hint=hint)
    if isinstance(error, FileNotFoundError):
        # fsspec says so of a server that does not answer, too.
        if error.__cause__ is not None and status is None and scheme in ("http", "https"):
            return SourceReadError(f"{shown}: could not be read: {redacted_text(str(error.__cause__))}")
        return SourceNotFoundError(f"{shown}: there is no such file or folder", hint="check the URL")
    if "range requests" in text:
        return _only_whole(url)
    if type(error).__name__ == "FileExpired":  # s3fs: the ETag that it was opened with is gone
        return SourceChangedError(f"{shown}: was written anew while it was read")
    if type(error).__name__ in _NO_CREDENTIALS:
        return SourceReadError(f"{shown}: no credentials for this store: {text}", hint=CREDENTIALS_HINT)
    return SourceReadError(f"{shown}: could not be read: {text or type(error).__name__}")
