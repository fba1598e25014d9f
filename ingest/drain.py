"""Delivers what one live stream has in the spool, oldest first, and closes the stream when it is sealed and whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ingest.contents import StreamContents
from ingest.errors import (
    DestinationError,
    SpoolDamagedError,
    SpoolError,
    SpoolGoneError,
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
from ingest.outlets import Outlet
from ingest.pipeline import refuses_the_chunk
from ingest.spool import Spool, SpooledChunk
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
    clock, sleep : callable
        Unix seconds; asyncio's sleep.
    """

    spool: Spool
    node: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


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

    Attributes
    ----------
    stalled_by : str or None
        What keeps it from delivering just now.
    is_refused : bool
        Whether that is an answer, which people have to mend, and not silence.

    Notes
    -----
    Holds at most four chunks. Two versions of a chunk are delivered one after the other, so that the later one stays.
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
    ) -> None:
        self._key = key
        self._data_id = data_id
        self._outlet = outlet
        self._record = record
        self._tools = tools
        self._notice = notice
        self._contents = contents
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
        while await self._persist(self._pass):
            pass
        due = await self._record([])
        if not any(isinstance(step, CloseStream) for step in due):
            return False
        await self._persist(self._close)
        return True

    async def _persist(self, attempt: Callable[[], Awaitable[bool]]) -> bool:
        patience_s = PATIENCE_S
        while True:
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
                await self._rest(patience_s if isinstance(exc, UnreachableError) else MAX_PATIENCE_S)
                patience_s = min(2 * patience_s, MAX_PATIENCE_S)
            else:
                self.stalled_by, self.is_refused = None, False
                return result

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
        entries = (await asyncio.to_thread(self._tools.spool.entries, self._key))[:LOOK_AHEAD]
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
                task = group.create_task(self._one(entry, before, slots, errors))
                earlier |= dict.fromkeys(names, task)
        if errors:
            raise errors[0]
        return bool(entries)

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
                await self._deliver(entry)
            except Exception as exc:  # noqa: BLE001 - the others of the pass end first; _pass raises it
                errors.append(exc)

    async def _deliver(self, entry: SpooledChunk) -> None:
        spool, tools = self._tools.spool, self._tools
        try:
            chunk = await asyncio.to_thread(spool.load, entry)
        except SpoolGoneError:
            return
        except SpoolDamagedError as exc:
            await self._lose(entry.index, str(exc))
            await asyncio.to_thread(spool.set_aside, entry, "damaged")
            return
        tools.telemetry.emit("chunk_read", self._key, entry.index)
        try:
            delivery = await self._outlet.deliver(chunk)
        except DestinationError as exc:
            if not refuses_the_chunk(exc):
                raise
            await self._lose(entry.index, f"{chunk.label.text}: {exc}")
            await asyncio.to_thread(spool.set_aside, entry, "refused")
            return
        tools.telemetry.emit("chunk_put", self._key, entry.index)
        receipt = chunk.receipt(delivery, tools.node, round(tools.clock() * 1000))
        await self._record([ChunkConfirmed(receipt)])
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
