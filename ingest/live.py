"""What live streamers answer with, and how they take frames: no Ray, no network."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ingest.errors import ArgumentRangeError, ArgumentTypeError, FrameDataError, SettingsError, StreamerError

__all__ = [
    "Coerced",
    "FinalizeReport",
    "SpoolReport",
    "StreamStatus",
    "as_count",
    "as_unix_ms",
    "coerced_frames",
    "default_stream_name",
    "span_ms",
]


@dataclass(frozen=True)
class StreamStatus:
    """Where a stream's chunks are.

    Attributes
    ----------
    data_id : str
        The stream.
    pushed : int
        Chunks given to the streamer, repeated ones included.
    acknowledged : int
        Of these, how many need the caller's process no more: confirmed, in the spool, or lost for good.
    confirmed : int
        Chunks that the platform holds, by receipts in the journal; one that was pushed twice counts once.
    spooled : int
        Chunks that wait on disk, or at a failover.
    lost : mapping of int to str
        Why chunks will never arrive: refused by the platform, or dropped before they were durable.
    is_closed : bool
        Whether the stream is closed.
    stalled_by : str or None
        What keeps spooled chunks from being delivered just now.
    parked : int
        How many of `spooled` wait at the failover.
    """

    data_id: str
    pushed: int
    acknowledged: int
    confirmed: int
    spooled: int
    lost: Mapping[int, str]
    is_closed: bool
    stalled_by: str | None = None
    parked: int = 0


class FinalizeReport(TypedDict):
    """How a stream was closed; the SDK's keys, and three of ours.

    ``chunks_dropped`` were given up before they were durable, ``chunks_failed`` refused by the platform;
    ``chunks_not_uploaded`` is their sum; ``lost`` holds (index, reason) of each, and of later versions of chunks of
    which an earlier one stays. ``chunks_pending`` and ``chunks_purged`` are always 0 here: a stream with pending chunks
    is not closed, and nothing is purged.
    ``form`` is ``"close"`` or ``"close_with_losses"``.
    """

    data_id: str
    chunks_spooled: int
    chunks_uploaded: int
    chunks_dropped: int
    chunks_failed: int
    chunks_purged: int
    chunks_pending: int
    chunks_not_uploaded: int
    lost: list[tuple[int, str]]
    closed: str
    drained: bool
    form: str
    pushed: int


class SpoolReport(TypedDict):
    """The disk spool of an endpoint and key on this machine, whichever scripts fill it.

    ``minutes_left``: how long it takes what is pushed at the rate of the last minutes if nothing leaves it; None:
    nothing comes.
    """

    dir: str
    bytes: int
    max_bytes: int
    min_free_bytes: int
    free_bytes: int
    chunks_pending: int
    chunks_damaged: int
    minutes_left: float | None


@dataclass(frozen=True)
class Coerced:
    """Frames as they are sent.

    Attributes
    ----------
    frames : ndarray of uint8, (frame, y, x)
        Contiguous; the caller's own memory where that was so already.
    wraps : str or None
        What of the values does not fit 8 bit, for a warning; None: everything does.
    """

    frames: NDArray[np.uint8]
    wraps: str | None


def coerced_frames(frames: Any, *, look: bool = True) -> Coerced:
    """Bring what a user pushes to uint8 frames as the SDK does, by ``astype``: values beyond 0 to 255 wrap.

    Parameters
    ----------
    frames : array-like, (y, x) or (frame, y, x)
        Of whatever NumPy turns into uint8.
    look : bool, default True
        Whether to look for values that wrap, which takes a pass over other types than uint8.

    Raises
    ------
    TypeError, ValueError
        NumPy's own: nothing that could be grey values.
    FrameDataError
        Another number of axes; it is a ValueError.
    StreamerError
        No pixels; it is a RuntimeError.
    """
    array = np.asarray(frames)
    wraps = _what_wraps(array) if look and array.dtype != np.uint8 else None
    if array.dtype != np.uint8:
        with np.errstate(invalid="ignore", over="ignore"):
            array = array.astype(np.uint8)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3:
        raise FrameDataError(
            f"frames of shape {np.shape(array)} are neither (y, x) nor (frame, y, x)",
            hint="push grey frames; take one channel, or the mean, of colour ones",
        )
    if 0 in array.shape:
        raise StreamerError(f"frames of shape {array.shape} hold no pixels")
    return Coerced(np.ascontiguousarray(array), wraps)


def _what_wraps(array: NDArray[Any]) -> str | None:
    if array.dtype.kind not in "iuf" or array.size == 0:
        return None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "NaN or infinite values, which have no grey value"
    low, high = array.min(), array.max()
    if low >= 0 and high < 256:
        return None
    return f"values from {low:g} to {high:g}, and 8 bit keep only their last 8 bits"


def as_count(value: Any, name: str) -> int:
    """Return a number that counts from 0.

    Raises
    ------
    ArgumentTypeError
        Not a whole number; it is a TypeError.
    ArgumentRangeError
        Negative, or beyond what the journal can hold; it is an OverflowError.
    """
    count = _whole(value, name)
    if count < 0:
        raise ArgumentRangeError(f"{name} is {count}: it counts from 0")
    if count >= 2**63 - 1:
        raise ArgumentRangeError(f"{name} is {count}: nothing counts so far")
    return count


def as_unix_ms(value: Any, name: str) -> int:
    """Return an explicit capture time in whole ms.

    Raises
    ------
    ArgumentTypeError
        Not an int; a bool is none here. It is a TypeError and a ValueError.
    """
    if isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"{name} is {value!r}, a bool, not an int")
    unix_ms = _whole(value, name)
    if not -(2**63) <= unix_ms < 2**63:
        raise ArgumentRangeError(f"{name} is {unix_ms}: no time in milliseconds")
    return unix_ms


def _whole(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError as exc:
        raise ArgumentTypeError(f"{name} is {value!r}, a {type(value).__name__}, not an int") from exc


def default_stream_name(now: datetime) -> str:
    """Return ``RHEED Stream @ 1:23PM`` for a local time."""
    return f"RHEED Stream @ {now.hour % 12 or 12}:{now.minute:02d}{'AM' if now.hour < 12 else 'PM'}"


def span_ms(frames: int, fps: float) -> int:
    """Return how long so many frames take: ``trunc(frames / fps * 1000)`` (PROTOCOL.md)."""
    if not fps > 0:
        raise SettingsError(f"{fps!r} frames per second")
    return math.trunc(frames / fps * 1000)
