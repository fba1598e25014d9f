"""Packers: stateless, many; each reads its own slice, packs and delivers it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from functools import partial
from typing import ClassVar

from ingest.allocator import keep_freed_memory
from ingest.destinations import NULL_URL, open_destination
from ingest.errors import IngestError
from ingest.failover import Breaker, Failover, FailoverOptions, Outlets
from ingest.lake.opening import open_store
from ingest.orders import Order, StreamFacts
from ingest.outlets import FramesOutlet, open_points_outlet
from ingest.packing import PackRoom
from ingest.parking import Parking
from ingest.pipeline import Outcome, Pipeline
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry
from ingest.verify.work import VerifyOrder, VerifyOutcome
from ingest.verify.worker import VerifyWorker

__all__ = ["Packer"]


class Packer:
    """Delivers chunks; what goes wrong comes back as a small outcome.

    Parameters
    ----------
    api_key : Secret or None
        For platforms.
    retry : RetryPolicy
        How long one chunk is tried.
    level : int
        zstd level.
    telemetry : Telemetry
        Gets the pipeline's events.
    failover : FailoverOptions, optional
        Where chunks wait for a destination that does not answer.

    Notes
    -----
    Two orders at once keep the processor busy while the network works; then it holds two chunks and two shards at most,
    with several destinations also what `PackRoom` keeps for the others.
    Files and connections are opened by the first order, in the process that uses them.
    """

    pipeline_class: ClassVar[type[Pipeline]] = Pipeline
    room_class: ClassVar[type[PackRoom]] = PackRoom

    def __init__(
        self,
        api_key: Secret | None,
        retry: RetryPolicy,
        level: int,
        telemetry: Telemetry | None = None,
        failover: FailoverOptions | None = None,
    ) -> None:
        self._api_key = api_key
        self._retry = retry
        self._failover = failover
        self._level = level
        self._telemetry = telemetry or Telemetry()
        self._room: PackRoom | None = None
        self._pipelines: dict[str, Pipeline] = {}
        self._verifier: VerifyWorker | None = None

    def _pipeline(self, destination: str) -> Pipeline:
        if self._room is None:
            keep_freed_memory()
            self._room = self.room_class(self._level, telemetry=self._telemetry)
        if destination not in self._pipelines:
            outlets = self._outlets(destination, self._failover.primary(self._retry) if self._failover else self._retry)
            self._pipelines[destination] = self.pipeline_class(
                outlets.frames.destination,
                points=outlets.points,
                room=self._room,
                failover=self._failover_of(destination),
                node=f"{socket.gethostname()}/{os.getpid()}",
                telemetry=self._telemetry,
            )
        return self._pipelines[destination]

    def _outlets(self, destination: str, retry: RetryPolicy) -> Outlets:
        frames = FramesOutlet(open_destination(destination, self._api_key, retry=retry))
        if destination == NULL_URL:
            return Outlets(frames)
        return Outlets(frames, open_points_outlet(destination, self._api_key, retry=retry))

    def _failover_of(self, destination: str) -> Failover | None:
        options = self._failover
        if options is None:
            return None
        parking = Parking(open_store(options.url, retry=self._retry))
        once = replace(self._retry, retry_for_s=0.0)
        probe = partial(self._outlets, destination, once)
        return Failover(parking, destination, Breaker(options.probe_every_s), probe)

    async def ping(self) -> int:
        """Return the process id: the packer is up."""
        return os.getpid()

    async def deliver(self, order: Order) -> Outcome:
        """Read, pack and deliver one chunk of frames, or one request of readings. Safe to repeat."""
        return await self._pipeline(order.destination).run(order)

    async def note(self, destination: str, key: str, data_id: str | None, facts: StreamFacts) -> None:
        """Leave word at the failover of a stream that has to be closed later. Safe to repeat.

        Raises
        ------
        DestinationError
            What the failover says.
        """
        await self._pipeline(destination).note(key, data_id, facts)

    async def aclose(self) -> None:
        """Let go of connections; the end of the process does the same. Safe to repeat."""
        for pipeline in self._pipelines.values():
            await pipeline.aclose()
        self._pipelines.clear()
        if self._room is not None:
            self._room.close()
            self._room = None
        if self._verifier is not None:
            await self._verifier.aclose()
            self._verifier = None

    async def digest(self, order: Order) -> str | IngestError:
        """Return the digest of a chunk's frames, or why it cannot be read; sends nothing."""
        return await self._pipeline(order.destination).digest(order)

    def _verifying(self) -> VerifyWorker:
        if self._verifier is None:
            self._verifier = VerifyWorker(self._api_key, self._retry, self._level)
        return self._verifier

    async def verify(self, order: VerifyOrder) -> VerifyOutcome:
        """Compare what a destination holds with the source, or with its manifest; changes nothing. Safe to repeat."""
        return await self._verifying().verify(order)

    async def mend(self, order: VerifyOrder) -> VerifyOutcome:
        """Write anew what differs. Safe to repeat."""
        return await self._verifying().mend(order)
