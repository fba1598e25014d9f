"""Capture times: rates, gaps, the starts of chunks, and how far the wire's regular times are from the true ones.

On the wire a frame's time is its chunk's ``start + i / fps`` (PROTOCOL.md), so what is decided here is where chunks
begin, which rate they declare and where they start, such that every implied time stays as near to its stamp as it can
(DESIGN.md "Time"). All functions are pure; times are int64 ns, Unix UTC or relative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError, SourceTimeError
from ingest.rates import NS_PER_S, rate_bounds

__all__ = [
    "EPICS_EPOCH_OFFSET_S",
    "NS_PER_MS",
    "Finding",
    "RateSegment",
    "TimeError",
    "Timeline",
    "check_fps",
    "chunk_start_ms",
    "cut",
    "fit_timeline",
    "regular_timeline",
    "time_error",
]

EPICS_EPOCH_OFFSET_S = 631_152_000
"""Seconds from 1970-01-01 to 1990-01-01 UTC, where EPICS counts from (EPICS base, ``epicsTime.h``)."""

NS_PER_MS = 1_000_000
GAP_PERIODS = 1.5
MAX_FPS = 1e6
_MEDIAN_WINDOW = 31
_MEAN_REACH = 256
_MUCH_JITTER = 0.3
_SHIFT_WINDOW = 16
_SHIFT_PERIODS = 0.6


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a user should know about a run; goes into report and manifest.

    Attributes
    ----------
    kind : str
        A stable word: ``"gap"``, ``"repeated stamps"``, ``"backward stamps"``, ``"jitter"``, ``"rate change"``, ...
    message : str
        For people, with numbers and units.
    frame : int or None
        The first frame concerned.
    """

    kind: str
    message: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class RateSegment:
    """Frames `start` to `stop` (exclusive) that came at one rate.

    Attributes
    ----------
    start, stop : int
        Frame range.
    fps : float
        Frames per second: the least-squares fit of stamp on index over the segment's gap-free pieces.
    """

    start: int
    stop: int
    fps: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The rates of a run and the frames at which a chunk must begin.

    Attributes
    ----------
    fps : float
        What the stream declares: the rate of most frames.
    segments : tuple of RateSegment
        Cover all frames in order.
    breaks : tuple of int
        First frames after a gap, a jump of the clock or a change of rate; rising, without 0.
    findings : tuple of Finding
        What is odd about the stamps.
    """

    fps: float
    segments: tuple[RateSegment, ...]
    breaks: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def max_fps(self) -> float:
        """The fastest segment's rate."""
        return max(segment.fps for segment in self.segments)


@dataclass(frozen=True, slots=True)
class TimeError:
    """How far the times that the wire implies are from the recorded stamps.

    Attributes
    ----------
    worst_ms, p99_ms : float
        Largest and 99th-percentile absolute error.
    over_bound : int
        Frames whose error exceeds half a period + 1 ms.
    """

    worst_ms: float = 0.0
    p99_ms: float = 0.0
    over_bound: int = 0


def check_fps(fps: float, what: str = "fps") -> float:
    """Return `fps` if it is a rate that a camera can have.

    Raises
    ------
    SettingsError
        Not finite, not positive, or above a million.
    """
    if not math.isfinite(fps) or not 0 < fps <= MAX_FPS:
        raise SettingsError(f"{what} is {fps!r}; a frame rate is more than 0 and at most {MAX_FPS:g} frames per second")
    return float(fps)


def regular_timeline(frames: int, fps: float) -> Timeline:
    """Return the timeline of a run without stamps: one rate, no gaps."""
    return Timeline(check_fps(fps), (RateSegment(0, frames, fps),), (), ())


def fit_timeline(timestamps_ns: NDArray[np.int64], *, fps: float | None = None) -> Timeline:
    """Find rates, gaps and clock jumps of a run from its stamps.

    Parameters
    ----------
    timestamps_ns : ndarray of int64, (frame,)
        Every frame's stamp, at least one.
    fps : float, optional
        The rate that the user insists on; gaps are still found by the measured one. Required for a single frame.

    Returns
    -------
    Timeline
        A step of more than 1.5 periods that later stamps do not make up for is a gap; jitter, however large, is not. A
        rate change counts if it lasts for 2 s and one common rate would misplace frames by a quarter period (RMS).

    Raises
    ------
    SourceTimeError
        The stamps do not advance, and no `fps` was given.

    Notes
    -----
    Holds about 60 bytes per frame.
    """
    n = len(timestamps_ns)
    if fps is not None:
        check_fps(fps)
    steps = np.diff(timestamps_ns).astype(np.float64)
    findings = _order_findings(timestamps_ns, steps)
    period = _typical_period(timestamps_ns, steps)
    if period is None:
        if fps is None:
            raise SourceTimeError(
                f"the stamps of the {n} frame(s) do not advance, so they give no frame rate",
                hint="pass --fps; the first stamp is then taken as the start",
            )
        return Timeline(fps, (RateSegment(0, n, fps),), (), findings)
    local = _local_periods(timestamps_ns, steps, period)
    jumps = _jumps(timestamps_ns, steps, local)
    findings += tuple(_jump_finding(int(i), steps[i], local[i]) for i in jumps)
    smooth = steps.copy()
    smooth[jumps] = local[jumps]
    curve = np.concatenate(([0.0], np.cumsum(smooth)))
    bounds = [0, n] if fps is not None else rate_bounds(curve)
    gaps = (jumps + 1).tolist()
    segments = tuple(
        RateSegment(a, b, fps if fps is not None else _rate(_common_period(timestamps_ns, a, b, gaps, curve)))
        for a, b in pairwise(bounds)
    )
    findings += tuple(
        Finding("rate change", f"the rate changes from {a.fps:.4g} to {b.fps:.4g} fps for good", b.start)
        for a, b in pairwise(segments)
    )
    if any(not 0 < segment.fps <= MAX_FPS for segment in segments):
        raise SourceTimeError(
            f"the stamps of the {n} frames are in such disorder that they give no frame rate",
            hint="pass --fps; the first stamp is then taken as the start",
        )
    main = max(segments, key=lambda s: s.stop - s.start)
    breaks = sorted({*gaps, *bounds[1:-1]})
    return Timeline(main.fps, segments, tuple(breaks), findings)


def _order_findings(timestamps_ns: NDArray[np.int64], steps: NDArray[np.float64]) -> tuple[Finding, ...]:
    found = []
    for kind, wrong in (("repeated stamps", steps == 0), ("backward stamps", steps < 0)):
        if wrong.any():
            first = int(np.argmax(wrong)) + 1
            found.append(
                Finding(kind, f"{int(wrong.sum())} of {len(timestamps_ns)} frames, from frame {first} on", first)
            )
    return tuple(found)


def _typical_period(timestamps_ns: NDArray[np.int64], steps: NDArray[np.float64]) -> float | None:
    """Median step; where stamps come in bursts (median 0), the median over 16 frames."""
    if len(steps) == 0:
        return None
    period = float(np.median(steps))
    if period > 0:
        return period
    lag = min(_SHIFT_WINDOW, len(steps))
    period = float(np.median(timestamps_ns[lag:] - timestamps_ns[:-lag])) / lag
    return period if period > 0 else None


def _local_periods(timestamps_ns: NDArray[np.int64], steps: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """The period around each step, good enough that its error over 16 frames stays well below a period.

    With little jitter: the mean of the 512 steps around it that are within half of their running median (the median
    alone is too rough, the mean alone sees the gaps). With much, where that half cuts into the jitter itself: the
    median of differences over 16 frames.
    """
    relative = np.abs(steps / period - 1)
    if (relative <= 0.5).all():
        return np.full(len(steps), period)
    rough = _running_median(steps, period)
    if float(np.median(np.abs(steps / rough - 1))) > _MUCH_JITTER and len(steps) > 2 * _SHIFT_WINDOW:
        lags = (timestamps_ns[_SHIFT_WINDOW:] - timestamps_ns[:-_SHIFT_WINDOW]) / _SHIFT_WINDOW
        ends = _SHIFT_WINDOW // 2, len(steps) - len(lags) - _SHIFT_WINDOW // 2
        return np.pad(_running_median(lags, period), ends, mode="edge")
    ordinary = np.abs(steps - rough) <= rough / 2
    sums = np.concatenate(([0.0], np.cumsum(np.where(ordinary, steps, 0))))
    counts = np.concatenate(([0], np.cumsum(ordinary)))
    at = np.arange(len(steps))
    low, high = np.maximum(at - _MEAN_REACH, 0), np.minimum(at + _MEAN_REACH + 1, len(steps))
    inside = counts[high] - counts[low]
    mean = (sums[high] - sums[low]) / np.maximum(inside, 1)
    # Near a change of rate the mean mixes both sides; there the median is the better guess.
    return np.where((inside > 0) & (np.abs(mean - rough) <= rough / 4), mean, rough)


def _running_median(steps: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    if len(steps) <= _MEDIAN_WINDOW:
        return np.full(len(steps), period)
    half = _MEDIAN_WINDOW // 2
    padded = np.pad(steps, half, mode="reflect")
    rough = np.empty(len(steps))
    for a in range(0, len(steps), 65536):  # 16 MB of windows at once
        b = min(a + 65536, len(steps))
        windows = np.lib.stride_tricks.sliding_window_view(padded[a : b + 2 * half], _MEDIAN_WINDOW)
        rough[a:b] = np.median(windows, axis=1)
    return np.where(rough > period / 10, rough, period)


def _jumps(
    timestamps_ns: NDArray[np.int64], steps: NDArray[np.float64], local: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Indices of steps after which stamps stay shifted: missing frames, or a clock that was set.

    A late frame is followed by a short step that makes up for it; a missing frame shifts all that follow. So the median
    offset of up to 16 stamps before is compared with that of 16 after, against what jitter alone would give.
    """
    relative = np.abs(steps / local - 1)
    candidates = np.flatnonzero(relative > GAP_PERIODS - 1)
    if len(candidates) == 0:
        return candidates
    # Steps between stamps of independent jitter spread by sqrt(2) times the jitter; the MAD does not see the gaps.
    jitter = 1.4826 * float(np.median(relative)) / math.sqrt(2)
    everywhere = np.full(len(candidates), -1), np.full(len(candidates), len(timestamps_ns))
    first = _shifted(timestamps_ns, local, candidates, everywhere, jitter)
    # Again with windows that end at the neighbouring jumps, so that a late frame near a gap does not pass for one.
    neighbours = np.concatenate(([-1], first[:-1])), np.concatenate((first[1:] + 1, [len(timestamps_ns)]))
    return _shifted(timestamps_ns, local, first, neighbours, jitter) if len(first) else first


def _shifted(
    timestamps_ns: NDArray[np.int64],
    local: NDArray[np.float64],
    candidates: NDArray[np.intp],
    limits: tuple[NDArray[np.intp], NDArray[np.intp]],
    jitter: float,
) -> NDArray[np.intp]:
    """Those steps across which the offsets move by more than 0.6 periods and 4 standard errors.

    `limits` are the last frame before and the first frame after each candidate's windows; `jitter` is in periods.
    """
    k = np.arange(_SHIFT_WINDOW)
    column, periods = candidates[:, None], local[candidates][:, None]
    origin = timestamps_ns[candidates][:, None]

    def middle(index: NDArray[np.intp], inside: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        offsets = (timestamps_ns[np.clip(index, 0, len(timestamps_ns) - 1)] - origin) / periods - (index - column)
        return np.nanmedian(np.where(inside, offsets, np.nan), axis=1), inside.sum(axis=1)

    before, after = column - k, column + 1 + k
    low, n_low = middle(before, before > limits[0][:, None])
    high, n_high = middle(after, after < limits[1][:, None])
    # 1.25: a median spreads that much more than a mean. One or two frames between gaps: the step itself decides.
    # 0.9 of the jitter over full windows: what the local period's own error, a mean of some 400 steps, adds up to.
    drift = 0.9 * (n_low + n_high) / (2 * _SHIFT_WINDOW)
    error = 4 * 1.25 * jitter * np.sqrt(1 / n_low + 1 / n_high + drift**2)
    error = np.where((np.minimum(n_low, n_high) < 3) & (n_low + n_high < _SHIFT_WINDOW), 0, error)
    moved = high - low
    # A first frame or two that came late look like a clock set back; nothing before them says that it was.
    late_start = (n_low < 3) & (limits[0] < 0) & (moved < 0)
    return candidates[(np.abs(moved) > np.maximum(_SHIFT_PERIODS, error)) & ~late_start]


def _jump_finding(i: int, step_ns: float, period_ns: float) -> Finding:
    lost = round(step_ns / period_ns) - 1
    if step_ns > 0:
        return Finding("gap", f"{step_ns / NS_PER_S:.3f} s without frames ({max(lost, 1)} missing)", i + 1)
    return Finding("gap", f"the clock jumps by {step_ns / NS_PER_S:.3f} s", i + 1)


def _rate(period_ns: float) -> float:
    """Frames per second to nine digits: 120 rather than 119.99999999999666; over 10^6 frames that is 1e-3 periods."""
    return float(f"{NS_PER_S / period_ns:.9g}")


def _common_period(
    timestamps_ns: NDArray[np.int64], start: int, stop: int, gaps: list[int], curve: NDArray[np.float64]
) -> float:
    """Least-squares slope that the gap-free pieces of a range share, each with its own offset."""
    edges = np.array([start, *(g for g in gaps if start < g < stop)])
    counts = np.diff([*edges, stop])
    x = np.arange(start, stop, dtype=np.float64)
    t = (timestamps_ns[start:stop] - timestamps_ns[start]).astype(np.float64)
    at = edges - start
    x -= np.repeat(np.add.reduceat(x, at) / counts, counts)
    t -= np.repeat(np.add.reduceat(t, at) / counts, counts)
    spread = float(x @ x)
    period = float(x @ t) / spread if spread > 0 else 0.0
    # Pieces of single frames, or stamps in disorder: the gap-free curve still has a slope.
    return period if period > 0 else float((curve[stop - 1] - curve[start]) / max(stop - 1 - start, 1)) or 1.0


def chunk_start_ms(timestamps_ns: NDArray[np.int64], fps: float) -> int:
    """Return the start, in Unix ms UTC, that brings ``start + i / fps`` nearest to a chunk's stamps.

    The middle of what the intervals ``t_i - i / fps`` +- half a period share; where they share nothing, least squares.
    One late first frame thus does not shift the rest.
    """
    base = int(timestamps_ns[0])
    offsets = (timestamps_ns - base).astype(np.float64) - np.arange(len(timestamps_ns)) * (NS_PER_S / fps)
    low, high = float(offsets.min()), float(offsets.max())
    start = (low + high) / 2 if high - low <= NS_PER_S / fps else float(offsets.mean())
    return (
        round((base + start) / NS_PER_MS) if abs(base) < 2**53 else (base + round(start) + NS_PER_MS // 2) // NS_PER_MS
    )


def cut(frames: int, chunk_size: int, breaks: tuple[int, ...] = (), *, on_grid: bool = False) -> list[tuple[int, int]]:
    """Cover frames 0 to `frames` with ranges of at most `chunk_size`, none across a break.

    With `on_grid`, none across a multiple of `chunk_size` either.

    Returns
    -------
    list of (start, stop)
        In order, each frame exactly once.
    """
    edges = sorted({0, *breaks, frames, *(range(0, frames, chunk_size) if on_grid else ())})
    return [
        (start, min(start + chunk_size, stop)) for a, stop in pairwise(edges) for start in range(a, stop, chunk_size)
    ]


def time_error(
    timestamps_ns: NDArray[np.int64], ranges: list[tuple[int, int]], starts_ms: list[int], rates: list[float]
) -> TimeError:
    """Compare the times that chunks imply on the wire with the stamps.

    Parameters
    ----------
    timestamps_ns : ndarray of int64, (frame,)
        The true ones.
    ranges, starts_ms, rates : list, (chunk,)
        Each chunk's frames, start in Unix ms and frames per second.
    """
    errors_ms = np.empty(len(timestamps_ns))
    bound_ms = np.empty(len(timestamps_ns))
    for (start, stop), start_ms, fps in zip(ranges, starts_ms, rates, strict=True):
        stamps_ms = (timestamps_ns[start:stop] - start_ms * NS_PER_MS) / NS_PER_MS
        errors_ms[start:stop] = np.abs(stamps_ms - np.arange(stop - start) * (1000 / fps))
        bound_ms[start:stop] = 500 / fps + 1
    return TimeError(
        float(errors_ms.max()), float(np.percentile(errors_ms, 99)), int(np.count_nonzero(errors_ms > bound_ms))
    )
