"""A chunk becomes durable: directly while the network is quick, else in the spool; and never twice in a wrong order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingest.carrier import Carrier, Spooled
from ingest.errors import (
    AuthenticationError,
    JournalWriteError,
    RefusedError,
    SpoolFullError,
    SpoolReadError,
    StaleEpochError,
    StreamGoneError,
    UnreachableError,
)
from ingest.ledger import ChunkConfirmed, ChunkLost
from ingest.pipeline import Delivered, Failed, Lost
from ingest.spool import Spool, SpoolLimits
from ingest.telemetry import Telemetry
from tests.live_support import KEYS, FakeOutlet, encoded, encoded_points

KEY = "a" * 32


class Rig:
    """A carrier with an outlet, a journal and a clock of the test's."""

    def __init__(self, tmp_path: Path, *, limits: SpoolLimits | None = None, direct_for_s: float = 1.0, spool=None):
        self.spool = spool or Spool(tmp_path / "spool", "https://p.test", limits, lambda _: 10**12)
        self.outlet = FakeOutlet()
        self.events: list[tuple[str, int, list]] = []
        self.journal_error: Exception | None = None
        self.now_s = 100.0
        self.seen: list[tuple[str, int | None]] = []
        self.carrier = Carrier(
            self.spool,
            self.outlet,
            self.record,
            node="here/1",
            direct_for_s=direct_for_s,
            telemetry=Telemetry(lambda event: self.seen.append((event.name, event.index))),
            clock=lambda: 5000.0,
            monotonic=lambda: self.now_s,
        )

    async def record(self, key, epoch, events):
        if self.journal_error is not None:
            raise self.journal_error
        self.events.append((key, epoch, list(events)))

    def carry(self, *chunks, epoch: int = 3):
        return asyncio.run(self.carrier.carry_many(chunks, epoch))

    def spooled(self, key: str = KEY) -> list[int]:
        return [entry.seq for entry in self.spool.entries(key)]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def no(status: int = 503, kind=UnreachableError):
    def act(_chunk):
        raise kind("the platform says no") if kind is UnreachableError else kind("no", status=status)

    return act


def test_a_quick_network_costs_no_disk(rig):
    chunk = encoded(KEY, 4, 2)
    [outcome] = rig.carry(chunk)
    assert isinstance(outcome, Delivered)
    receipt = outcome.receipt
    assert (receipt.index, receipt.frames, receipt.node, receipt.etag) == (2, 8, "here/1", "etag")
    assert (receipt.put_unix_ms, receipt.crc32c, receipt.n_bytes) == (5_000_000, chunk.crc32c, chunk.body.n_bytes)
    assert (receipt.frames_digest, receipt.label) == (chunk.label.digest, None)
    assert rig.events == [(KEY, 3, [ChunkConfirmed(receipt)])], "journalled before it is answered"
    assert not rig.spool.folder.exists()
    assert rig.seen == [("chunk_put", 2)]


def test_a_receipt_of_points_says_which(rig):
    [outcome] = rig.carry(encoded_points(KEY, 0, 7, "T", "p"))
    assert (outcome.receipt.label, outcome.receipt.frames) == ("chunk 7 of T, p", 2)
    assert (outcome.receipt.start_unix_ms_utc, outcome.receipt.end_unix_ms_utc) == (1, 2)


def test_a_network_that_stalls_is_left_for_the_disk(tmp_path):
    rig = Rig(tmp_path, direct_for_s=0.05)
    rig.outlet.act = lambda _chunk: asyncio.sleep(60)
    assert rig.carry(encoded(KEY, 0, 5)) == [Spooled(5)]
    assert (rig.spooled(), rig.outlet.taken, rig.events) == ([0], [], [])
    assert rig.seen == [("chunk_spooled", 5)]
    [entry] = rig.spool.entries(KEY)
    assert rig.spool.load(entry).body.tobytes() == encoded(KEY, 0).body.tobytes()


@pytest.mark.parametrize(
    "act",
    [no(), no(401, AuthenticationError), no(409, StreamGoneError), no(302, RefusedError)],
    ids=["down or 503", "401", "gone", "redirect"],
)
def test_what_is_not_about_the_chunk_is_for_the_dispatcher_to_find_out(rig, act):
    rig.outlet.act = act
    assert rig.carry(encoded(KEY, 0)) == [Spooled(0)]
    assert rig.events == [], "no loss is recorded"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_chunk_is_lost_and_journalled(rig, status):
    rig.outlet.act = no(status, RefusedError)
    [outcome] = rig.carry(encoded(KEY, 0, 9))
    assert isinstance(outcome, Lost)
    assert (outcome.index, "no" in outcome.reason) == (9, True)
    assert rig.events == [(KEY, 3, [ChunkLost(9, outcome.reason)])]
    assert rig.spooled() == []
    rig.outlet.act = None
    assert isinstance(rig.carry(encoded(KEY, 1))[0], Delivered), "that was an answer, and no reason to pause"


def test_a_refused_request_of_points_says_which_channel(rig):
    rig.outlet.act = no(422, RefusedError)
    [outcome] = rig.carry(encoded_points(KEY, 0, 7, "pressure"))
    assert "chunk 7 of pressure" in outcome.reason


def goes_directly(rig) -> bool:
    """Carry a chunk of a stream of its own, of which nothing is in the spool; return whether it was tried directly."""
    before = len(rig.outlet.asked)
    rig.carry(encoded(next(KEYS), 0))
    return len(rig.outlet.asked) > before


def test_each_attempt_that_fails_doubles_the_pause_up_to_five_minutes(rig):
    rig.outlet.act = no()
    for pause_s in (5, 10, 20, 40, 80, 160, 300, 300):
        assert goes_directly(rig), "the pause is over"
        rig.now_s += pause_s - 0.5
        assert not goes_directly(rig), "the pause lasts"
        rig.now_s += 0.5
    rig.outlet.act = None
    assert goes_directly(rig)
    assert goes_directly(rig), "no pause any more"
    rig.outlet.act = no()
    assert goes_directly(rig)
    rig.now_s += 5
    assert goes_directly(rig), "the first pause is short again"


def test_a_delivery_that_took_too_long_stands_and_makes_a_pause(rig):
    def slow(_chunk):
        rig.now_s += 1.5

    rig.outlet.act = slow
    assert isinstance(rig.carry(encoded(KEY, 0))[0], Delivered)
    rig.outlet.act = None
    assert rig.carry(encoded(KEY, 1)) == [Spooled(1)]


def test_nothing_overtakes_what_waits_in_the_spool(rig):
    rig.spool.put(encoded(KEY, 0))
    assert rig.carry(encoded(KEY, 1)) == [Spooled(1)]
    assert isinstance(rig.carry(encoded("b" * 32, 0))[0], Delivered), "another stream is not held up"
    for entry in rig.spool.entries(KEY):
        rig.spool.remove(entry)
    assert isinstance(rig.carry(encoded(KEY, 2))[0], Delivered)


def test_what_was_set_aside_holds_nothing_up(rig):
    rig.spool.set_aside(rig.spool.put(encoded(KEY, 0)), "refused")
    assert isinstance(rig.carry(encoded(KEY, 1))[0], Delivered)


def test_without_time_for_direct_delivery_everything_is_spooled(tmp_path):
    rig = Rig(tmp_path, direct_for_s=0)
    assert rig.carry(encoded(KEY, 0), encoded(KEY, 1)) == [Spooled(0), Spooled(1)]
    assert rig.outlet.asked == []


@pytest.mark.parametrize("error", [StaleEpochError("taken over"), JournalWriteError("disk full")])
def test_what_nobody_could_journal_is_spooled(rig, error):
    """Delivered, but only the spool knows that somebody has yet to find that out."""
    rig.journal_error = error
    assert rig.carry(encoded(KEY, 0), encoded(KEY, 1)) == [Spooled(0), Spooled(1)]
    assert rig.outlet.seqs == [0, 1]
    assert rig.spooled() == [0, 1]


def test_a_loss_that_nobody_could_journal_is_spooled_too(rig):
    rig.outlet.act = no(422, RefusedError)
    rig.journal_error = StaleEpochError("taken over")
    assert rig.carry(encoded(KEY, 0)) == [Spooled(0)]


def test_many_are_one_commit_and_each_has_its_own_answer(rig):
    def act(chunk):
        if chunk.label.seq == 1:
            raise RefusedError("no", status=422)
        if chunk.label.seq == 2:
            raise UnreachableError("down")

    rig.outlet.act = act
    chunks = [encoded_points(KEY, seq, seq) for seq in range(4)]
    outcomes = rig.carry(*chunks)
    assert [type(outcome) for outcome in outcomes] == [Delivered, Lost, Spooled, Delivered]
    [(_, _, events)] = rig.events
    assert [type(event) for event in events] == [ChunkConfirmed, ChunkLost, ChunkConfirmed]
    assert rig.spooled() == [2]
    assert rig.outlet.most_at_once == 4


def test_nothing_to_carry_is_nothing(rig):
    assert rig.carry() == []


def test_a_full_spool_is_an_answer_and_nothing_is_kept(tmp_path):
    rig = Rig(tmp_path, limits=SpoolLimits(max_bytes=4096, floor_bytes=0))
    rig.outlet.act = no()
    first, second = rig.carry(encoded(KEY, 0))[0], rig.carry(encoded(KEY, 1))[0]
    assert first == Spooled(0)
    assert isinstance(second, Failed)
    assert isinstance(second.error, SpoolFullError)
    assert (second.index, second.error.fits_never) == (1, False)
    assert rig.spooled() == [0]
    rig.spool.remove(rig.spool.entries(KEY)[0])
    assert rig.carry(encoded(KEY, 1)) == [Spooled(1)], "and is found to have room again"


def test_a_spool_that_cannot_be_listed_is_an_answer(rig):
    """Never an exception: its producer keeps the chunk and asks again."""

    class Unreadable(Spool):
        def has(self, key):
            raise SpoolReadError("permission denied")

    rig.carrier._spool = Unreadable(rig.spool.folder, "https://p.test", None, lambda _: 10**12)
    [outcome] = rig.carry(encoded(KEY, 0))
    assert isinstance(outcome, Spooled | Failed)
    assert rig.outlet.asked == [], "what may wait there must not be overtaken"


def test_carrying_twice_gives_one_file(tmp_path):
    rig = Rig(tmp_path, direct_for_s=0)
    assert rig.carry(encoded(KEY, 0)) == rig.carry(encoded(KEY, 0)) == [Spooled(0)]
    assert rig.spooled() == [0]


def test_two_versions_of_a_chunk_are_two_files_in_order(tmp_path):
    rig = Rig(tmp_path, direct_for_s=0)
    rig.carry(encoded(KEY, 0, 5))
    rig.carry(encoded(KEY, 1, 5))
    assert [(entry.seq, entry.index) for entry in rig.spool.entries(KEY)] == [(0, 5), (1, 5)]


def test_a_kill_in_the_middle_leaves_whole_chunks_or_none(tmp_path):
    """Cancelled while it is on its way: nothing was answered, so its producer still has it."""
    rig = Rig(tmp_path, direct_for_s=5)

    async def scenario():
        gate = asyncio.Event()
        rig.outlet.act = lambda _chunk: gate.wait()
        task = asyncio.create_task(rig.carrier.carry(encoded(KEY, 0), 3))
        while not rig.outlet.asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert (rig.outlet.taken, rig.events, rig.spooled()) == ([], [], [])
