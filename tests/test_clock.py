"""The clock: no exchange misleads by more than half its round trip, and corrected stamps never run backwards."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import (
    ClockCorrection,
    ClockFilter,
    ClockSample,
    CorrectedStamp,
    is_clock_sync_skipped,
    next_sample_in_s,
)

NOW_S = 1_700_000_000.0
NOW_MS = 1_700_000_000_000


def exchange(true_offset_ms: float, out_ms: float, back_ms: float, work_ms: float = 0.0) -> ClockSample | None:
    received_ms = NOW_MS + out_ms + true_offset_ms
    answered_s = (NOW_MS + out_ms + work_ms + back_ms) / 1000
    return ClockSample.of(NOW_S, received_ms, received_ms + work_ms, answered_s)


def correction(*samples: ClockSample) -> tuple[ClockFilter, ClockCorrection]:
    clock_filter = ClockFilter()
    for sample in samples:
        clock_filter.add(sample)
    return clock_filter, ClockCorrection(clock_filter)


def sample(offset_ms: float, delay_ms: float = 10.0, at_unix_s: float = NOW_S) -> ClockSample:
    return ClockSample(offset_ms, delay_ms, at_unix_s)


# Samples


@pytest.mark.parametrize(
    ("sent_s", "received_ms", "transmitted_ms", "answered_s", "offset_ms", "delay_ms"),
    [
        (100.0, 100_010.0, 100_010.0, 100.02, 0.0, 20.0),
        (100.0, 105_010.0, 105_010.0, 100.02, 5000.0, 20.0),
        (100.0, 95_010.0, 95_040.0, 100.05, -5000.0, 20.0),
        (100.0, 100_020.0, 100_020.0, 100.02, 10.0, 20.0),
        (100.0, 100_000.0, 100_000.0, 100.0, 0.0, 0.0),
    ],
)
def test_four_stamps_give_offset_and_delay(sent_s, received_ms, transmitted_ms, answered_s, offset_ms, delay_ms):
    got = ClockSample.of(sent_s, received_ms, transmitted_ms, answered_s)
    assert got is not None
    assert got.offset_ms == pytest.approx(offset_ms, abs=1e-6)
    assert got.delay_ms == pytest.approx(delay_ms, abs=1e-6)
    assert got.uncertainty_ms == got.delay_ms / 2
    assert got.at_unix_s == answered_s


@given(st.floats(-1e9, 1e9), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5))
def test_is_wrong_by_half_the_round_trip_at_most(true_offset_ms, out_ms, back_ms, work_ms):
    got = exchange(true_offset_ms, out_ms, back_ms, work_ms)
    assert got is not None
    assert got.delay_ms == pytest.approx(out_ms + back_ms, abs=2e-3)
    assert abs(got.offset_ms - true_offset_ms) <= got.uncertainty_ms + 2e-3


@pytest.mark.parametrize(
    "stamps",
    [
        (100.0, 100_000.0, 100_030.0, 100.02),
        (100.0, 100_000.0, 100_000.0, 99.9),
        (100.0, 100_010.0, 100_009.0, 100.02),
        (math.nan, 100_010.0, 100_010.0, 100.02),
        (100.0, math.inf, math.inf, 100.02),
        (100.0, 100_010.0, math.nan, 100.02),
    ],
    ids=["negative delay", "host set back", "platform set back", "nan", "inf", "nan of the platform"],
)
def test_an_exchange_during_which_a_clock_was_set_says_nothing(stamps):
    assert ClockSample.of(*stamps) is None


# Filter


def test_believes_the_fastest_of_the_last_eight():
    clock_filter = ClockFilter()
    assert clock_filter.estimate is None
    assert clock_filter.last_sample_unix_s is None
    clock_filter.add(sample(0.0, 5.0))
    for n in range(7):
        clock_filter.add(sample(1.0 + n, 20.0 + n, NOW_S + n))
    assert clock_filter.estimate == sample(0.0, 5.0)
    clock_filter.add(sample(3.0, 30.0, NOW_S + 8))
    assert clock_filter.estimate == sample(1.0, 20.0, NOW_S), "the ninth pushed the first out"
    assert (clock_filter.taken, clock_filter.last_sample_unix_s) == (9, NOW_S + 8)


def test_of_two_as_fast_believes_the_newer():
    clock_filter, _ = correction(sample(0.0), sample(1.0))
    assert clock_filter.estimate == sample(1.0)


def test_forgets_what_was_before_a_clock_was_set():
    clock_filter, _ = correction(sample(0.0, 1.0), sample(0.2, 1.0), sample(500.0, 50.0, NOW_S + 300))
    assert clock_filter.estimate == sample(500.0, 50.0, NOW_S + 300)
    assert clock_filter.taken == 3


def test_clocks_that_drift_are_not_clocks_that_were_set():
    clock_filter, _ = correction(sample(0.0, 1.0), sample(50.0, 2.0, NOW_S + 300))
    assert clock_filter.estimate == sample(0.0, 1.0)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), min_size=1, max_size=20), st.floats(-1e7, 1e7))
def test_no_delays_make_it_forget_or_mislead(delays, true_offset_ms):
    clock_filter = ClockFilter()
    for out_ms, back_ms in delays:
        got = exchange(true_offset_ms, out_ms, back_ms)
        assert got is not None
        clock_filter.add(got)
    estimate = clock_filter.estimate
    assert estimate is not None
    assert estimate.delay_ms == pytest.approx(min(sum(pair) for pair in delays[-8:]), abs=2e-3)
    assert abs(estimate.offset_ms - true_offset_ms) <= estimate.uncertainty_ms + 2e-3


# Correction


def test_before_the_first_sample_nothing_is_added_and_that_is_said():
    _, corrected = correction()
    assert corrected.stamp(NOW_MS) == CorrectedStamp(NOW_MS, None, None)
    status = corrected.status()
    assert (status.is_applied, status.samples, status.offset_ms, status.last_sample_unix_s) == (False, 0, None, None)
    assert "no sample" in status.reason
    assert corrected.status("switched off").reason == "switched off"


@pytest.mark.parametrize("offset_ms", [1500.4, -1500.4, 0.0])
def test_the_first_stamp_takes_the_whole_offset(offset_ms):
    _, corrected = correction(sample(offset_ms, 10.0))
    applied_ms = round(offset_ms)
    stamp = corrected.stamp(NOW_MS)
    assert (stamp.unix_ms, stamp.offset_ms) == (NOW_MS + applied_ms, applied_ms)
    assert type(stamp.offset_ms) is int
    assert stamp.uncertainty_ms == pytest.approx(5.0 + abs(offset_ms - applied_ms))


def test_a_forward_step_takes_effect_at_once_and_a_backward_one_at_5_ms_per_second():
    clock_filter, corrected = correction(sample(0.0))
    corrected.stamp(NOW_MS)
    clock_filter.add(sample(800.0))
    assert corrected.stamp(NOW_MS + 1).offset_ms == 800
    clock_filter.add(sample(700.0))
    offsets = [corrected.stamp(NOW_MS + 1 + elapsed_s * 1000).offset_ms for elapsed_s in (0, 1, 2, 10, 19, 20, 21, 100)]
    assert offsets == [800, 795, 790, 750, 705, 700, 700, 700]


def test_a_slew_is_as_fast_for_a_thousand_stamps_a_second_as_for_one():
    clock_filter, corrected = correction(sample(0.0))
    corrected.stamp(NOW_MS)
    clock_filter.add(sample(-100.0))
    offsets = [corrected.stamp(NOW_MS + elapsed_ms).offset_ms for elapsed_ms in range(10_001)]
    assert (offsets[0], offsets[1000], offsets[10_000]) == (0, -5, -50)


def test_the_time_before_a_slew_does_not_count_for_it():
    clock_filter, corrected = correction(sample(0.0))
    for elapsed_s in range(100):
        corrected.stamp(NOW_MS + elapsed_s * 1000)
    clock_filter.add(sample(-100.0))
    assert corrected.stamp(NOW_MS + 99_001).offset_ms == 0


def test_a_slew_that_was_ended_leaves_nothing_to_the_next():
    clock_filter, corrected = correction(sample(0.0))
    corrected.stamp(NOW_MS)
    clock_filter.add(sample(-100.0))
    assert corrected.stamp(NOW_MS + 199).offset_ms == 0
    clock_filter.add(sample(0.0))
    corrected.stamp(NOW_MS + 199)
    clock_filter.add(sample(-100.0))
    assert corrected.stamp(NOW_MS + 200).offset_ms == 0


def test_a_host_that_is_set_back_neither_speeds_nor_undoes_a_slew():
    clock_filter, corrected = correction(sample(0.0))
    corrected.stamp(NOW_MS)
    clock_filter.add(sample(-100.0))
    offsets = [corrected.stamp(NOW_MS + elapsed_s * 1000).offset_ms for elapsed_s in (2, -60, -58)]
    assert offsets == [-10, -10, -20]


def test_uncorrected_stamps_before_the_first_sample_are_not_run_past():
    clock_filter, corrected = correction()
    corrected.stamp(NOW_MS)
    clock_filter.add(sample(-50.0, 4.0))
    stamp = corrected.stamp(NOW_MS + 1)
    assert (stamp.unix_ms, stamp.offset_ms) == (NOW_MS + 1, 0)
    assert stamp.uncertainty_ms == pytest.approx(52.0), "it says what the slew has still to undo"


def test_follows_a_host_that_is_set_back_until_a_sample_shows_it():
    clock_filter, corrected = correction(sample(0.0))
    corrected.stamp(NOW_MS)
    assert corrected.stamp(NOW_MS - 60_000).unix_ms == NOW_MS - 60_000
    clock_filter.add(sample(60_000.0, 20.0))
    assert corrected.stamp(NOW_MS - 59_990).unix_ms == NOW_MS + 10


steps = st.lists(st.tuples(st.integers(0, 5000), st.none() | st.floats(-2000, 2000)), max_size=60)


@given(steps)
def test_stamps_never_run_backwards(steps):
    clock_filter, corrected = correction()
    host_ms, last_ms, last_offset_ms = NOW_MS, None, 0
    for elapsed_ms, offset_ms in steps:
        host_ms += elapsed_ms
        if offset_ms is not None:
            clock_filter.add(sample(offset_ms, 0.0, host_ms / 1000))
        stamp = corrected.stamp(host_ms)
        applied_ms = stamp.offset_ms or 0
        assert stamp.unix_ms == host_ms + applied_ms
        assert last_ms is None or stamp.unix_ms >= last_ms
        estimate = clock_filter.estimate
        if estimate is not None:
            target_ms = round(estimate.offset_ms)
            assert stamp.uncertainty_ms == estimate.uncertainty_ms + abs(applied_ms - estimate.offset_ms)
            assert applied_ms >= target_ms
            if last_ms is None or target_ms >= last_offset_ms:
                assert applied_ms == target_ms
            else:
                assert last_offset_ms - applied_ms <= elapsed_ms * 5 / 1000 + 1
        last_ms, last_offset_ms = stamp.unix_ms, applied_ms


@given(st.floats(-1e6, 1e6), st.floats(0, 500), st.floats(0, 500), st.integers(0, 10**6))
def test_a_stamp_is_wrong_by_no_more_than_it_says(true_offset_ms, out_ms, back_ms, later_ms):
    clock_filter, corrected = correction()
    corrected.stamp(NOW_MS)
    got = exchange(true_offset_ms, out_ms, back_ms)
    assert got is not None
    clock_filter.add(got)
    stamp = corrected.stamp(NOW_MS + later_ms)
    assert stamp.uncertainty_ms is not None
    assert abs(stamp.unix_ms - (NOW_MS + later_ms + true_offset_ms)) <= stamp.uncertainty_ms + 2e-3


def test_says_how_it_is():
    _, corrected = correction(sample(12.5, 8.0), sample(12.0, 9.0, NOW_S + 2))
    status = corrected.status("never said")
    assert (status.offset_ms, status.uncertainty_ms, status.samples) == (12.5, 4.0, 2)
    assert (status.last_sample_unix_s, status.is_applied, status.reason) == (NOW_S + 2, True, "")
    assert pickle.loads(pickle.dumps(status)) == status
    assert pickle.loads(pickle.dumps(corrected)).stamp(NOW_MS) == corrected.stamp(NOW_MS)


def test_four_samples_two_seconds_apart_then_one_every_five_minutes():
    assert [next_sample_in_s(taken) for taken in (0, 1, 2, 3, 4, 5, 1000)] == [0, 2, 2, 2, 300, 300, 300]


@pytest.mark.parametrize(
    ("value", "skipped"),
    [
        (None, False),
        ("", False),
        ("  ", False),
        ("0", False),
        (" 0 ", False),
        ("1", True),
        ("true", True),
        ("00", True),
    ],
)
def test_the_environment_can_switch_it_off(value, skipped):
    environ = {} if value is None else {"ATOMSCALE_SKIP_CLOCK_SYNC": value}
    assert is_clock_sync_skipped(environ) is skipped
