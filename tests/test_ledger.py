"""The stream's state machine: every event in every state, and what no order of events may do."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import IllegalEventError, StaleEpochError
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CloseStream,
    CreateBegun,
    CreateStream,
    DeliverChunks,
    LinkStream,
    Receipt,
    Sealed,
    StreamClosed,
    StreamCreated,
    StreamGone,
    StreamLedger,
    StreamLinked,
    StreamState,
)

S = StreamState


def receipt(index, digest=None) -> Receipt:
    return Receipt(index, 240, 1000, 3000, 99, 7, digest or f"d{index}", '"etag"', 1, "node/1", 5000)


def confirmed(index, digest=None) -> ChunkConfirmed:
    return ChunkConfirmed(receipt(index, digest))


def ledger(state=S.OPEN, chunks=(0, 1), expected=2, lost=()) -> StreamLedger:
    """Make a stream of two chunks, both there unless said otherwise."""
    return StreamLedger(
        "k",
        epoch=3,
        state=state,
        data_id=None if state in (S.PLANNED, S.CREATING) else "s1",
        expected=expected,
        confirmed={i: f"d{i}" for i in chunks},
        lost=dict.fromkeys(lost, "refused"),
    )


# One column a state; "new", "same" (no news) or "no" (illegal). Chunk 0 is confirmed, chunk 1 is not.
STATES = [S.PLANNED, S.CREATING, S.CREATED, S.OPEN, S.CLOSING, S.CLOSED, S.GONE]
TABLE = {
    CreateBegun(): "new same same same same same no",
    StreamCreated("s1"): "no new same same same same no",
    StreamCreated("s2"): "no new no no no no no",
    StreamLinked(): "no no new same same same no",
    confirmed(0): "same same same same same same same",
    confirmed(0, "other"): "no no no new no no no",
    confirmed(1): "no no no new no no no",
    confirmed(2): "no no no no no no no",
    confirmed(-1): "no no no no no no no",
    ChunkLost(0, "refused"): "same same same same same same same",
    ChunkLost(1, "refused"): "no no no new no no no",
    ChunkLost(2, "refused"): "no no no no no no no",
    Sealed(2): "same same same same same same same",
    Sealed(3): "no no no no no no no",
    CloseBegun(): "no no no no same same no",
    StreamClosed(): "no no no no new same no",
    StreamGone("silent for 2 hours"): "new new new new new same same",
}
CASES = [
    pytest.param(state, event, word, id=f"{state}-{event}")
    for event, words in TABLE.items()
    for state, word in zip(STATES, words.split(), strict=True)
]


@pytest.mark.parametrize(("state", "event", "word"), CASES)
def test_every_event_in_every_state(state, event, word):
    stream = ledger(state, chunks=(0,))
    before = copy.deepcopy(stream)
    if word == "no":
        for call in (stream.is_news, stream.apply):
            with pytest.raises(IllegalEventError, match=f"stream k: {type(event).__name__} is not possible"):
                call(event)
        assert stream == before
        return
    assert stream.is_news(event) is (word == "new")
    assert stream == before, "asking changes nothing"
    stream.apply(event)
    assert (stream == before) is (word == "same")
    after = copy.deepcopy(stream)
    assert not stream.is_news(event), "the same again is no news"
    stream.apply(event)
    assert stream == after


def test_every_event_is_in_the_table():
    from ingest import ledger as module

    events = module.StreamEvent.__args__
    assert {type(event) for event in TABLE} == set(events)
    assert set(STATES) == set(S)


def test_a_stream_s_life():
    stream = StreamLedger("k")
    assert stream.due() == (CreateStream(),)
    assert stream.apply(Sealed(2)) == (CreateStream(),)
    assert stream.apply(CreateBegun()) == (CreateStream(),), "a create that was begun may have to be sent again"
    assert stream.apply(StreamCreated("s1")) == (LinkStream("s1"),)
    assert stream.apply(StreamLinked()) == (DeliverChunks("s1", (0, 1)),)
    assert stream.apply(confirmed(1)) == ()
    assert stream.due() == (DeliverChunks("s1", (0,)),)
    assert stream.apply(confirmed(0)) == (CloseStream("s1", with_losses=False),)
    assert stream.apply(CloseBegun()) == (CloseStream("s1", with_losses=False),)
    assert stream.apply(StreamClosed()) == ()
    assert (stream.state, stream.missing(), stream.is_whole()) == (S.CLOSED, (), True)


def test_losses_are_said_at_the_close():
    stream = ledger(chunks=(), expected=3)
    assert stream.apply(ChunkLost(1, "unreadable")) == ()
    stream.apply(confirmed(0))
    assert stream.missing() == (2,)
    assert stream.apply(confirmed(2)) == (CloseStream("s1", with_losses=True),)
    assert stream.lost == {1: "unreadable"}


def test_a_chunk_that_comes_after_all_is_no_loss():
    stream = ledger(chunks=(0,), lost=(1,))
    assert stream.due() == (CloseStream("s1", with_losses=True),)
    assert stream.apply(confirmed(1)) == (CloseStream("s1", with_losses=False),)
    assert stream.lost == {}
    assert not stream.is_news(ChunkLost(1, "late word")), "a chunk that is there is not lost"


@pytest.mark.parametrize(
    ("chunks", "expected", "lost", "whole"),
    [
        ((), None, (), False),
        ((0, 1), None, (), False),
        ((), 2, (), False),
        ((0,), 2, (), False),
        ((0, 1), 2, (), True),
        ((0,), 2, (1,), True),
        ((0,), 2, (0,), False),
        ((), 2, (0, 1), True),
        ((0, 5), 2, (), False),
        ((), 0, (), True),
    ],
)
def test_closes_only_once_it_is_whole(chunks, expected, lost, whole):
    """Nobody's seal, a missing chunk: it stays open."""
    stream = ledger(S.OPEN, chunks, expected, lost)
    assert stream.is_whole() is whole
    if whole:
        assert stream.apply(CloseBegun()) == (CloseStream("s1", with_losses=bool(lost)),)
    else:
        assert not any(isinstance(instruction, CloseStream) for instruction in stream.due())
        with pytest.raises(IllegalEventError, match="CloseBegun"):
            stream.apply(CloseBegun())
        assert stream.state is S.OPEN


def test_a_live_stream_that_nobody_sealed_has_nothing_due():
    assert ledger(chunks=(0, 1), expected=None).due() == ()


@pytest.mark.parametrize("state", [S.CLOSED, S.GONE])
def test_nothing_is_due_at_the_end(state):
    assert ledger(state, chunks=(0,)).due() == ()


@pytest.mark.parametrize(
    ("accepted", "chunks", "holes"),
    [
        ((), 0, ()),
        ((0,), 1, ()),
        ((0, 1, 2), 3, ()),
        ((2,), 3, ((0, 2),)),
        ((5, 0, 2, 2), 6, ((1, 2), (3, 5))),
        ((10**12,), 10**12 + 1, ((0, 10**12),)),
    ],
)
def test_a_seal_of_what_was_accepted(accepted, chunks, holes):
    assert Sealed.of(accepted) == Sealed(chunks, holes)


@given(st.sets(st.integers(0, 40)))
def test_a_seal_expects_just_what_was_accepted(accepted):
    stream = ledger(chunks=(), expected=None)
    stream.apply(Sealed.of(accepted))
    assert set(stream.missing()) == accepted
    assert stream.is_whole() is (not accepted)
    for index in range(42):
        if index in accepted:
            assert stream.is_news(confirmed(index))
        else:
            with pytest.raises(IllegalEventError, match=f"chunk {index} is not one of its"):
                stream.is_news(confirmed(index))
            with pytest.raises(IllegalEventError):
                stream.is_news(ChunkLost(index, "no"))
    due = [stream.apply(confirmed(index)) for index in sorted(accepted, key=lambda i: -i)]
    if accepted:
        assert due == [()] * (len(accepted) - 1) + [(CloseStream("s1", with_losses=False),)]
    assert stream.missing() == ()
    assert stream.is_whole()


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_a_seal_never_contradicts_what_is_known(there, gone, accepted):
    """What arrived, or was lost, before the seal has to be in it."""
    gone -= there
    stream = ledger(chunks=sorted(there), expected=None, lost=sorted(gone))
    seal = Sealed.of(accepted)
    if there | gone <= accepted:
        stream.apply(seal)
        assert set(stream.missing()) == accepted - there - gone
        assert stream.is_whole() is (not stream.missing())
        assert not stream.is_news(seal)
    else:
        before = copy.deepcopy(stream)
        with pytest.raises(IllegalEventError, match="it has chunk"):
            stream.apply(seal)
        assert stream == before


@pytest.mark.parametrize("other", [Sealed(3), Sealed(3, ((0, 1),)), Sealed(4, ((1, 2),)), Sealed(2)])
def test_a_seal_with_holes_does_not_change(other):
    stream = ledger(chunks=(0,), expected=None)
    stream.apply(Sealed(3, ((1, 2),)))
    assert not stream.is_news(Sealed(3, ((1, 2),)))
    with pytest.raises(IllegalEventError, match="sealed at 3"):
        stream.is_news(other)


def test_an_empty_stream_that_is_sealed_may_close():
    stream = ledger(chunks=(), expected=None)
    assert stream.apply(Sealed.of([])) == (CloseStream("s1", with_losses=False),)


def test_what_is_gone_says_why():
    stream = ledger(chunks=(0,))
    assert stream.apply(StreamGone("silent for 2 hours")) == ()
    assert (stream.state, stream.gone_reason) == (S.GONE, "silent for 2 hours")
    stream.apply(StreamGone("another word"))
    assert stream.gone_reason == "silent for 2 hours", "the first word stands"


@pytest.mark.parametrize("epoch", [2, 4])
def test_another_epoch_is_stale(epoch):
    stream = ledger()
    stream.check_epoch(3)
    with pytest.raises(StaleEpochError, match=f"at epoch 3, this job's is {epoch}"):
        stream.check_epoch(epoch)


# -- properties --------------------------------------------------------------------------------------------------------

indices = st.integers(0, 3)
events = st.one_of(
    st.sampled_from([CreateBegun(), StreamCreated("s1"), StreamLinked(), Sealed(3), CloseBegun(), StreamClosed()]),
    st.builds(confirmed, indices, st.sampled_from(["a", "b"])),
    st.builds(ChunkLost, indices, st.just("refused")),
    st.just(StreamGone("failed")),
)
opening = [Sealed(3), CreateBegun(), StreamCreated("s1"), StreamLinked()]
histories = st.builds(lambda start, more: opening[:start] + more, st.integers(0, 4), st.lists(events, max_size=25))


def played(history):
    """Apply what is legal; return the ledger and the events that were accepted."""
    stream, accepted = StreamLedger("k"), []
    for event in history:
        try:
            stream.apply(event)
        except IllegalEventError:
            continue
        accepted.append(event)
    return stream, accepted


@given(histories)
def test_the_same_events_again_change_nothing(history):
    """Ray promises at least once: twice each, or all of it twice, gives the same ledger."""
    once, accepted = played(history)
    assert played([event for event in accepted for _ in range(2)])[0] == once
    assert played(accepted + accepted)[0] == once
    assert played(accepted)[0] == once


@given(histories)
def test_no_history_closes_a_stream_that_is_not_whole(history):
    stream = StreamLedger("k")
    for event in history:
        before = copy.deepcopy(stream)
        try:
            due = stream.apply(event)
        except IllegalEventError:
            assert stream == before
            continue
        if any(isinstance(instruction, CloseStream) for instruction in due):
            assert stream.is_whole()
            assert due == (CloseStream("s1", with_losses=bool(stream.lost)),)
        if stream.state in (S.CLOSING, S.CLOSED):
            assert stream.expected == 3
            assert set(stream.confirmed) | set(stream.lost) >= {0, 1, 2}
        assert not set(stream.confirmed) & set(stream.lost)
        assert list(S).index(stream.state) >= list(S).index(before.state), "never backwards"


@given(histories)
def test_what_a_call_returns_is_what_is_due(history):
    """But for chunks of a stream that is not whole yet, which make nothing due."""
    stream = StreamLedger("k")
    for event in history:
        try:
            returned = stream.apply(event)
        except IllegalEventError:
            continue
        chunk = isinstance(event, ChunkConfirmed | ChunkLost)
        assert returned == (() if chunk and not stream.is_whole() else stream.due())
