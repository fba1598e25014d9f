"""What decides a run's one scale, whatever its format."""

import numpy as np
import pytest

from ingest.errors import FrameDataError, SourceReadError
from ingest.sources.scale import decide_scale, full_scale_in, largest_pixel, sample_frames, sampled


def frames_of(*values):
    """Return a reader of one-pixel frames; a text is the reason why one is damaged."""

    def read(number):
        if isinstance(values[number], str):
            raise FrameDataError(values[number])
        return np.array([[values[number]]])

    return read


@pytest.mark.parametrize(
    ("frames", "cost_bytes", "most", "numbers"),
    [
        (range(3), 1, 16, [0, 1, 2]),
        (range(100), 1, 4, [12, 37, 62, 87]),
        ([5, 7, 9, 11], 1, 2, [7, 11]),
        (range(100), 100 * 2**20, 16, [25, 75]),  # 256 MiB in all
        (range(100), 2**30, 16, [50]),
        ([], 1, 16, []),
    ],
)
def test_frames_to_look_at_are_spread_over_the_run(frames, cost_bytes, most, numbers):
    assert sampled(frames, cost_bytes, most) == numbers


def test_damaged_frames_are_passed_over():
    read = frames_of("cut", 3.0, "torn", 9.0, np.nan)
    assert [float(frame[0, 0]) for frame in sample_frames(range(4), read)] == [3.0, 9.0]
    assert len(sample_frames(range(4), read, enough=1)) == 1
    assert largest_pixel(range(5), read) == 9.0
    assert largest_pixel([4], read) is None


def test_the_first_reason_is_given_where_all_are_damaged():
    for look in (sample_frames, largest_pixel):
        with pytest.raises(FrameDataError, match="cut"):
            look([0, 1], frames_of("cut", "torn"))


def test_what_may_pass_ends_the_search():
    def fails(number):
        raise SourceReadError("disk")

    with pytest.raises(SourceReadError):
        largest_pixel(range(3), fails)


@pytest.mark.parametrize(
    ("dtype", "asked", "said", "maximum", "full_scale", "origin"),
    [
        ("u1", None, None, None, None, "8 bit"),
        ("u1", None, 99.0, 90.0, 99.0, "file"),  # a PGM of 99 grey levels
        ("u1", 50.0, None, None, 50.0, "user"),
        ("?", None, 7.0, None, 1.0, "file"),
        (">u2", None, 4095.0, 4096.0, 4095.0, "file"),
        ("u2", None, None, 4096.0, 4096.0, "sampled maximum"),
        ("i2", None, None, -3.0, 255.0, "sampled maximum"),
    ],
)
def test_user_then_file_then_sampled_maximum(dtype, asked, said, maximum, full_scale, origin):
    scale, findings = decide_scale(np.dtype(dtype), asked, said, maximum)
    assert (scale.full_scale, scale.full_scale_from, findings) == (full_scale, origin, ())


def test_clipping_is_said():
    _, (finding,) = decide_scale(np.dtype("u2"), None, 4095.0, 4097.0)
    assert finding.kind == "scale"


@pytest.mark.parametrize(
    ("facts", "full_scale"),
    [
        ({"bits": 12, "full_scale": "5000"}, 5000.0),
        ({"bits": 12, "bit_depth_readout": 14}, 16383.0),
        ({"full_scale": float("nan"), "bits": "ten"}, None),
        ({"bits": 900}, None),
    ],
)
def test_what_attributes_say(facts, full_scale):
    assert full_scale_in(facts, np.dtype("u2")) == full_scale
    assert full_scale_in(facts, np.dtype("u1")) is None
