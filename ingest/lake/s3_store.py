"""A lake in S3, or in a store that speaks its protocol, through s3fs.

Limits, part sizes and checksums: "Multipart upload limits", "Checking object integrity" and "DeleteObjects" in the
Amazon S3 documentation.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import google_crc32c

from ingest.errors import DestinationError, MissingObjectError
from ingest.lake import s3_errors
from ingest.lake.attempts import AttemptFailedError, checked_crc32c, checked_name, resolve_range
from ingest.lake.fsspec_store import FsspecStore
from ingest.lake.store import StoredObject, check_object_name
from ingest.retry import RetryPolicy

__all__ = ["S3Store"]

SINGLE_PUT_BYTES = 64 << 20
"""Larger objects go in parts. S3 takes up to 5 GiB at once, but a failed attempt starts over."""
PART_BYTES = 32 << 20
CLEANED_AFTER_S = 86_400.0
MIN_PART_BYTES = 5 << 20
MAX_PARTS = 10_000
PARTS_AT_ONCE = 4
DELETE_AT_ONCE = 1000
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
SLOWEST_BYTES_PER_S = 100_000
"""A body that takes longer than it would at this rate is given up and sent again."""
_MD5 = re.compile(r"[0-9a-f]{32}")


class _UncheckedError(DestinationError):
    """The store did not check the CRC-32C that it was given; never leaves this module."""


class S3Store(FsspecStore):
    """Objects in a bucket. Credentials, region and endpoint come from the environment and files that AWS tools read.

    Every upload carries a checksum that the store checks: CRC-32C, which it must repeat in its answer, or, from the
    first time that it does not, Content-MD5. Objects above 64 MiB go in parts of 32 MiB, which appear as one
    object. A killed upload in parts stays in the bucket, invisible, until `clean`, or a lifecycle rule
    (AbortIncompleteMultipartUpload), removes it.

    Parameters
    ----------
    url, retry, max_connections, clock, sleep
        As for `FsspecStore`.
    single_put_bytes : int
        The most that is sent in one request.
    part_bytes : int
        Size of parts, at least 5 MiB; more where an object would need over 10,000 of them.

    Notes
    -----
    A put holds ``min(n_bytes, single_put_bytes)`` or ``4 * part_bytes`` besides the parts that it was given.
    """

    def __init__(
        self,
        url: str,
        *,
        retry: RetryPolicy | None = None,
        max_connections: int = 8,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        single_put_bytes: int = SINGLE_PUT_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        super().__init__(url, retry=retry, max_connections=max_connections, clock=clock, sleep=sleep)
        self._bucket, _, self._folder = url.partition("://")[2].partition("/")
        self._single_put_bytes = single_put_bytes
        self._part_bytes = max(part_bytes, MIN_PART_BYTES)
        self._bucket_seen = False
        self._checks_crc32c = True
        self._etag_is_md5 = True
        self._deletes_in_bulk = True

    def put(self, name: str, data: Sequence[bytes], *, crc32c: int | None = None) -> str | None:
        """Store an object; see `LakeStore.put`."""
        crc = checked_crc32c(self._url, checked_name(name), data, crc32c)
        n_bytes = sum(map(len, data))
        asked = f"put {name!r} ({n_bytes} bytes)"
        if n_bytes > self._single_put_bytes:
            return self._verified(lambda checks: self._put_in_parts(asked, name, data, n_bytes, checks))
        body = data[0] if len(data) == 1 else b"".join(data)
        return self._verified(
            lambda checks: self._attempts.run(asked, lambda: self._put_whole(name, body, crc if checks else None))
        )

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object's bytes; see `LakeStore.get`."""
        check_object_name(name)
        if stop is not None and (start < 0 or stop <= start):
            n_bytes = self.size(name)
            if n_bytes is None:
                raise MissingObjectError(f"{self._url}: there is no object {name!r}")
            start, stop = resolve_range(start, stop, n_bytes)
            if start == stop:
                return b""
        return self._attempts.run(f"get {name!r}", lambda: self._get(name, start, stop))

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None: there is none."""
        check_object_name(name)

        def attempt() -> int | None:
            try:
                return int(self._ask("head_object", Key=self._key(name))["ContentLength"])
            except OSError as error:
                if not s3_errors.is_missing(error):
                    raise
            if not self._bucket_seen:  # the same answer to a HEAD
                self._ask("list_objects_v2", Prefix=self._key(name), MaxKeys=1)
            return None

        return self._attempts.run(f"look at {name!r}", attempt)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; see `LakeStore.delete`."""
        self._delete_keys([self._key(check_object_name(name)) for name in names])

    def delete_below(self, prefix: str) -> None:
        """Remove all objects below a folder's name. Safe to repeat."""
        below = f"{self._key(check_object_name(prefix.rstrip('/')))}/"
        self._delete_keys([str(item["Key"]) for item in self._pages(below)])

    def clean(self, prefix: str, older_than_s: float = CLEANED_AFTER_S) -> None:
        """Remove what killed writers left half-written below a folder's name: uploads that began long ago."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        below = f"{self._key(check_object_name(prefix.rstrip('/')))}/"
        more = True
        while more:
            page = self._attempts.run(
                f"list uploads to {below!r}", lambda: self._ask("list_multipart_uploads", Prefix=below)
            )
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= before:  # a younger one may be that of a writer who lives
                    self._abort(upload["Key"], upload["UploadId"])
            more = bool(page.get("IsTruncated"))

    def close(self) -> None:
        """Close the connections, and end the waits of calls that are tried again. Safe to repeat."""
        import fsspec.asyn  # type: ignore[import-untyped]  # it has no types

        opened = self._opened
        super().close()
        if opened is not None:
            fs = opened[1]
            with suppress(Exception):
                fsspec.asyn.sync(fs.loop, fs.s3.close, timeout=1)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _client(self, url: str) -> tuple[Any, str]:
        import botocore.config  # type: ignore[import-untyped]  # it has no types
        import fsspec

        config: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": ANSWER_TIMEOUT_S,
            "max_pool_connections": self._max_connections,
            "retries": {"total_max_attempts": 1},  # ours are the only ones
        }
        for option in ("request_checksum_calculation", "response_checksum_validation"):
            # Those that botocore adds by itself come in trailers, which look-alikes of S3 do not know.
            if option in botocore.config.Config.OPTION_DEFAULTS:
                config[option] = "when_required"
        config |= fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, config_kwargs=config)
        fs.retries = 1
        return fs, url.partition("://")[2]

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._folder, name) if part)

    def _ask(self, method: str, *, n_bytes: int = 0, **arguments: Any) -> dict[str, Any]:
        """Make one request, once there is a place for it, and return the answer."""
        fs = self._fs
        with self._places:
            timeout_s = ANSWER_TIMEOUT_S + n_bytes / SLOWEST_BYTES_PER_S
            answer: dict[str, Any] = fs.call_s3(method, Bucket=self._bucket, timeout=timeout_s, **arguments)
        self._bucket_seen = True
        return answer

    def _send(self, method: str, body: bytes, crc32c: int | None, **arguments: Any) -> dict[str, Any]:
        """Make a request with a body, and a checksum that the store checks.

        Raises
        ------
        _UncheckedError
            It was given the CRC-32C, and did not check it.
        """
        if crc32c is None:
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            return self._ask(method, n_bytes=len(body), Body=body, ContentMD5=md5, **arguments)
        checksum = base64.b64encode(crc32c.to_bytes(4, "big")).decode()
        arguments |= {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": checksum}
        try:
            answer = self._ask(method, n_bytes=len(body), Body=body, **arguments)
        except OSError as error:
            if s3_errors.refuses_checksum(error):
                raise _UncheckedError(str(error)) from error
            raise
        if answer.get("ChecksumCRC32C") != checksum:
            raise _UncheckedError("the store did not repeat the checksum")
        return answer

    def _verified(self, send: Callable[[bool], str | None]) -> str | None:
        """Have an object sent with a CRC-32C (True), or, to a store that does not check it, Content-MD5 (False)."""
        if self._checks_crc32c:
            with suppress(_UncheckedError):
                return send(True)
        etag = send(False)
        self._checks_crc32c = False
        return etag

    def _put_whole(self, name: str, body: bytes, crc32c: int | None) -> str | None:
        answer = self._send("put_object", body, crc32c, Key=self._key(name))
        etag = str(answer.get("ETag", "")).strip('"')
        if crc32c is None and self._etag_is_md5 and _MD5.fullmatch(etag) and not _is_encrypted(answer):
            self._check_etag(name, body, etag)
        return etag or None

    def _check_etag(self, name: str, body: bytes, etag: str) -> None:
        """Compare the ETag with the MD5; from a store whose ETags are something else, read one object back instead."""
        if etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
            return
        if self._get(name, 0, None) != body:
            raise AttemptFailedError("the store holds other bytes than those that were sent")
        self._etag_is_md5 = False

    def _copy(self, source: str, target: str) -> bool:
        try:
            origin = {"Bucket": self._bucket, "Key": self._key(source)}
            self._ask("copy_object", Key=self._key(target), CopySource=origin)
        except OSError as error:
            if s3_errors.is_missing(error):
                raise MissingObjectError(f"{self._url}: there is no object {source!r}") from error
            if s3_errors.cannot_copy(error):
                return False
            raise
        return True

    def _put_in_parts(self, asked: str, name: str, data: Sequence[bytes], n_bytes: int, checks: bool) -> str | None:
        return self._attempts.run(asked, lambda: self._upload(asked, name, data, n_bytes, checks))

    def _upload(self, asked: str, name: str, data: Sequence[bytes], n_bytes: int, checks: bool) -> str | None:
        key = self._key(name)
        size = max(self._part_bytes, -(-n_bytes // MAX_PARTS))
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "CRC32C"} if checks else {}
        try:
            upload_id = self._ask("create_multipart_upload", Key=key, **algorithm)["UploadId"]
        except OSError as error:
            if checks and s3_errors.refuses_checksum(error):
                raise _UncheckedError(str(error)) from error
            raise

        def send(numbered: tuple[int, list[memoryview]]) -> dict[str, Any]:
            number, views = numbered
            body = b"".join(views)
            crc = google_crc32c.value(body) if checks else None
            where = {"Key": key, "UploadId": upload_id, "PartNumber": number}
            answer = self._attempts.run(
                f"{asked}, part {number}", lambda: self._send("upload_part", body, crc, **where)
            )
            kept = {name: answer[name] for name in ("ETag", "ChecksumCRC32C") if answer.get(name)}
            return {"PartNumber": number, **kept}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="s3-part") as pool:
                parts = list(pool.map(send, enumerate(_pieces(data, size), 1)))
            done = self._ask("complete_multipart_upload", Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):
                self._ask("abort_multipart_upload", Key=key, UploadId=upload_id)
            raise
        if (arrived := self.size(name)) != n_bytes:
            raise AttemptFailedError(f"the store holds {arrived} bytes of it")
        return str(done.get("ETag", "")).strip('"') or None

    def _abort(self, key: str, upload_id: str) -> None:
        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._ask("abort_multipart_upload", Key=key, UploadId=upload_id)

        self._attempts.run(f"abort an upload of {key!r}", attempt)

    def _get(self, name: str, start: int, stop: int | None) -> bytes:
        import fsspec.asyn

        wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{'' if stop is None else stop - 1}"
        arguments = {} if start == 0 and stop is None else {"Range": wanted}
        fs = self._fs
        with self._places:
            try:
                answer = fs.call_s3("get_object", Bucket=self._bucket, Key=self._key(name), **arguments)
            except OSError as error:
                if s3_errors.is_missing(error):
                    raise MissingObjectError(f"{self._url}: there is no object {name!r}") from error
                if s3_errors.is_no_range(error):
                    return b""
                raise
            n_bytes = int(answer["ContentLength"])
            try:
                timeout_s = ANSWER_TIMEOUT_S + n_bytes / SLOWEST_BYTES_PER_S
                data = bytes(fsspec.asyn.sync(fs.loop, answer["Body"].read, timeout=timeout_s))
            finally:
                fs.loop.call_soon_threadsafe(answer["Body"].close)
        if len(data) != n_bytes:
            raise AttemptFailedError(f"{len(data)} of {n_bytes} bytes came")
        # A store may give the whole of it for any range.
        return data if answer.get("ContentRange") or not arguments else data[start:stop]

    def _find(self, prefix: str) -> Iterator[StoredObject]:
        below = self._key(check_object_name(prefix) if prefix else "")
        skipped = len(self._folder) + 1 if self._folder else 0
        for item in self._pages(f"{below}/" if below else ""):
            if not item["Key"].endswith("/"):
                yield StoredObject(item["Key"][skipped:], int(item["Size"]))

    def _pages(self, below: str) -> Iterator[dict[str, Any]]:
        """Yield what the bucket lists whose keys begin so, in order of key; 1000 are held."""
        more: dict[str, Any] = {}
        while True:
            page = self._attempts.run(
                f"list {below or '/'!r}", partial(self._ask, "list_objects_v2", Prefix=below, **more)
            )
            yield from page.get("Contents", ())
            if not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _delete_keys(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), DELETE_AT_ONCE):
            some = keys[first : first + DELETE_AT_ONCE]
            if self._deletes_in_bulk:
                self._attempts.run(f"remove {len(some)} objects", partial(self._delete_some, some))
            if not self._deletes_in_bulk:
                with ThreadPoolExecutor(self._max_connections, thread_name_prefix="delete") as pool:
                    list(pool.map(self._delete_key, some))

    def _delete_some(self, keys: Sequence[str]) -> None:
        try:
            answer = self._ask("delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
        except OSError as error:
            if not s3_errors.refuses_bulk_delete(error):
                raise
            self._deletes_in_bulk = False
            return
        for failed in answer.get("Errors", ()):
            if failed.get("Code") != "NoSuchKey":
                raise s3_errors.explain_answer(self._url, f"remove {failed.get('Key')!r}", {"Error": failed})

    def _delete_key(self, key: str) -> None:
        self._attempts.run(f"remove {key!r}", lambda: self._ask("delete_object", Key=key))

    def _explain(self, asked: str, error: Exception) -> AttemptFailedError | DestinationError:
        return s3_errors.explain(self._url, asked, error)


def _is_encrypted(answer: dict[str, Any]) -> bool:
    """Return whether the ETag is of encrypted bytes ("Checking object integrity": SSE-C and SSE-KMS)."""
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def _pieces(data: Sequence[bytes], n_bytes: int) -> Iterator[list[memoryview]]:
    """Cut an object's parts into pieces of so many bytes, the last one of less; nothing is copied."""
    piece: list[memoryview] = []
    held = 0
    for part in data:
        rest = memoryview(part)
        while len(rest):
            view = rest[: n_bytes - held]
            piece.append(view)
            held += len(view)
            rest = rest[len(view) :]
            if held == n_bytes:
                yield piece
                piece, held = [], 0
    if piece:
        yield piece
