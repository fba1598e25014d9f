"""The one scale of a run: what user and file say of it, else what a sample of frames shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.frames import FrameScale, full_scale_of
from ingest.sources.facts import Fact
from ingest.timing import Finding

__all__ = [
    "SAMPLED_FRAMES",
    "as_stored",
    "decide_scale",
    "full_scale_in",
    "is_wide",
    "largest_pixel",
    "sample_frames",
    "sampled",
]

SAMPLED_FRAMES = 16
MAX_SAMPLED_BYTES = 256 * 2**20
# NeXus NXdetector names first; the others are what lab scripts write.
SATURATION_FACTS = ("saturation_value", "full_scale")
BITS_FACTS = ("bit_depth_readout", "bit_depth", "bits")

ReadFrame = Callable[[int], NDArray[Any]]


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether pixels have to be looked at to know their scale: 8-bit ones stay as they are, and true is white."""
    return dtype.kind != "b" and dtype != np.uint8


def as_stored(dtype: np.dtype[Any]) -> FrameScale:
    """Return the scale of a run whose frames are read as they are stored, to find out what their scale is."""
    return FrameScale(dtype.newbyteorder("=").name, None, "")


def sampled(frames: Sequence[int], frame_cost_bytes: int, most: int = SAMPLED_FRAMES) -> list[int]:
    """Return the frames to look at, spread over those there are.

    Parameters
    ----------
    frames : sequence of int
        Numbers of frames.
    frame_cost_bytes : int
        What has to be read and decompressed for one frame.
    most : int
        How many to look at; fewer, but at least one, if that meant reading more than 256 MiB.
    """
    count = min(most, len(frames), max(1, MAX_SAMPLED_BYTES // max(1, frame_cost_bytes)))
    return [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]


def sample_frames(numbers: Sequence[int], read: ReadFrame, enough: int = SAMPLED_FRAMES) -> list[NDArray[Any]]:
    """Read some frames, passing over damaged ones, which are named when they are read for good.

    Parameters
    ----------
    numbers : sequence of int
        Which.
    read : callable
        Returns one frame by its number; what it raises but `FrameDataError` ends the search.
    enough : int
        Stop after so many that could be read.

    Raises
    ------
    FrameDataError
        Not one of them can be read: the first one's reason.
    """
    return list(islice(_readable(numbers, read), enough))


def largest_pixel(numbers: Sequence[int], read: ReadFrame) -> float | None:
    """Return the largest finite pixel value of some frames; None: there is none. Holds one frame.

    Raises
    ------
    FrameDataError
        As `sample_frames`.
    """
    largest: float | None = None
    for frame in _readable(numbers, read):
        values = frame[np.isfinite(frame)] if frame.dtype.kind == "f" else frame
        if values.size:
            top = float(values.max())
            largest = top if largest is None else max(largest, top)
    return largest


def _readable(numbers: Sequence[int], read: ReadFrame) -> Iterator[NDArray[Any]]:
    damage: FrameDataError | None = None
    are_all_damaged = True
    for number in numbers:
        try:
            frame = read(number)
        except FrameDataError as error:
            damage = damage or error
        else:
            are_all_damaged = False
            yield frame
    if damage is not None and are_all_damaged:
        raise damage


def decide_scale(
    dtype: np.dtype[Any], asked: float | None, said: float | None, maximum: float | None
) -> tuple[FrameScale, tuple[Finding, ...]]:
    """Choose a run's scale: user, then file, then sampled maximum. 8-bit frames stay as they are unless one says so.

    Parameters
    ----------
    dtype : numpy.dtype
        The stored pixel type.
    asked, said : float or None
        What becomes 255 by the user, and by the file.
    maximum : float or None
        Of a sample of frames.

    Returns
    -------
    scale : FrameScale
        The one scale of the run.
    findings : tuple of Finding
        ``"scale"``: sampled pixels are brighter than the full scale, so that they are clipped.

    Raises
    ------
    SettingsError
        A full scale that is not a positive number.
    """
    name = dtype.newbyteorder("=").name
    if asked is not None:
        scale = FrameScale(name, float(asked), "user")
    elif dtype == np.uint8 and said is None:
        return FrameScale(name, None, "8 bit"), ()
    elif dtype.kind == "b":
        return FrameScale(name, 1.0, "file"), ()
    elif said is not None:
        scale = FrameScale(name, float(said), "file")
    else:
        return FrameScale(name, full_scale_of(max(maximum or 0.0, 0.0), dtype), "sampled maximum"), ()
    # One above it is how kSA writes saturated pixels (FORMATS.md 1.1).
    if maximum is not None and scale.full_scale is not None and maximum > scale.full_scale + 1:
        message = f"pixels up to {maximum:g} were seen, above the full scale {scale.full_scale:g}: they become white"
        return scale, (Finding("scale", message),)
    return scale, ()


def full_scale_in(facts: Mapping[str, Fact], dtype: np.dtype[Any]) -> float | None:
    """Return the full scale that attributes (lower-case names) give; None: they do not, or pixels are 8 bit."""
    if not is_wide(dtype):
        return None
    for name in (*SATURATION_FACTS, *BITS_FACTS):
        try:
            value = float(facts[name])
        except (KeyError, ValueError):
            continue
        if not 0 < value < math.inf:
            continue
        if name in SATURATION_FACTS:
            return value
        if value <= 64:
            return float(2.0**value) - 1
    return None
