"""What all runs of pictures decide alike: what is taken of colour, which start is of use, which frames are lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceError, SourceFormatError, SourceReadError, SourceTimeError
from ingest.frames import FrameScale
from ingest.sources.base import SourceOptions, SourceSpec
from ingest.sources.colours import COLOUR_HINT
from ingest.sources.facts import Fact
from ingest.sources.hdf5_times import Stamps
from ingest.sources.image_read import ImageSource
from ingest.sources.pixel_scale import sample_frames, sampled_numbers
from ingest.sources.start import parse_time
from ingest.timing import Finding

__all__ = ["as_format_error", "decide_colour", "lost_frames", "sampled_maximum", "steps_of", "usable_start"]

MAX_NAMED = 8
COLOUR_SAMPLES = 4


def as_format_error(error: SourceError) -> SourceError:
    """Return what is wrong with a picture that is a run by itself; what may pass is left as it is."""
    if isinstance(error, SourceReadError | SourceFormatError):
        return error
    return SourceFormatError(str(error), hint=error.hint or "leave it out, or copy it again from where it was recorded")


def lost_frames(reasons: Mapping[int, str]) -> list[Finding]:
    """Return a finding for each frame that cannot be read; past the first 8, one for all."""
    numbers = sorted(reasons)
    found = [Finding("lost frames", f"frame {i} cannot be read: {reasons[i]}", i) for i in numbers[:MAX_NAMED]]
    if len(numbers) > MAX_NAMED:
        found.append(Finding("lost frames", f"and {len(numbers) - MAX_NAMED} more", numbers[MAX_NAMED]))
    return found


def decide_colour(
    path: str, options: SourceOptions, numbers: Sequence[int], read: Callable[[int], NDArray[Any]]
) -> tuple[str, Finding]:
    """Decide what is taken of colour pictures.

    Parameters
    ----------
    path : str
        For messages.
    options : SourceOptions
        Its `colour` goes before all else.
    numbers : sequence of int
        Frames to look at.
    read : callable
        Gives one, (y, x, 3).

    Returns
    -------
    colour : str
        As `colours.grey` knows it.
    finding : Finding
        Says so.

    Raises
    ------
    SourceFormatError
        Nobody says, and the pictures are not grey ones that are merely stored as colour.
    SourceError
        None of these frames can be read.
    """
    if options.colour is not None:
        return options.colour, Finding("colour", f"of each colour pixel the {options.colour} is taken, as asked")
    frames = sample_frames(list(numbers), read, COLOUR_SAMPLES)
    if all(frame.ndim == 2 or bool((frame == frame[..., :1]).all()) for _, frame in frames):
        return "luma", Finding("colour", "grey pictures stored as colour (red, green and blue are equal)")
    raise SourceFormatError(f"{path}: colour pictures, and it is not said what to take of them", hint=COLOUR_HINT)


def sampled_maximum(spec: SourceSpec, dtype: np.dtype[Any], frames: Sequence[int]) -> float | None:
    """Return the largest finite pixel value of up to 16 of a run's frames; damaged ones are passed over.

    Parameters
    ----------
    spec : SourceSpec
        Complete but for the scale.
    dtype : numpy.dtype
        Of stored pixels.
    frames : sequence of int
        Frames to choose from.

    Returns
    -------
    float or None
        None: no finite pixel. Reads up to 256 MiB, holds one frame.

    Raises
    ------
    SourceError
        Not one of them can be read.
    """
    height_px, width_px = (int(spec.option(name) or 0) for name in ("height_px", "width_px"))
    numbers = [frames[i] for i in sampled_numbers(len(frames), height_px * width_px * dtype.itemsize)]
    largest: float | None = None

    def maximum(number: int) -> NDArray[Any]:
        frame = source.stored(number)
        finite = frame[np.isfinite(frame)] if frame.dtype.kind == "f" else frame
        return finite.max(initial=0, keepdims=True) if finite.size else finite

    with ImageSource(replace(spec, scale=FrameScale(dtype.newbyteorder("=").name, None, ""))) as source:
        for _, top in sample_frames(numbers, maximum):
            if top.size:
                largest = max(largest if largest is not None else 0.0, float(top.max()))
    return largest


def steps_of(stamps: Stamps | None) -> NDArray[np.int64] | None:
    """Return stamps from the first one on: what of them does not depend on a time zone that the user may say."""
    return None if stamps is None else stamps.ns - stamps.ns[0]


def usable_start(
    said: tuple[str, Fact] | None, timezone: str | None, findings: list[Finding]
) -> tuple[str, Fact] | None:
    """Return what says when the run began, unless it is a local time of an unknown zone: then there is a finding."""
    if said is None or not isinstance(said[1], str) or timezone is not None:
        return said
    try:
        parse_time(said[1], said[0], None)
    except SourceTimeError:
        message = f"{said[0]} says {said[1]}, but not in which time zone: pass --timezone to use it"
        findings.append(Finding("start time", message))
        return None
    return said
