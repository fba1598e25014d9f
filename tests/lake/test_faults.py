"""Whole jobs into a lake whose store misbehaves: clear words, nothing counted as lost, and a second run that heals."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from ingest.errors import LeaseHeldError, SettingsChangedError, UnreachableError
from ingest.lake.local_store import LocalStore
from ingest.lake.opening import open_store
from ingest.ledger import StreamState
from ingest.retry import RetryPolicy
from ingest.shard import unpack
from tests.lake.stub_s3 import running_stub
from tests.lake.test_backfill import Watch, assert_in_lake, backfill, tree
from tests.support import System, backfill_without_ray, make_run, plan_of

LAKE = "s3://lab-runs/growth"
SHORT = RetryPolicy(first_s=0.01, max_s=0.05, retry_for_s=0.4)


@pytest.fixture
def stub(aws_environment):
    with running_stub() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def named(tmp_path):
    make_run(tmp_path / "a.h5", frames=200)
    return plan_of(tmp_path / "a.h5", to=[LAKE])


def test_a_run_into_s3_comes_back(s3, named, tmp_path):
    [row] = backfill_without_ray(LAKE, tmp_path / "state", named)
    assert (row.state, row.end.status) == (StreamState.CLOSED, "complete")
    store = open_store(LAKE)
    size = named[1].settings.chunk_size
    shards = [store.get(f"{row.data_id}.zarr/frames/c/{n}/0/0") for n in range(-(-200 // size))]
    frames = np.concatenate([unpack(shard, (size, 24, 32)) for shard in shards])[:200]
    run = make_run(tmp_path / "again.h5", frames=200)
    np.testing.assert_array_equal(frames, run.frames(0, 200))
    assert store.size(f"{row.data_id}.zarr/zarr.json")
    assert list(store.objects(".rheed-ingest")) == []
    store.close()


def test_a_bucket_that_is_missing_is_named(s3, tmp_path):
    make_run(tmp_path / "a.h5", frames=90)
    lake = "s3://no-such-bucket/growth"
    [row] = backfill_without_ray(lake, tmp_path / "state", plan_of(tmp_path / "a.h5", to=[lake]), retry=SHORT)
    assert row.end.status == "failed"
    assert "no-such-bucket" in row.end.error
    assert row.end.hint
    assert (row.confirmed, row.lost) == (0, 0)


def test_denied_access_is_no_loss_of_frames(stub, named, tmp_path):
    stub.always = (403, "AccessDenied")
    [row] = backfill_without_ray(LAKE, tmp_path / "state", named, retry=SHORT)
    assert (row.end.status, row.lost) == ("failed", 0)
    assert "403" in row.end.error
    assert "may list the bucket and read, write" in row.end.hint
    stub.always = None
    [row] = backfill_without_ray(LAKE, tmp_path / "state", named, job_id="again")
    assert (row.end.status, row.lost) == ("complete", 0)


def test_a_store_that_asks_to_slow_down_is_obeyed(stub, named, tmp_path):
    stub.answers = [(503, "SlowDown")] * 6
    [row] = backfill_without_ray(LAKE, tmp_path / "state", named)
    assert (row.end.status, row.lost) == ("complete", 0)
    assert stub.answers == []


def test_a_store_that_is_gone_in_the_middle_leaves_the_rest_for_the_next_run(stub, named, tmp_path):
    watch = Watch("chunk_put", 2)
    system = System(LAKE, tmp_path / "state", telemetry=watch, retry=SHORT, packers=1)
    system.register(named)

    async def gone_after_two() -> None:
        system.dispatcher.start()
        await watch.seen()
        stub.always = (0, "")
        while not (await system.dispatcher.finished())[0]:
            await asyncio.sleep(0.01)

    system.run(gone_after_two())
    [row] = system.journal.job("job")
    assert row.end.status == "partial"
    assert 2 <= row.confirmed < row.chunks
    assert row.lost == 0
    stub.always = None
    before = len(stub.made("PUT"))
    [again] = backfill_without_ray(LAKE, tmp_path / "state", named, job_id="again")
    assert (again.end.status, again.resumed, again.data_id) == ("complete", row.confirmed, row.data_id)
    assert len(stub.made("PUT")) - before < row.chunks + 12  # what had a receipt is not sent again


def test_a_full_disk_is_no_loss(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    full = [True]
    real = LocalStore.put

    def put(self, name, data, *, crc32c=None):
        if full[0] and "/c/1/" in name:
            raise UnreachableError("the disk is full", hint="make room")
        return real(self, name, data, crc32c=crc32c)

    monkeypatch.setattr(LocalStore, "put", put)
    [row] = backfill(lake, named)
    assert (row.end.status, row.lost, row.end.hint) == ("partial", 0, "make room")
    full[0] = False
    [row] = backfill(lake, named, job_id="again")
    assert row.end.status == "complete"
    assert_in_lake(lake, row.data_id, run)


def test_two_jobs_on_one_run_the_second_is_refused_while_the_first_lives(tmp_path):
    make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    first = System(str(lake), lake / ".rheed-ingest", job_id="first", lease_s=60)
    [key] = first.register(named)
    first.journal.lease(key, "first", 60)
    second = System(str(lake), lake / ".rheed-ingest", job_id="second")
    second.register(named)
    with pytest.raises(LeaseHeldError, match="job first has it"):
        second.journal.lease(key, "second", 60)


def test_two_machines_on_one_run_write_the_same_lake(tmp_path):
    """Two journals know nothing of each other: both write the same bytes under the same names."""
    run = make_run(tmp_path / "a.h5", frames=200)
    lake, alone = tmp_path / "lake", tmp_path / "alone"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    backfill(alone, named)
    systems = [System(str(lake), tmp_path / f"state-{n}", job_id=f"job-{n}") for n in range(2)]
    for system in systems:
        system.register(named)

    async def both() -> None:
        await asyncio.gather(*(system.until_finished() for system in systems))
        for system in systems:
            await system.drop_parts()

    systems[0].run(both())
    rows = [system.journal.job(f"job-{n}")[0] for n, system in enumerate(systems)]
    assert {row.data_id for row in rows} == {rows[0].data_id}
    assert all(row.end.status in ("complete", "skipped") for row in rows), [row.end for row in rows]
    assert_in_lake(lake, rows[0].data_id, run)
    mine, theirs = tree(lake), tree(alone)
    assert mine.keys() == theirs.keys()
    assert all(mine[path] == theirs[path] for path in mine if "/c/" in path)


def test_changed_settings_are_refused(tmp_path):
    make_run(tmp_path / "a.h5", frames=90)
    lake = tmp_path / "lake"
    backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)]))
    with pytest.raises(SettingsChangedError, match=r"chunk_size was 4[01] and is 50"):
        backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)], chunk_size=50), job_id="again")


def test_a_job_with_nothing_left_to_do_is_quick(tmp_path):
    make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)])
    backfill(lake, named)
    began = time.perf_counter()
    [row] = backfill(lake, named, job_id="again")
    assert (row.end.status, row.resumed) == ("skipped", row.chunks)
    assert time.perf_counter() - began < 2
