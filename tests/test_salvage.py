"""What can be read of a damaged chunk is read, and what cannot is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import FrameDataError, SourceReadError
from ingest.salvage import read_what_is_there
from ingest.shard import pack, read_index, unpack

FRAMES = np.random.default_rng(0).integers(1, 256, (70, 3, 4)).astype(np.uint8)


class Damaged:
    """A source some of whose frames never read."""

    def __init__(self, bad, error=FrameDataError) -> None:
        self.bad, self.error, self.reads = frozenset(bad), error, 0

    def read(self, start, stop, memory=None):
        self.reads += 1
        hit = self.bad.intersection(range(start, stop))
        if hit:
            raise self.error(f"frame {min(hit)} is damaged")
        return FRAMES[start:stop].copy()


@given(
    bad=st.sets(st.integers(0, 69)),
    bounds=st.tuples(st.integers(0, 69), st.integers(1, 70)).filter(lambda b: b[0] < b[1]),
)
def test_good_frames_are_in_their_places_and_bad_ones_named(bad, bounds):
    start, stop = bounds
    memory = np.full(70 * 12, 77, np.uint8)
    here = sorted(bad.intersection(range(start, stop)))
    if len(here) == stop - start:
        with pytest.raises(FrameDataError):
            read_what_is_there(Damaged(bad), start, stop, memory)
        return
    frames, lost = read_what_is_there(Damaged(bad), start, stop, memory)
    expected = FRAMES[start:stop].copy()
    expected[[i - start for i in here]] = 0
    np.testing.assert_array_equal(frames, expected)
    assert lost == tuple(i - start for i in here)


def test_one_bad_frame_costs_few_reads():
    source = Damaged({40})
    read_what_is_there(source, 0, 64, np.empty(0, np.uint8))
    assert source.reads <= 2 * 6 + 1


def test_other_failures_are_not_taken_for_damage():
    with pytest.raises(SourceReadError):
        read_what_is_there(Damaged({3}, SourceReadError), 0, 10, np.empty(0, np.uint8))


def test_lost_frames_are_left_out_of_the_shard_and_black_ones_are_not():
    frames = FRAMES[:5].copy()
    frames[1] = 0
    shard = pack(frames, lost=(3,)).tobytes()
    stored = [entry is not None for entry in read_index(shard, 5)]
    assert stored == [True, True, True, False, True]
    frames[3] = 0
    np.testing.assert_array_equal(unpack(shard, frames.shape), frames)
