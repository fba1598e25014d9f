"""Live chunks of a destination that is away wait elsewhere than on the node's disk, and arrive: once, and in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from actors.aggregator import Aggregator, LiveState
from actors.handles import LocalHandle
from actors.live_dispatcher import LiveDispatcher, StreamProgress
from actors.live_setup import LiveOptions, LiveSetup
from actors.producer import ProducedStream, PushWindow
from actors.reconcile import Reconciled, ReconcileRequest, reconcile
from actors.session_options import session_options
from actors.spool_delivery import deliver_spool
from actors.streamer_base import StreamerBase
from ingest.drain import Drain, DrainTools
from ingest.errors import (
    ArgumentTypeError,
    RefusedError,
    SpoolFullError,
    SpoolParkedError,
    StreamerError,
    UnreachableError,
)
from ingest.failover import FailoverOptions
from ingest.journal import Journal
from ingest.lake.opening import open_store
from ingest.ledger import CreateBegun, Sealed, StreamCreated, StreamLedger, StreamLinked, StreamState
from ingest.live_parking import Parkings, StreamParking
from ingest.orders import StreamFacts
from ingest.parking import ParkedStream, Parking
from ingest.retry import RetryPolicy
from ingest.spool import ParkedPlace, Spool, SpoolLimits
from ingest.spool_file import header_line
from tests.actors.test_failover import ExitAt
from tests.live_support import (
    FRAMES,
    POINTS,
    FakeOutlet,
    LiveSystem,
    Trouble,
    assert_stored,
    encoded,
    frames_of,
    run,
    stored_chunks,
    stored_points,
    until,
    uploads,
)
from tests.support import KEY as API_KEY
from tests.support import ThreadServer

KEY = "c" * 32
BRIEF = RetryPolicy(first_s=0.01, max_s=0.02, retry_for_s=0.1)
LEASE_S = 0.25
NOTE_BYTES = 4096
"""What the note of a parked chunk takes of the disk."""


# -- one drain, with a clock of the test's -----------------------------------------------------------------------------


class Rig:
    """A drain with a failover in a folder, an outlet and a clock of the test's, a real spool and a real ledger."""

    def __init__(self, folder: Path, *, after_s: float = 60.0, offered: bool = True) -> None:
        self.failover = folder / "failover"
        self.spool = Spool(folder / "spool", "https://p.test", SpoolLimits(10**9, 0), lambda _: 10**12)
        self.outlet = FakeOutlet(self.act)
        self.is_away = True
        self.on_away = lambda: None
        self.now_s = 1000.0
        self.rests = 0
        self.asks = 0
        self.ledger = StreamLedger(KEY)
        for event in (CreateBegun(), StreamCreated("data-1"), StreamLinked()):
            self.ledger.apply(event)
        self.notices: list[str] = []
        self.options = FailoverOptions(str(self.failover), after_s) if offered else None
        self.begin()

    def begin(self) -> None:
        """As a new process would."""
        facts = StreamFacts.of_live(KEY, FRAMES, str(self.spool.folder.parent))
        self.parking = StreamParking(
            KEY, "https://p.test", "data-1", facts, self.spool, Parkings(BRIEF), self.digests, options=self.options,
            monotonic=lambda: self.now_s,
        )  # fmt: skip
        tools = DrainTools(self.spool, "here/1", clock=lambda: 5000.0, monotonic=lambda: self.now_s, sleep=self.sleep)
        self.drain = Drain(KEY, "data-1", self.outlet, self.record, tools, self.notices.append, parking=self.parking)

    def act(self, chunk) -> None:
        self.asks += 1
        if self.is_away:
            self.on_away()
            raise UnreachableError("nobody answers")

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.rests += 1
        await asyncio.sleep(0)

    async def digests(self) -> dict[int, str]:
        return dict(self.ledger.confirmed)

    async def record(self, events):
        for event in events:
            self.ledger.apply(event)
        return self.ledger.due()

    def put(self, *chunks) -> None:
        for chunk in chunks:
            self.spool.put(chunk)

    def work_until(self, is_so) -> None:
        async def scenario() -> None:
            task = asyncio.ensure_future(self.drain.work())
            try:
                await until(lambda: is_so() or task.done())
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        run(scenario())

    def work(self) -> bool:
        return run(self.drain.work())

    def park_all(self, *, again: bool = True) -> None:
        """Park what is there; then begin again as a new process would."""
        self.is_away = True
        self.work_until(lambda: self.spool.parked(KEY).get(str(self.failover), 0) == len(self.spool.entries(KEY)))
        self.is_away = False
        if again:
            self.begin()

    def objects(self) -> list[Path]:
        return sorted(self.failover.rglob("*.chunk"))

    def nothing_waits(self) -> bool:
        return not self.spool.has(KEY) and not [path for path in self.failover.rglob("*") if path.is_file()]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def versions(*seqs: int, index: int = 3):
    """Return versions of one chunk, the third of which is the first again."""
    return [encoded(KEY, seq, index, frames=frames_of(seq % 2)) for seq in seqs]


def test_it_is_parked_no_earlier_than_asked_each_time(tmp_path):
    rig = Rig(tmp_path, after_s=20.0)
    for seq in range(2):
        began_s, seen = rig.now_s, []
        rig.put(encoded(KEY, seq))
        rig.notices.clear()
        rig.is_away = True
        rig.on_away = lambda began_s=began_s, seen=seen: seen.append((rig.now_s - began_s, len(rig.objects())))
        rig.work_until(lambda: len(rig.notices) == 2)
        assert rig.spool.parked(KEY) == {str(rig.failover): 1}
        assert all(not parked for since_s, parked in seen if since_s < 20)
        assert min(since_s for since_s, _ in seen if since_s >= 20) == 20, "the last rest is cut short"
        [_, news] = rig.notices
        assert f"waits at the failover {rig.failover}" in news
        assert f"`rheed-ingest reconcile {rig.failover}`" in news
        rig.is_away = False
        rig.work()
        rig.now_s += 500


def test_the_destination_is_asked_with_one_chunk_that_is_read_back_once(rig):
    rig.put(*(encoded(KEY, seq) for seq in range(6)))
    rig.park_all(again=False)
    rig.is_away = True
    read = []
    load = rig.parking._load
    rig.parking._load = lambda place, label: (read.append(label.seq), load(place, label))[1]
    rig.outlet.asked.clear()
    rests = rig.rests
    rig.work_until(lambda: rig.rests >= rests + 5)
    assert set(rig.outlet.asked) == {0}
    assert len(rig.outlet.asked) >= 5 > 1 >= len(read)
    rig.is_away = False
    rig.work()
    assert (rig.outlet.seqs[0], sorted(rig.outlet.seqs)) == (0, list(range(6)))
    assert rig.nothing_waits()


def test_versions_of_a_chunk_arrive_in_order_wherever_they_wait(rig):
    chunks = versions(0, 1, 2)
    assert chunks[0].label.digest == chunks[2].label.digest != chunks[1].label.digest
    rig.put(*chunks)
    rig.park_all()
    assert len(rig.objects()) == 3
    rig.put(*versions(3))
    rig.work()
    assert rig.outlet.seqs == [0, 1, 2, 3]
    assert rig.ledger.confirmed == {3: versions(3)[0].label.digest}
    assert rig.nothing_waits()


def test_a_version_that_was_there_before_is_sent_again_after_a_later_one(rig):
    rig.ledger.confirmed[3] = versions(0)[0].label.digest
    rig.put(*versions(1, 2))
    rig.park_all()
    rig.work()
    assert rig.outlet.seqs == [1, 2]


def test_what_waits_with_a_failover_that_is_away_holds_up_its_later_versions_only(rig):
    rig.put(*versions(0), encoded(KEY, 1))
    rig.park_all()
    rig.put(*versions(3), encoded(KEY, 4))
    hidden = rig.failover.rename(rig.failover.with_name("unmounted"))
    rig.work_until(lambda: rig.drain.stalled_by)
    assert rig.outlet.seqs == [4]
    assert f"chunk 3 waits at the failover {rig.failover}" in rig.drain.stalled_by or "chunk 1 waits" in (
        rig.drain.stalled_by
    )
    assert rig.ledger.lost == {}
    hidden.rename(rig.failover)
    rig.work()
    assert (sorted(rig.outlet.seqs), rig.outlet.seqs.index(0) < rig.outlet.seqs.index(3)) == ([0, 1, 3, 4], True)
    assert rig.nothing_waits()


def test_a_failover_that_takes_nothing_leaves_everything_in_the_spool(rig):
    rig.failover.write_text("a file, no folder")
    rig.put(*(encoded(KEY, seq) for seq in range(3)))
    rig.work_until(lambda: "failover" in (rig.drain.stalled_by or ""))
    assert "nobody answers; and the failover takes nothing either: " in rig.drain.stalled_by
    assert str(rig.failover) in rig.drain.stalled_by
    assert (rig.spool.parked(KEY), len(rig.spool.entries(KEY))) == ({}, 3)
    rig.is_away = False
    rig.work()
    assert sorted(rig.outlet.seqs) == [0, 1, 2]


def test_an_answer_is_no_silence(rig):
    """A refused key is for people to mend: the destination is there."""
    rig.put(encoded(KEY, 0))

    def refuse(_chunk) -> None:
        raise RefusedError("not with this key", status=401)

    rig.outlet.act = refuse
    rig.work_until(lambda: rig.now_s > 1000 + 300)
    assert rig.drain.is_refused
    assert (rig.spool.parked(KEY), rig.objects()) == ({}, [])


def test_a_damaged_one_is_named_kept_and_lost(rig):
    rig.put(encoded(KEY, 0), encoded(KEY, 1))
    rig.park_all()
    path = rig.objects()[0]
    raw = bytearray(path.read_bytes())
    raw[10] ^= 1
    path.write_bytes(raw)
    rig.work()
    assert rig.outlet.seqs == [1]
    assert f"{path} is damaged, and kept" in rig.ledger.lost[0]
    assert rig.objects() == [path]
    assert [aside.suffix for aside in rig.spool.damaged(KEY)] == [".damaged"]


def test_a_refused_one_is_kept_and_lost(rig):
    rig.put(encoded(KEY, 0))
    rig.park_all()

    def refuse(_chunk) -> None:
        raise RefusedError("not such frames", status=400)

    rig.outlet.act = refuse
    rig.work()
    assert "not such frames" in rig.ledger.lost[0]
    assert (len(rig.spool.refused(KEY)), len(rig.objects())) == (1, 1)


def test_one_that_is_not_there_is_not_lost(rig):
    """Its failover may be a folder that is not mounted."""
    rig.put(encoded(KEY, 0))
    rig.park_all()
    body = rig.objects()[0].read_bytes()
    rig.objects()[0].unlink()
    rig.work_until(lambda: rig.drain.stalled_by)
    assert (rig.ledger.lost, rig.spool.has(KEY), rig.drain.is_refused) == ({}, True, True)
    name = rig.spool.place(rig.spool.entries(KEY)[0]).name
    (rig.failover / name).write_bytes(body)
    rig.work()
    assert rig.outlet.seqs == [0]


def test_one_that_arrived_is_not_sent_again(rig):
    """It was moved by somebody else, or a process ended between the receipt and the removal."""
    chunks = [encoded(KEY, seq) for seq in range(2)]
    rig.put(*chunks)
    rig.park_all()
    rig.ledger.confirmed[0] = chunks[0].label.digest
    rig.objects()[0].unlink()
    rig.work()
    assert rig.outlet.seqs == [1]
    assert rig.nothing_waits()


def test_what_a_killed_process_parked_without_a_note_is_removed_once_it_arrived(rig):
    older, newer = versions(0, 1)
    rig.put(older)
    rig.park_all()
    [entry] = rig.spool.entries(KEY)
    rig.spool.put(older)  # its body again, as if the note had never been written
    rig.put(newer)
    rig.work()
    assert rig.outlet.seqs == [0, 1]
    assert rig.nothing_waits(), entry


def test_without_a_failover_nothing_is_parked_and_what_waits_is_fetched_all_the_same(tmp_path):
    first = Rig(tmp_path)
    first.put(encoded(KEY, 0))
    first.park_all()
    second = Rig(tmp_path, offered=False)
    second.put(encoded(KEY, 1))
    second.work_until(lambda: second.now_s > 1000 + 300)
    assert len(second.objects()) == 1
    second.is_away = False
    second.work()
    assert sorted(second.outlet.seqs) == [0, 1]
    assert second.nothing_waits()


def test_another_version_of_the_program_leaves_a_note_alone(tmp_path):
    chunk = encoded(KEY, 0)
    line = header_line(chunk, "https://p.test", ParkedPlace("/f", "name"))
    assert b'"format":2' in line, "which it says it does not know, where it would call format 1 damaged"
    spool = Spool(tmp_path, "https://p.test")
    [entry] = spool.put_many([chunk])
    spool.note_parked(chunk, ParkedPlace("/f", "name"), entry)
    with pytest.raises(SpoolParkedError, match="/f") as caught:
        spool.load(entry)
    assert (caught.value.url, caught.value.name) == ("/f", "name")
    assert "`rheed-ingest reconcile /f`" in caught.value.hint
    spool.remove(entry)
    spool.note_parked(chunk, ParkedPlace("/f", "name"), entry)
    assert not (tmp_path / KEY).exists(), "what was delivered meanwhile does not come back"


def test_a_note_gives_the_room_of_its_body_back_at_once(tmp_path):
    chunk = encoded(KEY, 0, frames=big(0))
    limits = SpoolLimits(len(chunk.body.tobytes()) + 3 * NOTE_BYTES, 0)
    spool = Spool(tmp_path, "https://p.test", limits, lambda _: 10**12, monotonic=lambda: 0.0)
    [entry] = spool.put_many([chunk])
    with pytest.raises(SpoolFullError):
        spool.put(encoded(KEY, 1, frames=big(1)))
    spool.note_parked(chunk, ParkedPlace("/f", "name"), entry)
    spool.put(encoded(KEY, 1, frames=big(1)))


# -- a whole session ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ThreadServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def trouble(server):
    """Return a trouble that is over for now: `kind = 504` takes the platform away."""
    made = Trouble(server, None, uploads)
    yield made
    made.kind = None
    server.wire.act = None
    server.wire.requests.clear()


class Bench:
    """A state folder and a failover; sessions and moves between them."""

    def __init__(self, folder: Path, to: str) -> None:
        self.folder, self.to = folder, to
        self.state, self.failover = folder / "state", folder / "failover"
        self.numbers = itertools.count()

    def session(self, **options) -> LiveSystem:
        failover = FailoverOptions(str(self.failover), after_s=0.05)
        defaults = {
            "failover": failover,
            "direct_for_s": 0.0,
            "lease_s": LEASE_S,
            "session_id": f"s{next(self.numbers)}",
        }
        return LiveSystem(self.to, self.state, **{**defaults, **options})

    def reconcile(self, **options) -> list[Reconciled]:
        request = ReconcileRequest(
            Parking(open_store(str(self.failover), fsync=False, retry=BRIEF)),
            lambda _: [self.state],
            options.pop("key", API_KEY),
            retry=options.pop("retry", replace(BRIEF, retry_for_s=2.0)),
            lease_s=LEASE_S,
            **options,
        )
        return reconcile(request, lambda _: None, threading.Event())

    def parked(self) -> list[ParkedStream]:
        return Parking(open_store(str(self.failover))).streams()

    def nothing_waits(self) -> bool:
        left = [path for path in self.failover.rglob("*") if path.is_file()]
        return not left and not list((self.state / "spool").rglob("*.chunk*"))

    def journal(self) -> Journal:
        return Journal(self.state, time.time)


@pytest.fixture
def bench(tmp_path, server):
    return Bench(tmp_path, server.url)


def big(seed: int) -> np.ndarray:
    """Return frames of 32 KiB."""
    return frames_of(seed, 8, 64, 64)


async def all_parked(system: LiveSystem, stream: ProducedStream, chunks: int) -> None:
    await system.durable(stream)
    await until(lambda: sum(system.spool.parked(stream.key).values()) == chunks)


async def die_with_parked(bench: Bench, chunks: int = 3, *, sealed: bool = False) -> ProducedStream:
    """Have a session end dead whose chunks are parked."""
    async with bench.session() as system:
        stream = await system.begin()
        for index in range(chunks):
            system.push(stream, index, big(index))
        await all_parked(system, stream, chunks)
        if sealed:
            stream.finalize()
            expected, lost = stream.expected()
            await system.dispatcher.seal(stream.key, Sealed.of(expected), lost)
    return stream


def test_away_parked_back_and_delivered_once(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        async with bench.session(direct_for_s=0.1) as system:
            stream = await system.begin()
            for index in range(4):
                system.push(stream, index, big(index))
            await all_parked(system, stream, 4)
            progress = await system.dispatcher.progress(stream.key)
            assert (progress.spooled, progress.spooled_bytes) == (4, 4 * NOTE_BYTES)
            assert progress.parked == {str(bench.failover): 4}
            assert "504" in progress.stalled_by
            [parked] = bench.parked()
            assert (parked.key, parked.note.data_id, parked.note.kind) == (stream.key, stream.data_id, "rheed")
            assert [chunk.index for chunk in parked.chunks] == [0, 1, 2, 3]
            system.push(stream, 4, big(4))  # while it is away
            trouble.kind = None
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.spooled, progress.parked) == (5, 0, {})
            return stream.data_id

    closed = assert_stored(server.url, run(scenario()), {i: big(i) for i in range(5)}, puts=1)
    assert (closed["status"], closed["times_closed"]) == ("closed", 1)
    assert bench.nothing_waits()


def test_the_spool_has_room_for_more_than_its_cap(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        limits = SpoolLimits(max_bytes=100_000, floor_bytes=0)
        async with bench.session(spool_limits=limits, window=20) as system:
            stream = await system.begin()
            for index in range(4):
                system.push(stream, index, big(index))
            await all_parked(system, stream, 4)
            assert 4 * big(0).nbytes > limits.max_bytes
            trouble.kind = None
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.journal.lost) == (4, {})
            return stream.data_id

    assert_stored(server.url, run(scenario()), {i: big(i) for i in range(4)}, puts=1)
    assert bench.nothing_waits()


def test_points_wait_and_arrive_as_well(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        async with bench.session() as system:
            log = await system.begin(POINTS)
            for index in range(3):
                system.push_points(log, index, [float(index), index + 0.5])
            await all_parked(system, log, 3)
            assert bench.parked()[0].note.kind == "timeseries"
        # The session is dead; another one delivers, and a third push comes after.
        trouble.kind = None
        [result] = await asyncio.to_thread(bench.reconcile)
        assert (result.status, result.moved, result.removed, result.state) == ("complete", 3, 3, "open")
        return log.data_id

    points = stored_points(server.url, run(scenario()))
    assert points["values"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert bench.nothing_waits()


def test_the_next_streamer_of_the_machine_delivers_them(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        stream = await die_with_parked(bench, sealed=True)
        trouble.kind = None
        async with bench.session(failover=None) as system:
            await system.closed(stream.key)
        return stream.data_id

    assert_stored(server.url, run(scenario()), {i: big(i) for i in range(3)}, puts=1)
    assert bench.nothing_waits()


def test_spool_deliver_fetches_them(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        stream = await die_with_parked(bench)
        trouble.kind = None
        setup = LiveSetup(
            "deliver", server.url, API_KEY, str(bench.state), options=LiveOptions(scan_s=0.05, lease_s=LEASE_S)
        )
        delivery = await deliver_spool(setup, retry_for_s=5.0, close_abandoned=True)
        assert (delivery.chunks, delivery.is_complete, delivery.closed) == (3, True, (stream.data_id,))
        return stream.data_id

    assert_stored(server.url, run(scenario()), {i: big(i) for i in range(3)}, puts=1)
    assert bench.nothing_waits()


def test_into_a_lake(tmp_path):
    lake, away = tmp_path / "lake", tmp_path / "unmounted"
    bench = Bench(tmp_path, str(lake))

    async def scenario():
        async with bench.session(key=None) as system:
            stream = await system.begin()
            system.push(stream, 0, big(0))
            await system.delivered(stream)
            lake.rename(away)
            for index in (1, 2):
                system.push(stream, index, big(index))
            await all_parked(system, stream, 2)
            away.rename(lake)
            progress = await system.finalize(stream)
            assert (progress.journal.confirmed, progress.journal.lost) == (3, {})
            return stream.data_id

    data_id = run(scenario())
    import zarr

    frames = zarr.open_group(lake / f"{data_id}.zarr", mode="r")["frames"][:]
    assert np.array_equal(frames, np.concatenate([big(index) for index in range(3)]))
    assert bench.nothing_waits()


# -- `rheed-ingest reconcile` ------------------------------------------------------------------------------------------


def test_reconcile_closes_a_sealed_stream_whose_session_died(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        return await die_with_parked(bench, sealed=True)

    stream = run(scenario())
    trouble.kind = None
    [result] = bench.reconcile()
    assert (result.status, result.error, result.findings) == ("complete", None, ())
    assert (result.parked, result.moved, result.removed, result.state) == (3, 3, 3, "closed")
    assert (result.data_id, result.source) == (stream.data_id, "live:live")
    closed = assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)}, puts=1)
    assert closed["times_closed"] == 1
    assert bench.nothing_waits()
    assert bench.reconcile() == []


def test_reconcile_leaves_a_stream_open_that_is_not_sealed(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        return await die_with_parked(bench)

    stream = run(scenario())
    trouble.kind = None
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.state) == ("complete", 3, "open")
    assert "--close-abandoned" in result.hint
    assert assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)}, puts=1)["status"] != "closed"
    journal = bench.journal()
    assert journal.live_stream(stream.key).lease_holder is None
    journal.close()


def test_reconcile_leaves_a_stream_alone_that_a_session_has(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        async with bench.session() as system:
            stream = await system.begin()
            system.push(stream, 0, big(0))
            await all_parked(system, stream, 1)
            [result] = await asyncio.to_thread(bench.reconcile)
            assert (result.status, result.moved, result.removed) == ("failed", 0, 0)
            assert f"{system.setup.session_id} has it" in result.error
            assert len(bench.parked()[0].chunks) == 1
            trouble.kind = None
            await system.finalize(stream)
            return stream.data_id

    assert_stored(server.url, run(scenario()), {0: big(0)}, puts=1)
    assert bench.nothing_waits()


def test_reconcile_says_what_is_away_and_goes_on_later(bench, server, trouble):
    async def scenario():
        trouble.kind = 504
        return await die_with_parked(bench)

    stream = run(scenario())
    [result] = bench.reconcile(retry=replace(BRIEF, retry_for_s=0.3))
    assert (result.status, result.moved, result.removed) == ("failed", 0, 0)
    assert "504" in result.error
    trouble.kind = None
    [result] = bench.reconcile(key=None)
    assert (result.status, result.moved) == ("failed", 0)
    assert "key" in result.error
    [result] = bench.reconcile()
    assert (result.status, result.moved) == ("complete", 3)
    assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)}, puts=1)


def test_reconcile_needs_no_notes_in_the_spool(bench, server, trouble):
    """The disk with the spool is lost; the journal is not."""

    async def scenario():
        trouble.kind = 504
        return await die_with_parked(bench, sealed=True)

    stream = run(scenario())
    shutil.rmtree(bench.state / "spool")
    trouble.kind = None
    [result] = bench.reconcile()
    assert (result.status, result.moved, result.state) == ("complete", 3, "closed")
    assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)}, puts=1)
    assert bench.nothing_waits()


def test_reconcile_removes_what_a_later_version_took_the_place_of(bench, server, trouble):
    """A process that was killed parked the first version, and left no note of that."""

    async def scenario():
        trouble.kind = 504
        async with bench.session(failover=None) as system:
            stream = await system.begin()
            system.push(stream, 0, big(0))
            await system.durable(stream)
            system.push(stream, 0, big(1))
            await system.durable(stream)
            [first, _] = system.spool.entries(stream.key)
            facts = StreamFacts.of_live(stream.key, FRAMES, str(system.spool.folder.parent))
            Parking(open_store(str(bench.failover))).put(server.url, system.spool.load(first), facts)
        return stream

    stream = run(scenario())
    trouble.kind = None
    [result] = bench.reconcile()
    assert (result.status, result.removed, result.findings) == ("complete", 1, ())
    assert_stored(server.url, stream.data_id, {0: big(1)})
    assert bench.nothing_waits()


# -- killed ------------------------------------------------------------------------------------------------------------


def in_a_killed_process(work) -> int:
    """Run something in a process of its own; return its exit code, 9: it was killed as asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of later Pythons, as there are threads
        pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def drain_until(bench: Bench, key: str, event: str, number: int) -> int:
    """Empty a stream's spool in a process that is killed at an event."""
    options = LiveOptions(
        lease_s=LEASE_S, scan_s=0.05, drain_retry=BRIEF, failover=FailoverOptions(str(bench.failover), 0.05)
    )
    setup = LiveSetup(
        "killed", bench.to, API_KEY, str(bench.state), options=options, telemetry=lambda _: ExitAt(event, number)
    )

    async def scenario() -> None:
        aggregator = LocalHandle(Aggregator(setup.state_dir, LEASE_S))
        dispatcher = LiveDispatcher(setup, aggregator, sleep=lambda s: asyncio.sleep(min(s, 0.02)))
        dispatcher.start()
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0.01)

    return in_a_killed_process(lambda: asyncio.run(scenario()))


@pytest.mark.parametrize("number", [1, 2])
def test_killed_between_the_put_and_the_note(bench, server, trouble, number):
    async def scenario():
        trouble.kind = 504
        async with bench.session(failover=None) as system:
            stream = await system.begin()
            for index in range(3):
                system.push(stream, index, big(index))
            await system.durable(stream)
        return stream

    stream = run(scenario())
    time.sleep(LEASE_S)  # the lease of the dead
    assert drain_until(bench, stream.key, "chunk_parked", number) == 9
    [parked] = bench.parked()
    spool = Spool(next((bench.state / "spool").iterdir()), "")
    assert len(parked.chunks) >= number
    assert sum(spool.parked(stream.key).values()) < len(parked.chunks), "it was killed too late"
    trouble.kind = None
    results = bench.reconcile()
    assert [result.status for result in results] == ["complete"]
    assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)}, puts=1)
    assert bench.nothing_waits()


@pytest.mark.parametrize("event", ["chunk_read", "chunk_put", "chunk_unparked"])
def test_killed_around_the_delivery_and_the_removal(bench, server, trouble, event):
    async def scenario():
        trouble.kind = 504
        return await die_with_parked(bench, sealed=True)

    stream = run(scenario())
    trouble.kind = None
    time.sleep(LEASE_S)
    assert drain_until(bench, stream.key, event, 1) == 9

    async def after():
        async with bench.session() as system:
            await system.closed(stream.key)

    journal = bench.journal()
    confirmed = journal.load(stream.key).confirmed
    journal.close()
    run(after())
    assert_stored(server.url, stream.data_id, {i: big(i) for i in range(3)})
    # Of what was put and has no receipt nobody knows: it is put again. What has one never is.
    puts = {chunk.index: chunk.puts for chunk in stored_chunks(server.url, stream.data_id)[1]}
    assert {puts[index] for index in confirmed} <= {1}
    assert max(puts.values()) <= 2
    for _ in bench.reconcile():
        pass
    assert bench.nothing_waits()


# -- what users see ----------------------------------------------------------------------------------------------------


class FakeSession:
    """Answers for the live dispatcher of a session whose chunks wait at a failover."""

    def __init__(self, setup: LiveSetup, progress: StreamProgress) -> None:
        self.setup, self.progress = setup, progress

    def check_open(self) -> None:
        pass

    def ask(self, role: str, method: str, *args, **_options):
        assert role == "live_dispatcher"
        return self.progress if method == "progress" else None


def test_finalize_names_the_failover_and_what_moves_it_over(tmp_path):
    options = FailoverOptions("s3://bucket/f", state="/state dir")
    setup = LiveSetup("s", "https://p.test", API_KEY, str(tmp_path), options=LiveOptions(failover=options))
    state = LiveState(StreamState.OPEN, 1, 2, {}, True, None)
    progress = StreamProgress(state, 5, 20480, "nobody answers", parked={"s3://bucket/f": 4})
    streamer = object.__new__(StreamerBase)
    stream = ProducedStream(KEY, "data-1", FRAMES, PushWindow(4, 1 << 20))
    streamer.__dict__.update(
        _session=FakeSession(setup, progress), _streams={"data-1": stream}, _reports={}, _is_left=False
    )
    with pytest.raises(StreamerError) as caught:
        streamer.finalize("data-1", timeout_s=0)
    assert "5 chunk(s) are still only in the spool" in str(caught.value)
    assert "4 of them at the failover s3://bucket/f" in str(caught.value)
    assert "`rheed-ingest reconcile s3://bucket/f --state '/state dir'`" in caught.value.hint
    status = streamer.status("data-1")
    assert (status.spooled, status.parked, status.is_closed) == (5, 4, False)


def options_of(tmp_path, **given):
    defaults = {
        "address": None, "state_dir": tmp_path / "state", "spool_dir": None, "spool_limits": SpoolLimits(),
        "object_store_bytes": None, "options": None, "preallocate": False,
    }  # fmt: skip
    return session_options("key-1", "https://p.test", **{**defaults, **given})


def test_what_a_streamer_is_told_of_a_failover(tmp_path):
    assert options_of(tmp_path).setup.options.failover is None
    made = options_of(tmp_path, failover=tmp_path / "f", failover_after_s=5).setup.options.failover
    assert made == FailoverOptions(str(tmp_path / "f"), 5.0, state=str(tmp_path / "state"))
    assert options_of(tmp_path, failover="s3://b/f/", state_dir=None).setup.options.failover == (
        FailoverOptions("s3://b/f", 60.0)
    )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"failover": 7}, ArgumentTypeError, "failover is a int"),
        ({"failover": "memory://x"}, StreamerError, "memory of one process"),
        ({"failover": "https://p.test"}, StreamerError, "nothing can be stored"),
        ({"failover": "/f", "failover_after_s": -1}, StreamerError, "failover_after_s is -1"),
        ({"failover": "/f", "failover_after_s": "soon"}, ArgumentTypeError, "failover_after_s"),
    ],
)
def test_a_failover_that_is_none_is_refused(tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        options_of(tmp_path, **given)


def test_a_failover_is_not_the_destination(tmp_path):
    with pytest.raises(StreamerError, match="is the destination itself"):
        session_options(
            None, None, tmp_path / "lake", failover=f"{tmp_path}/lake/", address=None, state_dir=None, spool_dir=None,
            spool_limits=SpoolLimits(), object_store_bytes=None, options=None, preallocate=False,
        )  # fmt: skip


def test_the_words_of_a_streamer_without_a_failover_stay(tmp_path):
    setup = SimpleNamespace(options=LiveOptions(), spool_folder=tmp_path)
    streamer = object.__new__(StreamerBase)
    streamer.__dict__["_session"] = SimpleNamespace(setup=setup)
    progress = StreamProgress(LiveState(StreamState.OPEN, 1, 0, {}, False, None), 1, 4096, None)
    error = streamer._only_spooled(ProducedStream(KEY, "d", FRAMES, PushWindow(4, 1)), progress, 1.0)
    assert str(error) == f"stream d is not closed: 1 chunk(s) are still only in the spool {tmp_path / KEY} after 1 s"
    assert error.hint == "call it again to go on; the next streamer of this machine delivers them, too"
