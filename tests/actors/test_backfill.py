"""The job on a real Ray: kills of its actors, resuming, and what its driver says."""

from __future__ import annotations

import dataclasses
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from actors.backfill import BackfillRequest, run_backfill
from actors.options import ACTOR_OPTIONS, actor_name
from ingest.errors import ClusterError
from ingest.retry import RetryPolicy
from ingest.server.run import ServerProcess
from tests.actors.test_system import assert_whole
from tests.support import make_run, plan_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_session")]


def request(platform: ServerProcess, state: Path, *runs, **more) -> BackfillRequest:
    return BackfillRequest(
        [plan for _, plan in runs],
        [platform.url],
        platform.api_key,
        state,
        packers=2,
        retry=RetryPolicy(first_s=0.05, max_s=0.5, retry_for_s=30),
        lease_s=3.0,
        **more,
    )


def ignore(rows) -> None:
    """Watch nothing."""


def test_runs_arrive_whole_and_again_means_nothing(platform: ServerProcess, tmp_path: Path) -> None:
    runs = {name: make_run(tmp_path / f"{name}.h5", seed=ord(name)) for name in "ab"}
    planned = [plan_of(tmp_path / f"{name}.h5", sample="cluster", tag=("t",)) for name in runs]
    seen = []
    results = run_backfill(request(platform, tmp_path / "state", *planned), seen.append, threading.Event())
    assert [result.end.status for result in results] == ["complete", "complete"]
    for (name, run), result, (_, plan) in zip(runs.items(), results, planned, strict=True):
        assert f"{name}.h5" in result.plan.spec.canonical_path
        assert_whole(platform, result.row.data_id, run, plan)
    assert seen
    began = time.monotonic()
    again = run_backfill(request(platform, tmp_path / "state", *planned), ignore, threading.Event())
    assert [result.end.status for result in again] == ["skipped", "skipped"]
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("role", ["aggregator", "dispatcher", "streamer"])
def test_a_killed_actor_comes_back_and_nothing_is_lost(platform: ServerProcess, tmp_path: Path, role: str) -> None:
    import ray

    run = make_run(tmp_path / "a.h5", frames=3000, seed=len(role))
    named = plan_of(tmp_path / "a.h5")
    killed = []

    def kill_once(rows) -> None:
        if rows[0].confirmed > 0 and not killed:
            [name] = [a for a in ray.util.list_named_actors(all_namespaces=True) if a["name"].endswith(f"/{role}")]
            ray.kill(ray.get_actor(name["name"], name["namespace"]), no_restart=False)
            killed.append(name)

    [result] = run_backfill(request(platform, tmp_path / "state", named), kill_once, threading.Event())
    assert killed
    assert result.end.status == "complete"
    assert_whole(platform, result.row.data_id, run, named[1])


def test_a_stopped_job_finishes_what_is_in_flight_and_resumes(platform: ServerProcess, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=4000)
    named = plan_of(tmp_path / "a.h5")
    stop = threading.Event()

    def stop_soon(rows) -> None:
        if rows[0].confirmed > 0:
            stop.set()

    [result] = run_backfill(request(platform, tmp_path / "state", named), stop_soon, stop)
    assert result.end.status == "partial"
    confirmed = result.row.confirmed
    assert 0 < confirmed < result.row.chunks
    [again] = run_backfill(request(platform, tmp_path / "state", named), ignore, threading.Event())
    assert (again.end.status, again.row.data_id) == ("complete", result.row.data_id)
    assert again.row.resumed >= confirmed
    assert_whole(platform, again.row.data_id, run, named[1])


def test_changed_settings_and_changed_files_are_refused_and_the_rest_goes_on(
    platform: ServerProcess, tmp_path: Path
) -> None:
    make_run(tmp_path / "a.h5")
    make_run(tmp_path / "b.h5", seed=1)
    state = tmp_path / "state"
    run_backfill(request(platform, state, plan_of(tmp_path / "a.h5")), ignore, threading.Event())
    other = plan_of(tmp_path / "a.h5", chunk_size=60)
    results = run_backfill(request(platform, state, other, plan_of(tmp_path / "b.h5")), ignore, threading.Event())
    assert [result.end.status for result in results] == ["failed", "complete"]
    assert (
        "chunk_size was 41 and is 60" in results[0].end.error or "chunk_size was 40 and is 60" in results[0].end.error
    )
    [anew] = run_backfill(request(platform, state, other, restart=True), ignore, threading.Event())
    assert anew.end.status == "complete"
    assert anew.row.replaces is not None
    make_run(tmp_path / "new.h5", seed=99)
    (tmp_path / "new.h5").replace(tmp_path / "a.h5")
    [changed] = run_backfill(request(platform, state, plan_of(tmp_path / "a.h5")), ignore, threading.Event())
    assert changed.end.status == "failed"
    assert "fingerprint" in changed.end.error


def test_two_copies_in_one_job_are_one_stream(platform: ServerProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", seed=5)
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    runs = [plan_of(tmp_path / "a.h5"), plan_of(tmp_path / "b.h5")]
    results = run_backfill(request(platform, tmp_path / "state", *runs), ignore, threading.Event())
    assert [result.end.status for result in results] == ["complete", "skipped"]
    assert results[1].row.same_as == runs[0][0]


def test_a_restart_with_two_copies_sends_one_of_them(platform: ServerProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", seed=6)
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    runs = [plan_of(tmp_path / "a.h5"), plan_of(tmp_path / "b.h5")]
    asked = request(platform, tmp_path / "state", *runs, restart=True)
    results = run_backfill(asked, ignore, threading.Event())
    assert [result.end.status for result in results] == ["complete", "skipped"]


def test_more_packers_than_there_is_room_for_do_not_hold_up_the_job(platform: ServerProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", seed=9)
    asked = dataclasses.replace(request(platform, tmp_path / "state", plan_of(tmp_path / "a.h5")), packers=7)
    [result] = run_backfill(asked, ignore, threading.Event())
    assert result.end.status == "complete"


def test_a_ray_client_is_refused_in_words(platform: ServerProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60, gap=None)
    asked = request(platform, tmp_path / "state", plan_of(tmp_path / "a.h5"), address="ray://head:10001")
    with pytest.raises(ClusterError, match="journal"):
        run_backfill(asked, ignore, threading.Event())


def test_no_process_of_a_job_is_left_behind(platform: ServerProcess, tmp_path: Path) -> None:
    import ray

    make_run(tmp_path / "a.h5", seed=7)
    run_backfill(request(platform, tmp_path / "state", plan_of(tmp_path / "a.h5")), ignore, threading.Event())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ours = [a for a in ray.util.list_named_actors(all_namespaces=True) if a["name"].startswith("rheed-ingest/")]
        if not ours:
            break
        time.sleep(0.1)
    assert ours == []


def test_every_role_retries_for_ever_or_never() -> None:
    assert {options["max_task_retries"] for options in ACTOR_OPTIONS.values()} <= {0, -1}
    assert ACTOR_OPTIONS["packer"]["max_task_retries"] == 0
    assert "rheed-ingest" in actor_name("job", "packer")


def test_a_movie_is_decoded_in_lanes_and_one_that_cannot_be_cut_by_one_packer(
    platform: ServerProcess, tmp_path: Path
) -> None:
    import asyncio

    import numpy as np

    from ingest.destinations.readback import read_back
    from ingest.journal import Journal
    from ingest.wire.client import PlatformClient
    from tests.sources.video_files import plain_decode, write_movie

    settings = {"start": "2023-10-18T08:00:00Z", "fps": 30.0}
    cut = plan_of(Path(write_movie(tmp_path / "a.mp4", 720, gop=25, b_frames=2)), **settings)
    whole = plan_of(Path(write_movie(tmp_path / "b.avi", 360, gop=25, b_frames=2)), **settings)
    assert (cut[1].spec.access, whole[1].spec.access) == ("lanes", "single")
    results = run_backfill(request(platform, tmp_path / "state", cut, whole), ignore, threading.Event())
    assert [result.end.status for result in results] == ["complete", "complete"]

    async def stored(data_id: str):
        async with PlatformClient(platform.url, platform.api_key) as client:
            return np.concatenate([chunk.frames async for chunk in read_back(client, data_id)])

    journal = Journal(tmp_path / "state", time.time)
    by = [[receipt.node for receipt in journal.receipts(result.row.key)] for result in results]
    journal.close()
    for result, (path, _) in zip(results, (cut, whole), strict=True):
        np.testing.assert_array_equal(asyncio.run(stored(result.row.data_id)), plain_decode(path))
    assert len(by[0]) == 12
    for half in (by[0][:6], by[0][6:]):
        assert sum(one != other for one, other in pairwise(half)) <= 1, (
            "one packer each, but where another came up late"
        )
    assert len(set(by[1])) == 1
