"""The live parts together without Ray, on a platform that misbehaves: everything arrives once, or is reported."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import IllegalEventError, StreamerError
from ingest.ledger import ChunkLost, Sealed, StreamGone, StreamState
from ingest.spool import SpoolLimits
from ingest.telemetry import Secret
from tests.live_support import (
    POINTS,
    LiveSystem,
    ServerAt,
    Trouble,
    assert_stored,
    encoded,
    frames_of,
    free_port,
    of_chunk,
    run,
    stored_chunks,
    stored_points,
    until,
    uploads,
)
from tests.support import KEY, ThreadServer, answer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ThreadServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_trouble(server):
    yield
    act, server.wire.act = server.wire.act, None
    if isinstance(act, Trouble):
        act.kind = None
    server.wire.requests.clear()


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "state"


def puts(server) -> int:
    return sum(method == "PUT" for method, _ in server.wire.requests)


# -- everything arrives ------------------------------------------------------------------------------------------------


def test_what_is_pushed_arrives_directly_and_the_stream_is_closed(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=20) as system:
            stream = await system.begin()
            for index in range(4):
                system.push(stream, index)
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.spooled, progress.journal.lost) == (4, 0, {})
            assert not system.spool.folder.exists(), "no disk was needed"
            return stream.data_id

    closed = assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(4)}, puts=1)
    assert (closed["status"], closed["times_closed"]) == ("closed", 1)


def test_an_all_black_chunk_arrives(server, state):
    black = np.zeros((8, 12, 16), np.uint8)

    async def scenario():
        async with LiveSystem(server.url, state) as system:
            stream = await system.begin()
            system.push(stream, 0, black)
            await system.finalize(stream)
            return stream.data_id

    assert_stored(server.url, run(scenario()), {0: black})


def test_chunks_in_any_order_with_holes(server, state):
    async def scenario():
        async with LiveSystem(server.url, state) as system:
            stream = await system.begin()
            for index in (9, 2, 5, 0):
                system.push(stream, index)
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.journal.lost) == (4, {})
            return stream.data_id

    data_id = run(scenario())
    closed = assert_stored(server.url, data_id, {i: frames_of(i) for i in (0, 2, 5, 9)})
    assert closed["status"] == "closed"


def test_points_in_any_order(server, state):
    async def scenario():
        async with LiveSystem(server.url, state) as system:
            log = await system.begin(POINTS)
            for chunk in (3, 0, 2, 1):
                system.push_points(log, chunk, [chunk + 0.5, float("nan")])
            await system.finalize(log)
            return log.data_id

    points = stored_points(server.url, run(scenario()))
    assert points["values"] == [0.5, None, 1.5, None, 2.5, None, 3.5, None]
    assert points["chunk_indices"] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["stall", 503, 500, 429])
def test_a_server_in_trouble_fills_the_spool_and_gets_everything_once_it_is_well(server, state, kind):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0.15) as system:
            stream = await system.begin()
            trouble = Trouble(server, kind, on=uploads)
            for index in range(3):
                system.push(stream, index)
            await system.durable(stream)
            assert system.spool.usage_of(stream.key)[0] == 3
            await until(lambda: trouble.hits)
            progress = await system.dispatcher.progress(stream.key)
            assert (progress.spooled, progress.journal.confirmed, progress.is_refused) == (3, 0, False)
            if kind != "stall":
                await until(lambda: system.dispatcher._held[stream.key].drain.stalled_by)
                assert str(kind) in (await system.dispatcher.progress(stream.key)).stalled_by
                assert str(kind) in (await system.dispatcher.stalls())[stream.data_id]
                assert any(str(kind) in notice for notice in await system.dispatcher.notices())
                assert await system.dispatcher.notices() == [], "each is told once"
            trouble.kind = None
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.spooled) == (3, 0)
            return stream.data_id

    assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(3)})


def test_a_server_that_is_down_and_comes_back(tmp_path, state):
    port = free_port()

    async def scenario():
        with ServerAt(tmp_path / "data", port) as server:
            system = LiveSystem(server.url, state, direct_for_s=0.2)
            await system.__aenter__()
            stream = await system.begin()
            system.push(stream, 0)
            await system.delivered(stream)
        for index in (1, 2, 3):
            system.push(stream, index)
        await system.durable(stream)
        assert system.spool.usage_of(stream.key)[0] == 3
        stream.finalize()
        await system.dispatcher.seal(stream.key, Sealed.of(range(4)), {})
        await until(lambda: system.dispatcher._held[stream.key].drain.stalled_by)
        assert (await system.dispatcher.progress(stream.key)).journal.state is StreamState.OPEN, "not closed"
        assert not await system.dispatcher.idle()
        with ServerAt(tmp_path / "data", port) as server:
            await system.closed(stream.key)
            await system.die()
            closed = await asyncio.to_thread(
                assert_stored, server.url, stream.data_id, {i: frames_of(i) for i in range(4)}
            )
            assert closed["times_closed"] == 1

    run(scenario())


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble_at", [None, 0, 1, 2], ids=["direct", "spooled", "then spooled", "only the last"])
def test_the_last_version_of_a_chunk_stays(server, state, trouble_at):
    """Whichever of three versions meets a server that stalls."""

    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0.15) as system:
            stream = await system.begin()
            trouble = Trouble(server, None, on=uploads)
            for version in range(3):
                if version == trouble_at:
                    trouble.kind = "stall"
                system.push(stream, 5, frames_of(100 + version))
                if version != trouble_at:
                    await system.durable(stream)
            await system.durable(stream)
            trouble.kind = None
            await system.finalize(stream)
            return stream.data_id

    assert_stored(server.url, run(scenario()), {5: frames_of(102)})


def test_the_last_version_of_points_stays(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0.15) as system:
            log = await system.begin(POINTS)
            trouble = Trouble(server, None, on=uploads)
            system.push_points(log, 0, [1.0])
            await system.durable(log)
            trouble.kind = "stall"
            system.push_points(log, 0, [2.0])
            await system.durable(log)
            trouble.kind = None
            system.push_points(log, 0, [3.0])
            system.push_points(log, 0, [4.0])
            await system.finalize(log)
            return log.data_id

    assert stored_points(server.url, run(scenario()))["values"] == [4.0]


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [False, True], ids=["direct", "from the spool"])
def test_a_refused_chunk_is_a_loss_that_closes(server, state, spooled):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0 if spooled else 20) as system:
            stream = await system.begin()
            Trouble(server, 422, on=of_chunk(1))
            for index in range(3):
                system.push(stream, index)
            progress = await system.finalize(stream)
            assert progress.journal.confirmed == 2
            [(index, reason)] = progress.journal.lost.items()
            assert (index, "not to our taste" in reason, "chunk 1" in reason) == (1, True, True)
            assert bool(system.spool.refused(stream.key)) == spooled, "what was spooled is kept aside"
            return stream.data_id

    closed = assert_stored(server.url, run(scenario()), {0: frames_of(0), 2: frames_of(2)})
    assert closed["status"] == "closed"


def test_a_damaged_spool_file_is_a_loss_that_closes(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0, window=8) as system:
            stream = await system.begin()
            trouble = Trouble(server, 503, on=uploads)
            for index in range(6):
                system.push(stream, index)
            await system.durable(stream)
            path = system.spool.entries(stream.key)[5].path  # the first four are in the dispatcher's memory
            raw = bytearray(path.read_bytes())
            raw[-5] ^= 1
            path.write_bytes(raw)
            trouble.kind = None
            progress = await system.finalize(stream)
            [(_, reason)] = progress.journal.lost.items()
            assert "damaged" in reason
            assert path.with_name(path.name + ".damaged").read_bytes() == raw
            assert any("damaged" in notice for notice in await system.dispatcher.notices())
            return stream.data_id

    data_id = run(scenario())
    assert len(stored_chunks(server.url, data_id)[1]) == 5


@pytest.mark.parametrize("on_full", ["block", "drop"])
def test_a_full_spool_blocks_or_drops_as_asked(server, state, on_full):
    async def scenario():
        limits = SpoolLimits(max_bytes=2 * 4096, floor_bytes=0)
        async with LiveSystem(server.url, state, direct_for_s=0, on_full=on_full, spool_limits=limits) as system:
            stream = await system.begin()
            trouble = Trouble(server, 503, on=uploads)
            for index in range(4):
                system.push(stream, index)
                if index < 2:
                    await system.durable(stream)
            if on_full == "drop":
                await system.durable(stream)
                assert set(stream.expected()[1]) == {2, 3}
            else:
                await asyncio.sleep(0.3)
                assert stream.window.held[0] == 2
            trouble.kind = None
            progress = await system.finalize(stream)
            assert set(progress.journal.lost) == ({2, 3} if on_full == "drop" else set())
            assert all("no room" in reason for reason in progress.journal.lost.values())
            return stream.data_id, progress.journal.confirmed

    data_id, confirmed = run(scenario())
    assert confirmed == (2 if on_full == "drop" else 4)
    assert_stored(server.url, data_id, {i: frames_of(i) for i in range(confirmed)})


def test_a_full_window_drops_as_asked(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, on_full="drop", window=2) as system:
            stream = await system.begin()
            for index in range(4):
                system.push(stream, index)  # no chance for the loop in between
            progress = await system.finalize(stream)
            assert set(progress.journal.lost) == {2, 3}
            assert all("window was full" in reason for reason in progress.journal.lost.values())
            return stream.data_id

    assert_stored(server.url, run(scenario()), {0: frames_of(0), 1: frames_of(1)})


# -- what people have to mend ------------------------------------------------------------------------------------------


def test_a_key_that_ends_keeps_everything_until_it_works_again(server, state):
    async def scenario():
        async with LiveSystem(server.url, state) as system:
            stream = await system.begin()
            system.push(stream, 0)
            await system.delivered(stream)
            trouble = Trouble(server, 401)
            for index in (1, 2):
                system.push(stream, index)
            await system.durable(stream)
            await until(lambda: system.dispatcher._held[stream.key].drain.is_refused)
            progress = await system.dispatcher.progress(stream.key)
            assert (progress.spooled, progress.is_refused, progress.journal.lost) == (2, True, {})
            assert "401" in progress.stalled_by
            assert KEY.reveal() not in progress.stalled_by
            trouble.kind = None
            await system.finalize(stream)
            return stream.data_id

    assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(3)})


def test_what_was_mended_is_tried_at_once_on_demand(server, state):
    """Not 15 s later, although the dispatcher's pauses are not cut short here."""

    async def scenario():
        async with LiveSystem(server.url, state, quick=False) as system:
            stream = await system.begin()
            trouble = Trouble(server, 403, on=uploads)
            system.push(stream, 0)
            await system.durable(stream)
            await until(lambda: system.dispatcher._held[stream.key].drain.is_refused)
            trouble.kind = None
            await system.dispatcher.retry(stream.key)
            assert not (await system.dispatcher.progress(stream.key)).is_refused
            async with asyncio.timeout(8):
                await system.finalize(stream)

    run(scenario())


@pytest.mark.parametrize("how", ["failed", "closed"])
def test_a_stream_that_the_platform_ended_keeps_its_spool_and_says_so(server, state, how):
    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0) as system:
            stream = await system.begin()
            trouble = Trouble(server, 503, on=uploads)
            for index in range(2):
                system.push(stream, index)
            await system.durable(stream)
            trouble.kind, trouble.detail = 409, b"stream %s: silent for 2 hours" % how.encode()
            await until(lambda: system.journal.live_stream(stream.key).state is StreamState.GONE)
            trouble.kind = None
            assert system.spool.usage_of(stream.key)[0] == 2
            progress = await system.dispatcher.progress(stream.key)
            assert "silent for 2 hours" in progress.journal.gone_reason
            with pytest.raises((StreamerError, IllegalEventError)):
                await system.dispatcher.seal(stream.key, Sealed.of([0, 1]), {})
            files = sorted(path.name for path in (system.spool.folder / stream.key).iterdir())
        async with LiveSystem(server.url, state, session_id="next") as system:
            notices = []

            async def told():
                while not notices:
                    notices.extend(await system.dispatcher.notices())
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(told(), 10)
            assert "2 chunk(s)" in notices[0]
            assert "silent for 2 hours" in notices[0]
            assert str(system.spool.folder / stream.key) in notices[0]
            assert "spool list" in notices[0]
            assert await system.dispatcher.idle(), "and does not keep anybody waiting"
            await asyncio.sleep(0.2)
            assert await system.dispatcher.notices() == [], "said once"
            assert sorted(path.name for path in (system.spool.folder / stream.key).iterdir()) == files

    run(scenario())


def test_chunks_whose_stream_the_journal_does_not_know_are_kept_and_said(server, state):
    async def scenario():
        async with LiveSystem(server.url, state) as system:
            key = uuid.uuid4().hex
            system.spool.put(encoded(key, 0))
            notices = []
            while not notices:
                notices = await system.dispatcher.notices()
                await asyncio.sleep(0.01)
            assert "the journal does not know their stream" in notices[0]
            assert system.spool.has(key)

    run(scenario())


# -- sessions ----------------------------------------------------------------------------------------------------------


async def leave_behind(server, state, *, indices=(0, 1, 2), seal=False, dies=True, session_id="first", **options):
    """Have a session spool chunks that it does not deliver, and end; return the stream."""
    system = LiveSystem(server.url, state, session_id=session_id, direct_for_s=0, **options)
    await system.__aenter__()
    trouble = Trouble(server, 503, on=lambda method, path, query: uploads(method, path, query) or path.endswith("/end"))
    stream = await system.begin()
    for index in indices:
        system.push(stream, index)
    await system.durable(stream)
    if seal:
        await system.dispatcher.seal(stream.key, Sealed.of(indices), {})
    await (system.die() if dies else system.leave())
    trouble.kind = None
    return stream


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "left"])
def test_the_next_session_delivers_what_one_left_behind_and_gives_the_stream_back(server, state, dies):
    async def scenario():
        stream = await leave_behind(server, state, dies=dies, lease_s=0.3)
        async with LiveSystem(server.url, state, session_id="second") as system:
            await until(lambda: not system.spool.has(stream.key))
            await until(lambda: system.journal.live_stream(stream.key).lease_holder is None)
            after = system.journal.live_stream(stream.key)
            assert (after.state, after.is_sealed) == (StreamState.OPEN, False), "nobody said that nothing more comes"
            assert len(system.journal.receipts(stream.key)) == 3
            await until(lambda: stream.key not in system.dispatcher._held)
            assert await system.dispatcher.idle()
        return stream.data_id

    open_stream = assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(3)})
    assert open_stream["status"] == "open"


def test_a_session_that_left_in_good_order_is_followed_at_once(server, state):
    async def scenario():
        stream = await leave_behind(server, state, dies=False, lease_s=60.0)
        async with LiveSystem(server.url, state, session_id="second") as system:
            await until(lambda: not system.spool.has(stream.key), 10)

    run(scenario())


@pytest.mark.parametrize("indices", [(0, 1, 2), ()], ids=["with chunks", "empty"])
def test_a_sealed_stream_whose_session_died_is_closed_by_the_next(server, state, indices):
    async def scenario():
        stream = await leave_behind(server, state, seal=True, indices=indices, lease_s=0.3)
        async with LiveSystem(server.url, state, session_id="second") as system:
            await system.closed(stream.key)
        return stream.data_id

    closed = assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in indices})
    assert (closed["status"], closed["times_closed"]) == ("closed", 1)


def test_a_live_session_s_stream_is_never_taken(server, state):
    async def scenario():
        trouble = Trouble(server, 503, on=uploads)
        async with LiveSystem(server.url, state, session_id="first", direct_for_s=0, lease_s=1.0) as first:
            stream = await first.begin()
            epoch = first.journal.live_stream(stream.key).epoch
            for index in range(3):
                first.push(stream, index)
            await first.durable(stream)
            async with LiveSystem(server.url, state, session_id="second", lease_s=1.0) as second:
                began_s = time.monotonic()
                while time.monotonic() - began_s < 1.5:  # longer than a lease
                    assert stream.key not in second.dispatcher._held
                    await asyncio.sleep(0.02)
                row = second.journal.live_stream(stream.key)
                assert (row.lease_holder, row.epoch) == ("first", epoch)
                trouble.kind = None
                await first.finalize(stream)
        return stream.data_id

    assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(3)})


def test_a_session_that_was_away_gets_its_stream_back_and_goes_on(server, state):
    """A laptop asleep: its lease expires, another session delivers, and the two never fight."""

    async def scenario():
        first = LiveSystem(server.url, state, session_id="first", lease_s=0.3, direct_for_s=0)
        await first.__aenter__()
        trouble = Trouble(server, 503, on=uploads)
        stream = await first.begin()
        first.push(stream, 0)
        await first.durable(stream)
        for task in first.dispatcher._looping:  # asleep: nothing renews
            task.cancel()
        await until(lambda: first.journal.live_stream(stream.key).lease_until_s < time.time())
        async with LiveSystem(server.url, state, session_id="second", lease_s=0.3) as second:
            await until(lambda: second.journal.live_stream(stream.key).lease_holder == "second")
            trouble.kind = None
            await until(lambda: not second.spool.has(stream.key))
            first.dispatcher._looping = []
            first.dispatcher.start()
            await until(lambda: first.journal.live_stream(stream.key).lease_holder == "first")
            for index in (1, 2):
                first.push(stream, index)
            await first.finalize(stream)
        await first.die()
        return stream.data_id

    assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(3)})


def test_a_chunk_carried_under_a_stale_lease_is_spooled_and_delivered_by_whoever_has_it(server, state):
    async def scenario():
        first = LiveSystem(server.url, state, session_id="first", lease_s=60.0, adopts=False)
        stream = await first.begin()
        first.push(stream, 0)
        await first.delivered(stream)
        await first.aggregator.call("release_live", stream.key, first.journal.live_stream(stream.key).epoch)
        second = LiveSystem(server.url, state, session_id="second", direct_for_s=0)
        await second.aggregator.call("lease_live", "second", stream.key)
        first.push(stream, 1)
        await first.durable(stream)
        assert (first.spool.usage_of(stream.key)[0], stream.expected()[0]) == (1, {0, 1})
        assert len(first.journal.receipts(stream.key)) == 1
        async with second:
            await until(lambda: not second.spool.has(stream.key))
            assert len(second.journal.receipts(stream.key)) == 2
        await first.die()
        return stream.data_id

    assert_stored(server.url, run(scenario()), {0: frames_of(0), 1: frames_of(1)})


def test_other_keys_and_endpoints_have_spools_of_their_own(server, state):
    async def scenario():
        stream = await leave_behind(server, state, lease_s=0.1)
        await asyncio.sleep(0.15)
        async with LiveSystem(server.url, state, session_id="other", key=Secret("another-key")) as other:
            await asyncio.sleep(0.3)
            assert other.dispatcher._held == {}
            assert await other.dispatcher.idle()
        assert LiveSystem(server.url, state).spool.has(stream.key)
        async with LiveSystem(server.url, state, session_id="third") as third:
            await until(lambda: not third.spool.has(stream.key))

    run(scenario())


def test_a_session_that_shall_not_adopt_does_not(server, state):
    async def scenario():
        stream = await leave_behind(server, state, lease_s=0.1)
        await asyncio.sleep(0.15)
        async with LiveSystem(server.url, state, session_id="second", adopts=False) as second:
            await asyncio.sleep(0.3)
            assert second.spool.has(stream.key)
            assert second.dispatcher._held == {}

    run(scenario())


def test_a_crash_between_receipt_and_removal_sends_nothing_again(server, state):
    """The stream is closed; what is left of it on disk is in the journal, and goes."""

    async def scenario():
        async with LiveSystem(server.url, state, direct_for_s=0) as system:
            trouble = Trouble(server, 503, on=uploads)
            stream = await system.begin()
            system.push(stream, 0)
            await system.durable(stream)
            chunk = system.spool.load(system.spool.entries(stream.key)[0])
            trouble.kind = None
            await system.finalize(stream)
        again = LiveSystem(server.url, state, session_id="second")
        again.spool.put(chunk)
        again.spool.put(encoded(stream.key, 1, 0))
        server.wire.requests.clear()
        async with again:
            await until(lambda: len(again.spool.entries(stream.key)) == 1)
            notices = []
            while not notices:
                notices = await again.dispatcher.notices()
                await asyncio.sleep(0.01)
            assert "1 chunk(s)" in notices[0], "a version that never arrived is kept and said"
            assert "their stream is closed" in notices[0]
        assert puts(server) == 0

    run(scenario())


def test_restarting_the_dispatcher_in_the_middle_loses_nothing(server, state):
    async def scenario():
        first = LiveSystem(server.url, state, direct_for_s=0)
        await first.__aenter__()
        stream = await first.begin()
        for index in range(4):
            first.push(stream, index)
        await first.durable(stream)
        await first.die()
        async with LiveSystem(server.url, state) as second:  # the same session: Ray restarted its actors
            assert (await second.dispatcher.progress(stream.key)).journal.state is StreamState.OPEN
            await second.dispatcher.seal(stream.key, Sealed.of(range(4)), {})
            await second.closed(stream.key)
        return stream.data_id

    assert_stored(server.url, run(scenario()), {i: frames_of(i) for i in range(4)})


def test_a_seal_may_be_repeated_but_not_changed(server, state):
    async def scenario():
        async with LiveSystem(server.url, state) as system:
            stream = await system.begin()
            system.push(stream, 0)
            await system.durable(stream)
            lost = {2: "chunk 2: dropped: full"}
            trouble = Trouble(server, 503, on=lambda _method, path, _query: path.endswith("/end"))
            for _ in range(2):
                await system.dispatcher.seal(stream.key, Sealed.of([0, 2]), lost)
            with pytest.raises(IllegalEventError):
                await system.dispatcher.seal(stream.key, Sealed.of([0, 1]), {})
            trouble.kind = None
            progress = await system.closed(stream.key)
            assert progress.journal.lost == lost

    run(scenario())


def test_several_streams_at_once_keep_apart(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, packers=2, window=8) as system:
            first, second = await system.begin(), await system.begin()
            log = await system.begin(POINTS)
            for index in range(6):
                system.push(first, index, frames_of(index))
                system.push(second, index, frames_of(50 + index))
                system.push_points(log, index, [float(index)])
            await asyncio.gather(*(system.finalize(stream) for stream in (first, second, log)))
            return first.data_id, second.data_id, log.data_id

    first, second, log = run(scenario())
    assert_stored(server.url, first, {i: frames_of(i) for i in range(6)})
    assert_stored(server.url, second, {i: frames_of(50 + i) for i in range(6)})
    assert stored_points(server.url, log)["values"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_key_is_nowhere_on_disk_nor_in_logs(server, state, caplog):
    async def scenario():
        stream = await leave_behind(server, state, lease_s=0.1)
        Trouble(server, 401, detail=KEY.reveal().encode())
        async with LiveSystem(server.url, state, session_id="second") as system:
            await until(lambda: any(h.drain and h.drain.is_refused for h in system.dispatcher._held.values()))
            notices = await system.dispatcher.notices()
            stalls = await system.dispatcher.stalls()
            system.journal.record(stream.key, system.journal.epoch(stream.key), [ChunkLost(9, str(stalls))])
            return str(notices) + str(stalls) + repr(system.setup)

    with caplog.at_level(logging.DEBUG):
        shown = run(scenario())
    assert "401" in shown
    key = KEY.reveal()
    assert key not in shown
    assert key not in caplog.text
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".chunk", ".sqlite"}
    for path in files:
        assert key.encode() not in path.read_bytes(), path


def test_only_streams_with_work_are_taken(server, state):
    async def scenario():
        async with LiveSystem(server.url, state, session_id="first", lease_s=0.1) as first:
            empty = await first.begin()
            gone = await first.begin()
            first.journal.record(gone.key, first.journal.epoch(gone.key), [StreamGone("failed")])
        await asyncio.sleep(0.15)
        async with LiveSystem(server.url, state, session_id="second") as second:
            await asyncio.sleep(0.2)
            assert second.dispatcher._held == {}
            assert second.journal.live_stream(empty.key).lease_holder == "first"

    run(scenario())


def test_a_platform_that_answers_the_close_late_gets_it_once(server, state):
    async def slow_end(scope, receive, send):
        if scope["path"].endswith("/end") and slow:
            slow.pop()
            return await answer(send, 503)
        return False

    slow = [1, 2]

    async def scenario():
        async with LiveSystem(server.url, state) as system:
            stream = await system.begin()
            server.wire.act = slow_end
            await system.finalize(stream)
            return stream.data_id

    assert stored_chunks(server.url, run(scenario()))[0]["times_closed"] == 1
