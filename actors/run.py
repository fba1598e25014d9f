"""One run of a job, from its lease to its end: what the dispatcher does for each, in the order the ledger says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from actors.aggregator import Lease
from actors.handles import ActorLostError
from actors.outbox import Outbox
from actors.run_tools import RunEndedError, RunTools, closed_end, unfinished
from ingest.contents import StreamContents
from ingest.destinations import Destination, TimeseriesDestination
from ingest.errors import (
    IngestError,
    LeaseHeldError,
    SourceError,
    StreamGoneError,
    UnreachableError,
)
from ingest.journal import RunEnd, StreamRow
from ingest.lanes import lanes_of
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CloseStream,
    CreateStream,
    DeliverChunks,
    Instruction,
    LinkStream,
    StreamClosed,
    StreamEvent,
    StreamState,
)
from ingest.orders import Order, StreamFacts
from ingest.outlets import close_repeatably
from ingest.pipeline import Delivered, Failed, Lost, NotParked, Outcome, Parked
from ingest.plan import RunPlan

__all__ = ["RunTask"]

logger = logging.getLogger("rheed_ingest")
T = TypeVar("T")

ORDERS_AT_ONCE = 256
SOURCE_TRIES = 3
"""How often a chunk that could not be read (network file system, IO error) is asked of packers."""


class RunTask:
    """Drives one run: lease, create, deliver, close; then records how it ended.

    Parameters
    ----------
    tools : RunTools
        What the job's runs share.
    key : str
        The run's stream.
    """

    def __init__(self, tools: RunTools, key: str) -> None:
        self._tools = tools
        self._key = key
        self._lease: Lease | None = None
        self._replaced = False
        self._stopped: IngestError | None = None
        self._was_there = False
        self._is_created = True
        self._left: list[Parked | NotParked] = []

    @property
    def key(self) -> str:
        """The run's stream in the journal; another one once its platform has failed the first."""
        return self._key

    async def fail(self, error: str, hint: str | None) -> None:
        """Record that the run failed for a reason that it does not know itself."""
        await self._end(RunEnd("failed", error, hint))

    async def work(self) -> None:
        """Do everything that is due, and record the end of the run. Safe to repeat.

        Raises
        ------
        ActorLostError
            The aggregator or the streamer does not answer; asking again later goes on from the journal.
        """
        if self._tools.draining.is_set():
            await self._end(RunEnd("partial", "interrupted before it was begun", "run the same command again"))
            return
        try:
            await self._take_lease()
            end = await self._steps()
        except StreamGoneError as exc:
            if self._replaced:
                await self._end(RunEnd("failed", str(exc), "run the same command again: a new stream is then made"))
            else:
                await self._replace(exc)
                await self.work()
        except RunEndedError as exc:
            await self._end(RunEnd(exc.status, str(exc), exc.hint, exc.parked))
        except UnreachableError as exc:
            await self._end(RunEnd("partial", str(exc), exc.hint or "run the same command again: it resumes"))
        except SourceError as exc:
            await self._end(RunEnd("partial" if (await self._row()).confirmed else "failed", str(exc), exc.hint))
        except ActorLostError:
            raise
        except IngestError as exc:
            await self._end(RunEnd("failed", str(exc), exc.hint))
        else:
            await self._end(end)

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def _take_lease(self) -> None:
        """Take the lease; of a dead holder after it has expired, of a live one (which renews it) never."""
        seen_until_s: float | None = None
        while True:
            try:
                self._lease = await self._tools.aggregator.call("lease", self._tools.job_id, self._key)
                return
            except LeaseHeldError as exc:
                if seen_until_s is not None and exc.until_s > seen_until_s:
                    raise
                seen_until_s = exc.until_s
                logger.warning("%s; waiting whether that job is alive", exc)
                await self._tools.sleep(max(exc.until_s - self._tools.clock(), 0) + 0.05)

    @property
    def _held(self) -> Lease:
        if self._lease is None:
            raise RuntimeError("the lease is taken first")
        return self._lease

    async def _steps(self) -> RunEnd:
        lease = self._held
        if lease.row.same_as is not None:
            await self._compare_digests()
        if lease.row.state is StreamState.CLOSED:
            return closed_end(lease.row, before=True)
        if lease.row.state is StreamState.GONE:
            raise StreamGoneError(f"stream {lease.row.data_id} was failed or closed by the platform")
        due = lease.due
        data_id = lease.row.data_id
        unseen = not lease.row.confirmed
        while due:
            try:
                if unseen and isinstance(due[0], DeliverChunks):
                    due, unseen = await self._adopt(due[0].data_id), False
                    continue
                due, data_id = await self._step(due[0], data_id)
            except UnreachableError as exc:
                if self._tools.failover is None:
                    raise
                due = await self._fail_over(exc)
        row = (await self._row()) if data_id else lease.row
        if row.state is not StreamState.CLOSED:
            raise unfinished(self._left, self._stopped, self._tools.failover)
        return closed_end(row, before=self._was_there)

    async def _step(self, instruction: Instruction, data_id: str | None) -> tuple[tuple[Instruction, ...], str | None]:
        match instruction:
            case CreateStream() | LinkStream():
                lease = self._held
                anew = lease.row.replaces is not None
                asked = ("initialize", self._key, lease.epoch, lease.plan, data_id, self._tools.url, anew)
                made: str = await self._reach(lambda: self._tools.streamer.call(*asked))
                return await self._record([]), made
            case DeliverChunks(data_id, indices):
                return await self._deliver(data_id, indices), data_id
            case CloseStream(data_id):
                return await self._close(data_id), data_id

    async def _record(self, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        due: tuple[Instruction, ...] = await self._tools.aggregator.call("record", self._key, self._held.epoch, events)
        return due

    async def _adopt(self, data_id: str) -> tuple[Instruction, ...]:
        """Take over what a destination that finishes streams says of this one: its journal may be lost."""
        destination = self._closing()
        held = await destination.held(data_id) if destination.finishes_streams else None
        events = [] if held is None else held.adopted_by(self._held.plan)
        if not events:
            return await self._record([])
        logger.info("%s: %s is there, and closed: its receipts are taken over", self._held.row.path, data_id)
        self._was_there = True
        due: tuple[Instruction, ...] = await self._tools.aggregator.call(
            "adopt", self._tools.job_id, self._key, self._held.epoch, events
        )
        return due

    async def _deliver(self, data_id: str, indices: tuple[int, ...]) -> tuple[Instruction, ...]:
        """Deliver chunks as far as that can be done now; return what is due then."""
        await self._give_all(data_id, indices)
        due = await self._record([])
        return () if due and isinstance(due[0], DeliverChunks) else due

    async def _give_all(self, data_id: str, indices: tuple[int, ...]) -> None:
        """Give out the chunks within the window until all are answered, or the run has to stop."""
        outbox = Outbox(self._record)
        lanes = self._lanes(indices)
        try:
            async with asyncio.TaskGroup() as group:
                for lane, part in lanes:
                    group.create_task(self._give_out(data_id, part, outbox, lane, group))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            for lane, _ in lanes:
                self._tools.pool.forget(lane)
        await outbox.flush()

    def _lanes(self, indices: tuple[int, ...]) -> list[tuple[Hashable, tuple[int, ...]]]:
        """Return the chunks by lane, each to be worked off in order by one packer; lane None: in any order by any."""
        plan = self._held.plan
        parts = lanes_of(plan, indices, self._tools.pool.size) if isinstance(plan, RunPlan) else None
        if parts is None:
            return [(None, indices)]
        run = self._key if self._tools.copies == 1 else self._held.plan.fingerprint
        return [((run, i), part) for i, part in enumerate(parts)]

    async def _give_out(
        self, data_id: str, indices: Sequence[int], outbox: Outbox, lane: Hashable, group: asyncio.TaskGroup
    ) -> None:
        # A lane's chunks do not wait for their packer inside of the window, where other runs' could be at work.
        places = None if lane is None else asyncio.Semaphore(self._tools.orders_per_packer)
        async for order in self._orders(data_id, indices):
            if places is not None:
                await places.acquire()
            await self._tools.window.acquire(order.n_bytes)
            if self._stopped is not None or self._tools.draining.is_set() or outbox.error is not None:
                await self._tools.window.release(order.n_bytes)
                return
            group.create_task(self._one(order, outbox, lane, places))

    async def _orders(self, data_id: str, indices: Sequence[int]) -> AsyncIterator[Order]:
        """Have the streamer make the orders, a batch at a time."""
        for first in range(0, len(indices), ORDERS_AT_ONCE):
            batch = indices[first : first + ORDERS_AT_ONCE]
            asked = (self._tools.job_id, self._key, data_id, batch, self._tools.url, self._tools.copies)
            for order in await self._tools.streamer.call("orders", *asked):
                yield order if self._tools.failover is None else replace(order, stream=self._facts)

    async def _one(self, order: Order, outbox: Outbox, lane: Hashable, places: asyncio.Semaphore | None) -> None:
        outcome: Outcome
        try:
            outcome = await self._ask(order, lane)
        except IngestError as exc:
            outcome = Failed(order.task.index, exc)
        finally:
            await self._tools.window.release(order.n_bytes)
            if places is not None:
                places.release()
        match outcome:
            case Delivered(receipt):
                self._tools.telemetry.emit("receipt_received", self._key, receipt.index)
                if receipt.lost_frames:
                    logger.warning(
                        "%s: %d of %d frames of chunk %d could not be read",
                        self._held.row.path, len(receipt.lost_frames), receipt.frames, receipt.index,
                    )  # fmt: skip
                outbox.add(ChunkConfirmed(receipt))
            case Lost(index, reason) if not self._is_created:
                self._left.append(NotParked(index, reason))  # a ledger takes losses of open streams only
            case Parked() | NotParked():
                self._left.append(outcome)
            case Lost(index, reason):
                logger.warning("%s: chunk %d is lost: %s", self._held.row.path, index, reason)
                outbox.add(ChunkLost(index, reason))
            case Failed(_, error):
                self._stopped = self._stopped or error

    async def _ask(self, order: Order, lane: Hashable) -> Outcome:
        tries = 0
        # The packer that packs it for one destination has it for the others.
        near = (self._held.plan.fingerprint, order.task.index) if self._tools.copies > 1 else None
        while True:
            tries += 1
            outcome: Outcome = await self._tools.pool.ask("deliver", order, lane=lane, near=near, group=self._tools.url)
            transient = isinstance(outcome, Failed) and isinstance(outcome.error, SourceError)
            if not transient or tries == SOURCE_TRIES:
                return outcome
            await self._tools.sleep(0.2 * tries)

    async def _close(self, data_id: str) -> tuple[Instruction, ...]:
        await self._record([CloseBegun()])
        self._tools.telemetry.emit("close_posting", self._key)
        destination = self._closing()
        contents: StreamContents | None = None
        if destination.finishes_streams:
            contents = await self._tools.aggregator.call("contents", self._tools.job_id, self._key)
        await self._reach(lambda: close_repeatably(destination, data_id, contents))
        self._tools.telemetry.emit("close_answered", self._key)
        return await self._record([StreamClosed()])

    # -- a destination that does not answer ----------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> StreamFacts:
        return StreamFacts.of(self._held.row.path, self._held.plan)

    async def _reach(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the destination something, but not while it is known not to answer."""
        breaker = self._tools.breaker
        if breaker is None:
            return await call()
        if not breaker.admits():
            raise UnreachableError(breaker.reason or "", hint="run the same command again: it resumes")
        return await breaker.guard(call)

    async def _fail_over(self, exc: UnreachableError) -> tuple[Instruction, ...]:
        """Have all that is missing wait at the failover; return what is due then."""
        match (await self._record([]))[0]:
            case CloseStream(data_id):
                await self._leave_word(data_id, exc)
                return ()
            case DeliverChunks(data_id, indices):
                return await self._deliver(data_id, indices)
            case _:
                self._is_created = False
                await self._give_all("", tuple(range(len(self._held.plan.chunks))))
                return ()

    async def _leave_word(self, data_id: str, exc: UnreachableError) -> None:
        """Note at the failover that the stream is whole and has to be closed."""
        failover = self._tools.failover
        self._stopped = exc
        if failover is None:
            return
        asked = (self._tools.url, self._key, data_id, self._facts)
        try:
            await self._tools.pool.ask("note", *asked, group=self._tools.url)
        except IngestError as error:
            logger.warning("%s: that it has to be closed was not noted: %s", self._held.row.path, error)
            return
        text = f"every chunk is there, but the stream could not be closed: {exc}"
        self._stopped = RunEndedError(text, status="partial", hint=failover.hint)

    # -- ends of streams and runs --------------------------------------------------------------------------------------

    def _closing(self) -> Destination | TimeseriesDestination:
        """Return where the stream is closed."""
        return self._tools.destination if isinstance(self._held.plan, RunPlan) else self._tools.points()

    async def _compare_digests(self) -> None:
        """Read the chunks that another path's job has confirmed, and compare, before anything is skipped."""
        digests: dict[int, str] = await self._tools.aggregator.call("receipts_digests", self._key)
        row = self._held.row
        async for order in self._orders(row.data_id or "", sorted(digests)):
            async with self._tools.window.hold(order.n_bytes):
                digest = await self._tools.pool.ask("digest", order, group=self._tools.url)
            if isinstance(digest, IngestError):
                raise digest
            if digest != digests[order.task.index]:
                raise RunEndedError(
                    f"chunk {order.task.index} is not what was sent from {row.path}, although the fingerprints agree",
                    hint="pass --restart to send it as a stream of its own",
                )

    async def _row(self) -> StreamRow:
        row: StreamRow = await self._tools.aggregator.call("row", self._tools.job_id, self._key)
        return row

    async def _replace(self, exc: StreamGoneError) -> None:
        """Register the run anew if the platform failed its stream; the new one is sent from the start."""
        lease = self._held
        logger.warning("%s: %s; a new stream is made", lease.row.path, exc)
        self._key = await self._tools.aggregator.call("replace", self._tools.job_id, self._key, lease.epoch, str(exc))
        self._replaced, self._stopped, self._left = True, None, []

    async def _end(self, end: RunEnd) -> None:
        epoch = self._lease.epoch if self._lease else None
        await self._tools.aggregator.call("end_run", self._tools.job_id, self._key, epoch, end)
