"""``rheed-ingest verify`` as a user types it: exit codes, documents, words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import KEY, ThreadServer, backfill_without_ray
from tests.verify_support import Sent, flip, lossy_run, plan_for, write_log

STATIONARY = ("--rotations-per-min", "0")
HERE = ("--packers", "0")


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    """A movie and a log in one lake."""
    (tmp_path / "runs").mkdir()
    movie = Sent.make(tmp_path, lossy_run(tmp_path / "runs/a.h5"))
    log_path, log = plan_for(write_log(tmp_path / "runs/furnace.csv"), str(movie.lake))
    backfill_without_ray(str(movie.lake), movie.state, (log_path, log), job_id="log")
    return movie


def test_all_that_was_sent_is_right(run, sent: Sent, tmp_path: Path) -> None:
    ran = run("verify", tmp_path / "runs", "--to", sent.lake, *STATIONARY, *HERE)
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.count("verified   ") == 2
    assert "200 frames, 6 chunks, 0.2 MB in" in ran.out
    assert "MB/s" in ran.out
    assert "2 of 2 streams are right, 200 frames, 42 points" in ran.out
    alone = run("verify", "--to", sent.lake, *HERE)
    assert (alone.code, alone.out.count("verified   ")) == (0, 2), alone.out


def test_what_differs_is_said_repaired_and_gone(run, sent: Sent, tmp_path: Path) -> None:
    command = ("verify", tmp_path / "runs", "--to", sent.lake, *STATIONARY, *HERE)
    sent.shard(3).unlink()
    flip(sent.shard(1), 400)
    ran = run(*command, "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    movie = next(stream for stream in document["streams"] if stream["frames"])
    assert (movie["status"], movie["data_id"], movie["source"]) == ("different", sent.data_id, sent.path)
    assert {"chunks", "bytes", "seconds", "mb_per_s"} <= movie.keys()
    found = {difference["kind"]: difference for difference in movie["differences"]}
    assert found.keys() == {"missing object", "frames"}
    assert found["missing object"]["object"] == f"{sent.data_id}.zarr/frames/c/3/0/0"
    assert (found["frames"]["chunk"], found["frames"]["message"][:8]) == (1, "chunk 1:")
    assert document["totals"] | {"seconds": 0, "mb_per_s": 0} == {
        "streams": 2, "verified": 1, "repaired": 0, "different": 1, "missing": 0, "unreadable": 0, "chunks": 7,
        "frames": 200, "points": 42, "bytes": 200 * 24 * 32 + 42 * 16, "differences": 2, "repaired_differences": 0,
        "seconds": 0, "mb_per_s": 0,
    }  # fmt: skip
    assert not sent.shard(3).exists()
    ran = run(*command, "--repair")
    assert ran.code == 0, ran.out
    assert "repaired: missing object:" in ran.out
    assert "(1 repaired)" in ran.out
    assert run(*command).code == 0


def test_a_run_that_is_not_there_and_a_file_that_is_none(run, sent: Sent, tmp_path: Path) -> None:
    other = lossy_run(tmp_path / "b.h5", frames=120)
    ran = run("verify", other, "--to", sent.lake, *STATIONARY, *HERE)
    assert ran.code == 3
    assert "missing" in ran.out
    assert "hint: `rheed-ingest backfill`" in ran.out
    ran = run("verify", other, tmp_path / "runs/a.h5", "--to", sent.lake, *STATIONARY, *HERE)
    assert ran.code == 3
    (tmp_path / "bad.h5").write_bytes(b"no")
    ran = run("verify", tmp_path / "bad.h5", tmp_path / "runs/a.h5", "--to", sent.lake, *STATIONARY, *HERE, "--json")
    assert ran.code == 3
    assert [stream["status"] for stream in json.loads(ran.out)["streams"]] == ["verified", "unreadable"]
    ran = run("verify", tmp_path / "bad.h5", "--to", sent.lake, *STATIONARY, *HERE)
    assert ran.code == 1


def test_one_stream_by_its_id(run, sent: Sent) -> None:
    ran = run("verify", "--to", sent.lake, "--stream", sent.data_id, *HERE, "--json")
    assert (ran.code, [stream["data_id"] for stream in json.loads(ran.out)["streams"]]) == (0, [sent.data_id])
    ran = run("verify", "--to", sent.lake, "--stream", "nothing-00000000", *HERE)
    assert ran.code == 1
    assert "holds no stream nothing-00000000" in ran.out


def test_the_arguments_of_a_backfill_of_two_destinations(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    lake = tmp_path / "lake"
    with ThreadServer(tmp_path / "data") as server:
        path, plan = plan_for(lossy_run(tmp_path / "a.h5"), str(lake), server.url)
        for number, url in enumerate((str(lake), server.url)):
            backfill_without_ray(url, tmp_path / "state", (path, plan), job_id=str(number))
        to = ("--to", lake, "--to", server.url, "--state", tmp_path / "state")
        ran = run("verify", tmp_path / "a.h5", *to, *STATIONARY, *HERE, "--open-runs", 2, "--restart", "--level", 1)
        assert (ran.code, ran.out.count("verified   ")) == (0, 2), ran.out + ran.err
        job = tmp_path / "job.yaml"
        job.write_text(f"sources: [{tmp_path / 'a.h5'}]\nto: [{lake}, '{server.url}']\nrotations_per_min: 0\n")
        ran = run("verify", job, "--state", tmp_path / "state", *HERE)
        assert (ran.code, ran.out.count("verified   ")) == (0, 2), ran.out + ran.err
        ran = run("verify", tmp_path / "a.h5", "--to", lake, *STATIONARY, *HERE)
        assert ran.code == 0, ran.out  # the lake is what it would be without a platform beside it
        state = ("--state", tmp_path / "nothing known")
        ran = run("verify", tmp_path / "a.h5", "--to", server.url, *state, *STATIONARY, *HERE)
        assert "verified" in ran.out or "cut otherwise" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "LAKE", "--repair"), "--repair needs the source"),
        (("--to", "http://127.0.0.1:1"), "without a source only the streams of a lake"),
        (("--to", "null:"), "keeps nothing that could be verified"),
        ((), "no destination"),
        (("RUNS", "--to", "LAKE", *STATIONARY, "--stream", "x"), "--stream is for one run at a time"),
    ],
)
def test_what_cannot_be_asked(run, sent: Sent, tmp_path: Path, arguments, said: str, monkeypatch) -> None:
    monkeypatch.delenv("AS_API_ENDPOINT", raising=False)
    places = {"LAKE": sent.lake, "RUNS": tmp_path / "runs"}
    ran = run("verify", *(places.get(argument, argument) for argument in arguments), *HERE)
    assert ran.code == 2
    assert said in ran.err
    assert "hint:" in ran.err


def test_a_lake_without_streams(run, tmp_path: Path) -> None:
    ran = run("verify", "--to", tmp_path / "nothing", *HERE)
    assert ran.code == 1
    assert "holds no streams" in ran.err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_with_packers_on_ray(run, sent: Sent, tmp_path: Path) -> None:
    command = ("verify", tmp_path / "runs", "--to", sent.lake, *STATIONARY, "--packers", 2)
    assert run(*command).code == 0
    flip(sent.shard(1), 400)
    assert run(*command, "--repair").code == 0
    assert run("verify", "--to", sent.lake, *HERE).code == 0
