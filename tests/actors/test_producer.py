"""What a process knows of its own pushes; from many threads at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.producer import ProducedStream, PushWindow
from ingest.errors import SettingsError, StreamerError
from ingest.ledger import Sealed
from tests.live_support import FRAMES


def produced(window: PushWindow | None = None) -> ProducedStream:
    return ProducedStream("k" * 32, "data-1", FRAMES, window or PushWindow(4, 1000))


def pushed(stream: ProducedStream, index: int) -> int:
    return stream.begin(index, f"chunk {index}")[0]


# -- the window --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "n_bytes", "sizes", "admitted"),
    [
        (4, 100, [10, 10, 10, 10, 10], 4),
        (4, 100, [60, 40, 1], 2),
        (4, 100, [60, 41], 1),
        (1, 100, [1, 1], 1),
        (4, 100, [500], 1),
        (4, 100, [500, 1], 1),
        (4, 0, [1, 1], 1),
    ],
)
def test_admits_what_fits_and_a_large_chunk_alone(chunks, n_bytes, sizes, admitted):
    window = PushWindow(chunks, n_bytes)
    assert [window.admit(size, block=False) for size in sizes].count(True) == admitted
    assert window.held == (admitted, sum(sizes[:admitted]))


@pytest.mark.parametrize("chunks", [0, -1])
def test_a_window_of_nothing_is_refused(chunks):
    with pytest.raises(SettingsError, match="lets nothing through"):
        PushWindow(chunks, 100)


def test_a_full_window_blocks_until_something_is_given_back():
    window = PushWindow(1, 100)
    window.admit(10, block=True)
    entered = threading.Event()

    def second():
        assert window.admit(10, block=True)
        entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.05)
    window.give_back(10)
    assert entered.wait(10)
    thread.join()
    assert window.held == (1, 10)


def test_waiting_for_an_empty_one_has_an_end():
    window = PushWindow(1, 100)
    assert window.wait_empty(0)
    window.admit(10, block=True)
    assert not window.wait_empty(0.01)
    threading.Timer(0.02, window.give_back, [10]).start()
    assert window.wait_empty(10)


def test_many_threads_never_pass_the_bounds():
    window = PushWindow(3, 50)
    most = [0, 0]
    lock = threading.Lock()

    def one(size):
        window.admit(size, block=True)
        held = window.held
        with lock:
            most[0], most[1] = max(most[0], held[0]), max(most[1], held[1])
        time.sleep(0.0005)
        window.give_back(size)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, [10, 20, 30] * 60))
    assert most[0] <= 3
    assert most[1] <= 50
    assert window.held == (0, 0)


# -- a stream ----------------------------------------------------------------------------------------------------------


def test_pushes_count_in_their_order_and_points_are_their_own_index():
    stream = produced()
    assert stream.begin(7, "chunk 7") == (0, 7)
    assert stream.begin(3, "chunk 3") == (1, 3)
    assert stream.begin(None, "chunk 9 of T") == (2, 2)
    assert stream.on_their_way() == ["chunk 7", "chunk 3", "chunk 9 of T"]
    assert (stream.pushed, stream.acknowledged) == (3, 0)


def test_chunks_count_on_from_the_highest_pushed_even_if_it_is_still_on_its_way():
    stream = produced()
    assert stream.next_index() == 0
    pushed(stream, 4)
    assert stream.next_index() == 5
    stream.drop(0, 4, "full")
    pushed(stream, 2)
    assert stream.next_index() == 5


def test_channels_count_for_themselves():
    stream = produced()
    stream.note_chunk(["T", "p"], 4)
    stream.note_chunk(["T"], 1)
    assert (stream.next_chunk("T"), stream.next_chunk("p"), stream.next_chunk("x")) == (5, 5, 0)


def test_after_finalize_nothing_is_taken():
    stream = produced()
    stream.finalize()
    stream.finalize()
    with pytest.raises(StreamerError, match="stream data-1 takes no chunk 0: finalize was called") as caught:
        pushed(stream, 0)
    assert "initialize" in caught.value.hint
    assert (stream.pushed, stream.on_their_way()) == (0, [])


def test_what_was_dropped_says_why():
    stream = produced()
    for index in range(3):
        pushed(stream, index)
    stream.accept(0, 0)
    stream.drop(2, 2, "the window was full")
    stream.accept(1, 1)
    assert stream.expected() == ({0, 1, 2}, {2: "chunk 2: dropped: the window was full"})
    assert stream.acknowledged == 3


def test_a_chunk_that_was_dropped_and_pushed_again_is_no_loss():
    stream = produced()
    pushed(stream, 5)
    stream.drop(0, 5, "full")
    pushed(stream, 5)
    stream.accept(1, 5)
    assert stream.expected() == ({5}, {})


def test_another_version_that_is_dropped_leaves_the_one_that_arrived():
    stream = produced()
    pushed(stream, 5)
    stream.accept(0, 5)
    pushed(stream, 5)
    stream.drop(1, 5, "full")
    pushed(stream, 5)
    stream.accept(2, 5, refused="too grey")
    assert stream.expected() == ({5}, {})
    assert [index for index, _ in stream.versions_lost()] == [5, 5]
    assert [word in text for (_, text), word in zip(stream.versions_lost(), ("full", "grey"), strict=True)] == [
        True,
        True,
    ]


def test_what_raised_was_not_pushed():
    stream = produced()
    seq = pushed(stream, 0)
    stream.withdraw(seq)
    stream.withdraw(seq)
    assert (stream.pushed, stream.expected(), stream.on_their_way()) == (0, (set(), {}), [])
    seq = pushed(stream, 0)
    stream.accept(seq, 0)
    stream.withdraw(seq)
    assert stream.pushed == 1, "what is settled stays"


@pytest.mark.parametrize("settle", ["accept", "drop", "withdraw"])
def test_waits_for_every_push_that_has_begun(settle):
    """Also for one that is not in the window yet: else finalize could seal it out."""
    stream = produced()
    assert stream.wait_settled(0)
    seq = pushed(stream, 0)
    assert not stream.wait_settled(0.01)
    arguments = {"accept": (seq, 0), "withdraw": (seq,)}.get(settle, (seq, 0, "why"))
    threading.Timer(0.02, getattr(stream, settle), arguments).start()
    assert stream.wait_settled(10)


def test_each_warning_comes_once():
    stream = produced()
    assert [stream.first_time(what) for what in ("wraps", "full", "wraps", "full")] == [True, True, False, False]


def test_many_threads_lose_no_count():
    stream = produced()

    def one(index):
        seq, index = stream.begin(index, f"chunk {index}")
        stream.accept(seq, index) if index % 3 else stream.drop(seq, index, "full")
        return seq

    with ThreadPoolExecutor(8) as pool:
        seqs = list(pool.map(one, range(600)))
    assert sorted(seqs) == list(range(600))
    assert (stream.pushed, stream.acknowledged) == (600, 600)
    assert stream.expected()[0] == set(range(600))
    assert set(stream.expected()[1]) == set(range(0, 600, 3))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=20))
def test_whatever_becomes_of_pushes_each_is_expected_and_lost_only_if_no_version_arrived(ends):
    stream = produced()
    for index, arrives in ends:
        seq = pushed(stream, index)
        stream.accept(seq, index) if arrives else stream.drop(seq, index, "why")
    expected, lost = stream.expected()
    assert expected == {index for index, _ in ends}
    assert set(lost) == expected - {index for index, arrives in ends if arrives}
    assert stream.wait_settled(0)
    assert Sealed.of(expected).chunks == max(expected, default=-1) + 1 == stream.next_index()
