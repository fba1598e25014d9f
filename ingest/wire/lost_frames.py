"""Which frames of a chunk are lost, as the header that says so: ours alone, others do not look at it.

A frame that the source could not give is left out of the shard, where it reads as the fill value 0: black. The header
tells it from a black frame. It goes with the request for an upload URL, and only where frames are lost::

    X-Rheed-Lost-Frames: 3,17-18

Numbers count from the chunk's first frame and rise; ``17-18`` are both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ingest.errors import FrameDataError, SettingsError

__all__ = ["LOST_FRAMES_HEADER", "MAX_CHARS", "lost_frames_text", "read_lost_frames"]

LOST_FRAMES_HEADER = "X-Rheed-Lost-Frames"
MAX_CHARS = 4096
"""Of the value: it travels on in the upload URL, a third longer, and many proxies take lines of 8 kB at most."""

_RANGE = re.compile(r"(0|[1-9][0-9]{0,8})(?:-([1-9][0-9]{0,8}))?", re.ASCII)


def lost_frames_text(frames: Iterable[int]) -> str:
    """Return the header's value.

    Parameters
    ----------
    frames : iterable of int
        At least one; rising.

    Raises
    ------
    FrameDataError
        Some thousand frames with as many gaps between them, which no header carries: the chunk cannot be delivered
        without taking some of its frames for what they are not.
    """
    ranges: list[list[int]] = []
    for frame in frames:
        if ranges and frame == ranges[-1][1] + 1:
            ranges[-1][1] = frame
        else:
            ranges.append([frame, frame])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    if len(text) > MAX_CHARS:
        raise FrameDataError(
            f"frames are lost in {len(ranges)} places of one chunk, too many to name them to the platform in a header "
            f"of {MAX_CHARS} characters; a smaller chunk_size has fewer"
        )
    return text


def read_lost_frames(text: str, n_frames: int) -> tuple[int, ...]:
    """Return the frames that a header names; at most `n_frames`.

    Parameters
    ----------
    text : str
        Its value; white space around commas does not count.
    n_frames : int
        Frames of the chunk.

    Raises
    ------
    SettingsError
        Not what `lost_frames_text` writes, or a frame that the chunk does not have.
    """
    if len(text) > MAX_CHARS:
        raise SettingsError(f"{LOST_FRAMES_HEADER} must have {MAX_CHARS} characters at most; got {len(text)}")
    frames: list[int] = []
    for item in text.split(","):
        match = _RANGE.fullmatch(item.strip(" \t"))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first or (frames and first <= frames[-1]):
            raise SettingsError(
                f"{LOST_FRAMES_HEADER} must be frame numbers and ranges that rise, such as 3,17-18; got {item[:40]!r}"
            )
        if last >= n_frames:
            raise SettingsError(f"{LOST_FRAMES_HEADER} names frame {last} of a chunk that has 0 to {n_frames - 1}")
        frames += range(first, last + 1)
    return tuple(frames)
