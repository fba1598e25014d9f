"""Makes a live chunk durable: delivered and journalled while the network is quick, else in the spool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ingest.chunks import EncodedChunk
from ingest.errors import IngestError, SpoolError
from ingest.ledger import ChunkConfirmed, ChunkLost
from ingest.outlets import Outlet
from ingest.pipeline import Delivered, Failed, Lost, refuses_the_chunk
from ingest.spool import Spool
from ingest.telemetry import Telemetry

__all__ = ["Acknowledgement", "Carrier", "RecordEvents", "Spooled"]

DIRECT_FOR_S = 1.0
PAUSE_S = 5.0
MAX_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Spooled:
    """The chunk is fsynced in the spool, whose dispatcher delivers it."""

    index: int


Acknowledgement = Delivered | Spooled | Lost | Failed
"""What became of a chunk; all but `Failed` are durable answers, after which its producer may forget it."""

RecordEvents = Callable[[str, int, Sequence[ChunkConfirmed | ChunkLost]], Awaitable[object]]
"""Commits events of a stream (its key, the lease's epoch, the events) to the journal."""


class Carrier:
    """Takes encoded chunks and answers when they are durable, within a second or a disk's time, network or not.

    A chunk goes to the destination directly as long as nothing of its stream waits in the spool and the network keeps
    up; when an attempt takes longer than `direct_for_s` the chunk is spooled, and so are those of the next 5 s, which
    double with each further such attempt up to 5 minutes. So a fast network costs no disk, and a slow one no waiting.

    Parameters
    ----------
    spool : Spool
        Where chunks wait.
    outlet : Outlet
        Where they go; its retry policy should not outlast `direct_for_s`.
    record : RecordEvents
        Journals receipts and losses.
    node : str
        Written into receipts.
    direct_for_s : float, default 1
        How long a direct delivery may take; 0: everything is spooled.
    telemetry : Telemetry
        Gets ``chunk_put`` and ``chunk_spooled``.
    clock, monotonic : callable
        Unix and monotonic seconds.

    Notes
    -----
    For one event loop. Holds what it is given until it answers.
    """

    def __init__(
        self,
        spool: Spool,
        outlet: Outlet,
        record: RecordEvents,
        *,
        node: str = "",
        direct_for_s: float = DIRECT_FOR_S,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._outlet = outlet
        self._record = record
        self._node = node
        self._direct_for_s = direct_for_s
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._monotonic = monotonic
        self._paused_until_s = float("-inf")
        self._pause_s = PAUSE_S

    async def carry(self, chunk: EncodedChunk, epoch: int) -> Acknowledgement:
        """Make one chunk durable; what goes wrong is an answer, never an exception. Safe to repeat.

        Parameters
        ----------
        chunk : EncodedChunk
            What to carry.
        epoch : int
            Of the lease of its stream; when that was taken over, the chunk is spooled for whoever has it now.
        """
        return (await self.carry_many([chunk], epoch))[0]

    async def carry_many(self, chunks: Sequence[EncodedChunk], epoch: int) -> list[Acknowledgement]:
        """Make chunks of one stream durable, as `carry`, with one commit and one fsync of the spool's folder for all.

        No two of them may be versions of the same chunk.
        """
        direct = self._goes_directly(chunks[0].label.key) if chunks else False
        outcomes: list[Acknowledgement | None] = [None] * len(chunks)
        if direct:
            began_s = self._monotonic()
            outcomes = list(await asyncio.gather(*(self._deliver(chunk) for chunk in chunks)))
            outcomes = await self._journalled(chunks, outcomes, epoch)
            self._learn(all(outcomes), self._monotonic() - began_s)
        left = [chunk for chunk, outcome in zip(chunks, outcomes, strict=True) if outcome is None]
        spooled = iter(await asyncio.to_thread(self._put, left) if left else [])
        return [outcome if outcome is not None else next(spooled) for outcome in outcomes]

    def _goes_directly(self, key: str) -> bool:
        if self._direct_for_s <= 0 or self._monotonic() < self._paused_until_s:
            return False
        try:
            return not self._spool.has(key)
        except SpoolError:
            return False  # whatever waits there must not be overtaken

    def _learn(self, quick: bool, seconds: float) -> None:
        if quick and seconds < self._direct_for_s:
            self._pause_s = PAUSE_S
            return
        self._paused_until_s = self._monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)

    async def _deliver(self, chunk: EncodedChunk) -> Acknowledgement | None:
        """Deliver within the time for it; None: not delivered, and not refused for good."""
        label = chunk.label
        try:
            async with asyncio.timeout(self._direct_for_s):
                delivery = await self._outlet.deliver(chunk)
        except TimeoutError:
            return None
        except IngestError as exc:
            # What concerns the stream, not this chunk, is for the dispatcher to find out and report.
            return Lost(label.index, f"{label.text}: {exc}") if refuses_the_chunk(exc) else None
        self._telemetry.emit("chunk_put", label.key, label.index)
        return Delivered(chunk.receipt(delivery, self._node, round(self._clock() * 1000)))

    async def _journalled(
        self, chunks: Sequence[EncodedChunk], outcomes: Sequence[Acknowledgement | None], epoch: int
    ) -> list[Acknowledgement | None]:
        events = [_event(outcome) for outcome in outcomes if isinstance(outcome, Delivered | Lost)]
        if not events:
            return list(outcomes)
        try:
            await self._record(chunks[0].label.key, epoch, events)
        except IngestError:
            # Delivered, but nobody can know it: the spool keeps it until a receipt is in the journal.
            return [None] * len(outcomes)
        return list(outcomes)

    def _put(self, chunks: Sequence[EncodedChunk]) -> list[Acknowledgement]:
        try:
            self._spool.put_many(chunks)
        except SpoolError as exc:
            return [Failed(chunk.label.index, exc) for chunk in chunks]
        for chunk in chunks:
            self._telemetry.emit("chunk_spooled", chunk.label.key, chunk.label.index)
        return [Spooled(chunk.label.index) for chunk in chunks]


def _event(outcome: Delivered | Lost) -> ChunkConfirmed | ChunkLost:
    match outcome:
        case Delivered(receipt):
            return ChunkConfirmed(receipt)
        case Lost(index, reason):
            return ChunkLost(index, reason)
