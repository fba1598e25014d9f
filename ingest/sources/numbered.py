"""Times of a run that has none, by the camera's own count, so that a hole in it is a gap. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ingest.sources.base import SourceInfo

__all__ = ["stamps_by_number"]

NS_PER_S = 1_000_000_000


def stamps_by_number(info: SourceInfo, fps: float) -> NDArray[np.int64] | None:
    """Return times made of frame numbers; None: there are none, or none are missing.

    Parameters
    ----------
    info : SourceInfo
        A run without stamps.
    fps : float
        Frames per second, of frames whose numbers follow each other as most do: a sequence may count 0, 10, 20, ...

    Returns
    -------
    ndarray of int64, (frame,), or None
        ns since 1970 UTC.
    """
    numbers = info.frame_numbers
    if numbers is None or info.start_ns is None or len(numbers) < 2:
        return None
    steps = np.diff(numbers)
    usual = int(np.median(steps))
    if usual < 1 or (steps < 1).any() or (steps % usual).any() or (steps == usual).all():
        return None
    since_ns: NDArray[np.int64] = np.rint((numbers - numbers[0]) / usual * (NS_PER_S / fps)).astype(np.int64)
    return since_ns + info.start_ns
