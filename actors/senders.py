"""The caller's background: owns each pushed chunk until it is durable, and sends it again when an actor is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from actors.handles import ActorLostError, Handle
from actors.live_states import PointsItem
from actors.pool import PackerPool
from actors.producer import ProducedStream
from ingest.carrier import Acknowledgement, Spooled
from ingest.errors import IngestError, SpoolError, SpoolFullError
from ingest.pipeline import Delivered, Failed, Lost
from ingest.timeseries import TimeseriesMeta

__all__ = ["FramesItem", "FramesSender", "OnFull", "PointsSender"]

logger = logging.getLogger("rheed_ingest")

OnFull = Literal["block", "drop"]
_Name = tuple[str, int]

REST_S = 0.2
MAX_REST_S = 5.0
BATCHES_AT_ONCE = 2
POINTS_AT_ONCE = 32
POINTS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FramesItem:
    """One pushed chunk of frames.

    Attributes
    ----------
    seq, index : int
        In which order it was pushed; which chunk it is.
    frames : object
        Reference to its frames in the object store.
    shape : tuple of int
        (frame, y, x).
    start_unix_ms_utc : int
        Capture start.
    clock : tuple
        The correction in it, as for `LiveRHEEDState.frames_order`.
    n_bytes : int
        Of its frames.
    """

    seq: int
    index: int
    frames: Any
    shape: tuple[int, int, int]
    start_unix_ms_utc: int
    clock: tuple[int | None, float | None]
    n_bytes: int


class _Sender:
    """What both senders do with answers.

    Parameters
    ----------
    poke : callable
        Has the dispatcher look at a stream's spool.
    on_full : {"block", "drop"}
        What becomes of a chunk that the spool has no room for.
    sleep : coroutine function
        asyncio's.
    """

    def __init__(
        self,
        poke: Callable[[str], Awaitable[None]],
        on_full: OnFull,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._poke = poke
        self._on_full = on_full
        self._sleep = sleep

    def _settled(self, stream: ProducedStream, seq: int, index: int, outcome: Acknowledgement) -> bool:
        """Note an answer; return whether it was one: a chunk that found no room is sent again if that was asked."""
        match outcome:
            case Delivered() | Spooled():
                stream.accept(seq, index)
            case Lost(_, reason):
                logger.warning("stream %s: a chunk is lost: %s", stream.data_id, reason)
                stream.accept(seq, index, refused=reason)  # the journal has the loss
            case Failed(_, error):
                if self._on_full == "block" and isinstance(error, SpoolError) and not _fits_never(error):
                    if stream.first_time("full"):
                        logger.warning("stream %s: push waits for the disk: %s", stream.data_id, error)
                    return False
                logger.warning("stream %s: chunk %d is dropped: %s", stream.data_id, index, error)
                stream.drop(seq, index, str(error))
        return True


class FramesSender(_Sender):
    """Hands pushed frames to packers, each chunk until it is durable. Lives in one event loop.

    Parameters
    ----------
    streamer : Handle
        Makes the orders.
    pool : PackerPool
        The packers.
    poke, on_full, sleep
        As above.
    """

    def __init__(
        self,
        streamer: Handle,
        pool: PackerPool,
        poke: Callable[[str], Awaitable[None]],
        on_full: OnFull,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(poke, on_full, sleep)
        self._streamer = streamer
        self._pool = pool
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}

    def send(self, stream: ProducedStream, item: FramesItem) -> None:
        """Begin to send; the loop's thread only."""
        name = (stream.key, item.index)
        # The same chunk again waits for the earlier one, so that the later one stays.
        task = asyncio.get_running_loop().create_task(self._own(stream, item, self._tasks.get(name)))
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._tasks.pop(name) if self._tasks.get(name) is done else None)

    async def _own(self, stream: ProducedStream, item: FramesItem, earlier: asyncio.Task[None] | None) -> None:
        try:
            if earlier is not None:
                await asyncio.wait([earlier])
            rest_s = REST_S
            while not await self._try(stream, item):
                await self._sleep(rest_s)
                rest_s = min(2 * rest_s, MAX_REST_S)  # each try packs anew
        except Exception as exc:
            logger.exception("stream %s: chunk %d", stream.data_id, item.index)
            stream.drop(item.seq, item.index, f"{type(exc).__name__}: {exc}")
        finally:
            stream.window.give_back(item.n_bytes)

    async def _try(self, stream: ProducedStream, item: FramesItem) -> bool:
        try:
            order = await self._streamer.call(
                "frames_order", stream.key, item.seq, item.index, item.shape, item.start_unix_ms_utc, item.clock
            )
            outcome: Acknowledgement = await self._pool.ask("take", order, item.frames)
        except ActorLostError as exc:
            logger.info("stream %s: chunk %d is sent again: %s", stream.data_id, item.index, exc)
            return False
        except IngestError as exc:
            outcome = Failed(item.index, exc)
        settled = self._settled(stream, item.seq, item.index, outcome)
        if isinstance(outcome, Spooled):
            await self._poke(stream.key)
        return settled


class PointsSender(_Sender):
    """Hands time-series requests to their actor in batches, two of a stream at a time. Lives in one event loop.

    Parameters
    ----------
    streamer : Handle
        Carries them.
    poke, on_full, sleep
        As above.
    """

    def __init__(
        self,
        streamer: Handle,
        poke: Callable[[str], Awaitable[None]],
        on_full: OnFull,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(poke, on_full, sleep)
        self._streamer = streamer
        self._waiting: dict[str, deque[PointsItem]] = {}
        self._working: dict[str, asyncio.Task[None]] = {}

    def send(self, stream: ProducedStream, item: PointsItem) -> None:
        """Begin to send; the loop's thread only."""
        self._waiting.setdefault(stream.key, deque()).append(item)
        if stream.key not in self._working:
            self._working[stream.key] = asyncio.get_running_loop().create_task(self._work(stream))

    async def _work(self, stream: ProducedStream) -> None:
        waiting = self._waiting[stream.key]
        running: dict[asyncio.Task[None], set[_Name]] = {}
        try:
            while waiting or running:
                batch: list[PointsItem] = []
                if len(running) < BATCHES_AT_ONCE:
                    batch = _batch(waiting, set().union(*running.values()))
                if batch:
                    task = asyncio.get_running_loop().create_task(self._carry(stream, batch))
                    running[task] = set().union(*(_names(item.meta) for item in batch))
                    continue
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del running[task]
        finally:
            del self._working[stream.key]

    async def _carry(self, stream: ProducedStream, batch: list[PointsItem]) -> None:
        left, rest_s = batch, REST_S
        try:
            while left:
                outcomes = await self._ask(stream, left)
                again = []
                for item, outcome in zip(left, outcomes, strict=True):
                    if self._settled(stream, item.seq, item.seq, outcome):
                        stream.window.give_back(len(item.body))
                    else:
                        again.append(item)
                left = again
                if any(isinstance(outcome, Spooled) for outcome in outcomes):
                    await self._poke(stream.key)
                if left:
                    await self._sleep(rest_s)
                    rest_s = min(2 * rest_s, MAX_REST_S)
        except Exception as exc:
            logger.exception("stream %s: %d chunk(s)", stream.data_id, len(left))
            for item in left:
                stream.drop(item.seq, item.seq, f"{type(exc).__name__}: {exc}")
                stream.window.give_back(len(item.body))

    async def _ask(self, stream: ProducedStream, items: list[PointsItem]) -> list[Acknowledgement]:
        while True:
            try:
                outcomes: list[Acknowledgement] = await self._streamer.call("carry", stream.key, items)
            except ActorLostError as exc:
                logger.info("stream %s: %d chunk(s) are sent again: %s", stream.data_id, len(items), exc)
                await self._sleep(REST_S)
            except IngestError as exc:
                return [Failed(item.seq, exc) for item in items]
            else:
                return outcomes


def _fits_never(error: SpoolError) -> bool:
    return isinstance(error, SpoolFullError) and error.fits_never


def _batch(waiting: deque[PointsItem], busy: set[_Name]) -> list[PointsItem]:
    """Take the next few requests, but no two versions of one chunk, and none of a chunk that is under way."""
    batch: list[PointsItem] = []
    names = set(busy)
    n_bytes = 0
    while waiting and len(batch) < POINTS_AT_ONCE and (not batch or n_bytes + len(waiting[0].body) <= POINTS_BYTES):
        mine = _names(waiting[0].meta)
        if names & mine:
            break
        names |= mine
        n_bytes += len(waiting[0].body)
        batch.append(waiting.popleft())
    return batch


def _names(meta: TimeseriesMeta) -> set[_Name]:
    return {(channel, meta.chunk_index) for channel in meta.channels}
