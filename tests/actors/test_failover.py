"""Chunks of a destination that is away wait elsewhere, and are moved over later: each once, and the stream whole."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from actors.reconcile import Reconciled, ReconcileRequest, reconcile
from actors.run_tools import unfinished
from ingest.destinations import LakeDestination
from ingest.errors import SourceReadError, StreamGoneError, UnreachableError
from ingest.failover import FailoverOptions
from ingest.journal import Journal, StreamRow
from ingest.lake.opening import open_store
from ingest.ledger import StreamState
from ingest.parking import ParkedStream, Parking
from ingest.pipeline import NotParked, Parked
from ingest.retry import RetryPolicy
from ingest.telemetry import Telemetry
from ingest.wire.client import PlatformClient
from tests.actors.test_system import assert_whole, streams
from tests.lake.memory_store import MemoryStore
from tests.lake.test_backfill import Watch, assert_in_lake
from tests.support import KEY, System, ThreadServer, answer, make_run, plan_of

BRIEF = RetryPolicy(first_s=0.01, max_s=0.02, retry_for_s=0.3)
NEVER = 3600.0


class Away:
    """Lets so many PUTs through, then answers nothing but 504 until it is told to."""

    def __init__(self, after_puts: int | None = None, only: str = "") -> None:
        self.after_puts = after_puts
        self.only = only
        self.is_away = after_puts == 0
        self.puts: Counter[str] = Counter()

    async def __call__(self, scope, receive, send):
        if self.is_away and self.only in scope["path"]:
            return await answer(send, 504)
        if scope["method"] == "PUT":
            self.puts[scope["path"]] += 1
            self.is_away |= self.puts.total() == self.after_puts
        return None


class Bench:
    """A run, a journal, a failover; jobs to and from them."""

    def __init__(self, folder: Path, to, name: str = "a.h5", probe_every_s: float = NEVER, **settings) -> None:
        self.folder, self.to = folder, to
        self.state, self.failover = folder / "state", folder / "failover"
        self.named = plan_of(folder / name, to=[to] if isinstance(to, str) else to, **settings)
        self.options = FailoverOptions(str(self.failover), after_s=0.05, probe_every_s=probe_every_s)
        self.jobs = itertools.count()

    def system(self, failover: FailoverOptions | None = None, **options) -> System:
        made = System(
            self.to, self.state, job_id=f"job{next(self.jobs)}", retry=BRIEF, failover=failover, lease_s=0.3, **options
        )
        made.register(self.named)
        return made

    def backfill(self, *, failover: bool = True, **options) -> StreamRow:
        return self.system(self.options if failover else None, **options).work()[0]

    def reconcile(self, store=None, **options) -> list[Reconciled]:
        request = ReconcileRequest(
            Parking(store or open_store(str(self.failover), fsync=False, retry=BRIEF)),
            lambda _: [options.pop("state", self.state)],
            options.pop("key", KEY),
            retry=BRIEF,
            lease_s=0.3,
            **options,
        )
        return reconcile(request, lambda _: None, threading.Event())

    def parked(self) -> list[ParkedStream]:
        return Parking(open_store(str(self.failover))).streams()

    @property
    def total(self) -> int:
        return len(self.named[1].chunks)

    def nothing_waits(self) -> bool:
        return not [path for path in self.failover.rglob("*") if path.is_file() or path.name == self.key()]

    def key(self) -> str:
        journal = Journal(self.state, time.time)
        try:
            return journal.streams()[0].key
        finally:
            journal.close()


@pytest.fixture
def server(tmp_path):
    with ThreadServer(tmp_path / "server") as running:
        yield running


def test_away_in_the_middle_and_moved_over_later(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=400)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=3)
    row = bench.backfill()
    assert row.end.status == "partial"
    assert row.end.parked == bench.total - row.confirmed
    assert 0 < row.confirmed <= 4
    assert f"{row.end.parked} chunks wait at {bench.failover}" in row.end.error
    assert f"`rheed-ingest reconcile {bench.failover}`" in row.end.hint
    [parked] = bench.parked()
    journal = Journal(bench.state, time.time)
    assert [chunk.index for chunk in parked.chunks] == list(journal.load(row.key).missing())
    journal.close()
    assert (parked.key, parked.note.destination, parked.note.data_id) == (row.key, server.url, row.data_id)
    assert (parked.note.source, parked.note.chunks) == (bench.named[0], bench.total)
    before = {path for path, n in away.puts.items() if n}
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.status, result.error, result.findings) == ("complete", None, ())
    assert (result.data_id, result.state) == (row.data_id, "closed")
    assert (result.parked, result.moved, result.removed) == (row.end.parked,) * 3
    assert_whole(server, row.data_id, run, bench.named[1])
    assert bench.nothing_waits()
    # A PUT whose answer a 504 took the place of may be repeated; none of those that were confirmed is.
    assert max(away.puts.values()) <= 2
    assert sum(n > 1 for n in away.puts.values()) <= len(before) - row.confirmed
    assert bench.reconcile() == []
    [again] = bench.system().work()
    assert (again.end.status, again.data_id) == ("skipped", row.data_id)


def test_it_goes_back_as_soon_as_the_destination_answers(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=800)
    bench = Bench(tmp_path, server.url, probe_every_s=0.0)
    away = server.wire.act = Away(after_puts=2)

    class BackAfterThree(Telemetry):
        parked = 0

        def emit(self, name, *args, **kwargs):
            self.parked += name == "chunk_parked"
            away.is_away &= self.parked < 3
            away.after_puts = None if self.parked >= 3 else away.after_puts
            return super().emit(name, *args, **kwargs)

    row = bench.backfill(telemetry=BackAfterThree())
    assert 3 <= row.end.parked <= bench.total - 8
    assert row.confirmed == bench.total - row.end.parked
    [result] = bench.reconcile()
    assert (result.status, result.moved) == ("complete", row.end.parked)
    assert_whole(server, row.data_id, run, bench.named[1])


@pytest.mark.parametrize("sample", [None, "STO-1"])
def test_a_stream_that_could_not_be_created_waits_whole(tmp_path, server, sample):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url, sample=sample)
    away = server.wire.act = Away(after_puts=0)
    row = bench.backfill()
    assert (row.end.status, row.end.parked, row.data_id) == ("partial", bench.total, None)
    [parked] = bench.parked()
    assert (parked.note.data_id, len(parked.chunks)) == (None, bench.total)
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.status, result.moved) == ("complete", bench.total)
    assert_whole(server, result.data_id, run, bench.named[1])
    assert len(streams(server)) == 1
    assert set(away.puts.values()) == {1}
    assert bench.nothing_waits()


def test_many_runs_do_not_each_wait_for_a_destination_that_is_away(tmp_path, server):
    for name in "abcdef":
        make_run(tmp_path / f"{name}.h5", frames=45, seed=ord(name))
    bench = Bench(tmp_path, server.url)
    server.wire.act = Away(after_puts=0)
    system = bench.system(bench.options)
    system.register(*(plan_of(tmp_path / f"{name}.h5") for name in "bcdef"))  # after a.h5, whose place is taken
    rows = system.work()
    assert all(row.end.parked == row.chunks for row in rows)
    asked = len(server.wire.requests)
    assert asked < 40, "retries of the runs that were open when it was noticed"


def test_a_lost_chunk_of_a_stream_that_is_not_created_is_no_loss_yet(tmp_path, server, monkeypatch):
    import ingest.packing
    from ingest.errors import FrameDataError

    make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=0)

    def unreadable(source, start, stop, memory):
        if start == 0:
            raise FrameDataError("the first chunk is no picture")
        return source.read(start, stop, memory), ()

    monkeypatch.setattr(ingest.packing, "read_what_is_there", unreadable)
    row = bench.backfill()
    assert (row.end.parked, row.lost) == (bench.total - 1, 0)
    assert "1 chunk neither arrived nor parked: the first chunk is no picture" in row.end.error
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.state) == ("partial", bench.total - 1, "open")
    assert result.error == "1 chunk neither arrived nor parked: it has to come from its source"
    assert "run the backfill again" in result.hint
    assert bench.nothing_waits()


LOG = "time,Heater (C),Pressure (mbar)\n" + "".join(
    f"2023-10-18T08:00:{i:02d}.5+02:00,{20 + i / 8},{'' if i == 5 else f'{i + 1}e-9'}\n" for i in range(23)
)


@pytest.mark.parametrize("away_from_the_start", [True, False])
def test_readings_wait_too_and_arrive_as_they_would_have(tmp_path, server, away_from_the_start):
    (tmp_path / "a.csv").write_text(LOG)
    bench = Bench(tmp_path, server.url, name="a.csv", points_per_chunk=5)
    away = server.wire.act = Away(after_puts=0 if away_from_the_start else None, only="chunk")
    if away_from_the_start:
        away.only = ""
    else:
        away.is_away = True
    row = bench.backfill()
    assert (row.end.parked, row.confirmed) == (bench.total, 0)
    assert (row.data_id is None) == away_from_the_start
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.status, result.moved) == ("complete", bench.total)
    other = Bench(tmp_path, server.url, name="a.csv", points_per_chunk=5)
    other.state = tmp_path / "other"
    direct = other.backfill(failover=False)
    journals = [Journal(state, time.time) for state in (bench.state, other.state)]
    moved, sent = (
        [(r.index, r.frames, r.n_bytes, r.label) for r in journal.receipts(key)]
        for journal, key in zip(journals, (result.key, direct.key), strict=True)
    )
    assert moved == sent
    for journal in journals:
        journal.close()
    assert bench.nothing_waits()


def test_readings_that_the_backfill_sent_meanwhile_are_recognized(tmp_path, server):
    (tmp_path / "a.csv").write_text(LOG)
    bench = Bench(tmp_path, server.url, name="a.csv", points_per_chunk=5)
    away = server.wire.act = Away(after_puts=0)
    bench.backfill()
    away.is_away = False
    assert bench.backfill().end.status == "complete"
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.removed) == ("complete", 0, bench.total)
    assert bench.nothing_waits()


def test_a_folder_that_was_unmounted(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=400, gap=None)
    lake, elsewhere = tmp_path / "lake", tmp_path / "unmounted"
    bench = Bench(tmp_path, str(lake))

    class Unmount(Telemetry):
        def emit(self, name, *args, **kwargs):
            if name == "chunk_put" and lake.exists():
                lake.rename(elsewhere)
            return super().emit(name, *args, **kwargs)

    row = bench.backfill(packers=1, telemetry=Unmount())
    assert not lake.exists(), "nothing is made below the mount point"
    assert row.end.parked == bench.total - row.confirmed > 0
    assert "the lake's folder is gone" in row.end.error
    elsewhere.rename(lake)
    [result] = bench.reconcile()
    assert (result.status, result.state) == ("complete", "closed")
    assert_in_lake(lake, row.data_id, run)
    assert bench.nothing_waits()


class Mute(LakeDestination):
    """Never says what it holds, and closes nothing."""

    async def held(self, data_id):
        raise UnreachableError(f"{data_id} is not to be read")

    async def close_stream(self, data_id, contents=None):
        raise UnreachableError(f"{data_id} is not to be closed")


def test_what_can_be_delivered_is_although_other_calls_have_no_answer(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=200, gap=None)
    bench = Bench(tmp_path, str(tmp_path / "lake"), probe_every_s=0.0)
    system = bench.system(bench.options)
    system.dispatcher._open_destination = lambda url: Mute(open_store(url))
    [row] = system.work()
    assert (row.state, row.confirmed, row.end.parked) == (StreamState.CLOSING, bench.total, 0)
    assert "could not be closed" in row.end.error
    [result] = bench.reconcile()
    assert (result.status, result.parked) == ("complete", 0)
    assert_in_lake(tmp_path / "lake", row.data_id, run)


def test_two_destinations_and_one_of_them_away(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    lake = tmp_path / "lake"
    bench = Bench(tmp_path, [server.url, str(lake)])
    away = server.wire.act = Away(after_puts=1)
    platform, in_lake = bench.system(bench.options).work()
    assert (platform.end.status, in_lake.end.status) == ("partial", "complete")
    assert_in_lake(lake, in_lake.data_id, run)
    assert bench.reconcile(destination=str(lake)) == []
    away.is_away = False
    away.after_puts = None
    [result] = bench.reconcile(destination=server.url)
    assert (result.status, result.destination) == ("complete", server.url)
    assert_whole(server, platform.data_id, run, bench.named[1])


def test_when_the_failover_is_away_as_well_both_are_named_and_nothing_is_lost(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    bench.failover.write_text("a file, no folder")
    away = server.wire.act = Away(after_puts=2)
    row = bench.backfill()
    assert (row.end.status, row.end.parked, row.lost) == ("partial", 0, 0)
    assert "504" in row.end.error
    assert f"the failover takes nothing either: {bench.failover}" in row.end.error
    away.is_away, away.after_puts = False, None
    again = bench.backfill()
    assert (again.end.status, again.data_id) == ("complete", row.data_id)
    assert_whole(server, row.data_id, run, bench.named[1])


def test_the_backfill_again_sends_from_the_source_and_reconcile_clears_up(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=1)
    parked = bench.backfill().end.parked
    away.is_away, away.after_puts = False, None
    row = bench.backfill(failover=False)
    assert row.end.status == "complete"
    [stream] = bench.parked()
    first = bench.failover / stream.chunks[0].name
    other = first.with_name(f"{stream.chunks[0].index:010d}-{'0' * 32}.chunk")
    other.write_bytes(first.read_bytes())
    [result] = bench.reconcile(key=None)  # nothing is sent, so that no key is needed
    assert (result.status, result.moved, result.removed) == ("partial", 0, parked)
    [finding] = result.findings
    assert str(other) in finding
    assert "is kept" in finding
    assert other.exists()
    other.unlink()
    assert [result.status for result in bench.reconcile()] == ["complete"]
    assert bench.nothing_waits()
    assert_whole(server, row.data_id, run, bench.named[1])


def test_a_damaged_chunk_is_kept_and_named_and_the_source_mends_it(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=1)
    row = bench.backfill()
    away.is_away, away.after_puts = False, None
    [stream] = bench.parked()
    path = bench.failover / stream.chunks[0].name
    raw = bytearray(path.read_bytes())
    raw[10] ^= 1
    path.write_bytes(raw)
    [result] = bench.reconcile()
    assert (result.status, result.moved) == ("partial", row.end.parked - 1)
    [finding] = result.findings
    assert f"{path} is damaged, and kept" in finding
    assert bytes(raw) == path.read_bytes()
    assert bench.backfill().end.status == "complete"
    [result] = bench.reconcile()
    assert (result.status, result.removed) == ("complete", 1)
    assert_whole(server, row.data_id, run, bench.named[1])


def test_a_close_that_could_not_be_posted_is_made_up_for(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away()
    watch = Telemetry(lambda event: setattr(away, "is_away", away.is_away or event.name == "close_posting"))
    row = bench.backfill(telemetry=watch)
    assert (row.state, row.end.status, row.end.parked) == (StreamState.CLOSING, "partial", 0)
    assert "every chunk is there, but the stream could not be closed" in row.end.error
    assert "rheed-ingest reconcile" in row.end.hint
    [result] = bench.reconcile()
    assert (result.status, result.state) == ("partial", "closing")
    assert [stream.note.data_id for stream in bench.parked()] == [row.data_id]
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.status, result.parked) == ("complete", 0)
    assert_whole(server, row.data_id, run, bench.named[1])
    assert bench.nothing_waits()


def test_a_stream_that_the_platform_failed_meanwhile_gets_a_new_one(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=1)
    row = bench.backfill()
    away.is_away, away.after_puts = False, None

    async def end() -> None:
        async with PlatformClient(server.url, KEY) as client:
            await client.end_rheed_stream(row.data_id)

    asyncio.run(end())
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.removed) == ("partial", row.end.parked, row.end.parked)
    assert result.data_id != row.data_id
    assert "run the backfill again" in result.hint
    assert bench.nothing_waits()
    again = bench.backfill()
    assert (again.end.status, again.data_id, again.replaces) == ("complete", result.data_id, row.data_id)
    assert_whole(server, again.data_id, run, bench.named[1])


def test_a_stream_that_is_gone_is_made_anew_whatever_waits():
    gone, left = StreamGoneError("the stream failed"), [Parked(0, "away")]
    assert unfinished(left, gone, FailoverOptions("/f")) is gone


def test_what_stopped_a_run_is_said_beside_what_waits():
    left = [Parked(0, "away"), Parked(1, "away"), NotParked(2, "unreadable")]
    end = unfinished(left, SourceReadError("the disk is gone"), FailoverOptions("/f"))
    assert str(end) == "the disk is gone; 2 chunks wait at /f: away; 1 chunk neither arrived nor parked: unreadable"
    assert "`rheed-ingest reconcile /f`" in end.hint


def test_without_the_journal_nothing_is_guessed_and_the_same_run_is_recognized(tmp_path, server):
    make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=1)
    row = bench.backfill()
    away.is_away, away.after_puts = False, None
    shutil.rmtree(bench.state)
    requests = len(server.wire.requests)
    [result] = bench.reconcile()
    assert (result.status, result.state, result.data_id) == ("failed", None, row.data_id)
    assert str(bench.state) in result.error
    assert f"backfill of {bench.named[0]} to {server.url} again" in result.hint
    assert len(server.wire.requests) == requests
    assert not bench.state.exists(), "no journal is made by looking for one"
    assert bench.backfill().end.status == "complete"
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.removed) == ("complete", 0, row.end.parked)
    assert bench.nothing_waits()


def test_what_was_planned_otherwise_since_is_not_moved(tmp_path, server):
    """A stream of which nothing was sent may be planned anew: then what waits is not what is asked for."""
    run = make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url, sample="S")  # which is asked for first, so that nothing is begun
    away = server.wire.act = Away(after_puts=0)
    first = bench.backfill()
    assert first.state is StreamState.PLANNED
    bench.named = plan_of(tmp_path / "a.h5", sample="S", chunk_size=60)
    second = bench.backfill()
    assert first.key == second.key
    away.is_away = False
    [result] = bench.reconcile()
    assert (result.moved, result.state) == (second.end.parked, "closed")
    assert (result.status, len(result.findings)) == ("partial", first.end.parked)
    assert all("made of another recording, or with other settings" in f or "is kept" in f for f in result.findings)
    assert_whole(server, result.data_id, run, bench.named[1])


def test_a_stream_at_work_is_left_alone(tmp_path, server):
    make_run(tmp_path / "a.h5", frames=200)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=1)
    row = bench.backfill()
    away.is_away, away.after_puts = False, None
    ended = threading.Event()

    def hold() -> None:
        journal = Journal(bench.state, time.time)
        journal.lease(row.key, "other", 0.3)
        while not ended.wait(0.05):
            journal.renew("other", 0.3)
        journal.close()

    holder = threading.Thread(target=hold)
    holder.start()
    time.sleep(0.1)
    try:
        [result] = bench.reconcile()
    finally:
        ended.set()
        holder.join()
    assert (result.status, result.moved, result.removed) == ("failed", 0, 0)
    assert "job other has it" in result.error
    [parked] = bench.parked()
    assert (len(parked.chunks), parked.note is None) == (row.end.parked, False)
    assert [result.status for result in bench.reconcile()] == ["complete"]


def test_two_at_once_move_each_chunk_once(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=400)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=0)
    bench.backfill()
    away.is_away = False
    results: list[Reconciled] = []
    threads = [threading.Thread(target=lambda: results.extend(bench.reconcile())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result for result in results if result.status == "complete"]
    assert sum(result.moved for result in results) == bench.total
    assert set(away.puts.values()) == {1}
    assert len(streams(server)) == 1
    assert_whole(server, results[0].data_id, run, bench.named[1])
    assert bench.nothing_waits()


def test_a_stopped_one_goes_on_later(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=400)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=0)
    bench.backfill()
    away.is_away = False
    stop = threading.Event()
    slow = Telemetry(lambda event: (event.name == "chunk_put" and (stop.set(), time.sleep(0.05))) or None)
    request = ReconcileRequest(
        Parking(open_store(str(bench.failover))), lambda _: [bench.state], KEY, retry=BRIEF, telemetry=slow
    )
    [result] = reconcile(request, lambda _: None, stop)
    assert (result.status, result.error) == ("partial", "interrupted")
    assert 0 < result.moved == result.removed < bench.total
    [result] = bench.reconcile()
    assert result.status == "complete"
    assert_whole(server, result.data_id, run, bench.named[1])


def test_a_destination_that_goes_away_again(tmp_path, server):
    run = make_run(tmp_path / "a.h5", frames=400)
    bench = Bench(tmp_path, server.url)
    away = server.wire.act = Away(after_puts=0)
    bench.backfill()
    away.is_away, away.after_puts = False, 3
    [result] = bench.reconcile()
    assert result.status == "partial"
    assert 0 < result.moved == result.removed < bench.total
    assert "504" in result.error
    away.is_away, away.after_puts = False, None
    [result] = bench.reconcile()
    assert result.status == "complete"
    assert_whole(server, result.data_id, run, bench.named[1])


# -- killed ------------------------------------------------------------------------------------------------------------


class ExitAt(Telemetry):
    """Ends the process at an event's n-th time."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name, self.left = name, number

    def emit(self, name, *args, **kwargs):
        self.left -= name == self.name
        if self.left == 0:
            os._exit(9)
        return super().emit(name, *args, **kwargs)


def reconcile_until(bench: Bench, event: str, number: int) -> int:
    """Reconcile in a process that is killed at an event; return its exit code, 9: so it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of later Pythons, as there are threads
        pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            bench.reconcile(telemetry=ExitAt(event, number))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def parked_for_a_lake(tmp_path):
    """Return a bench whose lake has some chunks of six, the others wait; and its run."""
    run = make_run(tmp_path / "a.h5", frames=230, gap=None)
    bench = Bench(tmp_path, str(tmp_path / "lake"))
    lake, elsewhere = tmp_path / "lake", tmp_path / "unmounted"
    watch = Watch("chunk_put")
    watch_emit = watch.emit

    def emit(name, *args, **kwargs):
        watch_emit(name, *args, **kwargs)
        if watch.left == 0 and lake.exists():
            lake.rename(elsewhere)

    watch.emit = emit
    row = bench.backfill(packers=1, telemetry=watch)
    elsewhere.rename(lake)
    assert row.end.parked == 6 - row.confirmed > 1
    for name in ("state", "lake", "failover"):
        shutil.copytree(tmp_path / name, tmp_path / "kept" / name)
    return bench, run


def again(bench: Bench) -> None:
    """Bring everything back to where it was."""
    for name in ("state", "lake", "failover"):
        shutil.rmtree(bench.folder / name)
        shutil.copytree(bench.folder / "kept" / name, bench.folder / name)


def assert_made_whole(bench: Bench, run) -> None:
    """One more call, and everything is where it belongs."""
    results = bench.reconcile()
    assert all(result.status == "complete" for result in results), results
    journal = Journal(bench.state, time.time)
    [row] = journal.streams()
    assert (row.state, row.confirmed) == (StreamState.CLOSED, bench.total)
    journal.close()
    assert_in_lake(bench.folder / "lake", row.data_id, run)
    assert bench.nothing_waits()


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ("chunk_read", 1), ("chunk_put", 1), ("chunk_put", 2), ("receipt_received", 1), ("ChunkConfirmed_committed", 1),
        ("CloseBegun_committed", 1), ("close_posting", 1), ("close_answered", 1), ("StreamClosed_committed", 1),
    ],
)  # fmt: skip
def test_killed_at_every_step(parked_for_a_lake, event, number):
    bench, run = parked_for_a_lake
    assert reconcile_until(bench, event, number) == 9
    assert_made_whole(bench, run)


def test_a_failover_that_fails_at_every_change(parked_for_a_lake):
    bench, run = parked_for_a_lake
    chunks, failed = len(bench.parked()[0].chunks), 0
    for number in itertools.count():
        again(bench)
        store = MemoryStore(
            {
                str(path.relative_to(bench.failover)): path.read_bytes()
                for path in bench.failover.rglob("*")
                if path.is_file()
            },
            number,
        )
        [result] = bench.reconcile(store)
        if result.status == "complete":
            break
        failed += 1
        assert any("not all that arrived was removed" in finding for finding in result.findings)
        shutil.rmtree(bench.failover)
        store.write_to(bench.failover)
        assert_made_whole(bench, run)
    assert failed == chunks + 1  # and the note


def test_a_failover_that_cannot_be_listed_is_an_error(parked_for_a_lake):
    bench, _ = parked_for_a_lake
    with pytest.raises(UnreachableError, match="does not answer"):
        bench.reconcile(MemoryStore({}, -1))
