"""One run of a job, from its lease to its end: what the dispatcher does for each, in the order the ledger says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass

from actors.aggregator import Lease
from actors.handles import ActorLostError, Handle
from actors.outbox import Outbox
from actors.pool import PackerPool
from actors.window import Window
from ingest.destinations import Destination, PlatformTimeseries
from ingest.errors import (
    IngestError,
    LeaseHeldError,
    SourceError,
    StreamGoneError,
    UnreachableError,
)
from ingest.journal import RegisteredRun, RunEnd, StreamRow
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
from ingest.outlets import close_repeatably
from ingest.pipeline import Delivered, Failed, Lost, Order, Outcome
from ingest.plan import RunPlan
from ingest.telemetry import Telemetry

__all__ = ["RunTask", "RunTools"]

logger = logging.getLogger("rheed_ingest")

ORDERS_AT_ONCE = 256
SOURCE_TRIES = 3
"""How often a chunk that could not be read (network file system, IO error) is asked of packers."""


@dataclass(frozen=True)
class RunTools:
    """What the runs of a job share.

    Attributes
    ----------
    job_id : str
        The job, and the holder of its leases.
    aggregator, streamer : Handle
        The job's.
    pool : PackerPool
        Does the work.
    window : Window
        How much of it at once.
    orders_per_packer : int
        How many orders of one lane.
    destination : Destination
        Takes the closing calls of streams of frames.
    points : callable
        Makes what takes those of streams of readings; called once there is one.
    telemetry : Telemetry
        Gets what happens.
    draining : asyncio.Event
        Set: start nothing new.
    clock, sleep : callable
        Unix seconds; asyncio's sleep.
    """

    job_id: str
    aggregator: Handle
    streamer: Handle
    pool: PackerPool
    window: Window
    orders_per_packer: int
    destination: Destination
    points: Callable[[], PlatformTimeseries]
    telemetry: Telemetry
    draining: asyncio.Event
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


def closed_end(run: StreamRow | RegisteredRun, *, before: bool = False) -> RunEnd:
    """Return the end of a run whose stream is closed; `before`: by an earlier job."""
    missing = []
    if run.lost:
        missing.append(f"{run.lost} of {run.chunks} chunks could not be read or delivered")
    if run.frames_lost:
        missing.append(f"{run.frames_lost} frame(s) could not be read from the source")
    if missing:
        return RunEnd(
            "partial",
            f"closed with losses: {', '.join(missing)}",
            "`rheed-ingest status` names them; mend the source and pass --restart to send it anew",
        )
    return RunEnd("skipped" if before else "complete")


class RunEndedError(IngestError):
    """Carries a run's end out of the steps; never leaves this module."""

    def __init__(self, message: str, *, hint: str | None = None, status: str = "failed") -> None:
        super().__init__(message, hint=hint)
        self.status = status


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
            await self._end(RunEnd(exc.status, str(exc), exc.hint))
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
        while due:
            due, data_id = await self._step(due[0], data_id)
        row = (await self._row()) if data_id else lease.row
        if row.state is not StreamState.CLOSED:
            raise self._stopped or RunEndedError(
                "interrupted", status="partial", hint="run the same command again: it resumes"
            )
        return closed_end(row)

    async def _step(self, instruction: Instruction, data_id: str | None) -> tuple[tuple[Instruction, ...], str | None]:
        match instruction:
            case CreateStream() | LinkStream():
                lease = self._held
                data_id = await self._tools.streamer.call("initialize", self._key, lease.epoch, lease.plan, data_id)
                return await self._record([]), data_id
            case DeliverChunks(data_id, indices):
                return await self._deliver(data_id, indices), data_id
            case CloseStream(data_id):
                return await self._close(data_id), data_id

    async def _record(self, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        due: tuple[Instruction, ...] = await self._tools.aggregator.call("record", self._key, self._held.epoch, events)
        return due

    async def _deliver(self, data_id: str, indices: tuple[int, ...]) -> tuple[Instruction, ...]:
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
        due = await self._record([])
        return () if due and isinstance(due[0], DeliverChunks) else due

    def _lanes(self, indices: tuple[int, ...]) -> list[tuple[Hashable, tuple[int, ...]]]:
        """Return the chunks by lane, each to be worked off in order by one packer; lane None: in any order by any."""
        plan = self._held.plan
        parts = lanes_of(plan, indices, self._tools.pool.size) if isinstance(plan, RunPlan) else None
        if parts is None:
            return [(None, indices)]
        return [((self._key, i), part) for i, part in enumerate(parts)]

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
            for order in await self._tools.streamer.call("orders", self._tools.job_id, self._key, data_id, batch):
                yield order

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
            case Lost(index, reason):
                logger.warning("%s: chunk %d is lost: %s", self._held.row.path, index, reason)
                outbox.add(ChunkLost(index, reason))
            case Failed(_, error):
                self._stopped = self._stopped or error

    async def _ask(self, order: Order, lane: Hashable) -> Outcome:
        tries = 0
        while True:
            tries += 1
            outcome: Outcome = await self._tools.pool.ask("deliver", order, lane=lane)
            transient = isinstance(outcome, Failed) and isinstance(outcome.error, SourceError)
            if not transient or tries == SOURCE_TRIES:
                return outcome
            await self._tools.sleep(0.2 * tries)

    async def _close(self, data_id: str) -> tuple[Instruction, ...]:
        await self._record([CloseBegun()])
        self._tools.telemetry.emit("close_posting", self._key)
        is_frames = isinstance(self._held.plan, RunPlan)
        await close_repeatably(self._tools.destination if is_frames else self._tools.points(), data_id)
        self._tools.telemetry.emit("close_answered", self._key)
        return await self._record([StreamClosed()])

    async def _compare_digests(self) -> None:
        """Read the chunks that another path's job has confirmed, and compare, before anything is skipped."""
        digests: dict[int, str] = await self._tools.aggregator.call("receipts_digests", self._key)
        row = self._held.row
        async for order in self._orders(row.data_id or "", sorted(digests)):
            async with self._tools.window.hold(order.n_bytes):
                digest = await self._tools.pool.ask("digest", order)
            if isinstance(digest, IngestError):
                raise digest
            if digest != digests[order.task.index]:
                raise RunEndedError(
                    f"chunk {order.task.index} is not what was sent from {row.path}, although the fingerprints agree",
                    hint="pass --restart to send it as a stream of its own",
                )

    # -- ends ----------------------------------------------------------------------------------------------------------

    async def _row(self) -> StreamRow:
        row: StreamRow = await self._tools.aggregator.call("row", self._tools.job_id, self._key)
        return row

    async def _replace(self, exc: StreamGoneError) -> None:
        """Register the run anew if the platform failed its stream; the new one is sent from the start."""
        lease = self._held
        logger.warning("%s: %s; a new stream is made", lease.row.path, exc)
        self._key = await self._tools.aggregator.call("replace", self._tools.job_id, self._key, lease.epoch, str(exc))
        self._replaced, self._stopped = True, None

    async def _end(self, end: RunEnd) -> None:
        epoch = self._lease.epoch if self._lease else None
        await self._tools.aggregator.call("end_run", self._tools.job_id, self._key, epoch, end)
