"""Chunks for several destinations are read and packed once, as long as what waits fits."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ingest.errors import SourceError
from ingest.orders import orders_of
from ingest.packing import PackRoom
from ingest.shard import frames_digest, unpack
from ingest.telemetry import Telemetry
from tests.support import make_run, plan_of


class Packs(Telemetry):
    def __init__(self) -> None:
        super().__init__()
        self.indices: list[int] = []

    def emit(self, name, *args, **kwargs):
        if name == "chunk_packed":
            self.indices.append(args[1])
        return super().emit(name, *args, **kwargs)


@pytest.fixture
def planned(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=200, gap=None)
    _, plan = plan_of(tmp_path / "a.h5", to=["/lake"])
    return run, [orders_of(key, key, plan, range(len(plan.chunks)), to, 2) for key, to in (("a", "A"), ("b", "B"))]


def with_room(scenario, **options):
    async def within():
        packs = Packs()
        room = PackRoom(telemetry=packs, **options)
        try:
            return await scenario(room, packs)
        finally:
            room.close()

    return asyncio.run(within())


@pytest.mark.parametrize("at_once", [True, False])
def test_the_second_gets_what_the_first_made(planned, at_once):
    run, (for_a, for_b) = planned

    async def scenario(room, packs):
        if at_once:
            packed = await asyncio.gather(*map(room.packed, [*for_a, *for_b]))
        else:
            packed = [await room.packed(order) for order in [*for_a, *for_b]]
        assert sorted(packs.indices) == list(range(len(for_a)))
        assert not room._cache  # the last one takes it along
        return packed

    packed = with_room(scenario)
    n = len(for_a)
    assert all(a is b for a, b in zip(packed[:n], packed[n:], strict=True))
    for order, made in zip(for_a, packed[:n], strict=True):
        frames = run.frames(order.task.start, order.task.stop)
        np.testing.assert_array_equal(unpack(made.shard.tobytes(), frames.shape), frames)
        assert made.digest == frames_digest(frames)


def test_what_does_not_fit_is_made_once_more(planned):
    _, (for_a, for_b) = planned

    async def scenario(room, packs):
        first = [await room.packed(order) for order in for_a]
        held = sum(task.result().shard.n_bytes for task, _ in room._cache.values())
        assert held <= 60_000
        again = [await room.packed(order) for order in for_b]
        assert [made.digest for made in again] == [made.digest for made in first]
        assert len(for_a) < len(packs.indices) <= 2 * len(for_a)

    with_room(scenario, cache_bytes=60_000)


def test_one_destination_keeps_nothing(planned):
    _, (for_a, _) = planned

    async def scenario(room, packs):
        for order in for_a:
            await room.packed(replace(order, copies=1))
        assert not room._cache

    with_room(scenario)


def test_a_failure_is_each_order_s_own(planned, tmp_path):
    _, (for_a, for_b) = planned

    async def scenario(room, packs):
        (tmp_path / "a.h5").rename(tmp_path / "away.h5")
        with pytest.raises(SourceError):
            await room.packed(for_a[0])
        (tmp_path / "away.h5").rename(tmp_path / "a.h5")
        assert (await room.packed(for_b[0])).digest

    with_room(scenario)


def test_an_order_that_is_cancelled_takes_nothing_from_the_other(planned):
    _, (for_a, for_b) = planned

    async def scenario(room, packs):
        first = asyncio.create_task(room.packed(for_a[0]))
        second = asyncio.create_task(room.packed(for_b[0]))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).digest
        with pytest.raises(asyncio.CancelledError):
            await first

    with_room(scenario)
