"""``spool list``, ``deliver`` and ``discard``: what dead sessions left on disk, seen, sent and thrown away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.ledger import ChunkConfirmed, ChunkLost, CloseBegun, Sealed, StreamClosed, StreamGone, StreamState
from ingest.plan import StreamSettings
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from ingest.wire.models import Delivery
from tests.cli.spools import (
    POINTS,
    Leftover,
    frames_of,
    points_of,
    stored_frames,
    stored_points,
    stream_status,
)
from tests.support import KEY, ThreadServer, answer

OTHER_KEY = Secret("another-key-0123456789")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadServer]:
    with ThreadServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(running: ThreadServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadServer]:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    monkeypatch.setenv("AS_API_ENDPOINT", running.url)
    running.wire.act = None
    yield running
    running.wire.act = None


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def named(name: str) -> StreamSettings:
    return StreamSettings(name, 10.0, 0.0, 20)


def files(leftover: Leftover) -> list[str]:
    folder = leftover.spool.folder / leftover.key
    return sorted(os.listdir(folder)) if folder.exists() else []


def listed(run, state: Path) -> dict[str, dict]:
    return {
        found["key"]: found for found in json.loads(run("spool", "list", "--state", state, "--json").out)["streams"]
    }


class TestList:
    def test_nothing(self, run, state: Path) -> None:
        ran = run("spool", "list", "--state", state)
        assert (ran.code, ran.err) == (0, "")
        assert f"nothing in {state / 'spool'} (cap " in ran.out
        assert not (state / "spool").exists()
        assert json.loads(run("spool", "list", "--state", state, "--json").out)["streams"] == []

    def test_says_of_each_stream_what_waits_and_what_became_of_it_without_a_key(self, run, state: Path) -> None:
        live = Leftover(state, "")
        live.put(0, 1, 2, seal=True)
        series = Leftover(state, "", POINTS)
        series.put(0, 1)
        gone = Leftover(state, "", named("STO-2"))
        gone.put(0)
        gone.record(StreamGone("silent for 2 hours"))
        closed = Leftover(state, "", named("STO-3"))
        closed.put(0)
        closed.record(Sealed(0), CloseBegun(), StreamClosed())
        held = Leftover(state, "", named("STO-4"), key=OTHER_KEY)
        held.put(0)
        held.lease("cafe00cafe00", 30.0)

        found = listed(run, state)
        assert set(found) == {live.key, series.key, gone.key, closed.key, held.key}
        assert found[live.key] == {
            "key": live.key, "data_id": live.data_id, "name": "STO live", "kind": "rheed",
            "destination": live.destination, "account": live.account, "state": "open", "sealed": True,
            "gone_reason": None, "chunks": 3, "bytes": 3 * 4096, "oldest_age_s": pytest.approx(0, abs=30),
            "damaged": 0, "refused": 0, "lease_holder": None, "folder": str(live.spool.folder / live.key),
        }  # fmt: skip
        assert (found[series.key]["kind"], found[series.key]["sealed"]) == ("timeseries", False)
        assert (found[gone.key]["state"], found[gone.key]["gone_reason"]) == ("gone", "silent for 2 hours")
        assert found[closed.key]["state"] == "closed"
        assert (found[held.key]["lease_holder"], found[held.key]["account"]) == ("cafe00cafe00", held.account)
        text = run("spool", "list", "--state", state).out
        for words in (
            "silent for 2 hours",
            "session cafe00cafe00 has it",
            "sealed: it is closed once",
            "8 chunk(s) wait",
        ):
            assert words in text, text

    def test_a_stream_that_the_journal_does_not_know_is_told_by_its_files(
        self, run, state: Path, tmp_path: Path
    ) -> None:
        stray = Leftover(tmp_path / "elsewhere", "", POINTS)
        stray.put(0, 1)
        shutil.copytree(stray.spool.folder / stray.key, state / "spool" / stray.account / stray.key)
        found = listed(run, state)[stray.key]
        assert (found["state"], found["data_id"], found["kind"]) == ("unknown", stray.data_id, "timeseries")
        assert (found["destination"], found["chunks"]) == (stray.destination, 2)
        assert "the journal does not know it" in run("spool", "list", "--state", state).out

    def test_what_is_set_aside_is_counted_and_a_damaged_header_is_no_obstacle(self, run, state: Path) -> None:
        left = Leftover(state, "")
        left.put(0, 1, 2)
        first, second, third = left.spool.entries(left.key)
        first.path.write_bytes(b"nothing")
        left.spool.set_aside(first, "damaged")
        left.spool.set_aside(second, "refused")
        found = listed(run, state)[left.key]
        assert (found["chunks"], found["damaged"], found["refused"]) == (1, 1, 1)
        assert "1 damaged, set aside" in run("spool", "list", "--state", state).out
        third.path.write_bytes(b"nothing")
        shutil.rmtree(state / "journal.sqlite", ignore_errors=True)
        for name in ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"):
            (state / name).unlink(missing_ok=True)
        unknown = listed(run, state)[left.key]
        assert (unknown["state"], unknown["data_id"]) == ("unknown", left.data_id), "the refused one tells"

    def test_of_another_folder_of_spools(self, run, state: Path, tmp_path: Path) -> None:
        left = Leftover(tmp_path / "a", "")
        left.put(0)
        ran = run("spool", "list", "--state", state, "--spool-dir", tmp_path / "a" / "spool", "--json")
        assert [found["key"] for found in json.loads(ran.out)["streams"]] == [left.key]


class TestDeliver:
    def test_everything_arrives_as_it_was_and_what_is_sealed_is_closed(self, run, state: Path, server) -> None:
        movie, series = Leftover(state, server.url), Leftover(state, server.url, POINTS)
        movie.put(0, 1, 2, seal=True)
        series.put(0, 1)
        ran = run("spool", "deliver", "--to", server.url, "--state", state, "--json")
        assert ran.code == 0, ran.err
        document = json.loads(ran.out)
        assert document["delivered"]["chunks"] == 5
        assert document["closed"] == [movie.data_id]
        assert (document["lost"], document["remaining"]) == ([], [])
        assert "5 chunk(s)" in ran.err
        assert KEY.reveal() not in ran.out + ran.err
        stored = stored_frames(server.url, movie.data_id)
        assert all(np.array_equal(a, frames_of(i)) for i, a in enumerate(stored))
        assert (len(stored), stream_status(server.url, movie.data_id)) == (3, "closed")
        times, values = stored_points(server.url, series.data_id)
        assert times == [t for i in range(2) for t in points_of(i)[0].tolist()]
        assert values == [v for i in range(2) for v in points_of(i)[1].tolist()]
        assert series.stream().state is StreamState.OPEN
        assert (series.stream().lease_holder, files(movie), files(series)) == (None, [], [])

        again = run("spool", "deliver", "--state", state)
        assert (again.code, again.err) == (0, "")
        assert "nothing waits for this endpoint and key" in again.out

    def test_what_a_live_session_has_is_left_to_it_and_named(self, run, state: Path, server) -> None:
        held, free = Leftover(state, server.url), Leftover(state, server.url, POINTS)
        held.put(0)
        free.put(0)
        held.lease("cafe00cafe00", 20.0)
        done = threading.Event()

        def renew() -> None:
            while not done.wait(0.2):
                with held.journal() as journal:
                    journal.renew("cafe00cafe00", 20.0)

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            ran = run("spool", "deliver", "--state", state)
        finally:
            done.set()
            thread.join()
        assert ran.code == 3
        assert f"stream {held.data_id} 'STO live': 1 chunk(s), 4.1 kB, remain: session cafe00cafe00 has" in ran.out
        assert (files(free), len(files(held))) == ([], 1)

    def test_what_a_dead_session_has_is_taken_over_when_its_lease_ends(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url)
        left.put(0)
        left.lease("dead00dead00", 1.0)
        assert run("spool", "deliver", "--state", state).code == 0
        assert len(stored_frames(server.url, left.data_id)) == 1

    def test_a_platform_that_does_not_answer_is_named_and_another_time_it_works(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url)
        left.put(0, 1, seal=True)
        server.wire.act = lambda scope, receive, send: answer(send, 503)
        ran = run("spool", "deliver", "--state", state, "--retry-for", "1")
        assert ran.code == 3
        assert "2 chunk(s), 8.2 kB, remain: " in ran.out
        assert "503" in ran.out
        assert "stalls: " in ran.err
        assert (left.stream().lease_holder, len(files(left))) == (None, 2)
        server.wire.act = None
        assert run("spool", "deliver", "--state", state).code == 0

    def test_a_refused_key_is_not_waited_for(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url)
        left.put(0)
        server.wire.act = lambda scope, receive, send: answer(send, 401)
        began_s = time.monotonic()
        ran = run("spool", "deliver", "--state", state)
        assert (ran.code, time.monotonic() - began_s < 15) == (3, True)
        assert "401" in ran.out

    def test_a_chunk_that_is_refused_is_lost_named_and_kept_aside(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url, POINTS)
        left.put(0, 1, 2, seal=True)
        bodies = 0

        async def refuse_one(scope, receive, send):
            nonlocal bodies
            if scope["path"].endswith("/chunk"):
                bodies += 1
                return bodies == 2 and await answer(send, 422, b'{"detail":"no such channel"}')
            return False

        server.wire.act = refuse_one
        ran = run("spool", "deliver", "--state", state, "--json")
        document = json.loads(ran.out)
        assert ran.code == 3
        [lost] = document["lost"]
        assert (lost["data_id"], "no such channel" in lost["reason"]) == (left.data_id, True)
        assert lost["reason"].startswith(f"chunk {lost['index']} of temperature: ")
        assert (document["delivered"]["chunks"], document["closed"]) == (2, [left.data_id])
        assert listed(run, state)[left.key]["refused"] == 1
        assert run("spool", "deliver", "--state", state).code == 0, "it was said"

    def test_a_stream_that_the_platform_closed_meanwhile_is_kept_and_reported(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url)
        left.put(0)

        async def close() -> None:
            async with PlatformClient(server.url, KEY) as client:
                await client.end_rheed_stream(left.data_id)

        asyncio.run(close())
        ran = run("spool", "deliver", "--state", state)
        assert ran.code == 3
        assert "the platform takes nothing more" in ran.out
        assert len(files(left)) == 1
        assert listed(run, state)[left.key]["state"] == "gone"
        assert run("spool", "deliver", "--state", state).code == 3

    def test_a_sealed_stream_whose_chunk_is_nowhere_is_named_at_once(self, run, state: Path, server) -> None:
        left = Leftover(state, server.url)
        left.put(0, 1, seal=True)[1].unlink()
        ran = run("spool", "deliver", "--state", state)
        assert ran.code == 3
        assert "not closed: it is sealed, and 1 chunk(s) are neither confirmed nor lost nor in the spool" in ran.out

    def test_no_key_no_platform_another_key(self, run, state: Path, server, monkeypatch, tmp_path: Path) -> None:
        assert run("spool", "deliver", "--state", state, "--to", "null:").code == 2
        assert "no length of time" in run("spool", "deliver", "--state", state, "--retry-for", "soon").err
        left = Leftover(state, server.url)
        left.put(0)
        (tmp_path / "key").write_text(OTHER_KEY.reveal())
        ran = run("spool", "deliver", "--state", state, "--api-key-file", tmp_path / "key")
        assert ran.code == 0
        assert f"1 chunk(s) wait for {server.url} with another key" in ran.err
        monkeypatch.delenv("AS_API_KEY")
        ran = run("spool", "deliver", "--state", state)
        assert (ran.code, "AS_API_KEY" in ran.err) == (1, True)
        monkeypatch.delenv("AS_API_ENDPOINT")
        assert run("spool", "deliver", "--state", state).code == 2

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_gives_the_leases_back_and_keeps_what_waits(self, state: Path, server, number: int) -> None:
        left = Leftover(state, server.url)
        left.put(*range(6))
        begun = threading.Event()

        async def freeze(scope, receive, send):
            if scope["method"] == "PUT":
                begun.set()
                while server.wire.act is freeze:
                    await asyncio.sleep(0.05)

        server.wire.act = freeze
        command = [
            sys.executable,
            "-c",
            "from ingest.cli import main; main()",
            "spool",
            "deliver",
            "--state",
            str(state),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert begun.wait(30)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert "leaving off" in err
        assert "6 chunk(s), 24.6 kB, remain" in out
        assert (left.stream().lease_holder, len(files(left))) == (None, 6)


class TestDiscard:
    def test_says_what_would_be_lost_and_does_nothing_without_yes(self, run, state: Path) -> None:
        left = Leftover(state, "")
        left.put(0, 1)
        ran = run("spool", "discard", left.data_id, "--state", state)
        assert (ran.code, len(files(left))) == (2, 2)
        assert "2 chunk(s), 8.2 kB would be lost for ever" in ran.err
        assert "--yes" in ran.err
        assert left.losses() == {}

    @pytest.mark.parametrize("settings", [named("STO"), POINTS], ids=["frames", "points"])
    def test_the_chunks_of_an_open_stream_are_losses_that_its_close_reports(
        self, run, state: Path, server, settings
    ) -> None:
        left = Leftover(state, server.url, settings)
        left.put(0, 1, 2, seal=True)
        left.record(ChunkConfirmed(left.chunk(0).receipt(Delivery(None, 1), "here", 1)))
        ran = run("spool", "discard", left.key, "--state", state, "--yes")
        assert (ran.code, files(left)) == (0, [])
        assert "discarded 3 chunk(s), 12.3 kB of disk, of stream" in ran.out
        what = " of temperature" if settings is POINTS else ""
        said = {i: f"chunk {i}{what}: discarded from the spool, as a user asked" for i in (1, 2)}
        assert left.losses() == said, "the first has arrived"
        assert all(reason in ran.out for reason in said.values())
        assert "deliver` closes it, with these losses" in ran.out
        assert left.stream().lease_holder is None
        document = json.loads(run("spool", "deliver", "--state", state, "--json").out)
        assert (document["closed"], document["remaining"]) == ([left.data_id], [])

    def test_names_the_candidates(self, run, state: Path) -> None:
        assert "it is empty" in run("spool", "discard", "STO", "--state", state, "--yes").err
        one, two = Leftover(state, "", named("STO")), Leftover(state, "", named("STO"))
        one.put(0)
        two.put(0)
        ran = run("spool", "discard", "STO", "--state", state, "--yes")
        assert ran.code == 2
        assert "'STO' is 2 streams" in ran.err
        assert one.key in ran.err
        assert two.key in ran.err
        ran = run("spool", "discard", "SrTiO3", "--state", state, "--yes")
        assert (ran.code, one.data_id in ran.err) == (2, True)
        assert len(files(one) + files(two)) == 2
        assert run("spool", "discard", two.key, "--state", state, "--yes").code == 0
        assert (len(files(one)), files(two)) == (1, [])

    def test_refuses_what_a_live_session_has(self, run, state: Path) -> None:
        left = Leftover(state, "")
        left.put(0)
        epoch = left.lease("cafe00cafe00", 30.0)
        ran = run("spool", "discard", left.key, "--state", state, "--yes")
        assert (ran.code, len(files(left))) == (1, 1)
        assert "session cafe00cafe00 has it" in ran.err
        assert (left.stream().epoch, left.stream().lease_holder) == (epoch, "cafe00cafe00")

    def test_a_stream_that_is_gone_and_one_that_nobody_knows(self, run, state: Path, tmp_path: Path) -> None:
        gone, stray = Leftover(state, ""), Leftover(tmp_path / "elsewhere", "")
        gone.put(0)
        gone.record(ChunkLost(5, "dropped"), StreamGone("silent"))
        stray.put(0)
        shutil.copytree(stray.spool.folder / stray.key, state / "spool" / stray.account / stray.key)
        assert run("spool", "discard", gone.data_id, "--state", state, "--yes").code == 0
        assert run("spool", "discard", stray.data_id, "--state", state, "--yes").code == 0
        assert listed(run, state) == {}
        assert gone.losses() == {5: "dropped"}


class TestAfterABackfill:
    """Of a file that is none, so that no Ray is needed: the spool is delivered after whatever became of the runs."""

    def test_leftovers_of_the_same_endpoint_and_key_are_delivered(self, run, state: Path, server, tmp_path) -> None:
        ours, others = Leftover(state, server.url), Leftover(state, "", key=OTHER_KEY, destination=server.url)
        ours.put(0, 1, seal=True)
        others.put(0)
        (tmp_path / "bad.h5").write_text("not HDF5")
        ran = run("backfill", tmp_path / "bad.h5", "--to", server.url, "--state", state, "--json")
        assert ran.code == 1, "as without them"
        assert json.loads(ran.out)["totals"]["runs"] == 1
        assert "spool: delivered 2 chunk(s)" in ran.err
        assert f"spool: closed stream {ours.data_id}" in ran.err
        assert (files(ours), len(files(others))) == ([], 1)
        again = run("backfill", tmp_path / "bad.h5", "--to", server.url, "--state", state)
        assert "spool:" not in again.err

    def test_they_cannot_spoil_it(self, run, state: Path, server, tmp_path, monkeypatch) -> None:
        import actors.spool_delivery

        def broken(_setup):
            raise OSError("the disk is on fire")

        monkeypatch.setattr(actors.spool_delivery._Delivery, "report", broken)
        Leftover(state, server.url).put(0)
        (tmp_path / "bad.h5").write_text("not HDF5")
        ran = run("backfill", tmp_path / "bad.h5", "--to", server.url, "--state", state)
        assert ran.code == 1
        assert "spool: what waits there was not delivered" in ran.err
