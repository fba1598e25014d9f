"""Frames as they lie in a Zarr array, still compressed: where a shard of ours would hold the very same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from ingest.errors import FrameDataError, SourceNotFoundError
from ingest.shard import CRC_BYTES, INDEX_ENTRY_BYTES, read_index
from ingest.sources.plain_file import PlainFile, largest_stored, size_bytes
from ingest.sources.remote_folder import read_files, read_span, stat_or_none
from ingest.sources.urls import is_url
from ingest.sources.zarr_files import Grid

__all__ = ["EncodedFrames"]

MAX_WASTE = 2
"""Frames that are wanted are read in one piece if that is no more than so many times their size."""


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """An array whose every frame is one zstd frame in a file, alone or in a shard with others.

    Attributes
    ----------
    grid : Grid
        How it is stored.
    is_sharded : bool
        Whether files are shards.
    """

    grid: Grid
    is_sharded: bool

    @classmethod
    def of(cls, array: zarr.Array[Any], grid: Grid) -> EncodedFrames | None:
        """Return how to read the frames of an array without decoding; None: they are not stored in that way.

        Zarr chunks, or a shard's inner ones, have to be whole single frames of uint8, compressed by zstd and by
        nothing else (Zarr v3, codecs ``bytes`` and ``zstd``; v2, compressor ``zstd`` without filters), and a shard's
        index to stand at its end, as PROTOCOL.md has it.
        """
        frame = (1, *grid.shape[1:])
        is_sharded = array.shards is not None
        if array.dtype != "uint8" or grid.inner != frame or grid.outer[1:] != frame[1:]:
            return None
        metadata: Any = array.metadata
        if metadata.zarr_format == 2:
            compressor = getattr(metadata.compressor, "codec_id", None)
            is_plain = compressor == "zstd" and not metadata.filters and metadata.order == "C"
            return cls(grid, is_sharded=False) if is_plain else None
        codecs = tuple(metadata.codecs)
        if not is_sharded:
            return cls(grid, is_sharded=False) if _is_plain_zstd(codecs) else None
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
            return None
        sharding = codecs[0]
        index = tuple(type(codec) for codec in sharding.index_codecs)
        fits = _is_plain_zstd(tuple(sharding.codecs)) and index == (BytesCodec, Crc32cCodec)
        at_end = getattr(sharding.index_location, "value", sharding.index_location) == "end"
        return cls(grid, is_sharded=True) if fits and at_end and _is_little(sharding.index_codecs[0]) else None

    def read(self, start: int, stop: int) -> list[list[bytes | None] | None]:
        """Return encoded frames, file by file.

        Parameters
        ----------
        start, stop : int
            Frames of the array, `stop` exclusive.

        Returns
        -------
        list of list of (bytes or None), or None
            For each file its frames between `start` and `stop`, None for one that is not stored; None for a file that
            is not there. They are not decoded: nobody knows yet whether they are whole.

        Raises
        ------
        FrameDataError
            A shard whose index does not hold, or an empty file.
        SourceError
            It could not be read.

        Notes
        -----
        Whole shards take one request each, parts of one three, single frames one each.
        """
        size = self.grid.outer[0]
        rows = self.grid.rows(start, stop)
        if not self.is_sharded:
            return self._single_frames(rows)
        return [self._shard(row, max(start - row * size, 0), min(stop - row * size, size)) for row in rows]

    def _single_frames(self, rows: range) -> list[list[bytes | None] | None]:
        paths = [self.grid.path(row) for row in rows]
        most = largest_stored(self.grid.file_bytes)
        contents = zip(paths, _read_heads(paths, most + 1), strict=True)
        return [None if content is None else [_checked(content, path, most)] for path, content in contents]

    def _shard(self, row: int, first: int, end: int) -> list[bytes | None] | None:
        size, path = self.grid.outer[0], self.grid.path(row)
        index_bytes = size * INDEX_ENTRY_BYTES + CRC_BYTES
        if first == 0 and end >= min(size, self.grid.shape[0] - row * size):
            most = largest_stored(self.grid.file_bytes)
            whole = _read(path, 0, most + 1)
            if whole is None:
                return None
            entries = read_index(_checked(whole, path, most), size)[:end]
            return [None if entry is None else whole[entry[0] : sum(entry)] for entry in entries]
        length = _size(path)
        if length is None:
            return None
        tail = _read(path, max(0, length - index_bytes), length) or b""
        entries = read_index(tail, size)[first:end]
        return _read_entries(path, entries, length - index_bytes)


def _is_plain_zstd(codecs: tuple[Any, ...]) -> bool:
    return tuple(type(codec) for codec in codecs) == (BytesCodec, ZstdCodec)


def _is_little(codec: Any) -> bool:
    return str(getattr(codec.endian, "value", codec.endian)) == "little"


def _read_entries(path: str, entries: list[tuple[int, int] | None], data_bytes: int) -> list[bytes | None]:
    """Read what an index points at: in one piece, or piece by piece where that would be far more than is wanted."""
    stored = [entry for entry in entries if entry is not None]
    if not stored:
        return [None] * len(entries)
    low, high = min(offset for offset, _ in stored), max(map(sum, stored))
    if high > data_bytes:
        raise FrameDataError(f"{path}: the shard's index points beyond its end")
    if high - low <= MAX_WASTE * sum(length for _, length in stored):
        data = _read(path, low, high) or b""
        return [None if entry is None else data[entry[0] - low : sum(entry) - low] for entry in entries]
    return [None if entry is None else _read(path, entry[0], sum(entry)) or b"" for entry in entries]


def _checked(content: bytes, path: str, most: int) -> bytes:
    if not content or len(content) > most:
        raise FrameDataError(f"{path}: {'empty' if not content else 'far too long'}")
    return content


def _size(path: str) -> int | None:
    if is_url(path):
        found = stat_or_none(path)
        return None if found is None else found.size_bytes
    try:
        return size_bytes(path)
    except SourceNotFoundError:
        return None


def _read(path: str, start: int, stop: int) -> bytes | None:
    """Return a part of a file, as far as it reaches; None: there is no file."""
    if is_url(path):
        return read_span(path, start, stop)
    try:
        with PlainFile(path) as file:
            return file.read(start, max(0, min(stop, file.size_bytes) - start))
    except SourceNotFoundError:
        return None


def _read_heads(paths: list[str], most: int) -> list[bytes | None]:
    """Return files, each up to `most` bytes; None for one that is not there."""
    if paths and is_url(paths[0]):
        return read_files(paths, most)
    return [_read(path, 0, most) for path in paths]
