"""What can be read of a damaged chunk, frame by frame, in its right place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.sources.base import Source

__all__ = ["read_what_is_there"]


def read_what_is_there(
    source: Source, start: int, stop: int, memory: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Read frames, and those that can be read where some cannot.

    Parameters
    ----------
    source : Source
        Whose frames.
    start, stop : int
        Which, `stop` exclusive.
    memory : ndarray of uint8, (byte,)
        Holds the result, if it is long enough.

    Returns
    -------
    frames : ndarray of uint8, (frame, y, x)
        A lost frame is 0 all over.
    lost : tuple of int
        Which frames are lost, counted from `start`; rising.

    Raises
    ------
    FrameDataError
        No frame of these can be read.
    SourceError
        As `Source.read`, for reasons that do not lie in single frames.
    """
    try:
        return source.read(start, stop, memory), ()
    except FrameDataError:
        if stop - start == 1:
            raise
        found: list[tuple[int, NDArray[np.uint8]]] = []
        lost = _halve(source, start, stop, found)
        if not found:
            raise
        shape = found[0][1].shape[1:]
        size = (stop - start) * shape[0] * shape[1]
        out = (memory if len(memory) >= size else np.empty(size, np.uint8))[:size].reshape(stop - start, *shape)
        out[...] = 0
        for first, frames in found:
            out[first - start : first - start + len(frames)] = frames
        return out, tuple(i - start for i in lost)


def _halve(source: Source, start: int, stop: int, found: list[tuple[int, NDArray[np.uint8]]]) -> list[int]:
    """Read both halves of a range that did not read at once; return the frames that are lost."""
    lost: list[int] = []
    middle = (start + stop) // 2
    for first, end in ((start, middle), (middle, stop)):
        try:
            found.append((first, source.read(first, end)))
        except FrameDataError:
            lost += _halve(source, first, end, found) if end - first > 1 else [first]
    return lost
