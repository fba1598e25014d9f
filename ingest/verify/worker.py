"""What a packer does for a verification: fetches, reads, compares, and makes shards anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.allocator import keep_freed_memory
from ingest.destinations import Destination, is_lake, open_destination
from ingest.errors import (
    AuthenticationError,
    FrameDataError,
    IngestError,
    LakeDamagedError,
    MissingObjectError,
    SourceChangedError,
)
from ingest.lake.layout import shard_name
from ingest.lake.opening import open_store
from ingest.lake.store import LakeStore
from ingest.orders import ChunkOrder
from ingest.packing import in_thread
from ingest.retry import RetryPolicy
from ingest.salvage import read_what_is_there
from ingest.shard import DEFAULT_LEVEL, Shard, assemble, frames_digest, pack
from ingest.sources import open_source
from ingest.telemetry import Secret
from ingest.verify.lake_series import check_series, mend_series
from ingest.verify.platform_series import check_platform_series
from ingest.verify.shards import StoredShard, check_shards
from ingest.verify.work import (
    Mended,
    NotDone,
    SeriesOrder,
    ShardsOrder,
    VerifyOrder,
    VerifyOutcome,
)
from ingest.wire.client import PlatformClient

__all__ = ["VerifyWorker"]

T = TypeVar("T")
_local = threading.local()
FETCHES = 2


class VerifyWorker:
    """Works off orders of a verification; what goes wrong is an outcome. One for each event loop.

    Parameters
    ----------
    api_key : Secret or None
        For a platform.
    retry : RetryPolicy
        How long one call is tried.
    level : int
        zstd level of what is made anew.
    readers : int, default 1
        Orders that are compared at once.

    Notes
    -----
    Holds, for each order that is compared, what `check_shards` does, and for each that waits for that one shard. Files
    and connections are opened by the first order. Not for pickling.
    """

    def __init__(
        self, api_key: Secret | None, retry: RetryPolicy, level: int = DEFAULT_LEVEL, readers: int = 1
    ) -> None:
        keep_freed_memory()
        self._api_key = api_key
        self._retry = retry
        self._level = level
        self._fetchers = ThreadPoolExecutor(FETCHES * readers, thread_name_prefix="fetch")
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="verify")
        self._stores: dict[str, LakeStore] = {}
        self._clients: dict[str, PlatformClient] = {}
        self._destinations: dict[str, Destination] = {}

    async def verify(self, order: VerifyOrder) -> VerifyOutcome:
        """Compare; changes nothing. Safe to repeat."""
        try:
            if isinstance(order, SeriesOrder):
                return await self._verify_series(order)
            if not order.in_lake:
                body = await self._chunk(order)
                return await in_thread(self._readers, check_shards, order, lambda _: body, _read)
            store = self._store(order.destination)
            first = await in_thread(self._fetchers, _get, store, order, order.first)  # while another one is compared

            def get(number: int) -> bytes | None:
                return first if number == order.first else _get(store, order, number)

            return await in_thread(self._readers, check_shards, order, get, _read)
        except IngestError as exc:
            return NotDone(exc)

    async def mend(self, order: VerifyOrder) -> VerifyOutcome:
        """Write anew what the order says. Safe to repeat."""
        try:
            if isinstance(order, SeriesOrder):
                return await in_thread(self._readers, mend_series, self._store(order.destination), order)
            if not order.in_lake:
                return await self._deliver(order)
            return await in_thread(self._readers, self._mend_shards, self._store(order.destination), order)
        except IngestError as exc:
            return NotDone(exc)

    async def aclose(self) -> None:
        """Let go of threads and connections. Safe to repeat."""
        for executor in (self._fetchers, self._readers):
            executor.shutdown(wait=False, cancel_futures=True)
        for store in self._stores.values():
            store.close()
        for client in self._clients.values():
            await client.aclose()
        for destination in self._destinations.values():
            await destination.aclose()
        self._clients.clear()
        self._destinations.clear()

    # -- where things are ----------------------------------------------------------------------------------------------

    def _store(self, url: str) -> LakeStore:
        if url not in self._stores:
            self._stores[url] = open_store(url, retry=self._retry)
        return self._stores[url]

    def _client(self, url: str) -> PlatformClient:
        if url not in self._clients:
            if self._api_key is None:
                raise AuthenticationError(f"{url} needs an API key", hint="set AS_API_KEY")
            self._clients[url] = PlatformClient(url, self._api_key, retry=self._retry)
        return self._clients[url]

    async def _chunk(self, order: ShardsOrder) -> bytes | None:
        try:
            return await self._client(order.destination).get_chunk(order.data_id, order.first)
        except IngestError as exc:
            if getattr(exc, "status", None) == 404:
                return None
            raise

    async def _verify_series(self, order: SeriesOrder) -> VerifyOutcome:
        if is_lake(order.destination):
            return await in_thread(self._readers, check_series, self._store(order.destination), order)
        return await check_platform_series(self._client(order.destination), order, self._run)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await in_thread(self._readers, function, *arguments)

    # -- making anew ---------------------------------------------------------------------------------------------------

    def _mend_shards(self, store: LakeStore, order: ShardsOrder) -> Mended:
        for number in range(order.first, order.stop):
            name = shard_name(order.data_id, number)
            shard = self._anew(order, number, _get(store, order, number))
            if shard is None:
                store.delete([name])
            else:
                store.put(name, shard.parts, crc32c=shard.crc32c())
        return Mended(order.stop - order.first)

    def _anew(self, order: ShardsOrder, number: int, body: bytes | None) -> Shard | None:
        """Return a shard of what stays as it is and of what is packed anew; None: there is nothing in it."""
        start, stop = order.frame_of(number), order.frame_of(number) + order.chunk_size
        stored = StoredShard.read(body, (order.chunk_size, order.height_px, order.width_px))
        encoded: list[bytes | None] = [None] * order.chunk_size
        for chunk in order.chunks:
            low, high = max(chunk.first, start), min(chunk.stop, stop)
            if low >= high:
                continue
            if chunk.anew is None or chunk.order is None:
                if stored.torn:
                    name = shard_name(order.data_id, number)
                    raise LakeDamagedError(f"{name} is torn, and the source cannot give all of its chunks")
                encoded[low - start : high - start] = stored.parts[low - start : high - start]
            else:
                frames, lost = _judged(chunk.order, chunk.anew)
                parts = _encoded(frames, lost, self._level)
                encoded[low - start : high - start] = parts[low - chunk.first : high - chunk.first]
        return assemble(encoded) if any(part is not None for part in encoded) else None

    async def _deliver(self, order: ShardsOrder) -> Mended:
        [chunk] = order.chunks
        if chunk.order is None or chunk.anew is None:
            return Mended()
        if order.destination not in self._destinations:
            self._destinations[order.destination] = open_destination(
                order.destination, self._api_key, retry=self._retry
            )
        shard, lost = await in_thread(self._readers, _packed, chunk.order, chunk.anew, self._level)
        meta = replace(chunk.order.meta, lost_frames=lost)
        await self._destinations[order.destination].deliver(order.data_id, order.first, meta, shard)
        return Mended(1)


def _get(store: LakeStore, order: ShardsOrder, number: int) -> bytes | None:
    try:
        return store.get(shard_name(order.data_id, number))
    except MissingObjectError:
        return None


def _read(order: ChunkOrder, start: int, stop: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Read some frames of an order into this thread's memory; where none can be read, all are lost."""
    meta = order.meta
    memory: NDArray[np.uint8] = getattr(_local, "memory", np.empty(0, np.uint8))
    if len(memory) < order.n_bytes:
        memory = _local.memory = np.empty(order.n_bytes, np.uint8)
    try:
        with open_source(order.spec) as source:  # files stay open behind it, one handle a process
            return read_what_is_there(source, order.task.start + start, order.task.start + stop, memory)
    except FrameDataError:
        return np.zeros((stop - start, meta.height_px, meta.width_px), np.uint8), tuple(range(stop - start))


def _judged(order: ChunkOrder, digest: str) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Return a chunk's frames, if they are still those that were judged.

    Raises
    ------
    SourceChangedError
        They are not.
    """
    frames, lost = _read(order, 0, order.meta.frames)
    if frames_digest(frames) != digest:
        raise SourceChangedError(
            f"chunk {order.task.index}: the source gives other frames than when it was verified",
            hint="run the same command again",
        )
    return frames, lost


def _packed(order: ChunkOrder, digest: str, level: int) -> tuple[Shard, tuple[int, ...]]:
    """Pack a chunk's frames, as `_judged`, before this thread reads others into the same memory."""
    frames, lost = _judged(order, digest)
    return pack(frames, level=level, lost=lost), lost


def _encoded(frames: NDArray[np.uint8], lost: tuple[int, ...], level: int) -> list[bytes | None]:
    stored = iter(pack(frames, level=level, lost=lost).parts)
    return [None if i in lost else next(stored) for i in range(len(frames))]
