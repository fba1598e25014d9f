"""Giving out orders to packers, so many at once, each lane in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

from ingest.errors import IngestError
from ingest.verify.work import Ask, NotDone, Progress, VerifyOrder, VerifyOutcome

__all__ = ["ORDERS_PER_PACKER", "GiveOut"]

OrderT = TypeVar("OrderT", bound=VerifyOrder)
ORDERS_PER_PACKER = 2


class GiveOut:
    """Has orders worked off by packers.

    Parameters
    ----------
    ask : callable
        Has one packer do something.
    packers : int
        How many there are.
    progress : callable
        Is told how many frames were gone through.
    """

    def __init__(self, ask: Ask, packers: int, progress: Progress) -> None:
        self._ask = ask
        self.packers = packers
        self._progress = progress
        self._places = asyncio.Semaphore(packers * ORDERS_PER_PACKER)

    async def one(self, method: Literal["verify", "mend"], order: VerifyOrder, lane: Hashable = None) -> VerifyOutcome:
        """Have one order worked off, in its turn."""
        async with self._places:
            return await self._asked(method, order, lane)

    async def all(
        self, method: Literal["verify", "mend"], lanes: Sequence[tuple[Hashable, Sequence[OrderT]]]
    ) -> list[tuple[OrderT, VerifyOutcome]]:
        """Have all orders worked off; return each with its outcome, in their order."""
        outcomes: dict[int, tuple[OrderT, VerifyOutcome]] = {}

        async def work(number: int, order: OrderT, lane: Hashable, places: asyncio.Semaphore) -> None:
            try:
                outcomes[number] = order, await self._asked(method, order, lane)
            finally:
                places.release()

        async def give(first: int, lane: Hashable, orders: Sequence[OrderT]) -> None:
            # Orders of a lane wait for one packer, and shall not take the places of others meanwhile.
            places = self._places if lane is None else asyncio.Semaphore(ORDERS_PER_PACKER)
            async with asyncio.TaskGroup() as group:
                for number, order in enumerate(orders, first):
                    await places.acquire()
                    group.create_task(work(number, order, lane, places))

        first = 0
        async with asyncio.TaskGroup() as lanes_group:
            for lane, orders in lanes:
                lanes_group.create_task(give(first, lane, orders))
                first += len(orders)
        return [outcomes[number] for number in sorted(outcomes)]

    async def _asked(self, method: Literal["verify", "mend"], order: VerifyOrder, lane: Hashable) -> VerifyOutcome:
        try:
            outcome = await self._ask(method, order, lane)
        except IngestError as exc:
            outcome = NotDone(exc)
        if method == "verify":
            self._progress(getattr(order, "frames", 0))
        return outcome
