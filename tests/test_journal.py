"""The journal: what it says is on disk, whatever happens to the process, and one job at a time has a stream."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import (
    JournalCorruptError,
    JournalWriteError,
    LeaseHeldError,
    SettingsChangedError,
    SourceChangedError,
    StaleEpochError,
)
from ingest.journal import Journal, LiveStream, RunEnd, default_state_dir
from ingest.journal.database import refuse_network_file_system
from ingest.journal.live import account_of
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CreateBegun,
    Sealed,
    StreamClosed,
    StreamCreated,
    StreamGone,
    StreamLedger,
    StreamLinked,
    StreamState,
)
from ingest.plan import StreamSettings
from ingest.telemetry import Secret
from ingest.timeseries import TimeseriesSettings
from tests.test_ledger import receipt
from tests.test_plan import plan, source

ROOT = Path(__file__).parent.parent
TO = "http://platform.test"
OPENING = [CreateBegun(), StreamCreated("s1"), StreamLinked()]


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(tmp_path, clock):
    """Open a journal of the test's folder; closed when the test ends."""
    journals = []

    def open_journal(folder=tmp_path / "state"):
        journals.append(Journal(folder, clock))
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.close()


@pytest.fixture
def journal(opened):
    return opened()


def register(journal, job="job1", seq=0, path="/data/run.h5", a_plan=None, **kwargs):
    return journal.register(job, seq, TO, path, a_plan or plan(), **kwargs)


def begin(journal, job="job1", *, events=(), **kwargs):
    """Register and lease a run; return its key and epoch."""
    key = register(journal, job, **kwargs).key
    epoch = journal.lease(key, job, 60.0)
    for event in events:
        journal.record(key, epoch, [event])
    return key, epoch


def confirmed(*indices, digest=None):
    return [ChunkConfirmed(receipt(i, digest)) for i in indices]


# -- registration ------------------------------------------------------------------------------------------------------


def test_registering_again_is_the_same_run(journal):
    first = register(journal)
    assert (first.state, first.confirmed, first.lost, first.chunks) == (StreamState.PLANNED, 0, 0, 3)
    assert register(journal) == first
    assert [row.key for row in journal.job("job1")] == [first.key]
    assert journal.open_runs("job1") == [first.key]


def test_the_plan_comes_back_whole(journal):
    made = plan(source(fps_claimed=60.0), name="ünïcode \N{SNOWMAN}", tags=("a",), azimuth="[110]")
    assert journal.plan(register(journal, a_plan=made).key) == made


def test_another_job_resumes_the_stream(journal):
    key, epoch = begin(journal, events=OPENING)
    journal.record(key, epoch, confirmed(0, 2))
    resumed = register(journal, "job2")
    assert (resumed.key, resumed.state, resumed.confirmed, resumed.chunks) == (key, StreamState.OPEN, 2, 3)
    assert resumed.same_as is None
    row = journal.row(key, "job2")
    assert (row.resumed, row.confirmed, row.data_id) == (2, 2, "s1")
    assert journal.row(key, "job1").resumed == 0


def test_runs_keep_their_order_and_end_once(journal, clock):
    keys = [
        register(journal, seq=i, path=f"/data/{i}.h5", a_plan=plan(source(fingerprint=f"f{i}"))).key for i in (2, 0, 1)
    ]
    assert journal.open_runs("job1") == [keys[1], keys[2], keys[0]]
    assert [row.seq for row in journal.job("job1")] == [0, 1, 2]
    clock.now_s = 1010.0
    journal.end_run("job1", keys[0], RunEnd("failed", "why", "do this"))
    journal.end_run("job1", keys[0], RunEnd("complete"))
    assert journal.open_runs("job1") == keys[1:]
    row = journal.row(keys[0], "job1")
    assert (row.end, row.started_s, row.ended_s) == (RunEnd("failed", "why", "do this"), 1000.0, 1010.0)
    assert journal.row(keys[0], "job2").end is None
    assert journal.job("job2") == []


@pytest.mark.parametrize(
    ("options", "name", "before", "now"),
    [
        ({"chunk_size": 300}, "chunk_size", "240", "300"),
        ({"chunking": "regular"}, "chunking", "'gap-aware'", "'regular'"),
        ({"rotations_per_min": 6.0}, "rotations_per_min", "0.0", "6.0"),
        ({"azimuth": "[110]"}, "azimuth", "None", r"'\[110\]'"),
    ],
)
@pytest.mark.parametrize("path", ["/data/run.h5", "/copy/run.h5"])
def test_changed_settings_are_refused_and_named(journal, path, options, name, before, now):
    begin(journal, events=OPENING)
    with pytest.raises(SettingsChangedError, match=rf"(?m)as s1 .*: {name} was {before} and is {now}$") as caught:
        register(journal, "job2", path=path, a_plan=plan(**options))
    assert "--restart" in caught.value.hint
    assert journal.job("job2") == []
    assert len(journal.streams()) == 1


def test_two_changed_settings_are_both_named(journal):
    begin(journal, events=OPENING)
    with pytest.raises(
        SettingsChangedError, match=r"chunk_size was 240 and is 300, rotations_per_min was 0\.0 and is 6"
    ):
        register(journal, "job2", a_plan=plan(chunk_size=300, rotations_per_min=6.0))


def test_another_recording_at_the_path_is_refused(journal):
    begin(journal, events=OPENING)
    with pytest.raises(SourceChangedError, match=r"as s1.*fingerprint is f2, it was f1") as caught:
        register(journal, "job2", a_plan=plan(source(fingerprint="f2")))
    assert "--restart" in caught.value.hint
    assert len(journal.streams()) == 1


def test_the_same_recording_at_another_path_is_said(journal):
    key, _ = begin(journal)
    moved = register(journal, "job2", path="/copy/run.h5")
    assert (moved.key, moved.same_as) == (key, "/data/run.h5")
    assert register(journal, "job2", path="/copy/run.h5").same_as == "/data/run.h5", "also when asked again"


def test_another_destination_is_another_stream(journal):
    key, _ = begin(journal)
    other = journal.register("job2", 0, "http://other.test", "/data/run.h5", plan(chunk_size=300))
    assert other.key != key
    assert other.same_as is None


@pytest.mark.parametrize(
    "a_plan", [plan(), plan(chunk_size=300), plan(source(fingerprint="f2"))], ids=["same", "settings", "source"]
)
def test_a_restart_begins_another_stream_and_says_which_it_replaces(journal, a_plan):
    key, epoch = begin(journal, events=OPENING)
    journal.record(key, epoch, confirmed(0))
    with pytest.raises(LeaseHeldError):
        register(journal, "job2", a_plan=a_plan, restart=True)
    journal.release(key, epoch)
    fresh = register(journal, "job2", a_plan=a_plan, restart=True)
    assert fresh.key != key
    assert (fresh.state, fresh.confirmed) == (StreamState.PLANNED, 0)
    assert journal.row(fresh.key).replaces == "s1"
    assert [row.key for row in journal.streams()] == [fresh.key]
    assert register(journal, "job2", a_plan=a_plan, restart=True) == fresh, "asked again, it is not restarted again"
    assert register(journal, "job3", a_plan=a_plan).key == fresh.key


def test_a_stream_that_is_gone_is_replaced(journal):
    key, epoch = begin(journal, events=[*OPENING, StreamGone("silent for 2 hours")])
    assert journal.load(key).gone_reason == "silent for 2 hours"
    journal.release(key, epoch)
    fresh = register(journal, "job2")
    assert fresh.key != key
    assert fresh.state is StreamState.PLANNED
    assert journal.row(fresh.key).replaces == "s1"


def test_settings_may_change_as_long_as_nothing_was_sent(journal):
    first = register(journal)
    corrected = plan(chunk_size=300, name="another name")
    second = register(journal, "job2", a_plan=corrected)
    assert second.key == first.key
    assert journal.plan(first.key) == corrected
    assert [row.name for row in journal.streams()] == ["another name"]
    reexported = plan(source(fingerprint="f9"))
    assert register(journal, "job3", a_plan=reexported).key == first.key
    assert journal.plan(first.key).fingerprint == "f9"


def test_a_planned_run_that_a_live_job_has_is_not_changed(journal):
    begin(journal)
    with pytest.raises(LeaseHeldError):
        register(journal, "job2", a_plan=plan(chunk_size=300))


def test_names_asked_for_later_are_noted_and_do_not_stand(journal):
    key, _ = begin(journal, events=OPENING)
    register(journal, "job2", a_plan=plan(name="another name"))
    assert "'another name'" in journal.row(key, "job2").note
    assert journal.plan(key, "job2").settings.name != "another name"
    assert journal.row(key, "job1").note is None


def test_a_stale_incarnation_of_the_same_job_does_not_end_its_run(journal):
    key, epoch = begin(journal, events=OPENING)
    newer = journal.lease(key, "job1", 60.0)
    journal.end_run("job1", key, RunEnd("failed", "stale"), epoch)
    assert journal.row(key, "job1").end is None
    journal.end_run("job1", key, RunEnd("complete"), newer)
    assert journal.row(key, "job1").end == RunEnd("complete")


def test_replacing_a_stream_that_was_never_created_is_idempotent(journal):
    key, _ = begin(journal, events=[CreateBegun(), StreamGone("failed")])
    fresh = journal.replace("job1", key)
    assert fresh != key
    assert journal.replace("job1", key) == fresh


def test_replacing_is_idempotent(journal):
    made = plan(name="a name")
    key, epoch = begin(journal, a_plan=made, events=[*OPENING, *confirmed(0), StreamGone("failed")])
    fresh = journal.replace("job1", key)
    assert fresh != key
    assert journal.replace("job1", key) == fresh
    assert journal.open_runs("job1") == [fresh]
    assert [row.key for row in journal.streams()] == [fresh]
    row = journal.row(fresh, "job1")
    assert (row.state, row.replaces, row.resumed, row.confirmed) == (StreamState.PLANNED, "s1", 0, 0)
    assert journal.plan(fresh) == made
    # Again for the new one, to a third.
    epoch = journal.lease(fresh, "job1", 60.0)
    journal.record(fresh, epoch, [CreateBegun(), StreamCreated("s2"), StreamGone("failed")])
    third = journal.replace("job1", fresh)
    assert len({key, fresh, third}) == 3
    assert journal.row(third).replaces == "s2"


# -- leases ------------------------------------------------------------------------------------------------------------


def test_a_live_lease_is_held(journal, clock):
    key, epoch = begin(journal)
    assert epoch == 1
    clock.now_s += 59.9
    with pytest.raises(LeaseHeldError, match=r"/data/run.h5: job job1 has it \(its lease ends in 0.1 s") as caught:
        journal.lease(key, "job2", 60.0)
    assert caught.value.until_s == 1060.0
    row = journal.row(key)
    assert (row.lease_holder, row.lease_until_s, row.epoch) == ("job1", 1060.0, 1)


def test_the_same_holder_takes_it_again_with_another_epoch(journal):
    key, epoch = begin(journal)
    assert journal.lease(key, "job1", 60.0) == epoch + 1


def test_an_expired_lease_is_taken_over(journal, clock):
    key, epoch = begin(journal)
    clock.now_s += 60.0
    assert journal.lease(key, "job2", 60.0) == epoch + 1
    with pytest.raises(LeaseHeldError, match="job2"):
        journal.lease(key, "job1", 60.0)


def test_renewing_puts_off_the_end_of_a_holder_s_leases_only(journal, clock):
    key, _ = begin(journal)
    other, _ = begin(journal, "job2", path="/data/2.h5", a_plan=plan(source(fingerprint="f2")))
    clock.now_s += 50.0
    journal.renew("job1", 60.0)
    assert journal.row(key).lease_until_s == 1110.0
    assert journal.row(other).lease_until_s == 1060.0


def test_releasing_frees_it_at_once_and_keeps_the_epoch_rising(journal):
    key, epoch = begin(journal)
    journal.release(key, epoch)
    assert (journal.row(key).lease_holder, journal.row(key).lease_until_s) == (None, 0)
    assert journal.lease(key, "job2", 60.0) == epoch + 1


def test_releasing_by_a_stale_epoch_does_nothing(journal, clock):
    key, epoch = begin(journal)
    clock.now_s += 61
    journal.lease(key, "job2", 60.0)
    journal.release(key, epoch)
    journal.renew("job1", 1e6)
    row = journal.row(key)
    assert (row.lease_holder, row.lease_until_s) == ("job2", 1121.0)


@pytest.mark.parametrize("events", [confirmed(0), [StreamCreated("s2")], [CloseBegun()], [StreamGone("x")], []])
def test_a_stale_epoch_writes_nothing(journal, opened, clock, events):
    key, epoch = begin(journal, events=[*OPENING, *confirmed(1)])
    clock.now_s += 61
    opened().lease(key, "job2", 60.0)
    before = journal.load(key)
    with pytest.raises(StaleEpochError, match="at epoch 2, this job's is 1"):
        journal.record(key, epoch, events)
    assert journal.load(key) == before


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_survive_reopening(journal, opened):
    key, epoch = begin(journal, events=OPENING)
    journal.record(key, epoch, [*confirmed(2, 0), ChunkLost(1, "refused")])
    journal.record(key, epoch, [CloseBegun()])
    journal.record(key, epoch, [StreamClosed()])
    journal.close()
    journal.close()
    again = opened()
    assert again.load(key) == StreamLedger(
        key, epoch, StreamState.CLOSED, "s1", 3, {0: "d0", 2: "d2"}, {1: "refused"}, None
    )
    assert again.receipts(key) == [receipt(0), receipt(2)]
    row = again.row(key)
    assert (row.confirmed, row.lost, row.bytes_out, row.chunks, row.frames) == (2, 1, 198, 3, 600)


def test_a_seal_survives(journal):
    key, epoch = begin(journal)
    journal.record(key, epoch, [Sealed(7)])
    assert journal.load(key).expected == 7


def revisions(journal, key):
    return dict(journal._db.execute("SELECT idx, revision FROM receipts WHERE key=?", (key,)).fetchall())


def test_receipts_are_idempotent_and_a_new_digest_is_a_revision(journal):
    key, epoch = begin(journal, events=OPENING)
    for _ in range(3):
        journal.record(key, epoch, confirmed(0, 1))
    assert revisions(journal, key) == {0: 0, 1: 0}
    again = dataclasses.replace(receipt(0), attempts=5, node="node/2")
    journal.record(key, epoch, [ChunkConfirmed(again)])
    assert journal.receipts(key)[0] == receipt(0), "the same digest again is no news"
    other = dataclasses.replace(again, frames_digest="other")
    journal.record(key, epoch, [ChunkConfirmed(other)])
    assert journal.receipts(key) == [other, receipt(1)]
    assert revisions(journal, key) == {0: 1, 1: 0}


def test_a_loss_that_arrives_is_none_and_a_chunk_that_is_there_is_not_lost(journal):
    key, epoch = begin(journal, events=OPENING)
    journal.record(key, epoch, [ChunkLost(0, "unreadable"), ChunkLost(1, "refused")])
    journal.record(key, epoch, [ChunkLost(1, "another word"), *confirmed(0)])
    assert journal.load(key).lost == {1: "refused"}
    journal.record(key, epoch, [ChunkLost(0, "late word")])
    assert journal.load(key).lost == {1: "refused"}
    assert journal.row(key).lost == 1


chunk_events = st.one_of(
    st.builds(lambda i, d: ChunkConfirmed(receipt(i, d)), st.integers(0, 2), st.sampled_from(["a", "b"])),
    st.builds(ChunkLost, st.integers(0, 2), st.just("refused")),
)


@given(st.lists(st.lists(chunk_events, max_size=4), max_size=5))
@settings(max_examples=25, deadline=None)
def test_what_is_on_disk_is_what_the_ledger_says(batches):
    """Any batches of chunk events, each committed twice."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder), Clock())
        key, epoch = begin(journal, events=OPENING)
        stream = journal.load(key)
        for batch in batches:
            journal.record(key, epoch, batch)
            journal.record(key, epoch, batch)
            for event in batch * 2:
                stream.apply(event)
        assert journal.load(key) == stream
        journal.close()


# -- live streams ------------------------------------------------------------------------------------------------------

LIVE = StreamSettings("a camera", 120.0, 6.0, 240, None, "GaN 7", None, ("tag",))
LOG = TimeseriesSettings(None, 50, 7, tags=("a", "b"), api_generation="metrology")
LIVE_KEY, LOG_KEY = "a" * 32, "b" * 32


def begin_live(journal, key=LIVE_KEY, settings=LIVE, *, account="acc", events=OPENING, holder="session-1"):
    journal.register_live(key, TO, account, settings)
    epoch = journal.lease(key, holder, 60.0)
    for event in events:
        journal.record(key, epoch, [event])
    return epoch


@pytest.mark.parametrize("settings", [LIVE, LOG], ids=["frames", "points"])
def test_a_live_stream_comes_back_as_it_was_begun(journal, opened, settings):
    begin_live(journal, settings=settings)
    [stream] = opened().live_streams("acc")
    assert stream == LiveStream(LIVE_KEY, settings, StreamState.OPEN, "s1", 1, "session-1", 1060.0, False)
    assert journal.live_stream(LIVE_KEY) == stream
    row = journal.row(LIVE_KEY)
    assert (row.kind, row.is_live, row.chunks, row.name) == (
        ("timeseries", True, 0, "time series") if settings is LOG else ("rheed", True, 0, "a camera")
    )
    assert [r.key for r in journal.streams()] == [LIVE_KEY]


def test_registering_a_live_stream_again_changes_nothing(journal):
    epoch = begin_live(journal)
    journal.register_live(LIVE_KEY, TO, "acc", LIVE)
    journal.register_live(LIVE_KEY, TO, "other", LOG)
    stream = journal.live_stream(LIVE_KEY)
    assert (stream.settings, stream.epoch, stream.state) == (LIVE, epoch, StreamState.OPEN)
    assert journal.live_streams("other") == []


def test_live_streams_are_an_account_s_own_and_those_that_are_not_closed(journal, clock):
    keys = [f"{i:032x}" for i in range(5)]
    for i, key in enumerate(keys):
        clock.now_s = 1000.0 - i
        begin_live(journal, key, account="acc" if i < 4 else "other", events=[*OPENING, Sealed(0)])
    begin(journal)  # an archive's
    journal.record(keys[1], 1, [StreamGone("silent")])
    for event in (CloseBegun(), StreamClosed()):
        journal.record(keys[2], 1, [event])
    found = journal.live_streams("acc")
    assert [stream.key for stream in found] == [keys[3], keys[1], keys[0]], "oldest first"
    assert [stream.state for stream in found] == [StreamState.OPEN, StreamState.GONE, StreamState.OPEN]
    assert found[1].gone_reason == "silent"
    assert all(stream.is_sealed for stream in found)
    assert journal.live_stream(keys[2]).state is StreamState.CLOSED
    assert [stream.key for stream in journal.live_streams("other")] == [keys[4]]


def test_an_archive_s_stream_is_no_live_one(journal):
    key, _ = begin(journal)
    assert journal.live_stream(key) is None
    assert journal.live_stream("f" * 32) is None


def test_leases_of_live_streams_expire_and_are_given_back(journal, clock):
    epoch = begin_live(journal)
    with pytest.raises(LeaseHeldError, match="session-1"):
        journal.lease(LIVE_KEY, "session-2", 60.0)
    clock.now_s += 60.0
    assert journal.lease(LIVE_KEY, "session-2", 60.0) == epoch + 1
    with pytest.raises(StaleEpochError):
        journal.record(LIVE_KEY, epoch, confirmed(0))
    journal.release(LIVE_KEY, epoch + 1)
    stream = journal.live_stream(LIVE_KEY)
    assert (stream.lease_holder, stream.lease_until_s, stream.epoch) == (None, 0.0, epoch + 1)
    assert journal.lease(LIVE_KEY, "session-1", 60.0) == epoch + 2


@pytest.mark.parametrize(("one", "other"), [(Secret("key-1"), Secret("key-2")), (Secret("key-1"), None)])
def test_an_account_tells_keys_and_endpoints_apart_and_shows_neither(one, other):
    name = account_of(TO, one)
    assert name == account_of(TO, Secret("key-1"))
    assert len({name, account_of(TO, other), account_of("http://other", one)}) == 3
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert "key" not in name


def test_holes_survive(journal, opened):
    epoch = begin_live(journal)
    seal = Sealed.of([0, 3, 9])
    journal.record(LIVE_KEY, epoch, confirmed(3))
    journal.record(LIVE_KEY, epoch, [seal])
    again = opened()
    stream = again.load(LIVE_KEY)
    assert (stream.expected, stream.holes, stream.missing()) == (10, seal.holes, (0, 9))
    assert again.row(LIVE_KEY).chunks == 3
    assert again.live_stream(LIVE_KEY).is_sealed
    again.record(LIVE_KEY, epoch, confirmed(0, 9))
    assert journal.load(LIVE_KEY).is_whole()


def test_a_receipt_keeps_its_label(journal, opened):
    epoch = begin_live(journal, LOG_KEY, LOG)
    labelled = dataclasses.replace(receipt(0), label="chunk 7 of T, p")
    journal.record(LOG_KEY, epoch, [ChunkConfirmed(labelled), *confirmed(1)])
    assert opened().receipts(LOG_KEY) == [labelled, receipt(1)]
    assert journal.row(LOG_KEY).frames == 480, "points, for a time series"


ADDED_SINCE = {
    1: (("streams", "kind"), ("streams", "account"), ("streams", "holes"), ("receipts", "label")),
    2: (("receipts", "lost_frames"),),
    3: (("job_runs", "parked"),),
}


def as_version(version, path):
    """Take from a journal what an earlier version had not."""
    with sqlite3.connect(path) as db:
        for table, column in (added for since, all_of in ADDED_SINCE.items() if since >= version for added in all_of):
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute(f"PRAGMA user_version={version}")
    db.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_journal_of_an_earlier_version_keeps_everything_and_goes_on(version, tmp_path, clock, opened):
    path, key = filled(tmp_path, clock)
    before = Journal(path.parent, clock)
    receipts, stream, row, kept_plan = before.receipts(key), before.load(key), before.row(key), before.plan(key)
    before.close()
    as_version(version, path)
    journal = opened()
    assert journal._db.execute("PRAGMA user_version").fetchone()[0] == 4
    assert (journal.receipts(key), journal.load(key), journal.row(key)) == (receipts, stream, row)
    assert journal.plan(key) == kept_plan
    assert (journal.row(key).kind, journal.load(key).holes) == ("archive", ())
    resumed = register(journal, "job2", a_plan=kept_plan)
    assert (resumed.key, resumed.confirmed) == (key, 500)
    begin_live(journal)
    assert [live.key for live in journal.live_streams("acc")] == [LIVE_KEY]
    assert Journal(path.parent, clock).close() is None, "and is not migrated twice"


MIGRATOR = """
import sys, time
from pathlib import Path
from ingest.journal import Journal
print("ready", flush=True)
sys.stdin.readline()
print(len(Journal(Path(sys.argv[1]), time.time).receipts(sys.argv[2])), flush=True)
"""


def test_two_processes_may_migrate_at_once(tmp_path, clock, opened):
    path, key = filled(tmp_path, clock)
    as_version(1, path)
    command = [sys.executable, "-c", MIGRATOR, str(path.parent), key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(3)]
    for process in children:
        assert process.stdout.readline() == "ready\n"
    for process in children:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in children:
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "500\n"), errors
    assert len(opened().receipts(key)) == 500


# -- processes ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from ingest.journal import Journal
from ingest.ledger import ChunkConfirmed, Receipt
folder, key, epoch, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
journal = Journal(Path(folder), time.time)
for i in range(count):
    journal.record(key, epoch, [ChunkConfirmed(Receipt(i, 240, 1000, 3000, 99, 7, f"d{i}", None, 1, "child", 5000))])
    print(i, flush=True)
"""


def child(*arguments, code=CHILD):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def many_chunks(n, fingerprint="f1"):
    return plan(source(n * 2, 1.0, fingerprint=fingerprint, height_px=1, width_px=1))


def test_what_was_said_survives_a_kill(journal, opened, tmp_path):
    """Whatever `record` returned from is on disk, and what it had not is whole or not there."""
    key, epoch = begin(journal, a_plan=many_chunks(20_000), events=OPENING)
    process = child(tmp_path / "state", key, epoch, 20_000)
    said = -1
    for line in process.stdout:
        said = int(line)
        if said >= 25:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    said = max([said, *map(int, rest.split())])
    there = opened().receipts(key)
    assert [r.index for r in there] == list(range(len(there)))
    assert said < len(there) < 20_000
    assert all(r.frames_digest == f"d{r.index}" for r in there)
    assert len(there) - said <= 2


def test_two_processes_write_at_once(journal, tmp_path):
    runs = []
    for name in ("f1", "f2"):
        runs.append(begin(journal, name, path=f"/{name}", a_plan=many_chunks(150, name), events=OPENING))
    children = [child(tmp_path / "state", key, epoch, 150) for key, epoch in runs]
    for process in children:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for key, _ in runs:
        assert [r.index for r in journal.receipts(key)] == list(range(150))


def test_another_process_may_be_making_it(tmp_path, opened):
    """Two first jobs of a user, begun in the same moment: SQLite does not wait for a change to WAL by itself."""
    db = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, db.execute, ["COMMIT"])
    timer.start()
    assert opened(tmp_path).streams() == []
    timer.join()
    db.close()


def test_a_long_stream_loads_in_seconds(journal, opened):
    n = 100_000
    key, epoch = begin(journal, a_plan=many_chunks(n), events=OPENING)
    journal.record(key, epoch, confirmed(*range(n)))
    began = time.perf_counter()
    again = opened()
    stream = again.load(key)
    assert (len(again.plan(key).chunks), again.row(key).confirmed, len(stream.confirmed)) == (n, n, n)
    assert stream.is_whole()
    assert time.perf_counter() - began < 10


# -- what the disk does ------------------------------------------------------------------------------------------------


def filled(tmp_path, clock):
    """Make a journal of several pages, and return its file."""
    journal = Journal(tmp_path / "state", clock)
    key, epoch = begin(journal, a_plan=many_chunks(500), events=OPENING)
    journal.record(key, epoch, confirmed(*range(500)))
    journal.close()
    return tmp_path / "state" / "journal.sqlite", key


@pytest.mark.parametrize("garbage", [b"no database at all", b"\xff" * 10_000, b"SQLite format 3\0" + b"\x07" * 9000])
def test_garbage_is_corrupt(tmp_path, clock, garbage):
    (tmp_path / "journal.sqlite").write_bytes(garbage)
    with pytest.raises(JournalCorruptError, match=r"journal\.sqlite") as caught:
        Journal(tmp_path, clock)
    assert "move it away" in caught.value.hint
    assert (tmp_path / "journal.sqlite").read_bytes() == garbage, "it is left as it was"


@pytest.mark.parametrize("keep", [50, 4096, 0.5, 0.9])
def test_a_truncated_journal_is_corrupt(tmp_path, clock, keep):
    path, key = filled(tmp_path, clock)
    size = path.stat().st_size
    assert size > 30_000
    os.truncate(path, keep if keep > 1 else int(size * keep))
    with pytest.raises(JournalCorruptError, match="damaged"):
        Journal(path.parent, clock).load(key)


def test_a_page_of_garbage_inside_is_corrupt(tmp_path, clock):
    path, key = filled(tmp_path, clock)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (path.stat().st_size - 4096))
    journal = Journal(path.parent, clock)
    for call in (journal.load, journal.plan, journal.receipts, journal.row):
        with pytest.raises(JournalCorruptError, match="damaged"):
            call(key)
    journal.close()


def test_a_foreign_database_is_left_alone(tmp_path, clock):
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    with pytest.raises(JournalCorruptError, match="not a journal"):
        Journal(tmp_path, clock)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["recipes"]
    db.close()


def test_a_newer_schema_is_refused(tmp_path, clock):
    path, _ = filled(tmp_path, clock)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(JournalCorruptError, match="has schema 99; this version of rheed-ingest knows 4") as caught:
        Journal(path.parent, clock)
    assert "use the version that wrote it" in caught.value.hint


def test_a_full_disk_is_said_and_loses_nothing_that_was_confirmed(journal, opened):
    key, epoch = begin(journal, a_plan=many_chunks(20_000), events=OPENING)
    journal.record(key, epoch, confirmed(*range(10)))
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages + 4}")
    written = 10
    with pytest.raises(JournalWriteError, match="full") as caught:  # noqa: PT012 - which batch fails is SQLite's choice
        while written < 20_000:
            journal.record(key, epoch, confirmed(*range(written, written + 100)))
            written += 100
    assert "free disk space" in caught.value.hint
    assert len(journal.receipts(key)) == len(opened().receipts(key)) == written
    journal._db.execute("PRAGMA max_page_count=1000000")
    journal.record(key, epoch, confirmed(*range(written, written + 100)))
    assert len(journal.receipts(key)) == written + 100, "with room again, it goes on"


def test_a_folder_that_cannot_be_made_is_said(tmp_path, clock):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalWriteError, match="cannot be made") as caught:
        Journal(tmp_path / "file" / "state", clock)
    assert "--state" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_said(tmp_path, clock):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(JournalWriteError):
            Journal(tmp_path, clock)
    finally:
        tmp_path.chmod(0o755)


MOUNTS = """\
/dev/root / ext4 rw 0 0
filer:/home /home nfs4 rw 0 0
/dev/sdb /home/local xfs rw 0 0
//lab/share /mnt/lab\\040share cifs rw 0 0
torn
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/state", None),
        ("/home/me/state", "nfs4"),
        ("/home", "nfs4"),
        ("/homework", None),
        ("/home/local/me", None),
        ("/mnt/lab share/state", "cifs"),
        ("/mnt/lab", None),
    ],
)
def test_a_network_file_system_is_refused(folder, kind):
    if kind is None:
        refuse_network_file_system(Path(folder), MOUNTS)
    else:
        with pytest.raises(JournalWriteError, match=rf"network file system \({kind}\)") as caught:
            refuse_network_file_system(Path(folder), MOUNTS)
        assert "--state" in caught.value.hint


def test_no_mounts_at_all_refuse_nothing():
    refuse_network_file_system(Path("/anywhere"), "")


def test_commits_are_durable(journal):
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_the_default_folder_is_the_user_s():
    assert default_state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/rheed-ingest")
    assert default_state_dir({}) == Path.home() / ".local/state/rheed-ingest"
