"""The streamers' actors: streams begun once however often it is asked, and settings that never mix."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid

import pytest

from actors.handles import LocalHandle
from actors.live_states import LiveRHEEDState, LiveTimeseriesState, PointsItem, direct_policy
from ingest.carrier import Spooled
from ingest.errors import SettingsError, UnknownNameError
from ingest.ledger import StreamState
from ingest.pipeline import Delivered, Lost
from ingest.timeseries import TimeseriesSettings, encode_channel
from tests.actors.test_system import streams
from tests.live_support import FRAMES, POINTS, START_MS, LiveSystem, Trouble, run, stored_points, uploads
from tests.support import KEY, ThreadServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ThreadServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_trouble(server):
    yield
    server.wire.act = None
    server.wire.requests.clear()


def creates(server) -> int:
    return sum(
        path.rstrip("/") in ("/rheed/stream", "/tool-state/stream/initialize") for _, path in server.wire.requests
    )


def new_key() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize("settings", [FRAMES, POINTS], ids=["frames", "points"])
def test_a_stream_is_begun_once_however_often_ray_asks(server, tmp_path, settings):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            state = system.series if settings is POINTS else system.rheed
            key = new_key()
            data_id = await state.initialize(key, settings)
            assert await state.initialize(key, settings) == data_id
            reborn = type(state)(system.setup, system.aggregator)
            assert await reborn.initialize(key, settings) == data_id
            await reborn.aclose()
            stream = system.journal.live_stream(key)
            assert (stream.state, stream.data_id, stream.lease_holder) == (StreamState.OPEN, data_id, "session-a")
            assert stream.settings == settings

    run(scenario())
    assert creates(server) == 1


def test_a_create_whose_answer_was_lost_makes_no_second_stream(server, tmp_path):
    """The actor dies between the platform's answer and the journal: its successor asks with the same key."""

    class DiesAtCreated:
        def __init__(self, target):
            self.target = LocalHandle(target)
            self.dies = True

        async def call(self, method, *args):
            if self.dies and method == "record" and type(args[2][0]).__name__ == "StreamCreated":
                raise asyncio.CancelledError
            return await self.target.call(method, *args)

    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            dying = DiesAtCreated(system.aggregator._target)
            key = new_key()
            first = LiveRHEEDState(system.setup, dying)
            with pytest.raises(asyncio.CancelledError):
                await first.initialize(key, FRAMES)
            await first.aclose()
            before = {stream["id"] for stream in await asyncio.to_thread(streams, server)}
            assert await system.rheed.initialize(key, FRAMES) in before
            assert {stream["id"] for stream in await asyncio.to_thread(streams, server)} == before

    run(scenario())


def test_an_order_is_made_from_what_initialize_was_told_and_from_nothing_else(server, tmp_path):
    other = dataclasses.replace(FRAMES, name="other", fps=120.0, rotations_per_min=6.0, chunk_size=240)

    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            keys = {}
            for settings in (FRAMES, other):
                keys[settings.name] = new_key()
                await system.rheed.initialize(keys[settings.name], settings)
            for state in (system.rheed, LiveRHEEDState(system.setup, system.aggregator)):  # and after a restart
                one = await state.frames_order(keys["live"], 5, 3, (8, 12, 16), START_MS)
                two = await state.frames_order(keys["other"], 6, 4, (7, 10, 11), START_MS + 1, (-250, 4.5))
                assert (one.meta.fps, one.meta.chunk_size, one.meta.is_rotating) == (20.0, 40, False)
                assert (two.meta.fps, two.meta.chunk_size, two.meta.is_rotating) == (120.0, 240, True)
                assert (one.seq, one.index, two.seq, two.index) == (5, 3, 6, 4)
                assert (one.meta.frames, one.meta.height_px, one.meta.width_px) == (8, 12, 16)
                assert (one.meta.clock_offset_ms, one.meta.clock_uncertainty_ms) == (None, None)
                assert (two.meta.clock_offset_ms, two.meta.clock_uncertainty_ms) == (-250, 4.5)
                assert (one.meta.start_unix_ms_utc, one.meta.end_unix_ms_utc) == (START_MS, START_MS + 400)
                assert one.data_id != two.data_id
                assert one.epoch == system.journal.live_stream(keys["live"]).epoch

    run(scenario())


def test_orders_follow_a_lease_that_was_taken_over_and_given_back(server, tmp_path):
    """Else every chunk from then on would be uploaded twice: directly, and again from the spool."""

    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state", lease_s=0.2) as system:
            stream = await system.begin()
            before = (await system.rheed.frames_order(stream.key, 0, 0, (8, 12, 16), 0)).epoch
            await system.dispatcher.release()
            epoch = system.journal.lease(stream.key, "other", 0.1)
            system.journal.release(stream.key, epoch)
            taken = await system.aggregator.call("lease_live", "session-a", stream.key)
            await asyncio.sleep(0.25)
            assert (await system.rheed.frames_order(stream.key, 1, 1, (8, 12, 16), 0)).epoch == taken[0] > before

    run(scenario())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (dataclasses.replace(FRAMES, chunk_size=39), SettingsError),
        (dataclasses.replace(FRAMES, physical_sample="12345678-1234-4234-8234-123456789abc"), UnknownNameError),
        (dataclasses.replace(POINTS, points_per_chunk=0), SettingsError),
        (dataclasses.replace(POINTS, tags=("12345678-1234-4234-8234-123456789abc",)), UnknownNameError),
    ],
)
def test_a_stream_that_cannot_be_is_said_and_makes_nothing(server, tmp_path, settings, error):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            state = system.series if isinstance(settings, TimeseriesSettings) else system.rheed
            key = new_key()
            with pytest.raises(error):
                await state.initialize(key, settings)
            stream = system.journal.live_stream(key)
            assert stream.data_id is None
            if stream.state is StreamState.GONE:
                assert stream.gone_reason.startswith("not begun: ")
                assert stream.lease_holder is None
            with pytest.raises(SettingsError, match="no live stream"):
                await system.rheed.frames_order(key, 0, 0, (8, 12, 16), 0)

    run(scenario())
    assert creates(server) == 0


def test_frames_and_points_are_not_mixed_up(server, tmp_path):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            frames, points = await system.begin(), await system.begin(POINTS)
            with pytest.raises(SettingsError, match="holds no frames"):
                await system.rheed.frames_order(points.key, 0, 0, (8, 12, 16), 0)
            with pytest.raises(SettingsError, match="holds no time series"):
                await system.series.carry(frames.key, [])

    run(scenario())


def points(data_id: str, seq: int, chunk: int, *values: float, channel: str = "T") -> PointsItem:
    meta, body = encode_channel(data_id, chunk, channel, [1000.0 + chunk + i for i in range(len(values))], values, "K")
    return PointsItem(seq, meta, body)


@pytest.mark.parametrize("generation", ["tool-state", "metrology"])
def test_points_go_by_the_stream_s_generation(server, tmp_path, generation):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state", direct_for_s=20) as system:
            stream = await system.begin(TimeseriesSettings("log", api_generation=generation))
            outcomes = await system.series.carry(
                stream.key, [points(stream.data_id, 0, 0, 1.5, float("nan")), points(stream.data_id, 1, 1, 2.5)]
            )
            assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered]
            assert [r.label for r in system.journal.receipts(stream.key)] == ["chunk 0 of T", "chunk 1 of T"]
            return stream.data_id

    data_id = run(scenario())
    assert {path.split("/")[1] for method, path in server.wire.requests if method == "POST"} == {generation}
    assert stored_points(server.url, data_id)["values"] == [1.5, None, 2.5]


def test_a_refused_request_loses_that_request_alone(server, tmp_path):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state", direct_for_s=20) as system:
            stream = await system.begin(POINTS)
            refused = PointsItem(
                1, points(stream.data_id, 1, 1, 2.5).meta, b'{"data_id": "' + stream.data_id.encode() + b'"}'
            )
            outcomes = await system.series.carry(stream.key, [points(stream.data_id, 0, 0, 1.5), refused])
            assert [type(outcome) for outcome in outcomes] == [Delivered, Lost]
            assert "chunk 1 of T" in outcomes[1].reason
            assert list(system.journal.load(stream.key).lost) == [1]

    run(scenario())


def test_points_are_spooled_when_the_server_stalls(server, tmp_path):
    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state", direct_for_s=0.1, adopts=False) as system:
            stream = await system.begin(POINTS)
            trouble = Trouble(server, "stall", on=uploads)
            outcomes = await system.series.carry(stream.key, [points(stream.data_id, i, i, 1.5) for i in range(3)])
            assert outcomes == [Spooled(0), Spooled(1), Spooled(2)]
            trouble.kind = None
            await system.dispatcher.poke(stream.key)
            await system.delivered(stream)
            assert sorted(system.journal.load(stream.key).confirmed) == [0, 1, 2]

    run(scenario())


def test_many_streams_share_their_connections(server, tmp_path):
    """A camera's script may begin thousands in its life."""

    async def scenario():
        async with LiveSystem(server.url, tmp_path / "state") as system:
            for _ in range(5):
                await system.begin()
                await system.begin(POINTS)
                await system.begin(TimeseriesSettings("log", api_generation="metrology"))
            assert len(system.rheed._open) == 1
            assert len(system.series._open) == 2

    run(scenario())


def test_a_direct_delivery_gives_up_in_time_for_the_spool():
    assert direct_policy(0.7).retry_for_s == 0.7


def test_roles_are_those_of_the_actors_options():
    from actors.options import ACTOR_OPTIONS

    for role in (LiveRHEEDState.role, LiveTimeseriesState.role):
        assert ACTOR_OPTIONS[role]["max_task_retries"] == -1, "initialize may be repeated: it creates once"


def test_the_key_is_shown_nowhere(server, tmp_path):
    import pickle

    system = LiveSystem(server.url, tmp_path / "state")
    assert KEY.reveal() not in repr(system.setup)
    assert KEY.reveal() not in str(system.setup.spool_folder)
    assert pickle.loads(pickle.dumps(system.setup)) == system.setup
    system.journal.close()
