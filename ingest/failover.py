"""What a worker does with a chunk whose destination does not answer: has it wait elsewhere, and asks again later."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from ingest.chunks import EncodedChunk
from ingest.errors import DestinationError, SettingsError, UnreachableError
from ingest.orders import Order, StreamFacts
from ingest.outlets import FramesOutlet, Outlet, PointsOutlet
from ingest.parking import Parking
from ingest.retry import RetryPolicy
from ingest.timeseries import TimeseriesMeta
from ingest.wire.models import Delivery

__all__ = ["FAILOVER_AFTER_S", "Breaker", "Failover", "FailoverOptions", "Outlets"]

T = TypeVar("T")
FAILOVER_AFTER_S = 60.0
PROBE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class FailoverOptions:
    """Where a job's chunks wait, and when; small, and pickles.

    Attributes
    ----------
    url : str
        Canonical URL of a store.
    after_s : float
        How long a destination is tried before its chunks wait.
    probe_every_s : float
        How often it is then tried again.
    state : str or None
        Folder of the journal, where the user named one.
    """

    url: str
    after_s: float = FAILOVER_AFTER_S
    probe_every_s: float = PROBE_EVERY_S
    state: str | None = None

    @property
    def hint(self) -> str:
        """What moves over what waits."""
        state = [] if self.state is None else ["--state", self.state]
        command = shlex.join(["rheed-ingest", "reconcile", self.url, *state])
        return f"`{command}` moves them over once the destination answers"

    def primary(self, retry: RetryPolicy) -> RetryPolicy:
        """Return how long a destination is tried, given how long it would be without a failover."""
        return replace(retry, retry_for_s=min(retry.retry_for_s, self.after_s))


@dataclass(frozen=True, slots=True)
class Outlets:
    """The ways to one destination.

    Attributes
    ----------
    frames : FramesOutlet
        For frames.
    points : PointsOutlet or None
        For readings, where it takes any.
    """

    frames: FramesOutlet
    points: PointsOutlet | None = None

    def of(self, chunk: EncodedChunk) -> Outlet:
        """Return the way for a chunk.

        Raises
        ------
        SettingsError
            The destination takes none of its kind.
        """
        if not isinstance(chunk.label.meta, TimeseriesMeta):
            return self.frames
        if self.points is None:
            raise SettingsError(f"{chunk.label.text} of stream {chunk.label.key}: its destination takes no readings")
        return self.points

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        await self.frames.aclose()
        if self.points is not None:
            await self.points.aclose()


class Breaker:
    """Remembers that a destination did not answer, so that not every chunk waits for it again.

    Parameters
    ----------
    rest_s : float
        Time between two tries while it does not answer.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    reason : str or None
        What it failed of; None: it answers, as far as is known.
    """

    def __init__(self, rest_s: float = PROBE_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._next_s = 0.0
        self.reason: str | None = None

    def admits(self) -> bool:
        """Return whether to try the destination; while it does not answer, one caller each `rest_s` is told so."""
        if self.reason is None:
            return True
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + self._rest_s
        return True

    async def guard(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call to the destination, and remember whether it answered.

        Raises
        ------
        UnreachableError
            It did not.
        DestinationError
            It did, with a no.
        """
        try:
            result = await call()
        except UnreachableError as exc:
            self.reason = str(exc)
            self._next_s = self._clock() + self._rest_s
            raise
        except DestinationError:
            self.reason = None
            raise
        self.reason = None
        return result


class Failover:
    """Delivers chunks to one destination, or parks them; one for each event loop.

    Parameters
    ----------
    parking : Parking
        Where chunks wait.
    destination : str
        Canonical URL of where they belong.
    breaker : Breaker
        The destination's.
    probe : callable
        Makes outlets to the same destination that try once: while it does not answer, an order is held up by no more
        than one attempt.
    """

    def __init__(self, parking: Parking, destination: str, breaker: Breaker, probe: Callable[[], Outlets]) -> None:
        self._parking = parking
        self._destination = destination
        self._breaker = breaker
        self._open_probe = probe
        self._opened: Outlets | None = None
        self._noted: set[tuple[str, str]] = set()

    async def deliver(self, order: Order, chunk: EncodedChunk, outlet: Outlet) -> Delivery | str:
        """Deliver a chunk, or park it and say why. Safe to repeat.

        Parameters
        ----------
        order : Order
            What was asked for; without a ``data_id``, it is parked.
        chunk : EncodedChunk
            The chunk.
        outlet : Outlet
            To the destination, with its retries.

        Raises
        ------
        UnreachableError
            Neither the destination nor the failover takes it; names both.
        DestinationError
            Another answer of the destination's.
        """
        # Not what the breaker says in the end: another chunk may have been answered meanwhile.
        reason = "its stream could not be created"
        if order.data_id and self._breaker.admits():
            tried = outlet if self._breaker.reason is None else self._probe(chunk)
            try:
                return await self._breaker.guard(lambda: tried.deliver(chunk))
            except UnreachableError as exc:
                reason = str(exc)
        elif order.data_id:
            reason = self._breaker.reason or reason
        try:
            await asyncio.to_thread(self._park, order, chunk)
        except DestinationError as exc:
            raise UnreachableError(
                f"{reason}; and the failover takes nothing either: {exc}",
                hint=exc.hint or "run the same command again once one of them answers: it resumes",
            ) from exc
        return reason

    def _probe(self, chunk: EncodedChunk) -> Outlet:
        self._opened = self._opened or self._open_probe()
        return self._opened.of(chunk)

    def _park(self, order: Order, chunk: EncodedChunk) -> None:
        facts = order.stream
        if facts is None:
            raise UnreachableError(
                f"chunk {order.task.index} of stream {order.key} cannot wait: its order names no stream"
            )
        if (order.key, order.data_id) not in self._noted:
            self._parking.put_note(self._destination, order.key, order.data_id or None, facts)
            self._noted.add((order.key, order.data_id))
        self._parking.put(self._destination, chunk, facts)

    async def note(self, key: str, data_id: str | None, facts: StreamFacts) -> None:
        """Leave word of a stream that has to be closed later; raises what the failover says. Safe to repeat."""
        await asyncio.to_thread(self._parking.put_note, self._destination, key, data_id, facts)

    async def aclose(self) -> None:
        """Let go of connections, and end what still waits for the failover. Safe to repeat."""
        self._parking.close()
        if self._opened is not None:
            await self._opened.aclose()
