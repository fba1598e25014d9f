"""The finalize aggregator as a plain class over a real journal: it may be restarted, and asked everything twice."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.aggregator import Aggregator
from ingest.errors import (
    IllegalEventError,
    JournalWriteError,
    LeaseHeldError,
    SettingsChangedError,
    StaleEpochError,
)
from ingest.journal import RunEnd
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CloseStream,
    CreateBegun,
    CreateStream,
    DeliverChunks,
    LinkStream,
    StreamClosed,
    StreamCreated,
    StreamGone,
    StreamLinked,
    StreamState,
)
from ingest.telemetry import Telemetry
from tests.test_ledger import receipt
from tests.test_plan import plan, source

TO = "http://platform.test"
PATH = "/data/run.h5"
OPENING = [CreateBegun(), StreamCreated("s1"), StreamLinked()]
CLOSE = CloseStream("s1", with_losses=False)


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class House:
    """Aggregators over one folder, as Ray restarts them."""

    def __init__(self, folder):
        self.folder, self.clock, self.all, self.seen = folder, Clock(), [], []

    def start(self) -> Aggregator:
        telemetry = Telemetry(lambda event: self.seen.append((event.name, event.index)))
        self.all.append(Aggregator(str(self.folder), 60.0, telemetry, self.clock))
        return self.all[-1]

    def close(self):
        for aggregator in self.all:
            if aggregator._opened is not None:
                aggregator._opened.close()


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path / "state")
    yield house
    house.close()


@pytest.fixture
def aggregator(house):
    return house.start()


def begin(aggregator, job="job1", events=(), **kwargs):
    """Register and lease the run of three chunks; return its key and epoch."""
    key = aggregator.register(job, 0, TO, PATH, plan(), **kwargs).key
    epoch = aggregator.lease(job, key).epoch
    for event in events:
        aggregator.record(key, epoch, [event])
    return key, epoch


def confirmed(*indices, digest=None):
    return [ChunkConfirmed(receipt(i, digest)) for i in indices]


def test_making_one_touches_nothing(house, tmp_path):
    """A constructor that raises cannot be restarted."""
    house.start()
    assert not house.folder.exists()
    (tmp_path / "file").touch()
    hopeless = Aggregator(str(tmp_path / "file" / "state"), 60.0)
    with pytest.raises(JournalWriteError):
        hopeless.open_runs("job1")


def test_a_run_from_plan_to_close(aggregator, house):
    registered = aggregator.register("job1", 0, TO, PATH, plan())
    key = registered.key
    lease = aggregator.lease("job1", key)
    assert (lease.epoch, lease.plan, lease.due) == (1, plan(), (CreateStream(),))
    assert lease.row.path == PATH
    steps = [
        (CreateBegun(), (CreateStream(),)),
        (StreamCreated("s1"), (LinkStream("s1"),)),
        (StreamLinked(), (DeliverChunks("s1", (0, 1, 2)),)),
        *((event, ()) for event in confirmed(2, 0)),
        (*confirmed(1), (CLOSE,)),
        (CloseBegun(), (CLOSE,)),
        (StreamClosed(), ()),
    ]
    for event, due in steps:
        assert aggregator.record(key, 1, [event]) == due, event
    assert aggregator.receipts_digests(key) == {0: "d0", 1: "d1", 2: "d2"}
    aggregator.end_run("job1", key, 1, RunEnd("complete"))
    row = aggregator.row("job1", key)
    assert (row.state, row.confirmed, row.end, row.lease_holder) == (StreamState.CLOSED, 3, RunEnd("complete"), None)
    assert aggregator.job("job1") == [row]
    assert aggregator.open_runs("job1") == []
    assert house.seen == [
        (f"{type(event).__name__}_committed", event.receipt.index if isinstance(event, ChunkConfirmed) else None)
        for event, _ in steps
    ]


def test_every_call_may_come_twice_and_to_a_new_instance(house):
    """Ray runs a call again after a restart; the answers, the journal and the news are those of once."""

    def twice(method, *arguments):
        first = getattr(house.start(), method)(*arguments)
        assert getattr(house.all[-1], method)(*arguments) == first
        assert getattr(house.start(), method)(*arguments) == first
        return first

    key = twice("register", "job1", 0, TO, PATH, plan()).key
    assert twice("open_runs", "job1") == [key]
    epoch = house.start().lease("job1", key).epoch
    for event in OPENING:
        twice("record", key, epoch, [event])
    assert twice("record", key, epoch, confirmed(0, 1)) == ()
    assert twice("record", key, epoch, confirmed(2)) == (CLOSE,)
    assert twice("record", key, epoch, []) == (CLOSE,)
    assert twice("record", key, epoch, [CloseBegun()]) == (CLOSE,)
    assert twice("record", key, epoch, [StreamClosed()]) == ()
    twice("renew", "job1")
    twice("end_run", "job1", key, epoch, RunEnd("complete"))
    assert [name for name, _ in house.seen if name.endswith("_committed")] == [
        "CreateBegun_committed",
        "StreamCreated_committed",
        "StreamLinked_committed",
        *["ChunkConfirmed_committed"] * 3,
        "CloseBegun_committed",
        "StreamClosed_committed",
    ]


def test_a_restarted_one_continues(house):
    key, epoch = begin(house.start(), events=[*OPENING, *confirmed(1)])
    again = house.start()
    assert again.record(key, epoch, []) == (DeliverChunks("s1", (0, 2)),)
    assert again.record(key, epoch, confirmed(0, 2)) == (CLOSE,)
    assert house.start().record(key, epoch, []) == (CLOSE,)


def test_a_lease_taken_twice_gives_the_last_epoch(aggregator):
    """The first answer may have been lost."""
    key, first = begin(aggregator)
    second = aggregator.lease("job1", key).epoch
    assert second > first
    aggregator.record(key, second, [CreateBegun()])
    with pytest.raises(StaleEpochError):
        aggregator.record(key, first, [CreateBegun()])


def test_another_job_is_kept_out_until_the_lease_ends(aggregator, house):
    key, epoch = begin(aggregator, events=OPENING)
    other = house.start()
    other.register("job2", 0, TO, PATH, plan())
    house.clock.now_s += 59
    with pytest.raises(LeaseHeldError):
        other.lease("job2", key)
    aggregator.renew("job1")
    house.clock.now_s += 59
    with pytest.raises(LeaseHeldError):
        other.lease("job2", key)
    aggregator.end_run("job1", key, epoch, RunEnd("partial"))
    assert other.lease("job2", key).due == (DeliverChunks("s1", (0, 1, 2)),)


@pytest.mark.parametrize("events", [confirmed(0), [StreamGone("x")], confirmed(0, 1, 2)], ids=["chunk", "gone", "all"])
def test_one_that_was_overtaken_changes_nothing(aggregator, house, events):
    """It still believes in its own epoch; the journal knows better."""
    key, epoch = begin(aggregator, events=OPENING)
    house.clock.now_s += 61
    other = house.start()
    other.register("job2", 0, TO, PATH, plan())
    lease = other.lease("job2", key)
    assert lease.epoch == epoch + 1
    with pytest.raises(StaleEpochError, match="another job took over"):
        aggregator.record(key, epoch, events)
    assert other.row("job2", key).confirmed == 0
    assert aggregator.receipts_digests(key) == {}, "nor does it believe that it had"
    assert other.record(key, lease.epoch, confirmed(0, 1, 2)) == (CLOSE,)
    aggregator.end_run("job1", key, epoch, RunEnd("failed", "taken over"))
    assert other.row("job2", key).lease_holder == "job2", "what it gave back was no longer its own"


@pytest.mark.parametrize(
    ("chunks", "lost", "due"),
    [
        ((), (), None),
        ((0, 1), (), None),
        ((0, 2), (), None),
        ((0,), (1,), None),
        ((0, 1, 2), (), CLOSE),
        ((0, 2), (1,), CloseStream("s1", with_losses=True)),
        ((), (0, 1, 2), CloseStream("s1", with_losses=True)),
    ],
    ids=str,
)
def test_closes_only_what_is_whole(aggregator, house, chunks, lost, due):
    key, epoch = begin(aggregator, events=OPENING)
    events = [*confirmed(*chunks), *(ChunkLost(i, "refused") for i in lost)]
    assert aggregator.record(key, epoch, events) == (
        (due,) if due else (() if events else aggregator.lease("job1", key).due)
    )
    if due is None:
        epoch = aggregator.lease("job1", key).epoch
        for each in (aggregator, house.start()):
            with pytest.raises(IllegalEventError, match="are missing"):
                each.record(key, epoch, [CloseBegun()])
        assert aggregator.row("job1", key).state is StreamState.OPEN
    else:
        assert aggregator.record(key, epoch, [CloseBegun()]) == (due,)


def test_a_chunk_after_the_close_is_refused_and_the_same_one_again_is_not(aggregator):
    key, epoch = begin(aggregator, events=[*OPENING, *confirmed(0, 1, 2), CloseBegun(), StreamClosed()])
    assert aggregator.record(key, epoch, confirmed(0, 1, 2)) == ()
    with pytest.raises(IllegalEventError, match="it is closed"):
        aggregator.record(key, epoch, confirmed(1, digest="other"))
    assert aggregator.receipts_digests(key)[1] == "d1"


def test_an_illegal_event_takes_the_whole_batch_with_it(aggregator, house):
    key, epoch = begin(aggregator, events=OPENING)
    with pytest.raises(IllegalEventError, match="chunk 3 is not one of its 3"):
        aggregator.record(key, epoch, confirmed(0, 3, 1))
    for each in (aggregator, house.start()):
        assert each.receipts_digests(key) == {}
    assert ("ChunkConfirmed_committed", 0) not in house.seen


def test_what_was_not_committed_is_not_believed(aggregator):
    """A full disk: the answer is an error, and asked again with room it is done."""
    key, epoch = begin(aggregator, events=OPENING)
    database = aggregator._journal._db
    database.execute("PRAGMA query_only=1")
    with pytest.raises(JournalWriteError):
        aggregator.record(key, epoch, confirmed(0))
    assert aggregator.receipts_digests(key) == {}
    database.execute("PRAGMA query_only=0")
    aggregator.record(key, epoch, confirmed(0))
    assert aggregator.receipts_digests(key) == {0: "d0"}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_stream_that_its_platform_failed_is_replaced(house, restarted):
    aggregator = house.start()
    key, epoch = begin(aggregator, events=[*OPENING, *confirmed(0)])
    fresh = aggregator.replace("job1", key, epoch, "silent for 2 hours")
    assert fresh != key
    again = house.start() if restarted else aggregator
    assert again.replace("job1", key, epoch, "silent for 2 hours") == fresh
    assert again.open_runs("job1") == [fresh]
    row = again.row("job1", key)
    assert row.state is StreamState.GONE
    assert again.row("job1", fresh).replaces == "s1"
    lease = again.lease("job1", fresh)
    assert (lease.due, lease.plan) == ((CreateStream(),), plan())
    assert again.receipts_digests(fresh) == {}
    with pytest.raises(IllegalEventError, match="it is gone"):
        again.record(key, epoch, confirmed(1))


def test_replacing_needs_the_lease(aggregator, house):
    key, epoch = begin(aggregator, events=OPENING)
    house.clock.now_s += 61
    other = house.start()
    other.register("job2", 0, TO, PATH, plan())
    other.lease("job2", key)
    with pytest.raises(StaleEpochError):
        aggregator.replace("job1", key, epoch, "silent")
    assert other.row("job2", key).state is StreamState.OPEN


def test_a_restart_is_passed_on(aggregator):
    key, epoch = begin(aggregator, events=OPENING)
    with pytest.raises(SettingsChangedError):
        aggregator.register("job2", 0, TO, PATH, plan(chunk_size=300))
    with pytest.raises(LeaseHeldError):
        aggregator.register("job2", 0, TO, PATH, plan(chunk_size=300), True)
    aggregator.end_run("job1", key, epoch, RunEnd("partial"))
    assert aggregator.register("job2", 0, TO, PATH, plan(chunk_size=300), True).key != key


def test_streams_do_not_mix(aggregator):
    key, epoch = begin(aggregator, events=OPENING)
    other = aggregator.register("job1", 1, TO, "/data/2.h5", plan(source(fingerprint="f2"))).key
    other_epoch = aggregator.lease("job1", other).epoch
    for event in (CreateBegun(), StreamCreated("s2"), StreamLinked(), *confirmed(2)):
        aggregator.record(other, other_epoch, [event])
    aggregator.record(key, epoch, confirmed(0))
    assert aggregator.receipts_digests(key) == {0: "d0"}
    assert aggregator.receipts_digests(other) == {2: "d2"}


batches = st.lists(
    st.lists(
        st.one_of(
            st.builds(
                lambda i, d: ChunkConfirmed(dataclasses.replace(receipt(i), frames_digest=d)),
                st.integers(0, 2),
                st.sampled_from(["a", "b"]),
            ),
            st.builds(ChunkLost, st.integers(0, 2), st.just("refused")),
        ),
        max_size=4,
    ),
    max_size=6,
)


@given(batches, st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=25, deadline=None)
def test_restarts_make_no_difference(tmp_path_factory, sent, restarts):
    """An aggregator that is restarted between batches answers as one that never was."""
    steady, shaken = (House(tmp_path_factory.mktemp("state")) for _ in range(2))
    one, other = steady.start(), shaken.start()
    keys = [begin(each, events=OPENING)[0] for each in (one, other)]
    for batch, restart in zip(sent, restarts, strict=False):
        if restart:
            other = shaken.start()
        assert one.record(keys[0], 1, batch) == other.record(keys[1], 1, batch)
        assert one.receipts_digests(keys[0]) == other.receipts_digests(keys[1])
    assert one.record(keys[0], 1, []) == other.record(keys[1], 1, [])
    assert shaken.start().record(keys[1], 1, []) == one.record(keys[0], 1, [])
    for house in (steady, shaken):
        house.close()
