"""The dispatcher: gives chunks to packers within a window, is the only one who retries a packer, posts the close."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from actors.handles import ActorLostError, Handle
from actors.pool import PackerPool
from actors.run import RunTask
from actors.run_tools import RunTools
from actors.window import Window
from ingest.destinations import Destination, TimeseriesDestination
from ingest.errors import IngestError
from ingest.failover import Breaker, FailoverOptions
from ingest.journal import RunEnd
from ingest.telemetry import Telemetry

__all__ = ["Dispatcher", "DispatcherOptions"]

logger = logging.getLogger("rheed_ingest")

UNEXPECTED_LIMIT = 5
LOST_LIMIT_S = 120.0
"""How long aggregator or streamer may be away; Ray restarts them in one or two seconds."""


@dataclass(frozen=True, slots=True)
class DispatcherOptions:
    """How a job is dispatched.

    Attributes
    ----------
    job_id : str
        The job.
    packers : int
        How many.
    orders_per_packer : int
        Chunks that one packer has at once for one destination.
    window_bytes : int
        Frames that all packers have at once for one destination, in bytes.
    open_runs : int
        Streams that are open at once at one destination.
    lease_s : float
        How long a lease lasts; renewed four times as often.
    failover : FailoverOptions or None
        Where chunks wait for a destination that does not answer.
    """

    job_id: str
    packers: int
    orders_per_packer: int = 2
    window_bytes: int = 1 << 30
    open_runs: int = 4
    lease_s: float = 10.0
    failover: FailoverOptions | None = None


class Dispatcher:
    """Works off a job's open runs as the aggregator knows them; starts by itself, also after a restart.

    Parameters
    ----------
    options : DispatcherOptions
        How.
    aggregator, streamer : Handle
        The job's.
    spawn_packer : callable
        Makes a packer, given its number.
    open_destination, open_points : callable
        Make the destination of a URL, on which streams of frames, or of readings, are closed.
    telemetry : Telemetry
        Gets what happens.
    clock, sleep : callable
        Unix seconds; asyncio's sleep.

    Notes
    -----
    Nothing in it has to survive: which runs are open and which chunks are confirmed is asked of the aggregator.
    """

    def __init__(
        self,
        options: DispatcherOptions,
        aggregator: Handle,
        streamer: Handle,
        spawn_packer: Callable[[int], Handle],
        open_destination: Callable[[str], Destination],
        open_points: Callable[[str], TimeseriesDestination],
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._options = options
        self._aggregator = aggregator
        self._streamer = streamer
        self._spawn_packer = spawn_packer
        self._open_destination = open_destination
        self._open_points = open_points
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._sleep = sleep
        self._draining = asyncio.Event()
        self._finished = asyncio.Event()
        self._stopped_by: str | None = None
        self._started: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running event loop; once."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_task(self._guard())

    async def ping(self) -> bool:
        """Return True: the dispatcher is up."""
        return True

    async def drain(self) -> None:
        """Start nothing new; what is in flight is finished and journalled. Safe to repeat."""
        self._draining.set()

    async def finished(self) -> tuple[bool, str | None]:
        """Return whether it works no more, and what stopped it if that was not the end of the last run."""
        return self._finished.is_set(), self._stopped_by

    async def _guard(self) -> None:
        """Work until done, whatever happens; after a few unexpected errors in a row, end the open runs with it."""
        failures = 0
        lost_since_s: float | None = None
        while not self._finished.is_set():
            try:
                await self._work()
                self._finished.set()
            except ActorLostError as exc:
                lost_since_s = lost_since_s or self._clock()
                if self._clock() - lost_since_s > LOST_LIMIT_S:
                    await self._give_up(exc)
                    return
                await self._sleep(0.3)
            except Exception as exc:
                failures += 1
                logger.exception("dispatcher of job %s", self._options.job_id)
                if failures >= UNEXPECTED_LIMIT:
                    await self._give_up(exc)
                    return
                await self._sleep(0.3)

    async def _give_up(self, exc: Exception) -> None:
        self._stopped_by = f"{type(exc).__name__}: {exc}"
        with suppress(IngestError):
            for key in await self._aggregator.call("open_runs", self._options.job_id):
                end = RunEnd("failed", self._stopped_by, getattr(exc, "hint", None))
                await self._aggregator.call("end_run", self._options.job_id, key, None, end)
        self._finished.set()

    async def _work(self) -> None:
        options = self._options
        rows = [row for row in await self._aggregator.call("job", options.job_id) if row.end is None]
        pool = PackerPool(self._spawn_packer, options.packers, options.orders_per_packer, self._sleep)
        if rows:
            pool.start()
        heartbeat = asyncio.create_task(self._renew())
        urls = dict.fromkeys(row.destination for row in rows)
        try:
            async with AsyncExitStack() as opened, asyncio.TaskGroup() as group:
                for url in urls:
                    tools = self._tools(url, len(urls), pool, opened)
                    # Of its own for each destination, so that a slow one holds back none but its own runs.
                    slots = asyncio.Semaphore(options.open_runs)
                    for row in rows:
                        if row.destination == url:
                            group.create_task(self._one(RunTask(tools, row.key), slots))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            pool.stop()
            heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await heartbeat

    def _tools(self, url: str, copies: int, pool: PackerPool, opened: AsyncExitStack) -> RunTools:
        """Return what the runs to one destination share; what is opened for them is closed with `opened`."""
        options = self._options
        destination = self._open_destination(url)
        opened.push_async_callback(destination.aclose)
        taken: list[TimeseriesDestination] = []

        def points() -> TimeseriesDestination:
            if not taken:
                taken.append(self._open_points(url))
                opened.push_async_callback(taken[0].aclose)
            return taken[0]

        return RunTools(
            job_id=options.job_id,
            aggregator=self._aggregator,
            streamer=self._streamer,
            pool=pool,
            window=Window(options.packers * options.orders_per_packer, options.window_bytes),
            orders_per_packer=options.orders_per_packer,
            url=url,
            destination=destination,
            copies=copies,
            points=points,
            telemetry=self._telemetry,
            draining=self._draining,
            clock=self._clock,
            sleep=self._sleep,
            failover=options.failover,
            breaker=None if options.failover is None else Breaker(options.failover.probe_every_s),
        )

    async def _one(self, run: RunTask, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                await run.work()
            except ActorLostError:
                raise
            except Exception as exc:  # one run's fault ends that run, not the others
                logger.exception("run %s", run.key)
                await run.fail(f"{type(exc).__name__}: {exc}", getattr(exc, "hint", None))

    async def _renew(self) -> None:
        while True:
            await self._sleep(self._options.lease_s / 4)
            try:
                await self._aggregator.call("renew", self._options.job_id)
            except IngestError as exc:
                logger.warning("leases of job %s were not renewed: %s", self._options.job_id, exc)
