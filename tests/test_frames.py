"""Frames to 8 bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ingest.errors import FrameDataError, SettingsError
from ingest.frames import FrameScale, as_frames, full_scale_of, to_uint8

NARROW = ["u1", "i1", "<u2", ">u2", "<i2", ">i2"]


def scaled(value: int, full_scale: float) -> int:
    return min(255, max(0, int(value * 255 // full_scale)))


@given(st.data())
def test_every_type_follows_the_one_formula(data):
    dtype = np.dtype(data.draw(st.sampled_from([*NARROW, "<u4", "<i4", "<i8"])))
    limits = np.iinfo(dtype)
    values = st.integers(max(limits.min, -(2**40)), min(limits.max, 2**40))
    frames = data.draw(hnp.arrays(dtype, (2, 3, 2), elements=values))
    full_scale = data.draw(st.integers(1, 2**20))
    expected = [scaled(int(value), full_scale) for value in frames.ravel()]
    result = to_uint8(frames, FrameScale(dtype.name, float(full_scale), "user"))
    assert result.dtype == np.uint8
    assert result.ravel().tolist() == expected


def test_eight_bit_frames_are_not_copied():
    frames = np.zeros((2, 3, 3), np.uint8)
    assert np.shares_memory(to_uint8(frames, FrameScale("uint8", None, "8 bit")), frames)


@pytest.mark.parametrize("scale", [FrameScale("uint8", None, "8 bit"), FrameScale("uint8", 100.0, "user")])
def test_out_is_filled(scale):
    frames = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    out = np.zeros((2, 2, 3), np.uint8)
    assert to_uint8(frames, scale, out=out) is out
    np.testing.assert_array_equal(out, to_uint8(frames, scale))


def test_frames_of_views_are_scaled_too():
    frames = np.arange(200, dtype=">u2").reshape(2, 10, 10)[:, ::2, ::-1]
    scale = FrameScale("uint16", 255.0, "user")
    np.testing.assert_array_equal(to_uint8(frames, scale), frames.astype(np.uint8))


@pytest.mark.parametrize("dtype", ["i1", "u2", "f4", "?"])
def test_what_would_wrap_is_refused(dtype):
    with pytest.raises(FrameDataError, match="wrap") as caught:
        to_uint8(np.zeros((1, 2, 2), dtype), FrameScale(np.dtype(dtype).name, None, "8 bit"))
    assert caught.value.hint


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_names_the_frame_of_the_run(bad):
    frames = np.zeros((3, 2, 2), np.float32)
    frames[1, 0, 0] = bad
    with pytest.raises(FrameDataError, match="frame 41 "):
        to_uint8(frames, FrameScale("float32", 1.0, "user"), first_frame=40)


@pytest.mark.parametrize(
    ("maximum", "dtype", "expected"),
    [
        (0, "u2", 255), (255, "u2", 255), (1000, "u2", 1023), (4095, "u2", 4095),
        (4096, "u2", 4096), (4097, "u2", 8191), (65535, "u2", 65535), (0.7, "f4", 1), (1, "f4", 1), (2, "f4", 255),
        (1e300, "f8", 1e300),
    ],
)  # fmt: skip
def test_full_scale_of_a_maximum(maximum, dtype, expected):
    assert full_scale_of(maximum, np.dtype(dtype)) == expected


@pytest.mark.parametrize("full_scale", [0, -1.0, np.nan, np.inf])
def test_scales_that_are_none(full_scale):
    with pytest.raises(SettingsError):
        FrameScale("uint16", full_scale, "user")


def test_as_frames():
    assert as_frames(np.zeros((3, 4))).shape == (1, 3, 4)
    assert as_frames(np.zeros((2, 3, 4))).shape == (2, 3, 4)
    for shape in ((3,), (1, 2, 3, 3), (0, 3, 3), (2, 0, 3)):
        with pytest.raises(FrameDataError):
            as_frames(np.zeros(shape))
