"""What zarr reads arrays at URLs through: our own requests, so that errors are ours and nothing is made up.

zarr's own store for fsspec reads a file that is not there as the fill value, and opens a second client beside the one
that lists and reads here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from ingest.errors import FrameDataError, SourceError, SourceReadError
from ingest.sources.remote_folder import child_url, read_span, stat_or_none
from ingest.sources.remote_kept import read_kept
from ingest.sources.zarr_documents import MAX_METADATA_BYTES, Documents

__all__ = ["UrlStore", "WhatIsGone"]

WhatIsGone = Callable[[str], SourceError | None]
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


class UrlStore(Store):
    """One Zarr array at a URL, for reading.

    Parameters
    ----------
    url : str
        The array's folder.
    documents : Documents
        Its metadata.
    gone : callable or None
        See `ingest.sources.zarr_files.open_array`.
    kept : bool
        Whether what is read of files may be half a minute old.

    Attributes
    ----------
    most_bytes : int
        The most that a file can hold; what is longer is damaged, and not read further.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, url: str, documents: Documents, gone: WhatIsGone | None, *, kept: bool) -> None:
        super().__init__(read_only=True)
        self._url = url
        self._documents = documents
        self._gone = gone
        self._kept = kept
        self.most_bytes = MAX_METADATA_BYTES

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """As its metadata are."""
        return 2 if ".zarray" in self._documents else 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlStore) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a file, or a part of it; None: its values are the fill value.

        Raises
        ------
        FrameDataError
            It is empty, or far longer than what it holds.
        SourceError
            It is not there, and that is an error; as `read_parts`.
        """
        if key in _METADATA:
            content = self._documents.get(key)
            return None if content is None else prototype.buffer.from_bytes(content)
        content = await asyncio.to_thread(self._read, key, byte_range)
        if content is None:
            error = self._gone(key) if self._gone is not None else None
            if error is not None:
                raise error
            return None
        return prototype.buffer.from_bytes(content)

    def _read(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        url = child_url(self._url, key)
        match byte_range:
            case RangeByteRequest(start, end):
                content = read_span(url, start, end)
            case OffsetByteRequest(offset):
                content = read_span(url, offset, offset + self.most_bytes)
            case SuffixByteRequest(suffix):
                content = _read_end(url, suffix)
            case _ if self._kept:
                content = read_kept([url], self.most_bytes + 1)[0]
            case _:
                content = read_span(url, 0, self.most_bytes + 1)
        if content is None:
            return None
        if not content or len(content) > self.most_bytes:
            problem = "is empty" if not content else f"has more than {self.most_bytes} bytes"
            raise FrameDataError(f"{url} {problem}: damaged", hint="copy it again from where it was recorded")
        return content

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Return whether there are such metadata; of other files, nobody asks."""
        return key in self._documents

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002  zarr's own name
        """Refuse."""
        raise SourceReadError(f"{child_url(self._url, key)}: a source is only read")

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise SourceReadError(f"{child_url(self._url, key)}: a source is only read")

    async def list(self) -> AsyncIterator[str]:
        """Yield the names of the metadata."""
        for key in self._documents:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of the metadata that begin so."""
        for key in self._documents:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of the metadata in the array's folder."""
        for key in self._documents:
            if not prefix:
                yield key


def _read_end(url: str, count: int) -> bytes | None:
    stat = stat_or_none(url)
    if stat is None:
        return None
    return read_span(url, max(0, stat.size_bytes - count), stat.size_bytes) if stat.size_bytes else b""
