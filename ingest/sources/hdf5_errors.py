"""What h5py's errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

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
from ingest.sources.remote import remote_stat
from ingest.sources.urls import is_url, redacted

__all__ = ["H5PY_ERRORS", "explain_open", "explain_read", "file_size_bytes", "h5_damage", "h5_errors"]

H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError)
_TRUNCATED = re.compile(r"truncated file: eof = (\d+).*stored_eof = (\d+)")
_ERRNO = re.compile(r"errno = (\d+), error message = '([^']*)'")


def explain_open(path: str, error: Exception) -> SourceError:
    """Say what an error of h5py means that came while opening a file; `path` is the file, or its URL."""
    path = redacted(path)
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
        what = "the file is empty" if _is_empty(path) else "not an HDF5 file"
        return SourceFormatError(f"{path}: {what} (file signature not found)")
    if match := _ERRNO.search(text):
        return SourceReadError(f"{path}: could not be read: {match[2]} (errno {match[1]})")
    if isinstance(error, OSError) and error.errno is not None:
        return SourceReadError(f"{path}: could not be read: {error.strerror} (errno {error.errno})")
    return SourceFormatError(
        f"{path}: HDF5 cannot open it: {_reason(text)}",
        hint="copy it again; if its writer was killed, what it holds may be lost",
    )


def file_size_bytes(path: str) -> int:
    """Return the size of a file, or of what is at a URL.

    Raises
    ------
    SourceError, OSError
        It cannot be asked.
    """
    return remote_stat(path).size_bytes if is_url(path) else os.stat(path).st_size


def _is_empty(path: str) -> bool:
    try:
        return file_size_bytes(path) == 0
    except (OSError, IngestError):
        return False


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
        `SourceReadError` where the operating system failed, `MissingFilterError`, else `FrameDataError`; an error of
        ours as it is.
    """
    if isinstance(error, SourceError):  # from the store of a file at a URL, through h5py
        return error
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
def h5_damage(where: str) -> Iterator[None]:
    """Turn what h5py raises while it reads into what `explain_read` says; `where`: file, and what in it is read."""
    try:
        yield
    except IngestError:
        raise
    except H5PY_ERRORS as error:
        raise explain_read(where, error) from error


@contextmanager
def h5_errors(path: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into `SourceFormatError` or `SourceReadError`."""
    try:
        yield
    except IngestError:
        raise
    except H5PY_ERRORS as error:
        explained = explain_read(redacted(path), error)
        if isinstance(explained, FrameDataError):
            explained = SourceFormatError(str(explained), hint=explained.hint)
        raise explained from error
