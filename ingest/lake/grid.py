"""Shards of any length laid out again as shards of a regular grid, byte by byte: no frame is decompressed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.lake.store import LakeStore
from ingest.shard import CRC_BYTES, INDEX_ENTRY_BYTES, assemble, read_index

__all__ = ["Piece", "encoded_frames", "lay_out"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored shard, at its place among all frames of its stream.

    Attributes
    ----------
    name : str
        The object; its index has as many entries as it has frames.
    first, stop : int
        Its frames, counted from the stream's first.
    """

    name: str
    first: int
    stop: int


def lay_out(store: LakeStore, target: str, number: int, size: int, pieces: Sequence[Piece]) -> None:
    """Write one shard of the grid from those that reach into it; where no frame is stored, none. Safe to repeat.

    Parameters
    ----------
    store : LakeStore
        Holds the pieces, which stay.
    target : str
        The shard's name.
    number : int
        The shard: it has the frames from ``number * size``.
    size : int
        Frames in a shard of the grid.
    pieces : sequence of Piece
        In order; those elsewhere do not matter.

    Raises
    ------
    MissingObjectError
        A piece is not there.
    FrameDataError
        The index of a piece is torn.

    Notes
    -----
    Memory: the shard, and the largest piece once more. A piece that is just the shard is copied by the store.
    """
    start, stop = number * size, (number + 1) * size
    first_inside = bisect_right(pieces, start, key=lambda piece: piece.stop)
    inside = pieces[first_inside : bisect_left(pieces, stop, key=lambda piece: piece.first)]
    if len(inside) == 1 and (inside[0].first, inside[0].stop) == (start, stop):
        store.copy(inside[0].name, target)
        return
    encoded: list[bytes | None] = [None] * size
    for piece in inside:
        low, high = max(piece.first, start), min(piece.stop, stop)
        frames = encoded_frames(store, piece.name, piece.stop - piece.first, low - piece.first, high - piece.first)
        encoded[low - start : high - start] = frames
    if any(encoded):
        shard = assemble(encoded)
        store.put(target, shard.parts, crc32c=shard.crc32c())
    else:
        store.delete([target])


def encoded_frames(store: LakeStore, name: str, entries: int, start: int, stop: int) -> list[bytes | None]:
    """Return the encoded frames `start` to `stop` of a stored shard; None: not stored.

    Parameters
    ----------
    store : LakeStore
        Holds it.
    name : str
        The object.
    entries : int
        Entries of its index.
    start, stop : int
        Frames, counted from the shard's first.

    Raises
    ------
    MissingObjectError
        It is not there.
    FrameDataError
        Its index is torn.

    Notes
    -----
    Memory: twice the frames. Read in one request if it is all of the shard, else in two.
    """
    if (start, stop) == (0, entries):
        body, first = store.get(name), 0
        index = read_index(body, entries)
    else:  # a chunk of many shards is read once in all, not once for each
        tail = store.get(name, -(entries * INDEX_ENTRY_BYTES + CRC_BYTES))
        index = read_index(tail, entries)[start:stop]
        first, last = _extent(index)
        body = store.get(name, first, last)
    return [None if entry is None else body[entry[0] - first : sum(entry) - first] for entry in index]


def _extent(entries: Iterable[tuple[int, int] | None]) -> tuple[int, int]:
    """Return from where to where in a shard frames lie, by their entries in its index."""
    there = [entry for entry in entries if entry is not None]
    return min((offset for offset, _ in there), default=0), max((sum(entry) for entry in there), default=0)
