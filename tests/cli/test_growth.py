"""A growth of a movie and its logs, as a lab keeps it: found, put on one time line, and sent."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import pytest

from ingest.cli.growth import growths
from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.server.run import ServerProcess
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.wire.client import PlatformClient
from tests.support import KEY, ThreadServer, backfill_without_ray, make_run, plan_of

STATIONARY = ("--rotations-per-min", "0")
START = "2023-11-14T22:13:20Z"  # where GrowthRun begins: Unix 1.7e9


def furnace(path: Path, first_s: float, last_s: float) -> None:
    """Write a log at 2 Hz whose elapsed time begins with the movie."""
    rows = [f"{first_s + i / 2:.3f},{700 + i % 5},1e-{i % 3 + 7}" for i in range(round(2 * (last_s - first_s)) + 1)]
    path.write_text("time [s],temperature [C],pressure [mbar]\n" + "\n".join(rows) + "\n")


@pytest.fixture
def growth(tmp_path: Path) -> tuple[Path, GrowthRun]:
    folder = tmp_path / "STO-17"
    folder.mkdir()
    made = make_run(folder / "rheed.h5", frames=200, gap=None)  # 10 s at 20 fps
    furnace(folder / "furnace.csv", -2.0, 5.0)
    (folder / "growth.yaml").write_text(
        f"sample: STO-17\nrotations_per_min: 0\nlog_start: {START}\ntag: [night]\nfiles:\n"
        "  '*.csv': {name: furnace of the night, points_per_chunk: 4}\n"
    )
    return folder, made


def test_logs_and_movies_of_a_folder_are_one_growth(growth) -> None:
    folder, _ = growth
    candidates = find_candidates([str(folder)], BackfillSettings(), planning=True)
    assert [candidate.error for candidate in candidates] == [None, None]
    [found] = growths(candidates)
    assert (found.name, len(found.members)) == (str(folder), 2)
    covered = {one.channel.name: one.covered for one in found.overlaps()}
    assert covered == {"temperature": pytest.approx(0.5, abs=0.01), "pressure": pytest.approx(0.5, abs=0.01)}
    plans = {type(candidate.plan).__name__: candidate.plan for candidate in candidates}
    assert {plan.settings.physical_sample for plan in plans.values()} == {"STO-17"}
    assert plans["SeriesPlan"].name == "furnace of the night"
    assert [len(plan.settings.tags) for plan in plans.values()] == [1, 1]


@pytest.mark.parametrize(("group", "expected"), [("none", []), ("night of 14 November", ["night of 14 November"])])
def test_a_growth_may_be_named_or_not_be(growth, group: str, expected: list[str]) -> None:
    folder, _ = growth
    candidates = find_candidates([str(folder)], BackfillSettings(group=group), planning=True)
    assert [found.name for found in growths(candidates)] == expected


def test_inspect_shows_channels_and_overlap(run, growth) -> None:
    folder, _ = growth
    text = run("inspect", folder).out
    assert "channel  temperature in C: 15 points over 7.0 s" in text
    assert f"growth run {folder}: 2 runs on one time line" in text
    assert "temperature (furnace.csv): covers 50 % of rheed.h5" in text
    document = json.loads(run("inspect", folder, "--json").out)
    [found] = document["growths"]
    assert {one["channel"]: round(one["covered"], 1) for one in found["overlap"]} == {
        "temperature": 0.5,
        "pressure": 0.5,
    }


def test_a_log_that_says_no_date_asks_for_one(run, growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    folder, _ = growth
    (folder / "growth.yaml").unlink()
    ran = run("backfill", folder / "furnace.csv", "--to", "http://127.0.0.1:9", *STATIONARY)
    assert ran.code == 1
    assert "nothing trustworthy says when the log began" in ran.out
    assert "--log-start" in ran.out


def points(server_url: str, data_id: str, channel: str) -> dict:
    async def read() -> dict:
        async with PlatformClient(server_url, KEY) as client:
            return await client.get_points(data_id, channel)

    return asyncio.run(read())


def test_a_log_arrives_once_and_resumes(tmp_path: Path, growth) -> None:
    folder, _ = growth
    [candidate] = find_candidates([str(folder / "furnace.csv")], BackfillSettings(), planning=True)
    named = candidate.path, candidate.plan
    refused = {"left": 2}

    async def act(scope, receive, send):
        from tests.support import answer

        if scope["path"].endswith("/chunk/multi") and refused["left"] and refused.setdefault("seen", 0) >= 1:
            refused["left"] -= 1
            return await answer(send, 405)
        refused["seen"] = refused.get("seen", 0) + scope["path"].endswith("/chunk/multi")
        return None

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = act
        [first] = backfill_without_ray(server.url, tmp_path / "state", named, packers=1)
        assert first.end.status in ("partial", "failed")
        assert 1 <= first.confirmed < first.chunks
        server.wire.act = None
        before = len(server.wire.requests)
        [second] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="again")
        sent = [path for _, path in server.wire.requests[before:] if path.endswith("/chunk/multi")]
        assert (second.end.status, second.data_id) == ("complete", first.data_id)
        assert len(sent) == first.chunks - first.confirmed, "only what has no receipt"
        [third] = backfill_without_ray(server.url, tmp_path / "state", named, job_id="third")
        assert third.end.status == "skipped"
        held = points(server.url, first.data_id, "temperature")
    zero_s = 1_700_000_000
    assert held["timestamps"] == [zero_s - 2 + i / 2 for i in range(15)]
    assert held["values"] == [700.0 + i % 5 for i in range(15)]
    assert (held["units"], held["chunk_indices"], held["chunk_points"]) == ("C", [0, 1, 2, 3], [4, 4, 4, 3])


def test_other_points_per_chunk_are_other_settings(tmp_path: Path, growth) -> None:
    from ingest.errors import SettingsChangedError

    folder, _ = growth
    (folder / "growth.yaml").write_text(f"log_start: {START}\n")
    plans = [
        find_candidates([str(folder / "furnace.csv")], BackfillSettings(points_per_chunk=n), planning=True)[0]
        for n in (4, 5)
    ]
    with ThreadServer(tmp_path / "server") as server:
        backfill_without_ray(server.url, tmp_path / "state", (plans[0].path, plans[0].plan))
        with pytest.raises(SettingsChangedError, match="points_per_chunk was 4 and is 5"):
            backfill_without_ray(server.url, tmp_path / "state", (plans[1].path, plans[1].plan), job_id="b")


def test_a_part_of_a_run_is_another_stream(tmp_path: Path) -> None:
    from ingest.errors import SettingsChangedError

    made = make_run(tmp_path / "a.h5", frames=120, gap=None)
    part = plan_of(tmp_path / "a.h5", **{"from": "1s", "roi": "4,2,20,10", "orientation": "rot90"})
    assert (part[1].height_px, part[1].width_px) == (20, 10)
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", part)
        assert row.end.status == "complete"

        async def stored():
            from ingest.destinations.readback import read_back

            async with PlatformClient(server.url, KEY) as client:
                return [chunk async for chunk in read_back(client, row.data_id)]

        import numpy as np

        frames = np.concatenate([chunk.frames for chunk in asyncio.run(stored())])
        first = 120 - len(frames)
        expected = np.rot90(made.frames(first, 120)[:, 2:12, 4:24], axes=(1, 2))
        np.testing.assert_array_equal(frames, expected)
        with pytest.raises(SettingsChangedError, match="view was"):
            backfill_without_ray(server.url, tmp_path / "state", plan_of(tmp_path / "a.h5"), job_id="b")


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_movie_and_log_go_as_one_job(run, growth, platform: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    folder, _ = growth
    dry = json.loads(run("backfill", folder, "--to", platform.url, "--dry-run", "--json").out)
    assert dry["would_create"] == {"samples": ["STO-17"], "tags": ["night"]}
    assert (dry["totals"]["frames"], dry["totals"]["points"]) == (200, 30)
    ran = run("backfill", folder, "--to", platform.url)
    assert ran.code == 0, ran.out
    assert "2 of 2 runs complete, 200 frames, 30 points" in ran.out
    assert "30 points from 2023-11-14T22:13:18.000Z (sidecar)" in ran.out
    listed = run("streams").out
    assert "30 points" in listed
    assert "200 frames" in listed
    status = run("status", "furnace of the night").out
    assert "chunk 0 of temperature, pressure: 8 points" in status
    assert "Nothing to do" in run("backfill", folder, "--to", platform.url).out


class TestFollow:
    """A file that is still being written is waited for."""

    @pytest.mark.cluster
    @pytest.mark.usefixtures("ray_session")
    def test_it_is_sent_when_its_writer_has_ended(self, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AS_API_KEY", KEY.reveal())
        write_hdf5(tmp_path / "whole.h5", GrowthRun(60, 16, 16))
        whole = (tmp_path / "whole.h5").read_bytes()
        growing = tmp_path / "data" / "a.h5"
        growing.parent.mkdir()

        def write() -> None:
            with growing.open("wb") as file:
                for at in range(0, len(whole), len(whole) // 8 + 1):
                    file.write(whole[at : at + len(whole) // 8 + 1])
                    file.flush()
                    time.sleep(0.1)

        writer = threading.Thread(target=write)
        writer.start()
        began = time.monotonic()
        ran = run(
            "backfill", growing.parent, "--to", "http://127.0.0.1:9", *STATIONARY, "--retry-for", "0", "--follow=0.6s",
            "--json",
        )  # fmt: skip
        took = time.monotonic() - began
        writer.join()
        assert "waiting until" in ran.err
        assert took > 1.2
        [found] = json.loads(ran.out)["runs"]
        assert found["frames"] == 60, "whole, although it was not when this was asked for"

    def test_a_quiet_file_is_not_waited_for(self, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AS_API_KEY", KEY.reveal())
        make_run(tmp_path / "a.h5")
        os.utime(tmp_path / "a.h5", (1e9, 1e9))
        began = time.monotonic()
        run("backfill", tmp_path / "a.h5", "--to", "http://127.0.0.1:9", "--follow=60s", "--dry-run")
        ran = run("backfill", tmp_path / "a.h5", "--to", "http://127.0.0.1:9", "--follow=60s")
        assert time.monotonic() - began < 30
        assert "nothing says whether the sample rotated" in ran.out


def test_what_is_of_no_run_or_of_too_many_is_said(run, growth, tmp_path: Path) -> None:
    folder, _ = growth
    make_run(folder / "second.h5", frames=60)
    job = tmp_path / "job.yaml"
    job.write_text(f"sources: [{folder}]\nrules:\n  - {{match: '*.mvk', set: {{fps: 9}}}}\n")
    ran = run("inspect", job, "--start", START)
    assert "rule 1 of the job file" in ran.err
    assert "matches none of 3 run(s)" in ran.err
    assert "--start is given to each of 2 movies" in ran.err


def test_a_store_of_many_growths_is_not_one(tmp_path: Path) -> None:
    for i in range(65):
        furnace(tmp_path / f"{i}.csv", 0.0, 1.0)
    settings = BackfillSettings(log_start=START)
    assert growths(find_candidates([str(tmp_path)], settings, planning=True)) == []


def test_a_look_says_what_a_plan_still_needs(run, tmp_path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = np.zeros((50, 8, 8), np.uint8)
    ran = run("inspect", tmp_path / "a.h5")
    assert ran.code == 0
    assert "needs    a: no per-frame stamps and no frame rate in the file: pass --fps" in ran.out
    [found] = json.loads(run("inspect", tmp_path / "a.h5", "--fps", "10", "--json").out)["runs"]
    assert (found["rotations_per_min"], found["fps"]) == (None, 10.0), "and makes none up"


def test_status_names_lost_frames_by_their_numbers_in_the_run(run, tmp_path: Path) -> None:
    from tests.actors.test_system import damaged_run

    damaged_run(tmp_path / "a.h5", 50, 79)
    with ThreadServer(tmp_path / "server") as server:
        [row] = backfill_without_ray(server.url, tmp_path / "state", plan_of(tmp_path / "a.h5"))
    text = run("status", row.data_id, "--state", tmp_path / "state").out
    assert "frames of the run that the source could not give: 50, 79" in text
    assert "120 frames (2 not readable)" in text
    [found] = json.loads(run("status", row.data_id, "--state", tmp_path / "state", "--json").out)["streams"]
    assert found["lost_frames"] == {"1": [50, 79]}
    assert found["manifest"]["counts"]["frames_lost"] == 2
