"""Stands where a packer does, with chunks that are parked instead of a source to read them from."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ingest.chunks import EncodedChunk, readdressed
from ingest.destinations import open_destination
from ingest.errors import FrameDataError, IngestError, LakeDamagedError, MissingObjectError, RefusedError
from ingest.failover import Outlets
from ingest.orders import Order, PointsOrder
from ingest.outlets import FramesOutlet, open_points_outlet
from ingest.parking import ParkedChunk, ParkedStream, Parking
from ingest.pipeline import Delivered, Failed, Lost, NotParked, Outcome, refuses_the_chunk
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry
from ingest.timeseries import TimeseriesMeta

__all__ = ["Lot", "Mover"]


@dataclass
class Lot:
    """All that is parked of one stream of a journal.

    Attributes
    ----------
    key : str
        The stream that stands for it in the journal.
    origin : str
        What that stream comes from, see `StreamOrigin`.
    streams : list of ParkedStream
        As they were parked, perhaps under keys that others replaced since.
    unfit : dict of str to str
        Why chunks cannot be delivered, by their objects' names.
    moved : int
        Chunks that were delivered now.
    """

    key: str
    origin: str
    streams: list[ParkedStream]
    unfit: dict[str, str] = field(default_factory=dict)
    moved: int = 0

    @property
    def chunks(self) -> list[ParkedChunk]:
        """All its chunks."""
        return [chunk for stream in self.streams for chunk in stream.chunks]

    def at(self, index: int) -> list[ParkedChunk]:
        """Return what is parked for a place in the stream."""
        return [chunk for chunk in self.chunks if chunk.index == index]


class Mover:
    """Delivers parked chunks; what goes wrong comes back as a small outcome.

    Parameters
    ----------
    parking : Parking
        Where they are; not closed with the mover.
    lots : sequence of Lot
        What is to be moved.
    current_key : callable
        Returns the key of the stream that stands for one now.
    api_key : Secret or None
        For platforms.
    retry : RetryPolicy
        How long one chunk is tried.
    telemetry : Telemetry
        Gets ``chunk_read`` and ``chunk_put``.
    clock : callable
        Returns Unix seconds.
    """

    def __init__(
        self,
        parking: Parking,
        lots: Sequence[Lot],
        current_key: Callable[[str], str | None],
        api_key: Secret | None,
        retry: RetryPolicy,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parking = parking
        self._lots = {lot.key: lot for lot in lots}
        self._current_key = current_key
        self._api_key = api_key
        self._retry = retry
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._node = f"{socket.gethostname()}/{os.getpid()}"
        self._outlets: dict[str, Outlets] = {}

    async def ping(self) -> int:
        """Return the process id: the mover is up."""
        return os.getpid()

    async def deliver(self, order: Order) -> Outcome:
        """Deliver the parked chunk that an order is for. Safe to repeat."""
        index = order.task.index
        reason = "it has to come from its source"
        try:
            best: EncodedChunk | None = None
            for parked in self._lot(order.key).at(index):
                chunk = await self._chunk(parked, order)
                if chunk is not None and (best is None or _lost(chunk) < _lost(best)):
                    best = chunk
                reason = self._lot(order.key).unfit.get(parked.name, reason)
            if best is not None:
                return await self._send(best, order)
        except IngestError as exc:
            return Failed(index, exc)
        return NotParked(index, reason)

    def _lot(self, key: str) -> Lot:
        """Return a stream's lot; also that of one which replaced it only now."""
        if key not in self._lots:
            for lot in list(self._lots.values()):
                if self._current_key(lot.key) == key:
                    self._lots[key] = lot
        return self._lots.get(key) or Lot(key, "", [])

    async def _chunk(self, parked: ParkedChunk, order: Order) -> EncodedChunk | None:
        """Return a chunk if it is just what the order is for."""
        lot = self._lot(order.key)
        try:
            unparked = await asyncio.to_thread(self._parking.load, parked)
            self._telemetry.emit("chunk_read", order.key, order.task.index)
            if unparked.origin != lot.origin or not _is_for(unparked.chunk, order):
                raise RefusedError(f"{parked.name} was made of another recording, or with other settings")
            return readdressed(unparked.chunk, order.key, order.data_id)
        except MissingObjectError:
            return None  # somebody else moved it just now
        except (LakeDamagedError, RefusedError, FrameDataError) as exc:
            lot.unfit[parked.name] = str(exc)
            return None

    async def _send(self, chunk: EncodedChunk, order: Order) -> Outcome:
        index = order.task.index
        try:
            delivery = await self._outlets_of(order.destination).of(chunk).deliver(chunk)
        except IngestError as exc:
            return Lost(index, str(exc)) if refuses_the_chunk(exc) else Failed(index, exc)
        self._lot(order.key).moved += 1
        self._telemetry.emit("chunk_put", order.key, index)
        return Delivered(chunk.receipt(delivery, self._node, round(self._clock() * 1000)))

    def _outlets_of(self, destination: str) -> Outlets:
        if destination not in self._outlets:
            frames = open_destination(destination, self._api_key, retry=self._retry)
            points = open_points_outlet(destination, self._api_key, retry=self._retry)
            self._outlets[destination] = Outlets(FramesOutlet(frames), points)
        return self._outlets[destination]

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        for outlets in self._outlets.values():
            await outlets.aclose()
        self._outlets.clear()


def _lost(chunk: EncodedChunk) -> int:
    """Return how many of a chunk's frames its source could not give."""
    return len(getattr(chunk.label.meta, "lost_frames", ()))


def _is_for(chunk: EncodedChunk, order: Order) -> bool:
    meta = chunk.label.meta
    if isinstance(order, PointsOrder) or isinstance(meta, TimeseriesMeta):
        return (
            isinstance(order, PointsOrder)
            and isinstance(meta, TimeseriesMeta)
            and meta.chunk_index == order.task.chunk_index
        )
    return replace(meta, lost_frames=()) == order.meta
