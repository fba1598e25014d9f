"""Reading and packing, in threads of their own: the next chunk is read while one is packed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.orders import ChunkOrder
from ingest.salvage import read_what_is_there
from ingest.shard import DEFAULT_LEVEL, Shard, assemble, encoded_digest, frames_digest, pack_and_digest
from ingest.sources import open_source
from ingest.telemetry import Telemetry

__all__ = ["PackRoom", "Packed", "in_thread"]

T = TypeVar("T")
AS_STORED = "as stored"
"""Detail of ``chunk_read`` and ``chunk_packed`` for frames that were not compressed again."""

CACHE_BYTES = 256 << 20
"""Shards that are kept for a job's other destinations; the oldest go first, and are then made once more."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A chunk, ready to be delivered.

    Attributes
    ----------
    shard : Shard
        Its bytes.
    digest : str
        Of its frames.
    lost : tuple of int
        Frames that the source could not give.
    """

    shard: Shard
    digest: str
    lost: tuple[int, ...]


class PackRoom:
    """Reads and packs chunks; those that go to several destinations once for all of them.

    Parameters
    ----------
    level : int, default 1
        zstd level.
    threads : int, default 1
        Chunks that are read at once, and that are packed at once.
    telemetry : Telemetry
        Gets ``chunk_read`` and ``chunk_packed``.
    cache_bytes : int
        What is kept of chunks for other destinations.

    Notes
    -----
    Holds ``2 * threads * (chunk + shard) + cache_bytes``, the last only with several destinations. Not for pickling.

    Frames that a source holds encoded as a shard does (`Source.read_encoded`) are decoded once, for the digest and as
    proof, and stay as they are; `level` is for all others.
    """

    def __init__(
        self,
        level: int = DEFAULT_LEVEL,
        threads: int = 1,
        telemetry: Telemetry | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._level = level
        self._telemetry = telemetry or Telemetry()
        # One thread reads, in the order of the orders, so that a movie is decoded on from where it was.
        self.readers: Executor = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._packers = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._places = asyncio.Semaphore(2 * threads)
        self._memory: list[NDArray[np.uint8]] = []
        self._cache: OrderedDict[object, tuple[asyncio.Task[Packed], int]] = OrderedDict()
        self._cache_bytes = cache_bytes

    async def packed(self, order: ChunkOrder) -> Packed:
        """Read and pack a chunk; of several orders for the same frames, the first does it for all.

        Raises
        ------
        SourceError
            It cannot be read.
        """
        if order.copies == 1:
            return await self._pack_alone(order)
        key = (order.spec, order.task.start, order.task.stop)
        making, left = self._cache.pop(key, (None, order.copies))
        if making is None or making.cancelled():
            making = asyncio.get_running_loop().create_task(self._pack_alone(order))
        if left > 1:
            self._cache[key] = (making, left - 1)
        try:
            packed = await asyncio.shield(making)
        except BaseException:
            self._cache.pop(key, None)  # the next one tries by itself
            raise
        self._evict()
        return packed

    def _evict(self) -> None:
        made = [(key, task) for key, (task, _) in self._cache.items() if task.done() and not task.cancelled()]
        held = sum(task.result().shard.n_bytes for _, task in made if task.exception() is None)
        for key, task in made:
            if task.exception() is None and held <= self._cache_bytes:
                break
            held -= 0 if task.exception() else task.result().shard.n_bytes
            del self._cache[key]

    async def _pack_alone(self, order: ChunkOrder) -> Packed:
        async with self._places:
            memory = self._memory.pop() if self._memory else np.empty(0, np.uint8)
            if len(memory) < order.n_bytes:
                memory = np.empty(order.n_bytes, np.uint8)
            packed = await self._copied(order)
            if packed is None:
                frames, lost = await in_thread(self.readers, self._read, order, memory)
                packed = await in_thread(self._packers, self._pack, order, frames, lost)
            # Not after a failure: if this was cancelled, a thread may still write there.
            self._memory.append(memory)
            return packed

    async def _copied(self, order: ChunkOrder) -> Packed | None:
        """Pack a chunk of frames that its source holds encoded as a shard does; None: it does not, or they are damaged.

        The level makes no difference: they stay as they are.
        """
        encoded = await in_thread(self.readers, self._read_encoded, order)
        if encoded is None:
            return None
        digest = await in_thread(self._packers, self._prove, order, encoded)
        if digest is None:
            return None
        lost = tuple(i for i, part in enumerate(encoded) if part is None)
        self._telemetry.emit("chunk_packed", order.key, order.task.index, AS_STORED)
        return Packed(assemble(encoded), digest, lost)

    def _read_encoded(self, order: ChunkOrder) -> list[bytes | None] | None:
        with open_source(order.spec) as source:
            encoded = source.read_encoded(order.task.start, order.task.stop)
        if encoded is not None:
            self._telemetry.emit("chunk_read", order.key, order.task.index, AS_STORED)
        return encoded

    def _prove(self, order: ChunkOrder, encoded: list[bytes | None]) -> str | None:
        """Return the digest of encoded frames; None: not all of them decode."""
        try:
            return encoded_digest(encoded, (order.meta.height_px, order.meta.width_px))
        except FrameDataError:
            return None  # the ordinary way finds out which, and keeps the others

    def _pack(self, order: ChunkOrder, frames: NDArray[np.uint8], lost: tuple[int, ...]) -> Packed:
        packed = Packed(*pack_and_digest(frames, level=self._level, lost=lost), lost)
        self._telemetry.emit("chunk_packed", order.key, order.task.index)
        return packed

    def read_digest(self, order: ChunkOrder) -> str:
        """Return the digest of a chunk's frames."""
        encoded = self._read_encoded(order)
        digest = None if encoded is None else self._prove(order, encoded)
        if digest is not None:
            return digest
        return frames_digest(self._read(order, np.empty(order.n_bytes, np.uint8))[0])

    def _read(self, order: ChunkOrder, memory: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Return the chunk's frames, in `memory`, and which of them are lost."""
        with open_source(order.spec) as source:  # files stay open behind it, one handle a process
            frames, lost = read_what_is_there(source, order.task.start, order.task.stop, memory)
        self._telemetry.emit("chunk_read", order.key, order.task.index)
        return frames, lost

    def close(self) -> None:
        """Let go of threads; safe to repeat."""
        for executor in (self.readers, self._packers):
            executor.shutdown(wait=False, cancel_futures=True)


async def in_thread(executor: Executor, function: Callable[..., T], *arguments: object) -> T:
    """Run a function in an executor's thread."""
    return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
