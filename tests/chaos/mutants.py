"""Five ways to be wrong, each of which the oracle must catch; and the real thing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from actors.aggregator import Aggregator
from actors.job import ActorClasses
from actors.packer import Packer
from ingest.journal import Journal
from ingest.ledger import Receipt, StreamLedger
from ingest.orders import ChunkOrder
from ingest.packing import PackRoom
from ingest.pipeline import Pipeline


class ReceiptFirstPipeline(Pipeline):
    """Answers before the PUT, and puts afterwards."""

    async def _frames(self, order: ChunkOrder):
        packed = await self._room.packed(order)
        shard, digest = packed.shard, packed.digest
        self._later = asyncio.get_running_loop().create_task(self._put_later(order, shard))
        meta = order.meta
        return Receipt(
            order.task.index, meta.frames, meta.start_unix_ms_utc, meta.end_unix_ms_utc, shard.n_bytes,
            shard.crc32c(), digest, None, 1, "mutant", 0,
        )  # fmt: skip

    async def _put_later(self, order: ChunkOrder, shard) -> None:
        await asyncio.sleep(0.3)
        self._telemetry.emit("late_put", order.key, order.task.index)
        await self._destination.deliver(order.data_id, order.task.index, order.meta, shard)


class FlippedByteRoom(PackRoom):
    """One byte of one frame is wrong."""

    def _read(self, order: ChunkOrder, memory):
        frames, lost = super()._read(order, memory)
        if order.task.index == 1:
            frames[0, 5, 5] ^= 1
        return frames, lost


class SwappedRoom(PackRoom):
    """Chunks 1 and 2 carry each other's frames."""

    def _read(self, order: ChunkOrder, memory):
        n, shift = order.task.frames, {1: 1, 2: -1}.get(order.task.index, 0)
        start = order.task.start + shift * n
        return super()._read(replace(order, task=replace(order.task, start=start, stop=start + n)), memory)


class ReceiptFirstPacker(Packer):
    pipeline_class = ReceiptFirstPipeline


class FlippedBytePacker(Packer):
    room_class = FlippedByteRoom


class SwappedPacker(Packer):
    room_class = SwappedRoom


class UnfencedJournal(Journal):
    def check_epoch(self, key: str, epoch: int) -> None:
        """Let every epoch pass."""


class UnfencedAggregator(Aggregator):
    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = UnfencedJournal(self._state_dir, self._clock)
        return self._opened

    def _check_epoch(self, ledger: StreamLedger, epoch: int) -> None:
        """Let every epoch pass."""


class EarlyLedger(StreamLedger):
    """Forgets the last chunk."""

    def missing(self) -> tuple[int, ...]:
        return tuple(index for index in super().missing() if index != (self.expected or 0) - 1)

    def is_whole(self) -> bool:
        return self.expected is not None and not self.missing()


class EarlyJournal(Journal):
    def load(self, key: str) -> StreamLedger:
        ledger = super().load(key)
        return EarlyLedger(**vars(ledger))


class EarlyAggregator(Aggregator):
    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = EarlyJournal(self._state_dir, self._clock)
        return self._opened


MUTANTS = {
    "none": ActorClasses(),
    "receipt before PUT": ActorClasses(packer=ReceiptFirstPacker),
    "fencing off": ActorClasses(aggregator=UnfencedAggregator),
    "early close": ActorClasses(aggregator=EarlyAggregator),
    "one flipped byte": ActorClasses(packer=FlippedBytePacker),
    "two chunks swapped": ActorClasses(packer=SwappedPacker),
}
