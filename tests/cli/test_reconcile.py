"""``rheed-ingest reconcile`` as a user types it, and what ``backfill --failover`` says before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ingest.lake.opening import open_store
from ingest.ledger import StreamState
from ingest.orders import StreamFacts
from ingest.parking import Parking
from tests.actors.test_failover import Away, Bench
from tests.actors.test_system import assert_whole
from tests.support import KEY, ThreadServer, make_run


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())


@pytest.fixture
def server(tmp_path: Path):
    with ThreadServer(tmp_path / "server") as running:
        yield running


@pytest.fixture
def waiting(tmp_path: Path, server):
    """A run of which some chunks wait; the destination answers again."""
    bench_run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=2)
    row = bench.backfill()
    away.is_away, away.after_puts = False, None
    return bench, row, bench_run


def test_everything_is_moved_and_said(run, key, server, waiting):
    bench, row, recorded = waiting
    ran = run("reconcile", bench.failover, "--state", bench.state)
    assert ran.code == 0, ran.err
    n = row.end.parked
    assert f"complete {bench.named[0]} -> {server.url}" in ran.out
    assert f"{n} chunks were parked: {n} moved, {n} removed" in ran.out
    assert "the stream is closed" in ran.out
    assert ran.out.endswith("1 of 1 streams complete\n")
    assert_whole(server, row.data_id, recorded, bench.named[1])
    again = run("reconcile", bench.failover, "--state", bench.state)
    assert (again.code, again.out) == (0, f"nothing waits at {bench.failover}\n")


def test_one_document(run, server, waiting, tmp_path):
    bench, row, _ = waiting
    (tmp_path / "key").write_text(KEY.reveal())
    ran = run("reconcile", bench.failover, "--state", bench.state, "--api-key-file", tmp_path / "key", "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["failover"]) == (0, str(bench.failover))
    [stream] = document["streams"]
    assert (stream["status"], stream["state"], stream["data_id"]) == ("complete", "closed", row.data_id)
    assert (stream["parked"], stream["moved"], stream["removed"]) == (row.end.parked,) * 3
    assert (stream["findings"], stream["error"], stream["hint"]) == ([], None, None)
    assert document["totals"]["removed"] == row.end.parked
    assert document["totals"]["n_bytes"] == stream["n_bytes"] > 0


def test_only_what_is_for_one_destination(run, key, server, waiting):
    bench, row, _ = waiting
    ran = run("reconcile", bench.failover, "--state", bench.state, "--to", "http://127.0.0.1:9")
    assert (ran.code, ran.out) == (0, f"nothing waits at {bench.failover} for http://127.0.0.1:9\n")
    assert [len(stream.chunks) for stream in bench.parked()] == [row.end.parked]
    assert run("reconcile", bench.failover, "--state", bench.state, "--to", server.url).code == 0


def test_what_cannot_be_done_is_failed_and_what_is_left_partial(run, key, server, waiting, monkeypatch):
    bench, row, _ = waiting
    path = bench.failover / bench.parked()[0].chunks[0].name
    path.write_bytes(path.read_bytes()[:-3])
    damaged = run("reconcile", bench.failover, "--state", bench.state)
    assert damaged.code == 3
    assert f"{path} is damaged, and kept" in damaged.out
    assert "run the backfill again" in damaged.out
    monkeypatch.delenv("AS_API_KEY")
    keyless = run("reconcile", bench.failover, "--state", bench.state)
    assert keyless.code == 1
    assert "needs an API key" in keyless.out
    assert "set AS_API_KEY" in keyless.out
    assert row.state is StreamState.OPEN


def test_an_unknown_stream_is_left_alone(run, key, server, waiting, tmp_path):
    bench, row, _ = waiting
    ran = run("reconcile", bench.failover)
    assert ran.code == 1
    assert f"no journal in {tmp_path / 'xdg-state' / 'rheed-ingest'} knows the stream" in ran.out
    assert "--state" in ran.out
    assert [len(stream.chunks) for stream in bench.parked()] == [row.end.parked]
    assert not (tmp_path / "xdg-state").exists()


@pytest.mark.parametrize("state", ["lake/.rheed-ingest", "xdg-state/rheed-ingest"])
def test_the_journal_of_a_lake_is_found_in_it_or_with_the_user(run, tmp_path, state):
    make_run(tmp_path / "a.h5", frames=100, gap=None)
    bench = Bench(tmp_path, str(tmp_path / "lake"))
    bench.state = tmp_path / state
    row = bench.backfill(failover=False)
    facts = StreamFacts.of(*bench.named)
    Parking(open_store(str(bench.failover))).put_note(bench.to, row.key, row.data_id, facts)
    ran = run("reconcile", bench.failover)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "1 of 1 streams complete")
    assert bench.nothing_waits()


@pytest.mark.parametrize(
    ("failover", "words"),
    [
        ("https://api.atomscale.ai", "nothing can be stored at https:// URLs"),
        ("null:", "neither a folder nor a URL"),
        ("memory://x", "a memory of its own"),
        ("s3://key:hunter2@bucket/x", "password"),
        ("lake", "is a destination itself"),
    ],
)
def test_a_failover_that_cannot_be_is_refused_before_anything_is_read(run, tmp_path, monkeypatch, failover, words):
    monkeypatch.chdir(tmp_path)
    ran = run("backfill", "missing.h5", "--to", "lake", "--failover", failover)
    assert ran.code == 2
    assert words in ran.err
    assert "hunter2" not in ran.err


def test_a_time_that_is_none_is_refused(run, tmp_path):
    for arguments in (
        ("backfill", "a.h5", "--to", tmp_path, "--failover", tmp_path / "f", "--failover-after", "soon"),
        ("reconcile", tmp_path / "f", "--retry-for", "soon"),
    ):
        ran = run(*arguments)
        assert ran.code == 2
        assert "no length of time" in ran.err


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_a_whole_job_and_what_moves_it_over(run, key, tmp_path, server):
    recorded = make_run(tmp_path / "a.h5", frames=400)
    away = server.wire.act = Away(after_puts=2)
    failover, state = tmp_path / "failover", tmp_path / "state"
    arguments = ("--state", state, "--rotations-per-min", "0", "--packers", "1")
    ran = run(
        "backfill", tmp_path / "a.h5", "--to", server.url, *arguments, "--json",
        "--failover", failover, "--failover-after", "0.2s", "--retry-for", "5s",
    )  # fmt: skip
    assert ran.code == 3, ran.err
    [told] = json.loads(ran.out)["runs"]
    chunks = told["chunks"]
    assert chunks["parked"] == chunks["total"] - chunks["confirmed"] > 0
    assert f"{chunks['parked']} chunks wait at {failover}" in told["error"]
    assert f"`rheed-ingest reconcile {failover} --state {state}`" in told["hint"]
    away.is_away, away.after_puts = False, None
    ran = run("reconcile", failover, "--state", state)
    assert ran.code == 0, ran.out + ran.err
    bench = Bench(tmp_path, server.url)
    assert_whole(server, told["data_id"], recorded, bench.named[1])
    assert not list(failover.rglob("*.chunk"))
    shutil.rmtree(failover)
    assert run("reconcile", failover, "--state", state).code == 0
