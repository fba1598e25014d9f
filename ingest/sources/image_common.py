"""What all runs of pictures decide alike: what is taken of colour, and which start is of use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceError, SourceFormatError, SourceReadError, SourceTimeError
from ingest.sources.base import SourceOptions, SourceSpec
from ingest.sources.colours import COLOUR_HINT
from ingest.sources.facts import Fact
from ingest.sources.hdf5_times import Stamps
from ingest.sources.image_read import ImageSource
from ingest.sources.scale import as_stored, largest_pixel, sample_frames, sampled
from ingest.sources.start import parse_time
from ingest.timing import Finding

__all__ = ["as_format_error", "decide_colour", "sampled_maximum", "steps_of", "usable_start"]

COLOUR_SAMPLES = 4


def as_format_error(error: SourceError) -> SourceError:
    """Return what is wrong with a picture that is a run by itself; what may pass is left as it is."""
    if isinstance(error, SourceReadError | SourceFormatError):
        return error
    return SourceFormatError(str(error), hint=error.hint or "leave it out, or copy it again from where it was recorded")


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
    frames = sample_frames(numbers, read, COLOUR_SAMPLES)
    if all(frame.ndim == 2 or bool((frame == frame[..., :1]).all()) for frame in frames):
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
    numbers = sampled(frames, height_px * width_px * dtype.itemsize)
    with ImageSource(replace(spec, scale=as_stored(dtype))) as source:
        return largest_pixel(numbers, source.stored)


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
