"""A lake on any store that fsspec has a client for, as far as all of them go."""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ingest.errors import AuthenticationError, DestinationError, MissingObjectError, RefusedError
from ingest.lake.attempts import (
    PART_SUFFIX,
    AttemptFailedError,
    Attempts,
    checked_crc32c,
    checked_name,
    is_part,
    resolve_range,
)
from ingest.lake.store import StoredObject, check_object_name
from ingest.retry import RetryPolicy
from ingest.sources.urls import redacted_text

__all__ = ["FsspecStore"]

WHOLE_OBJECT_SCHEMES = frozenset({"memory", "s3", "gs", "abfs", "abfss", "az", "oss", "oci"})
"""Stores that show an object only once all of it is there; elsewhere it is written beside its name and renamed."""
PASSING_STATUS = frozenset({408, 425, 429})
_PASSING_ERRNO = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EPIPE,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN,
})  # fmt: skip
_NOT_AN_OBJECT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_NO_CREDENTIALS = frozenset({
    "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "CredentialUnavailableError",
    "AuthenticationException", "BadHostKeyException",
})  # fmt: skip
_NO_ANSWER = frozenset({"FSTimeoutError", "ClientError", "ServiceRequestError", "ServiceResponseError", "SSHException"})
"""Of aiohttp, azure.core and paramiko, which are installed only where they are used."""


class FsspecStore:
    """Objects below a URL that fsspec has a client for: ``memory://``, ``gs://``, ``abfs://``, ``sftp://``...

    Parameters
    ----------
    url : str
        As `canonical_lake_url` gives it.
    retry : RetryPolicy, optional
        How long to try.
    max_connections : int, default 8
        Requests in flight at once, of all threads together; further ones wait.
    clock, sleep : callable
        Monotonic seconds; a wait of so many seconds.
    make : callable, optional
        Takes the URL and returns a client of fsspec and the path in it.

    Notes
    -----
    A put holds the object once more than its parts do. Each process has a client of its own, also after a fork.
    """

    def __init__(
        self,
        url: str,
        *,
        retry: RetryPolicy | None = None,
        max_connections: int = 8,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        make: Callable[[str], tuple[Any, str]] | None = None,
    ) -> None:
        self._url = url
        self._scheme = url.partition("://")[0]
        self._max_connections = max_connections
        self._make = make or self._client
        self._lock = threading.Lock()
        self._opened: tuple[int, Any, str, threading.Semaphore] | None = None
        self._attempts = Attempts(url, self._explain, retry, clock=clock, sleep=sleep)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    @property
    def url(self) -> str:
        """The URL, without anything secret."""
        return self._url

    def put(self, name: str, data: Sequence[bytes], *, crc32c: int | None = None) -> str | None:
        """Store an object; see `LakeStore.put`."""
        checked_crc32c(self._url, checked_name(name), data, crc32c)
        body = b"".join(data)
        return self._attempts.run(f"put {name!r} ({len(body)} bytes)", lambda: self._put(name, body))

    def copy(self, source: str, target: str) -> None:
        """Store an object once more under another name; see `LakeStore.copy`."""
        check_object_name(source)
        checked_name(target)
        if not self._attempts.run(f"copy {source!r} to {target!r}", lambda: self._copy(source, target)):
            self.put(target, [self.get(source)])

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object's bytes; see `LakeStore.get`."""
        check_object_name(name)

        def attempt() -> bytes:
            with self._places:
                try:
                    if start == 0 and stop is None:
                        return bytes(self._fs.cat_file(self._path(name)))
                    info = self._info(name)
                    if info["type"] != "file":
                        raise IsADirectoryError(name)
                    first, last = resolve_range(start, stop, info["size"])
                    return bytes(self._fs.cat_file(self._path(name), first, last)) if last > first else b""
                except _NOT_AN_OBJECT as exc:
                    raise MissingObjectError(f"{self._url}: there is no object {name!r}") from exc

        return self._attempts.run(f"get {name!r}", attempt)

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None: there is none."""
        check_object_name(name)

        def attempt() -> int | None:
            with self._places:
                try:
                    info = self._info(name)
                except _NOT_AN_OBJECT:
                    return None
                return int(info["size"]) if info["type"] == "file" else None

        return self._attempts.run(f"look at {name!r}", attempt)

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a folder; see `LakeStore.objects`."""
        prefix = prefix.rstrip("/")
        yield from (found for found in self._find(prefix) if not is_part(found.name))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; see `LakeStore.delete`."""
        checked = [check_object_name(name) for name in names]
        with ThreadPoolExecutor(self._max_connections, thread_name_prefix="delete") as pool:
            list(pool.map(self._delete, checked))

    def delete_below(self, prefix: str) -> None:
        """Remove all objects below a folder's name, and the folder. Safe to repeat."""
        path = check_object_name(prefix.rstrip("/"))

        def attempt() -> None:
            with self._places, suppress(FileNotFoundError):
                self._fs.invalidate_cache()
                self._fs.rm(self._path(path), recursive=True)

        self._attempts.run(f"remove all below {prefix!r}", attempt)

    def clean(self, prefix: str) -> None:
        """Remove what killed writers left half-written below a folder's name; only while nobody writes there."""
        self.delete(found.name for found in self._find(prefix.rstrip("/")) if is_part(found.name))

    def close(self) -> None:
        """Let go of connections, and end the waits of calls that are tried again. Safe to repeat."""
        self._attempts.close()
        with self._lock:
            self._opened = None

    # -- the client ----------------------------------------------------------------------------------------------------

    def _client(self, url: str) -> tuple[Any, str]:
        import fsspec  # type: ignore[import-untyped]  # it has no types

        # Of its own, since others may close a shared one; listings are asked for each time, since others write too.
        fs, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        return fs, path.rstrip("/")

    @property
    def _open(self) -> tuple[int, Any, str, threading.Semaphore]:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), *self._make(self._url), threading.BoundedSemaphore(self._max_connections))
            return self._opened

    @property
    def _fs(self) -> Any:
        return self._open[1]

    @property
    def _root(self) -> str:
        return self._open[2]

    @property
    def _places(self) -> threading.Semaphore:
        return self._open[3]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _info(self, name: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        info: dict[str, Any] = self._fs.info(self._path(name))
        return info

    # -- one attempt ---------------------------------------------------------------------------------------------------

    def _put(self, name: str, body: bytes) -> str | None:
        path = self._path(name)
        with self._places:
            if self._scheme in WHOLE_OBJECT_SCHEMES:
                self._fs.pipe_file(path, body)
            else:
                self._put_beside(path, body)
            info = self._info(name)
        if info["size"] != len(body):
            raise AttemptFailedError(f"{info['size']} of {len(body)} bytes arrived")
        etag = info.get("ETag") or info.get("etag")
        return str(etag).strip('"') if etag else None

    def _copy(self, source: str, target: str) -> bool:
        """Have the store copy an object; False: it cannot, or would show half of it meanwhile."""
        if self._scheme not in WHOLE_OBJECT_SCHEMES:
            return False
        with self._places:
            try:
                found = self._info(source)
                if found["type"] != "file":
                    raise IsADirectoryError(source)
                self._fs.cp_file(self._path(source), self._path(target))
            except NotImplementedError:
                return False
            except _NOT_AN_OBJECT as exc:
                raise MissingObjectError(f"{self._url}: there is no object {source!r}") from exc
            if (arrived := self._info(target)["size"]) != found["size"]:
                raise AttemptFailedError(f"{arrived} of {found['size']} bytes arrived")
        return True

    def _put_beside(self, path: str, body: bytes) -> None:
        folder = path.rpartition("/")[0]
        part = f"{folder}/.{secrets.token_hex(8)}{PART_SUFFIX}"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._fs.pipe_file(part, body)
            if (arrived := self._fs.info(part)["size"]) != len(body):
                raise AttemptFailedError(f"{arrived} of {len(body)} bytes arrived")
            self._fs.mv(part, path)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(part)
            raise

    def _delete(self, name: str) -> None:
        def attempt() -> None:
            with self._places, suppress(FileNotFoundError, NotADirectoryError):
                self._fs.rm_file(self._path(name))

        self._attempts.run(f"remove {name!r}", attempt)

    def _find(self, prefix: str) -> Iterator[StoredObject]:
        path = self._path(check_object_name(prefix) if prefix else "")

        def attempt() -> dict[str, dict[str, Any]]:
            with self._places:
                self._fs.invalidate_cache()
                try:
                    found: dict[str, dict[str, Any]] = self._fs.find(path, detail=True)
                except _NOT_AN_OBJECT:
                    return {}
                return found

        found = self._attempts.run(f"list {prefix or '/'!r}", attempt)
        below = f"{path}/"
        names = {key.removeprefix(f"{self._root}/"): info for key, info in found.items() if key.startswith(below)}
        for name in sorted(names):
            if names[name]["type"] == "file" and not name.endswith("/"):
                yield StoredObject(name, int(names[name]["size"]))

    def _explain(self, asked: str, error: Exception) -> AttemptFailedError | DestinationError:
        detail = redacted_text(" ".join(str(error).split())) or type(error).__name__
        text = f"{self._url}: could not {asked}: {detail}"
        kinds = {kind.__name__ for kind in type(error).__mro__}
        status = _status(error)
        if isinstance(error, PermissionError) or status in (401, 403) or kinds & _NO_CREDENTIALS:
            return AuthenticationError(text, hint="give this user's credentials, where this kind of store expects them")
        if status is not None and (status in PASSING_STATUS or status >= 500):
            return AttemptFailedError(detail, status=status)
        if isinstance(error, (ConnectionError, TimeoutError, EOFError)) or kinds & _NO_ANSWER:
            return AttemptFailedError(detail)
        if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
            return AttemptFailedError(detail)
        if isinstance(error, FileNotFoundError):
            return RefusedError(f"{text}: there is no such bucket or folder", hint="create it, or check the URL")
        return RefusedError(text, hint="check the URL")


def _status(error: Exception) -> int | None:
    """Return the HTTP status that a client's exception carries, under one of the names in use."""
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
        if isinstance(value, str) and value.isdecimal():
            return int(value)
    return None
