"""Packers of live frames: each takes pushed chunks from the object store, packs and carries them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from actors.handles import Handle
from actors.live_setup import FramesOrder, LiveSetup
from actors.live_states import direct_policy
from ingest.carrier import Acknowledgement, Carrier
from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.ledger import StreamEvent
from ingest.outlets import FramesOutlet, open_frames_outlet
from ingest.shard import pack_and_digest

__all__ = ["LivePacker"]


class LivePacker:
    """Packs and carries pushed chunks; what goes wrong comes back as a small answer.

    Parameters
    ----------
    setup : LiveSetup
        The session.
    aggregator : Handle
        Journals receipts.

    Notes
    -----
    Packs one chunk at a time while earlier ones are on their way; holds the shards of what it was asked and has not
    answered. The frames are views of the object store, freed with the answer.
    """

    carrier_class: ClassVar[type[Carrier]] = Carrier

    def __init__(self, setup: LiveSetup, aggregator: Handle) -> None:
        self._setup = setup
        self._aggregator = aggregator
        self._telemetry = setup.telemetry_of("live_packer")
        self._executor: ThreadPoolExecutor | None = None
        self._outlet: FramesOutlet | None = None
        self._carrier: Carrier | None = None

    async def ping(self) -> int:
        """Return the process id: the packer is up."""
        self._open()
        return os.getpid()

    def _open(self) -> tuple[ThreadPoolExecutor, Carrier]:
        if self._executor is None or self._carrier is None:
            setup = self._setup
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="pack")
            self._outlet = open_frames_outlet(
                setup.destination, setup.api_key, retry=direct_policy(setup.options.direct_for_s)
            )
            self._carrier = self.carrier_class(
                setup.spool(),
                self._outlet,
                self._record,
                node=f"{socket.gethostname()}/{os.getpid()}",
                direct_for_s=setup.options.direct_for_s,
                telemetry=self._telemetry,
            )
        return self._executor, self._carrier

    async def _record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> None:
        await self._aggregator.call("record", key, epoch, list(events))

    async def take(self, order: FramesOrder, frames: NDArray[np.uint8]) -> Acknowledgement:
        """Pack one chunk and make it durable. Safe to repeat.

        Parameters
        ----------
        order : FramesOrder
            What it is.
        frames : ndarray of uint8, (frame, y, x)
            Its frames, read-only.
        """
        executor, carrier = self._open()
        chunk = await asyncio.get_running_loop().run_in_executor(executor, self._pack, order, frames)
        del frames
        self._telemetry.emit("chunk_packed", order.key, order.index)
        return await carrier.carry(chunk, order.epoch)

    def _pack(self, order: FramesOrder, frames: NDArray[np.uint8]) -> EncodedChunk:
        shard, digest = pack_and_digest(frames, level=self._setup.options.level)
        label = ChunkLabel(order.key, order.data_id, order.seq, order.index, order.meta, digest)
        return EncodedChunk(label, shard, shard.crc32c())

    async def aclose(self) -> None:
        """Let go of threads and connections; the end of the process does the same. Safe to repeat."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        if self._outlet is not None:
            await self._outlet.aclose()
            self._outlet, self._carrier = None, None
