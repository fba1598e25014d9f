"""Who reads what of a movie."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ingest.lanes import lanes_of
from ingest.sources import FrameView
from tests.test_plan import plan, unstamped


def movie(chunks: int, access="lanes", cuts=(), view=None):
    made = plan(unstamped(chunks * 60), chunk_size=60)
    return replace(made, spec=replace(made.spec, access=access, cuts=cuts, view=view))


def test_sources_that_are_read_in_any_order_have_no_lanes():
    assert lanes_of(movie(9, "random"), range(9), 4) is None


def test_a_movie_that_cannot_be_cut_has_one():
    assert lanes_of(movie(9, "single"), range(9), 4) == [tuple(range(9))]


@given(
    chunks=st.integers(1, 60), packers=st.integers(1, 9), step=st.integers(1, 700), data=st.data(),
)  # fmt: skip
def test_every_chunk_once_in_order_and_lanes_alike(chunks, packers, step, data):
    indices = sorted(data.draw(st.sets(st.integers(0, chunks - 1), min_size=1)))
    lanes = lanes_of(movie(chunks, cuts=tuple(range(0, chunks * 60, step))), indices, packers)
    assert [index for lane in lanes for index in lane] == indices
    assert len(lanes) == min(packers, len(indices))
    if len(indices) >= packers:
        assert max(map(len, lanes)) <= 1.6 * len(indices) / packers + 1


def test_lanes_begin_at_keyframes_where_these_are_near():
    # Keyframes at every 250th frame: chunk 25 begins at frame 1500, which is one; the middle, chunk 24, is at 1440.
    lanes = lanes_of(movie(48, cuts=tuple(range(0, 2880, 250))), range(48), 2)
    assert lanes[1][0] == 25
    seen = lanes_of(movie(48, cuts=tuple(range(0, 9000, 250)), view=FrameView(10, 2880, 3)), range(48), 2)
    first = 10 + seen[1][0] * 60 * 3
    assert first % 250 <= 60, "frames of the file, not of the view"


def test_without_places_to_choose_from_lanes_are_halves():
    assert [len(lane) for lane in lanes_of(movie(10), range(10), 2)] == [5, 5]
