"""Receipts on their way to the aggregator: as many in one call as came while the last was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ingest.ledger import StreamEvent

__all__ = ["Outbox"]


class Outbox:
    """Sends events in batches, one call at a time, in the background.

    Parameters
    ----------
    send : coroutine function
        Takes a list of events; what it raises stops the outbox and is raised by `flush`.

    Attributes
    ----------
    error : Exception or None
        What stopped it.
    """

    def __init__(self, send: Callable[[list[StreamEvent]], Awaitable[object]]) -> None:
        self._send = send
        self._waiting: list[StreamEvent] = []
        self._sending: asyncio.Task[None] | None = None
        self.error: Exception | None = None

    def add(self, event: StreamEvent) -> None:
        """Have `event` sent soon."""
        self._waiting.append(event)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def flush(self) -> None:
        """Wait until everything is sent; raise what stopped it."""
        while self._sending is not None:
            await asyncio.wait([self._sending])
        if self.error is not None:
            raise self.error

    async def _send_all(self) -> None:
        try:
            while self._waiting and self.error is None:
                batch, self._waiting = self._waiting, []
                await self._send(batch)
        except Exception as exc:  # noqa: BLE001 - whatever it is, flush must not say that all was sent
            self.error = exc
        finally:
            self._sending = None
