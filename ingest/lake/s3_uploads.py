"""A lake in S3 that others may upload to: presigned URLs out, and what came of them back.

"Uploading objects with presigned URLs" and "Authenticating Requests: Using Query Parameters" in the Amazon S3
documentation.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from ingest.errors import SettingsError
from ingest.lake import s3_errors
from ingest.lake.opening import canonical_lake_url, open_store
from ingest.lake.s3_store import S3Store
from ingest.lake.store import LakeStore, check_object_name
from ingest.retry import RetryPolicy

__all__ = ["MAX_URL_TTL_S", "Arrival", "S3UploadStore", "UploadStore", "open_upload_store"]

MAX_URL_TTL_S = 7 * 86_400
"""How long a presigned URL can be good for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An object that came, as the store tells it.

    Attributes
    ----------
    name : str
        Below the store's root.
    n_bytes : int
        Its size.
    etag : str
        Without quotes; another one for other bytes.
    modified_unix_s : float
        When it came, by the store's clock: whole seconds, which is all that some of its answers tell.
    crc32c : int or None
        Of its bytes, as the store counted it; None: it did not.
    """

    name: str
    n_bytes: int
    etag: str
    modified_unix_s: float
    crc32c: int | None = None


@runtime_checkable
class UploadStore(LakeStore, Protocol):
    """A store that hands out URLs by which others upload straight to it."""

    def upload_url(self, name: str, ttl_s: float) -> str:
        """Return a URL that takes an object by a bare PUT, without a key: a secret.

        Parameters
        ----------
        name : str
            The object.
        ttl_s : float
            How long the URL is good for; `MAX_URL_TTL_S` at most.
        """
        ...

    def arrival(self, name: str) -> Arrival | None:
        """Return what the store tells of an object; None: there is none."""
        ...

    def arrivals(self, prefix: str) -> Iterator[Arrival]:
        """Yield what the store tells of all objects below a folder's name, in order of name."""
        ...

    def give_up(self) -> None:
        """End the waits of calls that are tried again; what is under way goes on."""
        ...


class S3UploadStore(S3Store):
    """A bucket that others may upload to. Parameters as of `S3Store`."""

    def upload_url(self, name: str, ttl_s: float) -> str:
        """Return a presigned URL; see `UploadStore.upload_url`.

        Notes
        -----
        Only the host is signed besides method, key and query: a client may send any ``Content-Type``, or none.
        """
        path, expires_s = self._path(check_object_name(name)), min(max(math.ceil(ttl_s), 1), MAX_URL_TTL_S)
        return self._attempts.run(
            f"sign an upload of {name!r}",
            lambda: str(self._fs.url(path, expires=expires_s, client_method="put_object")),
        )

    def arrival(self, name: str) -> Arrival | None:
        """Return what the store tells of an object; see `UploadStore.arrival`."""
        key = self._key(check_object_name(name))

        def attempt() -> Arrival | None:
            try:
                return _arrival(name, self._ask("head_object", Key=key, ChecksumMode="ENABLED"), "ContentLength")
            except OSError as error:
                if s3_errors.is_missing(error):
                    return None
                raise

        return self._attempts.run(f"look at {name!r}", attempt)

    def arrivals(self, prefix: str) -> Iterator[Arrival]:
        """Yield what the store tells of the objects below a folder; see `UploadStore.arrivals`."""
        below = f"{self._key(check_object_name(prefix))}/"
        skipped = len(self._key(""))
        for item in self._pages(below):
            yield _arrival(item["Key"][skipped:].lstrip("/"), item, "Size")

    def give_up(self) -> None:
        """End the waits of calls; see `UploadStore.give_up`."""
        self._attempts.close()

    def _client(self, url: str) -> tuple[Any, str]:
        fs, path = super()._client(url)
        # Else botocore signs URLs of some regions by version 2, which also signs the Content-Type that comes.
        fs.config_kwargs["signature_version"] = "s3v4"
        return fs, path


def _arrival(name: str, told: dict[str, Any], size: str) -> Arrival:
    modified = told["LastModified"]
    crc = told.get("ChecksumCRC32C")
    is_whole = told.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" and crc is not None and "-" not in crc
    return Arrival(
        name=name,
        n_bytes=int(told[size]),
        etag=str(told.get("ETag", "")).strip('"'),
        modified_unix_s=float(int(modified.timestamp())) if isinstance(modified, datetime) else 0.0,
        crc32c=int.from_bytes(base64.b64decode(str(crc)), "big") if is_whole else None,
    )


def open_upload_store(url: str, *, retry: RetryPolicy | None = None, max_connections: int = 8) -> UploadStore:
    """Return the store that a URL means, for others to upload to; nothing is connected or made yet.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``.
    retry, max_connections
        As for `open_store`.

    Raises
    ------
    SettingsError
        What `open_store` refuses; a store that hands out no upload URLs.
    """
    known = canonical_lake_url(url)
    if not known.startswith("s3://"):
        raise SettingsError(
            f"{known}: no URLs are known here by which clients could upload to such a store",
            hint="use a folder, or s3://bucket/path; AWS_ENDPOINT_URL names a store that speaks S3, such as MinIO",
        )
    open_store(known)  # says what is missing for such URLs
    return S3UploadStore(known, retry=retry, max_connections=max_connections)
