"""What is in the spool leaves it oldest first, once it is confirmed or finally lost; then the stream closes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.drain import AT_ONCE, LOOK_AHEAD, MAX_PATIENCE_S, Drain, DrainTools
from ingest.errors import (
    AuthenticationError,
    RefusedError,
    SpoolError,
    SpoolReadError,
    StaleEpochError,
    StreamGoneError,
    UnreachableError,
)
from ingest.ledger import (
    CloseBegun,
    CreateBegun,
    Sealed,
    StreamClosed,
    StreamCreated,
    StreamLedger,
    StreamLinked,
    StreamState,
)
from ingest.spool import Spool
from tests.live_support import KEYS, FakeOutlet, encoded, encoded_points, until

KEY = "c" * 32


class Rig:
    """A drain with an outlet of the test's, a real spool and a real ledger; its sleeps take no time."""

    def __init__(self, tmp_path: Path, *, spool: Spool | None = None) -> None:
        self.spool = spool or Spool(tmp_path / "spool", "https://p.test", None, lambda _: 10**12)
        self.outlet = FakeOutlet()
        self.ledger = StreamLedger(KEY)
        for event in (CreateBegun(), StreamCreated("data-1"), StreamLinked()):
            self.ledger.apply(event)
        self.slept: list[float] = []
        self.notices: list[str] = []
        self.record_error: Exception | None = None
        tools = DrainTools(self.spool, "here/1", clock=lambda: 5000.0, sleep=self.sleep)
        self.drain = Drain(KEY, "data-1", self.outlet, self.record, tools, self.notices.append)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def record(self, events):
        if self.record_error is not None:
            raise self.record_error
        for event in events:
            self.ledger.apply(event)
        return self.ledger.due()

    def put(self, *chunks):
        return [self.spool.put(chunk) for chunk in chunks]

    def work(self) -> bool:
        return asyncio.run(asyncio.wait_for(self.drain.work(), 20))

    def waiting(self) -> list[int]:
        return [entry.seq for entry in self.spool.entries(KEY)]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def fails(error: Exception, *, times: int = 1, seqs=None):
    """Return an act that raises so often, for some chunks or any."""
    left = [times]

    def act(chunk):
        if left[0] and (seqs is None or chunk.label.seq in seqs):
            left[0] -= 1
            raise error

    return act


def test_an_empty_spool_is_no_work(rig):
    assert rig.work() is False
    assert (rig.outlet.asked, rig.slept, rig.notices) == ([], [], [])


def test_all_of_it_arrives_and_leaves_the_disk(rig):
    chunks = [encoded(KEY, seq) for seq in range(LOOK_AHEAD + 7)]
    rig.put(*chunks)
    rig.outlet.act = lambda _chunk: until(lambda: rig.outlet.most_at_once >= AT_ONCE)
    assert rig.work() is False, "nobody sealed it"
    assert sorted(rig.outlet.seqs) == list(range(LOOK_AHEAD + 7))
    by_seq = {chunk.label.seq: chunk.body.tobytes() for chunk in rig.outlet.taken}
    assert all(by_seq[chunk.label.seq] == chunk.body.tobytes() for chunk in chunks)
    assert rig.outlet.most_at_once == AT_ONCE
    assert rig.waiting() == []
    assert rig.ledger.confirmed == {chunk.label.index: chunk.label.digest for chunk in chunks}


def test_the_oldest_leave_first(rig):
    rig.put(*(encoded(KEY, seq, index) for seq, index in enumerate([9, 3, 7, 0, 5, 1])))
    # None is done before all of the first are on their way: which of them is read first is the threads' affair.
    rig.outlet.act = lambda _chunk: until(lambda: rig.outlet.most_at_once >= AT_ONCE)
    rig.work()
    assert set(rig.outlet.asked[:AT_ONCE]) == {0, 1, 2, 3}


def test_a_chunk_leaves_the_spool_only_after_its_receipt(rig):
    rig.put(encoded(KEY, 0))
    rig.record_error = StaleEpochError("another session")
    with pytest.raises(StaleEpochError):
        rig.work()
    assert (rig.outlet.seqs, rig.waiting()) == ([0], [0])
    rig.record_error = None
    rig.work()
    assert (rig.outlet.seqs, rig.waiting()) == ([0, 0], [])


versions = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.003)), min_size=1, max_size=12)


@given(versions)
@settings(max_examples=25, deadline=None)
def test_of_several_versions_the_last_one_given_stays(given_chunks):
    """However long each delivery takes."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        rig.put(*(encoded(KEY, seq, index) for seq, (index, _) in enumerate(given_chunks)))
        rig.outlet.act = lambda chunk: asyncio.sleep(given_chunks[chunk.label.seq][1])
        rig.work()
        there = {chunk.label.index: chunk.label.seq for chunk in rig.outlet.taken}
        assert there == {index: seq for seq, (index, _) in enumerate(given_chunks)}
        last = {chunk.label.index: chunk.label.digest for chunk in rig.outlet.taken}
        assert rig.ledger.confirmed == last


def test_of_several_versions_of_points_the_last_one_given_stays(rig):
    """Versions share a channel and a chunk's number, and have indices of their own in the ledger."""
    chunks = [
        encoded_points(KEY, 0, 5, "T", "p"),
        encoded_points(KEY, 1, 5, "x"),
        encoded_points(KEY, 2, 5, "p"),
        encoded_points(KEY, 3, 5, "T", "p"),
    ]
    rig.put(*chunks)
    rig.outlet.act = lambda chunk: asyncio.sleep(0.05 if chunk.label.seq == 0 else 0)
    rig.work()
    assert [seq for seq in rig.outlet.seqs if seq != 1] == [0, 2, 3], "versions of p, one after the other"
    assert rig.outlet.seqs.index(1) < rig.outlet.seqs.index(2), "another channel does not wait for them"
    assert sorted(rig.ledger.confirmed) == [0, 1, 2, 3]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_chunk_is_a_loss_that_is_told_and_kept_aside(rig, status):
    rig.put(*(encoded(KEY, seq) for seq in range(3)))
    rig.outlet.act = fails(RefusedError("dims are not to our taste", status=status), seqs=[1])
    rig.work()
    assert sorted(rig.outlet.seqs) == [0, 2]
    assert rig.ledger.lost == {1: "chunk 1: dims are not to our taste"}
    assert rig.waiting() == []
    [aside] = rig.spool.refused(KEY)
    assert aside.name == "000000000001-0000000001.chunk.refused"
    [notice] = rig.notices
    assert "chunk 1" in notice
    assert "not to our taste" in notice


@pytest.mark.parametrize("where", [3, -3], ids=["header", "body"])
def test_a_damaged_file_is_a_loss_that_is_told_and_kept_aside(rig, where):
    damaged, _ = rig.put(encoded(KEY, 0, 4), encoded(KEY, 1))
    raw = bytearray(damaged.path.read_bytes())
    raw[where] ^= 0xFF
    damaged.path.write_bytes(raw)
    rig.work()
    assert rig.outlet.seqs == [1]
    assert list(rig.ledger.lost) == [4]
    assert "damaged" in rig.ledger.lost[4]
    assert rig.spool.damaged(KEY) == [damaged.path.with_name(damaged.path.name + ".damaged")]
    assert rig.spool.damaged(KEY)[0].read_bytes() == raw
    assert len(rig.notices) == 1


def test_a_file_that_somebody_removes_is_no_loss(rig):
    first, _ = rig.put(encoded(KEY, 0), encoded(KEY, 1))

    class Racing(Spool):
        def label(self, spooled):
            if spooled.seq == 0:
                first.path.unlink(missing_ok=True)
            return super().label(spooled)

    rig.drain._tools = DrainTools(Racing(rig.spool.folder, "https://p.test"), sleep=rig.sleep)
    rig.work()
    assert (rig.outlet.seqs, rig.ledger.lost, rig.notices) == ([1], {}, [])


def test_silence_is_waited_out_ever_more_patiently_and_said_once(rig):
    rig.put(encoded(KEY, 0))
    rig.outlet.act = fails(UnreachableError("no route to host"), times=7)
    states = []

    async def sleep(seconds):
        rig.slept.append(seconds)
        states.append((rig.drain.stalled_by, rig.drain.is_refused))

    rig.drain._tools = DrainTools(rig.spool, sleep=sleep)
    rig.work()
    assert rig.slept == [1, 2, 4, 8, MAX_PATIENCE_S, MAX_PATIENCE_S, MAX_PATIENCE_S]
    assert set(states) == {("no route to host", False)}
    assert (rig.drain.stalled_by, rig.drain.is_refused) == (None, False)
    assert len(rig.notices) == 1
    assert "stalls: no route to host" in rig.notices[0]
    assert (rig.outlet.seqs, rig.waiting()) == ([0], [])


@pytest.mark.parametrize("error", [AuthenticationError("no such key", status=401), RefusedError("moved", status=302)])
def test_an_answer_that_people_have_to_mend_is_asked_again_for_ever(rig, error):
    rig.put(encoded(KEY, 0))
    rig.outlet.act = fails(error, times=3)
    seen = []

    async def sleep(seconds):
        rig.slept.append(seconds)
        seen.append((rig.drain.stalled_by, rig.drain.is_refused))

    rig.drain._tools = DrainTools(rig.spool, sleep=sleep)
    rig.work()
    assert rig.slept == [MAX_PATIENCE_S] * 3
    assert set(seen) == {(str(error), True)}
    assert not rig.drain.is_refused
    assert (rig.outlet.seqs, rig.ledger.lost) == ([0], {})


def test_what_was_mended_is_tried_at_once_if_somebody_says_so(rig):
    rig.put(encoded(KEY, 0))
    rig.outlet.act = fails(AuthenticationError("no such key", status=401))
    rig.drain._tools = DrainTools(rig.spool)  # whose sleep really lasts: 15 s

    async def scenario():
        working = asyncio.create_task(rig.drain.work())
        await until(lambda: rig.drain.is_refused)
        rig.drain.try_now()
        assert not rig.drain.is_refused, "nobody knows whether it is mended"
        assert await asyncio.wait_for(working, 5) is False

    asyncio.run(scenario())
    assert (rig.outlet.seqs, rig.drain.stalled_by) == ([0], None)


def test_one_chunk_that_fails_is_tried_again_and_no_other_twice(rig):
    rig.put(*(encoded(KEY, seq) for seq in range(4)))
    rig.outlet.act = fails(UnreachableError("reset"), seqs=[0])
    rig.work()
    assert sorted(rig.outlet.seqs) == [0, 1, 2, 3]
    assert (rig.outlet.asked.count(0), rig.slept) == (2, [1])


def test_a_stream_that_the_platform_closed_keeps_its_spool(rig):
    rig.put(*(encoded(KEY, seq) for seq in range(3)))
    rig.outlet.act = fails(StreamGoneError("it failed: silent for 2 hours", status=409), times=99)
    with pytest.raises(StreamGoneError):
        rig.work()
    assert (rig.ledger.state, rig.ledger.gone_reason) == (StreamState.GONE, "it failed: silent for 2 hours")
    assert rig.waiting() == [0, 1, 2]
    assert rig.ledger.lost == {}


def test_a_lease_that_was_taken_over_ends_it(rig):
    rig.put(encoded(KEY, 0))
    rig.record_error = StaleEpochError("another session")
    with pytest.raises(StaleEpochError):
        rig.work()


@pytest.mark.parametrize("method", ["label", "load", "entries"])
def test_a_disk_that_does_not_answer_is_said_as_such(rig, method):
    """Never as a group of exceptions, which nobody up there expects."""
    rig.put(encoded(KEY, 0), encoded(KEY, 1))

    class Sick(Spool):
        pass

    def sick(self, spooled):
        raise SpoolReadError("IO error")

    setattr(Sick, method, sick)
    rig.drain._tools = DrainTools(Sick(rig.spool.folder, "https://p.test"), sleep=rig.sleep)
    with pytest.raises(SpoolReadError):
        rig.work()
    assert rig.waiting() == [0, 1]
    assert rig.ledger.lost == {}


def test_a_file_of_another_version_is_said_and_kept(rig):
    import google_crc32c

    first, _ = rig.put(encoded(KEY, 0), encoded(KEY, 1))
    line, body = first.path.read_bytes().split(b"\n", 1)
    raw = line[9:].replace(b'"format":1', b'"format":2')
    first.path.write_bytes(b"%08x %s\n%s" % (google_crc32c.value(raw), raw, body))
    with pytest.raises(SpoolError, match="format 2"):
        rig.work()
    assert rig.waiting()[0] == 0, "kept for the version that knows it"
    assert rig.ledger.lost == {}


# -- the end -----------------------------------------------------------------------------------------------------------


def seal(rig, *indices):
    rig.ledger.apply(Sealed.of(indices))


def test_a_sealed_stream_is_closed_once_it_is_whole(rig):
    rig.put(encoded(KEY, 0), encoded(KEY, 1, 7))
    seal(rig, 0, 7)
    assert rig.work() is True
    assert rig.outlet.closed == ["data-1"]
    assert rig.ledger.state is StreamState.CLOSED


def test_a_sealed_stream_that_lacks_a_chunk_stays_open(rig):
    rig.put(encoded(KEY, 0))
    seal(rig, 0, 1)
    assert rig.work() is False
    assert (rig.outlet.closed, rig.ledger.state) == ([], StreamState.OPEN)
    rig.put(encoded(KEY, 1))
    assert rig.work() is True


def test_a_stream_with_losses_is_closed_too(rig):
    rig.put(encoded(KEY, 0), encoded(KEY, 1))
    seal(rig, 0, 1)
    rig.outlet.act = fails(RefusedError("no", status=422), seqs=[1])
    assert rig.work() is True
    assert (rig.ledger.state, list(rig.ledger.lost)) == (StreamState.CLOSED, [1])


def test_an_empty_stream_is_closed(rig):
    seal(rig)
    assert rig.work() is True


def test_a_close_that_was_begun_is_sent_again(rig):
    seal(rig)
    rig.ledger.apply(CloseBegun())
    assert rig.work() is True
    assert rig.ledger.state is StreamState.CLOSED
    rig.ledger.apply(StreamClosed())


def test_a_close_is_tried_until_it_is_answered(rig):
    seal(rig)
    answers = [UnreachableError("503"), UnreachableError("503"), AuthenticationError("no", status=401), None]

    def act():
        error = answers.pop(0)
        if error is not None:
            raise error

    rig.outlet.act_on_close = act
    assert rig.work() is True
    assert rig.slept == [1, 2, MAX_PATIENCE_S]
    assert rig.outlet.closed == ["data-1"]


def test_a_stream_that_is_gone_at_the_close_is_said(rig):
    seal(rig)

    def act():
        raise StreamGoneError("it failed", status=409)

    rig.outlet.act_on_close = act
    with pytest.raises(StreamGoneError):
        rig.work()
    assert rig.ledger.state is StreamState.GONE


def test_another_stream_s_spool_is_not_touched(rig):
    other = next(KEYS)
    rig.put(encoded(other, 0))
    rig.work()
    assert (rig.outlet.asked, rig.spool.has(other)) == ([], True)
