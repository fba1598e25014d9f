"""Read, pack, deliver one chunk: the one function that serial and distributed runs share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.chunks import EncodedChunk, encoded_points
from ingest.destinations import Destination
from ingest.errors import FrameDataError, IngestError, RefusedError, SettingsError
from ingest.ledger import Receipt
from ingest.outlets import PointsOutlet
from ingest.plan import ChunkTask, RunPlan
from ingest.salvage import read_what_is_there
from ingest.series_plan import ArchivePlan, SeriesTask
from ingest.series_rows import encode_rows
from ingest.shard import DEFAULT_LEVEL, Shard, frames_digest, pack
from ingest.sources import open_series, open_source
from ingest.sources.base import SourceSpec
from ingest.sources.series_base import SeriesSpec
from ingest.telemetry import Telemetry
from ingest.wire.models import ChunkMetadata

__all__ = [
    "ChunkOrder",
    "Delivered",
    "Failed",
    "Lost",
    "Order",
    "Outcome",
    "Pipeline",
    "PointsOrder",
    "orders_of",
    "refuses_the_chunk",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """Everything a worker needs to deliver one chunk: descriptors, no frames.

    Attributes
    ----------
    key : str
        The stream's key in the journal.
    data_id : str
        The stream at its destination.
    spec : SourceSpec
        Opens the source.
    task : ChunkTask
        Which frames, when.
    meta : ChunkMetadata
        What the destination is told of them.
    """

    key: str
    data_id: str
    spec: SourceSpec
    task: ChunkTask
    meta: ChunkMetadata

    @property
    def n_bytes(self) -> int:
        """Size of its frames as uint8."""
        return self.meta.frames * self.meta.height_px * self.meta.width_px


@dataclass(frozen=True, slots=True)
class PointsOrder:
    """Everything a worker needs to deliver one request of a log's rows.

    Attributes
    ----------
    key, data_id : str
        As in `ChunkOrder`.
    spec : SeriesSpec
        Opens the log; has the one table that is read.
    task : SeriesTask
        Which rows.
    """

    key: str
    data_id: str
    spec: SeriesSpec
    task: SeriesTask

    @property
    def n_bytes(self) -> int:
        """About the size of its request."""
        return (self.task.stop - self.task.start) * (len(self.spec.tables[0].channels) + 1) * 20


Order = ChunkOrder | PointsOrder
OrderT = TypeVar("OrderT", bound=Order)


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


Outcome = Delivered | Lost | Failed


def orders_of(key: str, data_id: str, plan: ArchivePlan, indices: Sequence[int]) -> list[Order]:
    """Return the orders for some chunks of a plan, each with no more of the source's name than it needs."""
    if isinstance(plan, RunPlan):
        return [_chunk_order(key, data_id, plan, plan.chunks[index]) for index in indices]
    orders: list[Order] = []
    for index in indices:
        task = plan.chunks[index]
        orders.append(PointsOrder(key, data_id, plan.spec.part(task.table), replace(task, table=0)))
    return orders


def _chunk_order(key: str, data_id: str, plan: RunPlan, task: ChunkTask) -> ChunkOrder:
    meta = ChunkMetadata(
        frames=task.frames,
        height_px=plan.height_px,
        width_px=plan.width_px,
        chunk_size=plan.settings.chunk_size,
        fps=task.fps,
        is_rotating=plan.settings.rotations_per_min > 0,
        start_unix_ms_utc=task.start_unix_ms_utc,
    )
    spec, start, stop = plan.spec.part(task.start, task.stop)
    return ChunkOrder(key, data_id, spec, replace(task, start=start, stop=stop), meta)


REFUSED_CHUNK = frozenset({400, 413, 422})
"""What says that this chunk will never do; other refusals (a redirect, 402, 405) are about run or platform."""


def refuses_the_chunk(error: IngestError) -> bool:
    """Return whether the destination will never take this chunk, whoever asks."""
    return isinstance(error, RefusedError) and error.status in REFUSED_CHUNK


class Pipeline:
    """Delivers chunks: while one is packed the next is read, and earlier ones are on the wire.

    Parameters
    ----------
    destination : Destination
        Where frames go; closed by `aclose`.
    points : PointsOutlet, optional
        Where readings go; closed by `aclose`.
    level : int, default 1
        zstd level.
    threads : int, default 1
        Chunks that are read at once, and that are packed at once.
    node : str
        Written into receipts.
    telemetry : Telemetry
        Gets ``chunk_read``, ``chunk_packed``, ``chunk_put``.
    clock : callable
        Returns Unix seconds.

    Notes
    -----
    Holds, for each order at work, its frames until it is packed and its shard until it is delivered:
    ``2 * threads * chunk + orders * shard``, where the caller decides how many orders are at work. Not for pickling.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        points: PointsOutlet | None = None,
        level: int = DEFAULT_LEVEL,
        threads: int = 1,
        node: str = "",
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._destination = destination
        self._points = points
        self._level = level
        self._node = node
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        # One thread reads, in the order of the orders, so that a movie is decoded on from where it was.
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._packers = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._places = asyncio.Semaphore(2 * threads)
        self._memory: list[NDArray[np.uint8]] = []

    async def run(self, order: Order) -> Outcome:
        """Deliver one chunk; what goes wrong is an outcome, never an exception. Safe to repeat."""
        index = order.task.index
        try:
            receipt = await (self._frames(order) if isinstance(order, ChunkOrder) else self._rows(order))
        except FrameDataError as exc:
            return Lost(index, str(exc))
        except IngestError as exc:
            return Lost(index, str(exc)) if refuses_the_chunk(exc) else Failed(index, exc)
        return Delivered(receipt)

    async def _frames(self, order: ChunkOrder) -> Receipt:
        async with self._places:
            memory = self._memory.pop() if self._memory else np.empty(0, np.uint8)
            if len(memory) < order.n_bytes:
                memory = np.empty(order.n_bytes, np.uint8)
            frames, lost = await _in(self._readers, self._read, order, memory)
            shard, digest = await _in(self._packers, self._pack, order, frames, lost)
            # Not after a failure: if this was cancelled, a thread may still write there.
            self._memory.append(memory)
            del frames, memory  # delivery may take long, and another chunk has its place by then
        meta = replace(order.meta, lost_frames=lost)
        delivery = await self._destination.deliver(order.data_id, order.task.index, meta, shard)
        self._telemetry.emit("chunk_put", order.key, order.task.index)
        return Receipt(
            index=order.task.index,
            frames=order.meta.frames,
            start_unix_ms_utc=order.meta.start_unix_ms_utc,
            end_unix_ms_utc=order.meta.end_unix_ms_utc,
            n_bytes=shard.n_bytes,
            crc32c=shard.crc32c(),
            frames_digest=digest,
            etag=delivery.etag,
            attempts=delivery.attempts,
            node=self._node,
            put_unix_ms=self._now_ms(),
            lost_frames=lost,
        )

    async def _rows(self, order: PointsOrder) -> Receipt:
        if self._points is None:
            raise SettingsError("this pipeline delivers frames only, no readings")
        chunk = await _in(self._readers, self._read_and_encode, order)
        delivery = await self._points.deliver(chunk)
        self._telemetry.emit("chunk_put", order.key, order.task.index)
        return chunk.receipt(delivery, self._node, self._now_ms())

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)

    async def digest(self, order: Order) -> str | IngestError:
        """Return the digest of a chunk's frames, or of a request, without delivering it, or why it cannot be read."""
        try:
            return await _in(self._readers, self._read_digest, order)
        except IngestError as exc:
            return exc

    async def aclose(self) -> None:
        """Let go of threads and connections; safe to repeat."""
        for executor in (self._readers, self._packers):
            executor.shutdown(wait=False, cancel_futures=True)
        await self._destination.aclose()
        if self._points is not None:
            await self._points.aclose()

    def _pack(self, order: ChunkOrder, frames: NDArray[np.uint8], lost: tuple[int, ...]) -> tuple[Shard, str]:
        packed = pack(frames, level=self._level, lost=lost), frames_digest(frames)
        self._telemetry.emit("chunk_packed", order.key, order.task.index)
        return packed

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
        return frames_digest(self._read(order, np.empty(order.n_bytes, np.uint8))[0])

    def _read(self, order: ChunkOrder, memory: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Return the chunk's frames, in `memory`, and which of them are lost."""
        with open_source(order.spec) as source:  # files stay open behind it, one handle a process
            frames, lost = read_what_is_there(source, order.task.start, order.task.stop, memory)
        self._telemetry.emit("chunk_read", order.key, order.task.index)
        return frames, lost


async def _in(executor: Executor, function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
