"""Which store a URL means."""

from __future__ import annotations

import os
import re

from ingest.errors import SettingsError
from ingest.lake.fsspec_store import FsspecStore
from ingest.lake.local_store import LocalStore
from ingest.lake.s3_store import S3Store
from ingest.lake.store import LakeStore
from ingest.retry import RetryPolicy
from ingest.sources.urls import check_url, redacted, redacted_text

__all__ = ["canonical_lake_url", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CHAIN = re.compile(r"[A-Za-z0-9+.-]+(://.*)?::")
_HALF_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_SAME = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
"""Names that mean the same store."""
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
_NOT_FOR_WRITING = frozenset({"http", "https", "null"})
_INSTALL = {
    "s3": "pip install 'rheed-ingest[s3]'",
    "gs": "pip install gcsfs",
    "abfs": "pip install adlfs",
    "sftp": "pip install paramiko",
    "ssh": "pip install paramiko",
    "smb": "pip install smbprotocol",
    "oss": "pip install ossfs",
    "oci": "pip install ocifs",
}


def canonical_lake_url(url: str) -> str:
    """Return a lake's URL as it is written in journals and manifests, the same for each way to write it.

    Parameters
    ----------
    url : str
        A folder (``~`` and ``file://`` are known), or ``scheme://bucket/path`` of any store that fsspec knows.

    Returns
    -------
    str
        An absolute path, or a URL without trailing slash.

    Raises
    ------
    SettingsError
        Empty; a password, a query or a fragment in it; an http(s) URL; parts of a path that are empty or dots.
    """
    if not url.strip() or not url.isprintable():
        raise SettingsError(f"{url!r} is no lake", hint="name a folder, or a URL such as s3://bucket/path")
    if chain := _CHAIN.match(url):
        scheme = chain[0].partition(":")[0]
        raise SettingsError(f"{scheme}::... is no lake: its URL has no ::", hint="name the store itself")
    match = _SCHEME.fullmatch(url)
    if match is None and _HALF_A_URL.match(url):
        raise SettingsError(
            f"{redacted_text(url)!r} is neither a folder nor a URL",
            hint="write scheme://bucket/path, or ./name for a folder",
        )
    if match is None or match[1].lower() in ("file", "local"):
        return _local_path(url, match[2] if match else url)
    try:
        check_url(url)
    except SettingsError:
        raise
    except ValueError as exc:
        raise SettingsError(f"{redacted(url)!r} is no URL", hint="write scheme://bucket/path") from exc
    scheme, place = match[1].lower(), match[2].strip("/") if match[1].lower() == "memory" else match[2].rstrip("/")
    shown = redacted(url)
    if scheme in _NOT_FOR_WRITING:
        raise SettingsError(
            f"{shown}: nothing can be stored at {scheme}:// URLs",
            hint="name a folder, or a URL such as s3://bucket/path",
        )
    if re.search(r"[?#]", url):
        raise SettingsError(f"{shown}: a lake's URL has no query and no fragment", hint="leave it out")
    if scheme in _BUCKETS and "@" in place.partition("/")[0]:
        raise SettingsError(
            f"{shown}: a URL must not hold a key",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    if any(part in ("", ".", "..") for part in place.split("/")):
        raise SettingsError(f"{shown} is no lake", hint="write scheme://bucket/path, without . or .. or // in the path")
    return f"{_SAME.get(scheme, scheme)}://{place}"


def _local_path(url: str, path: str) -> str:
    if url is not path:
        host, slash, rest = path.partition("/")
        if host not in ("", "localhost") or not slash:
            raise SettingsError(
                f"{url}: a file:// URL names an absolute path of this machine", hint="write file:///folder, or /folder"
            )
        path = slash + rest
    return os.path.abspath(os.path.expanduser(path))


def open_store(
    url: str, *, fsync: bool = True, retry: RetryPolicy | None = None, max_connections: int = 8
) -> LakeStore:
    """Return the store that a URL means; nothing is connected or made yet.

    Parameters
    ----------
    url : str
        As `canonical_lake_url` takes it.
    fsync : bool, default True
        In a folder: whether what is stored is on disk first.
    retry : RetryPolicy, optional
        How long an unreachable store, or a full disk, is tried.
    max_connections : int, default 8
        Requests in flight at once; further ones wait.

    Raises
    ------
    SettingsError
        What `canonical_lake_url` refuses; no client for such URLs is known or installed.
    """
    known = canonical_lake_url(url)
    match = _SCHEME.fullmatch(known)
    if match is None:
        return LocalStore(known, fsync=fsync, retry=retry)
    _require_client(known, match[1])
    kind = S3Store if match[1] == "s3" else FsspecStore
    return kind(known, retry=retry, max_connections=max_connections)


def _require_client(url: str, scheme: str) -> None:
    import fsspec  # type: ignore[import-untyped]  # it has no types

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as exc:
        hint = _INSTALL.get(scheme, "install the package that it names")
        raise SettingsError(f"{url}: nothing here writes to {scheme}:// URLs: {exc}", hint=hint) from exc
    except ValueError as exc:
        raise SettingsError(f"{url}: there are no {scheme}:// URLs", hint="use s3://, gs:// or a folder") from exc
