"""One attempt at a chunk: a fresh URL, the PUT, and the store's own word on what it got."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from ingest.errors import SettingsError
from ingest.retry import Failure, FailureKind
from ingest.shard import Shard
from ingest.wire.failures import AttemptFailedError, garbled, parse_json
from ingest.wire.models import ChunkMetadata, object_key
from ingest.wire.session import ApiCall, Session

__all__ = ["quoted_id", "upload_once", "upload_url_call", "upload_url_once"]

_MD5 = re.compile(r"[0-9a-f]{32}")
_CRC32C = re.compile(r"crc32c-([0-9a-f]{8})")


def quoted_id(data_id: str) -> str:
    """Return `data_id`, or another id, as one segment of a URL's path.

    Raises
    ------
    SettingsError
        Empty, or one that would lead out of its place: with ``/``, a backslash, ``..`` or control characters.
    """
    if not data_id or ".." in data_id or data_id == "." or not data_id.isprintable() or set(data_id) & {"/", "\\"}:
        raise SettingsError(f"{data_id!r} is no id that a platform gives: it would not stay one segment of a URL")
    return quote(data_id, safe="")


def upload_url_call(data_id: str, index: int, meta: ChunkMetadata) -> ApiCall:
    """Return the request for the upload URL of one chunk; a header names its lost frames, if any."""
    if index < 0:
        raise SettingsError(f"chunk {index} of stream {data_id}: chunks count from 0")
    quoted_id(data_id)
    query = f"original_filename={object_key(index)}&num_parts=1&staging_type=stream"
    return ApiCall("POST", f"/data_entries/raw_data/staged/upload_urls/?{query}", meta.body(data_id), meta.headers())


def _read_url(body: Any) -> str:
    entry = body[0] if isinstance(body, list) and body else body
    url = entry.get("url") if isinstance(entry, dict) else None
    if not isinstance(url, str):
        raise garbled("an object or a list of objects with url", body)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        # Its message quotes a part of the URL, which is a secret.
        raise AttemptFailedError(Failure(FailureKind.GARBLED, detail="the upload URL does not parse")) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise garbled("an http(s) upload URL", f"{parsed.scheme}://{parsed.host}")
    return url


async def upload_url_once(session: Session, call: ApiCall) -> str:
    """Ask for an upload URL once."""
    return _read_url(parse_json((await session.once(call)).content))


async def upload_once(session: Session, call: ApiCall, shard: Shard) -> str | None:
    """Ask for a fresh URL, PUT the shard there, compare checksums; return the store's ETag without quotes."""
    response = await session.put(await upload_url_once(session, call), shard)
    etag = response.headers.get("etag", "").removeprefix("W/").strip('"') or None
    if etag is not None:
        await _compare(etag, response.headers, shard)
    return etag


async def _compare(etag: str, headers: Mapping[str, str], shard: Shard) -> None:
    crc = _CRC32C.fullmatch(etag.lower())
    if crc is not None:
        ours = f"{await asyncio.to_thread(shard.crc32c):08x}"
        theirs = crc[1]
    elif _MD5.fullmatch(etag.lower()) and not _is_encrypted(headers):
        ours = await asyncio.to_thread(shard.md5)
        theirs = etag.lower()
    else:
        return
    if ours != theirs:
        detail = f"the store got other bytes than were sent: its ETag is {theirs}, ours would be {ours}"
        raise AttemptFailedError(Failure(FailureKind.UPLOAD, detail=detail))


def _is_encrypted(headers: Mapping[str, str]) -> bool:
    # With SSE-KMS or SSE-C, S3's ETag has the form of an MD5 but is not the body's.
    scheme = headers.get("x-amz-server-side-encryption", "")
    return scheme.startswith("aws:kms") or "x-amz-server-side-encryption-customer-algorithm" in headers
