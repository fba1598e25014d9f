"""Read, pack, deliver one chunk: the one function that serial and distributed runs share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.destinations import Destination
from ingest.errors import FrameDataError, IngestError, RefusedError
from ingest.ledger import Receipt
from ingest.plan import ChunkTask, RunPlan
from ingest.shard import DEFAULT_LEVEL, Shard, frames_digest, pack
from ingest.sources import open_source
from ingest.sources.base import SourceSpec
from ingest.telemetry import Telemetry
from ingest.wire.models import ChunkMetadata

__all__ = ["ChunkOrder", "Delivered", "Failed", "Lost", "Outcome", "Pipeline", "orders_of", "refuses_the_chunk"]

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


def orders_of(key: str, data_id: str, plan: RunPlan, indices: Sequence[int]) -> list[ChunkOrder]:
    """Return the orders for some chunks of a plan."""
    rotating = plan.settings.rotations_per_min > 0
    orders = []
    for index in indices:
        task = plan.chunks[index]
        meta = ChunkMetadata(
            frames=task.frames,
            height_px=plan.height_px,
            width_px=plan.width_px,
            chunk_size=plan.settings.chunk_size,
            fps=task.fps,
            is_rotating=rotating,
            start_unix_ms_utc=task.start_unix_ms_utc,
        )
        orders.append(ChunkOrder(key, data_id, plan.spec, task, meta))
    return orders


REFUSED_CHUNK = frozenset({400, 413, 422})
"""What says that this chunk will never do; other refusals (a redirect, 402, 405) are about run or platform."""


def refuses_the_chunk(error: IngestError) -> bool:
    """Return whether the destination will never take this chunk, whoever asks."""
    return isinstance(error, RefusedError) and error.status in REFUSED_CHUNK


class Pipeline:
    """Delivers chunks, reading and packing in `threads` threads while earlier ones are on the wire.

    Parameters
    ----------
    destination : Destination
        Where to; closed by `aclose`.
    level : int, default 1
        zstd level.
    threads : int, default 1
        Chunks that are read and packed at once.
    node : str
        Written into receipts.
    telemetry : Telemetry
        Gets ``chunk_read``, ``chunk_packed``, ``chunk_put``.
    clock : callable
        Returns Unix seconds.

    Notes
    -----
    Holds, for each order at work, its frames while it is packed and its shard until it is delivered; so the caller's
    number of orders at once bounds memory: ``threads * chunk + orders * shard``. Not for pickling.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        level: int = DEFAULT_LEVEL,
        threads: int = 1,
        node: str = "",
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._destination = destination
        self._level = level
        self._node = node
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._local = threading.local()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="pack")

    async def run(self, order: ChunkOrder) -> Outcome:
        """Deliver one chunk; what goes wrong is an outcome, never an exception. Safe to repeat."""
        index = order.task.index
        try:
            shard, digest = await self._in_thread(self._read_and_pack, order)
            delivery = await self._destination.deliver(order.data_id, index, order.meta, shard)
            self._telemetry.emit("chunk_put", order.key, index)
        except FrameDataError as exc:
            return Lost(index, str(exc))
        except IngestError as exc:
            return Lost(index, str(exc)) if refuses_the_chunk(exc) else Failed(index, exc)
        return Delivered(
            Receipt(
                index=index,
                frames=order.meta.frames,
                start_unix_ms_utc=order.meta.start_unix_ms_utc,
                end_unix_ms_utc=order.meta.end_unix_ms_utc,
                n_bytes=shard.n_bytes,
                crc32c=shard.crc32c(),
                frames_digest=digest,
                etag=delivery.etag,
                attempts=delivery.attempts,
                node=self._node,
                put_unix_ms=round(self._clock() * 1000),
            )
        )

    async def digest(self, order: ChunkOrder) -> str | IngestError:
        """Return the digest of a chunk's frames without delivering it, or why it cannot be read."""
        try:
            return await self._in_thread(self._read_digest, order)
        except IngestError as exc:
            return exc

    async def aclose(self) -> None:
        """Let go of threads and connections; safe to repeat."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        await self._destination.aclose()

    async def _in_thread(self, function: Callable[[ChunkOrder], T], order: ChunkOrder) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, order)

    def _read_and_pack(self, order: ChunkOrder) -> tuple[Shard, str]:
        frames = self._read(order)
        self._telemetry.emit("chunk_read", order.key, order.task.index)
        packed = pack(frames, level=self._level), frames_digest(frames)
        self._telemetry.emit("chunk_packed", order.key, order.task.index)
        return packed

    def _read_digest(self, order: ChunkOrder) -> str:
        return frames_digest(self._read(order))

    def _read(self, order: ChunkOrder) -> NDArray[np.uint8]:
        """Return the chunk's frames in memory that this thread uses again for its next chunk."""
        memory = getattr(self._local, "memory", None)
        if memory is None or len(memory) < order.n_bytes:
            memory = self._local.memory = np.empty(order.n_bytes, np.uint8)
        with open_source(order.spec) as source:  # files stay open behind it, one handle a process
            return source.read(order.task.start, order.task.stop, memory)
