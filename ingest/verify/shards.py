"""The frames of shards against those of the source and against the manifest's digests; pure but for what it is given.

The source's frames are digested, the stored ones are decoded and digested, and the manifest has the digest of what was
sent: of three, two that agree say which one is wrong. A source that is not what was sent sets nothing right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import xxhash
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.lake.layout import shard_name
from ingest.orders import ChunkOrder
from ingest.shard import CRC_BYTES, INDEX_ENTRY_BYTES, assemble, index_bytes, read_index, unpack
from ingest.verify.findings import Difference, Kind
from ingest.verify.work import ChunkState, ExpectedChunk, ShardsChecked, ShardsOrder

__all__ = ["FrameReader", "StoredShard", "check_shards"]

FrameReader = Callable[[ChunkOrder, int, int], tuple[NDArray[np.uint8], tuple[int, ...]]]
"""Reads some frames of an order, counted from its first: the frames, lost ones 0 all over, and which are lost."""


@dataclass(frozen=True)
class StoredShard:
    """A shard, decoded as far as it can be.

    Attributes
    ----------
    frames : ndarray of uint8, (frame, y, x)
        What is not stored, or does not decode, is 0 all over.
    parts : list of bytes or None
        Each frame, encoded; None: not stored.
    broken : dict of int to str
        Frames that do not decode, and why.
    torn : str or None
        Why nothing can be read.
    layout : str or None
        What is odd about where frames lie.
    """

    frames: NDArray[np.uint8]
    parts: list[bytes | None]
    broken: dict[int, str]
    torn: str | None = None
    layout: str | None = None

    @classmethod
    def read(cls, body: bytes | None, shape: tuple[int, int, int]) -> StoredShard:
        """Decode a shard of that shape; None: there is none."""
        nothing: list[bytes | None] = [None] * shape[0]
        if body is None:
            return cls(np.zeros(shape, np.uint8), nothing, {})
        try:
            entries = read_index(body, shape[0])
        except FrameDataError as exc:
            return cls(np.zeros(shape, np.uint8), nothing, {}, torn=str(exc))
        parts = [None if entry is None else body[entry[0] : sum(entry)] for entry in entries]
        try:
            return cls(unpack(body, shape), parts, {}, layout=_layout(entries, len(body)))
        except FrameDataError:
            frames, broken = _one_by_one(parts, shape)
        return cls(frames, parts, broken, layout=_layout(entries, len(body)))


def _one_by_one(parts: Sequence[bytes | None], shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    frames = np.zeros(shape, np.uint8)
    broken: dict[int, str] = {}
    for i, part in enumerate(parts):
        if part is not None:
            try:
                frames[i] = unpack(assemble([part]).tobytes(), (1, *shape[1:]))[0]
            except FrameDataError as exc:
                broken[i] = str(exc).partition(" of the shard ")[2] or str(exc)
    return frames, broken


def _layout(entries: Sequence[tuple[int, int] | None], n_bytes: int) -> str | None:
    """Say whether frames lie otherwise than one after the other from the first byte to the index."""
    at = 0
    for i, entry in enumerate(entries):
        if entry is not None:
            if entry[0] != at:
                return f"frame {i} of it lies at byte {entry[0]}, not at {at}"
            at += entry[1]
    size = at + len(entries) * INDEX_ENTRY_BYTES + CRC_BYTES
    return None if size == n_bytes else f"it has {n_bytes} bytes; its frames and its index make {size}"


class _Tally:
    """One chunk, as it is gone through from shard to shard."""

    def __init__(self, expected: ExpectedChunk) -> None:
        self.expected = expected
        self.stored, self.source, self.as_sent = xxhash.xxh3_128(), xxhash.xxh3_128(), xxhash.xxh3_128()
        self.lengths: list[int | None] = []
        self.crc = 0
        self.broken: dict[int, str] = {}
        self.differing: list[int] = []
        self.source_lost: list[int] = []
        self.without_shard = False
        self._told_lost = frozenset(expected.receipt.lost_frames if expected.receipt else ())

    def add(self, shard: StoredShard, start: int, stop: int, read: FrameReader) -> None:
        """Take the chunk's next frames, which are those from `start` to `stop` of a shard."""
        done = len(self.lengths)
        frames = shard.frames[start:stop]
        for part in shard.parts[start:stop]:
            self.lengths.append(None if part is None else len(part))
            self.crc = self.crc if part is None else google_crc32c.extend(self.crc, part)
        self.broken |= {done + i - start: why for i, why in shard.broken.items() if start <= i < stop}
        self.stored.update(np.ascontiguousarray(frames).reshape(-1).data)
        if self.expected.order is not None:
            self._compare(self.expected.order, frames, done, read)

    def _compare(self, order: ChunkOrder, stored: NDArray[np.uint8], done: int, read: FrameReader) -> None:
        frames, lost = read(order, done, done + len(stored))
        flat = np.ascontiguousarray(frames)
        self.source.update(flat.reshape(-1).data)
        self.source_lost += [done + i for i in lost]
        if self.source.digest() != self.stored.digest():
            self.differing += [done + i for i in range(len(stored)) if not np.array_equal(flat[i], stored[i])]
        if self._told_lost:
            told = [i - done for i in self._told_lost if done <= i < done + len(stored)]
            flat = flat.copy()
            flat[told] = 0
            self.as_sent.update(flat.reshape(-1).data)

    @property
    def digest_as_sent(self) -> str:
        """Of the source's frames, but those that the manifest says were lost."""
        return str((self.as_sent if self._told_lost else self.source).hexdigest())

    @property
    def lost(self) -> tuple[int, ...]:
        """Frames that are not stored."""
        return tuple(i for i, length in enumerate(self.lengths) if length is None)

    def state(self) -> tuple[ChunkState, list[Difference]]:
        """Judge what was seen."""
        index = index_bytes(self.lengths)
        n_bytes = sum(length for length in self.lengths if length is not None) + len(index)
        judged = _Judgement(self, str(self.stored.hexdigest()), n_bytes, int(google_crc32c.extend(self.crc, index)))
        differences = judged.differences()
        has_source = self.expected.order is not None
        state = ChunkState(
            index=self.expected.index,
            digest=judged.digest,
            lost=self.lost,
            n_bytes=n_bytes,
            crc32c=judged.crc32c,
            source_digest=str(self.source.hexdigest()) if has_source else None,
            is_good=judged.is_good,
            can_mend=not judged.is_good and judged.can_mend,
        )
        return state, differences


class _Judgement:
    """Which of source, store and manifest is wrong about a chunk."""

    def __init__(self, seen: _Tally, digest: str, n_bytes: int, crc32c: int) -> None:
        self.seen, self.digest, self.n_bytes, self.crc32c = seen, digest, n_bytes, crc32c
        self.told = seen.expected.receipt
        self.is_good = False
        self.can_mend = False

    def differences(self) -> list[Difference]:
        """Return what is wrong, and set `is_good` and `can_mend`."""
        seen, told = self.seen, self.told
        if seen.expected.order is None:
            return self._against_manifest()
        as_source = not seen.broken and not seen.differing and seen.lost == tuple(seen.source_lost)
        if not as_source:
            return self._unlike_source()
        if told is None:
            self.is_good = True
            is_all_lost = len(seen.lost) == seen.expected.frames
            return [self._untold()] if seen.expected.is_lost and not is_all_lost else []
        if (self.digest, seen.lost) != (told.frames_digest, told.lost_frames):
            self.is_good = True
            return [
                self._said(
                    "manifest",
                    f"the manifest's digest of it is {told.frames_digest}, with {len(told.lost_frames)} lost frame(s); "
                    f"source and store agree on {self.digest}, with {len(seen.lost)}",
                )
            ]
        self.is_good = self._is_as_delivered()
        self.can_mend = True
        return [] if self.is_good else [self._checksum()]

    def _untold(self) -> Difference:
        return self._said("manifest", "the manifest says that it is lost; source and store have it")

    def _is_as_delivered(self) -> bool:
        return self.told is None or (self.n_bytes, self.crc32c) == (self.told.n_bytes, self.told.crc32c)

    def _checksum(self) -> Difference:
        told = self.told
        was = "" if told is None else f"; delivered were {told.n_bytes} bytes with CRC-32C {told.crc32c:08x}"
        return self._said(
            "checksum",
            f"the frames are right, the bytes that hold them are not those that were delivered: {self.n_bytes} bytes "
            f"with CRC-32C {self.crc32c:08x}{was}",
        )

    def _against_manifest(self) -> list[Difference]:
        seen, told = self.seen, self.told
        found = [self._broken()] if seen.broken else []
        if told is None:
            if seen.expected.is_lost and len(seen.lost) < seen.expected.frames:
                found.append(self._said("lost frame", "the manifest says that it is lost, and frames of it are stored"))
        elif seen.lost != told.lost_frames:
            found.append(self._lost(told.lost_frames, "the manifest"))
        elif self.digest != told.frames_digest and not seen.broken:
            found.append(
                self._said("frames", f"the digest of its frames is {self.digest}, not {told.frames_digest} as sent")
            )
        elif not self._is_as_delivered() and not seen.broken:
            found.append(self._checksum())
        self.is_good = not found
        return [] if seen.without_shard else found

    def _unlike_source(self) -> list[Difference]:
        seen, told = self.seen, self.told
        lost = tuple(seen.source_lost)
        sent = told is None or (seen.digest_as_sent == told.frames_digest and set(lost) <= set(told.lost_frames))
        if not sent and told is not None:
            return self._source_changed(lost)
        self.can_mend = True
        if seen.without_shard:
            return []
        found = [self._broken()] if seen.broken else []
        if seen.lost != lost:
            found.append(self._lost(lost, "the source"))
        plain = sorted(set(seen.differing) - seen.broken.keys() - set(seen.lost) - set(lost))
        if plain:
            found.append(
                self._said(
                    "frames",
                    f"{len(plain)} of its {seen.expected.frames} frames are not the source's, the first is frame "
                    f"{seen.expected.first + plain[0]} of the run",
                    plain[0],
                )
            )
        return found

    def _source_changed(self, lost: tuple[int, ...]) -> list[Difference]:
        seen, told = self.seen, self.told
        if told is not None and (self.digest, seen.lost) == (told.frames_digest, told.lost_frames) and not seen.broken:
            self.is_good = True
            state = "what is stored is as it was sent"
        else:
            state = "what is stored is neither: it cannot be mended from this source"
        what = f"{len(lost)} of its frames cannot be read from the source now" if lost else "the source changed since"
        return [self._said("source", f"{what}: its digest is not that of what was sent; {state}", can_mend=False)]

    def _broken(self) -> Difference:
        first = min(self.seen.broken)
        return self._said(
            "frames",
            f"{len(self.seen.broken)} frame(s) do not decode, the first is frame {self.seen.expected.first + first} of "
            f"the run: {self.seen.broken[first]}",
            first,
        )

    def _lost(self, told: Sequence[int], teller: str) -> Difference:
        stored = sorted(set(told) - set(self.seen.lost))
        missing = sorted(set(self.seen.lost) - set(told))
        first = self.seen.expected.first
        said = []
        if stored:
            said.append(f"frame {first + stored[0]} of the run is stored (of {len(stored)}), and {teller} lost it")
        if missing:
            said.append(f"frame {first + missing[0]} of the run is not stored (of {len(missing)}), and {teller} has it")
        return self._said("lost frame", "; ".join(said), (stored or missing)[0])

    def _said(self, kind: Kind, message: str, frame: int | None = None, *, can_mend: bool = True) -> Difference:
        expected = self.seen.expected
        at = None if frame is None else expected.first + frame
        can_mend = can_mend and expected.order is not None
        return Difference(kind, f"{expected.text}: {message}", None, expected.index, at, can_mend)


def check_shards(order: ShardsOrder, get: Callable[[int], bytes | None], read: FrameReader) -> ShardsChecked:
    """Compare some shards, one after the other, with what they should hold.

    Parameters
    ----------
    order : ShardsOrder
        Which, and what is known of them.
    get : callable
        Returns the shard of a number; None: there is none.
    read : callable
        Reads the source.

    Raises
    ------
    SourceError
        The source cannot be read for a reason that lies not in single frames.

    Notes
    -----
    Holds one shard, decoded and not, and its frames as the source gives them.
    """
    shape = (order.chunk_size, order.height_px, order.width_px)
    tallies = [_Tally(chunk) for chunk in order.chunks]
    differences: list[Difference] = []
    gone: list[tuple[int, list[_Tally]]] = []
    stored_bytes = 0
    for number in range(order.first, order.stop):
        body = get(number)
        stored_bytes += len(body or b"")
        shard = StoredShard.read(body, shape)
        start = order.frame_of(number)
        inside = [t for t in tallies if t.expected.first < start + order.chunk_size and t.expected.stop > start]
        for tally in inside:
            tally.without_shard |= body is None or shard.torn is not None
            low = max(tally.expected.first, start) - start
            high = min(tally.expected.stop, start + order.chunk_size) - start
            tally.add(shard, low, high, read)
        differences += _of_the_shard(order, number, shard, inside)
        if body is None:
            gone.append((number, inside))
    states = []
    for tally in tallies:
        state, found = tally.state()
        states.append(state)
        differences += found
    for number, inside in gone:
        if not all(states[tallies.index(tally)].is_good for tally in inside):
            kind: Kind = "missing object" if order.in_lake else "missing chunk"
            differences.append(_object(order, number, kind, "is not there"))
    return ShardsChecked(tuple(states), tuple(differences), stored_bytes)


def _of_the_shard(order: ShardsOrder, number: int, shard: StoredShard, inside: Sequence[_Tally]) -> list[Difference]:
    """Return what is wrong about a shard whatever frames it should hold."""
    found = [_object(order, number, "torn", f"is torn: {shard.torn}")] if shard.torn else []
    if shard.layout:
        found.append(_object(order, number, "checksum", f"is not as it was written: {shard.layout}"))
    start = order.frame_of(number)
    end = max((tally.expected.stop for tally in inside), default=start) - start
    beyond = [i for i, part in enumerate(shard.parts) if part is not None and i >= end]
    if beyond:
        found.append(_object(order, number, "frames", f"holds frame {start + beyond[0]}, past the end of the run"))
    return found


def _object(order: ShardsOrder, number: int, kind: Kind, message: str) -> Difference:
    can_mend = any(chunk.order is not None for chunk in order.chunks)
    only = order.chunks[0] if len(order.chunks) == 1 else None
    name = shard_name(order.data_id, number) if order.in_lake else None
    where = name or f"chunk {number}"
    return Difference(kind, f"{where} {message}", name, None if only is None else only.index, None, can_mend)
