"""What users push, brought to what is sent: as the SDK does it, but no value wraps unnoticed."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ingest.errors import ArgumentRangeError, ArgumentTypeError, FrameDataError, SettingsError, StreamerError
from ingest.live import as_count, as_unix_ms, coerced_frames, default_stream_name, span_ms

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))


@given(arrays(np.uint8, shapes))
def test_bytes_are_taken_as_they_are(frames):
    coerced = coerced_frames(frames)
    assert coerced.wraps is None
    assert np.array_equal(coerced.frames, frames)
    assert np.shares_memory(coerced.frames, frames), "not copied here: the object store does that"


@given(st.sampled_from(["i2", "u2", "i4", "f4", "f8", "?", ">u2"]).flatmap(lambda kind: arrays(kind, shapes)))
def test_other_types_are_coerced_by_astype(frames):
    with np.errstate(all="ignore"):
        wanted = frames.astype(np.uint8)
    coerced = coerced_frames(frames)
    assert np.array_equal(coerced.frames, wanted)
    assert coerced.frames.flags.c_contiguous
    fits = frames.dtype.kind == "b" or (np.isfinite(frames).all() and frames.min() >= 0 and frames.max() < 256)
    assert (coerced.wraps is None) == bool(fits)
    assert coerced_frames(frames, look=False).wraps is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, 255]], None),
        ([[0.0, 255.9]], None),
        ([[0, 256]], "values from 0 to 256"),
        ([[-1, 5]], "values from -1 to 5"),
        ([[0.0, 4095.0]], "values from 0 to 4095"),
        ([[0.0, float("nan")]], "NaN"),
        ([[0.0, float("inf")]], "infinite"),
        ([[True, False]], None),
    ],
)
def test_what_wraps_is_said_with_its_range(values, said):
    wraps = coerced_frames(values).wraps
    assert wraps is None if said is None else said in wraps


@pytest.mark.parametrize(
    ("frames", "shape"),
    [
        (np.zeros((3, 4), np.uint8), (1, 3, 4)),
        (np.zeros((2, 3, 4), np.uint8), (2, 3, 4)),
        ([[1, 2], [3, 4]], (1, 2, 2)),
        (np.zeros((4, 6, 8), np.uint8)[::2, ::3, ::2], (2, 2, 4)),
        (np.asfortranarray(np.zeros((2, 3, 4), np.uint8)), (2, 3, 4)),
    ],
)
def test_a_frame_is_a_chunk_of_one_and_every_layout_is_taken(frames, shape):
    coerced = coerced_frames(frames).frames
    assert (coerced.shape, coerced.dtype, coerced.flags.c_contiguous) == (shape, np.uint8, True)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (np.zeros((2, 3, 4, 3), np.uint8), FrameDataError),
        (np.zeros(5, np.uint8), FrameDataError),
        (7, FrameDataError),
        (np.zeros((0, 3, 4), np.uint8), StreamerError),
        (np.zeros((2, 0, 4), np.uint8), StreamerError),
        ("frames", ValueError),
        (None, TypeError),
        ([[1, 2], [3]], ValueError),
        ([[object()]], TypeError),
    ],
)
def test_what_is_no_frames_raises(frames, error):
    with pytest.raises(error):
        coerced_frames(frames)


@pytest.mark.parametrize(("value", "count"), [(0, 0), (7, 7), (np.int64(3), 3), (np.uint8(200), 200)])
def test_counts(value, count):
    result = as_count(value, "chunk_idx")
    assert (result, type(result)) == (count, int)


@pytest.mark.parametrize("value", [1.0, "1", None, np.float64(2), [1], 1j])
def test_no_counts(value):
    with pytest.raises(ArgumentTypeError, match=r"chunk_idx is .*not an int") as caught:
        as_count(value, "chunk_idx")
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [-1, 2**63, 10**30])
def test_counts_have_ends(value):
    """The journal's integers have 64 bits, and a refusal at once is better than a stream that cannot be closed."""
    with pytest.raises(ArgumentRangeError, match="chunk_idx") as caught:
        as_count(value, "chunk_idx")
    assert isinstance(caught.value, OverflowError)


@given(st.integers(-(2**63), 2**63 - 1))
def test_times_are_taken_as_they_are(value):
    assert as_unix_ms(value, "start") == value


@pytest.mark.parametrize("value", [True, False, np.True_, 1.5, "1700000000000", None])
def test_no_times(value):
    with pytest.raises(ArgumentTypeError, match="start is") as caught:
        as_unix_ms(value, "start")
    assert isinstance(caught.value, ValueError | TypeError)


def test_a_time_beyond_64_bits_is_none():
    with pytest.raises(OverflowError):
        as_unix_ms(2**63, "start")


@pytest.mark.parametrize(
    ("hour", "minute", "name"),
    [(13, 23, "1:23PM"), (0, 5, "12:05AM"), (12, 0, "12:00PM"), (11, 59, "11:59AM"), (23, 1, "11:01PM")],
)
def test_default_names(hour, minute, name):
    assert default_stream_name(datetime(2026, 3, 1, hour, minute)) == f"RHEED Stream @ {name}"  # noqa: DTZ001 - local


@pytest.mark.parametrize(("frames", "fps", "ms"), [(240, 120.0, 2000), (1, 3.0, 333), (2, 3.0, 666), (7, 1000.0, 7)])
def test_spans_are_truncated(frames, fps, ms):
    assert span_ms(frames, fps) == ms


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_no_rate_no_span(fps):
    with pytest.raises(SettingsError):
        span_ms(10, fps)
