"""The header that names lost frames: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import FrameDataError, SettingsError
from ingest.wire.lost_frames import MAX_CHARS, lost_frames_text, read_lost_frames

TEXTS = [
    ((0,), "0"),
    ((7, 9), "7,9"),
    ((3, 17, 18), "3,17-18"),
    (tuple(range(240)), "0-239"),
    ((0, 1, 2, 5, 100, 101, 239), "0-2,5,100-101,239"),
]


@pytest.mark.parametrize(("frames", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_ranges_keep_it_short(frames: tuple[int, ...], text: str) -> None:
    assert lost_frames_text(frames) == text
    assert read_lost_frames(text, 240) == frames


@given(st.sets(st.integers(0, 700), min_size=1).map(lambda frames: tuple(sorted(frames))))
def test_what_is_written_is_read(frames: tuple[int, ...]) -> None:
    assert read_lost_frames(lost_frames_text(frames), frames[-1] + 1) == frames


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "such as 3,17-18; got ''"),
        ("3,", "got ''"),
        (",3", "got ''"),
        ("x", "got 'x'"),
        ("-1", "got '-1'"),
        ("+1", r"got '\+1'"),
        ("1.5", "got '1.5'"),
        ("03", "got '03'"),
        ("1_0", "got '1_0'"),
        ("\u0663", "such as"),
        ("3-", "got '3-'"),
        ("3--5", "got '3--5'"),
        ("3-5-7", "got '3-5-7'"),
        ("3 4", "got '3 4'"),
        ("18-17", "got '18-17'"),
        ("5,5", "got '5'"),
        ("5,3", "got '3'"),
        ("3-5,5-7", "got '5-7'"),
        ("[3]", r"got '\[3\]'"),
        ("9" * 400, "got '9"),
        ("240", "frame 240 of a chunk that has 0 to 239"),
        ("3,200-240", "frame 240 of a chunk that has 0 to 239"),
        ("0-999999999", "frame 999999999 of a chunk that has 0 to 239"),
        ("1" + ",1" * (MAX_CHARS // 2), f"at most; got {MAX_CHARS + 1}"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_anything_else_is_refused_with_a_word(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read_lost_frames(text, 240)
    assert str(caught.value).startswith("X-Rheed-Lost-Frames ")
    assert len(str(caught.value)) < 200


def test_white_space_around_commas_does_not_count() -> None:
    assert read_lost_frames("3 ,\t17-18", 19) == (3, 17, 18)


def test_the_longest_that_is_written_is_read() -> None:
    frames = tuple(range(100, 2000, 2))
    most = next(n for n in range(len(frames), 0, -1) if len(",".join(map(str, frames[:n]))) <= MAX_CHARS)
    assert most < len(frames)
    assert read_lost_frames(lost_frames_text(frames[:most]), 2000) == frames[:most]
    with pytest.raises(FrameDataError, match=f"{most + 1} places"):
        lost_frames_text(frames[: most + 1])
