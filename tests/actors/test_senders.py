"""The caller owns a chunk until it is durable, sends it again when an actor is lost, and keeps versions in order."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.handles import ActorLostError
from actors.live_states import PointsItem
from actors.producer import ProducedStream, PushWindow
from actors.senders import FramesItem, FramesSender, PointsSender
from ingest.carrier import Spooled
from ingest.errors import ClusterError, JournalWriteError, SpoolFullError, SpoolWriteError
from ingest.pipeline import Delivered, Failed, Lost
from ingest.timeseries import TimeseriesMeta
from tests.live_support import FRAMES, POINTS, until
from tests.test_ledger import receipt


class FakeStreamer:
    """Makes orders that say which chunk they are, and carries points by `act(items)`; `losses` calls find it dead."""

    def __init__(self) -> None:
        self.losses = 0
        self.act = None
        self.batches: list[list[PointsItem]] = []

    async def call(self, method, *args):
        await asyncio.sleep(0)
        if self.losses:
            self.losses -= 1
            raise ActorLostError(f"{method}: the actor is gone")
        if method == "frames_order":
            return args
        _key, items = args
        self.batches.append(list(items))
        outcomes = self.act(items) if self.act else [Spooled(item.seq) for item in items]
        if asyncio.iscoroutine(outcomes):
            outcomes = await outcomes
        if isinstance(outcomes, Exception):
            raise outcomes
        return outcomes


class FakePool:
    """Takes orders by `act(seq, index)`."""

    def __init__(self, act=None) -> None:
        self.act = act or (lambda seq, index: Spooled(index))
        self.taken: list[int] = []

    async def ask(self, method, order, frames):
        assert method == "take"
        _key, seq, index, *_ = order
        outcome = self.act(seq, index)
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        if isinstance(outcome, Exception):
            raise outcome
        self.taken.append(seq)
        return outcome


class Rig:
    def __init__(self, on_full="block", *, chunks=8) -> None:
        self.streamer, self.pool = FakeStreamer(), FakePool()
        self.poked: list[str] = []
        self.slept: list[float] = []
        self.frames = FramesSender(self.streamer, self.pool, self.poke, on_full, self.sleep)
        self.points = PointsSender(self.streamer, self.poke, on_full, self.sleep)
        self.stream = ProducedStream("k" * 32, "data-1", FRAMES, PushWindow(chunks, 1000))
        self.log = ProducedStream("p" * 32, "data-2", POINTS, PushWindow(10_000, 1 << 30))

    async def poke(self, key):
        self.poked.append(key)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def push(self, index):
        seq, index = self.stream.begin(index, f"chunk {index}")
        self.stream.window.admit(10, block=False)
        self.frames.send(self.stream, FramesItem(seq, index, "frames", (1, 2, 3), 1000, (None, None), 10))

    def push_points(self, chunk_index, *channels, body=b"{}"):
        seq, _ = self.log.begin(None, f"chunk {chunk_index} of {', '.join(channels)}")
        self.log.window.admit(len(body), block=False)
        meta = TimeseriesMeta(chunk_index, channels, 1, 1, 2, len(channels) > 1)
        self.points.send(self.log, PointsItem(seq, meta, body))

    async def settled(self):
        for stream in (self.stream, self.log):
            await until(lambda stream=stream: stream.window.held == (0, 0) and not stream.on_their_way())


def run(scenario, **options):
    async def within():
        rig = Rig(**options)
        async with asyncio.timeout(20):
            await scenario(rig)

    asyncio.run(within())


# -- frames ------------------------------------------------------------------------------------------------------------


def test_what_is_spooled_is_accepted_and_the_dispatcher_hears_of_it():
    async def scenario(rig):
        rig.push(3)
        assert rig.stream.on_their_way() == ["chunk 3"]
        await rig.settled()
        assert rig.stream.expected() == ({3}, {})
        assert rig.poked == [rig.stream.key]
        assert rig.frames._tasks == {}

    run(scenario)


def test_what_is_delivered_needs_no_dispatcher():
    async def scenario(rig):
        rig.pool.act = lambda seq, index: Delivered(receipt(index))
        rig.push(3)
        await rig.settled()
        assert (rig.stream.expected(), rig.poked) == (({3}, {}), [])

    run(scenario)


@pytest.mark.parametrize("lost", ["streamer", "packer"])
def test_a_chunk_is_sent_again_when_an_actor_is_lost(lost):
    async def scenario(rig):
        left = [3]

        def act(seq, index):
            if left[0]:
                left[0] -= 1
                return ActorLostError("killed")
            return Spooled(index)

        if lost == "streamer":
            rig.streamer.losses = 3
        else:
            rig.pool.act = act
        rig.push(0)
        await rig.settled()
        assert rig.stream.expected() == ({0}, {})
        assert len(rig.slept) == 3
        assert rig.stream.pushed == rig.stream.acknowledged == 1

    run(scenario)


def test_a_refused_chunk_is_lost_and_said(caplog):
    async def scenario(rig):
        rig.pool.act = lambda seq, index: Lost(index, "chunk 5: 422: dims")
        rig.push(5)
        await rig.settled()
        assert rig.stream.expected() == ({5}, {}), "the journal knows that it is lost; here it was not dropped"
        assert rig.poked == []

    with caplog.at_level(logging.WARNING, "rheed_ingest"):
        run(scenario)
    assert "data-1" in caplog.text
    assert "422: dims" in caplog.text


@pytest.mark.parametrize("error", [SpoolFullError("no room"), SpoolWriteError("permission")])
def test_a_full_disk_is_waited_for_and_said_once(caplog, error):
    async def scenario(rig):
        full = [True]
        rig.pool.act = lambda seq, index: Failed(index, error) if full[0] else Spooled(index)
        rig.push(0)
        rig.push(1)
        await until(lambda: len(rig.slept) > 6)
        assert rig.stream.window.held == (2, 20), "they hold their room, so that push blocks"
        assert rig.stream.on_their_way() == ["chunk 0", "chunk 1"]
        full[0] = False
        await rig.settled()
        assert rig.stream.expected() == ({0, 1}, {})

    with caplog.at_level(logging.WARNING, "rheed_ingest"):
        run(scenario)
    assert len(caplog.records) == 1
    assert "push waits for the disk" in caplog.text


def test_a_full_disk_drops_if_that_was_asked():
    async def scenario(rig):
        rig.pool.act = lambda seq, index: Failed(index, SpoolFullError("no room"))
        rig.push(0)
        await rig.settled()
        assert rig.stream.expected() == ({0}, {0: "chunk 0: dropped: no room"})
        assert set(rig.stream.expected()[1]) == {0}

    run(scenario, on_full="drop")


def test_what_fits_into_no_spool_is_dropped_at_once():
    async def scenario(rig):
        rig.pool.act = lambda seq, index: Failed(index, SpoolFullError("no room", fits_never=True))
        rig.push(0)
        await rig.settled()
        assert set(rig.stream.expected()[1]) == {0}

    run(scenario)


@pytest.mark.parametrize(
    "outcome", [ClusterError("six packers ended"), JournalWriteError("bug"), ZeroDivisionError("x")]
)
def test_whatever_else_goes_wrong_is_a_reported_loss_and_gives_room_back(outcome):
    async def scenario(rig):
        rig.pool.act = lambda seq, index: outcome
        rig.push(0)
        await rig.settled()
        [reason] = rig.stream.expected()[1].values()
        assert str(outcome) in reason
        assert set(rig.stream.expected()[1]) == {0}

    run(scenario)


def test_another_version_of_a_chunk_waits_for_the_earlier_one():
    async def scenario(rig):
        gate = asyncio.Event()

        async def slow_first(seq, index):
            if seq == 0:
                await gate.wait()
            return Spooled(index)

        rig.pool.act = slow_first
        rig.push(7)
        rig.push(7)
        rig.push(7)
        rig.push(8)
        await until(lambda: rig.pool.taken == [3])
        await asyncio.sleep(0.01)
        assert rig.pool.taken == [3], "another chunk does not wait"
        gate.set()
        await rig.settled()
        assert rig.pool.taken == [3, 0, 1, 2]

    run(scenario)


pushes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), min_size=1, max_size=8)


@given(pushes)
@settings(max_examples=30, deadline=None)
def test_versions_keep_their_order_whatever_is_lost_in_between(given_pushes):
    async def scenario(rig):
        crashes = {seq for seq, (_, _, crashes) in enumerate(given_pushes) if crashes}

        async def act(seq, index):
            for _ in range(given_pushes[seq][1]):
                await asyncio.sleep(0)
            if seq in crashes:
                crashes.discard(seq)
                return ActorLostError("killed")
            return Spooled(index)

        rig.pool.act = act
        for index, _, _ in given_pushes:
            rig.push(index)
        await rig.settled()
        assert sorted(rig.pool.taken) == list(range(len(given_pushes)))
        for index in {index for index, _, _ in given_pushes}:
            mine = [seq for seq in rig.pool.taken if given_pushes[seq][0] == index]
            assert mine == sorted(mine)
        assert rig.stream.expected() == ({index for index, _, _ in given_pushes}, {})

    run(scenario)


# -- points ------------------------------------------------------------------------------------------------------------


def seqs(rig):
    return [[item.seq for item in batch] for batch in rig.streamer.batches]


def test_points_that_come_meanwhile_go_together():
    async def scenario(rig):
        for chunk in range(5):
            rig.push_points(chunk, "T")
        await rig.settled()
        assert seqs(rig) == [[0, 1, 2, 3, 4]]
        assert rig.poked == [rig.log.key], "once for all of them"
        rig.push_points(5, "T")
        await rig.settled()
        assert seqs(rig)[1:] == [[5]]
        assert rig.points._working == {}

    run(scenario)


def test_versions_of_a_chunk_never_share_a_batch():
    async def scenario(rig):
        rig.push_points(0, "T", "p")
        rig.push_points(0, "x")
        rig.push_points(0, "p")
        rig.push_points(1, "p")
        rig.push_points(0, "T")
        await rig.settled()
        assert seqs(rig) == [[0, 1], [2, 3, 4]]

    run(scenario)


def test_batches_have_bounds():
    async def scenario(rig):
        for chunk in range(70):
            rig.push_points(chunk, "T")
        rig.push_points(70, "T", body=b" " * (5 << 20))
        rig.push_points(71, "T", body=b" " * (3 << 20))
        rig.push_points(72, "T", body=b" " * (3 << 20))
        await rig.settled()
        assert [len(batch) for batch in rig.streamer.batches] == [32, 32, 6, 1, 1, 1]
        assert [seq for batch in seqs(rig) for seq in batch] == list(range(73))

    run(scenario)


def test_points_are_sent_again_when_their_actor_is_lost():
    async def scenario(rig):
        rig.streamer.losses = 4
        rig.push_points(0, "T")
        rig.push_points(1, "T")
        await rig.settled()
        assert rig.log.expected() == ({0, 1}, {})
        assert len(rig.slept) == 4

    run(scenario)


def test_each_request_of_a_batch_has_its_own_answer():
    async def scenario(rig):
        full = [2]

        def act(items):
            def one(item):
                if item.meta.chunk_index == 1:
                    return Lost(item.seq, f"chunk 1 of {item.meta.channels[0]}: 422")
                if item.meta.chunk_index == 2 and full[0]:
                    full[0] -= 1
                    return Failed(item.seq, SpoolFullError("no room"))
                return Delivered(receipt(item.seq))

            return [one(item) for item in items]

        rig.streamer.act = act
        for chunk in range(4):
            rig.push_points(chunk, "T")
        await rig.settled()
        assert seqs(rig) == [[0, 1, 2, 3], [2], [2]], "only what found no room is sent again"
        assert rig.log.expected() == ({0, 1, 2, 3}, {})
        assert rig.poked == []

    run(scenario)


@pytest.mark.parametrize("error", [ClusterError("out of memory"), ZeroDivisionError("a bug")])
def test_points_that_nobody_takes_are_a_reported_loss_and_give_room_back(error):
    async def scenario(rig):
        rig.streamer.act = lambda items: error
        rig.push_points(0, "T")
        rig.push_points(0, "T")
        await rig.settled()
        assert set(rig.log.expected()[1]) == {0, 1}
        assert all(str(error) in reason for reason in rig.log.expected()[1].values())
        rig.streamer.act = None
        rig.push_points(1, "T")
        await rig.settled()
        assert rig.log.expected()[0] == {0, 1, 2}
        assert 2 not in rig.log.expected()[1]

    run(scenario)


def test_streams_do_not_wait_for_each_other():
    async def scenario(rig):
        other = ProducedStream("q" * 32, "data-3", POINTS, PushWindow(10, 1000))
        gate = asyncio.Event()

        async def act(items):
            if len(rig.streamer.batches) == 1:
                await gate.wait()
            return [Spooled(item.seq) for item in items]

        rig.streamer.act = act
        rig.push_points(0, "T")
        await until(lambda: rig.streamer.batches)
        seq, _ = other.begin(None, "chunk 0 of T")
        other.window.admit(2, block=False)
        rig.points.send(other, PointsItem(seq, TimeseriesMeta(0, ("T",), 1, 1, 2, False), b"{}"))
        await until(lambda: other.expected()[0] == {0})
        assert rig.log.on_their_way() == ["chunk 0 of T"]
        gate.set()
        await rig.settled()

    run(scenario)
