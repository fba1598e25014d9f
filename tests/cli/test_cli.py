"""Commands as a user types them: exit codes, documents, words."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.ledger import ChunkConfirmed, ChunkLost, Sealed, StreamGone
from ingest.server.run import ServerProcess
from ingest.wire.models import Delivery
from tests.actors.test_system import assert_whole
from tests.cli.spools import POINTS, Leftover
from tests.support import KEY, ThreadServer, make_run, plan_of

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "hdf5"
with_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not there")
STATIONARY = ("--rotations-per-min", "0")
on_ray = [pytest.mark.cluster, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())


def test_help_names_every_command_and_exit_code(run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for word in (
        "backfill",
        "export",
        "inspect",
        "reconcile",
        "serve",
        "spool",
        "status",
        "streams",
        "demo",
        "130 interrupted",
    ):
        assert word in ran.out


@pytest.mark.parametrize(
    "command",
    [
        "backfill",
        "export",
        "inspect",
        "serve",
        "spool",
        "spool list",
        "spool deliver",
        "spool discard",
        "status",
        "streams",
        "demo",
    ],
)
def test_every_command_has_help(run, command: str) -> None:
    assert run(*command.split(), "--help").code == 0


def test_inspect_says_what_is_in_a_file(run, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    ran = run("inspect", tmp_path / "a.h5", "--json")
    [found] = json.loads(ran.out)["runs"]
    assert ran.code == 0
    assert (found["frames"], found["height_px"], found["width_px"]) == (200, 24, 32)
    assert found["start_from"] == "frame stamps"
    assert found["fps"] == pytest.approx(20, rel=1e-3)
    assert any(finding.startswith("gap (frame 71)") for finding in found["findings"])
    text = run("inspect", tmp_path / "a.h5").out
    assert "200 frames of 32 x 24 px" in text
    assert "gap (frame 71)" in text


@with_samples
def test_inspect_of_the_real_samples(run) -> None:
    runs = {
        Path(found["source"].split("::")[0]).name: found
        for found in json.loads(run("inspect", SAMPLES, "--json").out)["runs"]
    }
    area = runs["deposition_areadetector.h5"]
    assert area["frames"] == 12
    assert abs(area["start_unix_ms_utc"] - 1697616000250) <= 3
    assert any("lacks 1 frame" in finding for finding in area["findings"])
    assert runs["atomscale_chunks"]["start_unix_ms_utc"] == 1696342633120


def test_bad_files_get_a_word_each_and_the_good_one_is_still_inspected(run, tmp_path: Path) -> None:
    make_run(tmp_path / "good.h5")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "good.h5").read_bytes()[:60_000])
    ran = run("inspect", tmp_path)
    assert ran.code == 3
    assert ran.out.count("error:") == 3
    assert "200 frames" in ran.out
    assert "signature" in ran.out
    assert run("inspect", tmp_path / "missing.h5").code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fps", "0"), "frame rate"),
        (("--fps", "1e9"), "frame rate"),
        (("--chunk-size", "5"), "chunk_size 5 is less"),
        (("--start", "yesterday"), "ISO 8601"),
        (("--start", "2023-10-18T08:00:00"), "no zone"),
        (("--azimuth", "[110]", "--rotations-per-min", "12"), "azimuth"),
        (("--retry-for", "soon"), "no length of time"),
        (("--level", "99"), "level"),
        (("--to", "htp:x"), "neither a folder nor a URL"),
        (("--to", "memory://x"), "a memory of its own"),
        (("--to", "api.atomscale.ai"), "is no folder here, and no URL"),
        (("--to", "s3//lab/growth"), "is no folder here, and no URL"),
        (("--to", "http://user:pw@x"), "user and password"),
        (("--to", "http://[abc"), "not a URL"),
        (("--to", "http://x/?key=1"), "no query"),
        (("--state", "s3://bucket/state"), "local folder"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_sent(run, key, tmp_path: Path, arguments, words: str) -> None:
    make_run(tmp_path / "a.h5")
    to = () if "--to" in arguments else ("--to", "http://127.0.0.1:9")
    still = () if "--rotations-per-min" in arguments else STATIONARY
    ran = run("backfill", tmp_path / "a.h5", *to, *still, *arguments)
    assert ran.code in (1, 2)
    assert words in ran.out + ran.err


def test_no_destination_no_key_no_sources(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a.h5")
    assert "AS_API_ENDPOINT" in run("backfill", tmp_path / "a.h5").err
    ran = run("backfill", tmp_path / "a.h5", "--to", "http://127.0.0.1:9")
    assert (ran.code, "AS_API_KEY" in ran.err) == (1, True)
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    assert run("backfill", "--to", "http://127.0.0.1:9").code == 2


def test_no_start_time_is_a_named_error_that_says_what_to_pass(run, key, tmp_path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = np.zeros((50, 8, 8), np.uint8)
    ran = run("backfill", tmp_path / "a.h5", "--to", "http://127.0.0.1:9", "--fps", "10", *STATIONARY)
    assert ran.code == 1
    assert "--start" in ran.out


def test_rotation_is_asked_for_where_nothing_says_it(run, key, tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    ran = run("backfill", tmp_path / "a.h5", "--to", "http://127.0.0.1:9")
    assert ran.code == 1
    assert "nothing says whether the sample rotated" in ran.out
    assert "--rotations-per-min 0" in ran.out
    assert run("inspect", tmp_path / "a.h5").code == 0, "a look needs none"


def test_a_dry_run_says_what_would_be_sent_and_created(run, key, tmp_path: Path, platform: ServerProcess) -> None:
    make_run(tmp_path / "a.h5")
    asked = ("backfill", tmp_path, "--to", platform.url, "--sample", "Brand new", *STATIONARY, "--dry-run")
    ran = run(*asked, "--tag", "dry", "--json")
    document = json.loads(ran.out)
    assert ran.code == 0
    assert document["totals"]["frames"] == 200
    assert document["would_create"] == {"samples": ["Brand new"], "tags": ["dry"]}
    text = run(*asked).out
    assert "would create: sample 'Brand new'" in text
    assert json.loads(run("streams", "--json").out) == {"streams": []}


def test_an_unknown_key_of_a_job_file_names_the_nearest(run, key, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("sources: [a.h5]\nrotation_per_min: 12\n")
    ran = run("backfill", job, "--to", "http://127.0.0.1:9")
    assert ran.code == 2
    assert "rotations_per_min" in ran.err


def receipt(left: Leftover, index: int) -> ChunkConfirmed:
    return ChunkConfirmed(left.chunk(index).receipt(Delivery(None, 2), "node", 1))


class TestLiveStreams:
    """They have no plan, and their frames or points are those that are confirmed."""

    def test_streams_says_what_is_confirmed_waits_and_is_lost(self, run, tmp_path: Path) -> None:
        movie, series = Leftover(tmp_path, ""), Leftover(tmp_path, "", POINTS)
        movie.record(receipt(movie, 0), ChunkLost(1, "chunk 1: dropped"))
        movie.put(2, 3)
        series.record(receipt(series, 0), receipt(series, 1), Sealed(2))
        lines = {line.split()[1]: line for line in run("streams", "--state", tmp_path).out.splitlines()}
        assert "1 chunks, not sealed, 2 spooled, 1 lost  20 frames  live rheed STO live" in lines[movie.data_id]
        assert "2 of 2 chunks  100 points  live timeseries heater log" in lines[series.data_id]
        found = {
            one["data_id"]: one for one in json.loads(run("streams", "--state", tmp_path, "--json").out)["streams"]
        }
        one = found[movie.data_id]
        assert (one["kind"], one["sealed"], one["frames"], one["confirmed"]) == ("rheed", False, 20, 1)
        assert (one["spooled"], one["spooled_bytes"], one["lost"], one["lease_holder"]) == (2, 8192, 1, None)
        assert (found[series.data_id]["points"], found[series.data_id]["sealed"]) == (100, True)
        overview = run("status", "--state", tmp_path).out
        assert "2 open" in overview
        assert movie.data_id in overview

    def test_status_has_labels_losses_and_a_manifest(self, run, tmp_path: Path) -> None:
        movie, series = Leftover(tmp_path, ""), Leftover(tmp_path, "", POINTS)
        movie.record(receipt(movie, 0), ChunkLost(1, "refused: 422"))
        series.record(receipt(series, 0), ChunkLost(1, "chunk 1 of temperature: refused"), Sealed(2))
        text = run("status", series.data_id, "--state", tmp_path).out
        assert "  lost: chunk 1 of temperature: refused" in text
        assert "  chunk 0 of temperature: 50 points, " in text
        assert ", 2 attempt(s)" in text
        assert "  chunk 1 is lost: refused: 422" in run("status", "STO live", "--state", tmp_path).out
        [found] = json.loads(run("status", series.data_id, "--state", tmp_path, "--json").out)["streams"]
        manifest = found["manifest"]
        assert (manifest["kind"], manifest["sealed"], manifest["stream"]["name"]) == ("timeseries", True, "heater log")
        assert manifest["counts"]["points_confirmed"] == 50
        assert manifest["losses"] == found["losses"] == {"1": "chunk 1 of temperature: refused"}
        assert found["receipts"][0]["label"] == manifest["chunks"][0]["label"] == "chunk 0 of temperature"

    def test_one_that_is_gone_says_why(self, run, tmp_path: Path) -> None:
        left = Leftover(tmp_path, "")
        left.put(0)
        left.record(StreamGone("silent for 2 hours"))
        text = run("status", left.key, "--state", tmp_path).out
        assert "the platform takes nothing more: silent for 2 hours" in text
        assert "1 chunk(s), 4096 bytes of disk, wait in the spool" in text


class TestOnRay:
    pytestmark = on_ray

    def test_a_mixed_folder_ends_with_3_and_one_document(
        self, run, key, tmp_path: Path, platform: ServerProcess
    ) -> None:
        data = tmp_path / "data"
        data.mkdir()
        made = make_run(data / "good.h5", seed=3)
        (data / "bad.h5").write_text("nothing")
        ran = run("backfill", data, "--to", platform.url, "--json", "--tag", "mixed", "--sample", "Mix", *STATIONARY)
        document = json.loads(ran.out)
        assert ran.code == 3
        by_name = {Path(found["source"].split("::")[0]).name: found for found in document["runs"]}
        good, bad = by_name["good.h5"], by_name["bad.h5"]
        assert set(good) == {
            "source", "destination", "data_id", "status", "frames", "fps", "start_unix_ms_utc", "start_from",
            "max_time_error_ms", "chunks", "frames_lost", "bytes_in", "bytes_out", "seconds", "findings", "error",
            "hint",
        }  # fmt: skip
        assert (good["status"], good["frames"], good["error"]) == ("complete", 200, None)
        assert good["chunks"]["uploaded"] == good["chunks"]["total"] == good["chunks"]["confirmed"]
        assert (bad["status"], bad["data_id"]) == ("failed", None)
        assert "signature" in bad["error"]
        assert document["totals"]["complete"] == 1
        _, plan = plan_of(data / "good.h5")
        assert_whole(platform, good["data_id"], made, plan)
        assert KEY.reveal() not in ran.out + ran.err

        again = run("backfill", data / "good.h5", "--to", platform.url, *STATIONARY)
        assert again.code == 0
        assert "Nothing to do" in again.out
        assert good["data_id"] in run("streams").out
        status = json.loads(run("status", good["data_id"], "--json").out)["streams"][0]
        assert len(status["receipts"]) == good["chunks"]["total"]
        assert "1 closed" in run("status").out
        assert run("status", "nobody").code == 2

    def test_a_job_file_with_overrides(self, run, key, tmp_path: Path, platform: ServerProcess) -> None:
        make_run(tmp_path / "a.h5", seed=8)
        job = tmp_path / "job.yaml"
        job.write_text(
            f"sources: [a.h5]\nto: {platform.url}\nchunking: regular\nretry-for: 1m\nname: from the file\n"
            "rotations_per_min: 0\n"
        )
        ran = run("backfill", job, "--name", "from the command", "--json")
        assert ran.code == 0, ran.err
        [found] = json.loads(ran.out)["runs"]
        assert found["chunks"]["total"] == 5
        assert "from the command" in run("streams", "--json").out

    def test_the_demo_sends_a_run_and_its_log_by_every_way_and_finds_it_again(self, run, tmp_path: Path) -> None:
        ran = run("demo", "--frames", "150", "--dir", tmp_path)
        assert ran.code == 0, ran.out + ran.err
        for words in (
            "150 frames, 150 identical by XXH3-128",
            "skipped in",
            "2 x 43 points at 10 Hz (temperature in C, pressure in mbar), 1 chunks confirmed",
            "86 points identical in time, value and unit; stream closed",
            "2 of 2 chunks confirmed",
            "150 frames, 150 identical, starts as given; stream closed",
        ):
            assert words in ran.out, ran.out
        rows = json.loads(run("streams", "--state", tmp_path / "state", "--json").out)["streams"]
        assert sorted((row["kind"], row["state"]) for row in rows) == [
            ("archive", "closed"), ("rheed", "closed"), ("timeseries", "closed"),
        ]  # fmt: skip
        assert "nothing in" in run("spool", "list", "--state", tmp_path / "state").out

    @with_samples
    def test_every_hdf5_sample_is_backfilled_and_read_back(
        self, run, key, tmp_path: Path, platform: ServerProcess
    ) -> None:
        import asyncio

        import h5py
        import numpy as np

        from ingest.destinations.readback import read_back
        from ingest.wire.client import PlatformClient

        common = ("--to", platform.url, "--json", *STATIONARY)
        first = run("backfill", SAMPLES / "atomscale_chunks", SAMPLES / "deposition_areadetector.h5", *common)
        start = ("--start", "2024-01-01T00:00:00Z")
        second = run("backfill", SAMPLES / "frames_timestamps.h5", *start, *common)
        third = run("backfill", SAMPLES / "growths_12bit.h5", *start, "--fps", "30", *common)
        assert (first.code, second.code, third.code) == (0, 0, 0), (first.err, second.err, third.err)
        found = [entry for ran in (first, second, third) for entry in json.loads(ran.out)["runs"]]
        assert sorted(entry["frames"] for entry in found) == [12, 25, 40, 60, 100]

        async def stored(data_id: str):
            async with PlatformClient(platform.url, KEY) as client:
                return [chunk async for chunk in read_back(client, data_id)]

        for entry in found:
            paths, _, dataset = entry["source"].partition("::")
            files = [SAMPLES / "atomscale_chunks" / n for n in ("50.h5", "100.h5")] if paths.endswith("/") else [paths]
            parts = []
            for name in files:
                with h5py.File(name) as file:
                    parts.append(file[dataset][()])
            frames = np.concatenate(parts)
            if frames.dtype == np.uint16:
                frames = np.clip(frames.astype(np.uint32) * 255 // 4096, 0, 255).astype(np.uint8)
            chunks = asyncio.run(stored(entry["data_id"]))
            assert np.array_equal(np.concatenate([chunk.frames for chunk in chunks]), frames), entry["source"]


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_journals_and_says_how_to_resume(tmp_path: Path, number: int) -> None:
    made = make_run(tmp_path / "a.h5", frames=4000)
    _, plan = plan_of(tmp_path / "a.h5")
    environ = {**os.environ, "AS_API_KEY": KEY.reveal(), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-c", "from ingest.cli import main; main()", "backfill", str(tmp_path / "a.h5")]
    command += [*STATIONARY, "--to"]

    async def slow(scope, receive, send):
        import asyncio

        if scope["method"] == "PUT":
            await asyncio.sleep(0.1)

    with ThreadServer(tmp_path / "server") as server:
        server.wire.act = slow
        process = subprocess.Popen(
            [*command, server.url, "--restart"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while sum(method == "PUT" for method, _ in server.wire.requests) < 6 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert re.search(r"to resume: .*backfill .*a\.h5", err)
        assert "--restart" not in err, "it would throw away what was sent"
        assert "partial" in out
        server.wire.act = None
        resumed = subprocess.run(
            [*command, server.url, "--json"], env=environ, capture_output=True, text=True, timeout=90
        )
        assert resumed.returncode == 0, resumed.stderr
        [found] = json.loads(resumed.stdout)["runs"]
        assert found["chunks"]["resumed"] >= 4
        assert_whole(server, found["data_id"], made, plan)
