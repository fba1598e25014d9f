"""Single stamps that are out of all order: a zero, a flipped bit, a clock that hiccuped. Pure."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from ingest.sources.fill_stamps import fill_stamps
from ingest.timing import Finding

__all__ = ["mend_wild_stamps"]

NS = 1_000_000_000
LEAST_JUMP_NS = NS
LEAST_PERIODS = 10
LONE_END_NS = 30 * 86_400 * NS
"""A first or last frame that is a month from all others stands alone by a wrong stamp, not by a pause."""
FEW = 100
"""At most one stamp in so many is mended (three in a short run): more are a clock that was set, and stay."""


def mend_wild_stamps(timestamps_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[Finding, ...]]:
    """Put single stamps that cannot be between their neighbours'.

    Parameters
    ----------
    timestamps_ns : ndarray of int64, (frame,)
        As recorded.

    Returns
    -------
    timestamps_ns : ndarray of int64, (frame,)
        The same, but for stamps that break the order of all others by more than a second and ten periods.
    findings : tuple of Finding
        Which these are. A clock that was set, and stays so, is none of them.
    """
    n = len(timestamps_ns)
    if n < 4:
        return timestamps_ns, ()
    steps = np.diff(timestamps_ns)
    ahead = steps[steps > 0]
    jump_ns = max(LEAST_JUMP_NS, LEAST_PERIODS * int(np.median(ahead))) if len(ahead) else LEAST_JUMP_NS
    wild = np.zeros(n, bool)
    if (steps < -jump_ns).any():
        wild = _out_of_order(timestamps_ns, jump_ns)
    kept = np.flatnonzero(~wild)
    for end, other in ((kept[0], kept[1]), (kept[-1], kept[-2])):
        wild[end] |= abs(int(timestamps_ns[end]) - int(timestamps_ns[other])) > LONE_END_NS
    if wild.any():  # of two that cannot both be right, one was: it is where the others say
        wild &= np.abs(timestamps_ns - fill_stamps(timestamps_ns, ~wild)) > jump_ns
    found = np.flatnonzero(wild)
    if not len(found) or len(found) > max(3, n // FEW):
        return timestamps_ns, ()
    first = int(found[0])
    message = (
        f"{len(found)} stamp(s) are out of all order, such as that of frame {first}, "
        f"{(int(timestamps_ns[first]) - int(timestamps_ns[kept[len(kept) // 2]])) / NS:.6g} s from the run's middle: "
        "put where their neighbours say"
    )
    return fill_stamps(timestamps_ns, ~wild), (Finding("wild stamps", message, first),)


def _out_of_order(timestamps_ns: NDArray[np.int64], jump_ns: int) -> NDArray[np.bool_]:
    """Return the stamps that are not on the longest rising run of all, and far from what that says of them."""
    rising = np.zeros(len(timestamps_ns), bool)
    rising[_longest_rising(timestamps_ns.tolist())] = True
    expected = fill_stamps(timestamps_ns, rising)
    far: NDArray[np.bool_] = ~rising & (np.abs(timestamps_ns - expected) > jump_ns)
    return far


def _longest_rising(values: list[int]) -> list[int]:
    """Return the places of the longest subsequence that does not fall (patience sorting)."""
    tails: list[int] = []
    places: list[int] = []
    before = [-1] * len(values)
    for i, value in enumerate(values):
        at = bisect_right(tails, value)
        before[i] = places[at - 1] if at else -1
        if at == len(tails):
            tails.append(value)
            places.append(i)
        else:
            tails[at], places[at] = value, i
    chain = []
    i = places[-1]
    while i >= 0:
        chain.append(i)
        i = before[i]
    return chain
