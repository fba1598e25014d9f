"""Delivers what waits in the spool of a destination and key, without Ray: the live dispatcher in one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from actors.aggregator import Aggregator
from actors.handles import LocalHandle
from actors.live_dispatcher import LiveDispatcher
from actors.live_setup import LiveSetup
from ingest.errors import LeaseHeldError
from ingest.journal import Journal, LiveStream
from ingest.ledger import ChunkConfirmed, ChunkLost, Instruction, Sealed, StreamClosed, StreamEvent, StreamState

__all__ = ["DeliveryProgress", "LeftStream", "SpoolDelivery", "anything_waits", "deliver_spool"]

POLL_S = 0.2

_DELIVERABLE = (StreamState.OPEN, StreamState.CLOSING)


@dataclass(frozen=True, slots=True)
class DeliveryProgress:
    """How far a delivery is.

    Attributes
    ----------
    waited, waited_bytes : int
        Chunks that waited when it began, and their bytes of disk.
    chunks, n_bytes : int
        Delivered so far.
    stalls : mapping of str to str
        What keeps streams from being delivered just now, by ``data_id``.
    """

    waited: int
    waited_bytes: int
    chunks: int
    n_bytes: int
    stalls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeftStream:
    """A stream that is not done.

    Attributes
    ----------
    key : str
        In the journal.
    data_id, name : str or None
        At its destination, and for people; None: the journal does not know it.
    chunks, n_bytes : int
        That still wait; 0: it could not be closed.
    reason : str
        Why.
    """

    key: str
    data_id: str | None
    name: str | None
    chunks: int
    n_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpoolDelivery:
    """What became of a spool.

    Attributes
    ----------
    chunks, n_bytes : int
        Delivered and journalled.
    closed : tuple of str
        ``data_id`` of each stream that was closed.
    lost : tuple of (str, int, str)
        Chunks that the platform refused for good or that were damaged: ``data_id``, index, reason. Set aside.
    left : tuple of LeftStream
        What is not done.
    abandoned : tuple of str
        ``data_id`` of each stream that is open, that nobody has, and of which nothing waits.
    """

    chunks: int
    n_bytes: int
    closed: tuple[str, ...]
    lost: tuple[tuple[str, int, str], ...]
    left: tuple[LeftStream, ...]
    abandoned: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything arrived that waited."""
        return not self.left and not self.lost


class _CountingAggregator(Aggregator):
    """An aggregator that knows what was recorded through it, which is what this delivery did."""

    def __init__(self, state_dir: str, lease_s: float) -> None:
        super().__init__(state_dir, lease_s)
        self.chunks = 0
        self.n_bytes = 0
        self.lost: dict[tuple[str, int], str] = {}
        self.closed: list[str] = []

    def record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        due = super().record(key, epoch, events)
        for event in events:
            match event:
                case ChunkConfirmed(receipt):
                    self.chunks += 1
                    self.n_bytes += receipt.n_bytes
                    self.lost.pop((key, receipt.index), None)
                case ChunkLost(index, reason):
                    self.lost[key, index] = reason
                case StreamClosed():
                    self.closed.append(key)
        return due

    @property
    def steps(self) -> int:
        """Grows with everything that was brought forward."""
        return self.chunks + len(self.lost) + len(self.closed)

    @property
    def journal(self) -> Journal:
        return self._journal

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def anything_waits(setup: LiveSetup) -> bool:
    """Return whether `deliver_spool` would have something to do, or to report. Changes nothing."""
    spool = setup.spool()
    keys = spool.keys()
    if any(spool.has(key) for key in keys):
        return True
    aggregator = _CountingAggregator(setup.state_dir, setup.options.lease_s)
    try:
        streams = aggregator.live_streams(setup.account)
        return any(stream.is_sealed and stream.state in _DELIVERABLE for stream in streams)
    finally:
        aggregator.close()


async def deliver_spool(
    setup: LiveSetup,
    *,
    retry_for_s: float,
    close_abandoned: bool = False,
    watch: Callable[[DeliveryProgress], None] = lambda _progress: None,
    stop: threading.Event | None = None,
) -> SpoolDelivery:
    """Deliver what waits in a spool, and close the streams that are sealed and whole. Safe to repeat.

    Streams that a live session has are left to it. Ends when there is nothing more to do, when nothing was delivered
    for `retry_for_s`, or when all that is left is refused by an answer, which waiting does not mend.

    Parameters
    ----------
    setup : LiveSetup
        Whose spool; its ``session_id`` takes the leases, which are given back whatever happens.
    retry_for_s : float
        See above.
    close_abandoned : bool
        Whether streams that nobody sealed and no session has are sealed with what there is of them, and closed.
    watch : callable
        Is shown the progress about five times a second.
    stop : threading.Event, optional
        Set: leave off. What is in flight is not lost: it waits in the spool still.

    Raises
    ------
    JournalError, SpoolError
        Journal or spool cannot be used.

    Notes
    -----
    Holds at most four chunks for each stream.
    """
    aggregator = _CountingAggregator(setup.state_dir, setup.options.lease_s)
    dispatcher = LiveDispatcher(setup, LocalHandle(aggregator))
    delivery = _Delivery(setup, aggregator, dispatcher, closes_abandoned=close_abandoned)
    try:
        await delivery.work(retry_for_s, watch, stop or threading.Event())
        stalls = await dispatcher.stalls()
        await dispatcher.release()
        return delivery.report(stalls)
    finally:
        await dispatcher.release()
        aggregator.close()


class _Delivery:
    """One run of a dispatcher over a spool, from outside."""

    def __init__(
        self, setup: LiveSetup, aggregator: _CountingAggregator, dispatcher: LiveDispatcher, *, closes_abandoned: bool
    ) -> None:
        self._setup = setup
        self._aggregator = aggregator
        self._dispatcher = dispatcher
        self._spool = setup.spool()
        self._closes_abandoned = closes_abandoned
        self._seen_until_s: dict[str, float] = {}

    async def work(self, retry_for_s: float, watch: Callable[[DeliveryProgress], None], stop: threading.Event) -> None:
        aggregator, keys = self._aggregator, self._spool.keys()
        waiting = [await asyncio.to_thread(self._spool.usage_of, key) for key in keys]
        waited, waited_bytes = sum(chunks for chunks, _ in waiting), sum(n_bytes for _, n_bytes in waiting)
        self._dispatcher.start()
        steps, since_s = -1, 0.0
        while not stop.is_set():
            if self._closes_abandoned:
                self._seal_abandoned()
            await self._dispatcher.idle()  # it looks for work then; whether more may come of it is seen below
            stalls = await self._dispatcher.stalls()
            watch(DeliveryProgress(waited, waited_bytes, aggregator.chunks, aggregator.n_bytes, stalls))
            if steps != aggregator.steps:
                steps, since_s = aggregator.steps, time.monotonic()
            if time.monotonic() - since_s >= retry_for_s or not await self._may_go_on(stalls):
                return
            await asyncio.sleep(POLL_S)

    def _seal_abandoned(self) -> None:
        """Say of each stream that nobody has that no more comes than what is confirmed, lost or in the spool."""
        aggregator = self._aggregator
        for stream in aggregator.live_streams(self._setup.account):
            if stream.state is StreamState.OPEN and not stream.is_sealed and not self._is_others(stream):
                with suppress(LeaseHeldError):  # another session was quicker
                    self._seal(stream)

    def _seal(self, stream: LiveStream) -> None:
        aggregator, epoch = self._aggregator, stream.epoch
        if stream.lease_holder != self._setup.session_id:
            epoch, _ = aggregator.lease_live(self._setup.session_id, stream.key)
        ledger = aggregator.journal.load(stream.key)
        spooled = (entry.index for entry in self._spool.entries(stream.key))
        aggregator.record(stream.key, epoch, [Sealed.of([*ledger.confirmed, *ledger.lost, *spooled])])

    async def _may_go_on(self, stalls: Mapping[str, str]) -> bool:
        """Whether something is left that waiting may bring forward."""
        for stream in self._aggregator.live_streams(self._setup.account):
            if stream.state not in _DELIVERABLE:
                continue
            waits = await asyncio.to_thread(self._spool.has, stream.key)
            is_due = waits or (not self._missing(stream) if stream.is_sealed else self._closes_abandoned)
            if self._is_others(stream):
                # Whoever renews it is alive; the lease of a dead one ends, and then it is ours to deliver.
                first_s = self._seen_until_s.setdefault(stream.key, stream.lease_until_s)
                if is_due and stream.lease_until_s <= first_s:
                    return True
            elif is_due:
                is_stalled = str(stream.data_id) in stalls
                if not is_stalled or not (await self._dispatcher.progress(stream.key)).is_refused:
                    return True
        return False

    def _is_others(self, stream: LiveStream) -> bool:
        is_ours = stream.lease_holder in (None, self._setup.session_id)
        return not is_ours and stream.lease_until_s > time.time()

    def _missing(self, stream: LiveStream) -> int:
        return len(self._aggregator.journal.load(stream.key).missing())

    def report(self, stalls: Mapping[str, str]) -> SpoolDelivery:
        """Return what was done and what is left; after the leases were given back."""
        aggregator = self._aggregator
        journal = aggregator.journal
        streams = [s for s in journal.live_streams(self._setup.account) if s.state in _DELIVERABLE]
        due = [
            stream.key for stream in streams if stream.is_sealed or (self._closes_abandoned and self._is_others(stream))
        ]
        left = []
        for key in dict.fromkeys((*self._spool.keys(), *due)):
            chunks, n_bytes = self._spool.usage_of(key)
            stream = journal.live_stream(key)
            if chunks or key in due:
                name = None if stream is None else stream.settings.name
                data_id = None if stream is None else stream.data_id
                left.append(LeftStream(key, data_id, name, chunks, n_bytes, self._reason(stream, chunks, stalls)))
        return SpoolDelivery(
            aggregator.chunks,
            aggregator.n_bytes,
            tuple(self._data_id(key) for key in aggregator.closed),
            tuple((self._data_id(key), index, reason) for (key, index), reason in sorted(aggregator.lost.items())),
            tuple(left),
            tuple(
                str(stream.data_id)
                for stream in streams
                if not stream.is_sealed and not self._is_others(stream) and not self._spool.has(stream.key)
            ),
        )

    def _data_id(self, key: str) -> str:
        stream = self._aggregator.journal.live_stream(key)
        return key if stream is None or stream.data_id is None else stream.data_id

    def _reason(self, stream: LiveStream | None, chunks: int, stalls: Mapping[str, str]) -> str:
        if stream is None:
            return f"the journal in {self._setup.state_dir} does not know their stream"
        if stream.state is StreamState.GONE:
            return f"the platform takes nothing more: {stream.gone_reason}"
        if stream.state not in _DELIVERABLE:
            return f"their stream is {stream.state}"
        if self._is_others(stream):
            return f"session {stream.lease_holder} has the stream, and delivers it"
        missing = 0 if chunks else self._missing(stream)
        if missing:
            return f"it is sealed, and {missing} chunk(s) are neither confirmed nor lost nor in the spool"
        return stalls.get(str(stream.data_id), "there was no time")
