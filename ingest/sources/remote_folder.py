"""Folders at URLs, by fsspec: what is in them, and small reads of many files at once."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ingest.errors import SourceFormatError, SourceNotFoundError
from ingest.sources.remote import RemoteStat, filesystem, remote_errors, remote_stat
from ingest.sources.urls import redacted

__all__ = [
    "MAX_AT_ONCE",
    "RemoteEntry",
    "child_url",
    "is_folder",
    "list_below",
    "list_folders",
    "match_pattern",
    "read_files",
    "read_parts",
    "read_span",
    "stat_or_none",
]

MAX_AT_ONCE = 16
NO_BUCKET = "NoSuchBucket"  # boto's word: all of the store is gone, not one file of it


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """What a listing says of a file, or of a folder, at a URL."""

    url: str
    is_folder: bool

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return redacted(self.url).rstrip("/").rpartition("/")[2]


def child_url(url: str, name: str) -> str:
    """Return the URL of what lies in a folder under a name; `name` may have several parts."""
    return f"{url.rstrip('/')}/{name.strip('/')}" if name.strip("/") else url.rstrip("/")


def is_folder(url: str) -> bool:
    """Return whether a URL names a folder; one or two requests, none if it ends with ``/``.

    Raises
    ------
    SourceNotFoundError
        There is nothing there.
    SourceError, SettingsError
        As `remote_stat`.
    """
    with remote_errors(url):
        fs, path = filesystem(url)
        return url.endswith("/") or bool(fs.info(path)["type"] == "directory")


def list_folders(urls: Sequence[str]) -> list[list[RemoteEntry]]:
    """List what is directly in each of some folders; one request for each 1000 entries, 16 folders at once.

    Raises
    ------
    SourceNotFoundError
        There is nothing in one, or it is not there: a store does not tell these apart.
    SourceError, SettingsError
        As `remote_stat`.
    """
    if len(urls) <= 1:
        return [_list_folder(url) for url in urls]
    with ThreadPoolExecutor(min(len(urls), MAX_AT_ONCE)) as threads:
        return list(threads.map(_list_folder, urls))


def _list_folder(url: str) -> list[RemoteEntry]:
    with remote_errors(url):
        fs, path = filesystem(url)
        entries = [
            RemoteEntry(fs.unstrip_protocol(entry["name"]), entry["type"] == "directory")
            for entry in fs.ls(path, detail=True)
            if entry["name"].rstrip("/") != path.rstrip("/")  # S3's mark of an empty folder
        ]
    if not entries:
        raise SourceNotFoundError(f"{redacted(url)}: there is nothing in this folder", hint="check the URL")
    return entries


def match_pattern(url: str) -> list[RemoteEntry]:
    """List the files and folders that a pattern with ``*`` matches.

    Raises
    ------
    SourceNotFoundError
        None.
    SourceError, SettingsError
        As `remote_stat`.
    """
    with remote_errors(url):
        fs, path = filesystem(url)
        found = fs.glob(path, detail=True).items()
        matches = [RemoteEntry(fs.unstrip_protocol(name), info["type"] == "directory") for name, info in found]
    if not matches:
        raise SourceNotFoundError(f"{redacted(url)}: the pattern matches nothing", hint="quote it")
    return matches


def list_below(url: str) -> Iterator[tuple[str, int]]:
    """Yield the files below a folder, however deep: name in it, and size in bytes (-1: the server does not tell).

    One request for each 1000 of them where a store can list all below a prefix. Nothing there: nothing is yielded.

    Raises
    ------
    SourceError, SettingsError
        As `remote_stat`.
    """
    with remote_errors(url):
        fs, path = filesystem(url)
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return
    within = len(path.rstrip("/")) + 1
    for name, info in found.items():
        size = info.get("size")
        yield name[within:], -1 if size is None else int(size)


def read_files(urls: Sequence[str], most_bytes: int) -> list[bytes | None]:
    """Read files at once, one request each; None: there is none. What is longer than `most_bytes` is cut there.

    Raises
    ------
    SourceError, SettingsError
        As `remote_stat`.
    """
    return _read_spans([(url, 0, most_bytes) for url in urls])


def read_parts(parts: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Read parts of files at once, one request each: URL, first byte, one more than the last.

    Raises
    ------
    SourceNotFoundError
        A file is not there.
    SourceFormatError
        The server gives files only whole.
    SourceError, SettingsError
        As `remote_stat`.
    """
    contents = []
    for (url, _, _), content in zip(parts, _read_spans(parts), strict=True):
        if content is None:
            raise SourceNotFoundError(f"{redacted(url)}: there is no such file", hint="check the URL")
        contents.append(content)
    return contents


def read_span(url: str, start: int, stop: int) -> bytes | None:
    """Read a part of one file, one request; None: there is no such file. Fewer bytes at its end.

    Raises
    ------
    SourceNotFoundError
        All of the store is gone.
    SourceError, SettingsError
        As `read_parts`.
    """
    return _read_spans([(url, start, stop)])[0]


def _read_spans(parts: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
    if not parts:
        return []
    urls, starts, stops = (list(column) for column in zip(*parts, strict=True))
    with remote_errors(urls[0]):
        fs, _ = filesystem(urls[0])
        paths = [filesystem(url)[1] for url in urls]
        found = fs.cat_ranges(paths, starts, stops, on_error="return")
    contents = []
    for url, start, stop, part in zip(urls, starts, stops, found, strict=True):
        content = _content(url, part)
        if start > 0 and len(content or b"") > stop - start:
            raise SourceFormatError(
                f"{redacted(url)}: the server gives files only whole, not in parts", hint="copy all to a local disk"
            )
        contents.append(None if content is None else content[: stop - start])
    return contents


def stat_or_none(url: str) -> RemoteStat | None:
    """Return one file's size and version, or None: there is no such file; a request, and a second if it is not there.

    Raises
    ------
    SourceError, SettingsError
        As `remote_stat`.
    """
    try:
        return remote_stat(url)
    except SourceNotFoundError as error:
        if error.__cause__ is not None and NO_BUCKET in str(error.__cause__.__cause__):
            raise
        return None


def _content(url: str, found: bytes | BaseException) -> bytes | None:
    """Return what a client read, or raise our error for what it says."""
    if isinstance(found, FileNotFoundError) and NO_BUCKET not in str(found.__cause__):
        return None
    if isinstance(found, BaseException):
        if getattr(found, "errno", None) == errno.EINVAL or getattr(found, "status", None) == 416:
            return b""  # the file ends before the part that was asked for
        with remote_errors(url):
            raise found
    return bytes(found)
