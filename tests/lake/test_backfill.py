"""Archived runs into a lake: every frame and its time, resumed, taken over, sent anew, and beside a platform."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from ingest.destinations import LakeDestination
from ingest.errors import FrameDataError, UnreachableError
from ingest.lake.layout import NOT_A_TIME
from ingest.ledger import StreamState
from ingest.series_plan import origin_digest
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.telemetry import Telemetry
from tests.actors.test_system import assert_whole
from tests.support import KEY, System, ThreadServer, backfill_without_ray, make_run, plan_of


def tree(folder) -> dict[str, bytes]:
    """Return every file below a folder but the state."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".rheed-ingest" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_in_lake(lake, data_id, run) -> None:
    """Every frame is there, at its own time to the nanosecond."""
    data = xarray.open_zarr(lake / f"{data_id}.zarr", consolidated=False)
    np.testing.assert_array_equal(data.frames.values, run.frames(0, run.count))
    np.testing.assert_array_equal(data.time.values, run.timestamps_ns().astype("M8[ns]"))
    np.testing.assert_array_equal(data.frame_index.values, run.frame_numbers() + 1)  # as areaDetector counts


def backfill(lake, *runs, state=None, **options):
    return backfill_without_ray(str(lake), state or lake / ".rheed-ingest", *runs, **options)


@pytest.mark.parametrize("remainder", [0, 1, 2, 20, 39])
@pytest.mark.parametrize("chunking", [None, "gap-aware"])
def test_every_frame_arrives_with_its_own_time(tmp_path, remainder, chunking):
    run = make_run(tmp_path / "a.h5", frames=120 + remainder)
    settings = {} if chunking is None else {"chunking": chunking}
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)], sample="STO-1", tag=("x",), **settings)
    [row] = backfill(lake, named)
    assert (row.state, row.end.status, row.lost) == (StreamState.CLOSED, "complete", 0)
    assert_in_lake(lake, row.data_id, run)
    assert row.data_id.startswith("a-")
    group = zarr.open_group(lake / f"{row.data_id}.zarr", mode="r")
    assert group["frames"].shards == (named[1].settings.chunk_size, 24, 32)
    assert group["frames"].metadata.dimension_names == ("frame", "y", "x")
    assert (group.attrs["sample"], group.attrs["tags"], group.attrs["frames_stored"]) == ("STO-1", ["x"], run.count)
    assert group.attrs["provenance"]["source"]["fingerprint"] == named[1].fingerprint
    # Nothing waits any more, and nothing that zarr does not know lies in the group.
    assert not (lake / ".rheed-ingest" / "staging" / row.data_id).exists()
    assert {name for name, _ in group.members(max_depth=0)} == {"frames", "time", "frame_index"}


def test_others_read_it_too(tmp_path):
    import zarrs  # noqa: F401 - is registered by its import path

    run = make_run(tmp_path / "a.h5", frames=90)
    lake = tmp_path / "lake"
    [row] = backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)]))
    frames = run.frames(0, run.count)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(lake / f"{row.data_id}.zarr" / "frames")}}
    np.testing.assert_array_equal(tensorstore.open(spec, read=True).result().read().result(), frames)
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        np.testing.assert_array_equal(zarr.open_array(lake / f"{row.data_id}.zarr" / "frames", mode="r")[...], frames)


def test_xarray_shows_the_dates(tmp_path):
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    lake = tmp_path / "lake"
    [row] = backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)], start="2023-10-18T08:00:00.123+02:00"))
    data = xarray.open_zarr(lake / f"{row.data_id}.zarr", consolidated=False)
    assert str(data.time.values[0])[:23] == "2023-10-18T06:00:00.123"
    assert data.time.dtype == "datetime64[ns]"


def test_again_means_nothing_and_without_the_state_its_receipts_are_taken_over(tmp_path):
    make_run(tmp_path / "a.h5", frames=130)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [first] = backfill(lake, named)
    before = {path: os.stat(lake / path).st_mtime_ns for path in tree(lake)}
    [again] = backfill(lake, named, state=tmp_path / "other-state", job_id="again")
    assert (again.end.status, again.data_id, again.resumed) == ("skipped", first.data_id, first.chunks)
    assert {path: os.stat(lake / path).st_mtime_ns for path in tree(lake)} == before


def test_sent_anew_it_lies_beside_the_first(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=90)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [first] = backfill(lake, named)
    system = System(str(lake), lake / ".rheed-ingest", job_id="anew")
    system.register(named, restart=True)
    [second] = system.work()
    assert second.data_id == f"{first.data_id}-2"
    assert second.end.status == "complete"
    for row in (first, second):
        assert_in_lake(lake, row.data_id, run)


class Watch(Telemetry):
    """Says when an event has come for the n-th time."""

    def __init__(self, name: str, n: int = 1) -> None:
        super().__init__()
        self.name, self.left = name, n

    def emit(self, name, *args, **kwargs):
        self.left -= name == self.name
        return super().emit(name, *args, **kwargs)

    async def seen(self) -> None:
        while self.left > 0:
            await asyncio.sleep(0)


@pytest.mark.parametrize("event", ["chunk_put", "close_posting", "close_answered"])
def test_a_job_that_was_killed_is_resumed_into_the_same_stream(tmp_path, event):
    run = make_run(tmp_path / "a.h5", frames=130)
    lake, reference = tmp_path / "lake", tmp_path / "reference"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [whole] = backfill(reference, named)
    watch = Watch(event, 2 if event == "chunk_put" else 1)
    system = System(str(lake), lake / ".rheed-ingest", telemetry=watch, lease_s=0.3)
    system.register(named)

    async def until_seen() -> None:
        system.dispatcher.start()
        await watch.seen()

    system.run(until_seen())  # and everything is dropped where it is
    [row] = backfill(lake, named, job_id="again")
    assert (row.state, row.data_id) == (StreamState.CLOSED, whole.data_id)
    assert_in_lake(lake, row.data_id, run)
    mine, theirs = tree(lake), tree(reference)
    assert mine.keys() == theirs.keys()
    differing = {path for path in mine if mine[path] != theirs[path]}
    assert all(path.endswith(".json") for path in differing)  # ETags and the like may, frames and times may not


def test_frames_that_could_not_be_read_are_no_time(tmp_path, monkeypatch):
    import ingest.packing

    run = make_run(tmp_path / "a.h5", frames=100)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])

    def damaged(source, start, stop, memory):
        frames = source.read(start, stop, memory)
        lost = tuple(i for i in range(stop - start) if start + i in (3, 41, 42, 99))
        frames[list(lost)] = 0
        return frames, lost

    monkeypatch.setattr(ingest.packing, "read_what_is_there", damaged)
    [row] = backfill(lake, named)
    assert row.end.status == "partial"
    data = xarray.open_zarr(lake / f"{row.data_id}.zarr", consolidated=False)
    assert np.flatnonzero(np.isnat(data.time.values)).tolist() == [3, 41, 42, 99]
    assert np.flatnonzero(data.frame_index.values == -1).tolist() == [3, 41, 42, 99]
    kept = [i for i in range(100) if i not in (3, 41, 42, 99)]
    np.testing.assert_array_equal(data.frames.values[kept], run.frames(0, 100)[kept])
    raw = zarr.open_array(lake / f"{row.data_id}.zarr" / "time", mode="r")[...]
    assert (raw[[3, 41]] == NOT_A_TIME).all()


def test_a_shard_that_someone_removed_is_noticed_before_the_commit(tmp_path):
    make_run(tmp_path / "a.h5", frames=130, gap=None)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])

    class Remove(Telemetry):
        def emit(self, name, *args, **kwargs):
            if name == "close_posting":
                next(lake.glob("*.zarr/frames/c/1/0/0")).unlink()
            return super().emit(name, *args, **kwargs)

    [row] = backfill(lake, named, telemetry=Remove())
    assert row.end.status == "failed"
    assert "is gone" in row.end.error
    assert not (lake / f"{row.data_id}.zarr" / "zarr.json").exists()


def test_a_platform_and_a_lake_get_the_same_frames_packed_once(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"

    class Count(Telemetry):
        def __init__(self):
            super().__init__()
            self.packed = []

        def emit(self, name, *args, **kwargs):
            if name == "chunk_packed":
                self.packed.append(args[1])
            return super().emit(name, *args, **kwargs)

    count = Count()
    with ThreadServer(tmp_path / "server") as server:
        to = [server.url, str(lake)]
        named = plan_of(tmp_path / "a.h5", to=to)
        size = named[1].settings.chunk_size
        assert all(task.start // size == (task.stop - 1) // size for task in named[1].chunks)
        rows = backfill_without_ray(to, tmp_path / "state", named, telemetry=count, key=KEY)
        assert [row.end.status for row in rows] == ["complete", "complete"]
        assert_whole(server, rows[0].data_id, run, named[1])
    assert_in_lake(lake, rows[1].data_id, run)
    assert sorted(count.packed) == list(range(len(named[1].chunks)))


def test_a_destination_that_hangs_holds_back_no_other(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=400)
    lake = tmp_path / "lake"
    with ThreadServer(tmp_path / "server") as server:
        goes_on = threading.Event()

        async def hang(scope, receive, send):
            while scope["method"] == "PUT" and not goes_on.is_set():
                await asyncio.sleep(0.02)

        server.wire.act = hang
        to = [server.url, str(lake)]
        named = plan_of(tmp_path / "a.h5", to=to)
        system = System(to, tmp_path / "state", packers=1)
        system.register(named)

        async def until_the_lake_has_it() -> None:
            system.dispatcher.start()
            while system.journal.job("job")[1].end is None:
                await asyncio.sleep(0.01)

        system.run(until_the_lake_has_it())
        goes_on.set()
        stuck, done = system.journal.job("job")
    assert (stuck.end, stuck.confirmed, done.end.status) == (None, 0, "complete")
    assert_in_lake(lake, done.data_id, run)


def test_the_manifest_tells_what_was_sent(tmp_path):
    make_run(tmp_path / "a.h5", frames=90)
    lake = tmp_path / "lake"
    [row] = backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)]))
    manifest = json.loads((lake / f"{row.data_id}.manifest.json").read_bytes())
    assert manifest["state"] == "closed"
    assert sum(chunk["frames"] for chunk in manifest["chunks"]) == 90
    assert zarr.open_group(lake / f"{row.data_id}.zarr", mode="r").attrs["manifest_digest"] == manifest["digest"]


# -- two jobs that know nothing of each other, and lakes that changed behind a job's back ----


def unreadable(monkeypatch, frames: range) -> None:
    """Have the source give some frames no more."""
    import ingest.packing

    real = ingest.packing.read_what_is_there

    def damaged(source, start, stop, memory):
        if frames.start <= start and stop <= frames.stop:
            raise FrameDataError("rotten")
        read, lost = real(source, start, stop, memory)
        more = tuple(i for i in range(stop - start) if start + i in frames)
        read[list(more)] = 0
        return read, (*lost, *more)

    monkeypatch.setattr(ingest.packing, "read_what_is_there", damaged)


def begin(lake, state, named, job_id: str) -> None:
    """Begin a job and drop it once a chunk has its receipt."""
    system = System(str(lake), state, job_id=job_id, lease_s=0.2, packers=1)
    system.register(named)

    async def until_one() -> None:
        system.dispatcher.start()
        while system.journal.job(job_id)[0].confirmed == 0:
            await asyncio.sleep(0)

    system.run(until_one())
    [row] = system.journal.job(job_id)
    assert 0 < row.confirmed < row.chunks


@pytest.mark.parametrize("frames", [range(400, 490), range(450, 452)])
def test_a_job_that_reads_less_takes_nothing_from_what_another_has_closed(tmp_path, monkeypatch, frames):
    run = make_run(tmp_path / "a.h5", frames=600, gap=None)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    begin(lake, tmp_path / "slow", named, "slow")
    [done] = backfill(lake, named, state=tmp_path / "quick", job_id="quick")
    before = tree(lake)
    unreadable(monkeypatch, frames)
    [row] = backfill(lake, named, state=tmp_path / "slow", job_id="slow again", packers=1)
    assert row.end.status in ("partial", "failed")
    assert tree(lake) == before
    assert_in_lake(lake, done.data_id, run)


def test_what_is_closed_there_is_taken_over_also_by_a_job_that_was_cut_off_before_it_looked(tmp_path, monkeypatch):
    make_run(tmp_path / "a.h5", frames=160, gap=None)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    backfill(lake, named, state=tmp_path / "first", job_id="first")
    held = LakeDestination.held

    async def away(self, data_id):
        raise UnreachableError("the lake does not answer")

    monkeypatch.setattr(LakeDestination, "held", away)
    [cut] = backfill(lake, named, state=tmp_path / "second", job_id="second")
    assert cut.end.status == "partial"
    monkeypatch.setattr(LakeDestination, "held", held)
    before = {path: os.stat(lake / path).st_mtime_ns for path in tree(lake)}
    [row] = backfill(lake, named, state=tmp_path / "second", job_id="again")
    assert (row.end.status, row.resumed) == ("skipped", row.chunks)
    assert {path: os.stat(lake / path).st_mtime_ns for path in tree(lake)} == before


def test_a_restart_that_was_cut_off_is_still_one(tmp_path, monkeypatch):
    make_run(tmp_path / "a.h5", frames=90)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [first] = backfill(lake, named)
    opened = LakeDestination.open_stream

    async def away(self, *arguments):
        raise UnreachableError("the lake does not answer")

    for job_id, method in (("cut", away), ("again", opened)):
        monkeypatch.setattr(LakeDestination, "open_stream", method)
        system = System(str(lake), lake / ".rheed-ingest", job_id=job_id)
        system.register(named, restart=True)
        [row] = system.work()
    assert (row.end.status, row.data_id) == ("complete", f"{first.data_id}-2")


@pytest.mark.parametrize("damage", ["frames", "frames/c/1", "manifest"])
def test_a_closed_stream_that_lost_its_frames_is_not_taken_for_whole(tmp_path, damage):
    run = make_run(tmp_path / "a.h5", frames=160, gap=None)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [row] = backfill(lake, named, state=tmp_path / "first", job_id="first")
    if damage == "manifest":
        (lake / f"{row.data_id}.manifest.json").unlink()
    else:
        shutil.rmtree(lake / f"{row.data_id}.zarr" / damage)
    [again] = backfill(lake, named, state=tmp_path / "second", job_id="second")
    assert (again.end.status, again.data_id) == ("complete", row.data_id)
    assert_in_lake(lake, again.data_id, run)
    assert (lake / f"{row.data_id}.manifest.json").exists()


def test_a_name_that_another_recording_has_already_is_left_to_it(tmp_path, monkeypatch):
    import ingest.destinations.lake as lakes

    runs = {name: make_run(tmp_path / f"{name}.h5", seed=ord(name), frames=120) for name in "ab"}
    lake = tmp_path / "lake"
    real = lakes.lake_data_id  # eight digits meet by chance, once in many thousand runs of one name
    monkeypatch.setattr(lakes, "lake_data_id", lambda name, digest, attempt: real("run", "same", attempt))
    rows = [
        backfill(lake, plan_of(tmp_path / f"{name}.h5", to=[str(lake)]), state=tmp_path / name, job_id=name)[0]
        for name in "ab"
    ]
    assert rows[1].data_id == f"{rows[0].data_id}-2"
    for name, row in zip("ab", rows, strict=True):
        assert_in_lake(lake, row.data_id, runs[name])


def test_with_a_platform_beside_it_a_run_has_the_same_stream(tmp_path):
    make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"
    alone = plan_of(tmp_path / "a.h5", to=[str(lake)])
    [row] = backfill(lake, alone, state=tmp_path / "one")
    with ThreadServer(tmp_path / "server") as server:
        to = [server.url, str(lake)]
        rows = backfill_without_ray(to, tmp_path / "both", plan_of(tmp_path / "a.h5", to=to))
    assert [one.end.status for one in rows] == ["complete", "skipped"]
    assert rows[1].data_id == row.data_id


def test_stamps_that_are_left_out_make_another_run(tmp_path):
    make_run(tmp_path / "a.h5", frames=90, gap=40)
    start = "2023-11-14T22:13:20Z"
    one, other = (
        plan_of(tmp_path / "a.h5", to=[str(tmp_path)], fps=20.0, start=start, ignore_stamps=ignored, chunking="regular")
        for ignored in (False, True)
    )
    assert one[1].identity() != other[1].identity()
    assert origin_digest(one[1]) != origin_digest(other[1])


def test_a_run_full_of_gaps_makes_no_crowd_of_chunks_in_a_lake_alone(tmp_path):
    run = GrowthRun(200, 24, 32, fps=20.0, gaps=tuple((frame, 0.5) for frame in range(10, 200, 10)))
    write_hdf5(tmp_path / "a.h5", run)
    lake = str(tmp_path / "lake")
    alone, asked, beside = (
        plan_of(tmp_path / "a.h5", to=to, **settings)[1]
        for to, settings in (([lake], {}), ([lake], {"chunking": "gap-aware"}), ([lake, "http://127.0.0.1:1"], {}))
    )
    assert (alone.chunking, len(alone.chunks)) == ("regular", alone.ideal_chunks)
    assert (asked.chunking, beside.chunking) == ("gap-aware", "gap-aware")
    assert len(asked.chunks) == len(beside.chunks) > 2 * alone.ideal_chunks
    [row] = backfill(tmp_path / "lake", ("a.h5", alone))
    assert_in_lake(tmp_path / "lake", row.data_id, run)
