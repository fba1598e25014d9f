"""Packers to choose from: the least busy one of those that are up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from actors.handles import ActorLostError, Handle
from ingest.errors import ClusterError, IngestError

__all__ = ["PackerPool"]

logger = logging.getLogger("rheed_ingest")

REST_S = 0.5
"""Between two looks at a lost packer: its calls fail for 1.2 to 2 s until Ray has restarted it (RAY.md 1a)."""
START_TIMEOUT_S = 120.0
NEAR_KEPT = 10_000
LOSSES_LIMIT = 6
"""An order that ended so many packers, one after the other, is what ends them."""


class PackerPool:
    """Gives each order to a packer that is up, and to another one if that packer is lost.

    Parameters
    ----------
    spawn : callable
        Makes the packer of a number.
    packers : int
        How many.
    orders_per_packer : int
        How many orders of one group a packer has at once.
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
        self._busy_of: Counter[tuple[int, Hashable]] = Counter()
        self._near: OrderedDict[Hashable, int] = OrderedDict()
        self._limit = orders_per_packer
        self._up: set[int] = set()
        self._lanes: dict[Hashable, int] = {}
        self._sleep = sleep
        self._changed = asyncio.Condition()
        self._starts: dict[int, asyncio.Task[None]] = {}
        self._last_start_error: IngestError | None = None

    def start(self) -> None:
        """Make all packers now, so that they start while the first stream is created. Safe to repeat."""
        for number in self._busy:
            if number not in self._up and number not in self._starts:
                self._begin(number, 0.0)

    async def wait_up(self) -> None:
        """Wait until every packer that is starting is up. Safe to repeat."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._up) == len(self._busy))

    def stop(self) -> None:
        """Wait for no packer any more."""
        for task in self._starts.values():
            task.cancel()

    @property
    def size(self) -> int:
        """How many packers there are."""
        return len(self._busy)

    def forget(self, lane: Hashable) -> None:
        """Let a lane's packer go. Safe to repeat."""
        self._lanes.pop(lane, None)

    async def ask(
        self, method: str, *order: Any, lane: Hashable = None, near: Hashable = None, group: Hashable = None
    ) -> Any:
        """Have some packer do it; a lost packer is no answer, so it is then asked of another.

        Parameters
        ----------
        method : str
            Of the packer.
        order
            Its arguments.
        lane : hashable, optional
            Orders of one lane go to one packer, as long as that is up: it has the file open at the right place.
        near : hashable, optional
            Orders near each other go to one packer while it is up; without lanes.
        group : hashable, optional
            Orders of one group, such as those for one destination, leave packers free for those of others.

        Raises
        ------
        ClusterError
            No packer starts in two minutes, or the order ended six packers: whatever does that would end them all.
        IngestError
            What the packer raised.
        """
        self.start()
        for losses in range(1, LOSSES_LIMIT + 1):
            number = await self._take(lane, near, group)
            handle = self._handles[number]
            try:
                return await handle.call(method, *order)
            except ActorLostError as exc:
                logger.info("packer %d: %s; its order goes to another", number, exc)
                if self._handles.get(number) is handle and number in self._up:  # and not one that took its place since
                    self._up.discard(number)
                    if exc.for_ever:
                        self._handles.pop(number)
                    self._begin(number, REST_S)
                if losses == LOSSES_LIMIT:
                    raise ClusterError(
                        f"{losses} packers ended while they worked on it: {exc}",
                        hint="the file may crash its reader, or memory may be short; try with --packers 1",
                    ) from exc
            finally:
                await self._give(number, group)
        raise ClusterError("no packer took it")

    async def _take(self, lane: Hashable, near: Hashable, group: Hashable) -> int:
        async with self._changed:
            while (number := self._free(lane, near, group)) is None:
                try:
                    async with asyncio.timeout(START_TIMEOUT_S):
                        await self._changed.wait()
                except TimeoutError:
                    if self._up:
                        continue  # busy, which may take as long as an upload may be tried
                    raise ClusterError(
                        f"no packer is up after {START_TIMEOUT_S:.0f} s: {self._last_start_error or 'no room for one'}",
                        hint="each packer takes one CPU; see `ray status`, and whether this package is on every node",
                    ) from self._last_start_error
            self._busy[number] += 1
            self._busy_of[number, group] += 1
            return number

    def _free(self, lane: Hashable, near: Hashable, group: Hashable) -> int | None:
        if lane is not None and self._up:
            owner = self._owner(lane)
            return owner if self._busy_of[owner, group] < self._limit else None
        known = self._near.get(near) if near is not None else None
        if known is not None and known in self._up:
            return known if self._busy_of[known, group] < self._limit else None
        free = [(busy, n) for n, busy in self._busy.items() if n in self._up and self._busy_of[n, group] < self._limit]
        if not free:
            return None
        number = min(free)[1]
        if near is not None:
            self._near[near] = number
            while len(self._near) > NEAR_KEPT:
                self._near.popitem(last=False)
        return number

    def _owner(self, lane: Hashable) -> int:
        """Return a lane's packer; another one if that is down, or has two lanes more than one that came up later."""
        owned = Counter(self._lanes.values())
        idlest = min(self._up, key=lambda n: (owned[n], self._busy[n], n))
        owner = self._lanes.get(lane)
        if owner is None or owner not in self._up or owned[owner] - owned[idlest] > 1:
            owner = self._lanes[lane] = idlest
        return owner

    async def _give(self, number: int, group: Hashable) -> None:
        async with self._changed:
            self._busy[number] -= 1
            self._busy_of[number, group] -= 1
            self._changed.notify_all()

    def _begin(self, number: int, after_s: float) -> None:
        self._starts[number] = asyncio.get_running_loop().create_task(self._bring_up(number, after_s))

    async def _bring_up(self, number: int, after_s: float) -> None:
        """Make the packer if there is none, and ask until it answers."""
        try:
            while True:
                if after_s:
                    await self._sleep(after_s)
                after_s = REST_S
                if number not in self._handles:
                    self._handles[number] = self._spawn(number)
                try:
                    await self._handles[number].call("ping")
                except ActorLostError as exc:
                    self._last_start_error = exc
                    if exc.for_ever:
                        self._handles.pop(number)
                    continue
                async with self._changed:
                    self._up.add(number)
                    self._changed.notify_all()
                return
        finally:
            self._starts.pop(number, None)
