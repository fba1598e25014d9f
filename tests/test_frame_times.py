"""Times and numbers come back bit for bit, and small."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.frame_times import FrameTimes

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(INT64, INT64), max_size=50))
def test_whatever_they_are_they_come_back(pairs):
    rows = np.array(pairs, np.int64).reshape(-1, 2).T
    times = pickle.loads(pickle.dumps(FrameTimes.of(rows[0], rows[1])))
    np.testing.assert_array_equal(times.rows(), rows)
    assert times.frames == len(pairs)


def test_without_numbers_frames_are_counted():
    np.testing.assert_array_equal(FrameTimes.of(np.array([5, 7, 9])).rows()[1], [0, 1, 2])


@pytest.mark.parametrize(("jitter_ns", "most_bytes"), [(0, 0.1), (50_000, 4.5)])
def test_they_are_small(jitter_ns, most_bytes):
    rng = np.random.default_rng(0)
    stamps = 1_700_000_000 * 10**9 + np.arange(100_000) * 16_666_667 + rng.integers(-jitter_ns, jitter_ns + 1, 100_000)
    assert len(FrameTimes.of(stamps).packed) < most_bytes * 100_000
