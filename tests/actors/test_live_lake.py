"""Live streams into a lake: what was pushed is what anything that reads Zarr finds there, whatever happened between."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
import xarray
import zarr
from moto.server import ThreadedMotoServer

from actors import RHEEDStreamer, TimeseriesStreamer
from actors.live_setup import LiveOptions, LiveSetup
from actors.spool_delivery import deliver_spool
from ingest.cli.delivering import deliver_leftovers
from ingest.destinations import LakeDestination
from ingest.errors import ArgumentTypeError, FrameDataError, StreamerError, UnreachableError
from ingest.lake.layout import NOT_A_TIME, commit_name, staging_folder
from ingest.lake.local_store import LocalStore
from ingest.lake.opening import open_store
from ingest.ledger import Sealed
from ingest.manifest import manifest_digest
from ingest.outlets import FramesOutlet
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from tests.live_support import FRAMES, POINTS, START_MS, LiveSystem, frames_of, free_port, run, until

ROOT = Path(__file__).parent.parent.parent
MS = np.timedelta64(1, "ms")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def system_at(lake: Path | str, **more) -> LiveSystem:
    """A session without Ray whose destination is a lake, with its state where a streamer has it."""
    state = more.pop("state", None) or Path(lake, ".rheed-ingest")
    return LiveSystem(str(lake), state, key=None, **more)


def expected_times(starts_ms: Mapping[int, int], chunks: Mapping[int, np.ndarray], fps: float) -> np.ndarray:
    """When each frame was captured, in ns, as the wire implies it: ``start + i / fps``."""
    return np.concatenate(
        [starts_ms[i] * 10**6 + np.rint(np.arange(len(chunks[i])) * 1e9 / fps).astype(np.int64) for i in sorted(chunks)]
    )


def assert_in_lake(
    lake: Path, data_id: str, chunks: Mapping[int, np.ndarray], starts_ms: Mapping[int, int], fps: float = 20.0
) -> dict:
    """Assert that a stream is closed and holds just these frames, at these times; return its attributes."""
    group = zarr.open_group(lake / f"{data_id}.zarr", mode="r")
    frames = np.concatenate([chunks[i] for i in sorted(chunks)])
    assert group["frames"].shape == frames.shape
    assert np.array_equal(group["frames"][:], frames)
    assert np.array_equal(group["time"][:], expected_times(starts_ms, chunks, fps))
    assert group["frame_index"][:].tolist() == list(range(len(frames)))
    manifest = json.loads((lake / f"{data_id}.manifest.json").read_text())
    attributes = dict(group.attrs)
    assert manifest["digest"] == attributes["manifest_digest"] == manifest_digest(manifest)
    assert (manifest["state"], manifest["sealed"], manifest["data_id"]) == ("closed", True, data_id)
    assert [chunk["index"] for chunk in manifest["chunks"]] == sorted(chunks)
    assert attributes["frames_stored"] == len(frames)
    assert not (lake / staging_folder(data_id)).exists()
    return attributes


def starts_of(chunks: Mapping[int, np.ndarray]) -> dict[int, int]:
    return {index: START_MS + 400 * index for index in chunks}


@pytest.mark.parametrize(("chunk_size", "fps"), [(40, 20.0), (61, 29.97), (7, 3.0), (200, 20.0)])
def test_irregular_pushes_lie_on_a_regular_grid_frame_by_frame(lake, chunk_size, fps):
    settings = StreamSettings("Growth #7", fps, 0.0, chunk_size, "[110]", "STO-1", tags=("a",))
    lengths = [8, 1, 53, 40, 17, 90, 7, 3]
    chunks = {index: frames_of(index, n) for index, n in enumerate(lengths)}
    starts = {index: START_MS + 5000 * index + 7 * index % 13 for index in chunks}

    async def scenario() -> str:
        async with system_at(lake, window=8) as live:
            stream = await live.begin(settings)
            for index in (3, 0, 1, 7, 2, 5, 4, 6):
                live.push(stream, index, chunks[index], starts[index])
            progress = await live.finalize(stream)
            assert (progress.journal.confirmed, progress.journal.lost) == (8, {})
            return stream.data_id

    data_id = run(scenario())
    attributes = assert_in_lake(lake, data_id, chunks, starts, fps)
    assert data_id.startswith("growth-7-")
    assert {name: attributes[name] for name in ("name", "sample", "tags", "fps", "azimuth_label")} == {
        "name": "Growth #7", "sample": "STO-1", "tags": ["a"], "fps": fps, "azimuth_label": "[110]",
    }  # fmt: skip
    assert (attributes["missing_chunks"], attributes["chunks_never_pushed"]) == ([], [])
    frames = zarr.open_group(lake / f"{data_id}.zarr", mode="r")["frames"]
    assert (frames.shards, frames.chunks) == ((chunk_size, 12, 16), (1, 12, 16))
    with xarray.open_zarr(lake / f"{data_id}.zarr", consolidated=False) as seen:
        dates = seen["time"].values
    assert dates.dtype.kind == "M"
    firsts = np.cumsum([0, *lengths[:-1]])
    assert ((dates[firsts] - np.datetime64(0, "ms")) // MS).tolist() == list(starts.values())


def test_a_black_chunk_is_not_a_lost_one(lake):
    chunks = {0: frames_of(0), 1: np.zeros((8, 12, 16), np.uint8), 2: frames_of(2)}

    async def scenario() -> str:
        async with system_at(lake) as live:
            stream = await live.begin()
            for index, frames in chunks.items():
                live.push(stream, index, frames)
            assert (await live.finalize(stream)).journal.confirmed == 3
            return stream.data_id

    attributes = assert_in_lake(lake, run(scenario()), chunks, starts_of(chunks))
    assert (attributes["frames_lost"], attributes["chunks_stored"], attributes["losses"]) == (0, 3, {})


def test_lost_chunks_are_named_and_what_is_beside_them_keeps_its_times(lake):
    chunks = {0: frames_of(0), 2: frames_of(2), 3: frames_of(3), 6: frames_of(6)}

    async def scenario() -> str:
        async with system_at(lake) as live:
            stream = await live.begin()
            for index, frames in chunks.items():
                live.push(stream, index, frames)
            seq, index = stream.begin(1, "chunk 1")
            stream.drop(seq, index, "no room")
            assert (await live.finalize(stream)).journal.lost == {1: "chunk 1: dropped: no room"}
            return stream.data_id

    data_id = run(scenario())
    attributes = assert_in_lake(lake, data_id, chunks, starts_of(chunks))
    assert attributes["missing_chunks"] == [1]
    assert attributes["losses"] == {"1": "chunk 1: dropped: no room"}
    assert attributes["chunks_never_pushed"] == [[4, 6]]
    times = zarr.open_group(lake / f"{data_id}.zarr", mode="r")["time"][:]
    assert NOT_A_TIME not in times, "how many frames were lost is not known, so that none are made up"
    assert [int(later - before) // 10**6 for before, later in pairwise(times[::8])] == [800, 400, 1200]


def test_a_chunk_that_is_damaged_in_the_spool_is_a_loss_of_its_own(lake):
    chunks = {0: frames_of(0), 2: frames_of(2)}

    async def scenario() -> str:
        live = system_at(lake, direct_for_s=0.0, pokes=False)  # so the dispatcher waits until it is started
        stream = await live.begin()
        for index in range(3):
            live.push(stream, index)
        await live.durable(stream)
        path = live.spool.entries(stream.key)[1].path
        path.write_bytes(path.read_bytes()[:-9])
        async with live:
            progress = await live.finalize(stream)
        assert list(progress.journal.lost) == [1]
        return stream.data_id

    attributes = assert_in_lake(lake, run(scenario()), chunks, starts_of(chunks))
    assert attributes["missing_chunks"] == [1]
    assert "is damaged" in attributes["losses"]["1"]


def test_nothing_and_only_losses_are_closed_too(lake):
    async def scenario() -> list[str]:
        async with system_at(lake) as live:
            empty, lost = await live.begin(), await live.begin()
            lost.drop(*lost.begin(0, "chunk 0"), "no room")
            for stream in (empty, lost):
                await live.finalize(stream)
            return [empty.data_id, lost.data_id]

    groups = [zarr.open_group(lake / f"{data_id}.zarr", mode="r") for data_id in run(scenario())]
    assert [group["frames"].shape[0] for group in groups] == [0, 0]
    assert [group["time"].shape for group in groups] == [(0,), (0,)]
    assert [group.attrs["missing_chunks"] for group in groups] == [[], [0]]


def test_the_last_version_of_a_chunk_stays_however_late_an_earlier_one_comes(lake):
    async def scenario() -> str:
        async with system_at(lake) as live:
            stream = await live.begin()
            for seed in (7, 8):
                live.push(stream, 0, frames_of(seed))
                await live.delivered(stream)
            folder = lake / staging_folder(stream.data_id)
            assert len(list(folder.iterdir())) == 2, "neither can take the other's place"
            await live.finalize(stream)
            return stream.data_id

    assert_in_lake(lake, run(scenario()), {0: frames_of(8)}, {0: START_MS})


def test_two_streams_at_once_and_one_session_over_do_not_mix(lake):
    first, second = ({i: frames_of(seed + i, 5 + i) for i in range(4)} for seed in (10, 20))

    async def scenario() -> list[str]:
        async with system_at(lake, window=8) as live:
            streams = [await live.begin(), await live.begin()]
            for index in range(4):
                for stream, chunks in zip(streams, (first, second), strict=True):
                    live.push(stream, index, chunks[index])
            for stream in streams:
                await live.finalize(stream)
            return [stream.data_id for stream in streams]

    ids = run(scenario())
    assert len(set(ids)) == 2
    for data_id, chunks in zip(ids, (first, second), strict=True):
        assert_in_lake(lake, data_id, chunks, starts_of(chunks))


def test_an_id_of_a_closed_stream_is_never_given_again(lake):
    async def scenario() -> tuple[str, str]:
        async with system_at(lake) as live:
            stream = await live.begin()
            live.push(stream, 0)
            await live.finalize(stream)
            store = open_store(str(lake))
            store.put(commit_name(stream.data_id), [b"{}"])
            again = await live.rheed._maker(FRAMES).open_stream(FRAMES, stream.key)
            return stream.data_id, again

    assert len(set(run(scenario()))) == 2


def test_readings_are_joined_channel_by_channel(lake):
    async def scenario() -> str:
        async with system_at(lake) as live:
            stream = await live.begin(POINTS)
            for index, channel, values in ((1, "T", [3.0, 4.5]), (0, "T", [1.0, float("nan")]), (0, "p", [9.0])):
                live.push_points(stream, index, values, channel)
            live.push_points(stream, 0, [1.0, 2.0], "T")
            assert (await live.finalize(stream)).journal.confirmed == 4
            return stream.data_id

    group = zarr.open_group(lake / f"{run(scenario())}.zarr", mode="r")
    assert group["timeseries/T/value"][:].tolist() == [1.0, 2.0, 3.0, 4.5]
    assert group["timeseries/T/time"][:].tolist() == [1000.0, 1001.0, 1010.0, 1011.0]
    assert group["timeseries/p/value"][:].tolist() == [9.0]
    assert group.attrs["points_lost"] == 0


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_session_that_dies_is_continued_into_the_same_stream(lake):
    chunks = {index: frames_of(index, 5 + 9 * index) for index in range(4)}

    async def scenario() -> str:
        dead = system_at(lake, direct_for_s=0.0, pokes=False, lease_s=0.6)  # its dispatcher never comes up
        stream = await dead.begin()
        for index, frames in chunks.items():
            dead.push(stream, index, frames)
        await dead.durable(stream)
        await dead.aggregator.call("record", stream.key, 1, [Sealed.of(chunks)])
        await dead.die()
        assert len(dead.spool.entries(stream.key)) == 4
        assert not (lake / f"{stream.data_id}.zarr").exists()
        async with system_at(lake, session_id="session-b") as live:
            assert (await live.closed(stream.key)).journal.confirmed == 4
        return stream.data_id

    assert_in_lake(lake, run(scenario()), chunks, starts_of(chunks))


class CutOff(LocalStore):
    """Fails the first of the puts that commit a stream."""

    commits = 0

    def put(self, name, data, *, crc32c=None):
        if name.endswith(".zarr/zarr.json"):
            self.commits += 1
            if self.commits == 1:
                raise UnreachableError("it went away")
        return super().put(name, data, crc32c=crc32c)


def test_a_close_that_was_cut_off_is_done_again(lake):
    """The first close ends before it commits; then the answer of one that did commit is lost."""
    chunks = {index: frames_of(index, 30) for index in range(3)}
    store = CutOff(lake)

    async def scenario() -> str:
        live = system_at(lake, pokes=False)
        stream = await live.begin()
        for index, frames in chunks.items():
            live.push(stream, index, frames)
        await live.durable(stream)
        live.dispatcher._outlets["frames"] = FramesOutlet(LakeDestination(store))
        async with live:
            await live.dispatcher.seal(stream.key, Sealed.of(chunks), {})
            await live.closed(stream.key)
        # Once more, as if nobody had heard of it.
        async with system_at(lake, session_id="session-b") as late:
            contents = await late.aggregator.call("live_contents", stream.key)
            await late.dispatcher._outlet(late.journal.live_stream(stream.key)).close_stream(stream.data_id, contents)
        return stream.data_id

    assert_in_lake(lake, run(scenario()), chunks, starts_of(chunks))
    assert store.commits == 2


def test_a_streamer_that_never_came_back_is_closed_on_request_only(lake):
    chunks = {0: frames_of(0), 1: frames_of(1), 3: frames_of(3)}
    state = lake / ".rheed-ingest"

    def setup(session: str) -> LiveSetup:
        retry = RetryPolicy(first_s=0.01, max_s=0.02, retry_for_s=0.1)
        return LiveSetup(session, str(lake), None, str(state), options=LiveOptions(scan_s=0.05, drain_retry=retry))

    async def scenario() -> str:
        async with system_at(lake, lease_s=0.6) as dead:
            stream = await dead.begin()
            for index in (0, 1):
                dead.push(stream, index)
            await dead.delivered(stream)
        dead = system_at(lake, direct_for_s=0.0, pokes=False, lease_s=0.6)
        dead.push(stream, 3)
        await dead.durable(stream)
        await dead.die()
        delivery = await deliver_spool(setup("cli-1"), retry_for_s=5.0)
        assert (delivery.chunks, delivery.closed, delivery.abandoned) == (1, (), (stream.data_id,))
        assert not (lake / f"{stream.data_id}.zarr").exists()
        delivery = await deliver_spool(setup("cli-2"), retry_for_s=5.0, close_abandoned=True)
        assert (delivery.closed, delivery.abandoned, delivery.left) == ((stream.data_id,), (), ())
        again = await deliver_spool(setup("cli-3"), retry_for_s=5.0, close_abandoned=True)
        assert (again.closed, again.is_complete) == ((), True)
        return stream.data_id

    attributes = assert_in_lake(lake, run(scenario()), chunks, starts_of(chunks))
    assert attributes["chunks_never_pushed"] == [[2, 3]]


def test_a_backfill_into_the_same_lake_delivers_what_streamers_left(lake, capsys):
    async def scenario() -> str:
        dead = system_at(lake, direct_for_s=0.0, pokes=False, lease_s=0.2)
        stream = await dead.begin()
        dead.push(stream, 0)
        await dead.durable(stream)
        await dead.aggregator.call("record", stream.key, 1, [Sealed.of([0])])
        await dead.die()
        return stream.data_id

    data_id = run(scenario())
    deliver_leftovers(str(lake), None, lake / ".rheed-ingest", threading.Event())
    assert f"closed stream {data_id}" in capsys.readouterr().err
    assert_in_lake(lake, data_id, {0: frames_of(0)}, {0: START_MS})


def test_a_living_session_is_not_taken_for_abandoned(lake):
    async def scenario() -> None:
        async with system_at(lake) as live:
            stream = await live.begin()
            live.push(stream, 0)
            await live.delivered(stream)
            setup = LiveSetup("cli", str(lake), None, str(lake / ".rheed-ingest"), options=live.setup.options)
            delivery = await deliver_spool(setup, retry_for_s=5.0, close_abandoned=True)
            assert (delivery.closed, delivery.abandoned) == ((), ())
            assert "session session-a has the stream" in delivery.left[0].reason
            live.push(stream, 1)
            assert (await live.finalize(stream)).journal.confirmed == 2

    run(scenario())


class Bucket:
    """A store on a port of ours that may be stopped and started."""

    url = "s3://live/lake"

    def __init__(self, endpoint_url: str, port: int) -> None:
        self._port = port
        self.start()
        self.client = boto3.client("s3", endpoint_url=endpoint_url)
        self.client.create_bucket(Bucket="live")

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def copy_to(self, folder: Path) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="live", Prefix="lake/"):
            for entry in page["Contents"]:
                path = folder / entry["Key"].removeprefix("lake/")
                path.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file("live", entry["Key"], str(path))


@pytest.fixture
def bucket(aws_environment) -> Iterator[Bucket]:
    port = free_port()
    aws_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bucket = Bucket(f"http://127.0.0.1:{port}", port)
    yield bucket
    bucket.stop()
    bucket.client.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_store_that_is_away_fills_the_spool_which_empties_when_it_is_back(bucket, lake, tmp_path):
    chunks = {index: frames_of(index, 25) for index in range(4)}

    async def scenario() -> str:
        async with system_at(bucket.url, state=tmp_path / "state", direct_for_s=0.5) as live:
            stream = await live.begin()
            live.push(stream, 0, chunks[0])
            await live.delivered(stream)
            bucket.stop()
            for index in (1, 2, 3):
                live.push(stream, index, chunks[index])
            await live.durable(stream)
            assert len(live.spool.entries(stream.key)) == 3, "a push waits for the disk, not for the network"
            await until(lambda: live.dispatcher._held[stream.key].drain.stalled_by)
            bucket.start()
            assert (await live.finalize(stream)).journal.confirmed == 4
            return stream.data_id

    data_id = run(scenario())
    bucket.copy_to(lake)
    assert_in_lake(lake, data_id, chunks, starts_of(chunks))


# -- the classes -------------------------------------------------------------------------------------------------------

OPTIONS = LiveOptions(packers=1, lease_s=2.0, scan_s=0.2)


def test_what_cannot_be_a_destination_is_named():
    with pytest.raises(ArgumentTypeError, match="api_key is a NoneType"):
        RHEEDStreamer()
    with pytest.raises(ArgumentTypeError, match="destination is a int"):
        RHEEDStreamer(destination=7)
    with pytest.raises(StreamerError, match="both given"):
        RHEEDStreamer("key", "https://a.test", destination="/data/lake")
    with pytest.raises(StreamerError, match="memory of one process"):
        TimeseriesStreamer(destination="memory://lake")
    with pytest.raises(StreamerError, match="no query"):
        RHEEDStreamer(destination="s3://bucket/lake?x=1")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
class TestOnRay:
    def test_frames_and_readings_with_a_packer_killed_between(self, lake) -> None:
        with (
            RHEEDStreamer(destination=lake, options=OPTIONS) as streamer,
            TimeseriesStreamer(destination=str(lake), options=OPTIONS) as log,
        ):
            assert streamer.clock_status() is None
            data_id = streamer.initialize(20.0, 0.0, 40, stream_name="Growth")
            log_id = log.initialize("Heater")
            chunks = {index: frames_of(index, 33) for index in range(6)}
            for index in range(3):
                streamer.push(data_id, index, chunks[index], START_MS + 400 * index)
            log.push(log_id, 0, "T", [1000.0, 1001.5], [20.5, 21.5], "degC")
            [packer] = streamer._session.pool()._handles.values()
            os.kill(streamer._session.wait(packer.call("ping"), "no packer"), signal.SIGKILL)
            for index in range(3, 6):
                streamer.push(data_id, index, chunks[index], START_MS + 400 * index)
            with pytest.raises(FrameDataError, match=r"chunk 6: frames of \(5, 5\).*\(12, 16\)"):
                streamer.push(data_id, 6, np.zeros((1, 5, 5)))
            report = streamer.finalize(data_id)
            assert (report["chunks_uploaded"], report["lost"], report["form"]) == (6, [], "close")
            assert streamer.finalize(data_id) == report
            assert streamer.status(data_id).is_closed
            assert Path(streamer.spool_status()["dir"]).is_relative_to(lake / ".rheed-ingest" / "spool")
            assert log.finalize(log_id)["chunks_uploaded"] == 1
        assert_in_lake(lake, data_id, chunks, starts_of(chunks))
        group = zarr.open_group(lake / f"{log_id}.zarr", mode="r")
        assert group["timeseries/T/value"][:].tolist() == [20.5, 21.5]
        assert group["timeseries/T/value"].attrs["units"] == "degC"

    def test_stamps_are_the_hosts_and_state_dir_moves_the_journal(self, lake, tmp_path) -> None:
        with RHEEDStreamer("unused", destination=lake, state_dir=tmp_path / "st", options=OPTIONS) as streamer:
            data_id = streamer.initialize(20.0, 0.0, 40)
            began_ms = time.time_ns() // 10**6
            streamer.run(data_id, iter([frames_of(0), frames_of(1)]))
            ended_ms = time.time_ns() // 10**6
            streamer.finalize(data_id)
        times = zarr.open_group(lake / f"{data_id}.zarr", mode="r")["time"][:]
        assert began_ms <= times[0] // 10**6 <= times[8] // 10**6 <= ended_ms
        assert (tmp_path / "st" / "journal.sqlite3").exists() or any((tmp_path / "st").iterdir())
        assert {path.name for path in lake.iterdir()} <= {
            f"{data_id}.zarr", f"{data_id}.manifest.json", ".rheed-ingest",
        }  # fmt: skip
        assert not (lake / ".rheed-ingest" / "spool").exists()


@pytest.mark.cluster
def test_a_script_that_is_killed_loses_nothing_that_was_acknowledged(lake, tmp_path):
    script = Path(__file__).with_name("streamer_script.py")
    environment = {**os.environ, "AS_API_KEY": "", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(lake), str(lake / ".rheed-ingest"), str(tmp_path), "killed"],
        env=environment, cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ends_s = time.monotonic() + 60
        while not (tmp_path / "pushed").exists() or int((tmp_path / "pushed").read_text()) < 12:
            assert time.monotonic() < ends_s
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    pushed = int((tmp_path / "pushed").read_text())
    data_id = (tmp_path / "data_id").read_text()
    command = [
        sys.executable, "-m", "ingest", "spool", "deliver", "--to", str(lake), "--close-abandoned", "--json",
    ]  # fmt: skip
    ends_s = time.monotonic() + 60
    while True:
        ran = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        if ran.returncode == 0:
            break
        # The script's actors live on for some seconds, and their lease with them.
        assert "has the stream" in ran.stdout, ran.stderr
        assert time.monotonic() < ends_s
    assert json.loads(ran.stdout)["closed"] == [data_id]
    manifest = json.loads((lake / f"{data_id}.manifest.json").read_text())
    indices = [chunk["index"] for chunk in manifest["chunks"]]
    chunks = {index: frames_of(index, 40, 100, 100) for index in indices}
    assert_in_lake(lake, data_id, chunks, {index: START_MS + 2000 * index for index in indices})
    assert set(range(pushed + 1 - 4)) <= set(indices), "more than the window of 4 is lost"
