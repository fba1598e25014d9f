"""Times for the frames of a run that have none of their own. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_stamps", "how_filled"]


def how_filled(known: NDArray[np.bool_]) -> str:
    """Say, for people, where `fill_stamps` puts what is not known."""
    index = np.flatnonzero(known)
    before, after = int(index[0]), len(known) - 1 - int(index[-1])
    places = ["between their neighbours"] if int((~known).sum()) > before + after else []
    places += ["before the first known time at the usual distance"] if before else []
    places += ["after the last known time at the usual distance"] if after else []
    return "put " + ", ".join(places)


def fill_stamps(stamps_ns: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return stamps, those that are not known put evenly between their neighbours.

    Parameters
    ----------
    stamps_ns : ndarray of int64, (frame,)
        Capture times; anything where not known.
    known : ndarray of bool, (frame,)
        Which of them were recorded; at least one.

    Returns
    -------
    ndarray of int64, (frame,)
        Recorded ones as they are. Before the first and after the last of these, times go on by the median step.
    """
    if known.all():
        return stamps_ns
    index = np.flatnonzero(known)
    base = int(stamps_ns[index[0]])
    since = (stamps_ns[index] - base).astype(np.float64)
    steps = np.diff(since) / np.diff(index)
    step = float(np.median(steps)) if len(steps) else 0.0
    frames = np.arange(len(stamps_ns))
    filled = np.interp(frames, index, since)
    filled += np.minimum(frames - index[0], 0) * step + np.maximum(frames - index[-1], 0) * step
    result = base + np.rint(filled).astype(np.int64)
    result[known] = stamps_ns[known]
    return result
