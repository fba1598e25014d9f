"""Read, pack, deliver one chunk: the one function that serial and distributed runs share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ingest.chunks import ChunkLabel, EncodedChunk, encoded_points
from ingest.destinations import Destination
from ingest.errors import FrameDataError, IngestError, RefusedError, SettingsError
from ingest.failover import Failover
from ingest.ledger import Receipt
from ingest.orders import ChunkOrder, Order, PointsOrder, StreamFacts
from ingest.outlets import FramesOutlet, Outlet, PointsOutlet
from ingest.packing import PackRoom, in_thread
from ingest.series_rows import encode_rows
from ingest.shard import DEFAULT_LEVEL
from ingest.sources import open_series
from ingest.telemetry import Telemetry

__all__ = ["Delivered", "Failed", "Lost", "NotParked", "Outcome", "Parked", "Pipeline", "refuses_the_chunk"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination holds the chunk."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Lost:
    """The chunk can never be delivered: unreadable, or refused."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The chunk was not delivered, for a reason that concerns the run."""

    index: int
    error: IngestError


@dataclass(frozen=True, slots=True)
class Parked:
    """The chunk waits at the failover, for the destination did not answer."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class NotParked:
    """The chunk neither was delivered nor waits at the failover; its source may still have it."""

    index: int
    reason: str


Outcome = Delivered | Lost | Failed | Parked | NotParked


REFUSED_CHUNK = frozenset({400, 413, 422})
"""What says that this chunk will never do; other refusals (a redirect, 402, 405) are about run or platform."""


def refuses_the_chunk(error: IngestError) -> bool:
    """Return whether the destination will never take this chunk, whoever asks."""
    return isinstance(error, RefusedError) and error.status in REFUSED_CHUNK


class Pipeline:
    """Delivers chunks to one destination: while one is packed the next is read, and earlier ones are on the wire.

    Parameters
    ----------
    destination : Destination
        Where frames go; closed by `aclose`.
    points : PointsOutlet, optional
        Where readings go; closed by `aclose`.
    room : PackRoom, optional
        Where chunks are read and packed; one of its own, closed by `aclose`, where none is given.
    failover : Failover, optional
        Takes chunks while the destination does not answer; closed by `aclose`.
    level, threads
        Of its own room.
    node : str
        Written into receipts.
    telemetry : Telemetry
        Gets ``chunk_put``, and what a room of its own says.
    clock : callable
        Returns Unix seconds.

    Notes
    -----
    Holds, beside the room, for each order at work its shard until it is delivered; the caller decides how many orders
    are at work. Not for pickling.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        points: PointsOutlet | None = None,
        room: PackRoom | None = None,
        failover: Failover | None = None,
        level: int = DEFAULT_LEVEL,
        threads: int = 1,
        node: str = "",
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._destination = destination
        self._frames_outlet = FramesOutlet(destination)
        self._points = points
        self._failover = failover
        self._node = node
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._own_room = room is None
        self._room = room or PackRoom(level, threads, self._telemetry)

    async def run(self, order: Order) -> Outcome:
        """Deliver one chunk; what goes wrong is an outcome, never an exception. Safe to repeat."""
        index = order.task.index
        try:
            receipt = await (self._frames(order) if isinstance(order, ChunkOrder) else self._rows(order))
        except FrameDataError as exc:
            return Lost(index, str(exc))
        except IngestError as exc:
            return Lost(index, str(exc)) if refuses_the_chunk(exc) else Failed(index, exc)
        return Delivered(receipt) if isinstance(receipt, Receipt) else receipt

    async def _frames(self, order: ChunkOrder) -> Receipt | Parked:
        packed = await self._room.packed(order)
        meta, index = replace(order.meta, lost_frames=packed.lost), order.task.index
        label = ChunkLabel(order.key, order.data_id, index, index, meta, packed.digest)
        chunk = EncodedChunk(label, packed.shard, packed.shard.crc32c())
        return await self._send(order, chunk, self._frames_outlet)

    async def _rows(self, order: PointsOrder) -> Receipt | Parked:
        if self._points is None:
            raise SettingsError("this pipeline delivers frames only, no readings")
        chunk = await in_thread(self._room.readers, self._read_and_encode, order)
        return await self._send(order, chunk, self._points)

    async def _send(self, order: Order, chunk: EncodedChunk, outlet: Outlet) -> Receipt | Parked:
        if self._failover is None:
            delivery = await outlet.deliver(chunk)
        else:
            taken = await self._failover.deliver(order, chunk, outlet)
            if isinstance(taken, str):
                self._telemetry.emit("chunk_parked", order.key, order.task.index)
                return Parked(order.task.index, taken)
            delivery = taken
        self._telemetry.emit("chunk_put", order.key, order.task.index)
        return chunk.receipt(delivery, self._node, self._now_ms())

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)

    async def note(self, key: str, data_id: str | None, facts: StreamFacts) -> None:
        """Leave word at the failover of a stream that has to be closed later; raises what it says."""
        if self._failover is not None:
            await self._failover.note(key, data_id, facts)

    async def digest(self, order: Order) -> str | IngestError:
        """Return the digest of a chunk's frames, or of a request, without delivering it, or why it cannot be read."""
        try:
            return await in_thread(self._room.readers, self._read_digest, order)
        except IngestError as exc:
            return exc

    async def aclose(self) -> None:
        """Let go of threads and connections; safe to repeat."""
        if self._own_room:
            self._room.close()
        await self._destination.aclose()
        if self._points is not None:
            await self._points.aclose()
        if self._failover is not None:
            await self._failover.aclose()

    def _read_and_encode(self, order: PointsOrder) -> EncodedChunk:
        reader = open_series(order.spec)
        try:
            rows = reader.read(0, order.task.start, order.task.stop)
        finally:
            reader.close()
        body = encode_rows(order.data_id, order.task.chunk_index, order.spec.tables[0].channels, rows)
        return encoded_points(order.key, order.data_id, order.task.index, *body)

    def _read_digest(self, order: Order) -> str:
        if isinstance(order, PointsOrder):
            return self._read_and_encode(order).label.digest
        return self._room.read_digest(order)
