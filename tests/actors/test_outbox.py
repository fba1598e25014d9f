"""Events on their way: in batches, in order, and never silently dropped."""

import asyncio

import pytest

from actors.outbox import Outbox
from ingest.errors import JournalWriteError, StaleEpochError
from ingest.ledger import ChunkLost


def lost(*indices):
    return [ChunkLost(i, "refused") for i in indices]


class Aggregator:
    """Takes batches, each when the test opens the gate."""

    def __init__(self) -> None:
        self.batches = []
        self.gate = asyncio.Event()
        self.at_once = 0
        self.error = None

    async def send(self, batch):
        self.at_once += 1
        assert self.at_once == 1, "one call at a time"
        await self.gate.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        self.batches.append(batch)


def run(scenario):
    async def within():
        aggregator = Aggregator()
        await asyncio.wait_for(scenario(Outbox(aggregator.send), aggregator), 10)

    asyncio.run(within())


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_comes_during_a_call_goes_in_the_next():
    async def scenario(outbox, aggregator):
        outbox.add(*lost(0))
        await settle()
        for event in lost(1, 2, 3):
            outbox.add(event)
        aggregator.gate.set()
        await outbox.flush()
        assert aggregator.batches == [lost(0), lost(1, 2, 3)]

    run(scenario)


def test_flushing_waits_for_everything_and_may_be_repeated():
    async def scenario(outbox, aggregator):
        await outbox.flush()
        outbox.add(*lost(0))
        flushing = asyncio.create_task(outbox.flush())
        await settle()
        outbox.add(*lost(1))
        assert not flushing.done()
        aggregator.gate.set()
        await flushing
        await outbox.flush()
        assert aggregator.batches == [lost(0), lost(1)]
        outbox.add(*lost(2))
        await outbox.flush()
        assert aggregator.batches[-1] == lost(2)

    run(scenario)


@pytest.mark.parametrize("error", [StaleEpochError("taken over"), JournalWriteError("full"), ValueError("a bug")])
def test_an_error_stops_it_and_is_raised(error):
    """Whatever it is: what was not sent must not pass for sent."""

    async def scenario(outbox, aggregator):
        aggregator.gate.set()
        aggregator.error = error
        outbox.add(*lost(0))
        await settle()
        assert outbox.error is error
        aggregator.error = None
        outbox.add(*lost(1))
        await settle()
        assert aggregator.batches == []
        for _ in range(2):
            with pytest.raises(type(error), match=str(error)):
                await outbox.flush()

    run(scenario)
