"""The whole job without Ray, against a platform that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from actors.handles import ActorLostError, LocalHandle
from actors.packer import Packer
from ingest.destinations.readback import read_back
from ingest.journal import Journal
from ingest.retry import RetryPolicy
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.wire.client import PlatformClient
from tests.support import KEY, QUICK, System, ThreadServer, answer, backfill_without_ray, make_run, plan_of


def stored(server: ThreadServer, data_id: str):
    """Return a stream and its chunks as the server holds them."""

    async def read():
        async with PlatformClient(server.url, KEY) as client:
            return await client.stream(data_id), [chunk async for chunk in read_back(client, data_id)]

    return asyncio.run(read())


def streams(server: ThreadServer) -> list[dict]:
    async def read():
        async with PlatformClient(server.url, KEY) as client:
            return await client.list_streams()

    return asyncio.run(read())


def assert_whole(server: ThreadServer, data_id: str, run, plan) -> None:
    """Every frame and every time is there, once, and the stream was closed once."""
    stream, chunks = stored(server, data_id)
    assert (stream["status"], stream["times_closed"]) == ("closed", 1)
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert np.array_equal(frames, run.frames(0, run.count))
    error_ms = np.abs(np.concatenate([chunk.timestamps_ms for chunk in chunks]) - run.timestamps_ns() / 1e6)
    assert error_ms.max() <= 500 / plan.settings.fps + 1
    assert error_ms.max() == pytest.approx(plan.time_error.worst_ms, abs=0.01)


def test_a_run_arrives_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5", sample="S 1", tag=("x", "X", "y"))
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert (row.end.status, row.confirmed, row.chunks) == ("complete", len(named[1].chunks), len(named[1].chunks))
        assert_whole(server, row.data_id, run, named[1])
        [stream] = streams(server)
        assert stream["sample"]["name"] == "S 1"
        assert [tag["name"] for tag in stream["tags"]] == ["x", "y"]


def test_a_finished_run_sends_nothing_again(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        backfill_without_ray(server.url, tmp_path / "state", named)
        server.wire.requests.clear()
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        assert row.end.status == "skipped"
        assert server.wire.requests == []


def test_an_interrupted_run_goes_on_in_the_same_stream_without_putting_confirmed_chunks_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=400)
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        first = System(server.url, tmp_path / "state")
        [key] = first.register(named)

        async def three_chunks() -> None:
            first.dispatcher.start()
            while first.journal.row(key).confirmed < 3:
                await asyncio.sleep(0.001)

        first.run(three_chunks())
        before = {receipt.index for receipt in first.journal.receipts(key)}
        time.sleep(0.3)  # uploads that the server had begun
        server.wire.requests.clear()
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="second")
        assert row.key == key
        assert row.end.status == "complete"
        assert row.resumed >= 3
        put = {int(path.split("/")[3]) for method, path in server.wire.requests if method == "PUT"}
        assert put.isdisjoint(before)
        assert_whole(server, row.data_id, run, named[1])
        assert len(streams(server)) == 1


def test_one_bad_run_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in "abc":
        make_run(tmp_path / f"{name}.h5", seed=ord(name))
    runs = [plan_of(tmp_path / f"{name}.h5") for name in "abc"]
    (tmp_path / "b.h5").unlink()
    with ThreadServer(tmp_path / "server") as server:
        rows = backfill_without_ray(server.url, tmp_path / "state", *runs)
    assert [row.end.status for row in rows] == ["complete", "failed", "complete"]
    assert "b.h5" in rows[1].end.error


def test_a_refused_chunk_is_a_reported_loss(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")

    async def refuse_chunk_2(scope, receive, send):
        if scope["path"].endswith("upload_urls/") and b"c/2/0/0" in scope["query_string"].replace(b"%2F", b"/"):
            return await answer(send, 422, b'{"detail":"dims are not to our taste"}')
        return None

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = refuse_chunk_2
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert (row.end.status, row.lost, row.confirmed) == ("partial", 1, row.chunks - 1)
        assert "1 of" in row.end.error
        assert "dims are not to our taste" in System(server.url, tmp_path / "state").journal.load(row.key).lost[2]
        stream, chunks = stored(server, row.data_id)
        assert stream["status"] == "closed"
        assert 2 not in [chunk.index for chunk in chunks]


def test_a_redirect_is_no_loss_and_the_run_resumes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")

    async def maintenance_page(scope, receive, send):
        asked = scope["path"].endswith("upload_urls/") and b"c/2/0/0" in scope["query_string"].replace(b"%2F", b"/")
        return asked and await answer(send, 302, headers=[(b"location", b"/sorry")])

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = maintenance_page
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert (row.end.status, row.state, row.lost) == ("failed", "open", 0)
        server.wire.act = None
        [again] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        assert (again.end.status, again.data_id) == ("complete", row.data_id)
        assert_whole(server, again.data_id, run, named[1])


def test_a_wrong_sample_is_corrected_by_running_again(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    wrong = plan_of(tmp_path / "a.h5", sample="12345678-1234-4234-8234-123456789abc")
    right = plan_of(tmp_path / "a.h5", sample="the right one")
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", wrong)
        assert row.end.status == "failed"
        [again] = backfill_without_ray(server.url, tmp_path / "state", right, job_id="again")
        assert again.end.status == "complete"
        assert [stream["sample"]["name"] for stream in streams(server)] == ["the right one"]


def test_a_stream_is_created_once_however_often_the_call_is_repeated(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state")
        [key] = system.register(named)

        async def twice() -> None:
            epoch = (await system.aggregator.call("lease", "job", key)).epoch
            first = await system._streamer.initialize(key, epoch, named[1], None, server.url)
            assert await system._streamer.initialize(key, epoch, named[1], None, server.url) == first

        system.run(twice())
        creates = [path for method, path in server.wire.requests if (method, path) == ("POST", "/rheed/stream/")]
        assert len(creates) == 1


def test_a_fault_in_one_run_ends_that_run_alone(tmp_path: Path) -> None:
    runs = {}
    for name in "ab":
        make_run(tmp_path / f"{name}.h5", seed=ord(name))
        runs[name] = plan_of(tmp_path / f"{name}.h5")
    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state")
        bad, _ = system.register(*runs.values())
        orders = system._streamer.orders

        async def broken(job_id, key, *asked):
            if key == bad:
                raise ZeroDivisionError("a bug of ours")
            return await orders(job_id, key, *asked)

        system._streamer.orders = broken
        rows = system.work()
    assert [row.end.status for row in rows] == ["failed", "complete"]
    assert "a bug of ours" in rows[0].end.error


def test_a_chunk_that_ends_every_packer_ends_its_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pool.REST_S", 0.01)
    runs = {}
    for name in "ab":
        make_run(tmp_path / f"{name}.h5", seed=ord(name))
        runs[name] = plan_of(tmp_path / f"{name}.h5")
    packers = []

    class CrashedByChunk1OfA:
        def __init__(self, url: str) -> None:
            packers.append(Packer(KEY, QUICK, 1))
            self.handle = LocalHandle(packers[-1])

        async def call(self, method, *args):
            if args and args[0].task.index == 1 and args[0].spec.paths[0].endswith("a.h5"):
                raise ActorLostError("segmentation fault")
            return await self.handle.call(method, *args)

    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state", spawn=lambda n: CrashedByChunk1OfA(server.url))
        system.register(*runs.values())
        system._packers = packers
        rows = system.work()
    assert [row.end.status for row in rows] == ["failed", "complete"]
    assert "packers ended" in rows[0].end.error


def damaged_run(path: Path, *bad: int) -> None:
    """Write a run of 120 frames whose `bad` ones do not decompress."""
    with h5py.File(path, "w") as file:
        frames = file.create_dataset(
            "frames", data=np.full((120, 24, 32), 7, np.uint8), chunks=(1, 24, 32), compression=1
        )
        file["timestamps"] = 1.7e9 + np.arange(120) / 20
        places = [frames.id.get_chunk_info(i).byte_offset for i in bad]
    with path.open("r+b") as raw:
        for where in places:
            raw.seek(where)
            raw.write(b"\xff" * 8)


def test_damaged_frames_are_lost_in_their_place_and_all_others_arrive(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    damaged_run(path, 50, 51, 79)
    named = plan_of(path)
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        stream, chunks = stored(server, row.data_id)
        again = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")[0]
    assert (row.end.status, row.lost, row.confirmed, row.frames_lost) == ("partial", 0, 3, 3)
    assert "3 frame(s) could not be read" in row.end.error
    assert (again.end.status, again.data_id) == ("partial", row.data_id), "and again says so, and sends nothing"
    journal = Journal(tmp_path / "state", time.time)
    assert {r.index: r.lost_frames for r in journal.receipts(row.key) if r.lost_frames} == {1: (10, 11, 39)}
    journal.close()
    whole = np.concatenate([chunk.frames for chunk in chunks])
    assert whole.shape[0] == 120
    assert np.flatnonzero(~whole.any(axis=(1, 2))).tolist() == [50, 51, 79]
    assert {chunk["index"]: chunk["lost_frames"] for chunk in stream["chunk_list"]} == {0: [], 1: [10, 11, 39], 2: []}
    assert (stream["frames"], stream["frames_lost"]) == (120, 3)
    assert [chunk.lost_frames for chunk in chunks] == [(), (10, 11, 39), ()]


def test_a_chunk_of_which_no_frame_can_be_read_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    damaged_run(path, *range(40, 80))
    named = plan_of(path)
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
    assert (row.end.status, row.lost, row.confirmed, row.frames_lost) == ("partial", 1, 2, 0)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "API key"), (403, "API key"), (500, "500"), (503, "503")],
    ids=["401", "403", "500", "503"],
)
def test_a_platform_that_only_refuses_ends_the_run_with_its_word(tmp_path: Path, status: int, words: str) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    named = plan_of(tmp_path / "a.h5")

    async def refuse(scope, receive, send):
        return await answer(send, status)

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = refuse
        retry = RetryPolicy(first_s=0.01, max_s=0.05, retry_for_s=0.3)
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, retry=retry)
    assert row.end.status == ("failed" if status in (401, 403) else "partial")
    assert words in f"{row.end.error} {row.end.hint}"
    assert KEY.reveal() not in row.end.error + (row.end.hint or "")


def test_an_unknown_sample_id_creates_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    named = plan_of(tmp_path / "a.h5", sample="12345678-1234-4234-8234-123456789abc")
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert row.end.status == "failed"
        assert "12345678-1234-4234-8234-123456789abc" in row.end.error
        assert streams(server) == []


def test_a_link_that_fails_closes_the_stream_and_names_it_and_the_next_job_makes_another(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=60, gap=None)
    named = plan_of(tmp_path / "a.h5", sample="S")

    async def refuse_link(scope, receive, send):
        if scope["path"].rstrip("/") == "/data_entries/physical_sample":
            return await answer(send, 422)
        return None

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = refuse_link
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert row.end.status == "failed"
        assert row.data_id in row.end.error
        assert [stream["status"] for stream in streams(server)] == ["closed"]
        server.wire.act = None
        [again] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        assert again.end.status == "complete"
        assert again.replaces == row.data_id
        assert_whole(server, again.data_id, run, named[1])


def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")
    back_at = time.monotonic() + 1.0

    async def away(scope, receive, send):
        return time.monotonic() < back_at and await answer(send, 503, headers=[(b"retry-after", b"0")])

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = away
        [row] = backfill_without_ray(server.url, tmp_path / "state", named)
        assert row.end.status == "complete"
        assert_whole(server, row.data_id, run, named[1])


def test_a_server_that_stays_away_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=400)
    named = plan_of(tmp_path / "a.h5")
    retry = RetryPolicy(first_s=0.01, max_s=0.05, retry_for_s=0.4)
    with ThreadServer(tmp_path / "server") as server:

        async def gone_after_two(scope, receive, send):
            puts = sum(method == "PUT" for method, _ in server.wire.requests)
            return puts > 2 and await answer(send, 503, headers=[(b"retry-after", b"0")])

        server.wire.act = gone_after_two
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, retry=retry)
        assert row.end.status == "partial"
        assert row.state == "open"
        assert "run again" in row.end.hint
        server.wire.act = None
        [again] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        assert (again.end.status, again.data_id) == ("complete", row.data_id)
        assert_whole(server, row.data_id, run, named[1])


def test_a_stream_that_the_platform_failed_is_sent_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")
    times = {"now": time.time()}
    with ThreadServer(tmp_path / "server", clock=lambda: times["now"], silent_stream_s=7200) as server:
        gone_at_chunk = {"n": 0}

        async def three_hours_pass(scope, receive, send):
            if scope["method"] == "PUT":
                gone_at_chunk["n"] += 1
                times["now"] += 10_000 * (gone_at_chunk["n"] == 3)
            return None

        server.wire.act = three_hours_pass
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, packers=1)
        assert row.end.status == "complete"
        assert row.replaces is not None
        assert row.replaces != row.data_id
        assert_whole(server, row.data_id, run, named[1])
        assert {stream["id"]: stream["status"] for stream in streams(server)}[row.replaces] == "failed"


def test_two_jobs_on_one_run_the_second_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        first = System(server.url, tmp_path / "state", job_id="first", lease_s=0.4)
        second = System(server.url, tmp_path / "state", job_id="second", lease_s=0.4)
        first.register(named)
        second.register(named)

        async def slow(scope, receive, send):
            if scope["method"] == "PUT":
                await hold_until_told()
            return None

        told = {"go": False}

        async def hold_until_told():
            while not told["go"]:
                await asyncio.sleep(0.01)

        server.wire.act = slow

        async def both() -> None:
            first.dispatcher.start()
            while not any(method == "PUT" for method, _ in server.wire.requests):
                await asyncio.sleep(0.01)
            second.dispatcher.start()
            while not (await second.dispatcher.finished())[0]:
                await asyncio.sleep(0.01)
            told["go"] = True
            while not (await first.dispatcher.finished())[0]:
                await asyncio.sleep(0.01)

        async def both_and_drop() -> None:
            await both()
            await second.drop()

        first.run(both_and_drop())
        [refused], [sent] = second.journal.job("second"), first.journal.job("first")
        assert refused.end.status == "failed"
        assert "job first has it" in refused.end.error
        assert sent.end.status == "complete"
        assert len(streams(server)) == 1


def test_a_copy_of_a_sent_recording_is_compared_and_not_sent(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    first, copy = plan_of(tmp_path / "a.h5"), plan_of(tmp_path / "copy" / "b.h5")
    assert first[1].fingerprint == copy[1].fingerprint
    with ThreadServer(tmp_path / "server") as server:
        backfill_without_ray(server.url, tmp_path / "state", first)
        server.wire.requests.clear()
        [row] = backfill_without_ray(server.url, tmp_path / "state", copy, job_id="copy")
        assert row.end.status == "skipped"
        assert row.same_as == first[0]
        assert server.wire.requests == []


def test_a_copy_whose_frames_differ_is_not_skipped(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", GrowthRun(200, 150, 200, fps=20.0))
    with h5py.File(tmp_path / "a.h5") as file:
        frames = file["/entry/instrument/detector/data"]
        offsets = [frames.id.get_chunk_info(i).byte_offset + 100 for i in range(60, 140)]
    first = plan_of(tmp_path / "a.h5")
    for where in offsets:  # one that is in none of the blocks which the fingerprint reads
        data = bytearray((tmp_path / "a.h5").read_bytes())
        data[where] ^= 1
        (tmp_path / "b.h5").write_bytes(data)
        copy = plan_of(tmp_path / "b.h5")
        if first[1].fingerprint == copy[1].fingerprint:
            break
    assert first[1].fingerprint == copy[1].fingerprint
    with ThreadServer(tmp_path / "server") as server:
        backfill_without_ray(server.url, tmp_path / "state", first)
        [row] = backfill_without_ray(server.url, tmp_path / "state", copy, job_id="copy")
    assert row.end.status == "failed"
    assert "not what was sent" in row.end.error


def test_a_packer_that_is_lost_again_and_again_loses_no_chunk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5")
    named = plan_of(tmp_path / "a.h5")

    packers = []

    class Mortal:
        def __init__(self, url: str) -> None:
            packers.append(Packer(KEY, QUICK, 1))
            self.handle = LocalHandle(packers[-1])
            self.calls = 0

        async def call(self, method, *args):
            self.calls += 1
            if self.calls % 3 == 1:
                if self.calls % 2:
                    await self.handle.call(method, *args)  # done, but the word of it is lost
                raise ActorLostError("killed", for_ever=self.calls % 4 == 0)
            return await self.handle.call(method, *args)

    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state", spawn=lambda n: Mortal(server.url))
        system.register(named)
        system._packers = packers
        [row] = system.work()
        assert row.end.status == "complete"
        assert_whole(server, row.data_id, run, named[1])


def test_a_full_disk_under_the_journal_ends_the_job_with_its_name_and_it_resumes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=4000)
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state")
        [key] = system.register(named)
        aggregator = system.aggregator._target
        pages = aggregator._journal._db.execute("PRAGMA page_count").fetchone()[0]
        aggregator._journal._db.execute(f"PRAGMA max_page_count={pages + 1}")
        system.run(system.until_finished())
        finished, error = asyncio.run(system.dispatcher.finished())
        row = system.journal.row(key, "job")
        assert finished
        assert row.state != "closed"
        assert "full" in (error or "") + (row.end.error if row.end else "")
        [again] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        assert again.end.status == "complete"
        assert_whole(server, again.data_id, run, named[1])


def test_draining_finishes_what_is_in_flight_and_leaves_the_rest(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=800)
    named = plan_of(tmp_path / "a.h5")
    with ThreadServer(tmp_path / "server") as server:
        system = System(server.url, tmp_path / "state")
        [key] = system.register(named)

        async def drain_soon() -> None:
            system.dispatcher.start()
            while system.journal.row(key).confirmed < 2:
                await asyncio.sleep(0.001)
            await system.dispatcher.drain()
            while not (await system.dispatcher.finished())[0]:
                await asyncio.sleep(0.01)

        system.run(drain_soon())
        row = system.journal.row(key, "job")
        stream, _ = stored(server, row.data_id)
        assert row.end.status == "partial"
        assert 2 <= row.confirmed < row.chunks
        assert stream["chunks"] == row.confirmed
        assert row.lease_holder is None


def test_many_runs_are_open_only_so_many_at_once(tmp_path: Path) -> None:
    for number in range(8):
        make_run(tmp_path / f"{number}.h5", frames=60, seed=number, gap=None)
    runs = [plan_of(tmp_path / f"{number}.h5") for number in range(8)]
    with ThreadServer(tmp_path / "server") as server:
        most = {"open": 0}

        async def count(scope, receive, send):
            journal = Journal(tmp_path / "state", time.time)
            most["open"] = max(most["open"], sum(r.state in ("created", "open", "closing") for r in journal.streams()))
            journal.close()
            return None

        server.wire.act = count
        rows = backfill_without_ray(server.url, tmp_path / "state", *runs)
    assert {row.end.status for row in rows} == {"complete"}
    assert 1 < most["open"] <= 4


def test_the_journal_holds_no_key(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    with ThreadServer(tmp_path / "server") as server:
        backfill_without_ray(server.url, tmp_path / "state", plan_of(tmp_path / "a.h5"))
    dump = "\n".join(sqlite3.connect(tmp_path / "state" / "journal.sqlite").iterdump())
    assert KEY.reveal() not in dump
    assert not re.search("signature", dump)
