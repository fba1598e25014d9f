"""The live dispatcher: empties the spool, closes sealed streams, and looks after what dead sessions left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

from actors.aggregator import LiveState
from actors.handles import ActorLostError, Handle
from actors.live_setup import LiveSetup
from ingest.drain import Drain, DrainTools
from ingest.errors import (
    IngestError,
    JournalWriteError,
    LeaseHeldError,
    SpoolError,
    StaleEpochError,
    StreamerError,
    StreamGoneError,
)
from ingest.journal import LiveStream
from ingest.ledger import ChunkLost, Instruction, Sealed, StreamEvent, StreamState
from ingest.live_parking import Parkings, StreamParking
from ingest.orders import StreamFacts
from ingest.outlets import Outlet, open_frames_outlet, open_points_outlet
from ingest.spool import SpoolUsage
from ingest.timeseries import TimeseriesSettings

__all__ = ["LiveDispatcher", "StreamProgress"]

logger = logging.getLogger("rheed_ingest")

REST_S = 0.3
DRAIN_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """Where a live stream's chunks are; small, and pickles.

    Attributes
    ----------
    journal : LiveState
        What the journal knows.
    spooled, spooled_bytes : int
        What waits on disk.
    stalled_by : str or None
        What keeps it from being delivered just now.
    is_refused : bool
        Whether that is an answer, which people have to mend, and not silence.
    parked : mapping of str to int
        How many of those that wait do so at a failover, by its URL.
    """

    journal: LiveState
    spooled: int
    spooled_bytes: int
    stalled_by: str | None
    is_refused: bool = False
    parked: Mapping[str, int] = field(default_factory=dict)


class _Held:
    """A stream that this session has the lease of."""

    def __init__(self, stream: LiveStream) -> None:
        self.stream = stream
        self.epoch = stream.epoch
        self.stale_epoch = -1
        self.leasing = asyncio.Lock()
        self.poked = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.drain: Drain | None = None


class LiveDispatcher:
    """Delivers the spool of an endpoint and key, for its own session's streams and for those that nobody holds.

    Parameters
    ----------
    setup : LiveSetup
        The session.
    aggregator : Handle
        Journals.
    clock, sleep : callable
        Unix seconds; asyncio's sleep.

    Notes
    -----
    Nothing in it has to survive: which streams are its session's is asked of the aggregator, what waits is on disk.
    Holds at most four chunks for each stream that it delivers.
    """

    drain_class: ClassVar[type[Drain]] = Drain

    def __init__(
        self,
        setup: LiveSetup,
        aggregator: Handle,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._setup = setup
        self._aggregator = aggregator
        self._clock = clock
        self._sleep = sleep
        self._spool = setup.spool()
        telemetry = setup.telemetry_of("live_dispatcher")
        self._tools = DrainTools(self._spool, f"{socket.gethostname()}/{os.getpid()}", telemetry, clock, sleep)
        self._parkings = Parkings(setup.options.drain_retry)
        self._held: dict[str, _Held] = {}
        self._outlets: dict[str, Outlet] = {}
        self._adopted: set[str] = set()
        self._reported: set[str] = set()
        self._notices: list[str] = []
        self._looping: list[asyncio.Task[None]] = []
        self._released = False

    def start(self) -> None:
        """Begin, in the running event loop; once."""
        if not self._looping:
            loop = asyncio.get_running_loop()
            self._looping = [loop.create_task(self._renew()), loop.create_task(self._scan())]

    async def ping(self) -> int:
        """Return the process id: the dispatcher is up."""
        return os.getpid()

    # -- what the session asks -----------------------------------------------------------------------------------------

    async def poke(self, key: str) -> None:
        """Look at a stream's spool now. Safe to repeat."""
        held = self._held.get(key)
        if held is None:
            await self._adopt_own()
            held = self._held.get(key)
        if held is not None:
            held.poked.set()

    async def retry(self, key: str) -> None:
        """Try again now what keeps a stream from being delivered. Safe to repeat."""
        await self.poke(key)
        held = self._held.get(key)
        if held is not None and held.drain is not None:
            held.drain.try_now()

    async def seal(self, key: str, seal: Sealed, lost: Mapping[int, str]) -> None:
        """Record that nothing more comes, and what was given up; the stream closes once it is whole. Safe to repeat.

        Raises
        ------
        IllegalEventError
            It was sealed otherwise before.
        LeaseHeldError
            Another session took it over while this one was away, and is not done with it.
        """
        await self.poke(key)
        # The seal comes last: a stream that is sealed and lacks a loss would never be whole.
        events: list[StreamEvent] = [*(ChunkLost(index, reason) for index, reason in sorted(lost.items())), seal]
        for event in events:
            await self._record_own(key, event)
        await self.poke(key)

    async def progress(self, key: str) -> StreamProgress:
        """Return where a stream's chunks are. Changes nothing."""
        state: LiveState = await self._aggregator.call("live_state", key)
        spooled = await asyncio.to_thread(self._spool.usage_of, key)
        held = self._held.get(key)
        drain = held.drain if held is not None else None
        parked: dict[str, int] = {}
        if spooled[0] and (self._setup.options.failover is not None or self._parkings.is_used):
            parked = await asyncio.to_thread(self._spool.parked, key)
        if drain is None:
            return StreamProgress(state, *spooled, None, parked=parked)
        return StreamProgress(state, *spooled, drain.stalled_by, drain.is_refused, parked)

    async def spool_usage(self) -> SpoolUsage:
        """Return what the spool holds, and may hold. Changes nothing."""
        return await asyncio.to_thread(self._spool.usage)

    async def idle(self) -> bool:
        """Look for work, and return whether there is none: no chunk that could be delivered, no stream to close."""
        await self._look()
        for held in self._held.values():
            if held.stream.is_sealed or await asyncio.to_thread(self._spool.has, held.stream.key):
                return False
        return True

    async def notices(self) -> list[str]:
        """Return what people should know and were not told yet; not safe to repeat, a lost answer only loses words."""
        notices, self._notices = self._notices, []
        return notices

    async def stalls(self) -> dict[str, str]:
        """Return what keeps streams from being delivered, by ``data_id``. Changes nothing."""
        return {
            str(held.stream.data_id): held.drain.stalled_by
            for held in self._held.values()
            if held.drain is not None and held.drain.stalled_by is not None
        }

    async def release(self) -> None:
        """Stop, and give all leases back, so that another session can go on at once. Safe to repeat."""
        self._released = True
        tasks = [*self._looping, *(held.task for held in self._held.values() if held.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(IngestError):
            for stream in await self._aggregator.call("live_streams", self._setup.account):
                if stream.lease_holder == self._setup.session_id:
                    await self._aggregator.call("release_live", stream.key, stream.epoch)
        self._held.clear()
        for outlet in self._outlets.values():
            await outlet.aclose()
        self._outlets.clear()
        self._parkings.close()

    # -- loops ---------------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            try:
                await self._aggregator.call("renew", self._setup.session_id)
            except IngestError as exc:
                logger.warning("leases of session %s were not renewed: %s", self._setup.session_id, exc)
            await self._sleep(self._setup.options.lease_s / 4)

    async def _scan(self) -> None:
        while True:
            try:
                await self._look()
            except IngestError as exc:
                logger.info("looking for streams: %s", exc)
            except Exception:
                logger.exception("looking for streams")
            await self._sleep(self._setup.options.scan_s)

    async def _look(self) -> None:
        """Take up the session's own streams, and those that nobody holds and that have something to be delivered."""
        streams: list[LiveStream] = await self._aggregator.call("live_streams", self._setup.account)
        for stream in streams:
            if stream.lease_holder == self._setup.session_id:
                self._hold(stream)
            elif self._setup.options.adopts and await self._is_orphan(stream):
                await self._adopt(stream)
        await self._report_kept(streams)

    async def _adopt_own(self) -> None:
        for stream in await self._aggregator.call("live_streams", self._setup.account):
            if stream.lease_holder == self._setup.session_id:
                self._hold(stream)

    async def _is_orphan(self, stream: LiveStream) -> bool:
        if stream.state not in (StreamState.OPEN, StreamState.CLOSING) or stream.key in self._held:
            return False
        if stream.lease_holder is not None and stream.lease_until_s > self._clock():
            return False
        return stream.is_sealed or await asyncio.to_thread(self._spool.has, stream.key)

    async def _adopt(self, stream: LiveStream) -> None:
        with suppress(LeaseHeldError):
            await self._aggregator.call("lease_live", self._setup.session_id, stream.key)
            taken: LiveStream | None = await self._aggregator.call("live_stream", stream.key)
            if taken is not None:
                logger.info("stream %s: delivering what an earlier session left in the spool", taken.data_id)
                self._hold(taken, adopted=True)

    def _hold(self, stream: LiveStream, *, adopted: bool = False) -> None:
        held = self._held.get(stream.key)
        if held is not None:
            held.stream, held.epoch = stream, max(held.epoch, stream.epoch)
            return
        if adopted:
            self._adopted.add(stream.key)
        if stream.state not in (StreamState.OPEN, StreamState.CLOSING) or self._released:
            return
        held = self._held[stream.key] = _Held(stream)
        # A list of streams may be older than the end of an adoption: it must not make the stream this session's own.
        adopted = stream.key in self._adopted
        held.task = asyncio.get_running_loop().create_task(self._serve(held, adopted=adopted))

    async def _report_kept(self, streams: Sequence[LiveStream]) -> None:
        """Say once which spooled chunks cannot be delivered any more; they stay until someone discards them."""
        deliverable = {s.key for s in streams if s.state in (StreamState.OPEN, StreamState.CLOSING)}
        for key in await asyncio.to_thread(self._spool.keys):
            if key in deliverable or key in self._reported:
                continue
            stream: LiveStream | None = await self._aggregator.call("live_stream", key)
            if stream is not None and stream.state in (StreamState.OPEN, StreamState.CLOSING):
                continue  # begun since the list was made
            self._reported.add(key)
            if stream is not None and stream.state is StreamState.CLOSED:
                await self._remove_confirmed(key)
            chunks, n_bytes = await asyncio.to_thread(self._spool.usage_of, key)
            if chunks:
                why = "the journal does not know their stream" if stream is None else f"their stream is {stream.state}"
                reason = f" ({stream.gone_reason})" if stream is not None and stream.gone_reason else ""
                self._notice(
                    f"{chunks} chunk(s), {n_bytes} bytes, stay in the spool {self._setup.spool_folder / key}: "
                    f"{why}{reason}; see `rheed-ingest spool list`"
                )

    async def _remove_confirmed(self, key: str) -> None:
        """Remove what a crash left of a stream between the receipt and the removal."""
        digests: dict[int, str] = await self._aggregator.call("receipts_digests", key)
        for entry in await asyncio.to_thread(self._spool.entries, key):
            with suppress(SpoolError):
                label = await asyncio.to_thread(self._spool.label, entry)
                if digests.get(label.index) == label.digest:
                    await asyncio.to_thread(self._spool.remove, entry)

    def _notice(self, text: str) -> None:
        logger.warning(text)
        self._notices.append(text)

    # -- one stream ----------------------------------------------------------------------------------------------------

    async def _serve(self, held: _Held, *, adopted: bool) -> None:
        """Deliver and close one stream until it is closed or gone; an adopted one until nothing is left to do."""
        key = held.stream.key
        held.drain = self.drain_class(
            key,
            str(held.stream.data_id),
            self._outlet(held.stream),
            lambda events: self._record(key, events),
            self._tools,
            self._notice,
            lambda: self._aggregator.call("live_contents", key),
            self._parking(held.stream),
        )
        try:
            while True:
                held.poked.clear()  # before the look, so that a poke during it is not missed
                if await self._work(held):
                    break
                if adopted and not await asyncio.to_thread(self._spool.has, key):
                    await self._aggregator.call("release_live", key, held.epoch)
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._setup.options.scan_s):
                        await held.poked.wait()
        except IngestError as exc:
            self._notice(f"stream {held.stream.data_id}: {exc}")
        except Exception:
            logger.exception("stream %s", held.stream.data_id)
        finally:
            if not self._released:
                self._held.pop(key, None)

    async def _work(self, held: _Held) -> bool:
        """Work off a stream once; return whether that was its end."""
        try:
            return held.drain is not None and await held.drain.work()
        except StreamGoneError as exc:
            self._notice(f"stream {held.stream.data_id}: the platform takes nothing more: {exc}")
            return True
        except StaleEpochError:
            # Another session took over while this one was away (a laptop asleep); it gives the stream back when done.
            await self._lease_again(held)
        except (ActorLostError, SpoolError, JournalWriteError) as exc:
            logger.info("stream %s: %s", held.stream.data_id, exc)
            if held.drain is not None and not isinstance(exc, ActorLostError):
                held.drain.stalled_by = str(exc)
            await self._sleep(REST_S)
        return False

    async def _lease_again(self, held: _Held) -> None:
        try:
            await self._take_back(held)
        except LeaseHeldError as exc:
            await self._sleep(min(max(exc.until_s - self._clock(), 0.05), self._setup.options.scan_s))

    async def _take_back(self, held: _Held) -> None:
        """Lease a stream anew that another session had taken over, once however many calls failed for that."""
        async with held.leasing:
            if held.epoch <= held.stale_epoch:
                held.epoch, _ = await self._aggregator.call("lease_live", self._setup.session_id, held.stream.key)

    async def _record_own(self, key: str, event: StreamEvent) -> None:
        """Record what the producer says, which is in this session, even if another one looked after the stream."""
        held = self._held.get(key)
        if held is None:
            await self._aggregator.call("lease_live", self._setup.session_id, key)
            await self._adopt_own()
        else:
            with suppress(StaleEpochError):
                await self._record(key, [event])
                return
            await self._take_back(held)
        await self._record(key, [event])

    def _parking(self, stream: LiveStream) -> StreamParking:
        setup, key = self._setup, stream.key
        return StreamParking(
            key,
            setup.destination,
            str(stream.data_id),
            StreamFacts.of_live(key, stream.settings, str(setup.spool_folder.parent)),
            self._spool,
            self._parkings,
            lambda: self._aggregator.call("receipts_digests", key),
            options=setup.options.failover,
            telemetry=self._tools.telemetry,
        )

    def _outlet(self, stream: LiveStream) -> Outlet:
        settings = stream.settings
        kind = settings.api_generation if isinstance(settings, TimeseriesSettings) else "frames"
        if kind not in self._outlets:
            setup = self._setup
            self._outlets[kind] = (
                open_points_outlet(
                    setup.destination,
                    setup.api_key,
                    generation=settings.api_generation,
                    retry=setup.options.drain_retry,
                    max_connections=DRAIN_CONNECTIONS,
                )
                if isinstance(settings, TimeseriesSettings)
                else open_frames_outlet(
                    setup.destination,
                    setup.api_key,
                    retry=setup.options.drain_retry,
                    max_connections=DRAIN_CONNECTIONS,
                )
            )
        return self._outlets[kind]

    async def _record(self, key: str, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        held = self._held.get(key)
        if held is None:
            raise StreamerError(f"stream {key} is not this session's any more")
        epoch = held.epoch
        try:
            due: tuple[Instruction, ...] = await self._aggregator.call("record", key, epoch, list(events))
        except StaleEpochError:
            held.stale_epoch = max(held.stale_epoch, epoch)
            raise
        return due
