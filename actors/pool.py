"""Packers to choose from: the least busy one that has not just failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from actors.handles import ActorLostError, Handle

__all__ = ["PackerPool"]

logger = logging.getLogger("rheed_ingest")

QUARANTINE_S = 1.5
"""A killed packer's calls fail for 1.2 to 2 s until Ray has restarted it (RAY.md 1a)."""


class PackerPool:
    """Gives each order to a packer, and to another one if that packer is lost.

    Parameters
    ----------
    spawn : callable
        Makes the packer of a number.
    packers : int
        How many.
    orders_per_packer : int
        How many orders one packer has at once.
    sleep : callable
        asyncio's.
    """

    def __init__(
        self,
        spawn: Callable[[int], Handle],
        packers: int,
        orders_per_packer: int,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._spawn = spawn
        self._handles: dict[int, Handle] = {}
        self._busy = dict.fromkeys(range(packers), 0)
        self._limit = orders_per_packer
        self._resting: set[int] = set()
        self._sleep = sleep
        self._changed = asyncio.Condition()
        self._rests: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Make all packers now, so that they start while the first stream is created."""
        for number in self._busy:
            self._handle(number)

    def _handle(self, number: int) -> Handle:
        if number not in self._handles:
            self._handles[number] = self._spawn(number)
        return self._handles[number]

    async def ask(self, method: str, order: Any) -> Any:
        """Have some packer do it; a lost packer is no answer, so it is asked of another, for as long as it takes."""
        while True:
            number = await self._take()
            try:
                handle = self._handle(number)
                return await handle.call(method, order)
            except ActorLostError as exc:
                logger.info("packer %d: %s; its chunk goes to another", number, exc)
                if exc.for_ever and self._handles.get(number) is handle:  # and not one that took its place since
                    self._handles.pop(number, None)
                self._rest(number)
            finally:
                await self._give(number)

    async def _take(self) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._free() is not None)
            number = self._free()
            if number is None:
                raise RuntimeError("a free packer was promised")
            self._busy[number] += 1
            return number

    def _free(self) -> int | None:
        free = [(busy, n) for n, busy in self._busy.items() if n not in self._resting and busy < self._limit]
        return min(free)[1] if free else None

    async def _give(self, number: int) -> None:
        async with self._changed:
            self._busy[number] -= 1
            self._changed.notify_all()

    def _rest(self, number: int) -> None:
        if number in self._resting:
            return
        self._resting.add(number)
        task = asyncio.get_running_loop().create_task(self._wake(number))
        self._rests.add(task)
        task.add_done_callback(self._rests.discard)

    async def _wake(self, number: int) -> None:
        await self._sleep(QUARANTINE_S)
        async with self._changed:
            self._resting.discard(number)
            self._changed.notify_all()
