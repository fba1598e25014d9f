"""Delivers what one live stream has in the spool, oldest first, and closes the stream when it is sealed and whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ingest.chunks import EncodedChunk
from ingest.contents import StreamContents
from ingest.errors import (
    DestinationError,
    LakeDamagedError,
    SpoolDamagedError,
    SpoolError,
    SpoolGoneError,
    SpoolParkedError,
    StreamGoneError,
    UnreachableError,
)
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CloseStream,
    Instruction,
    StreamClosed,
    StreamEvent,
    StreamGone,
)
from ingest.live_parking import StreamParking
from ingest.outlets import Outlet
from ingest.pipeline import refuses_the_chunk
from ingest.spool import ParkedPlace, Spool, SpooledChunk
from ingest.telemetry import Telemetry
from ingest.timeseries import TimeseriesMeta

__all__ = ["Drain", "DrainTools"]

logger = logging.getLogger("rheed_ingest")

AT_ONCE = 4
LOOK_AHEAD = 512
PATIENCE_S = 1.0
MAX_PATIENCE_S = 15.0


@dataclass(frozen=True)
class DrainTools:
    """What drains share.

    Attributes
    ----------
    spool : Spool
        Where chunks wait.
    node : str
        Written into receipts.
    telemetry : Telemetry
        Gets ``chunk_read``, ``chunk_put``, ``close_posting``, ``close_answered``.
    clock, monotonic, sleep : callable
        Unix seconds; seconds since some moment; asyncio's sleep.
    """

    spool: Spool
    node: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


class Drain:
    """One leased live stream on its way out.

    Parameters
    ----------
    key, data_id : str
        The stream in the journal and at its destination.
    outlet : Outlet
        Where it goes.
    record : coroutine function
        Commits events of the stream under the caller's lease and returns what is due; empty: only asks.
    tools : DrainTools
        The rest.
    notice : callable
        Tells people of stalls and losses.
    contents : coroutine function, optional
        Returns all that the stream holds; only for an outlet that finishes streams.
    parking : StreamParking, optional
        Has chunks wait elsewhere while the destination is away, and gives them back.

    Attributes
    ----------
    stalled_by : str or None
        What keeps it from delivering just now.
    is_refused : bool
        Whether that is an answer, which people have to mend, and not silence.

    Notes
    -----
    Holds at most four chunks, and a fifth that was read back in vain. Two versions of a chunk are delivered one after
    the other, so that the later one stays.
    """

    def __init__(
        self,
        key: str,
        data_id: str,
        outlet: Outlet,
        record: Callable[[Sequence[StreamEvent]], Awaitable[tuple[Instruction, ...]]],
        tools: DrainTools,
        notice: Callable[[str], None] = logger.warning,
        contents: Callable[[], Awaitable[StreamContents]] | None = None,
        parking: StreamParking | None = None,
    ) -> None:
        self._key = key
        self._data_id = data_id
        self._outlet = outlet
        self._record = record
        self._tools = tools
        self._notice = notice
        self._contents = contents
        self._parking = parking
        # What waits at a failover that does not give it, and what must not overtake it; until the next try.
        self._kept: set[tuple[int, int]] = set()
        self._kept_names: set[object] = set()
        self._kept_by: DestinationError | None = None
        self._hurried = asyncio.Event()
        self.stalled_by: str | None = None
        self.is_refused = False

    def try_now(self) -> None:
        """Try what stalls again at once: somebody says that it is mended."""
        self.is_refused = False
        self._hurried.set()

    async def work(self) -> bool:
        """Deliver all that is in the spool now, then close the stream if that is due; return whether it is closed.

        A destination that does not answer, or refuses the key, is asked again for ever, ever more slowly: the spool is
        safe. Cancel it to stop.

        Raises
        ------
        StreamGoneError
            The platform takes nothing more; journalled, and the spool is kept.
        StaleEpochError
            Another process has the stream's lease.
        SpoolError
            The spool cannot be read.
        """
        if self._parking is not None:
            self._parking.begin()
        while await self._persist(self._pass):
            pass
        due = await self._record([])
        if self._parking is not None:
            await self._parking.sweep()
        if not any(isinstance(step, CloseStream) for step in due):
            return False
        await self._persist(self._close)
        return True

    async def _persist(self, attempt: Callable[[], Awaitable[bool]]) -> bool:
        patience_s = PATIENCE_S
        while True:
            began_s = self._tools.monotonic()
            try:
                result = await attempt()
            except StreamGoneError as exc:
                await self._record([StreamGone(str(exc))])
                raise
            except DestinationError as exc:
                if self.stalled_by is None:
                    self._notice(f"stream {self._data_id}: delivery stalls: {exc}")
                self.stalled_by, self.is_refused = str(exc), not isinstance(exc, UnreachableError)
                # An answer that is final for now may be mended by people: less often, but for ever.
                wait_s = patience_s if isinstance(exc, UnreachableError) else MAX_PATIENCE_S
                if (until_s := await self._while_away(exc, began_s)) is not None:
                    wait_s = min(wait_s, until_s)
                await self._rest(wait_s)
                patience_s = min(2 * patience_s, MAX_PATIENCE_S)
            else:
                self.stalled_by, self.is_refused = None, False
                return result

    async def _while_away(self, error: DestinationError, began_s: float) -> float | None:
        """Have what is in the spool wait elsewhere once that is due; return in how many seconds to go on, at most."""
        parking = self._parking
        if parking is None or error is self._kept_by:
            return None
        if not isinstance(error, UnreachableError):
            parking.answered()
            return None
        due_in_s = parking.due_in_s(began_s)
        if due_in_s is None or due_in_s > 0:
            return due_in_s
        try:
            is_more = await parking.park(lambda: self._record([]))
        except DestinationError as exc:
            self.stalled_by = f"{error}; and the failover takes nothing either: {exc}"
            return None
        if (news := parking.news()) is not None:
            self._notice(news)
        return 0.0 if is_more else None

    async def _rest(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._tools.sleep(seconds)), asyncio.ensure_future(self._hurried.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._hurried.clear()

    async def _pass(self) -> bool:
        """Deliver the oldest few; return whether there were any."""
        entries = await self._next_entries()
        slots = asyncio.Semaphore(AT_ONCE)
        earlier: dict[object, asyncio.Task[None]] = {}
        errors: list[BaseException] = []
        async with asyncio.TaskGroup() as group:
            for entry in entries:
                try:
                    names = await asyncio.to_thread(self._names, entry)
                except SpoolError as exc:  # out of the group it would come as a group of errors
                    errors.append(exc)
                    break
                before = [earlier[name] for name in names if name in earlier]
                task = group.create_task(self._one(entry, names, before, slots, errors))
                earlier |= dict.fromkeys(names, task)
        if errors:
            raise errors[0]
        return bool(entries)

    async def _next_entries(self) -> list[SpooledChunk]:
        """Return the oldest chunks that can be had; raise what keeps the others if there are no more."""
        entries = await asyncio.to_thread(self._tools.spool.entries, self._key)
        if self._parking is None:
            return entries[:LOOK_AHEAD]
        if self._kept:
            entries = [entry for entry in entries if (entry.seq, entry.index) not in self._kept]
            if not entries and self._kept_by is not None:
                self._kept.clear()
                self._kept_names.clear()
                raise self._kept_by
        return entries[: 1 if self._parking.is_away else LOOK_AHEAD]

    def _keep(self, entry: SpooledChunk, names: Sequence[object]) -> None:
        self._kept.add((entry.seq, entry.index))
        self._kept_names.update(names)

    def _names(self, entry: SpooledChunk) -> list[object]:
        """Return what a chunk may be another version of."""
        try:
            label = self._tools.spool.label(entry)
        except (SpoolDamagedError, SpoolGoneError):
            return []
        if isinstance(label.meta, TimeseriesMeta):
            return [(channel, label.meta.chunk_index) for channel in label.meta.channels]
        return [label.index]

    async def _one(
        self,
        entry: SpooledChunk,
        names: Sequence[object],
        before: Sequence[asyncio.Task[None]],
        slots: asyncio.Semaphore,
        errors: list[BaseException],
    ) -> None:
        if before:
            await asyncio.wait(before)
        async with slots:
            if errors:
                return
            try:
                if not self._kept_names.isdisjoint(names) or not await self._deliver(entry):
                    self._keep(entry, names)
            except Exception as exc:  # noqa: BLE001 - the others of the pass end first; _pass raises it
                errors.append(exc)

    async def _deliver(self, entry: SpooledChunk) -> bool:
        """Deliver a chunk, or lose it for good; return whether it could be had."""
        spool, place = self._tools.spool, None
        try:
            try:
                chunk: EncodedChunk | None = await asyncio.to_thread(spool.load, entry)
            except SpoolParkedError as parked:
                if self._parking is None:
                    raise
                place = ParkedPlace(parked.url, parked.name)
                chunk = await self._parking.fetch(entry, parked)
        except SpoolGoneError:
            return True
        except (SpoolDamagedError, LakeDamagedError) as exc:
            await self._lose(entry.index, str(exc))
            await asyncio.to_thread(spool.set_aside, entry, "damaged")
            return True
        except DestinationError as exc:  # the failover's
            self._kept_by = exc
            return False
        if chunk is None:
            await asyncio.to_thread(spool.remove, entry)
        else:
            await self._send(entry, chunk, place)
        return True

    async def _send(self, entry: SpooledChunk, chunk: EncodedChunk, place: ParkedPlace | None) -> None:
        spool, tools = self._tools.spool, self._tools
        tools.telemetry.emit("chunk_read", self._key, entry.index)
        try:
            delivery = await self._outlet.deliver(chunk)
        except DestinationError as exc:
            if self._parking is not None and place is not None and isinstance(exc, UnreachableError):
                self._parking.undelivered(entry, chunk)
            if not refuses_the_chunk(exc):
                raise
            await self._lose(entry.index, f"{chunk.label.text}: {exc}")
            await asyncio.to_thread(spool.set_aside, entry, "refused")
            return
        tools.telemetry.emit("chunk_put", self._key, entry.index)
        receipt = chunk.receipt(delivery, tools.node, round(tools.clock() * 1000))
        await self._record([ChunkConfirmed(receipt)])
        if self._parking is not None:
            await self._parking.delivered(entry, chunk, place)
        await asyncio.to_thread(spool.remove, entry)

    async def _lose(self, index: int, reason: str) -> None:
        self._notice(f"stream {self._data_id}: chunk {index} is lost: {reason}")
        await self._record([ChunkLost(index, reason)])

    async def _close(self) -> bool:
        await self._record([CloseBegun()])
        self._tools.telemetry.emit("close_posting", self._key)
        contents = None
        if self._outlet.finishes_streams and self._contents is not None:
            contents = await self._contents()
        await self._outlet.close_stream(self._data_id, contents)
        self._tools.telemetry.emit("close_answered", self._key)
        await self._record([StreamClosed()])
        return True
