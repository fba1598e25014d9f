"""Capture times against runs whose true rates, gaps and jumps are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import SettingsError, SourceTimeError
from ingest.timing import (
    RateSegment,
    TimeError,
    Timeline,
    check_fps,
    chunk_start_ms,
    cut,
    fit_timeline,
    regular_timeline,
    time_error,
)

START_NS = 1_700_000_000_123_456_789
SEEDS = range(3)


def at_rate(n, fps=120.0, start_ns=START_NS):
    return start_ns + np.rint(np.arange(n) * 1e9 / fps).astype(np.int64)


def jittered(stamps_ns, jitter_ms, seed, kind="uniform"):
    rng = np.random.default_rng(seed)
    n = len(stamps_ns)
    noise_ms = rng.uniform(-jitter_ms, jitter_ms, n) if kind == "uniform" else rng.normal(0, jitter_ms, n)
    return stamps_ns + np.rint(noise_ms * 1e6).astype(np.int64)


def from_periods(*pieces):
    """Stamps of pieces (frames, fps), each beginning one of its own periods after the last."""
    steps = np.concatenate([np.full(n, 1e9 / fps) for n, fps in pieces])
    return START_NS + np.rint(np.cumsum(steps)).astype(np.int64)


def dropped(n, share, seed, jitter_ms=0.0, fps=120.0):
    """Return stamps of which a random share is missing, and the frames that follow a missing one."""
    kept = np.flatnonzero(np.random.default_rng(seed).random(n) >= share)
    return jittered(at_rate(n, fps), jitter_ms, seed)[kept], (np.flatnonzero(np.diff(kept) > 1) + 1).tolist()


def planned(stamps_ns, timeline, chunk_size=240):
    """Cut and start chunks as a plan does; return ranges, starts and rates."""
    ranges = cut(len(stamps_ns), chunk_size, timeline.breaks)
    rates = [next(s.fps for s in timeline.segments if s.start <= a < s.stop) for a, _ in ranges]
    starts = [chunk_start_ms(stamps_ns[a:b], fps) for (a, b), fps in zip(ranges, rates, strict=True)]
    return ranges, starts, rates


def error_of(stamps_ns, timeline, chunk_size=240):
    return time_error(stamps_ns, *planned(stamps_ns, timeline, chunk_size))


def kinds(timeline):
    return [finding.kind for finding in timeline.findings]


# -- rates and gaps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [0.2, 1, 10, 29.97, 59.94, 120, 1000, 9999])
@pytest.mark.parametrize("n", [2, 3, 40, 3000])
def test_a_regular_run_is_one_piece(n, fps):
    stamps = at_rate(n, fps)
    timeline = fit_timeline(stamps)
    assert timeline.breaks == () == timeline.findings
    assert [(s.start, s.stop) for s in timeline.segments] == [(0, n)]
    assert timeline.fps == timeline.max_fps == timeline.segments[0].fps == pytest.approx(fps, rel=1e-5)
    assert error_of(stamps, timeline, 10**6).worst_ms <= 0.51


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("jitter_ms", [1, 4])
def test_jitter_alone_never_splits(jitter_ms, kind, seed):
    """4 ms are half a period: stamps run backwards, and the next frame's is nearer than its own."""
    timeline = fit_timeline(jittered(at_rate(5000), jitter_ms, seed, kind))
    assert timeline.breaks == ()
    assert timeline.fps == pytest.approx(120, rel=1e-4)


@pytest.mark.parametrize("lost", [1, 2, 50, 100_000])
@pytest.mark.parametrize("at", [1, 5, 300, 998, 999])
@pytest.mark.parametrize("jitter_ms", [0, 1])
def test_a_gap_is_found_where_it_is(lost, at, jitter_ms):
    stamps = jittered(np.delete(at_rate(1000 + lost), slice(at, at + lost)), jitter_ms, 1)
    timeline = fit_timeline(stamps)
    assert timeline.breaks == (at,)
    assert timeline.fps == pytest.approx(120, rel=1e-3 if jitter_ms else 1e-6)
    assert kinds(timeline) == ["gap"]
    assert timeline.findings[0].frame == at
    assert jitter_ms or f"({lost} missing)" in timeline.findings[0].message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("jitter_ms", [0, 0.5, 1])
@pytest.mark.parametrize("share", [0.01, 0.2])
def test_dropped_frames_are_found_one_by_one(share, jitter_ms, seed):
    stamps, true = dropped(12_000, share, seed, jitter_ms)
    timeline = fit_timeline(stamps)
    hits = len(set(timeline.breaks) & set(true))
    assert hits >= 0.95 * len(true), "recall"
    assert hits >= 0.95 * len(timeline.breaks), "precision"
    assert timeline.fps == pytest.approx(120, rel=1e-3)
    assert len(timeline.segments) == 1
    assert error_of(stamps, timeline).over_bound <= (0 if jitter_ms == 0 else 0.01 * len(stamps))


@pytest.mark.parametrize("frames", [(2400, 2400), (2400, 1200), (600, 3000)], ids=str)
@pytest.mark.parametrize("jitter_ms", [0, 0.5])
@pytest.mark.parametrize("rates", [(120, 60), (60, 120), (120, 118)], ids=str)
def test_a_change_of_rate_is_found(rates, frames, jitter_ms):
    stamps = jittered(from_periods(*zip(frames, rates, strict=True)), jitter_ms, 2)
    timeline = fit_timeline(stamps)
    assert len(timeline.breaks) == 1
    assert abs(timeline.breaks[0] - frames[0]) <= 10
    assert [s.fps for s in timeline.segments] == pytest.approx(rates, rel=1e-3)
    assert [(s.start, s.stop) for s in timeline.segments] == [
        (0, timeline.breaks[0]),
        (timeline.breaks[0], sum(frames)),
    ]
    assert timeline.max_fps == max(s.fps for s in timeline.segments)
    longest = max(timeline.segments, key=lambda s: s.stop - s.start)
    assert timeline.fps == longest.fps
    assert kinds(timeline) == ["rate change"]
    assert error_of(stamps, timeline).over_bound == 0


def test_a_slow_drift_does_not_split():
    """A tenth of a percent a minute: each chunk's own start takes it up."""
    steps = 1e9 / np.linspace(120, 121, 72_000)
    stamps = START_NS + np.rint(np.cumsum(steps)).astype(np.int64)
    timeline = fit_timeline(stamps)
    assert timeline.breaks == ()
    assert 120 < timeline.fps < 121
    assert error_of(stamps, timeline).over_bound == 0


def test_bursts_keep_their_rate_and_do_not_split():
    """Four frames with one stamp, as a camera driver gives that hands over buffers."""
    stamps = at_rate(5000)[np.arange(5000) // 4 * 4]
    timeline = fit_timeline(stamps)
    assert timeline.breaks == ()
    assert timeline.fps == pytest.approx(120, rel=1e-3)
    assert kinds(timeline) == ["repeated stamps"]
    assert "3750 of 5000" in timeline.findings[0].message
    assert error_of(stamps, timeline).worst_ms < 2 * 1000 / 120


@pytest.mark.parametrize("late", [0.5, 0.9, 0.99, 3.3])
def test_late_frames_do_not_split(late):
    """The next frame comes on time, so nothing is missing."""
    stamps = at_rate(5000)
    stamps[50::50] += int(late * 1e9 / 120)
    timeline = fit_timeline(stamps)
    assert timeline.breaks == ()
    assert timeline.fps == pytest.approx(120, rel=1e-5)
    if late < 1:
        assert error_of(stamps, timeline).over_bound == 0


@pytest.mark.parametrize("late", [0.4, 0.9, 3, 20])
@pytest.mark.parametrize("n", [100, 240, 5000])
def test_a_late_first_frame_neither_shifts_the_rest_nor_splits(n, late):
    true = at_rate(n)
    stamps = true.copy()
    stamps[0] += int(late * 1e9 / 120)
    timeline = fit_timeline(stamps)
    assert timeline.breaks == ()
    assert timeline.fps == pytest.approx(120, rel=5e-4 if n > 240 else 2e-2)
    start_ms = chunk_start_ms(stamps[:240], 120.0)
    half_period_ms = 500 / 120
    shift_ms = abs(start_ms - true[0] / 1e6)
    # Within a period the start moves half of it at most; beyond, the late frame is one of many.
    assert shift_ms <= (half_period_ms if late < 1 else late * 1000 / 120 / len(stamps[:240])) + 0.6


def test_a_clock_that_was_set_back_breaks_there():
    stamps = at_rate(5000)
    stamps[2000:] -= 5 * 10**9
    timeline = fit_timeline(stamps)
    assert timeline.breaks == (2000,)
    assert timeline.fps == 120.0
    assert kinds(timeline) == ["backward stamps", "gap"]
    assert timeline.findings[1].frame == 2000
    assert "-4.99" in timeline.findings[1].message
    assert error_of(stamps, timeline).worst_ms <= 0.51


@pytest.mark.parametrize(("pause_periods", "splits"), [(0.3, False), (36, True)])
def test_files_of_one_run_break_only_where_they_leave_a_gap(pause_periods, splits):
    """kSA writes a run as files of so many frames, with a short pause between them."""
    period = 1e9 / 120
    stamps = np.concatenate([at_rate(500) + int(k * (500 + pause_periods) * period) for k in range(10)])
    timeline = fit_timeline(stamps)
    assert timeline.breaks == (tuple(range(500, 5000, 500)) if splits else ())
    assert error_of(stamps, timeline).over_bound == 0


@pytest.mark.parametrize("n", [1, 2, 500])
def test_stamps_that_do_not_advance_give_no_rate(n):
    stamps = np.full(n, START_NS)
    with pytest.raises(SourceTimeError, match=f"the {n} frame") as caught:
        fit_timeline(stamps)
    assert "--fps" in caught.value.hint
    timeline = fit_timeline(stamps, fps=25.0)
    assert (timeline.fps, timeline.segments, timeline.breaks) == (25.0, (RateSegment(0, n, 25.0),), ())


def test_the_user_s_rate_stands_and_gaps_are_found_all_the_same():
    stamps = np.delete(from_periods((1500, 120), (1500, 60)), slice(300, 350))
    timeline = fit_timeline(stamps, fps=100.0)
    assert timeline.segments == (RateSegment(0, 2950, 100.0),)
    assert timeline.fps == 100.0
    assert 300 in timeline.breaks
    with pytest.raises(SettingsError):
        fit_timeline(stamps, fps=math.nan)


def test_a_run_without_stamps_has_one_rate():
    assert regular_timeline(7, 30.0) == Timeline(30.0, (RateSegment(0, 7, 30.0),), (), ())


@pytest.mark.parametrize("fps", [0, -1, 1e6 * 1.01, math.inf, math.nan])
def test_rates_that_no_camera_has(fps):
    with pytest.raises(SettingsError, match="the claim is"):
        check_fps(fps, "the claim")


# -- the starts of chunks ----------------------------------------------------------------------------------------------


def worst_ms(stamps_ns, start_ms, fps):
    implied = np.arange(len(stamps_ns)) * (1000 / fps)
    return float(np.abs((stamps_ns - start_ms * 1_000_000) / 1e6 - implied).max())


@given(
    st.floats(1, 1000),
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.sampled_from([START_NS, 0, -START_NS, 4_102_444_800_000_000_000]),
)
def test_no_other_start_is_nearer(fps, lateness, base_ns):
    """Minimax: where the intervals share a point, no whole millisecond is better by more than one."""
    period_ns = 1e9 / fps
    lateness = np.array(lateness)
    stamps = base_ns + np.rint((np.arange(len(lateness)) + lateness * 0.999) * period_ns).astype(np.int64)
    best = chunk_start_ms(stamps, fps)
    reach = range(-math.ceil(period_ns / 1e6) - 2, math.ceil(period_ns / 1e6) + 3)
    assert worst_ms(stamps, best, fps) <= min(worst_ms(stamps, best + d, fps) for d in reach) + 1
    assert worst_ms(stamps, best, fps) <= 500 / fps + 0.51


def test_where_intervals_share_nothing_least_squares_decides():
    stamps = at_rate(100, 10.0, 0)
    stamps[7] += 1_000_000_000
    assert chunk_start_ms(stamps, 10.0) == 10


@pytest.mark.parametrize("ns", [0, 499_999, 500_001, -499_999, -500_001, START_NS, -START_NS], ids=str)
def test_a_single_frame_starts_at_its_stamp(ns):
    assert abs(chunk_start_ms(np.array([ns]), 30.0) * 1_000_000 - ns) <= 500_000


# -- cutting -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 90), st.sets(st.integers(1, 399), max_size=20))
def test_ranges_cover_every_frame_once_in_order_and_cross_no_break(frames, chunk_size, breaks):
    breaks = tuple(sorted(b for b in breaks if b < frames))
    ranges = cut(frames, chunk_size, breaks)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(frames))
    assert all(0 < b - a <= chunk_size for a, b in ranges)
    assert set(breaks) <= {a for a, _ in ranges} | {frames}
    pieces = np.diff([0, *breaks, frames])
    assert len(ranges) == sum(-(-int(piece) // chunk_size) for piece in pieces), "no shorter than need be"


# -- the error ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 120), st.integers(1, 50), st.floats(0.5, 500), st.integers(0, 10**6))
def test_the_error_is_the_true_one(n, chunk_size, fps, seed):
    rng = np.random.default_rng(seed)
    stamps = at_rate(n, fps) + rng.integers(-(2 * 10**9), 2 * 10**9, n)
    ranges = cut(n, chunk_size)
    starts = [int(ms) for ms in rng.integers(-2000, 2000, len(ranges)) + START_NS // 1_000_000]
    rates = [float(f) for f in rng.uniform(0.5, 500, len(ranges))]
    errors, beyond = [], []
    for (a, b), start_ms, rate in zip(ranges, starts, rates, strict=True):
        for i in range(a, b):
            errors.append(abs((int(stamps[i]) - start_ms * 10**6) / 1e6 - (i - a) * 1000 / rate))
            beyond.append(errors[-1] - (500 / rate + 1))
    found = time_error(stamps, ranges, starts, rates)
    assert found.worst_ms == pytest.approx(max(errors))
    assert found.p99_ms == pytest.approx(np.percentile(errors, 99))
    assert sum(x > 1e-6 for x in beyond) <= found.over_bound <= sum(x > -1e-6 for x in beyond)


def test_the_error_of_a_run_that_fits():
    assert time_error(at_rate(30, 10.0, 0), [(0, 30)], [0], [10.0]) == TimeError(0.0, 0.0, 0)
    assert time_error(at_rate(30, 10.0, 0), [(0, 30)], [60], [10.0]) == TimeError(60.0, 60.0, 30)


@given(
    st.integers(240, 2000),
    st.floats(1, 1000),
    st.floats(0, 0.42),
    st.sampled_from([0, 0.01, 0.1]),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_jitter_within_half_a_period_stays_within_the_bound(n, fps, jitter, share, seed):
    """DESIGN.md "Time": every implied time is within half a period + 1 ms of its stamp."""
    share = share if jitter < 0.12 else 0
    stamps, _ = dropped(n, share, seed, jitter * 1000 / fps, fps)
    timeline = fit_timeline(stamps)
    error = error_of(stamps, timeline, math.ceil(2 * fps))
    assert error.over_bound == 0, error
