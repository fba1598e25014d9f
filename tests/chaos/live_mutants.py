"""Ways for a live session to be wrong, each of which the oracle must catch; and the real thing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from actors.aggregator import Aggregator
from actors.live_actors import LiveActorClasses
from actors.live_dispatcher import LiveDispatcher
from actors.live_packer import LivePacker
from actors.live_setup import FramesOrder, LiveSetup
from actors.live_states import LiveTimeseriesState, PointsItem
from ingest.carrier import Acknowledgement, Carrier, Spooled
from ingest.chunks import EncodedChunk
from ingest.drain import Drain
from ingest.journal import Journal, LiveStream
from ingest.ledger import CloseStream, StreamLedger, StreamState
from ingest.spool import Spool, SpooledChunk


class _MutantPacker(LivePacker):
    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))


class _MutantDispatcher(LiveDispatcher):
    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))
        self.start()


class HastyCarrier(Carrier):
    """Answers before anything is durable, and makes it durable afterwards."""

    async def carry(self, chunk: EncodedChunk, epoch: int) -> Acknowledgement:
        self._later = asyncio.get_running_loop().create_task(self._carry_later(chunk, epoch))
        return Spooled(chunk.label.index)

    async def _carry_later(self, chunk: EncodedChunk, epoch: int) -> None:
        await asyncio.sleep(0.3)
        self._telemetry.emit("late_carry", chunk.label.key, chunk.label.index)
        await super().carry(chunk, epoch)


class HastyPacker(_MutantPacker):
    carrier_class = HastyCarrier


class ForgetfulSpool(Spool):
    """Forgets a chunk as soon as it was read."""

    def load(self, spooled: SpooledChunk) -> EncodedChunk:
        chunk = super().load(spooled)
        super().remove(spooled)
        return chunk


class ForgetfulDispatcher(_MutantDispatcher):
    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup)
        self._spool = ForgetfulSpool(setup.spool_folder, setup.destination, setup.options.spool_limits)
        self._tools = replace(self._tools, spool=self._spool)


class HastyDrain(Drain):
    """Closes as soon as that is due, whatever the spool still has."""

    async def work(self) -> bool:
        while True:
            await asyncio.sleep(1.0)
            if any(isinstance(step, CloseStream) for step in await self._record([])):
                await self._persist(self._close)
                return True
            if not await self._persist(self._pass):
                return False


class SealedIsWholeLedger(StreamLedger):
    """Takes a seal for the receipts."""

    def missing(self) -> tuple[int, ...]:
        return ()

    def is_whole(self) -> bool:
        return self.expected is not None


class _SealedIsWholeJournal(Journal):
    def load(self, key: str) -> StreamLedger:
        return SealedIsWholeLedger(**vars(super().load(key)))


class SealedIsWholeAggregator(Aggregator):
    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = _SealedIsWholeJournal(self._state_dir, self._clock)
        return self._opened


class HastyDispatcher(_MutantDispatcher):
    drain_class = HastyDrain


class FlippedBytePacker(_MutantPacker):
    """One byte of one frame is wrong."""

    def _pack(self, order: FramesOrder, frames: NDArray[np.uint8]) -> EncodedChunk:
        if order.index == 3:
            frames = frames.copy()
            frames[0, 5, 5] ^= 1
        return super()._pack(order, frames)


class SwappedPacker(_MutantPacker):
    """Chunks 2 and 3 lie in each other's place."""

    def _pack(self, order: FramesOrder, frames: NDArray[np.uint8]) -> EncodedChunk:
        return super()._pack(replace(order, index={2: 3, 3: 2}.get(order.index, order.index)), frames)


class ShiftedPointsState(LiveTimeseriesState):
    """One digit of one request's points is another one."""

    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))

    async def carry(self, key: str, items: Sequence[PointsItem]) -> list[Acknowledgement]:
        return await super().carry(key, [self._shifted(item) if item.seq == 3 else item for item in items])

    @staticmethod
    def _shifted(item: PointsItem) -> PointsItem:
        head, values, tail = item.body.partition(b'"values":[')
        place = next(number for number, byte in enumerate(tail) if byte in b"12345678")
        return replace(item, body=head + values + tail[:place] + bytes([tail[place] ^ 1]) + tail[place + 1 :])


class _UnleasedJournal(Journal):
    def _refuse_held(self, row: object) -> None:
        """Let everybody have every lease."""


class UnleasedAggregator(Aggregator):
    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = _UnleasedJournal(self._state_dir, self._clock)
        return self._opened


class ThievishDispatcher(_MutantDispatcher):
    """Takes the first open stream that another session has, once."""

    _has_stolen = False

    async def _is_orphan(self, stream: LiveStream) -> bool:
        stolen, self._has_stolen = self._has_stolen, self._has_stolen or stream.state is StreamState.OPEN
        return stream.state is StreamState.OPEN and not stolen


LIVE_MUTANTS = {
    "none": LiveActorClasses(),
    "acknowledged before it is durable": LiveActorClasses(live_packer=HastyPacker),
    "removed before its receipt": LiveActorClasses(live_dispatcher=ForgetfulDispatcher),
    "closed without waiting for the spool": LiveActorClasses(
        aggregator=SealedIsWholeAggregator, live_dispatcher=HastyDispatcher
    ),
    "one flipped byte": LiveActorClasses(live_packer=FlippedBytePacker),
    "two chunks swapped": LiveActorClasses(live_packer=SwappedPacker),
    "one digit of the points": LiveActorClasses(timeseries_streamer=ShiftedPointsState),
    "a live session's lease ignored": LiveActorClasses(
        aggregator=UnleasedAggregator, live_dispatcher=ThievishDispatcher
    ),
}
