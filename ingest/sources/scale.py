"""The one scale of a run: what user and file say of it, else what a sample of frames shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.frames import FrameScale, full_scale_of
from ingest.sources.facts import Fact
from ingest.timing import Finding

__all__ = ["SAMPLED_FRAMES", "decide_scale", "maximum_of_samples"]

SAMPLED_FRAMES = 16
MAX_SAMPLED_BYTES = 256 * 2**20
# NeXus NXdetector names first; the others are what lab scripts write.
SATURATION_FACTS = ("saturation_value", "full_scale")
BITS_FACTS = ("bit_depth_readout", "bit_depth", "bits")


def maximum_of_samples(
    read: Callable[[int], NDArray[np.generic]], frames: int, samples: int, frame_cost_bytes: int
) -> float | None:
    """Return the largest finite pixel value of some frames spread over a run.

    Parameters
    ----------
    read : callable
        Returns one frame by its number; what it raises but `FrameDataError` ends the search.
    frames : int
        How many there are.
    samples : int
        How many to look at; fewer, but at least one, if that meant reading more than 256 MiB.
    frame_cost_bytes : int
        What has to be read and decompressed for one frame.

    Returns
    -------
    float or None
        None: no finite pixel. Holds one frame.

    Raises
    ------
    FrameDataError
        Every one of these frames is damaged; single ones are passed over, and named when they are read.
    """
    samples = max(1, min(samples, frames, MAX_SAMPLED_BYTES // max(1, frame_cost_bytes)))
    largest: float | None = None
    damaged = 0
    for i in range(samples):
        try:
            frame = read((2 * i + 1) * frames // (2 * samples))
        except FrameDataError:
            damaged += 1
            if damaged == samples:
                raise
            continue
        if frame.dtype.kind == "f":
            frame = frame[np.isfinite(frame)]
        if frame.size:
            top = float(frame.max())
            largest = top if largest is None else max(largest, top)
    return largest


def decide_scale(
    dtype: np.dtype[Any], asked: float | None, facts: Mapping[str, Fact], maximum: float | None
) -> tuple[FrameScale, tuple[Finding, ...]]:
    """Choose a run's scale: user, then file, then sampled maximum. 8-bit frames stay as they are unless asked.

    Parameters
    ----------
    dtype : numpy.dtype
        The stored pixel type.
    asked : float or None
        What the user says becomes 255.
    facts : mapping
        Attributes, lower-case names.
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
    elif dtype == np.uint8:
        return FrameScale(name, None, "8 bit"), ()
    elif dtype.kind == "b":
        return FrameScale(name, 1.0, "file"), ()
    else:
        said = _said(facts)
        if said is not None:
            scale = FrameScale(name, said, "file")
        else:
            return FrameScale(name, full_scale_of(max(maximum or 0.0, 0.0), dtype), "sampled maximum"), ()
    if maximum is not None and scale.full_scale is not None and maximum > scale.full_scale + 1:
        message = f"pixels up to {maximum:g} were seen, above the full scale {scale.full_scale:g}: they become white"
        return scale, (Finding("scale", message),)
    return scale, ()


def _said(facts: Mapping[str, Fact]) -> float | None:
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
