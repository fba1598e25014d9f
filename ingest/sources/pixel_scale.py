"""The one scale of a run that is no HDF5 file: what user and file say of it, else what a sample of frames shows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceError
from ingest.frames import FrameScale, full_scale_of
from ingest.timing import Finding

__all__ = ["SAMPLED_FRAMES", "choose_scale", "is_plain_8_bit", "sample_frames", "sampled_numbers"]

SAMPLED_FRAMES = 16
MAX_SAMPLED_BYTES = 256 * 2**20


def is_plain_8_bit(dtype: np.dtype[Any]) -> bool:
    """Whether pixels are taken as they are unless somebody asks otherwise."""
    return dtype == np.uint8


def sampled_numbers(frames: int, frame_bytes: int) -> list[int]:
    """Return the frames to look at: up to 16, spread over the run, 256 MiB in all but at least one."""
    samples = max(1, min(SAMPLED_FRAMES, frames, MAX_SAMPLED_BYTES // max(1, frame_bytes)))
    return [(2 * i + 1) * frames // (2 * samples) for i in range(samples)]


def sample_frames(
    numbers: list[int], read: Callable[[int], NDArray[Any]], enough: int = SAMPLED_FRAMES
) -> list[tuple[int, NDArray[Any]]]:
    """Read some frames, passing over damaged ones.

    Parameters
    ----------
    numbers : list of int
        Which.
    read : callable
        Gives one by its number.
    enough : int
        Stop after so many that could be read.

    Returns
    -------
    list of (int, ndarray)
        Number and pixels.

    Raises
    ------
    SourceError
        Not one of them can be read: the first one's reason.
    """
    damage: list[SourceError] = []

    def readable() -> Any:
        for number in numbers:
            try:
                yield number, read(number)
            except FrameDataError as error:
                damage.append(error)

    found = list(islice(readable(), enough))
    if not found and damage:
        raise damage[0]
    return found


def choose_scale(
    dtype: np.dtype[Any], asked: float | None, said: float | None, maximum: float | None
) -> tuple[FrameScale, tuple[Finding, ...]]:
    """Choose a run's scale: user, then file, then sampled maximum. 8-bit frames stay as they are unless asked.

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
    elif is_plain_8_bit(dtype) and said is None:
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
